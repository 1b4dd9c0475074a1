//! Orders of a player, parsed from JSON into what the ticker reads. Knows no HTTP server and no storage.

use fortia_vec::{BlockPos, CHUNK};
use fortia_world::block::Block;
use fortia_world::entity::{Entity, Kind};
use fortia_world::order::Order;
use fortia_world::{HEIGHT, rules};
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

/// What a unit is to do, as far as the request alone says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// All is said.
    Order(Order),
    /// To attack this one, wherever it is.
    Attack(u64),
}

/// Why orders cannot be given, and what could be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// Empty or too long list.
    #[error("give 1 to {LIMIT} orders at once, not {0}")]
    Count(usize),
    /// Not an id.
    #[error("unit {0:?} is not an id: use one from GET /units, as a string")]
    Unit(String),
    /// Not an id of one to attack.
    #[error("order attack needs `target`: an id from GET /entities, as a string, not {0:?}")]
    Target(String),
    /// Not a kind.
    #[error("order kind {0:?} is not known: use one of hold, move, chop, mine, build, attack, train")]
    Kind(String),
    /// The place the kind needs is absent.
    #[error("order {0} needs `{1}`: a place like {{\"x\": 1, \"y\": 2, \"z\": 30}}")]
    Place(&'static str, &'static str),
    /// Something the kind has no use for.
    #[error("order {0} takes {1}, not `{2}`: leave it out")]
    Stray(&'static str, String, &'static str),
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
    #[error("block {0:?} cannot be built: order build needs `block`: use {1}")]
    Block(String, String),
    /// A unit nobody can train.
    #[error("unit kind {0:?} cannot be trained: order train needs `recruit`: use {1}")]
    Recruit(String, String),
}

impl Wish {
    /// Whom it is about, beside the unit.
    pub(crate) fn target(self) -> Option<u64> {
        match self {
            Wish::Order(_) => None,
            Wish::Attack(target) => Some(target),
        }
    }
}

/// Why a unit is not given an order, as the world was seen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Not now.
    #[error("unit {0}: {1}")]
    Busy(u64, String),
    /// Never.
    #[error("unit {0}: {1}")]
    Unable(u64, String),
    /// The target is not there.
    #[error("there is no {0} to attack: choose an id from GET /entities")]
    NoTarget(u64),
    /// The target is one's own.
    #[error("{0} is your own: choose somebody else's unit or building to attack")]
    OwnTarget(u64),
}

/// The order that a unit gets, from what was seen after `tick`. The ticker checks all of it again when it runs.
///
/// # Errors
/// When the unit does not take such an order, or there is nobody to attack.
pub(crate) fn give<'a>(
    unit: &Entity,
    wish: Wish,
    tick: u64,
    seen: impl Fn(u64) -> Option<&'a Entity>,
) -> Result<Order, Refused> {
    let order = match wish {
        Wish::Order(order) => order,
        Wish::Attack(target) => {
            let it = seen(target).filter(|it| !it.is_dead()).ok_or(Refused::NoTarget(target))?;
            if it.owner == unit.owner {
                return Err(Refused::OwnTarget(target));
            }
            Order::Attack { target, at: it.at, seen: tick }
        }
    };
    match unit.refuses(order) {
        Some(reason) if unit.is_occupied() => Err(Refused::Busy(unit.id, reason)),
        Some(reason) => Err(Refused::Unable(unit.id, reason)),
        None => Ok(order),
    }
}

/// Parses orders for a world of `radius` chunks into unit ids and what they are to do.
///
/// # Errors
/// At the first order that makes no sense.
pub(crate) fn parse(orders: &Orders, radius: u32) -> Result<Vec<(u64, Wish)>, OrderError> {
    let count = orders.orders.len();
    if !(1..=LIMIT).contains(&count) {
        return Err(OrderError::Count(count));
    }
    orders.orders.iter().map(|o| Ok((unit(&o.unit)?, wish(&o.order, radius)?))).collect()
}

fn unit(text: &str) -> Result<u64, OrderError> {
    text.parse().map_err(|_| OrderError::Unit(start_of(text)))
}

/// Each kind of order, and what it takes.
const KINDS: [(&str, &[&str]); 7] = [
    ("hold", &[]),
    ("move", &["to"]),
    ("chop", &["at"]),
    ("mine", &["at"]),
    ("build", &["at", "block"]),
    ("attack", &["target"]),
    ("train", &["recruit"]),
];

fn wish(shape: &OrderShape, radius: u32) -> Result<Wish, OrderError> {
    let place = |kind, name, place: Option<Place>| match place {
        Some(place) => inside(place, radius),
        None => Err(OrderError::Place(kind, name)),
    };
    let wish = match shape.kind.as_str() {
        "hold" => Wish::Order(Order::Hold),
        "move" => Wish::Order(Order::Move { to: place("move", "to", shape.to)? }),
        "chop" => Wish::Order(Order::Chop { at: place("chop", "at", shape.at)? }),
        "mine" => Wish::Order(Order::Mine { at: place("mine", "at", shape.at)? }),
        "build" => {
            let at = place("build", "at", shape.at)?;
            Wish::Order(Order::Build { at, block: block(shape.block.as_deref())? })
        }
        "train" => Wish::Order(Order::Train { kind: recruit(shape.recruit.as_deref())? }),
        "attack" => {
            let text = shape.target.as_deref().unwrap_or_default();
            Wish::Attack(text.parse().map_err(|_| OrderError::Target(start_of(text)))?)
        }
        other => return Err(OrderError::Kind(start_of(other))),
    };
    nothing_else(shape)?;
    Ok(wish)
}

/// What is given beside what the kind takes would be passed over without a word: whoever gave it meant something by it.
fn nothing_else(shape: &OrderShape) -> Result<(), OrderError> {
    let OrderShape { kind, to, at, block, target, recruit } = shape;
    let Some((kind, taken)) = KINDS.into_iter().find(|(known, _)| known == kind) else { return Ok(()) };
    let given = [
        ("to", to.is_some()),
        ("at", at.is_some()),
        ("block", block.is_some()),
        ("target", target.is_some()),
        ("recruit", recruit.is_some()),
    ];
    match given.into_iter().find(|(name, given)| *given && !taken.contains(name)) {
        None => Ok(()),
        Some((stray, _)) => {
            let taken: Vec<String> = taken.iter().map(|name| format!("`{name}`")).collect();
            let taken = if taken.is_empty() { "nothing else".to_owned() } else { taken.join(" and ") };
            Err(OrderError::Stray(kind, taken, stray))
        }
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
    Block::from_name(name).filter(|block| rules::building(*block).is_some()).ok_or_else(|| {
        let all = rules::BUILDINGS.map(|product| product.what.name());
        OrderError::Block(start_of(name), all.join(" or "))
    })
}

fn recruit(name: Option<&str>) -> Result<Kind, OrderError> {
    let name = name.unwrap_or_default();
    Kind::from_name(name).filter(|kind| rules::recruit(*kind).is_some()).ok_or_else(|| {
        let all = rules::RECRUITS.map(|product| product.what.name());
        OrderError::Recruit(start_of(name), all.join(" or "))
    })
}

/// Enough of what a client sent to recognise it.
fn start_of(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use fortia_world::entity::{Due, Event};
    use serde_json::{Value, json};

    use super::*;

    fn parsed(order: Value) -> Result<Wish, OrderError> {
        let orders = json!({"orders": [{"unit": "18446744073709551615", "order": order}]});
        let orders = parse(&serde_json::from_value(orders).expect("shape"), 2)?;
        assert_eq!(orders[0].0, u64::MAX);
        Ok(orders[0].1)
    }

    #[test]
    fn every_kind_of_order_is_understood() {
        let at = BlockPos::new(1, -2, 30);
        let place = json!({"x": 1, "y": -2, "z": 30});
        let order = |order| Ok(Wish::Order(order));
        assert_eq!(parsed(json!({"kind": "hold"})), order(Order::Hold));
        assert_eq!(parsed(json!({"kind": "move", "to": place})), order(Order::Move { to: at }));
        assert_eq!(parsed(json!({"kind": "chop", "at": place})), order(Order::Chop { at }));
        assert_eq!(parsed(json!({"kind": "mine", "at": place})), order(Order::Mine { at }));
        for block in [Block::Wall, Block::Planks, Block::House, Block::Barracks] {
            let build = json!({"kind": "build", "at": place, "block": block.name()});
            assert_eq!(parsed(build), order(Order::Build { at, block }));
        }
        let train = json!({"kind": "train", "recruit": "fighter"});
        assert_eq!(parsed(train), order(Order::Train { kind: Kind::Fighter }));
        assert_eq!(parsed(json!({"kind": "attack", "target": "7"})), Ok(Wish::Attack(7)));
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_kinds_there_are() {
        let error = parsed(json!({"kind": "dance"})).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "order kind \"dance\" is not known: use one of hold, move, chop, mine, build, attack, train"
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
            assert!(error.ends_with("use planks or wall or house or barracks"), "{error}");
        }
        for order in [json!({"kind": "train"}), json!({"kind": "train", "recruit": "camp"})] {
            let error = parsed(order).expect_err("nobody to train").to_string();
            assert!(error.ends_with("use fighter"), "{error}");
        }
        for order in [json!({"kind": "attack"}), json!({"kind": "attack", "target": "bob"})] {
            let error = parsed(order).expect_err("nobody to attack").to_string();
            assert!(error.starts_with("order attack needs `target`"), "{error}");
        }
    }

    #[test]
    fn what_an_order_has_no_use_for_is_refused_by_name() {
        let place = json!({"x": 1, "y": -2, "z": 30});
        let all = json!({"to": place, "at": place, "block": "wall", "target": "7", "recruit": "fighter"});
        for (kind, taken) in KINDS {
            let mut order = json!({"kind": kind});
            for name in taken {
                order[*name] = all[*name].clone();
            }
            assert!(parsed(order.clone()).is_ok(), "{order}");
            for (stray, value) in
                all.as_object().expect("all").iter().filter(|(name, _)| !taken.contains(&name.as_str()))
            {
                let mut order = order.clone();
                order[stray] = value.clone();
                let error = parsed(order).expect_err("a stray").to_string();
                assert!(
                    error.starts_with(&format!("order {kind} takes "))
                        && error.contains(&format!("not `{stray}`")),
                    "{error}"
                );
            }
        }
        let build = json!({"kind": "build", "at": place, "block": "wall", "to": place});
        let error = parsed(build).expect_err("a stray").to_string();
        assert_eq!(error, "order build takes `at` and `block`, not `to`: leave it out");
        let error = parsed(json!({"kind": "hold", "to": place})).expect_err("a stray").to_string();
        assert_eq!(error, "order hold takes nothing else, not `to`: leave it out");
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

    #[test]
    fn an_attack_goes_to_where_the_target_was_seen_and_to_nobody_of_ones_own() {
        let unit = |kind, id, owner| {
            Entity::new(kind, id, owner, BlockPos::new(id as i32, 0, 9), BlockPos::default())
        };
        let (fighter, foe) = (unit(Kind::Fighter, 1, "ann"), unit(Kind::Handyman, 2, "eve"));
        let (mut dead, own) = (unit(Kind::Handyman, 3, "eve"), unit(Kind::House, 4, "ann"));
        dead.health = 0;
        let all = [&fighter, &foe, &dead, &own];
        let give = |unit: &Entity, target| {
            give(unit, Wish::Attack(target), 7, |id| all.iter().copied().find(|it| it.id == id))
        };
        assert_eq!(give(&fighter, 2), Ok(Order::Attack { target: 2, at: foe.at, seen: 7 }));
        assert_eq!(give(&fighter, 3), Err(Refused::NoTarget(3)));
        assert_eq!(give(&fighter, 9), Err(Refused::NoTarget(9)));
        assert_eq!(give(&fighter, 4), Err(Refused::OwnTarget(4)));
        let refused = give(&foe, 1).expect_err("handymen do not attack").to_string();
        assert_eq!(refused, "unit 2: a handyman cannot attack: it takes hold, move, chop, mine, build");
    }

    #[test]
    fn who_is_dead_or_busy_takes_no_orders_and_says_until_when() {
        let at = BlockPos::new(0, 0, 9);
        let mut unit = Entity::new(Kind::Handyman, 5, "ann", at, at);
        let hold = |unit: &Entity| give(unit, Wish::Order(Order::Hold), 7, |_| None);
        assert_eq!(hold(&unit), Ok(Order::Hold));
        unit.health = 0;
        unit.due = Some(Due { event: Event::Revived, tick: 30 });
        assert_eq!(hold(&unit), Err(Refused::Busy(5, "this handyman is dead until tick 30".into())));
    }
}
