//! Stage move: units learn what became of their edits, walk one step, and fall or rise where the ground changed.

use std::collections::BTreeSet;

use fortia_proto::tick::v1 as pb;
use fortia_vec::BlockPos;

use super::task::{self, DONE, NO_WAY, Task};
use super::view::View;
use super::wake::loaded;
use super::walk::{Walk, is_lost};
use super::{StepError, Territory};
use crate::entity::{Due, Entity, Event};
use crate::order::Order;

impl Territory {
    /// Stage move of a tick: takes the letters of stage edit and returns those for the commit. What stage edit has made
    /// missing must be loaded, as of the tick before.
    ///
    /// # Errors
    /// As [`Territory::observe`].
    pub fn shift(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Result<Vec<pb::Letter>, StepError> {
        self.ready()?;
        let mut outbox = self.hear(tick, &inbox)?;
        outbox.extend(self.send_home());
        let (walkers, ended) = self.walkers();
        let mut moved = BTreeSet::new();
        for (id, walk) in self.walks(tick, &walkers) {
            match walk {
                Walk::NoWay => self.finish(tick, id, NO_WAY),
                Walk::Go { to, path } => {
                    moved.insert(id);
                    outbox.extend(self.walk(tick, id, to, path));
                }
            }
        }
        ended.into_iter().for_each(|(id, reason)| self.finish(tick, id, reason));
        moved.extend(self.shaken());
        moved.into_iter().for_each(|id| self.settle(id));
        self.sound(outbox)
    }

    /// Those above or below a block that changed.
    fn shaken(&mut self) -> Vec<u64> {
        let mut shaken = Vec::new();
        for (at, before) in self.before.iter().filter(|(_, before)| !before.is_empty()) {
            self.ways.stale(*at);
            let Some(column) = self.columns.get(at).filter(|column| !column.entities().is_empty()) else {
                continue;
            };
            let lines: BTreeSet<(u8, u8)> = before.iter().map(|(at, _)| (at.x, at.y)).collect();
            let line = |unit: &Entity| unit.at.local().map(|at| (at.x, at.y));
            let there =
                |id: &&u64| self.entities.get(*id).and_then(line).is_some_and(|at| lines.contains(&at));
            shaken.extend(column.entities().iter().filter(there));
        }
        shaken
    }

    /// Who walks, by the world of the tick before, and whose order is over.
    fn walkers(&self) -> (Vec<u64>, Vec<(u64, &'static str)>) {
        let (mut walkers, mut ended) = (Vec::new(), Vec::new());
        // Whoever worked in this tick does not walk in it.
        let idle = self.active.iter().filter(|id| !self.pending.contains_key(id));
        for unit in idle.filter_map(|id| self.entities.get(id)) {
            match task::task(unit, &View::new(self, unit.at), self.limit) {
                // Told only now, in stage edit: it strikes in the next tick.
                Task::Strike if task::in_reach(unit.order, unit.at) => {}
                Task::Walk | Task::Strike => walkers.push(unit.id),
                Task::End(reason) => ended.push((unit.id, reason)),
                Task::Edit { .. } | Task::Pay(_) | Task::Train(_) => {}
            }
        }
        (walkers, ended)
    }

    /// Moves a unit one step. Returns its letter when that leads into another region.
    fn walk(&mut self, tick: u64, id: u64, to: BlockPos, path: Vec<BlockPos>) -> Option<pb::Letter> {
        let unit = self.entities.get(&id)?;
        let was = unit.at;
        let arrived = match unit.order {
            Order::Move { to: goal } => path.is_empty() && task::snap(&View::new(self, was), goal) == to,
            _ => false,
        };
        let step = |unit: &mut Entity| {
            unit.at = to;
            unit.path = path;
            if arrived { Some(DONE) } else { is_lost(unit).then_some(NO_WAY) }
        };
        if to.region() == was.region() {
            let mut end = None;
            self.change(id, |unit| end = step(unit));
            if let Some(reason) = end {
                self.finish(tick, id, reason);
            }
            return None;
        }
        self.send(id, |unit| {
            if let Some(reason) = step(unit) {
                unit.end(reason);
                // What is beside it is not seen from here.
                unit.due = loaded(unit).then_some(Due { event: Event::Unloads, tick: tick + 1 });
            }
        })
    }

    /// Lifts a unit out of what was built in its place, or drops it where the ground is gone.
    fn settle(&mut self, id: u64) {
        let Some(unit) = self.entities.get(&id).filter(|it| it.kind.is_unit()) else { return };
        let (was, to) = (unit.at, self.settled(unit.at));
        if to != was
            && let Some(mut unit) = self.entities.remove(&id)
        {
            unit.at = to;
            self.stow(unit, Some(was));
        }
    }
}
