//! What a unit can be told to do. Knows the shape of an order, not whether the world allows it.

use fortia_proto::world::v1 as pb;
use fortia_vec::BlockPos;

use crate::block::Block;
use crate::entity::Kind;
use crate::{rules, wire};

/// What a unit or a building was told to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Stay where it is.
    #[default]
    Hold,
    /// Walk to this place, or as near as it gets.
    Move {
        /// The cell for the unit's feet; the nearest free height is taken when this one is not free.
        to: BlockPos,
    },
    /// Fell a trunk from this block upwards, one block a tick.
    Chop {
        /// A block of wood.
        at: BlockPos,
    },
    /// Take one solid block away.
    Mine {
        /// Any block that can be mined.
        at: BlockPos,
    },
    /// Put one block, paid from what the unit carries and, where that is too little, from its owner's stock.
    Build {
        /// Where to put it.
        at: BlockPos,
        /// One of [`rules::BUILDINGS`].
        block: Block,
    },
    /// Follow somebody and strike until they are dead.
    Attack {
        /// Whom.
        target: u64,
        /// Where the target was seen last.
        at: BlockPos,
        /// The tick after which it was there.
        seen: u64,
    },
    /// Train a unit, paid from the owner's stock.
    Train {
        /// One of [`rules::RECRUITS`].
        kind: Kind,
    },
}

/// Why a message is not an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing in it says what to do.
    #[error("the order is empty: choose hold, move, chop, mine, build, attack or train")]
    Empty,
    /// It says what to do, but not where.
    #[error("the order names no place: give x, y and z")]
    NoPlace,
    /// It builds something no unit can build.
    #[error("block kind {kind} cannot be built: choose planks, wall, house or barracks")]
    NotBuildable {
        /// The number of the block's kind.
        kind: u32,
    },
    /// It trains something nobody can train.
    #[error("entity kind {kind} cannot be trained: choose fighter")]
    NotTrainable {
        /// The number of the entity's kind.
        kind: i32,
    },
}

impl Order {
    /// Reads an order from a message.
    ///
    /// # Errors
    /// When the message is incomplete or names what cannot be built or trained.
    pub fn from_proto(order: &pb::Order) -> Result<Order, OrderError> {
        let place =
            |at: &Option<pb::BlockPos>| at.as_ref().map(wire::to_block_pos).ok_or(OrderError::NoPlace);
        match order.kind.as_ref().ok_or(OrderError::Empty)? {
            pb::order::Kind::Hold(_) => Ok(Order::Hold),
            pb::order::Kind::Move(order) => Ok(Order::Move { to: place(&order.to)? }),
            pb::order::Kind::Chop(order) => Ok(Order::Chop { at: place(&order.at)? }),
            pb::order::Kind::Mine(order) => Ok(Order::Mine { at: place(&order.at)? }),
            pb::order::Kind::Build(order) => {
                let block = Block::from_kind(order.block).filter(|block| rules::building(*block).is_some());
                let block = block.ok_or(OrderError::NotBuildable { kind: order.block })?;
                Ok(Order::Build { at: place(&order.at)?, block })
            }
            pb::order::Kind::Attack(order) => {
                Ok(Order::Attack { target: order.target, at: place(&order.at)?, seen: order.seen })
            }
            pb::order::Kind::Train(order) => {
                let kind = Kind::from_number(order.kind).filter(|kind| rules::recruit(*kind).is_some());
                Ok(Order::Train { kind: kind.ok_or(OrderError::NotTrainable { kind: order.kind })? })
            }
        }
    }

    /// The order as a message.
    pub fn to_proto(self) -> pb::Order {
        let place = |at| Some(wire::block_pos(at));
        let kind = match self {
            Order::Hold => pb::order::Kind::Hold(pb::Hold {}),
            Order::Move { to } => pb::order::Kind::Move(pb::Move { to: place(to) }),
            Order::Chop { at } => pb::order::Kind::Chop(pb::Chop { at: place(at) }),
            Order::Mine { at } => pb::order::Kind::Mine(pb::Mine { at: place(at) }),
            Order::Build { at, block } => {
                pb::order::Kind::Build(pb::Build { at: place(at), block: block.kind() })
            }
            Order::Attack { target, at, seen } => {
                pb::order::Kind::Attack(pb::Attack { target, at: place(at), seen })
            }
            Order::Train { kind } => pb::order::Kind::Train(pb::Train { kind: kind.number() }),
        };
        pb::Order { kind: Some(kind) }
    }

    /// The place the order is about; none for hold and train.
    pub const fn target(self) -> Option<BlockPos> {
        match self {
            Order::Hold | Order::Train { .. } => None,
            Order::Move { to } => Some(to),
            Order::Chop { at } | Order::Mine { at } | Order::Build { at, .. } | Order::Attack { at, .. } => {
                Some(at)
            }
        }
    }

    /// The lower-case name clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Order::Hold => "hold",
            Order::Move { .. } => "move",
            Order::Chop { .. } => "chop",
            Order::Mine { .. } => "mine",
            Order::Build { .. } => "build",
            Order::Attack { .. } => "attack",
            Order::Train { .. } => "train",
        }
    }
}
