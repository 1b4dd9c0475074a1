//! Stage observe: what was due wakes up, actions become orders, orders become letters that ask for something. Changes no
//! block and moves nobody.

use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1::{Action, Command, action};
use fortia_vec::RegionPos;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::strike::{blows, regions_near};
use super::task::{self, Task};
use super::view::View;
use super::{Pending, StepError, Territory, letter};
use crate::entity::{Due, Entity, Event, Kind};
use crate::goods::Goods;
use crate::order::Order;
use crate::wire;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The unit is not in the region.
    Absent,
    /// A stranger's command: it has no effect.
    Refused,
    /// The unit has a new order, or was told why it has none.
    Taken,
}

impl Territory {
    /// Stage observe of a tick: takes the actions that name regions of this territory, and returns the letters for
    /// stage edit. All chunks and entities must be loaded.
    ///
    /// # Errors
    /// When something would be lost. The territory must be thrown away then, and the tick be run again.
    pub fn observe(
        &mut self,
        tick: u64,
        actions: &[(RegionPos, Vec<Action>)],
    ) -> Result<Vec<pb::Letter>, StepError> {
        self.ready()?;
        let mut outbox = self.approach();
        self.wake(tick, &mut outbox);
        for (region, actions) in actions {
            if !self.owns(*region) {
                continue;
            }
            for action in in_order(actions) {
                self.receive(tick, *region, action, &mut outbox);
            }
        }
        for id in self.active.clone() {
            // Whoever unloads does nothing else in this tick.
            if !self.pending.contains_key(&id) {
                outbox.extend(self.work(tick, id));
            }
        }
        self.sound(outbox)
    }

    /// Carries an action out, or sends it to where it can be.
    fn receive(&mut self, tick: u64, region: RegionPos, action: &Action, outbox: &mut Vec<pb::Letter>) {
        let forward = |to| letter(to, pb::letter::Kind::Forward(Box::new(action.clone())));
        match &action.kind {
            Some(action::Kind::Command(command)) => {
                if self.command(region, &action.player, command) != Heard::Absent {
                    return;
                }
                let seen = command.at.as_ref().map(wire::to_block_pos);
                let near = seen.map(|at| regions_near(at, tick.saturating_sub(command.seen), self.limit));
                let others = near.into_iter().flatten().filter(|to| *to != region);
                outbox.extend(others.map(forward));
            }
            Some(action::Kind::Spawn(spawn)) => {
                let at = spawn.at.as_ref().map(wire::to_block_pos);
                let there = at.filter(|at| at.chunk().is_within(self.limit));
                outbox.extend(there.map(|at| forward(at.region())));
            }
            None => {}
        }
    }

    /// Gives an entity of the region a new order, if the player owns it. An order it does not take ends at once.
    pub(super) fn command(&mut self, region: RegionPos, player: &str, command: &Command) -> Heard {
        let Some(mut unit) = self.take(command.unit, region) else { return Heard::Absent };
        if unit.owner != player {
            self.remember(unit);
            return Heard::Refused;
        }
        match Order::from_proto(&command.order.unwrap_or_default()) {
            Ok(order) => match unit.refuses(order) {
                // Who is dead or busy goes on with that.
                Some(reason) if unit.is_occupied() => unit.outcome = reason,
                Some(reason) => unit.end(&reason),
                None => unit.command(order),
            },
            Err(error) => unit.end(&error.to_string()),
        }
        let at = unit.at;
        self.stow(unit, Some(at));
        Heard::Taken
    }

    /// Asks for what an active entity needs, and ends orders that cannot be done.
    fn work(&mut self, tick: u64, id: u64) -> Vec<pb::Letter> {
        let Some(unit) = self.entities.get(&id) else { return Vec::new() };
        // By tick, so that no unit is always first.
        let lot = xxh3_64_with_seed(&id.to_le_bytes(), tick);
        let (letters, asked) = match task::task(unit, &View::new(self, unit.at), self.limit) {
            Task::Walk => return Vec::new(),
            Task::End(reason) => {
                self.finish(tick, id, reason);
                return Vec::new();
            }
            Task::Train(kind) => {
                self.train(tick, id, kind);
                return Vec::new();
            }
            Task::Edit { at, expect, put } => {
                let site = Kind::of_block(put).map(|_| {
                    let building = super::born(id, tick);
                    Box::new(pb::Site {
                        building,
                        owner: unit.owner.clone(),
                        camp: Some(wire::block_pos(unit.camp)),
                    })
                });
                let edit = pb::Edit {
                    id: lot,
                    unit: id,
                    from: Some(wire::block_pos(unit.at)),
                    at: Some(wire::block_pos(at)),
                    expect: expect.kind(),
                    put: put.kind(),
                    site,
                };
                (vec![letter(at.region(), pb::letter::Kind::Edit(edit))], Pending::Edit { at, put })
            }
            Task::Pay(goods) => (vec![request(unit, goods, lot)], Pending::Pay(goods)),
            Task::Strike => (blows(tick, unit, lot, self.limit), Pending::Strike),
        };
        self.pending.insert(id, asked);
        letters
    }

    fn train(&mut self, tick: u64, id: u64, kind: Kind) {
        let Some(product) = crate::rules::recruit(kind) else { return };
        self.change(id, |barracks| {
            if let Some(left) = barracks.goods.minus(product.cost) {
                barracks.goods = left;
                barracks.due = Some(Due { event: Event::Trained, tick: tick + product.ticks.max(1) });
            }
        });
    }
}

/// The letter that asks the owner's camp for goods.
fn request(unit: &Entity, goods: Goods, lot: u64) -> pb::Letter {
    let pay = pb::Pay {
        id: lot,
        unit: unit.id,
        from: Some(wire::block_pos(unit.at)),
        owner: unit.owner.clone(),
        camp: Some(wire::block_pos(unit.camp)),
        wood: goods.wood,
        stone: goods.stone,
    };
    letter(unit.camp.region(), pb::letter::Kind::Pay(Box::new(pay)))
}

/// Actions in the order they apply, whatever the order they came in: by id, then player, then content.
pub(super) fn in_order(actions: &[Action]) -> Vec<&Action> {
    let mut actions: Vec<&Action> = actions.iter().collect();
    actions.sort_by_cached_key(|action| (action.id, action.player.clone(), action.encode_to_vec()));
    actions
}
