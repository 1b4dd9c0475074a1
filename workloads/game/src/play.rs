//! What players do: POST /register joins the world, /enter opens a play session, /actions gives orders, and GET /units
//! shows what one has.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fortia_proto::world::v1 as pb;
use fortia_rdb::world::Player as Joined;
use fortia_rest::{Json, Problem};
use fortia_vec::BlockPos;
use fortia_world::entity::{Entity, Kind};
use fortia_world::order::Order;
use fortia_world::{start, wire};
use http::StatusCode;
use prost::Message;
use serde::Serialize;
use utoipa::ToSchema;

use crate::allowance;
use crate::app::App;
use crate::order::{self, Orders, Wish};
use crate::read::Seen;
use crate::refusal;
use crate::session::Player;
use crate::shapes::{EntityShape, Place};

/// Answer of POST /register.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JoinAnswer {
    /// The player's name.
    player: String,
    /// Where the first units appear; z is found when they do.
    start: Place,
    /// Ids of what the player has: 64-bit numbers as text.
    units: Vec<String>,
    /// The tick after which they are there; absent when they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    tick: Option<u64>,
}

/// Answer of POST /enter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnterAnswer {
    /// The player's name.
    player: String,
    /// Where the player started.
    start: Place,
    /// What the player has.
    #[serde(flatten)]
    holdings: Holdings,
}

/// Answer of GET /units: what a player has.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Holdings {
    /// All is as it was after this tick.
    tick: u64,
    /// Goods in the stock, which is at the camp and pays for what is built and trained anywhere.
    stock: Stock,
    /// The player's handymen and fighters, ascending by id; handymen who wait to come back are among them.
    units: Vec<EntityShape>,
    /// The player's camp, houses and barracks, ascending by id.
    buildings: Vec<EntityShape>,
    /// Fighters and buildings that are gone for good; POST /enter forgets them.
    fallen: Vec<EntityShape>,
    /// Ids of those that are not there yet: they appear within the next ticks.
    awaited: Vec<String>,
}

/// Goods of a player.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Stock {
    /// Pieces of wood.
    wood: u32,
    /// Pieces of stone.
    stone: u32,
}

/// Answer of POST /actions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionsAnswer {
    /// The tick the orders run in; when a tick begins meanwhile, the one of the last order.
    tick: u64,
}

/// Joins this world: a start position and first units. Joining again changes nothing and answers the same with 200.
#[utoipa::path(post, path = "/register", security(("bearer" = []), ("cookie" = [])), responses(
    (status = 201, description = "Joined", body = JoinAnswer),
    (status = 200, description = "Had joined before", body = JoinAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many orders: see Retry-After", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The world is paused", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn register(State(app): State<Arc<App>>, Player(name): Player) -> Result<Response, Problem> {
    let joined = app.reader.player(&name).await.map_err(refusal::of_world)?;
    let (status, player, units) = match joined {
        Some(player) => {
            let units = app.reader.player_entities(&name).await.map_err(refusal::of_world)?;
            (StatusCode::OK, player, units)
        }
        None => {
            let (player, units) = join(&app, &name).await?;
            (StatusCode::CREATED, player, units)
        }
    };
    // A server that ended between the two writes of a join left a player without units: they are asked for again. Once
    // there is a camp, asking changes nothing.
    let camp = app.reader.entities(&[start::camp_id(&name)]).await.map_err(refusal::of_world)?;
    let tick = match camp.it.is_empty() {
        true => Some(spawn(&app, &name, player.start).await?),
        false => None,
    };
    let units = units.iter().map(u64::to_string).collect();
    let answer = JoinAnswer { player: name.to_string(), start: player.start.into(), units, tick };
    Ok((status, Json(answer)).into_response())
}

async fn join(app: &App, name: &str) -> Result<(Joined, Vec<u64>), Problem> {
    let info = app.world.info().await.map_err(refusal::of_world)?;
    let Some(info) = info else {
        return Err(Problem::unavailable("the world is still being made: try again", Duration::from_secs(2)));
    };
    // It may have to make hundreds of chunks.
    let owner = name.to_owned();
    let found = tokio::task::spawn_blocking(move || start::position(info.seed, info.radius, &owner)).await;
    let start = found.map_err(|error| {
        tracing::error!(player = name, %error, "no start position was found");
        Problem::internal()
    })?;
    let units = start::unit_ids(name, start::UNITS);
    let player = Joined { joined_ms: crate::app::unix_ms(), start };
    app.world.create_player(name, &player, &units).await.map_err(refusal::of_world)?;
    tracing::info!(player = name, %start, "player joined");
    Ok((player, units))
}

async fn spawn(app: &App, name: &Arc<str>, at: BlockPos) -> Result<u64, Problem> {
    // Until the camp is there every try is an action more in the list.
    allow(app, name, 1)?;
    let units = start::unit_ids(name, start::UNITS);
    let spawn = pb::Spawn { owner: name.to_string(), at: Some(wire::block_pos(at)), units };
    queue(app, name, at, pb::action::Kind::Spawn(spawn)).await
}

/// Takes orders off what the player may give, or says how long to wait.
fn allow(app: &App, player: &Arc<str>, orders: u32) -> Result<(), Problem> {
    let period = Duration::from_millis(app.config.borrow().world.tick_period_ms);
    let mut allowances = app.allowances.lock().unwrap_or_else(PoisonError::into_inner);
    allowances.take(player, orders, period, Instant::now()).map_err(|wait| {
        app.metrics.refused();
        let (often, once) = (allowance::PER_PERIOD, allowance::AT_ONCE);
        let detail =
            format!("too many orders: give at most {often} a tick, or {once} at once after a while without");
        Problem::too_many(detail, wait)
    })
}

/// Puts an action into the list of the next tick of the region of `at`. Returns the tick.
async fn queue(app: &App, player: &str, at: BlockPos, kind: pb::action::Kind) -> Result<u64, Problem> {
    let action = pb::Action { id: app.action_id(), player: player.to_owned(), kind: Some(kind) };
    let next = app.feed.newest().tick + 1;
    let bytes = Bytes::from(action.encode_to_vec());
    let tick = app.world.push_action(next, at.region(), bytes).await.map_err(refusal::of_world)?;
    app.metrics.action();
    Ok(tick)
}

/// Opens a play session: the player and what it has.
#[utoipa::path(post, path = "/enter", security(("bearer" = []), ("cookie" = [])), responses(
    (status = 200, body = EnterAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Has not joined", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn enter(
    State(app): State<Arc<App>>,
    Player(name): Player,
) -> Result<Json<EnterAnswer>, Problem> {
    let player = app.reader.player(&name).await.map_err(refusal::of_world)?.ok_or_else(not_joined)?;
    let (ids, seen) = owned(&app, &name).await?;
    let gone: Vec<u64> = seen.it.iter().filter(|it| is_gone(it)).map(|it| it.id).collect();
    // They are told now, and are forgotten at the next entry if it cannot be done now.
    if let Err(error) = app.world.forget_entities(&name, &gone).await {
        tracing::debug!(player = &*name, %error, "the fallen are not forgotten yet");
    }
    let answer = EnterAnswer {
        player: name.to_string(),
        start: player.start.into(),
        holdings: Holdings::of(&ids, &seen),
    };
    Ok(Json(answer))
}

/// What one has: units, buildings and the stock.
#[utoipa::path(get, path = "/units", security(("bearer" = []), ("cookie" = [])), responses(
    (status = 200, body = Holdings),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The shards do not answer, or this server has lost track of the world", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn units(
    State(app): State<Arc<App>>,
    Player(name): Player,
) -> Result<Json<Holdings>, Problem> {
    let (ids, seen) = owned(&app, &name).await?;
    Ok(Json(Holdings::of(&ids, &seen)))
}

/// The ids of what a player has, and those of it that are there.
async fn owned(app: &App, name: &str) -> Result<(Vec<u64>, Seen<Vec<Entity>>), Problem> {
    let ids = app.reader.player_entities(name).await.map_err(refusal::of_world)?;
    let seen = app.reader.entities(&ids).await.map_err(refusal::of_world)?;
    Ok((ids, seen))
}

/// Whether it is dead and does not come back.
fn is_gone(it: &Entity) -> bool {
    it.is_dead() && it.due.is_none()
}

impl Holdings {
    fn of(ids: &[u64], seen: &Seen<Vec<Entity>>) -> Holdings {
        let mut holdings = Holdings { tick: seen.tick, ..Holdings::default() };
        for it in &seen.it {
            if it.kind == Kind::Camp {
                holdings.stock = Stock { wood: it.goods.wood, stone: it.goods.stone };
            }
            match it {
                it if is_gone(it) => &mut holdings.fallen,
                it if it.kind.is_unit() => &mut holdings.units,
                _ => &mut holdings.buildings,
            }
            .push(EntityShape::from(it));
        }
        let awaited = ids.iter().filter(|id| seen.it.iter().all(|unit| unit.id != **id));
        holdings.awaited = awaited.map(u64::to_string).collect();
        holdings
    }
}

fn not_joined() -> Problem {
    Problem::conflict("you have not joined this world: send POST /register first")
}

/// Gives orders to units and buildings one owns.
///
/// Kinds of orders: hold; move with `to`; chop or mine with `at`; build with `at` and `block`; attack with `target`;
/// train with `recruit`. What a kind has no use for is refused. An order replaces the one before. Whether the world allows it shows in the unit's `outcome`.
///
/// A player may give 64 orders in each period of the tick, and up to 256 at once after a while without orders. Who
/// gives more is answered 429, with the seconds to wait in Retry-After; none of the request's orders is taken then.
#[utoipa::path(post, path = "/actions", request_body = Orders, security(("bearer" = []), ("cookie" = [])), responses(
    (status = 202, description = "Queued", body = ActionsAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "Not one's own unit", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A unit takes no orders now, or a target is not there", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Orders that make no sense", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many orders: see Retry-After", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The world is paused", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn actions(
    State(app): State<Arc<App>>,
    Player(name): Player,
    Json(orders): Json<Orders>,
) -> Result<Response, Problem> {
    let limit = app.config.borrow().world.limit;
    let wishes = order::parse(&orders, limit).map_err(|error| Problem::unprocessable(error.to_string()))?;
    allow(&app, &name, wishes.len() as u32)?;
    let own = app.reader.player_entities(&name).await.map_err(refusal::of_world)?;
    if let Some((unit, _)) = wishes.iter().find(|(unit, _)| own.binary_search(unit).is_err()) {
        return Err(Problem::forbidden(format!(
            "unit {unit} is not yours: order units listed by GET /units"
        )));
    }
    let mut ids: Vec<u64> =
        wishes.iter().flat_map(|(unit, wish)| [Some(*unit), wish.target()]).flatten().collect();
    ids.sort_unstable();
    ids.dedup();
    let seen = app.reader.entities(&ids).await.map_err(refusal::of_world)?;
    let there: HashMap<u64, &Entity> = seen.it.iter().map(|it| (it.id, it)).collect();
    let ordered = |(id, wish): &(u64, Wish)| {
        let unit = there.get(id).copied().ok_or_else(|| refusal::of_absent(*id))?;
        Ok((
            unit,
            order::give(unit, *wish, seen.tick, |id| there.get(&id).copied()).map_err(refusal::of_order)?,
        ))
    };
    let ordered: Vec<(&Entity, Order)> = wishes.iter().map(ordered).collect::<Result<_, Problem>>()?;
    let mut tick = 0;
    // One after the other: orders for one unit must not overtake each other.
    for (unit, order) in ordered {
        let command = pb::Command {
            unit: unit.id,
            order: Some(order.to_proto()),
            at: Some(wire::block_pos(unit.at)),
            seen: seen.tick,
        };
        tick = tick.max(queue(&app, &name, unit.at, pb::action::Kind::Command(command)).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(ActionsAnswer { tick })).into_response())
}
