//! What a unit can be told to do. Knows the shape of an order, not whether the world allows it.

use fortia_proto::world::v1 as pb;
use fortia_vec::BlockPos;

use crate::block::Block;
use crate::wire;

/// What a unit was told to do.
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
        /// Any solid block but bedrock, or leaves.
        at: BlockPos,
    },
    /// Put one block; the unit pays for it from the wood or stone it carries.
    Build {
        /// Where to put it.
        at: BlockPos,
        /// Planks or a wall.
        block: Block,
    },
}

/// Why a message is not an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing in it says what to do.
    #[error("the order is empty: choose hold, move, chop, mine or build")]
    Empty,
    /// It says what to do, but not where.
    #[error("the order names no place: give x, y and z")]
    NoPlace,
    /// It builds something no unit can build.
    #[error("block kind {kind} cannot be built: choose planks or wall")]
    NotBuildable {
        /// The number of the block's kind.
        kind: u32,
    },
}

impl Order {
    /// Reads an order from a message.
    ///
    /// # Errors
    /// When the message is incomplete or names a block that cannot be built.
    pub fn from_proto(order: &pb::Order) -> Result<Order, OrderError> {
        let place =
            |at: &Option<pb::BlockPos>| at.as_ref().map(wire::to_block_pos).ok_or(OrderError::NoPlace);
        match order.kind.as_ref().ok_or(OrderError::Empty)? {
            pb::order::Kind::Hold(_) => Ok(Order::Hold),
            pb::order::Kind::Move(order) => Ok(Order::Move { to: place(&order.to)? }),
            pb::order::Kind::Chop(order) => Ok(Order::Chop { at: place(&order.at)? }),
            pb::order::Kind::Mine(order) => Ok(Order::Mine { at: place(&order.at)? }),
            pb::order::Kind::Build(order) => {
                let block = Block::from_kind(order.block).filter(|block| block.cost().is_some());
                let block = block.ok_or(OrderError::NotBuildable { kind: order.block })?;
                Ok(Order::Build { at: place(&order.at)?, block })
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
        };
        pb::Order { kind: Some(kind) }
    }

    /// The place the order is about; none for hold.
    pub const fn target(self) -> Option<BlockPos> {
        match self {
            Order::Hold => None,
            Order::Move { to } => Some(to),
            Order::Chop { at } | Order::Mine { at } | Order::Build { at, .. } => Some(at),
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
        }
    }
}
