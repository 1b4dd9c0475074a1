//! Units and buildings: who owns them, where they stand, what they were told, what is due for them later.
//! Knows no rules of the world.

use fortia_proto::world::v1 as pb;
use fortia_vec::BlockPos;
use prost::Message;

use crate::block::Block;
use crate::goods::Goods;
use crate::order::{Order, OrderError};
use crate::{rules, wire};

/// What kind of unit or building it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Walks, chops, mines and builds.
    Handyman,
    /// Walks and attacks.
    Fighter,
    /// Where a player started: it holds the player's stock, and nobody can destroy it.
    Camp,
    /// Units unload at it, and handymen come back to life there.
    House,
    /// Trains fighters; units unload at it too.
    Barracks,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [Kind::Handyman, Kind::Fighter, Kind::Camp, Kind::House, Kind::Barracks];

    /// The lower-case name clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Handyman => "handyman",
            Kind::Fighter => "fighter",
            Kind::Camp => "camp",
            Kind::House => "house",
            Kind::Barracks => "barracks",
        }
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it walks; all others are buildings.
    pub const fn is_unit(self) -> bool {
        matches!(self, Kind::Handyman | Kind::Fighter)
    }

    /// The block a building consists of.
    pub const fn block(self) -> Option<Block> {
        match self {
            Kind::Handyman | Kind::Fighter => None,
            Kind::Camp => Some(Block::Camp),
            Kind::House => Some(Block::House),
            Kind::Barracks => Some(Block::Barracks),
        }
    }

    /// The building that consists of this block, if one does.
    pub fn of_block(block: Block) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.block() == Some(block))
    }

    /// The number that is stored and sent.
    pub const fn number(self) -> i32 {
        let kind = match self {
            Kind::Handyman => pb::EntityKind::Handyman,
            Kind::Fighter => pb::EntityKind::Fighter,
            Kind::Camp => pb::EntityKind::Camp,
            Kind::House => pb::EntityKind::House,
            Kind::Barracks => pb::EntityKind::Barracks,
        };
        kind as i32
    }

    /// The kind with this number, if there is one.
    pub fn from_number(number: i32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// What happens to an entity at a later tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The building stands.
    Raised,
    /// The unit in training is ready.
    Trained,
    /// The dead come back.
    Revived,
    /// The unit can strike again.
    Rested,
    /// The unit unloads at a building beside it.
    Unloads,
}

impl Event {
    const ALL: [Event; 5] = [Event::Raised, Event::Trained, Event::Revived, Event::Rested, Event::Unloads];

    /// What the entity does until then, in the words clients read.
    pub const fn doing(self) -> &'static str {
        match self {
            Event::Raised => "rising",
            Event::Trained => "training",
            Event::Revived => "dead",
            Event::Rested => "resting",
            Event::Unloads => "unloading",
        }
    }

    /// Whether orders are refused until then.
    pub const fn occupies(self) -> bool {
        matches!(self, Event::Raised | Event::Trained | Event::Revived)
    }

    const fn number(self) -> i32 {
        let event = match self {
            Event::Raised => pb::Event::Raised,
            Event::Trained => pb::Event::Trained,
            Event::Revived => pb::Event::Revived,
            Event::Rested => pb::Event::Rested,
            Event::Unloads => pb::Event::Unloads,
        };
        event as i32
    }
}

/// Something due later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What.
    pub event: Event,
    /// In which tick.
    pub tick: u64,
}

/// One unit or building.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its id, the same for its whole life.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Account name of the player who commands it.
    pub owner: String,
    /// The cell of a unit's feet, or a building's block.
    pub at: BlockPos,
    /// Points left; none for the dead.
    pub health: u32,
    /// What it was told to do last.
    pub order: Order,
    /// Steps still to take towards the order's goal, next first.
    pub path: Vec<BlockPos>,
    /// The nearest it came to its order's goal since it set out, in blocks; 0 before.
    pub nearest: u32,
    /// Steps since then.
    pub astray: u32,
    /// Why the last order ended, or who killed it: `done` or a reason; empty while it is at work or was never told
    /// anything.
    pub outcome: String,
    /// What a unit carries; in a camp the owner's stock.
    pub goods: Goods,
    /// Where the owner's camp is.
    pub camp: BlockPos,
    /// The owner's building at which it comes back when it has died.
    pub home: BlockPos,
    /// What is due for it later. Until then it has no work.
    pub due: Option<Due>,
}

/// Why bytes are not an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntityError {
    /// Not a message of this shape.
    #[error("bytes are no entity message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A unit without a place.
    #[error("entity {id} lacks its place, its camp or its home")]
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
    /// Something due that this version does not know.
    #[error("entity {id} waits for unknown event {event}")]
    UnknownEvent {
        /// The entity.
        id: u64,
        /// The number of the event.
        event: i32,
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
    /// A new one with full health, empty hands and no orders, of the player whose camp is there.
    pub fn new(kind: Kind, id: u64, owner: &str, at: BlockPos, camp: BlockPos) -> Entity {
        Entity {
            id,
            kind,
            owner: owner.to_owned(),
            at,
            health: rules::of(kind).health,
            order: Order::Hold,
            path: Vec::new(),
            nearest: 0,
            astray: 0,
            outcome: String::new(),
            goods: Goods::NONE,
            camp,
            home: camp,
            due: None,
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
        let kind = entity.kind;
        let kind = Kind::from_number(kind).ok_or(EntityError::UnknownKind { id, kind })?;
        let order = match &entity.order {
            Some(order) => Order::from_proto(order).map_err(|source| EntityError::Order { id, source })?,
            None => Order::Hold,
        };
        let place = |at: &Option<pb::BlockPos>| {
            at.as_ref().map(wire::to_block_pos).ok_or(EntityError::NoPosition { id })
        };
        let due = match &entity.due {
            None => None,
            Some(pb::Due { event, tick }) => {
                let known = Event::ALL.into_iter().find(|known| known.number() == *event);
                let event = known.ok_or(EntityError::UnknownEvent { id, event: *event })?;
                Some(Due { event, tick: *tick })
            }
        };
        Ok(Entity {
            id,
            kind,
            owner: entity.owner.clone(),
            at: place(&entity.at)?,
            health: entity.health,
            order,
            path: entity.path.iter().map(wire::to_block_pos).collect(),
            nearest: entity.nearest,
            astray: entity.astray,
            outcome: entity.outcome.clone(),
            goods: Goods::new(entity.wood, entity.stone),
            camp: place(&entity.camp)?,
            home: place(&entity.home)?,
            due,
        })
    }

    /// The entity as a message.
    pub fn to_proto(&self) -> pb::Entity {
        let place = |at| Some(wire::block_pos(at));
        pb::Entity {
            id: self.id,
            kind: self.kind.number(),
            owner: self.owner.clone(),
            at: place(self.at),
            health: self.health,
            order: Some(self.order.to_proto()),
            path: self.path.iter().copied().map(wire::block_pos).collect(),
            nearest: self.nearest,
            astray: self.astray,
            outcome: self.outcome.clone(),
            wood: self.goods.wood,
            stone: self.goods.stone,
            camp: place(self.camp),
            home: place(self.home),
            due: self.due.map(|due| pb::Due { event: due.event.number(), tick: due.tick }),
        }
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Gives it a new order; what it did before is forgotten.
    pub fn command(&mut self, order: Order) {
        self.order = order;
        self.path.clear();
        self.nearest = 0;
        self.astray = 0;
        self.outcome.clear();
    }

    /// Ends the order: it holds and says why.
    pub fn end(&mut self, outcome: &str) {
        self.command(Order::Hold);
        self.outcome.push_str(outcome);
    }

    /// Whether it has no health left. Dead handymen come back, all others are gone.
    pub fn is_dead(&self) -> bool {
        self.health == 0
    }

    /// Whether a tick must look at it: it has an order, and waits for nothing.
    pub fn is_active(&self) -> bool {
        self.order != Order::Hold && self.due.is_none()
    }

    /// Whether it takes no orders for now: it is dead, rises or trains.
    pub fn is_occupied(&self) -> bool {
        self.is_dead() || self.due.is_some_and(|due| due.event.occupies())
    }

    /// What it does, in one word, and the tick until which it certainly does.
    pub fn doing(&self) -> (&'static str, Option<u64>) {
        match self.due {
            Some(due) => (due.event.doing(), Some(due.tick)),
            None if self.is_dead() => ("dead", None),
            None => (self.order.name(), None),
        }
    }

    /// Why it takes no such order whatever the world is like, if so.
    pub fn refuses(&self, order: Order) -> Option<String> {
        let kind = self.kind;
        if let Some(due) = self.due.filter(|due| due.event.occupies()) {
            return Some(format!("this {} is {} until tick {}", kind.name(), due.event.doing(), due.tick));
        }
        if self.is_dead() {
            return Some(format!("this {} is dead", kind.name()));
        }
        let able = rules::of(kind).orders.contains(&order.name());
        (!able).then(|| {
            format!(
                "a {} cannot {}: it takes {}",
                kind.name(),
                order.name(),
                rules::of(kind).orders.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = BlockPos> {
        (any::<i32>(), any::<i32>(), any::<i32>()).prop_map(|(x, y, z)| BlockPos::new(x, y, z))
    }

    fn order() -> impl Strategy<Value = Order> {
        let built = prop::sample::select(rules::BUILDINGS.map(|product| product.what).to_vec());
        let trained = prop::sample::select(rules::RECRUITS.map(|product| product.what).to_vec());
        prop_oneof![
            Just(Order::Hold),
            place().prop_map(|to| Order::Move { to }),
            place().prop_map(|at| Order::Chop { at }),
            place().prop_map(|at| Order::Mine { at }),
            (place(), built).prop_map(|(at, block)| Order::Build { at, block }),
            (place(), any::<u64>(), any::<u64>()).prop_map(|(at, target, seen)| Order::Attack {
                target,
                at,
                seen
            }),
            trained.prop_map(|kind| Order::Train { kind }),
        ]
    }

    fn due() -> impl Strategy<Value = Option<Due>> {
        let event = prop::sample::select(Event::ALL.to_vec());
        prop::option::of((event, any::<u64>()).prop_map(|(event, tick)| Due { event, tick }))
    }

    prop_compose! {
        fn entity()(
            id: u64, kind in prop::sample::select(Kind::ALL.to_vec()), owner in ".*", health: u32, order in order(),
            places in (place(), place(), place()), path in prop::collection::vec(place(), 0..9), outcome in ".*",
            goods in (any::<u32>(), any::<u32>()), due in due(), gone in (any::<u32>(), any::<u32>()),
        ) -> Entity {
            let (at, camp, home) = places;
            let (goods, (nearest, astray)) = (Goods::new(goods.0, goods.1), gone);
            Entity { id, kind, owner, at, health, order, path, nearest, astray, outcome, goods, camp, home, due }
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
        fn a_damaged_entity_is_an_error_or_an_entity_no_bigger_than_its_bytes(
            entity in entity(), at: prop::sample::Index, bit in 0..8,
        ) {
            let mut bytes = entity.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            if let Ok(entity) = Entity::decode(&bytes) {
                prop_assert!(entity.owner.len() + entity.outcome.len() + entity.path.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn every_kind_is_found_by_its_number_its_name_and_its_block() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            assert_eq!(kind.block().is_none(), kind.is_unit());
            assert_eq!(kind.block().and_then(Kind::of_block), kind.block().map(|_| kind));
        }
        assert_eq!(
            (Kind::from_number(0), Kind::from_number(99), Kind::of_block(Block::Wall)),
            (None, None, None)
        );
    }

    #[test]
    fn an_order_that_cannot_be_read_is_refused_with_advice() {
        let build = |block| pb::Order {
            kind: Some(pb::order::Kind::Build(pb::Build { at: Some(pb::BlockPos::default()), block })),
        };
        assert!(Order::from_proto(&build(Block::Planks.kind())).is_ok());
        for kind in [1, 777, Block::Camp.kind()] {
            assert_eq!(Order::from_proto(&build(kind)), Err(OrderError::NotBuildable { kind }));
        }
        let train = |kind| pb::Order { kind: Some(pb::order::Kind::Train(pb::Train { kind })) };
        assert!(Order::from_proto(&train(Kind::Fighter.number())).is_ok());
        for kind in [0, Kind::Camp.number(), 99] {
            assert_eq!(Order::from_proto(&train(kind)), Err(OrderError::NotTrainable { kind }));
        }
        assert_eq!(Order::from_proto(&pb::Order { kind: None }), Err(OrderError::Empty));
        let nowhere = pb::Order { kind: Some(pb::order::Kind::Move(pb::Move { to: None })) };
        assert_eq!(Order::from_proto(&nowhere), Err(OrderError::NoPlace));
    }
}
