//! Blows and death. An attacker writes to where its target can be; the target's region decides. Knows no ways.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, CHUNK, Distance, REGION, RegionPos};

use super::{Territory, letter};
use crate::block::Block;
use crate::entity::{Due, Entity, Event};
use crate::goods::Goods;
use crate::order::Order;
use crate::{rules, wire};

impl Territory {
    /// Stage edit: lands the blow if the target is here and in range. None when the target is not in the region.
    pub(super) fn strike(&mut self, tick: u64, region: RegionPos, strike: &pb::Strike) -> Option<pb::Letter> {
        let from = wire::to_block_pos(strike.from.as_ref()?);
        let target = self.entities.get(&strike.target).filter(|target| target.at.region() == region)?;
        let (id, at) = (target.id, target.at);
        let mut outcome = pb::Outcome { unit: strike.unit, ..pb::Outcome::default() };
        if let Some(reason) = spared(target, &strike.owner) {
            outcome.reason = reason.to_owned();
        } else if at.chebyshev(from) > strike.range {
            outcome.at = Some(wire::block_pos(at));
        } else {
            let left = target.health.saturating_sub(strike.damage);
            outcome.done = true;
            outcome.at = Some(wire::block_pos(at));
            outcome.slain = left == 0;
            match left {
                0 => self.slay(tick, id, &strike.owner),
                left => self.change(id, |target| target.health = left),
            }
        }
        Some(letter(from.region(), pb::letter::Kind::Outcome(outcome)))
    }

    /// A handyman lies where it died until it comes back; all others are gone. What they carried is lost.
    fn slay(&mut self, tick: u64, id: u64, by: &str) {
        let Some(kind) = self.entities.get(&id).map(|it| it.kind) else { return };
        let returns = rules::of(kind).returns_after;
        self.change(id, |it| {
            it.health = 0;
            it.goods = Goods::NONE;
            it.end(&format!("killed by {by}"));
            it.due = returns.map(|ticks| Due { event: Event::Revived, tick: tick + ticks });
        });
        if returns.is_none() {
            self.bury(tick, id);
        }
    }

    /// Takes the dead off the map. Its record stays for a while, for its owner to read.
    fn bury(&mut self, tick: u64, id: u64) {
        let Some(dead) = self.withdraw(id) else { return };
        self.entomb(tick, &dead);
        if dead.kind.block().is_some() {
            self.put(dead.at, Block::Air);
        }
        self.buried.push(dead);
    }
}

/// Why nobody of this player can hurt it, if so.
fn spared(target: &Entity, by: &str) -> Option<&'static str> {
    if target.is_dead() {
        Some("it is dead already")
    } else if target.owner == by {
        Some("you do not attack your own")
    } else {
        (!rules::of(target.kind).attackable).then_some("a camp cannot be attacked")
    }
}

/// The letters of an attacker: to every region in which the target can be by now.
pub(super) fn blows(tick: u64, attacker: &Entity, lot: u64, limit: u32) -> Vec<pb::Letter> {
    let (Order::Attack { target, at, seen }, Some(blow)) = (attacker.order, rules::of(attacker.kind).blow)
    else {
        return Vec::new();
    };
    let strike = pb::Strike {
        id: lot,
        unit: attacker.id,
        from: Some(wire::block_pos(attacker.at)),
        owner: attacker.owner.clone(),
        target,
        damage: blow.damage,
        range: blow.range,
    };
    let regions = regions_near(at, tick.saturating_sub(seen), limit).into_iter();
    regions.map(|to| letter(to, pb::letter::Kind::Strike(Box::new(strike.clone())))).collect()
}

/// The regions of the world with a block at most `reach` blocks sideways from a place, ascending. Units walk one block
/// a tick: so far can one be from where it was seen so many ticks ago.
pub(super) fn regions_near(at: BlockPos, reach: u64, limit: u32) -> Vec<RegionPos> {
    let reach = i64::try_from(reach).unwrap_or(i64::MAX);
    let side = i64::from(limit).saturating_mul(i64::from(CHUNK)).min(i64::from(i32::MAX) - i64::from(CHUNK));
    let region = |block: i64| block.div_euclid(i64::from(CHUNK * REGION)) as i32;
    let along = |block: i32| {
        let low = i64::from(block).saturating_sub(reach).max(-side);
        let high = i64::from(block).saturating_add(reach).min(side + i64::from(CHUNK) - 1);
        // None when all of it is outside the world.
        (low <= high).then(|| region(low)..=region(high)).into_iter().flatten()
    };
    along(at.x).flat_map(|x| along(at.y).map(move |y| RegionPos::new(x, y))).collect()
}

#[cfg(test)]
mod tests {
    use fortia_vec::regions_of;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_walked_from_where_it_was_seen_is_looked_for_where_it_is(
            x in -400i32..400, y in -400i32..400, dx in -300i32..300, dy in -300i32..300, limit in 1u32..30,
        ) {
            let (seen, now) = (BlockPos::new(x, y, 0), BlockPos::new(x + dx, y + dy, 0));
            prop_assume!(now.chunk().is_within(limit));
            let steps = u64::from(dx.unsigned_abs() + dy.unsigned_abs());
            prop_assert!(regions_near(seen, steps, limit).contains(&now.region()));
        }
    }

    #[test]
    fn only_regions_of_the_world_are_named() {
        let near = |x, y, reach| regions_near(BlockPos::new(x, y, 0), reach, 9);
        assert_eq!(near(5, 5, 1), [RegionPos::new(0, 0)]);
        assert_eq!(near(127, 5, 1), [RegionPos::new(0, 0), RegionPos::new(1, 0)]);
        assert_eq!(near(0, 0, u64::MAX), regions_of(9));
        assert_eq!(near(i32::MIN, i32::MAX, u64::MAX), regions_of(9));
        assert!(near(i32::MAX, 0, 100).is_empty());
    }
}
