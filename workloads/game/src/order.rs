//! Orders of a player, parsed from JSON into what the ticker reads. Knows no HTTP server and no storage.

use fortia_vec::{BlockPos, CHUNK};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::order::Order;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shapes::{OrderShape, Place};

/// Orders one request may give.
pub(crate) const LIMIT: usize = 64;

/// Body of POST /actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Orders {
    /// One to 64 orders; they are carried out in this order.
    pub(crate) orders: Vec<UnitOrder>,
}

/// An order for one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitOrder {
    /// The unit's id: a 64-bit number as text.
    #[schema(example = "9259542123273814144")]
    pub(crate) unit: String,
    /// What it is to do.
    pub(crate) order: OrderShape,
}

/// Why orders cannot be given, and what could be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// Empty or too long list.
    #[error("give 1 to {LIMIT} orders at once, not {0}")]
    Count(usize),
    /// Not an id.
    #[error("unit {0:?} is not an id: use one from POST /enter, as a string")]
    Unit(String),
    /// Not a kind, or not one yet.
    #[error("order kind {0:?} is not known: use one of hold, move, chop, mine, build")]
    Kind(String),
    /// The place the kind needs is absent.
    #[error("order {0} needs `{1}`: a place like {{\"x\": 1, \"y\": 2, \"z\": 30}}")]
    Place(&'static str, &'static str),
    /// A place nothing can be at.
    #[error("{at} is outside the world: x and y go from {low} to {high}, z from 0 to {top}")]
    Outside {
        /// The place.
        at: BlockPos,
        /// Lowest x and y.
        low: i32,
        /// Highest x and y.
        high: i32,
        /// Highest z.
        top: i32,
    },
    /// A block nobody can place.
    #[error("block {0:?} cannot be built: use {1}")]
    Block(String, String),
}

/// Parses orders for a world of `radius` chunks into unit ids and orders.
///
/// # Errors
/// At the first order that makes no sense.
pub(crate) fn parse(orders: &Orders, radius: u32) -> Result<Vec<(u64, Order)>, OrderError> {
    let count = orders.orders.len();
    if !(1..=LIMIT).contains(&count) {
        return Err(OrderError::Count(count));
    }
    orders.orders.iter().map(|o| Ok((unit(&o.unit)?, order(&o.order, radius)?))).collect()
}

fn unit(text: &str) -> Result<u64, OrderError> {
    text.parse().map_err(|_| OrderError::Unit(start_of(text)))
}

fn order(shape: &OrderShape, radius: u32) -> Result<Order, OrderError> {
    let place = |kind, name, place: Option<Place>| match place {
        Some(place) => inside(place, radius),
        None => Err(OrderError::Place(kind, name)),
    };
    match shape.kind.as_str() {
        "hold" => Ok(Order::Hold),
        "move" => Ok(Order::Move { to: place("move", "to", shape.to)? }),
        "chop" => Ok(Order::Chop { at: place("chop", "at", shape.at)? }),
        "mine" => Ok(Order::Mine { at: place("mine", "at", shape.at)? }),
        "build" => {
            Ok(Order::Build { at: place("build", "at", shape.at)?, block: block(shape.block.as_deref())? })
        }
        other => Err(OrderError::Kind(start_of(other))),
    }
}

fn inside(place: Place, radius: u32) -> Result<BlockPos, OrderError> {
    let (at, top) = (BlockPos::from(place), i32::from(HEIGHT) - 1);
    if at.chunk().is_within(radius) && (0..=top).contains(&at.z) {
        return Ok(at);
    }
    let side = i32::try_from(radius).unwrap_or(i32::MAX).saturating_mul(CHUNK);
    Err(OrderError::Outside { at, low: -side, high: side.saturating_add(CHUNK - 1), top })
}

fn block(name: Option<&str>) -> Result<Block, OrderError> {
    let name = name.unwrap_or_default();
    Block::from_name(name).filter(|block| block.cost().is_some()).ok_or_else(|| {
        let buildable = Block::ALL.into_iter().filter(|block| block.cost().is_some()).map(Block::name);
        OrderError::Block(start_of(name), buildable.collect::<Vec<_>>().join(" or "))
    })
}

/// Enough of what a client sent to recognise it.
fn start_of(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(order: Value) -> Result<Order, OrderError> {
        let orders = json!({"orders": [{"unit": "18446744073709551615", "order": order}]});
        let orders = parse(&serde_json::from_value(orders).expect("shape"), 2)?;
        assert_eq!(orders[0].0, u64::MAX);
        Ok(orders[0].1)
    }

    #[test]
    fn every_kind_of_order_is_understood() {
        let at = BlockPos::new(1, -2, 30);
        let place = json!({"x": 1, "y": -2, "z": 30});
        assert_eq!(parsed(json!({"kind": "hold"})), Ok(Order::Hold));
        assert_eq!(parsed(json!({"kind": "move", "to": place})), Ok(Order::Move { to: at }));
        assert_eq!(parsed(json!({"kind": "chop", "at": place})), Ok(Order::Chop { at }));
        assert_eq!(parsed(json!({"kind": "mine", "at": place})), Ok(Order::Mine { at }));
        assert_eq!(
            parsed(json!({"kind": "build", "at": place, "block": "wall"})),
            Ok(Order::Build { at, block: Block::Wall })
        );
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_kinds_there_are() {
        let error = parsed(json!({"kind": "attack"})).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "order kind \"attack\" is not known: use one of hold, move, chop, mine, build"
        );
    }

    #[test]
    fn an_order_without_what_it_needs_is_refused_by_name() {
        assert_eq!(parsed(json!({"kind": "move"})), Err(OrderError::Place("move", "to")));
        let place = json!({"x": 1, "y": 2, "z": 3});
        assert_eq!(parsed(json!({"kind": "mine", "to": place})), Err(OrderError::Place("mine", "at")));
        for order in
            [json!({"kind": "build", "at": place}), json!({"kind": "build", "at": place, "block": "stone"})]
        {
            let error = parsed(order).expect_err("no block to build").to_string();
            assert!(error.ends_with("use planks or wall"), "{error}");
        }
    }

    #[test]
    fn a_place_outside_the_world_is_refused_with_its_bounds() {
        let to = |x: i32, z: i32| parsed(json!({"kind": "move", "to": {"x": x, "y": 0, "z": z}}));
        assert!(to(47, 0).is_ok() && to(-32, 63).is_ok());
        for order in [to(48, 0), to(-33, 0), to(0, 64), to(0, -1), to(i32::MAX, 0)] {
            assert!(
                matches!(order, Err(OrderError::Outside { low: -32, high: 47, top: 63, .. })),
                "{order:?}"
            );
        }
    }

    #[test]
    fn orders_must_be_some_but_not_too_many_and_name_units_by_id() {
        let hold = |unit: &str| UnitOrder {
            unit: unit.into(),
            order: OrderShape { kind: "hold".into(), ..OrderShape::default() },
        };
        assert_eq!(parse(&Orders { orders: vec![] }, 2), Err(OrderError::Count(0)));
        assert_eq!(
            parse(&Orders { orders: vec![hold("1"); LIMIT + 1] }, 2),
            Err(OrderError::Count(LIMIT + 1))
        );
        assert_eq!(parse(&Orders { orders: vec![hold("bob")] }, 2), Err(OrderError::Unit("bob".into())));
    }
}
