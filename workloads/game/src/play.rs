//! What players do: POST /register joins the world, /enter opens a play session, /actions gives orders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fortia_proto::world::v1 as pb;
use fortia_rdb::world::Player as Joined;
use fortia_rest::{Json, Problem};
use fortia_vec::BlockPos;
use fortia_world::entity::Entity;
use fortia_world::{start, wire};
use http::StatusCode;
use prost::Message;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::order::{self, Orders};
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
    /// Ids of the player's units: 64-bit numbers as text.
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
    /// The units are as they were after this tick.
    tick: u64,
    /// The player's units.
    units: Vec<EntityShape>,
    /// Ids of units that are not there yet: they appear within the next ticks.
    awaited: Vec<String>,
}

/// Answer of POST /actions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionsAnswer {
    /// The tick the orders run in; when a tick begins meanwhile, the one of the last order.
    tick: u64,
}

/// Joins this world: a start position and first units. Joining again changes nothing and answers the same with 200.
#[utoipa::path(post, path = "/register", responses(
    (status = 201, description = "Joined", body = JoinAnswer),
    (status = 200, description = "Had joined before", body = JoinAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
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
    // A server that ended between the two writes of a join left a player without units: they are asked for again.
    let alive = app.reader.entities(&units).await.map_err(refusal::of_world)?;
    let tick = match alive.it.is_empty() {
        true => Some(spawn(&app, &name, player.start, &units).await?),
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
    let start = start::position(info.seed, info.size, name);
    let units = start::unit_ids(name, start::UNITS);
    let player = Joined { joined_ms: crate::app::unix_ms(), start };
    app.world.create_player(name, &player, &units).await.map_err(refusal::of_world)?;
    tracing::info!(player = name, %start, "player joined");
    Ok((player, units))
}

async fn spawn(app: &App, name: &str, at: BlockPos, units: &[u64]) -> Result<u64, Problem> {
    let spawn = pb::Spawn { owner: name.to_owned(), at: Some(wire::block_pos(at)), units: units.to_vec() };
    queue(app, name, at, pb::action::Kind::Spawn(spawn)).await
}

/// Puts an action into the list of the next tick of the region of `at`. Returns the tick.
async fn queue(app: &App, player: &str, at: BlockPos, kind: pb::action::Kind) -> Result<u64, Problem> {
    let action = pb::Action { id: app.action_id(), player: player.to_owned(), kind: Some(kind) };
    let next = app.feed.now().borrow().tick + 1;
    let bytes = Bytes::from(action.encode_to_vec());
    let tick = app.world.push_action(next, at.region(), bytes).await.map_err(refusal::of_world)?;
    app.metrics.action();
    Ok(tick)
}

/// Opens a play session: the player and its units.
#[utoipa::path(post, path = "/enter", responses(
    (status = 200, body = EnterAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Has not joined", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn enter(
    State(app): State<Arc<App>>,
    Player(name): Player,
) -> Result<Json<EnterAnswer>, Problem> {
    let player = app.reader.player(&name).await.map_err(refusal::of_world)?.ok_or_else(not_joined)?;
    let ids = app.reader.player_entities(&name).await.map_err(refusal::of_world)?;
    let seen = app.reader.entities(&ids).await.map_err(refusal::of_world)?;
    let awaited = ids.iter().filter(|id| seen.it.iter().all(|unit| unit.id != **id)).map(u64::to_string);
    Ok(Json(EnterAnswer {
        player: name.to_string(),
        start: player.start.into(),
        tick: seen.tick,
        units: seen.it.iter().map(EntityShape::from).collect(),
        awaited: awaited.collect(),
    }))
}

fn not_joined() -> Problem {
    Problem::conflict("you have not joined this world: send POST /register first")
}

/// Gives orders to units one owns.
///
/// Kinds of orders: hold; move with `to`; chop or mine with `at`; build with `at` and `block`. An order replaces the
/// one before. Whether the world allows it shows in the unit's `outcome`.
#[utoipa::path(post, path = "/actions", request_body = Orders, responses(
    (status = 202, description = "Queued", body = ActionsAnswer),
    (status = 401, description = "Not logged in", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "Not one's own unit", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A unit is not there yet", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Orders that make no sense", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The world is paused", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn actions(
    State(app): State<Arc<App>>,
    Player(name): Player,
    Json(orders): Json<Orders>,
) -> Result<Response, Problem> {
    let radius = app.config.borrow().world.radius;
    let orders = order::parse(&orders, radius).map_err(|error| Problem::unprocessable(error.to_string()))?;
    let own = app.reader.player_entities(&name).await.map_err(refusal::of_world)?;
    if let Some((unit, _)) = orders.iter().find(|(unit, _)| !own.contains(unit)) {
        return Err(Problem::forbidden(format!(
            "unit {unit} is not yours: order units listed by POST /enter"
        )));
    }
    let places = places(&app, orders.iter().map(|(unit, _)| *unit)).await?;
    let mut tick = 0;
    // One after the other: orders for one unit must not overtake each other.
    for (unit, order) in orders {
        let at = places.get(&unit).copied().ok_or_else(|| {
            Problem::conflict(format!(
                "unit {unit} is not in the world yet: it appears within the next ticks"
            ))
        })?;
        let command = pb::Command { unit, order: Some(order.to_proto()) };
        tick = tick.max(queue(&app, &name, at, pb::action::Kind::Command(command)).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(ActionsAnswer { tick })).into_response())
}

/// Where units stand.
async fn places(app: &App, units: impl Iterator<Item = u64>) -> Result<HashMap<u64, BlockPos>, Problem> {
    let mut ids: Vec<u64> = units.collect();
    ids.sort_unstable();
    ids.dedup();
    let seen = app.reader.entities(&ids).await.map_err(refusal::of_world)?;
    Ok(seen.it.into_iter().map(|Entity { id, at, .. }| (id, at)).collect())
}
