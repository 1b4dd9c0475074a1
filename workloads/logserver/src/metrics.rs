//! What the log server counts. Knows names only.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of a store; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Records stored.
    pub received: Counter<u64, AtomicU64>,
    /// Records that could not be stored.
    pub rejected: Counter<u64, AtomicU64>,
    /// Bytes of torn writes found after crashes.
    pub torn: Counter<u64, AtomicU64>,
    /// Segments that could not be read.
    pub damaged: Counter<u64, AtomicU64>,
    bytes: Gauge,
    segments: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them as `fortia_logserver_*`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let registry = registry.sub_registry_with_prefix("fortia_logserver");
        registry.register("received", "Log records stored", metrics.received.clone());
        registry.register("rejected", "Log records that could not be stored", metrics.rejected.clone());
        registry.register("torn_bytes", "Bytes of torn writes found after crashes", metrics.torn.clone());
        registry.register("damaged", "Segments that could not be read", metrics.damaged.clone());
        registry.register("stored_bytes", "Bytes all segments take", metrics.bytes.clone());
        registry.register("segments", "Segments, the one being written included", metrics.segments.clone());
        metrics
    }

    pub(crate) fn stored(&self, (bytes, segments): &(u64, usize)) {
        self.bytes.set(i64::try_from(*bytes).unwrap_or(i64::MAX));
        self.segments.set(i64::try_from(*segments).unwrap_or(i64::MAX));
    }
}
