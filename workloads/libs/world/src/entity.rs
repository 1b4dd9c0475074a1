//! Units: who owns them, where they stand, what they were told. Knows no rules of the world.

use fortia_proto::world::v1 as pb;
use fortia_vec::BlockPos;
use prost::Message;

use crate::block::Goods;
use crate::order::{Order, OrderError};
use crate::wire;

/// Health of a new unit.
pub const FULL_HEALTH: u32 = 100;
/// What a new unit carries: enough to build a little before the first tree is felled.
pub const FIRST_GOODS: Goods = Goods { wood: 4, stone: 4 };

/// What kind of unit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Walks, chops, mines and builds.
    Handyman,
}

impl Kind {
    /// The lower-case name clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Handyman => "handyman",
        }
    }
}

/// One unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its id, the same for its whole life.
    pub id: u64,
    /// What kind of unit it is.
    pub kind: Kind,
    /// Account name of the player who commands it.
    pub owner: String,
    /// The cell of its feet.
    pub at: BlockPos,
    /// Points left.
    pub health: u32,
    /// What it was told to do last.
    pub order: Order,
    /// Steps still to take towards the order's goal, next first.
    pub path: Vec<BlockPos>,
    /// Why the last order ended: `done` or a reason; empty while the unit is at work or was never told anything.
    pub outcome: String,
    /// What it carries.
    pub goods: Goods,
}

/// Why bytes are not an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntityError {
    /// Not a message of this shape.
    #[error("bytes are no entity message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A unit without a place.
    #[error("entity {id} has no position")]
    NoPosition {
        /// The entity.
        id: u64,
    },
    /// A kind this version does not know.
    #[error("entity {id} has unknown kind {kind}")]
    UnknownKind {
        /// The entity.
        id: u64,
        /// The number of the kind.
        kind: i32,
    },
    /// An order that cannot be read.
    #[error("entity {id}: {source}")]
    Order {
        /// The entity.
        id: u64,
        /// What is wrong with the order.
        source: OrderError,
    },
}

impl Entity {
    /// A new handyman with full health who holds.
    pub fn handyman(id: u64, owner: &str, at: BlockPos) -> Entity {
        Entity {
            id,
            kind: Kind::Handyman,
            owner: owner.to_owned(),
            at,
            health: FULL_HEALTH,
            order: Order::Hold,
            path: Vec::new(),
            outcome: String::new(),
            goods: FIRST_GOODS,
        }
    }

    /// Reads an entity from stored bytes.
    ///
    /// # Errors
    /// When the bytes are not an entity this version can represent; it never panics.
    pub fn decode(bytes: &[u8]) -> Result<Entity, EntityError> {
        Entity::from_proto(&pb::Entity::decode(bytes)?)
    }

    /// Reads an entity from a message.
    ///
    /// # Errors
    /// When a part is missing or unknown.
    pub fn from_proto(entity: &pb::Entity) -> Result<Entity, EntityError> {
        let id = entity.id;
        let kind = match pb::EntityKind::try_from(entity.kind) {
            Ok(pb::EntityKind::Handyman) => Kind::Handyman,
            _ => return Err(EntityError::UnknownKind { id, kind: entity.kind }),
        };
        let order = match &entity.order {
            Some(order) => Order::from_proto(order).map_err(|source| EntityError::Order { id, source })?,
            None => Order::Hold,
        };
        Ok(Entity {
            id,
            kind,
            owner: entity.owner.clone(),
            at: entity.at.as_ref().map(wire::to_block_pos).ok_or(EntityError::NoPosition { id })?,
            health: entity.health,
            order,
            path: entity.path.iter().map(wire::to_block_pos).collect(),
            outcome: entity.outcome.clone(),
            goods: Goods { wood: entity.wood, stone: entity.stone },
        })
    }

    /// The entity as a message.
    pub fn to_proto(&self) -> pb::Entity {
        let kind = match self.kind {
            Kind::Handyman => pb::EntityKind::Handyman,
        };
        pb::Entity {
            id: self.id,
            kind: kind.into(),
            owner: self.owner.clone(),
            at: Some(wire::block_pos(self.at)),
            health: self.health,
            order: Some(self.order.to_proto()),
            path: self.path.iter().copied().map(wire::block_pos).collect(),
            outcome: self.outcome.clone(),
            wood: self.goods.wood,
            stone: self.goods.stone,
        }
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Gives the unit a new order; what it did before is forgotten.
    pub fn command(&mut self, order: Order) {
        self.order = order;
        self.path.clear();
        self.outcome.clear();
    }

    /// Ends the order: the unit holds and says why.
    pub fn end(&mut self, outcome: &str) {
        self.command(Order::Hold);
        self.outcome.push_str(outcome);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::Block;

    fn place() -> impl Strategy<Value = BlockPos> {
        (any::<i32>(), any::<i32>(), any::<i32>()).prop_map(|(x, y, z)| BlockPos::new(x, y, z))
    }

    fn order() -> impl Strategy<Value = Order> {
        let built = prop::sample::select(vec![Block::Planks, Block::Wall]);
        prop_oneof![
            Just(Order::Hold),
            place().prop_map(|to| Order::Move { to }),
            place().prop_map(|at| Order::Chop { at }),
            place().prop_map(|at| Order::Mine { at }),
            (place(), built).prop_map(|(at, block)| Order::Build { at, block }),
        ]
    }

    prop_compose! {
        fn entity()(
            id: u64, owner in ".*", at in place(), health: u32, order in order(),
            path in prop::collection::vec(place(), 0..9), outcome in ".*", wood: u32, stone: u32,
        ) -> Entity {
            let goods = Goods { wood, stone };
            Entity { id, kind: Kind::Handyman, owner, at, health, order, path, outcome, goods }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(entity in entity()) {
            prop_assert_eq!(Entity::decode(&entity.encode()), Ok(entity));
        }

        #[test]
        fn any_bytes_are_an_entity_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entity::decode(&bytes);
        }

        #[test]
        fn a_damaged_entity_is_an_entity_or_an_error(entity in entity(), at: prop::sample::Index, bit in 0..8) {
            let mut bytes = entity.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let _ = Entity::decode(&bytes);
        }
    }

    #[test]
    fn an_order_that_cannot_be_read_is_refused_with_advice() {
        let build = |block| pb::Order {
            kind: Some(pb::order::Kind::Build(pb::Build { at: Some(pb::BlockPos::default()), block })),
        };
        assert!(Order::from_proto(&build(Block::Planks.kind())).is_ok());
        assert_eq!(Order::from_proto(&build(1)), Err(OrderError::NotBuildable { kind: 1 }));
        assert_eq!(Order::from_proto(&build(777)), Err(OrderError::NotBuildable { kind: 777 }));
        assert_eq!(Order::from_proto(&pb::Order { kind: None }), Err(OrderError::Empty));
        let nowhere = pb::Order { kind: Some(pb::order::Kind::Move(pb::Move { to: None })) };
        assert_eq!(Order::from_proto(&nowhere), Err(OrderError::NoPlace));
    }
}
