//! The coarse map of an area: where one gets from chunk to chunk, and what it costs inside of one. Knows no goal.

use std::sync::Arc;

use super::area::{Area, Cell, beside, edge};
use super::pillar::{Pillar, SWIM};
use super::surface::Surface;

/// Ways across a border that lie side by side are one gate, up to this width: a wide border has several.
const GATE: usize = 16;
/// The cost of what cannot be reached.
pub(super) const NEVER: u16 = u16::MAX;

/// One step from a chunk into the next, standing for those beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    /// The cell on this side.
    pub(super) from: u16,
    /// The cell on the other side.
    pub(super) to: u16,
    /// What the step costs.
    pub(super) price: u16,
}

/// A step across a border, with what decides whether the next one belongs to the same gate.
struct Crossing {
    gate: Gate,
    heights: (i32, i32),
}

impl Area {
    /// The gates over one side of a chunk. The chunk and those beside it must be read.
    pub(super) fn gates(&mut self, chunk: u8, side: usize) -> Arc<[Gate]> {
        let i = usize::from(chunk) * 4 + side;
        if let Some(known) = &self.gates[i] {
            return known.clone();
        }
        let next = beside(chunk, side).and_then(|next| self.surface(next));
        let found = match (self.surface(chunk), next) {
            (Some(here), Some(there)) => find(here, there, side),
            _ => Vec::new(),
        };
        let found: Arc<[Gate]> = found.into();
        self.gates[i] = Some(found.clone());
        found
    }

    /// What it costs to go from a cell to each other one of its chunk without leaving it.
    pub(super) fn costs(&mut self, from: Cell) -> Arc<[u16]> {
        let i = usize::from(from.chunk);
        if let Some(known) = self.costs[i].get(&from.number) {
            return known.clone();
        }
        let found: Arc<[u16]> = self.costs_anew(from).into();
        self.costs[i].insert(from.number, found.clone());
        found
    }

    /// As [`Area::costs`], for a cell that is not worth remembering.
    pub(super) fn costs_anew(&self, from: Cell) -> Vec<u16> {
        let mut costs = vec![NEVER; self.surface(from.chunk).map_or(0, |surface| surface.len())];
        // Prices are small: cells wait by cost in a ring of buckets, one more than the highest price.
        let mut buckets: [Vec<u16>; SWIM as usize + 1] = Default::default();
        costs[usize::from(from.number)] = 0;
        buckets[0].push(from.number);
        let (mut now, mut waiting) = (0u16, 1);
        while waiting > 0 {
            let slot = usize::from(now) % buckets.len();
            while let Some(number) = buckets[slot].pop() {
                waiting -= 1;
                if costs[usize::from(number)] != now {
                    continue;
                }
                self.steps(Cell { number, ..from }, |next, price| {
                    let cost = now.saturating_add(price as u16);
                    if next.chunk == from.chunk && cost < costs[usize::from(next.number)] {
                        costs[usize::from(next.number)] = cost;
                        buckets[usize::from(cost) % (SWIM as usize + 1)].push(next.number);
                        waiting += 1;
                    }
                });
            }
            now = now.saturating_add(1);
        }
        costs
    }

    /// Adds the way between two cells of a chunk, without the first, given what each costs from the first.
    pub(super) fn trace(&self, from: Cell, to: u16, costs: &[u16], way: &mut Vec<Cell>) {
        let begin = way.len();
        let mut at = Cell { number: to, ..from };
        while at != from {
            way.push(at);
            let cost = u32::from(costs[usize::from(at.number)]);
            let mut before: [Option<Cell>; 2] = [None, None];
            let here = self.place(at);
            let price = self.price(at);
            self.steps_back(at, |back| {
                if back.chunk == from.chunk && u32::from(costs[usize::from(back.number)]) + price == cost {
                    // Turns are taken between the axes, so that ways look straight from afar.
                    let along_x = self.place(back).x != here.x;
                    let good = along_x == ((here.x ^ here.y) & 1 == 0);
                    before[usize::from(!good)].get_or_insert(back);
                }
            });
            match before[0].or(before[1]) {
                Some(back) => at = back,
                // Not reached: costs of another cell. Nothing to go.
                None => {
                    way.truncate(begin);
                    return;
                }
            }
        }
        way[begin..].reverse();
    }
}

/// All gates between two chunks, by place along the border, then by height.
fn find(here: &Surface, there: &Surface, side: usize) -> Vec<Gate> {
    let mut groups: Vec<Vec<Crossing>> = Vec::new();
    // Groups that may go on, and the pillars of the place before.
    let mut open: Vec<usize> = Vec::new();
    let mut before = (Pillar::ROCK, Pillar::ROCK);
    for (at, beyond) in edge(side).zip(edge(side ^ 1)) {
        let (a, b) = (here.pillar(at), there.pillar(beyond));
        let mut going_on = Vec::new();
        for from in here.cells_of(at) {
            let (_, low) = here.spot(from);
            for high in a.steps(low, b) {
                let gate = Gate { from, to: there.number(beyond, high), price: b.price(high) as u16 };
                let crossing = Crossing { gate, heights: (low, high) };
                let beside = open.iter().position(|group| {
                    let last = groups[*group].last();
                    groups[*group].len() < GATE
                        && last.is_some_and(|last| {
                            last.gate.price == gate.price
                                && is_flat(before.0, last.heights.0, a, low)
                                && is_flat(before.1, last.heights.1, b, high)
                        })
                });
                let group = match beside {
                    Some(i) => open.swap_remove(i),
                    None => {
                        groups.push(Vec::new());
                        groups.len() - 1
                    }
                };
                groups[group].push(crossing);
                going_on.push(group);
            }
        }
        open = going_on;
        before = (a, b);
    }
    groups.iter().map(|group| group[group.len() / 2].gate).collect()
}

/// Whether one step leads from a cell to the one beside it, and one back.
fn is_flat(a: Pillar, low: i32, b: Pillar, high: i32) -> bool {
    a.steps(low, b).any(|z| z == high) && b.steps(high, a).any(|z| z == low)
}
