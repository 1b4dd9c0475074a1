//! What everyone may see: GET /, /info, /chunks, /entities. No session needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use fortia_rest::{Json, Problem, Query};
use fortia_vec::ChunkPos;
use fortia_world::chunk::{Column, Lines};
use fortia_world::{HEIGHT, generate};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::Message;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use xxhash_rust::xxh3::Xxh3;

use crate::app::App;
use crate::area::{self, READ_LIMIT};
use crate::format::{self, Format, PROTOBUF};
use crate::pulse::Pulse;
use crate::read::{ReadError, Seen};
use crate::refusal;
use crate::shapes::{ChunkShape, EntityShape};

/// Carries the tick of an answer also where there is no body.
const TICK: HeaderName = HeaderName::from_static("fortia-tick");

/// Whether ticks go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Ticks are committed and orders are taken.
    Live,
    /// No tick is committed for now: the world can be seen but does not move.
    Paused,
    /// As paused, because part of the world's database does not answer, or this server has lost track of where the world
    /// is: what is seen may be some ticks old.
    ReadOnly,
}

/// Ticks that did not come for so many periods do not go on.
const LATE_PERIODS: u32 = 3;
/// Ticks that are less late than this may only be slow.
const LATE: Duration = Duration::from_secs(2);

impl Mode {
    /// The mode by what the shards' primaries say, how long ago the last tick was committed, and how long ticks take
    /// these days.
    pub(crate) fn of(pulse: Pulse, quiet: Duration, period: Duration) -> Mode {
        let late = quiet > period.saturating_mul(LATE_PERIODS).max(LATE);
        match pulse {
            Pulse::Silent | Pulse::Elsewhere => Mode::ReadOnly,
            Pulse::Frozen => Mode::Paused,
            Pulse::Open if late => Mode::Paused,
            Pulse::Open => Mode::Live,
        }
    }
}

/// Answer of GET /info.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    /// The world's name.
    world: String,
    /// Chunks from -radius to radius are there from the beginning, both ways.
    radius: u32,
    /// Chunks from -limit to limit are made when somebody comes near: the edge of the world.
    limit: u32,
    /// Chunks along each side that are there from the beginning.
    size: u32,
    /// Blocks from bottom to top.
    height: u32,
    /// What the world is generated from; a 64-bit number as text.
    seed: String,
    /// The last committed tick.
    tick: u64,
    /// Wanted time between two ticks.
    tick_period_ms: u64,
    /// How many times as long as wanted the last 17 ticks took: 1 is on time, at 2 the world is at half its speed. Ticks
    /// that do not fit into their period slow the world down and are never queued. null: not known yet, because this server has
    /// seen fewer than two ticks since it started, or since the database's `version` changed.
    #[schema(example = 1.0)]
    dilation: Option<f64>,
    /// Whether ticks go on.
    mode: Mode,
    /// Version of the database; it grows with every re-sharding.
    version: u64,
}

/// Answer of GET /chunks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunksAnswer {
    /// The chunks are as they were after this tick.
    tick: u64,
    /// In the order asked; chunks that are beyond the world or not made yet are left out.
    chunks: Vec<ChunkShape>,
}

/// Answer of GET /entities.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntitiesAnswer {
    /// The entities are as they were after this tick.
    tick: u64,
    /// All entities in the chunks asked for.
    entities: Vec<EntityShape>,
}

/// Which chunks, and what of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChunksQuery {
    /// Chunk x coordinates, with commas between them, at most 64: `0,1`.
    x: Option<String>,
    /// Chunk y coordinates, as many: `0,0`.
    y: Option<String>,
    /// Whether to tell which blocks are hidden, so that they need not be drawn (JSON only; default false).
    hidden: Option<bool>,
}

/// Which chunks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AreaQuery {
    /// Chunk x coordinates, with commas between them, at most 64: `0,1`.
    x: Option<String>,
    /// Chunk y coordinates, as many: `0,0`.
    y: Option<String>,
}

/// The map: a web page that shows the world live from above.
#[utoipa::path(get, path = "/", responses((status = 200, content_type = "text/html", body = String)))]
pub(crate) async fn map() -> Html<&'static str> {
    Html(include_str!("map.html"))
}

/// The world's name, size, tick and mode.
#[utoipa::path(get, path = "/info", responses((status = 200, body = Info)))]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Json<Info> {
    let world = app.config.borrow().world.clone();
    Json(Info {
        size: world.radius.saturating_mul(2).saturating_add(1),
        radius: world.radius,
        limit: world.limit,
        height: u32::from(HEIGHT),
        seed: world.seed.to_string(),
        tick: app.feed.newest().tick,
        tick_period_ms: world.tick_period_ms,
        dilation: app.feed.dilation(Duration::from_millis(world.tick_period_ms)).map(to_hundredths),
        mode: app.mode(),
        version: app.topology.borrow().serving.version,
        world: world.name,
    })
}

/// The chunks (x[i], y[i]).
///
/// As JSON, or as protobuf `fortia.world.v1.Chunks` for `Accept: application/x-protobuf`, whose `chunks` are the bytes
/// as they are stored. The ETag changes with the chunks' content, not with the tick; the tick is also in the header
/// `fortia-tick`.
#[utoipa::path(get, path = "/chunks", params(ChunksQuery), responses(
    (status = 200, description = "The chunks", headers(
        ("fortia-tick" = u64, description = "The chunks are as they were after this tick"),
        ("etag" = String, description = "Names the chunks' content"),
    ), content((ChunksAnswer = "application/json"), (Vec<u8> = "application/x-protobuf"))),
    (status = 304, description = "If-None-Match names what is there"),
    (status = 400, description = "The query names no area", body = Problem, content_type = "application/problem+json"),
    (status = 406, description = "Accept names neither format", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The shards do not answer, or this server has lost track of the world", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn chunks(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(ChunksQuery { x, y, hidden }): Query<ChunksQuery>,
) -> Result<Response, Problem> {
    let format = format::wanted(&headers).ok_or_else(|| {
        let detail = format!("chunks are sent as application/json or {PROTOBUF}: name one of them in Accept");
        Problem::with(StatusCode::NOT_ACCEPTABLE, detail)
    })?;
    let at = app.area(x.as_deref(), y.as_deref())?;
    let hidden = hidden.unwrap_or(false);
    let seen = app.reader.chunks(&at).await.map_err(refusal::of_world)?;
    let tag = match format {
        Format::Protobuf => tag('p', &seen.it),
        Format::Json if hidden => tag('h', &seen.it),
        Format::Json => tag('j', &seen.it),
    };
    let mut response = match format {
        _ if is_known(&headers, &tag) => StatusCode::NOT_MODIFIED.into_response(),
        Format::Protobuf => ([(CONTENT_TYPE, PROTOBUF)], as_protobuf(seen.tick, &seen.it)).into_response(),
        Format::Json => Json(as_json(&seen, hidden).map_err(refusal::of_world)?).into_response(),
    };
    let kept = response.headers_mut();
    kept.insert(TICK, HeaderValue::from(seen.tick));
    kept.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    kept.insert(VARY, HeaderValue::from_static("accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        kept.insert(ETAG, tag);
    }
    Ok(response)
}

/// All entities in the chunks (x[i], y[i]).
#[utoipa::path(get, path = "/entities", params(AreaQuery), responses(
    (status = 200, body = EntitiesAnswer),
    (status = 400, description = "The query names no area", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The shards do not answer, or this server has lost track of the world", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn entities(
    State(app): State<Arc<App>>,
    Query(AreaQuery { x, y }): Query<AreaQuery>,
) -> Result<Json<EntitiesAnswer>, Problem> {
    let at = app.area(x.as_deref(), y.as_deref())?;
    let seen = app.reader.area(&at).await.map_err(refusal::of_world)?;
    let entities = seen.it.entities.iter().map(EntityShape::from).collect();
    Ok(Json(EntitiesAnswer { tick: seen.tick, entities }))
}

impl App {
    /// The chunks of this world that a query names.
    fn area(&self, x: Option<&str>, y: Option<&str>) -> Result<Vec<ChunkPos>, Problem> {
        let mut at =
            area::parse(x, y, READ_LIMIT).map_err(|error| Problem::bad_request(error.to_string()))?;
        let limit = self.config.borrow().world.limit;
        at.retain(|at| at.is_within(limit));
        Ok(at)
    }

    /// Whether ticks go on.
    pub(crate) fn mode(&self) -> Mode {
        let wanted = Duration::from_millis(self.config.borrow().world.tick_period_ms);
        Mode::of(*self.pulse.borrow(), self.feed.newest().since.elapsed(), self.feed.period(wanted))
    }
}

fn to_hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn as_json(seen: &Seen<Vec<(ChunkPos, Bytes)>>, hidden: bool) -> Result<ChunksAnswer, ReadError> {
    let columns = seen.it.iter().map(|(at, bytes)| Ok((*at, Column::decode(bytes)?)));
    let columns: Vec<(ChunkPos, Column)> = columns.collect::<Result<_, ReadError>>()?;
    let mut chunks: Vec<ChunkShape> = columns.iter().map(|(_, column)| ChunkShape::from(column)).collect();
    if hidden {
        let known: HashMap<ChunkPos, &Column> = columns.iter().map(|(at, column)| (*at, column)).collect();
        for (chunk, (at, column)) in chunks.iter_mut().zip(&columns) {
            let around =
                [(-1, 0), (1, 0), (0, -1), (0, 1)].map(|(x, y)| known.get(&at.offset(x, y)).copied());
            chunk.hidden = Some(runs(&generate::hidden(column, around)));
        }
    }
    Ok(ChunksAnswer { tick: seen.tick, chunks })
}

/// Lengths of runs of unset and set bits in turn, in the order in which blocks are told.
fn runs(lines: &Lines) -> Vec<u32> {
    let mut runs = vec![0];
    let mut last = 0;
    for bit in (0..HEIGHT).flat_map(|z| lines.iter().map(move |line| line >> z & 1)) {
        if bit != last {
            runs.push(0);
            last = bit;
        }
        if let Some(length) = runs.last_mut() {
            *length += 1;
        }
    }
    runs
}

/// `fortia.world.v1.Chunks` with its messages as the bytes they are stored as: in protobuf both look the same.
#[derive(Clone, PartialEq, Message)]
struct StoredChunks {
    #[prost(uint64, tag = "1")]
    tick: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    chunks: Vec<Bytes>,
}

fn as_protobuf(tick: u64, chunks: &[(ChunkPos, Bytes)]) -> Vec<u8> {
    let chunks = chunks.iter().map(|(_, bytes)| bytes.clone()).collect();
    StoredChunks { tick, chunks }.encode_to_vec()
}

/// A weak tag of the content: the same chunks have the same tag in every tick and however they are compressed.
fn tag(format: char, chunks: &[(ChunkPos, Bytes)]) -> String {
    let mut hash = Xxh3::new();
    for (at, bytes) in chunks {
        hash.update(&at.x.to_le_bytes());
        hash.update(&at.y.to_le_bytes());
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    format!("W/\"{format}{:032x}\"", hash.digest128())
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|t| t == "*" || t.trim_start_matches("W/") == opaque)
}

#[cfg(test)]
mod tests {
    use fortia_proto::world::v1 as pb;

    use super::*;

    #[test]
    fn a_world_is_paused_when_frozen_or_quiet_for_three_periods_but_at_least_two_seconds() {
        let seconds = Duration::from_secs;
        let of = |quiet, period| Mode::of(Pulse::Open, seconds(quiet), seconds(period));
        assert_eq!(of(2, 0), Mode::Live);
        assert_eq!(of(3, 0), Mode::Paused);
        assert_eq!(of(9, 3), Mode::Live);
        assert_eq!(of(10, 3), Mode::Paused);
        assert_eq!(Mode::of(Pulse::Frozen, seconds(0), seconds(1)), Mode::Paused);
    }

    #[test]
    fn a_world_with_a_silent_shard_is_read_only_however_fresh_its_last_tick() {
        assert_eq!(Mode::of(Pulse::Silent, Duration::ZERO, Duration::from_secs(1)), Mode::ReadOnly);
    }

    #[test]
    fn a_world_that_is_served_by_another_version_than_this_server_knows_is_not_live_here() {
        assert_eq!(Mode::of(Pulse::Elsewhere, Duration::ZERO, Duration::from_secs(1)), Mode::ReadOnly);
    }

    #[test]
    fn a_tag_changes_with_content_place_and_format_only() {
        let chunk =
            |x, bytes: &'static str| vec![(ChunkPos::new(x, 0), Bytes::from_static(bytes.as_bytes()))];
        let first = tag('j', &chunk(0, "a"));
        assert_eq!(first, tag('j', &chunk(0, "a")));
        let others = [tag('j', &chunk(0, "b")), tag('j', &chunk(1, "a")), tag('p', &chunk(0, "a"))];
        assert!(!others.contains(&first), "{others:?}");
    }

    #[test]
    fn a_tag_is_known_when_any_of_the_clients_tags_is_it() {
        let headers = |value: &str| HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().expect("header"))]);
        for known in ["W/\"j1\"", "\"j1\"", "\"x\", W/\"j1\"", "*"] {
            assert!(is_known(&headers(known), "W/\"j1\""), "{known}");
        }
        assert!(!is_known(&headers("W/\"j2\""), "W/\"j1\""));
        assert!(!is_known(&HeaderMap::new(), "W/\"j1\""));
    }

    #[test]
    fn stored_bytes_are_the_chunks_that_clients_decode() {
        let columns = [Column::empty(ChunkPos::new(0, 0)), Column::empty(ChunkPos::new(-1, 2))];
        let stored: Vec<(ChunkPos, Bytes)> =
            columns.iter().map(|column| (column.at(), column.encode().into())).collect();
        let chunks = pb::Chunks::decode(&as_protobuf(7, &stored)[..]).expect("protobuf");
        assert_eq!(chunks.tick, 7);
        let decoded: Vec<_> =
            chunks.chunks.iter().map(|chunk| Column::from_proto(chunk).expect("a column")).collect();
        assert_eq!(decoded, columns);
    }
}
