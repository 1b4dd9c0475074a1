//! Answers reach those who asked: goods change hands, blows are known to have landed, orders end or go on. Moves nobody.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, RegionPos};

use super::task::{self, DONE, GONE, TOO_LITTLE};
use super::view::View;
use super::wake::loaded;
use super::{Pending, StepError, Territory, account};
use crate::block::Block;
use crate::entity::{Due, Entity, Event};
use crate::order::Order;
use crate::wire;

impl Territory {
    /// First in stage move: takes the outcomes and returns letters for the commit.
    pub(super) fn hear(&mut self, tick: u64, inbox: &[pb::Letter]) -> Result<Vec<pb::Letter>, StepError> {
        let mut outcomes: Vec<(RegionPos, &pb::Outcome)> = Vec::new();
        // Letters to one region mostly come together.
        for together in inbox.chunk_by(|a, b| a.to == b.to) {
            let to = self.addressee(&together[0])?;
            for letter in together {
                match &letter.kind {
                    Some(pb::letter::Kind::Outcome(outcome)) => {
                        outcomes.extend(self.pending.contains_key(&outcome.unit).then_some((to, outcome)));
                    }
                    _ => return Err(StepError::Letter(to, "move")),
                }
            }
        }
        // Of several buildings that take what a unit carries, always the same one does.
        outcomes.sort_by_key(|(_, outcome)| (outcome.unit, outcome.at.as_ref().map(wire::to_block_pos)));
        let letters = outcomes.into_iter().filter_map(|(to, outcome)| self.learn(tick, to, outcome));
        let letters = letters.collect();
        self.miss(tick);
        Ok(letters)
    }

    fn learn(&mut self, tick: u64, region: RegionPos, outcome: &pb::Outcome) -> Option<pb::Letter> {
        let id = outcome.unit;
        let asked = *self.pending.get(&id)?;
        let unit = self.entities.get(&id).filter(|unit| unit.at.region() == region && !unit.is_dead())?;
        let at = unit.at;
        self.pending.insert(id, Pending::Answered);
        match asked {
            Pending::Edit { at, put } => self.worked(tick, id, (at, put), outcome),
            Pending::Pay(goods) if outcome.done => {
                // Its work goes on in the next tick.
                self.change(id, |unit| unit.goods = unit.goods.plus(goods));
            }
            Pending::Pay(_) => self.conclude(tick, id, &outcome.reason),
            Pending::Strike => self.struck(tick, id, outcome),
            Pending::Unload => {
                let home = outcome.at.as_ref().map_or(at, wire::to_block_pos);
                return self.unloaded(id, home);
            }
            Pending::Answered => {}
        }
        None
    }

    /// An edit was made or refused: its goods change hands, and the order ends or goes on up the trunk.
    fn worked(&mut self, tick: u64, id: u64, (at, put): (BlockPos, Block), outcome: &pb::Outcome) {
        if !outcome.done {
            return self.conclude(tick, id, &outcome.reason);
        }
        let taken = Block::from_kind(outcome.taken).unwrap_or_default();
        self.change(id, |unit| {
            unit.goods = match crate::rules::building(put) {
                Some(product) => unit.goods.minus(product.cost).unwrap_or_default(),
                None => unit.goods.plus(crate::rules::yields(taken)),
            };
        });
        match self.entities.get(&id).and_then(|unit| self.higher(unit, at)) {
            Some(higher) if !self.redirected.contains(&id) => self.change(id, |unit| unit.command(higher)),
            _ => self.conclude(tick, id, DONE),
        }
    }

    /// The order to fell the next block up the trunk, if that is what the unit does and there is one.
    fn higher(&self, unit: &Entity, at: BlockPos) -> Option<Order> {
        let order = Order::Chop { at: at.up() };
        let goes_on = matches!(unit.order, Order::Chop { .. })
            && task::in_reach(order, unit.at)
            && View::new(self, unit.at).block(at.up()) == Some(Block::Wood);
        goes_on.then_some(order)
    }

    /// A blow landed, or the target is somewhere else: then the unit goes there.
    fn struck(&mut self, tick: u64, id: u64, outcome: &pb::Outcome) {
        let redirected = self.redirected.contains(&id);
        let there = outcome.at.as_ref().map(wire::to_block_pos);
        if outcome.done {
            let rest = self.entities.get(&id).and_then(|unit| crate::rules::of(unit.kind).blow);
            let rest = rest.map(|blow| Due { event: Event::Rested, tick: tick + blow.rest.max(1) });
            self.change(id, |unit| {
                unit.due = rest;
                if !redirected && let (Some(there), false) = (there, outcome.slain) {
                    follow(tick, unit, there);
                }
            });
            if outcome.slain {
                self.conclude(tick, id, DONE);
            }
        } else if let Some(there) = there {
            if !redirected {
                self.change(id, |unit| follow(tick, unit, there));
            }
            // It walks in this tick.
            self.pending.remove(&id);
        } else {
            self.conclude(tick, id, &outcome.reason);
        }
    }

    /// A building took what the unit carries. It is the unit's home from now on.
    fn unloaded(&mut self, id: u64, home: BlockPos) -> Option<pb::Letter> {
        let delivery = self.entities.get(&id).filter(|unit| loaded(unit)).map(account::delivery);
        self.change(id, |unit| {
            unit.home = home;
            unit.goods = crate::goods::Goods::NONE;
        });
        delivery
    }

    /// Who got no answer asked in vain.
    fn miss(&mut self, tick: u64) {
        for (id, asked) in self.pending.clone() {
            match asked {
                Pending::Strike => self.conclude(tick, id, GONE),
                Pending::Pay(_) => self.conclude(tick, id, TOO_LITTLE),
                Pending::Edit { .. } | Pending::Unload | Pending::Answered => {}
            }
        }
    }

    /// Ends the order about which the unit asked, unless it died or got another one since.
    fn conclude(&mut self, tick: u64, id: u64, reason: &str) {
        let lives = self.entities.get(&id).is_some_and(|unit| !unit.is_dead());
        if lives && !self.redirected.contains(&id) {
            self.finish(tick, id, reason);
        }
    }
}

/// The target was there before this tick. The way to where it was before is short, and gone to its end.
fn follow(tick: u64, unit: &mut Entity, there: BlockPos) {
    let Order::Attack { target, .. } = unit.order else { return };
    unit.order = Order::Attack { target, at: there, seen: tick.saturating_sub(1) };
}
