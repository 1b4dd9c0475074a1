//! What an order demands next of a unit. Knows what the unit sees, not how the world is edited or paths are found.

use fortia_vec::BlockPos;

use super::view::View;
use crate::block::Block;
use crate::entity::{Entity, Kind};
use crate::goods::Goods;
use crate::order::Order;
use crate::path::goal::Goal;
use crate::rules::{self, FELL_UP, REACH, REACH_DOWN, REACH_UP};

/// How near whoever attacks must come, in blocks.
const BLOW_RANGE: u32 = match rules::of(Kind::Fighter).blow {
    Some(blow) => blow.range,
    None => 0,
};

/// What the order demands next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The block is in reach: change it.
    Edit { at: BlockPos, expect: Block, put: Block },
    /// Its owner's stock must give this first.
    Pay(Goods),
    /// Ask where the target is, and hit it.
    Strike,
    /// All is paid: begin to train.
    Train(Kind),
    /// Go on towards the goal.
    Walk,
    /// The order is over, for this reason.
    End(&'static str),
}

/// Outcome of an order that was carried out.
pub(super) const DONE: &str = "done";
/// Outcome of an order whose goal cannot be walked to.
pub(super) const NO_WAY: &str = "no way there";
/// Outcome of an edit that came second.
pub(super) const TOO_LATE: &str = "someone was faster";
/// Outcome of a building in someone's place.
pub(super) const OCCUPIED: &str = "someone stands there";
/// Outcome of what neither hands nor stock can pay.
pub(super) const TOO_LITTLE: &str = "too little wood or stone";
/// Outcome of an attack on who is nowhere near where it was seen.
pub(super) const GONE: &str = "the target is gone";
const HANDS_FULL: &str = "its hands are full: let it stop beside one of your buildings";
const OUTSIDE: &str = "outside the world";

/// What the unit's order demands, as far as the unit can see.
pub(super) fn task(unit: &Entity, view: &View<'_>, limit: u32) -> Task {
    let Some(target) = unit.order.target() else { return trainer(unit) };
    if !target.chunk().is_within(limit) {
        return Task::End(OUTSIDE);
    }
    let put = match unit.order {
        Order::Move { to } if unit.at == snap(view, to) => return Task::End(DONE),
        Order::Attack { .. } => return Task::Strike,
        Order::Hold | Order::Train { .. } | Order::Move { .. } => return Task::Walk,
        Order::Chop { .. } | Order::Mine { .. } => Block::Air,
        Order::Build { block, .. } => block,
    };
    if !(0..i32::from(crate::HEIGHT)).contains(&target.z) {
        return Task::End(OUTSIDE);
    }
    let Some(expect) = view.block(target) else { return Task::Walk };
    match obstacle(unit, expect) {
        Some(reason) => Task::End(reason),
        None if in_reach(unit.order, unit.at) => {
            let cost = rules::building(put).map_or(Goods::NONE, |product| product.cost);
            match unit.goods.lacks(cost) {
                Goods::NONE => Task::Edit { at: target, expect, put },
                lacks => Task::Pay(lacks),
            }
        }
        None => Task::Walk,
    }
}

/// What those who have no place to go to do next.
fn trainer(unit: &Entity) -> Task {
    let Order::Train { kind } = unit.order else { return Task::End("") };
    let Some(product) = rules::recruit(kind) else { return Task::End("this cannot be trained") };
    match unit.goods.lacks(product.cost) {
        Goods::NONE => Task::Train(kind),
        lacks => Task::Pay(lacks),
    }
}

/// Why the unit cannot do its order to this block, wherever it stands.
fn obstacle(unit: &Entity, there: Block) -> Option<&'static str> {
    let yields = rules::yields(there).pieces();
    let full = yields > 0 && unit.goods.pieces() + yields > rules::of(unit.kind).carries;
    match unit.order {
        Order::Chop { .. } if there != Block::Wood => Some("there is no wood"),
        Order::Mine { .. } if there == Block::Bedrock => Some("bedrock cannot be mined"),
        Order::Mine { .. } if there.is_building() => Some("a building cannot be mined"),
        Order::Mine { .. } if !there.is_minable() => Some("there is nothing to mine"),
        Order::Chop { .. } | Order::Mine { .. } => full.then_some(HANDS_FULL),
        Order::Build { .. } if !there.is_replaceable() => Some("there is no room to build"),
        Order::Build { block, .. } => rules::building(block).is_none().then_some("this cannot be built"),
        Order::Hold | Order::Move { .. } | Order::Attack { .. } | Order::Train { .. } => None,
    }
}

/// Where the order's work can be done; nowhere in particular for those that need no walk.
pub(super) fn goal(order: Order) -> Option<Goal> {
    let reach = |at, up, clear| Goal::Reach { at, sideways: REACH, above: (-REACH_DOWN, up), clear };
    match order {
        Order::Hold | Order::Train { .. } => None,
        Order::Move { to } => Some(Goal::Cell(to)),
        // A trunk is felled from below.
        Order::Chop { at } => Some(reach(at, FELL_UP, false)),
        Order::Mine { at } => Some(reach(at, REACH_UP, false)),
        // Nobody walls himself in.
        Order::Build { at, .. } => Some(reach(at, REACH_UP, true)),
        Order::Attack { at, .. } => {
            let above = (-(BLOW_RANGE as i32), BLOW_RANGE as i32);
            Some(Goal::Reach { at, sideways: BLOW_RANGE, above, clear: false })
        }
    }
}

/// Whether a unit at `from` can do the order's work without another step.
pub(super) fn in_reach(order: Order, from: BlockPos) -> bool {
    goal(order).is_none_or(|goal| goal.holds(from))
}

/// The free cell nearest above or below an ordered place; the place itself when none is in sight.
pub(super) fn snap(view: &View<'_>, to: BlockPos) -> BlockPos {
    view.pillar(to).nearest(to.z).map_or(to, |z| BlockPos { z, ..to })
}
