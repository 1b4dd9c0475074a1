//! The way of one unit: A* from gate to gate over the coarse map, then cell by cell for the first steps. Knows no other
//! unit and no tick.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use fortia_vec::{BlockPos, CHUNK, Distance};

use super::area::{Area, CHUNKS, Cell, Land, beside, edge};
use super::gates::NEVER;
use super::goal::Goal;

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The first steps, next first; none when no step leads nearer to the goal.
    pub steps: Vec<BlockPos>,
    /// Cells looked at by a search that remembers nothing: what the plan costs in a budget.
    pub searched: u64,
}

/// A way to a gate or to the end that is still to be looked at: by estimated whole cost, then by what is still to go, then
/// by place, never by chance.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    whole: u64,
    rest: u64,
    /// Where it leads; the end of all ways is behind every gate.
    is_end: bool,
    to: Cell,
    cost: u32,
    /// The visit it comes from, and the cell there at which the chunk is left.
    before: usize,
    from: u16,
}

/// A chunk entered at a cell, with the way there.
struct Visit {
    at: Cell,
    cost: u32,
    costs: Arc<[u16]>,
    before: usize,
    from: u16,
}

struct Search<'a> {
    area: &'a mut Area,
    goal: Goal,
    targets: Option<Vec<Cell>>,
    /// Lowest cost so far, by chunk and side entered, then by gate.
    reached: Vec<Vec<u32>>,
    open: BinaryHeap<Reverse<Waiting>>,
    /// By chunk: the cells in which it was entered.
    entered: Vec<Vec<u16>>,
    visits: Vec<Visit>,
    searched: u64,
}

impl Area {
    /// The first steps, at most `most`, of a cheap way to the goal. A goal out of the area is approached: the way ends where
    /// the area does. When there is no way, it ends at the nearest cell that can be reached, if that is nearer than `from`.
    pub fn plan(&mut self, from: BlockPos, goal: Goal, most: usize, land: &mut Land<'_>) -> Plan {
        let Some(chunk) = self.chunk_of(from) else { return Plan::default() };
        self.read(chunk, land);
        let Some(start) = self.cell(from) else { return Plan::default() };
        let targets = self.targets(goal, land);
        let mut search = Search {
            area: self,
            goal,
            targets,
            reached: vec![Vec::new(); CHUNKS * 4],
            open: BinaryHeap::new(),
            entered: vec![Vec::new(); CHUNKS],
            visits: Vec::new(),
            searched: 0,
        };
        let end = search.run(start, land);
        let searched = search.searched;
        let steps = end.map(|(visit, cell)| search.steps(visit, cell, most)).unwrap_or_default();
        Plan { steps, searched }
    }
}

impl Search<'_> {
    /// The last visit of the best way, and the cell in which the way ends.
    fn run(&mut self, start: Cell, land: &mut Land<'_>) -> Option<(usize, u16)> {
        let costs = self.area.costs_anew(start).into();
        self.visit(Visit { at: start, cost: 0, costs, before: 0, from: start.number }, land);
        while let Some(Reverse(next)) = self.open.pop() {
            if next.is_end {
                return Some((next.before, next.to.number));
            }
            // The estimate never shrinks by more than a step costs, so who comes first came the cheapest way.
            let entered = &mut self.entered[usize::from(next.to.chunk)];
            if !entered.contains(&next.to.number) {
                entered.push(next.to.number);
                let costs = self.area.costs(next.to);
                let (at, cost) = (next.to, next.cost);
                self.visit(Visit { at, cost, costs, before: next.before, from: next.from }, land);
            }
        }
        self.nearest(start)
    }

    /// Goes on from a cell in which a chunk was entered.
    fn visit(&mut self, visit: Visit, land: &mut Land<'_>) {
        let chunk = visit.at.chunk;
        self.area.read_around(chunk, land);
        self.searched += visit.costs.len() as u64;
        self.end_here(&visit);
        for side in 0..4 {
            let Some(next) = beside(chunk, side) else { continue };
            let gates = self.area.gates(chunk, side);
            let slot = usize::from(next) * 4 + (side ^ 1);
            self.reached[slot].resize(gates.len(), u32::MAX);
            for (i, gate) in gates.iter().enumerate() {
                let inside = visit.costs[usize::from(gate.from)];
                let cost = visit.cost + u32::from(inside) + u32::from(gate.price);
                if inside == NEVER || self.reached[slot][i] <= cost {
                    continue;
                }
                self.reached[slot][i] = cost;
                let to = Cell { chunk: next, number: gate.to };
                let rest = self.estimate(to);
                let (before, from) = (self.visits.len(), gate.from);
                let whole = u64::from(cost) + rest;
                self.open.push(Reverse(Waiting { whole, rest, is_end: false, to, cost, before, from }));
            }
        }
        self.visits.push(visit);
    }

    /// Lets the way end in this chunk, if it can: in a cell of the goal, or where it leaves the area towards it.
    fn end_here(&mut self, visit: &Visit) {
        let chunk = visit.at.chunk;
        let mut best: Option<(u64, u16)> = None;
        let mut consider = |number: u16, rest: u32| {
            let inside = visit.costs[usize::from(number)];
            if inside != NEVER {
                let whole = u64::from(visit.cost) + u64::from(inside) + u64::from(rest);
                best = Some(best.map_or((whole, number), |best| best.min((whole, number))));
            }
        };
        match &self.targets {
            Some(targets) => {
                targets.iter().filter(|cell| cell.chunk == chunk).for_each(|cell| consider(cell.number, 0));
            }
            None => self.area.exits(chunk, |cell| consider(cell.number, self.area.rest(self.goal, cell))),
        }
        if let Some((whole, number)) = best {
            let (to, before) = (Cell { chunk, number }, self.visits.len());
            self.open.push(Reverse(Waiting { whole, rest: 0, is_end: true, to, cost: 0, before, from: 0 }));
        }
    }

    /// What is at least still to pay from a cell.
    fn estimate(&self, cell: Cell) -> u64 {
        let (here, goal) = (self.area.place(cell), self.goal.at());
        let all = BlockPos { z: here.z, ..goal }.manhattan(here);
        all.saturating_sub(2 * u64::from(self.goal.sideways()))
    }

    /// The reached cell nearest to the goal, if it is nearer than the start: else a unit would go back and forth for ever.
    fn nearest(&self, start: Cell) -> Option<(usize, u16)> {
        let mut best = (self.area.rest(self.goal, start), 0, BlockPos::default());
        let mut found = None;
        for (i, visit) in self.visits.iter().enumerate() {
            if self.distance(visit.at.chunk) > u64::from(best.0) {
                continue;
            }
            for (number, inside) in visit.costs.iter().enumerate().filter(|(_, cost)| **cost != NEVER) {
                let cell = Cell { chunk: visit.at.chunk, number: number as u16 };
                let here =
                    (self.area.rest(self.goal, cell), visit.cost + u32::from(*inside), self.area.place(cell));
                if here < best {
                    best = here;
                    found = Some((i, cell.number));
                }
            }
        }
        found
    }

    /// Blocks between the goal and a chunk, sideways.
    fn distance(&self, chunk: u8) -> u64 {
        let (low, goal) = (self.area.position(chunk).origin(), self.goal.at());
        let inside = BlockPos::new(
            goal.x.clamp(low.x, low.x.saturating_add(CHUNK - 1)),
            goal.y.clamp(low.y, low.y.saturating_add(CHUNK - 1)),
            goal.z,
        );
        inside.manhattan(goal)
    }

    /// The way to a cell of a visited chunk, cell by cell.
    fn steps(&self, last: usize, end: u16, most: usize) -> Vec<BlockPos> {
        let mut legs = vec![(last, end)];
        let mut at = last;
        while at != 0 {
            let visit = &self.visits[at];
            legs.push((visit.before, visit.from));
            at = visit.before;
        }
        let mut way = Vec::new();
        for (i, exit) in legs.into_iter().rev() {
            let visit = &self.visits[i];
            if i != 0 {
                way.push(visit.at);
            }
            self.area.trace(visit.at, exit, &visit.costs, &mut way);
            if way.len() >= most {
                break;
            }
        }
        way.truncate(most);
        way.into_iter().map(|cell| self.area.place(cell)).collect()
    }
}

impl Area {
    /// Calls `each` with the cells of a chunk from which the next step may lead out of the area.
    pub(super) fn exits(&self, chunk: u8, mut each: impl FnMut(Cell)) {
        let Some(surface) = self.surface(chunk) else { return };
        for side in (0..4).filter(|side| self.is_exit(chunk, *side)) {
            for pillar in edge(side) {
                surface.cells_of(pillar).for_each(|number| each(Cell { chunk, number }));
            }
        }
    }
}
