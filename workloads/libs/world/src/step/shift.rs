//! Stage move: units learn what became of their edits, walk one step, and fall or rise where the ground changed.

use std::collections::BTreeSet;

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, RegionPos};

use super::rules::{self, DONE, NO_WAY, Task};
use super::view::View;
use super::{Territory, letter, path};
use crate::block::{Block, Goods};
use crate::entity::Entity;
use crate::order::Order;
use crate::wire;

/// What a unit does in this stage.
enum Step {
    Stay,
    End(&'static str),
    Go { to: BlockPos, path: Vec<BlockPos> },
}

impl Territory {
    /// Stage move of a tick: takes the letters of stage edit and returns those for the commit.
    pub fn shift(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Vec<pb::Letter> {
        let _ = tick;
        for letter in inbox {
            let (Some(to), Some(pb::letter::Kind::Outcome(outcome))) = (letter.to, letter.kind) else {
                continue;
            };
            self.learn(wire::to_region_pos(&to), &outcome);
        }
        let mut outbox = Vec::new();
        let mut moved = BTreeSet::new();
        for id in self.active.clone() {
            // Whoever worked in this tick does not walk in it.
            if self.pending.contains_key(&id) {
                continue;
            }
            match self.step(id) {
                Step::Stay => {}
                Step::End(reason) => self.end(id, reason),
                Step::Go { to, path } => {
                    moved.insert(id);
                    outbox.extend(self.walk(id, to, path));
                }
            }
        }
        for at in std::mem::take(&mut self.edited) {
            let units = self.columns.get(&at.chunk()).into_iter().flat_map(|column| column.entities());
            let above = |id: &&u64| self.entities.get(*id).is_some_and(|u| (u.at.x, u.at.y) == (at.x, at.y));
            moved.extend(units.filter(above));
        }
        moved.into_iter().for_each(|id| self.settle(id));
        outbox
    }

    /// Takes the outcome of an edit: goods change hands, and the order ends or goes on up the trunk.
    fn learn(&mut self, region: RegionPos, outcome: &pb::Outcome) {
        let Some((at, put)) = self.pending.get(&outcome.unit).copied() else { return };
        let Some(mut unit) = self.take(outcome.unit, region) else { return };
        if outcome.done {
            let taken = Block::from_kind(outcome.taken).unwrap_or_default();
            unit.goods = match put.cost() {
                Some(cost) => unit.goods.minus(cost).unwrap_or_default(),
                None => unit.goods.plus(if put == Block::Air { taken.yields() } else { Goods::default() }),
            };
        }
        if !self.redirected.contains(&unit.id) {
            let higher = Order::Chop { at: at.up() };
            let goes_on = outcome.done
                && matches!(unit.order, Order::Chop { .. })
                && rules::in_reach(higher, unit.at)
                && View::new(self, unit.at).block(at.up()) == Some(Block::Wood);
            if goes_on {
                unit.command(higher);
            } else {
                unit.end(if outcome.done { DONE } else { &outcome.reason });
            }
        }
        let was = unit.at;
        self.stow(unit, Some(was));
    }

    /// What an active unit does, by the world of the tick before.
    fn step(&self, id: u64) -> Step {
        let Some(unit) = self.entities.get(&id) else { return Step::Stay };
        let view = View::new(self, unit.at);
        match rules::task(unit, &view, self.radius) {
            Task::Edit { .. } => Step::Stay,
            Task::End(reason) => Step::End(reason),
            Task::Walk => match way(unit, &view) {
                Some((to, path)) => Step::Go { to, path },
                None => Step::End(NO_WAY),
            },
        }
    }

    /// Moves a unit one step. Returns its letter when that leads into another region.
    fn walk(&mut self, id: u64, to: BlockPos, path: Vec<BlockPos>) -> Option<pb::Letter> {
        let unit = self.entities.get(&id)?;
        let was = unit.at;
        let arrived = match unit.order {
            Order::Move { to: goal } => path.is_empty() && rules::snap(&View::new(self, was), goal) == to,
            _ => false,
        };
        self.active.remove(&id);
        let mut unit = self.entities.remove(&id)?;
        unit.at = to;
        unit.path = path;
        if arrived {
            unit.end(DONE);
        }
        if to.region() == was.region() {
            self.stow(unit, Some(was));
            return None;
        }
        if let Some(column) = self.column_mut(was.chunk()) {
            column.set_entity(id, false);
        }
        self.dirty_entities.remove(&id);
        Some(letter(to.region(), pb::letter::Kind::Arrival(unit.to_proto())))
    }

    /// Lifts a unit out of what was built in its place, or drops it where the ground is gone.
    fn settle(&mut self, id: u64) {
        let Some(unit) = self.entities.get(&id) else { return };
        let (was, to) = (unit.at, self.settled(unit.at));
        if to != was
            && let Some(mut unit) = self.entities.remove(&id)
        {
            unit.at = to;
            self.stow(unit, Some(was));
        }
    }
}

/// The next step and the rest of the way: the one found before while it can be gone, else a new one.
fn way(unit: &Entity, view: &View<'_>) -> Option<(BlockPos, Vec<BlockPos>)> {
    let kept = unit.path.first().filter(|next| path::can_step(view, unit.at, **next));
    let mut steps = match kept {
        Some(_) => unit.path.clone(),
        None => path::find(view, unit.at, unit.order)?,
    };
    let next = steps.remove(0);
    Some((next, steps))
}
