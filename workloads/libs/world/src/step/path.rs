//! Ways over land and water in the nine chunks a unit sees. Knows where units can be and step, not why they go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use fortia_vec::{BlockPos, Distance};

use super::rules;
use super::view::View;
use crate::block::Block;
use crate::order::Order;

/// Cells looked at for one way; the nine chunks have 2304 columns.
const CELLS: usize = 4096;
/// Steps kept of one way; the rest is found when they are done.
const STEPS: usize = 64;
/// Blocks a unit climbs in one step, and falls without harm.
const CLIMB: i32 = 1;
const DROP: i32 = 3;
/// A step in water costs this many on land.
const SWIM: u32 = 3;

/// The way from `from` to where the order can be done, or as near to it as there is one: steps, next first.
/// `None` when no step brings it nearer.
pub(super) fn find(view: &View<'_>, from: BlockPos, order: Order) -> Option<Vec<BlockPos>> {
    let target = order.target()?;
    let (order, goal) = match order {
        Order::Move { to } => {
            let to = rules::snap(view, to);
            (Order::Move { to }, to)
        }
        other => (other, target),
    };
    let mut search = Search { goal, cells: BTreeMap::new(), open: BinaryHeap::new() };
    search.reach(from, 0, from);
    let mut nearest = (goal.manhattan(from), 0, from);
    while let Some(Reverse((_, _, at))) = search.open.pop() {
        let Some(cell) = search.cells.get_mut(&at) else { continue };
        if std::mem::replace(&mut cell.closed, true) {
            continue;
        }
        let cost = cell.cost;
        if rules::in_reach(order, at) {
            return search.way(from, at);
        }
        nearest = nearest.min((goal.manhattan(at), cost, at));
        if search.cells.len() < CELLS {
            steps(view, at, |next, cost_of_step| search.reach(next, cost + cost_of_step, at));
        }
    }
    // Strictly nearer, or a unit would go back and forth for ever.
    if nearest.0 < goal.manhattan(from) { search.way(from, nearest.2) } else { None }
}

struct Cell {
    cost: u32,
    from: BlockPos,
    closed: bool,
}

struct Search {
    goal: BlockPos,
    cells: BTreeMap<BlockPos, Cell>,
    /// By estimated whole cost, then by what is still to go, then by place: never by chance.
    open: BinaryHeap<Reverse<(u64, u64, BlockPos)>>,
}

impl Search {
    fn reach(&mut self, at: BlockPos, cost: u32, from: BlockPos) {
        let known = self.cells.get(&at);
        if known.is_some_and(|cell| cell.closed || cell.cost <= cost) {
            return;
        }
        self.cells.insert(at, Cell { cost, from, closed: false });
        let rest = BlockPos { z: at.z, ..self.goal }.manhattan(at);
        self.open.push(Reverse((rest + u64::from(cost), rest, at)));
    }

    fn way(&self, from: BlockPos, to: BlockPos) -> Option<Vec<BlockPos>> {
        let mut steps = Vec::new();
        let mut at = to;
        while at != from {
            steps.push(at);
            at = self.cells.get(&at)?.from;
        }
        steps.reverse();
        steps.truncate(STEPS);
        (!steps.is_empty()).then_some(steps)
    }
}

/// Calls `each` with every cell a unit can step to, and what that costs.
fn steps(view: &View<'_>, at: BlockPos, mut each: impl FnMut(BlockPos, u32)) {
    for (x, y) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
        for z in -DROP..=CLIMB {
            let next = at.offset(x, y, z);
            if can_step(view, at, next) {
                each(next, if view.block(next) == Some(Block::Water) { SWIM } else { 1 });
            }
        }
    }
    if let Some(top) = surface_above(view, at) {
        each(top, SWIM);
    }
}

/// Whether a unit can go from one cell to the other in one step.
pub(super) fn can_step(view: &View<'_>, from: BlockPos, to: BlockPos) -> bool {
    let sideways = from.x.abs_diff(to.x).saturating_add(from.y.abs_diff(to.y));
    if sideways == 0 {
        return surface_above(view, from) == Some(to);
    }
    let rise = to.z.saturating_sub(from.z);
    if sideways != 1 || !(-DROP..=CLIMB).contains(&rise) || !view.is_free(to) {
        return false;
    }
    // Room for the head: above the start when climbing, above the landing when dropping.
    let (low, x, y) = if rise > 0 { (from.z + 2, from.x, from.y) } else { (to.z + 2, to.x, to.y) };
    let high = from.z.max(to.z) + 1;
    (low..=high).all(|z| view.is_open(BlockPos { x, y, z }))
}

/// The top of the water a unit is under.
fn surface_above(view: &View<'_>, at: BlockPos) -> Option<BlockPos> {
    let water = |at: BlockPos| view.block(at) == Some(Block::Water);
    if !water(at) || !water(at.up()) {
        return None;
    }
    let mut top = at;
    while water(top.up()) {
        top = top.up();
    }
    view.is_free(top).then_some(top)
}
