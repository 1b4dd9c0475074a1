//! Who goes where in stage move: kept ways, shared fields, searches within the region's budget. Knows the walkers of a
//! region and their goals, not how ways are found.
//!
//! All that is decided here depends on the walkers of one region, on its land and one chunk around it as of the tick
//! before, and on the tick's number.

use std::collections::{BTreeMap, BTreeSet};

use fortia_vec::{BlockPos, ChunkPos, Distance, RegionPos};

use super::view::View;
use super::{Territory, task};
use crate::entity::Entity;
use crate::order::Order;
use crate::path::area::{Area, Land};
use crate::path::budget::{CELLS, Turns};
use crate::path::goal::Goal;

/// Steps a unit keeps of a way; the rest is found when they are done.
const STEPS: usize = 16;
/// Walkers of one region to one goal from which on they share a field.
const CROWD: usize = 16;
/// Steps after which a walker that has not come nearer to its goal gives up.
const PATIENCE: u32 = 1024;

/// What a walker does in this tick. Who is not named waits for its turn to search.
pub(super) enum Walk {
    /// One step, and the way from there on as far as it is known.
    Go { to: BlockPos, path: Vec<BlockPos> },
    /// No step brings it nearer to its goal.
    NoWay,
}

/// What the walkers of one region took in one stage move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// How many walked or wanted to.
    pub walkers: u64,
    /// Cells that were looked at to find ways.
    pub cells: u64,
}

impl Territory {
    /// What walkers took in the last stage move; regions without any are left out.
    pub fn efforts(&self) -> impl Iterator<Item = (RegionPos, Effort)> + '_ {
        self.efforts.iter().map(|(region, effort)| (*region, *effort))
    }

    /// How many flow fields were made here since the territory was: all who walk to one goal share one.
    pub fn fields_made(&self) -> u64 {
        self.ways.fields_made()
    }

    /// What walkers do in this tick.
    pub(super) fn walks(&mut self, tick: u64, walkers: &[u64]) -> BTreeMap<u64, Walk> {
        let mut regions = BTreeMap::<RegionPos, Vec<&Entity>>::new();
        let mut ways = std::mem::take(&mut self.ways);
        for unit in walkers.iter().filter_map(|id| self.entities.get(id)) {
            regions.entry(unit.at.region()).or_default().push(unit);
        }
        let mut walks = BTreeMap::new();
        self.efforts.clear();
        for (region, units) in regions {
            let mut effort = Effort { walkers: units.len() as u64, cells: 0 };
            let mut crowds = BTreeMap::<Goal, usize>::new();
            let mut searchers = BTreeMap::new();
            for unit in units {
                let Some(goal) = task::goal(unit.order) else { continue };
                *crowds.entry(goal).or_default() += 1;
                match kept(unit, &View::new(self, unit.at)) {
                    Some(walk) => {
                        walks.insert(unit.id, walk);
                    }
                    None => {
                        searchers.insert(unit.id, (unit, goal));
                    }
                }
            }
            if !searchers.is_empty() {
                let crowds = crowds.into_iter().filter(|(_, walkers)| *walkers >= CROWD);
                let crowds = crowds.map(|(goal, _)| goal).collect();
                let search =
                    |area: &mut Area, land: &mut Land<'_>| search(area, land, tick, &searchers, &crowds);
                let surface = |at: ChunkPos| self.seen(at).map(|seen| seen.surface());
                let (found, cells) = ways.with_area(region, self.limit, tick, surface, search);
                walks.extend(found);
                effort.cells = cells;
            }
            self.efforts.insert(region, effort);
        }
        ways.tidy(tick);
        self.ways = ways;
        walks
    }
}

/// The next step of the way that was found before, while it can be gone.
fn kept(unit: &Entity, view: &View<'_>) -> Option<Walk> {
    let to = *unit.path.first()?;
    can_step(view, unit.at, to).then(|| Walk::Go { to, path: unit.path[1..].to_vec() })
}

/// Whether a unit can go from one cell to the other in one step.
fn can_step(view: &View<'_>, from: BlockPos, to: BlockPos) -> bool {
    match from.x.abs_diff(to.x).saturating_add(from.y.abs_diff(to.y)) {
        0 => view.pillar(from).rise(from.z) == Some(to.z),
        1 => view.pillar(from).steps(from.z, view.pillar(to)).any(|z| z == to.z),
        _ => false,
    }
}

/// Finds ways for units of one region, in turns, until the budget is spent; and what that cost, in cells.
fn search(
    area: &mut Area,
    land: &mut Land<'_>,
    tick: u64,
    searchers: &BTreeMap<u64, (&Entity, Goal)>,
    crowds: &BTreeSet<Goal>,
) -> (BTreeMap<u64, Walk>, u64) {
    let (mut walks, mut cells) = (BTreeMap::new(), 0);
    // Each is made, and paid for, once a tick, however few an area remembers.
    let mut fields = BTreeMap::new();
    let owners = searchers.values().map(|(unit, _)| (unit.owner.as_str(), unit.id));
    let mut turns = Turns::new(owners, CELLS, tick);
    while let Some(turn) = turns.next_turn() {
        let mut cost = 1;
        if let Some((unit, goal)) = searchers.get(&turn.unit) {
            let mut steps = if crowds.contains(goal) {
                let most = steps_kept(unit, *goal);
                let mut along = |cut_off: bool| {
                    let field = fields.entry((*goal, cut_off)).or_insert_with(|| {
                        // What is remembered must not be cheaper: who searches in a tick may not depend on it.
                        cost += area.size(land);
                        area.field(*goal, cut_off, tick, land)
                    });
                    area.follow(field, unit.at).map(|steps| steps.take(most).collect::<Vec<_>>())
                };
                along(false).or_else(|| along(true)).unwrap_or_default()
            } else {
                let plan = area.plan(unit.at, *goal, steps_kept(unit, *goal), land);
                cost += plan.searched;
                plan.steps
            };
            let walk = if steps.is_empty() {
                Walk::NoWay
            } else {
                let to = steps.remove(0);
                Walk::Go { to, path: steps }
            };
            walks.insert(turn.unit, walk);
        }
        cells += cost;
        turns.spend(turn, cost);
    }
    (walks, cells)
}

/// Steps worth keeping: few where the goal moves.
fn steps_kept(unit: &Entity, goal: Goal) -> usize {
    match unit.order {
        Order::Attack { .. } => (goal.at().manhattan(unit.at) / 4).clamp(1, STEPS as u64) as usize,
        _ => STEPS,
    }
}

/// Notes how a step changed the unit's distance to its goal. Returns whether it is out of patience: so every walk ends,
/// whatever is built in its way.
pub(super) fn is_lost(unit: &mut Entity) -> bool {
    let Some(goal) = task::goal(unit.order) else { return false };
    let rest = u32::try_from(goal.at().manhattan(unit.at)).unwrap_or(u32::MAX).max(1);
    if unit.nearest == 0 || rest < unit.nearest {
        unit.nearest = rest;
        unit.astray = 0;
    } else {
        unit.astray += 1;
    }
    unit.astray > PATIENCE
}
