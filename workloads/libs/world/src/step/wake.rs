//! What was due: woken entities rest no more, unload, stand, finish their training, come back to life. Knows the wheel.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, Distance};

use super::task::DONE;
use super::view::View;
use super::{Pending, Territory, letter};
use crate::block::Block;
use crate::entity::{Due, Entity, Event, Kind};
use crate::order::Order;
use crate::{rules, wire};

/// Buildings a unit asks at once whether it can unload there.
const ASKED: usize = 8;

impl Territory {
    /// First of all in a tick: wakes those whose time has come. What needs a later stage waits for it.
    pub(super) fn wake(&mut self, tick: u64, outbox: &mut Vec<pb::Letter>) {
        for id in self.wheel.take(tick) {
            // Who has left, died or waits for something else is not meant.
            let due = self.entities.get(&id).and_then(|unit| unit.due).filter(|due| due.tick <= tick);
            match due.map(|due| due.event) {
                None => {}
                Some(Event::Rested) => self.change(id, |unit| unit.due = None),
                Some(Event::Unloads) => self.ask_to_unload(id, outbox),
                Some(event) => {
                    self.woken.insert(id, event);
                }
            }
        }
    }

    fn ask_to_unload(&mut self, id: u64, outbox: &mut Vec<pb::Letter>) {
        self.change(id, |unit| unit.due = None);
        let Some(unit) = self.entities.get(&id) else { return };
        let ask = |at: &BlockPos| {
            let unload = pb::Unload {
                unit: id,
                from: Some(wire::block_pos(unit.at)),
                owner: unit.owner.clone(),
                at: Some(wire::block_pos(*at)),
            };
            letter(at.region(), pb::letter::Kind::Unload(Box::new(unload)))
        };
        outbox.extend(buildings(&View::new(self, unit.at), unit.at).iter().map(ask));
        self.pending.insert(id, Pending::Unload);
    }

    /// Ends an order. Who carries something and has a building in reach unloads in the next tick.
    pub(super) fn finish(&mut self, tick: u64, id: u64, reason: &str) {
        let Some(unit) = self.entities.get(&id) else { return };
        let unloads = loaded(unit) && !buildings(&View::new(self, unit.at), unit.at).is_empty();
        self.change(id, |unit| {
            unit.end(reason);
            if unloads {
                unit.due = Some(Due { event: Event::Unloads, tick: tick + 1 });
            }
        });
    }

    /// In stage edit, after all blows: buildings stand, and barracks let go whom they trained.
    pub(super) fn complete(&mut self, tick: u64) {
        for (id, event) in self.woken.clone() {
            let Some(building) = self.entities.get(&id) else { continue };
            match (event, building.order) {
                (Event::Raised, _) => self.change(id, |building| building.due = None),
                (Event::Trained, Order::Train { kind }) => self.muster(tick, id, kind),
                (Event::Trained, _) => self.change(id, |building| building.due = None),
                _ => {}
            }
        }
    }

    fn muster(&mut self, tick: u64, id: u64, kind: Kind) {
        let Some(barracks) = self.entities.get(&id) else { return };
        let mut cells = self.landings(barracks.at).into_iter();
        let cell = cells.find(|cell| !self.is_occupied(*cell));
        let cell = cell.unwrap_or_else(|| self.settled(barracks.at.up()));
        let recruit = Entity::new(kind, super::born(id, tick), &barracks.owner, cell, barracks.camp);
        self.change(id, |barracks| {
            barracks.due = None;
            barracks.end(DONE);
        });
        self.bear(recruit);
    }

    /// In stage move: the dead leave for their home, where they come back to life.
    pub(super) fn send_home(&mut self) -> Vec<pb::Letter> {
        let woken = self.woken.iter().filter(|(_, event)| **event == Event::Revived);
        let dead: Vec<u64> = woken.map(|(id, _)| *id).collect();
        dead.into_iter().filter_map(|id| self.send(id, |unit| unit.at = unit.home)).collect()
    }

    /// At the commit: a dead unit that came home lives again beside the building; if that is gone, it goes on to its
    /// owner's camp, which always is there.
    pub(super) fn revive(&mut self, tick: u64, unit: &mut Entity) {
        let stands = |building: &Entity| building.due.is_none_or(|due| due.event != Event::Raised);
        if self.building(unit.home, &unit.owner).is_some_and(stands) || unit.home == unit.camp {
            unit.at = self.landings(unit.home).first().copied().unwrap_or(unit.home);
            unit.health = rules::of(unit.kind).health;
            unit.due = None;
        } else {
            unit.home = unit.camp;
            unit.due = Some(Due { event: Event::Revived, tick: tick + 1 });
        }
    }
}

/// Whether it has something to unload.
pub(super) fn loaded(unit: &Entity) -> bool {
    unit.kind.is_unit() && unit.goods.pieces() > 0
}

/// Blocks of buildings in reach, nearest first.
fn buildings(view: &View<'_>, from: BlockPos) -> Vec<BlockPos> {
    let reach = rules::REACH as i32;
    let cells = (-reach..=reach).flat_map(|x| (-reach..=reach).map(move |y| (x, y)));
    let heights = -rules::REACH_DOWN..=rules::REACH_UP;
    let cells = cells.flat_map(|(x, y)| heights.clone().map(move |z| from.offset(x, y, z)));
    let mut found: Vec<_> = cells.filter(|at| view.block(*at).is_some_and(Block::is_building)).collect();
    found.sort_by_key(|at| (at.manhattan(from), *at));
    found.truncate(ASKED);
    found
}
