//! What the operator counts. Knows names, not where numbers come from.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
}

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
            "Keys carried by the running re-sharding, in percent",
            metrics.rebalance_percent.clone(),
        );
        registry.register(
            "rebalance_pause_ms",
            "Write pause of the last re-sharding",
            metrics.pause_ms.clone(),
        );
        metrics
    }

    /// Takes over a cluster's status.
    pub fn of_cluster(&self, namespace: &str, name: &str, status: &crate::crd::status::FortiaClusterStatus) {
        let labels = vec![("namespace", namespace.to_owned()), ("cluster", name.to_owned())];
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        self.ready.get_or_create(&labels).set(i64::from(ready));
        self.shards.get_or_create(&labels).set(i64::from(status.shards));
        self.version.get_or_create(&labels).set(number(status.version));
        let percent = status.rebalance.as_ref().map_or(100, |r| i64::from(r.percent));
        self.rebalance_percent.get_or_create(&labels).set(percent);
        self.pause_ms.get_or_create(&labels).set(number(status.last_pause_ms.unwrap_or_default()));
    }

    /// Forgets a cluster.
    pub fn forget(&self, namespace: &str, name: &str) {
        let labels = vec![("namespace", namespace.to_owned()), ("cluster", name.to_owned())];
        for family in [&self.ready, &self.shards, &self.version, &self.rebalance_percent, &self.pause_ms] {
            family.remove(&labels);
        }
    }
}
