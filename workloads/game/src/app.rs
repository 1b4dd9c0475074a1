//! The game server's state and its routes. Knows which handler answers what.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use fortia_common::records::Config;
use fortia_common::topology::Topology;
use fortia_rdb::world::World;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::allowance::Allowances;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::read::Reader;
use crate::session::Sessions;
use crate::{look, play, update};

/// Everything the handlers use.
pub(crate) struct App {
    /// The cluster's configuration.
    pub(crate) config: watch::Receiver<Config>,
    /// Where the world's keys are.
    pub(crate) topology: watch::Receiver<Topology>,
    /// The shards.
    pub(crate) world: World,
    /// Reads as of a committed tick.
    pub(crate) reader: Reader,
    /// The committed ticks.
    pub(crate) feed: Feed,
    /// Whether the shards are there and take writes.
    pub(crate) pulse: watch::Receiver<Pulse>,
    /// Who is logged in.
    pub(crate) sessions: Sessions,
    /// How many orders players may give.
    pub(crate) allowances: Mutex<Allowances>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Ends the streams of events.
    pub(crate) stop: CancellationToken,
    /// Ids of actions.
    pub(crate) action_ids: ActionIds,
}

impl App {
    /// The id of the next action.
    pub(crate) fn action_id(&self) -> u64 {
        self.action_ids.next(unix_ms())
    }
}

/// What the API's document says of it.
const ABOUT: &str = "One world: what is in it, what changes in it, and orders to one's own units. Sessions are those of \
                     the auth API.";

/// The routes of the game server with their description at /openapi.json.
pub(crate) fn router(app: Arc<App>) -> Router {
    let described = OpenApiRouter::new()
        .routes(routes!(look::map))
        .routes(routes!(look::info))
        .routes(routes!(look::chunks))
        .routes(routes!(look::entities))
        .routes(routes!(update::update))
        .routes(routes!(play::register))
        .routes(routes!(play::enter))
        .routes(routes!(play::units))
        .routes(routes!(play::actions));
    fortia_rest::documented("Fortia game", ABOUT, described).with_state(app)
}

/// Gives actions ids by which those that conflict are ordered: first come, first served. Two servers never give the
/// same id but by a rare chance, which only leaves the order of two actions to the order they were queued in.
#[derive(Debug)]
pub(crate) struct ActionIds {
    last: AtomicU64,
    server: u64,
}

/// Low bits of an id that tell servers apart.
const SERVER_BITS: u32 = 10;
/// Bits below the milliseconds: a count within one millisecond and the server.
const BELOW_MS: u32 = 20;

impl Default for ActionIds {
    fn default() -> Self {
        let server = RandomState::new().hash_one("server") & ((1 << SERVER_BITS) - 1);
        ActionIds { last: AtomicU64::new(0), server }
    }
}

impl ActionIds {
    /// An id greater than all before, at Unix time `now_ms`.
    fn next(&self, now_ms: u64) -> u64 {
        let step = 1 << SERVER_BITS;
        let at_least = (now_ms << BELOW_MS) | self.server;
        let greater = |last: u64| Some(at_least.max(last + step));
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, greater) {
            Ok(last) | Err(last) => at_least.max(last + step),
        }
    }
}

/// Unix time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_get_ascending_ids_even_when_the_clock_stands_or_goes_back() {
        let ids = ActionIds::default();
        let given: Vec<u64> = [1000, 1000, 999, 1001].into_iter().map(|now| ids.next(now)).collect();
        assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
        assert!(given.iter().all(|id| id & ((1 << SERVER_BITS) - 1) == ids.server), "{given:?}");
    }
}
