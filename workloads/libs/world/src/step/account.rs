//! Goods change hands: a camp pays for what its owner makes, and keeps what units unload. Knows no fights and no ways.
//!
//! Goods are never in two places: what a unit unloads leaves its hands in the stage whose letter carries it to the camp,
//! and what a camp pays leaves the stock in the stage whose letter carries it to the hands.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, RegionPos};

use super::task::TOO_LITTLE;
use super::{Territory, letter};
use crate::entity::{Entity, Event};
use crate::goods::Goods;
use crate::wire;

impl Territory {
    /// The player's building whose block is there. All entities of a column are in the column's region.
    pub(super) fn building(&self, at: BlockPos, owner: &str) -> Option<&Entity> {
        let column = self.columns.get(&at.chunk()).filter(|_| self.owns(at.region()))?;
        let here = column.entities().iter().filter_map(|id| self.entities.get(id));
        here.into_iter().find(|it| it.at == at && !it.kind.is_unit() && it.owner == owner)
    }

    /// Stage edit: pays from the stock of the player's camp, all or nothing.
    pub(super) fn pay(&mut self, region: RegionPos, pay: &pb::Pay) -> Option<pb::Letter> {
        let camp = wire::to_block_pos(pay.camp.as_ref()?);
        let from = wire::to_block_pos(pay.from.as_ref()?);
        let camp = self.building(camp, &pay.owner).filter(|_| camp.region() == region);
        let left = camp.and_then(|camp| Some((camp.id, camp.goods.minus(Goods::new(pay.wood, pay.stone))?)));
        if let Some((id, left)) = left {
            self.change(id, |camp| camp.goods = left);
        }
        let outcome = pb::Outcome {
            unit: pay.unit,
            done: left.is_some(),
            reason: if left.is_some() { String::new() } else { TOO_LITTLE.to_owned() },
            ..pb::Outcome::default()
        };
        Some(letter(from.region(), pb::letter::Kind::Outcome(outcome)))
    }

    /// Stage edit: whether the block is a building of the player that stands; all others give no answer.
    pub(super) fn unload(&self, region: RegionPos, unload: &pb::Unload) -> Option<pb::Letter> {
        let at = wire::to_block_pos(unload.at.as_ref()?);
        let from = wire::to_block_pos(unload.from.as_ref()?);
        let building = self.building(at, &unload.owner).filter(|_| at.region() == region)?;
        if building.due.is_some_and(|due| due.event == Event::Raised) {
            return None;
        }
        let outcome = pb::Outcome { unit: unload.unit, done: true, at: unload.at, ..pb::Outcome::default() };
        Some(letter(from.region(), pb::letter::Kind::Outcome(outcome)))
    }

    /// At the commit: what was unloaded is in the stock.
    pub(super) fn credit(&mut self, region: RegionPos, credit: &pb::Credit) {
        let camp = credit.camp.as_ref().map(wire::to_block_pos).filter(|at| at.region() == region);
        let camp = camp.and_then(|at| self.building(at, &credit.owner)).map(|camp| camp.id);
        if let Some(id) = camp {
            self.change(id, |camp| camp.goods = camp.goods.plus(Goods::new(credit.wood, credit.stone)));
        }
    }
}

/// The letter that carries what the unit has in its hands to its owner's camp.
pub(super) fn delivery(unit: &Entity) -> pb::Letter {
    let credit = pb::Credit {
        owner: unit.owner.clone(),
        camp: Some(wire::block_pos(unit.camp)),
        wood: unit.goods.wood,
        stone: unit.goods.stone,
    };
    letter(unit.camp.region(), pb::letter::Kind::Credit(Box::new(credit)))
}
