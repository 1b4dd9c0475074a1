//! The land a region's units plan on: the region and one chunk around it, read chunk by chunk when a search gets there.
//! Knows cells, their neighbours and what is remembered of them; knows no unit and no tick.
//!
//! Invariant: whatever is remembered here is a function of the surfaces; when one changes, what depended on it is
//! forgotten. So an area that was kept and one made anew answer alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use fortia_vec::{BlockPos, CHUNK, ChunkPos, Distance, REGION, RegionPos};

use super::field::Field;
use super::gates::Gate;
use super::goal::Goal;
use super::grid::Grid;
use super::surface::{PILLARS, Surface, WIDTH};

/// Chunks along each side of an area, and in all of it.
pub(super) const SIDE: usize = REGION as usize + 2;
pub(super) const CHUNKS: usize = SIDE * SIDE;
/// The four sides of a pillar or a chunk; the opposite of side i is i ^ 1.
pub(super) const SIDES: [(i32, i32); 4] = [(-1, 0), (1, 0), (0, -1), (0, 1)];

/// Where surfaces come from: none for a chunk that is not there.
pub type Land<'a> = dyn FnMut(ChunkPos) -> Option<Arc<Surface>> + 'a;

/// A cell of an area: which chunk of it, and the cell's number in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) chunk: u8,
    pub(super) number: u16,
}

/// What is known of a chunk.
#[derive(Debug, Clone)]
enum Slot {
    Unread,
    /// It was so, but may have changed.
    Stale(Option<Arc<Surface>>),
    Read(Option<Arc<Surface>>),
}

/// A region and one chunk around it.
#[derive(Debug, Clone)]
pub struct Area {
    low: ChunkPos,
    /// The edge of the world, in chunks.
    limit: u32,
    slots: Vec<Slot>,
    /// By chunk and side: the gates to the next chunk.
    pub(super) gates: Vec<Option<Arc<[Gate]>>>,
    /// By chunk: what it costs to go from a cell to each other cell of the chunk without leaving it.
    pub(super) costs: Vec<BTreeMap<u16, Arc<[u16]>>>,
    /// By goal, and whether for those cut off from it: when it was used last, and the field.
    pub(super) fields: BTreeMap<(Goal, bool), (u64, Arc<Field>)>,
    /// All cells in one piece, where a field was made.
    pub(super) grid: Option<Arc<Grid>>,
    /// Fields made so far, remembered or not.
    pub(super) made: u64,
}

impl Area {
    /// The area of a region in a world that ends at this limit (in chunks), with nothing read yet.
    pub fn new(region: RegionPos, limit: u32) -> Area {
        Area {
            low: region.origin().offset(-1, -1),
            limit,
            slots: vec![Slot::Unread; CHUNKS],
            gates: vec![None; CHUNKS * 4],
            costs: vec![BTreeMap::new(); CHUNKS],
            fields: BTreeMap::new(),
            grid: None,
            made: 0,
        }
    }

    /// The chunk may have changed: it is read again before it is used.
    pub fn stale(&mut self, at: ChunkPos) {
        if let Some(chunk) = self.index(at) {
            let slot = &mut self.slots[usize::from(chunk)];
            if let Slot::Read(known) = slot {
                *slot = Slot::Stale(known.take());
            }
        }
    }

    /// Reads a chunk unless it is known.
    pub(super) fn read(&mut self, chunk: u8, land: &mut Land<'_>) {
        let i = usize::from(chunk);
        let inside = self.position(chunk).is_within(self.limit);
        let known = match &mut self.slots[i] {
            Slot::Read(Some(_)) => return,
            // It may be made at any time.
            Slot::Read(None) if inside => Some(None),
            Slot::Read(None) => return,
            Slot::Unread => None,
            Slot::Stale(known) => Some(known.take()),
        };
        let found = land(self.position(chunk));
        // Kept when nothing changed that matters to walking.
        let same = known.as_ref().is_some_and(|known| *known == found);
        if known.is_some() && !same {
            self.forget(chunk);
        }
        self.slots[i] = Slot::Read(found);
    }

    /// Reads a chunk and those beside it.
    pub(super) fn read_around(&mut self, chunk: u8, land: &mut Land<'_>) {
        self.read(chunk, land);
        for side in 0..4 {
            if let Some(next) = beside(chunk, side) {
                self.read(next, land);
            }
        }
    }

    pub(super) fn read_all(&mut self, land: &mut Land<'_>) {
        for chunk in 0..CHUNKS as u8 {
            self.read(chunk, land);
        }
    }

    /// Drops all that depends on the surface of a chunk.
    fn forget(&mut self, chunk: u8) {
        self.costs[usize::from(chunk)].clear();
        for side in 0..4 {
            self.gates[usize::from(chunk) * 4 + side] = None;
            if let Some(next) = beside(chunk, side) {
                self.gates[usize::from(next) * 4 + (side ^ 1)] = None;
            }
        }
        self.fields.clear();
        self.grid = None;
    }

    #[inline]
    fn index(&self, at: ChunkPos) -> Option<u8> {
        let (x, y) = (at.x.checked_sub(self.low.x)?, at.y.checked_sub(self.low.y)?);
        let inside = 0..SIDE as i32;
        (inside.contains(&x) && inside.contains(&y)).then_some((x * SIDE as i32 + y) as u8)
    }

    /// The index of a place's chunk, if it is in the area.
    #[inline]
    pub(super) fn chunk_of(&self, at: BlockPos) -> Option<u8> {
        self.index(at.chunk())
    }

    #[inline]
    pub(super) fn position(&self, chunk: u8) -> ChunkPos {
        let chunk = i32::from(chunk);
        self.low.offset(chunk / SIDE as i32, chunk % SIDE as i32)
    }

    /// The surface of a chunk that was read and is there.
    #[inline]
    pub(super) fn surface(&self, chunk: u8) -> Option<&Arc<Surface>> {
        match &self.slots[usize::from(chunk)] {
            Slot::Read(surface) => surface.as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn place(&self, cell: Cell) -> BlockPos {
        let origin = self.position(cell.chunk).origin();
        let (pillar, z) = self.surface(cell.chunk).map_or((0, 0), |surface| surface.spot(cell.number));
        origin.offset(i32::from(pillar) % CHUNK, i32::from(pillar) / CHUNK, z)
    }

    /// The cell at a place, if a unit can be there and its chunk was read.
    #[inline]
    pub(super) fn cell(&self, at: BlockPos) -> Option<Cell> {
        let chunk = self.chunk_of(at)?;
        let (surface, pillar) = (self.surface(chunk)?, pillar_of(at));
        let number = surface.pillar(pillar).is_free(at.z).then(|| surface.number(pillar, at.z))?;
        Some(Cell { chunk, number })
    }

    /// Whether units leave the area over this side of a chunk: the world goes on there, but nothing is seen of it.
    pub(super) fn is_exit(&self, chunk: u8, side: usize) -> bool {
        let (x, y) = SIDES[side];
        let beyond = self.position(chunk).offset(x, y).is_within(self.limit);
        beyond && beside(chunk, side).is_none_or(|next| self.surface(next).is_none())
    }

    /// Calls `each` with every cell one step away, and what the step costs.
    pub(super) fn steps(&self, from: Cell, mut each: impl FnMut(Cell, u32)) {
        let Some(surface) = self.surface(from.chunk) else { return };
        let (at, z) = surface.spot(from.number);
        let here = surface.pillar(at);
        for side in 0..4 {
            self.beside(surface, from.chunk, at, side, |chunk, next, at| {
                let there = next.pillar(at);
                for z in here.steps(z, there) {
                    each(Cell { chunk, number: next.number(at, z) }, there.price(z));
                }
            });
        }
        if let Some(top) = here.rise(z) {
            each(Cell { chunk: from.chunk, number: surface.number(at, top) }, here.price(top));
        }
    }

    /// What a step into the cell costs, wherever it comes from.
    pub(super) fn price(&self, cell: Cell) -> u32 {
        self.surface(cell.chunk).map_or(1, |surface| {
            let (pillar, z) = surface.spot(cell.number);
            surface.pillar(pillar).price(z)
        })
    }

    /// Calls `each` with every cell from which one step leads to this one.
    pub(super) fn steps_back(&self, to: Cell, mut each: impl FnMut(Cell)) {
        let Some(surface) = self.surface(to.chunk) else { return };
        let (at, z) = surface.spot(to.number);
        let here = surface.pillar(at);
        for side in 0..4 {
            self.beside(surface, to.chunk, at, side, |chunk, next, at| {
                for z in here.steps_back(z, next.pillar(at)) {
                    each(Cell { chunk, number: next.number(at, z) });
                }
            });
        }
        for under in here.rise_back(z) {
            each(Cell { chunk: to.chunk, number: surface.number(at, under) });
        }
    }

    /// Calls `with` with the pillar beside one, if that can be seen.
    #[inline]
    fn beside(
        &self,
        surface: &Surface,
        chunk: u8,
        pillar: u8,
        side: usize,
        mut with: impl FnMut(u8, &Surface, u8),
    ) {
        match pillar_beside(pillar, side) {
            (next, true) => with(chunk, surface, next),
            (next, false) => {
                if let Some(chunk) = beside(chunk, side)
                    && let Some(surface) = self.surface(chunk)
                {
                    with(chunk, surface, next);
                }
            }
        }
    }

    /// The cells in which the goal is reached; `None` when it is out of sight.
    pub(super) fn targets(&mut self, goal: Goal, land: &mut Land<'_>) -> Option<Vec<Cell>> {
        let chunk = self.chunk_of(goal.at())?;
        self.read(chunk, land);
        self.surface(chunk)?;
        let mut found = Vec::new();
        for at in goal.pillars() {
            let Some(chunk) = self.chunk_of(at) else { continue };
            self.read(chunk, land);
            let Some(surface) = self.surface(chunk) else { continue };
            let pillar = pillar_of(at);
            for z in goal.heights(at, surface.pillar(pillar)) {
                found.push(Cell { chunk, number: surface.number(pillar, z) });
            }
        }
        Some(found)
    }

    /// What is still to go from there, at least, when the way leaves the area or cannot be gone.
    pub(super) fn rest(&self, goal: Goal, cell: Cell) -> u32 {
        u32::try_from(goal.at().manhattan(self.place(cell))).unwrap_or(u32::MAX / 2).min(u32::MAX / 2)
    }

    /// Every cell one step from a place and what the step costs; for whoever searches this land in another way.
    pub fn neighbours(&self, at: BlockPos) -> Vec<(BlockPos, u32)> {
        let mut found = Vec::with_capacity(6);
        if let Some(cell) = self.cell(at) {
            self.steps(cell, |next, price| found.push((self.place(next), price)));
        }
        found
    }
}

/// The chunk on that side, if it is in the area.
pub(super) fn beside(chunk: u8, side: usize) -> Option<u8> {
    let side_of = SIDE as u8;
    match side {
        0 => (chunk >= side_of).then(|| chunk - side_of),
        1 => (chunk < side_of * (side_of - 1)).then(|| chunk + side_of),
        2 => (!chunk.is_multiple_of(side_of)).then(|| chunk - 1),
        _ => (chunk % side_of != side_of - 1).then(|| chunk + 1),
    }
}

/// The pillar on that side, and whether it is in the same chunk.
pub(super) fn pillar_beside(pillar: u8, side: usize) -> (u8, bool) {
    let (x, y) = (pillar % WIDTH as u8, pillar / WIDTH as u8);
    let last = WIDTH as u8 - 1;
    match side {
        0 => (pillar.wrapping_sub(1).wrapping_add(if x == 0 { WIDTH as u8 } else { 0 }), x != 0),
        1 => (pillar.wrapping_add(1).wrapping_sub(if x == last { WIDTH as u8 } else { 0 }), x != last),
        2 => (pillar.wrapping_sub(WIDTH as u8), y != 0),
        _ => (pillar.wrapping_add(WIDTH as u8), y != last),
    }
}

/// The pillars of a chunk along one side, ascending.
pub(super) fn edge(side: usize) -> impl Iterator<Item = u8> {
    let (first, stride) = match side {
        0 => (0, WIDTH),
        1 => (WIDTH - 1, WIDTH),
        2 => (0, 1),
        _ => (PILLARS - WIDTH, 1),
    };
    (0..WIDTH).map(move |i| (first + i * stride) as u8)
}

fn pillar_of(at: BlockPos) -> u8 {
    (at.y.rem_euclid(CHUNK) * CHUNK + at.x.rem_euclid(CHUNK)) as u8
}
