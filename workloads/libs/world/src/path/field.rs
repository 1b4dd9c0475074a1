//! One flow field: from every cell of an area the next step to one goal. Knows no unit and no tick.

use std::sync::Arc;

use fortia_vec::{BlockPos, Distance};

use super::area::{Area, CHUNKS, Land};
use super::goal::Goal;
use super::grid::Grid;
use super::pillar::SWIM;

/// Fields an area remembers; the one not used for longest goes first.
const FIELDS: usize = 8;

/// The next step to a goal from everywhere.
///
/// Where no way leads to the goal, a field for those cut off leads to the reachable cell nearest to it: the same end a unit on
/// its own finds. It is made only when one of them asks: that is dear, and caves without a door are many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Number of the first cell of each chunk.
    first: Vec<u32>,
    low: BlockPos,
    /// By cell.
    hops: Vec<Hop>,
}

/// Where a cell is, and where to go from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    /// Number of the next cell, or [`STAY`].
    next: u32,
    /// Blocks from the corner of the area.
    place: (u8, u8, u8),
}

/// There is no better place to go.
const STAY: u32 = u32::MAX;
/// Not reached yet.
const UNKNOWN: u32 = u32::MAX - 1;

/// The steps along a field.
#[derive(Debug, Clone)]
pub struct Steps<'a> {
    field: &'a Field,
    next: u32,
}

impl Iterator for Steps<'_> {
    type Item = BlockPos;

    #[inline]
    fn next(&mut self) -> Option<BlockPos> {
        let field = self.field;
        let hop = field.hops.get(self.next as usize)?;
        self.next = hop.next;
        let (x, y, z) = hop.place;
        Some(field.low.offset(i32::from(x), i32::from(y), i32::from(z)))
    }
}

impl Area {
    /// The field to a goal, made anew or remembered; `cut_off` when it must also serve those from whom no way leads there.
    /// `tick` says when it was used last.
    pub fn field(&mut self, goal: Goal, cut_off: bool, tick: u64, land: &mut Land<'_>) -> Arc<Field> {
        self.read_all(land);
        let key = (goal, cut_off);
        if let Some((used, field)) = self.fields.get_mut(&key) {
            *used = tick;
            return field.clone();
        }
        let field = Arc::new(self.flood(goal, cut_off, land));
        self.made += 1;
        if self.fields.len() >= FIELDS {
            let oldest = self.fields.iter().min_by_key(|(key, (used, _))| (*used, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.fields.remove(&oldest);
            }
        }
        self.fields.insert(key, (tick, field.clone()));
        field
    }

    /// How many cells there are: what a field costs in a budget.
    pub fn size(&mut self, land: &mut Land<'_>) -> u64 {
        self.read_all(land);
        (0..CHUNKS as u8).filter_map(|chunk| self.surface(chunk)).map(|surface| surface.len() as u64).sum()
    }

    /// The steps from a place along a field; none when there is no better place. `None` when the place is cut off from the
    /// goal and the field is not for those.
    #[inline]
    pub fn follow<'a>(&self, field: &'a Field, from: BlockPos) -> Option<Steps<'a>> {
        let Some(cell) = self.cell(from) else { return Some(Steps { field, next: STAY }) };
        let number = field.first[usize::from(cell.chunk)] + u32::from(cell.number);
        let next = field.hops.get(number as usize)?.next;
        (next != UNKNOWN).then_some(Steps { field, next })
    }

    fn flood(&mut self, goal: Goal, cut_off: bool, land: &mut Land<'_>) -> Field {
        let targets = self.targets(goal, land);
        let grid = self.grid.take().unwrap_or_else(|| Arc::new(Grid::of(self)));
        self.grid = Some(grid.clone());
        let hops = (0..grid.len() as u32).map(|number| Hop { next: UNKNOWN, place: grid.place(number) });
        let mut flood = Flood {
            hops: hops.collect(),
            costs: vec![u32::MAX; grid.len()],
            buckets: Default::default(),
            now: 0,
            grid,
        };
        let mut seeds: Vec<(u32, u32)> = Vec::new();
        match targets {
            Some(targets) => seeds.extend(targets.into_iter().map(|cell| (0, flood.grid.number(cell)))),
            None => (0..CHUNKS as u8).for_each(|chunk| {
                self.exits(chunk, |cell| seeds.push((self.rest(goal, cell), flood.grid.number(cell))));
            }),
        }
        seeds.sort_unstable();
        flood.run(seeds.into_iter());
        let low = self.position(0).origin();
        if cut_off {
            flood.run_rest(low, goal.at());
        }
        Field { first: flood.grid.first.clone(), low, hops: flood.hops }
    }
}

const BUCKETS: usize = SWIM as usize + 1;

/// A field that is being made: from the goal backwards, cheapest first.
struct Flood {
    grid: Arc<Grid>,
    hops: Vec<Hop>,
    costs: Vec<u32>,
    /// Cells by cost, in a ring one longer than the highest price.
    buckets: [Vec<u32>; BUCKETS],
    /// The cost that is looked at; it only grows.
    now: u32,
}

impl Flood {
    /// Reaches all cells from which a way leads to a seed. Seeds come ascending by what is to be paid from them on.
    fn run(&mut self, seeds: impl Iterator<Item = (u32, u32)>) {
        // What was reached by an earlier run stays cheaper than anything now, and so as it is.
        let begin = self.now;
        let mut seeds = seeds.map(|(cost, cell)| (begin.saturating_add(cost), cell)).peekable();
        let mut waiting = 0;
        loop {
            if waiting == 0 {
                let Some((cost, _)) = seeds.peek() else { break };
                self.now = *cost;
            }
            while let Some((_, cell)) = seeds.next_if(|(cost, _)| *cost <= self.now) {
                if self.now < self.costs[cell as usize] {
                    self.costs[cell as usize] = self.now;
                    self.hops[cell as usize].next = STAY;
                    self.buckets[self.now as usize % BUCKETS].push(cell);
                    waiting += 1;
                }
            }
            waiting = self.level(waiting);
            self.now += 1;
        }
    }

    /// Reaches the cells from which one step leads to one of those that cost what is looked at; returns how many wait.
    fn level(&mut self, mut waiting: usize) -> usize {
        let Flood { grid, hops, costs, buckets, now } = self;
        let mut level = std::mem::take(&mut buckets[*now as usize % BUCKETS]);
        waiting -= level.len();
        for cell in level.drain(..) {
            if costs[cell as usize] != *now {
                continue;
            }
            grid.steps_back(cell, |back, price| {
                let (i, cost) = (back as usize, *now + price);
                if cost < costs[i] {
                    costs[i] = cost;
                    hops[i].next = cell;
                    buckets[cost as usize % BUCKETS].push(back);
                    waiting += 1;
                }
            });
        }
        buckets[*now as usize % BUCKETS] = level;
        waiting
    }

    /// Lets the cells from which no way leads to the goal lead to the nearest they can reach.
    fn run_rest(&mut self, low: BlockPos, goal: BlockPos) {
        let rest = |(x, y, z): (u8, u8, u8)| {
            let place = low.offset(i32::from(x), i32::from(y), i32::from(z));
            goal.manhattan(place).min(u64::from(u32::MAX)) as u32
        };
        let unknown = self.hops.iter().enumerate().filter(|(_, hop)| hop.next == UNKNOWN);
        let mut left: Vec<(u32, u32)> = unknown.map(|(i, hop)| (rest(hop.place), i as u32)).collect();
        left.sort_unstable();
        for same in left.chunk_by(|a, b| a.0 == b.0) {
            self.run(same.iter().map(|(_, cell)| (0, *cell)));
        }
    }
}
