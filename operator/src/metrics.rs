//! What the operator counts. Knows names, not where numbers come from.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::FortiaClusterStatus;

/// Labels of a cluster.
type OfCluster = Vec<(&'static str, String)>;

/// The operator's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// 1 while this process leads.
    pub leading: Gauge,
    /// Passes made.
    pub passes: Counter,
    /// Passes that ended in an error.
    pub errors: Counter,
    ready: Family<OfCluster, Gauge>,
    shards: Family<OfCluster, Gauge>,
    version: Family<OfCluster, Gauge>,
    rebalance_percent: Family<OfCluster, Gauge>,
    pause_ms: Family<OfCluster, Gauge>,
    keys: Family<OfCluster, Gauge>,
    bytes: Family<OfCluster, Gauge>,
    lag: Family<OfCluster, Gauge>,
    phase: Family<OfCluster, Gauge>,
    tries: Family<OfCluster, Gauge>,
}

/// Kinds of keys that are counted.
const KINDS: [&str; 4] = ["total", "carried", "stayed", "verified"];

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let registry = registry.sub_registry_with_prefix("fortia_operator");
        registry.register("leading", "1 while this process leads", metrics.leading.clone());
        registry.register("passes", "Reconcile passes", metrics.passes.clone());
        registry.register("errors", "Reconcile passes that ended in an error", metrics.errors.clone());
        registry.register("cluster_ready", "1 while a cluster is Ready", metrics.ready.clone());
        registry.register("cluster_shards", "Shards that serve", metrics.shards.clone());
        registry.register("cluster_version", "Database version that serves", metrics.version.clone());
        registry.register(
            "rebalance_percent",
            "Keys carried by the running re-sharding, in percent; absent while none runs",
            metrics.rebalance_percent.clone(),
        );
        registry.register(
            "rebalance_pause_ms",
            "Write pause of the last re-sharding; absent before the first",
            metrics.pause_ms.clone(),
        );
        registry.register(
            "rebalance_keys",
            "Keys of the running re-sharding, by what is done with them",
            metrics.keys.clone(),
        );
        registry.register(
            "rebalance_bytes",
            "Value bytes the running re-sharding carried from server to server",
            metrics.bytes.clone(),
        );
        registry.register(
            "rebalance_lag",
            "Keys written since they were last carried; absent while unknown",
            metrics.lag.clone(),
        );
        registry.register("rebalance_phase", "1 in the phase a re-sharding is in", metrics.phase.clone());
        registry.register("cutover_tries", "Tries to flip of the running re-sharding", metrics.tries.clone());
        metrics
    }

    /// Takes over a cluster's status.
    pub fn of_cluster(&self, namespace: &str, name: &str, status: &FortiaClusterStatus) {
        let labels = vec![("namespace", namespace.to_owned()), ("cluster", name.to_owned())];
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        self.ready.get_or_create(&labels).set(i64::from(ready));
        self.shards.get_or_create(&labels).set(i64::from(status.shards));
        self.version.get_or_create(&labels).set(number(status.version));
        self.of_rebalance(&labels, status.rebalance.as_ref());
        put(&self.pause_ms, &labels, status.last_pause_ms.map(number));
    }

    /// What is not known is absent, not zero.
    fn of_rebalance(&self, labels: &OfCluster, running: Option<&Rebalance>) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        put(&self.rebalance_percent, labels, running.and_then(|r| r.percent).map(i64::from));
        put(&self.bytes, labels, running.map(|r| number(r.bytes)));
        put(&self.lag, labels, running.and_then(|r| r.lag).map(number));
        put(&self.tries, labels, running.map(|r| r.cutover.as_ref().map_or(0, |c| i64::from(c.tries))));
        for phase in Phase::ALL {
            let is = running.is_some_and(|r| r.phase == phase);
            put(&self.phase, &with(labels, "phase", phase.as_str()), Some(i64::from(is)));
        }
        let counts = |r: &Rebalance| [r.total_keys, Some(r.keys), Some(r.stayed), Some(r.verified)];
        for (kind, count) in KINDS.into_iter().zip(running.map_or([None; 4], counts)) {
            put(&self.keys, &with(labels, "kind", kind), count.map(number));
        }
    }

    /// Forgets a cluster.
    pub fn forget(&self, namespace: &str, name: &str) {
        let labels = vec![("namespace", namespace.to_owned()), ("cluster", name.to_owned())];
        let single = [&self.ready, &self.shards, &self.version, &self.rebalance_percent, &self.pause_ms];
        for family in single.into_iter().chain([&self.bytes, &self.lag, &self.tries]) {
            family.remove(&labels);
        }
        for phase in Phase::ALL {
            self.phase.remove(&with(&labels, "phase", phase.as_str()));
        }
        for kind in KINDS {
            self.keys.remove(&with(&labels, "kind", kind));
        }
    }
}

fn put(family: &Family<OfCluster, Gauge>, labels: &OfCluster, value: Option<i64>) {
    match value {
        Some(value) => {
            family.get_or_create(labels).set(value);
        }
        None => {
            family.remove(labels);
        }
    }
}

fn with(labels: &OfCluster, name: &'static str, value: &str) -> OfCluster {
    labels.iter().cloned().chain([(name, value.to_owned())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_world_that_was_never_re_sharded_no_percent_and_no_pause_are_told() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let told = |status: &FortiaClusterStatus| {
            metrics.of_cluster("worlds", "midgard", status);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
            ["rebalance_percent{", "rebalance_pause_ms{"].map(|name| text.contains(name))
        };
        let mut status = FortiaClusterStatus::default();
        assert_eq!(told(&status), [false, false]);
        status.rebalance = Some(Rebalance { percent: Some(7), ..Rebalance::default() });
        status.last_pause_ms = Some(3);
        assert_eq!(told(&status), [true, true]);
        status.rebalance = None;
        assert_eq!(told(&status), [false, true]);
    }
}
