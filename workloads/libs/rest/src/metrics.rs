//! Metrics of served requests. Know routes and statuses, never full paths: labels must stay few.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Counters of one HTTP server; made once, cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Labels, Counter<u64, AtomicU64>>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    running: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

impl Metrics {
    /// Makes the metrics and registers them as `fortia_http_*`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            running: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("fortia_http");
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time until the head of the answer",
            metrics.seconds.clone(),
        );
        registry.register("requests_running", "Requests being worked on", metrics.running.clone());
        metrics
    }

    /// Counts a request as running until the guard is dropped.
    pub(crate) fn begin(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, method: &http::Method, route: &str, status: u16, took: Duration) {
        // Clients may invent methods; they must not invent labels.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.into(),
            _ => "other".into(),
        };
        self.requests.get_or_create(&Labels { method, route: route.into(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.into() }).observe(took.as_secs_f64());
    }
}

/// A running request.
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
