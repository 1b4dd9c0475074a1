//! The JSON of the API: how chunks, entities and orders look to a client. Knows no HTTP server and no storage.
//!
//! Ids are 64-bit and travel as strings: JavaScript's numbers would lose their last digits.

use fortia_vec::BlockPos;
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::order::Order;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A block's place: x and y are horizontal, z is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// West to east.
    pub(crate) x: i32,
    /// South to north.
    pub(crate) y: i32,
    /// Up; 0 is the lowest.
    pub(crate) z: i32,
}

/// One chunk column of 16 x 16 x height blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ChunkShape {
    /// In chunks, west to east.
    pub(crate) x: i32,
    /// In chunks, south to north.
    pub(crate) y: i32,
    /// Blocks from bottom to top.
    pub(crate) height: u32,
    /// Names of the blocks used here.
    #[schema(example = json!(["air", "stone", "grass"]))]
    pub(crate) palette: Vec<&'static str>,
    /// Pairs of index into the palette and number of blocks: x runs fastest, then y, then z.
    #[schema(example = json!([1, 4096, 2, 256, 0, 12032]))]
    pub(crate) runs: Vec<u32>,
    /// With `hidden=true`: lengths of runs in the same order, of blocks that can be seen and of hidden ones in turn. A
    /// block is hidden when it is solid and so is all around it; at the rim of the chunks asked for none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!([0, 16128, 256]))]
    pub(crate) hidden: Option<Vec<u32>>,
    /// Ids of the entities that stand here, ascending.
    #[schema(example = json!(["9259542123273814144"]))]
    pub(crate) entities: Vec<String>,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EntityShape {
    /// 64-bit number as text.
    #[schema(example = "9259542123273814144")]
    pub(crate) id: String,
    /// `handyman`, `fighter`, `camp`, `house` or `barracks`.
    #[schema(example = "handyman")]
    pub(crate) kind: &'static str,
    /// Name of the player who commands it.
    pub(crate) owner: String,
    /// Where it stands.
    pub(crate) at: Place,
    /// Health left; 0 for the dead.
    pub(crate) health: u32,
    /// What it does: `rising` (being built), `training`, `dead`, `resting` or `unloading`, or else the kind of its order.
    #[schema(example = "hold")]
    pub(crate) doing: &'static str,
    /// The tick until which it certainly does that; absent when none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<u64>,
    /// What it was told.
    pub(crate) order: OrderShape,
    /// Steps still to take, next first.
    pub(crate) path: Vec<Place>,
    /// Why its last order ended, or who killed it; empty while none has.
    pub(crate) outcome: String,
    /// Wood it carries; a camp's is its owner's stock.
    pub(crate) wood: u32,
    /// Stone it carries; a camp's is its owner's stock.
    pub(crate) stone: u32,
}

/// What a unit or building is to do: `hold`; `move` with `to`; `chop` or `mine` with `at`; `build` with `at` and `block`;
/// `attack` with `target`; `train` with `recruit`. An order given has nothing else; one shown has also `at` for `attack`,
/// where the target was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderShape {
    /// `hold`, `move`, `chop`, `mine`, `build`, `attack` or `train`.
    #[schema(example = "move")]
    pub(crate) kind: String,
    /// Where to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<Place>,
    /// The block to work on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Place>,
    /// What to build: `planks`, `wall`, `house` or `barracks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<String>,
    /// Whom to attack: an id as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Whom to train: `fighter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recruit: Option<String>,
}

impl From<BlockPos> for Place {
    fn from(at: BlockPos) -> Place {
        Place { x: at.x, y: at.y, z: at.z }
    }
}

impl From<Place> for BlockPos {
    fn from(at: Place) -> BlockPos {
        BlockPos::new(at.x, at.y, at.z)
    }
}

impl From<&Column> for ChunkShape {
    fn from(column: &Column) -> ChunkShape {
        let mut names: Vec<Block> = Vec::new();
        let mut runs: Vec<u32> = Vec::new();
        let mut last = None;
        for block in column.blocks() {
            if last != Some(block) {
                let known = names.iter().position(|name| *name == block);
                let index = known.unwrap_or_else(|| {
                    names.push(block);
                    names.len() - 1
                });
                runs.extend([index as u32, 0]);
                last = Some(block);
            }
            if let Some(length) = runs.last_mut() {
                *length += 1;
            }
        }
        ChunkShape {
            x: column.at().x,
            y: column.at().y,
            height: u32::from(HEIGHT),
            palette: names.into_iter().map(Block::name).collect(),
            runs,
            hidden: None,
            entities: column.entities().iter().map(u64::to_string).collect(),
        }
    }
}

impl From<&Entity> for EntityShape {
    fn from(entity: &Entity) -> EntityShape {
        let (doing, until) = entity.doing();
        EntityShape {
            id: entity.id.to_string(),
            kind: entity.kind.name(),
            owner: entity.owner.clone(),
            at: entity.at.into(),
            health: entity.health,
            doing,
            until,
            order: entity.order.into(),
            path: entity.path.iter().copied().map(Place::from).collect(),
            outcome: entity.outcome.clone(),
            wood: entity.goods.wood,
            stone: entity.goods.stone,
        }
    }
}

impl From<Order> for OrderShape {
    fn from(order: Order) -> OrderShape {
        let mut shape = OrderShape { kind: order.name().to_owned(), ..OrderShape::default() };
        match order {
            Order::Hold => {}
            Order::Move { to } => shape.to = Some(to.into()),
            Order::Chop { at } | Order::Mine { at } => shape.at = Some(at.into()),
            Order::Build { at, block } => {
                shape.at = Some(at.into());
                shape.block = Some(block.name().to_owned());
            }
            Order::Attack { target, at, .. } => {
                shape.target = Some(target.to_string());
                shape.at = Some(at.into());
            }
            Order::Train { kind } => shape.recruit = Some(kind.name().to_owned()),
        }
        shape
    }
}

#[cfg(test)]
mod tests {
    use fortia_vec::{ChunkPos, LocalPos};
    use fortia_world::entity::{Due, Event, Kind};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_chunk_is_told_as_runs_of_named_blocks_from_the_bottom_up() {
        let mut column = Column::empty(ChunkPos::new(-1, 2));
        for (x, block) in [(0, Block::Stone), (1, Block::Stone), (2, Block::Grass)] {
            column.set(LocalPos { x, y: 0, z: 0 }, block);
        }
        column.set_entity(u64::MAX, true);
        assert_eq!(
            serde_json::to_value(ChunkShape::from(&column)).expect("json"),
            json!({"x": -1, "y": 2, "height": 64, "palette": ["stone", "grass", "air"],
                "runs": [0, 2, 1, 1, 2, 16 * 16 * 64 - 3], "entities": ["18446744073709551615"]})
        );
    }

    #[test]
    fn an_entity_tells_its_id_as_text_and_its_order_as_it_was_given() {
        let at = BlockPos::new(1, -2, 30);
        let mut unit = Entity::new(Kind::Handyman, u64::MAX - 1, "bob", at, at);
        unit.command(Order::Build { at: BlockPos::new(2, -2, 30), block: Block::Planks });
        let shape = serde_json::to_value(EntityShape::from(&unit)).expect("json");
        assert_eq!(shape["id"], json!("18446744073709551614"));
        assert_eq!(shape["at"], json!({"x": 1, "y": -2, "z": 30}));
        assert_eq!(
            shape["order"],
            json!({"kind": "build", "at": {"x": 2, "y": -2, "z": 30}, "block": "planks"})
        );
        assert_eq!(
            serde_json::to_value(OrderShape::from(Order::Hold)).expect("json"),
            json!({"kind": "hold"})
        );
    }

    #[test]
    fn an_entity_tells_what_it_does_and_until_which_tick() {
        let at = BlockPos::new(1, -2, 30);
        let mut barracks = Entity::new(Kind::Barracks, 7, "bob", at, at);
        let told = |it: &Entity| serde_json::to_value(EntityShape::from(it)).expect("json");
        assert_eq!((&told(&barracks)["doing"], &told(&barracks)["until"]), (&json!("hold"), &Value::Null));
        barracks.command(Order::Train { kind: Kind::Fighter });
        barracks.due = Some(Due { event: Event::Trained, tick: 90 });
        let told = told(&barracks);
        assert_eq!((&told["doing"], &told["until"]), (&json!("training"), &json!(90)));
        assert_eq!(told["order"], json!({"kind": "train", "recruit": "fighter"}));
    }
}
