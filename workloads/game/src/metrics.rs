//! What the game server counts. Knows no HTTP.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The game's counters; cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    subscribers: Gauge,
    actions: Counter,
    refused: Counter,
}

/// A subscriber that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Metrics {
    /// Makes the metrics and registers them as `fortia_game_*`.
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let registry = registry.sub_registry_with_prefix("fortia_game");
        registry.register("subscribers", "Clients that watch an area", metrics.subscribers.clone());
        registry.register("actions", "Actions queued for a tick", metrics.actions.clone());
        let text = "Requests refused because their player gave too many orders";
        registry.register("actions_refused", text, metrics.refused.clone());
        metrics
    }

    /// Counts a subscriber, unless there are `limit` already.
    pub(crate) fn subscriber(&self, limit: i64) -> Option<Counted> {
        let counted = Counted(self.subscribers.clone());
        (self.subscribers.inc() < limit).then_some(counted)
    }

    /// Counts a request that is over its player's allowance.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// Counts an action.
    pub(crate) fn action(&self) {
        self.actions.inc();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
