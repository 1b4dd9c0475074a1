//! What an order demands next of a unit. Knows what the unit sees, not how the world is edited or paths are found.

use fortia_vec::{BlockPos, Distance};

use super::view::View;
use crate::block::Block;
use crate::entity::Entity;
use crate::order::Order;

/// Blocks a unit reaches sideways.
const REACH: u32 = 2;
/// Blocks a unit reaches below and above its feet.
const REACH_HEIGHT: std::ops::RangeInclusive<i32> = -2..=3;
/// A trunk is felled from below.
const FELL_HEIGHT: std::ops::RangeInclusive<i32> = -2..=8;
/// How far from the ordered height a free cell to walk to is looked for, in blocks.
const SNAP: i32 = 64;

/// What the order demands next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The block is in reach: change it.
    Edit { at: BlockPos, expect: Block, put: Block },
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
const OUTSIDE: &str = "outside the world";

/// What the unit's order demands, as far as the unit can see.
pub(super) fn task(unit: &Entity, view: &View<'_>, radius: u32) -> Task {
    let Some(target) = unit.order.target() else { return Task::End("") };
    if !target.chunk().is_within(radius) {
        return Task::End(OUTSIDE);
    }
    let put = match unit.order {
        Order::Move { to } if unit.at == snap(view, to) => return Task::End(DONE),
        Order::Hold | Order::Move { .. } => return Task::Walk,
        Order::Chop { .. } | Order::Mine { .. } => Block::Air,
        Order::Build { block, .. } => block,
    };
    if !(0..i32::from(crate::HEIGHT)).contains(&target.z) {
        return Task::End(OUTSIDE);
    }
    let Some(expect) = view.block(target) else { return Task::Walk };
    match obstacle(unit, expect) {
        Some(reason) => Task::End(reason),
        None if in_reach(unit.order, unit.at) => Task::Edit { at: target, expect, put },
        None => Task::Walk,
    }
}

/// Why the unit cannot do its order to this block, wherever it stands.
fn obstacle(unit: &Entity, there: Block) -> Option<&'static str> {
    match unit.order {
        Order::Hold | Order::Move { .. } => None,
        Order::Chop { .. } => (there != Block::Wood).then_some("there is no wood"),
        Order::Mine { .. } if there == Block::Bedrock => Some("bedrock cannot be mined"),
        Order::Mine { .. } => (!there.is_minable()).then_some("there is nothing to mine"),
        Order::Build { .. } if !there.is_replaceable() => Some("there is no room to build"),
        Order::Build { block, .. } => match block.cost() {
            None => Some("this cannot be built"),
            Some(cost) => unit.goods.minus(cost).is_none().then_some("too little wood or stone"),
        },
    }
}

/// Whether a unit at `from` can do the order's work without another step.
pub(super) fn in_reach(order: Order, from: BlockPos) -> bool {
    let (target, heights) = match order {
        Order::Hold => return true,
        Order::Move { to } => return from == to,
        Order::Chop { at } => (at, FELL_HEIGHT),
        Order::Mine { at } => (at, REACH_HEIGHT),
        // Nobody walls himself in.
        Order::Build { at, .. } if at == from || at == from.up() => return false,
        Order::Build { at, .. } => (at, REACH_HEIGHT),
    };
    let sideways = target.chebyshev(BlockPos { z: target.z, ..from });
    sideways <= REACH && heights.contains(&target.z.saturating_sub(from.z))
}

/// The free cell nearest above or below an ordered place; the place itself when none is in sight.
pub(super) fn snap(view: &View<'_>, to: BlockPos) -> BlockPos {
    let z = to.z.clamp(0, i32::from(crate::HEIGHT));
    let near = (0..=SNAP).flat_map(|d| [z + d, z - d]).map(|z| BlockPos { z, ..to });
    near.into_iter().find(|cell| cell.z >= 0 && view.is_free(*cell)).unwrap_or(to)
}
