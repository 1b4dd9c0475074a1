//! Stage observe: actions become orders, orders become edits asked for. Changes no block and moves nobody.

use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1::{Action, Command, action};
use fortia_vec::RegionPos;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::rules::Task;
use super::view::View;
use super::{Territory, letter, rules};
use crate::order::Order;
use crate::wire;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The unit is not in the region.
    Absent,
    /// A stranger's command: it has no effect.
    Refused,
    /// The unit has a new order.
    Taken,
}

impl Territory {
    /// Stage observe of a tick: takes the actions that name regions of this territory, and returns the letters for
    /// stage edit. All chunks and entities must be loaded.
    pub fn observe(&mut self, tick: u64, actions: &[(RegionPos, Vec<Action>)]) -> Vec<pb::Letter> {
        let mut outbox = Vec::new();
        for (region, actions) in actions {
            if !self.owns(*region) {
                continue;
            }
            for action in in_order(actions) {
                self.receive(*region, action, &mut outbox);
            }
        }
        for id in self.active.clone() {
            outbox.extend(self.work(tick, id));
        }
        outbox
    }

    /// Carries an action out, or sends it to where it can be.
    fn receive(&mut self, region: RegionPos, action: &Action, outbox: &mut Vec<pb::Letter>) {
        let forward = |to| letter(to, pb::letter::Kind::Forward(action.clone()));
        match &action.kind {
            Some(action::Kind::Command(command)) => {
                let heard = self.command(region, &action.player, command);
                if heard == Heard::Absent {
                    // A unit goes one step a tick: it can have left for a neighbour since, not further.
                    let near = region.neighbours().into_iter().filter(|to| to.is_within(self.radius));
                    outbox.extend(near.map(forward));
                }
            }
            Some(action::Kind::Spawn(spawn)) => {
                let at = spawn.at.as_ref().map(wire::to_block_pos);
                let there = at.filter(|at| at.chunk().is_within(self.radius));
                outbox.extend(there.map(|at| forward(at.region())));
            }
            None => {}
        }
    }

    /// Gives a unit of the region a new order, if the player owns it.
    pub(super) fn command(&mut self, region: RegionPos, player: &str, command: &Command) -> Heard {
        let Some(mut unit) = self.take(command.unit, region) else { return Heard::Absent };
        if unit.owner != player {
            self.remember(unit);
            return Heard::Refused;
        }
        match Order::from_proto(&command.order.unwrap_or_default()) {
            Ok(order) => unit.command(order),
            Err(error) => unit.end(&error.to_string()),
        }
        let at = unit.at;
        self.stow(unit, Some(at));
        Heard::Taken
    }

    /// Asks for the edit of a unit that is in reach of its work, and ends orders that cannot be done.
    fn work(&mut self, tick: u64, id: u64) -> Option<pb::Letter> {
        let unit = self.entities.get(&id)?;
        match rules::task(unit, &View::new(self, unit.at), self.radius) {
            Task::Walk => None,
            Task::End(reason) => {
                self.end(id, reason);
                None
            }
            Task::Edit { at, expect, put } => {
                let edit = pb::Edit {
                    priority: 0,
                    // By tick, so that no unit is always first.
                    id: xxh3_64_with_seed(&id.to_le_bytes(), tick),
                    unit: id,
                    from: Some(wire::block_pos(unit.at)),
                    at: Some(wire::block_pos(at)),
                    expect: expect.kind(),
                    put: put.kind(),
                };
                self.pending.insert(id, (at, put));
                Some(letter(at.region(), pb::letter::Kind::Edit(edit)))
            }
        }
    }

    /// Ends a unit's order.
    pub(super) fn end(&mut self, id: u64, reason: &str) {
        if let Some(mut unit) = self.entities.remove(&id) {
            unit.end(reason);
            let at = unit.at;
            self.stow(unit, Some(at));
        }
    }
}

/// Actions in the order they apply, whatever the order they came in: by id, then player, then content.
pub(super) fn in_order(actions: &[Action]) -> Vec<&Action> {
    let mut actions: Vec<&Action> = actions.iter().collect();
    actions.sort_by_cached_key(|action| (action.id, action.player.clone(), action.encode_to_vec()));
    actions
}
