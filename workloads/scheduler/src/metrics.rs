//! The scheduler's metrics. Knows names and units only.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fortia_proto::tick::v1::Stage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::exchange::Why;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfStage {
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfTicker {
    ticker: String,
}

/// What a scheduler measures. Only the leader's say something of the world.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) leads: Gauge,
    pub(crate) tick: Gauge<u64, AtomicU64>,
    pub(crate) epoch: Gauge<u64, AtomicU64>,
    pub(crate) epochs: Counter,
    pub(crate) topology_epoch: Gauge<u64, AtomicU64>,
    pub(crate) frozen: Gauge,
    pub(crate) dirty_keys: Gauge<u64, AtomicU64>,
    pub(crate) dilation: Gauge<f64, AtomicU64>,
    pub(crate) tickers: Gauge,
    pauses: Histogram,
    cutovers: Family<OfOutcome, Counter>,
    abandoned: Family<OfReason, Counter>,
    regions: Family<OfTicker, Gauge>,
    ticks: Histogram,
    stages: Family<OfStage, Histogram, fn() -> Histogram>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_125, 2.0, 18))
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            leads: Gauge::default(),
            tick: Gauge::default(),
            epoch: Gauge::default(),
            epochs: Counter::default(),
            topology_epoch: Gauge::default(),
            frozen: Gauge::default(),
            dirty_keys: Gauge::default(),
            dilation: Gauge::default(),
            tickers: Gauge::default(),
            pauses: seconds(),
            cutovers: Family::default(),
            abandoned: Family::default(),
            regions: Family::default(),
            ticks: seconds(),
            stages: Family::new_with_constructor(seconds),
        };
        let registry = registry.sub_registry_with_prefix("fortia_scheduler");
        registry.register("leads", "Whether this scheduler leads", metrics.leads.clone());
        registry.register("tick", "Last committed tick", metrics.tick.clone());
        registry.register("epoch", "Epoch of the assignment of regions", metrics.epoch.clone());
        registry.register("epochs", "Assignments of regions made", metrics.epochs.clone());
        registry.register(
            "topology_epoch",
            "Epoch of the topology that is ticked under",
            metrics.topology_epoch.clone(),
        );
        registry.register(
            "frozen",
            "Whether writes stand still to cut a re-sharding over",
            metrics.frozen.clone(),
        );
        registry.register(
            "dirty_keys",
            "Keys written and not yet carried, as last asked for a cut-over",
            metrics.dirty_keys.clone(),
        );
        registry.register(
            "cutover_pause_seconds",
            "How long a try to cut over kept writes from being made",
            metrics.pauses.clone(),
        );
        registry.register("cutovers", "Tries to cut over: flipped, late or failed", metrics.cutovers.clone());
        registry.register(
            "dilation",
            "Time between two ticks by the wanted time, over the last 17; 1 is on time",
            metrics.dilation.clone(),
        );
        registry.register("tickers", "Connected tickers", metrics.tickers.clone());
        registry.register("regions", "Regions a ticker owns", metrics.regions.clone());
        registry.register(
            "abandoned",
            "Runs of a tick that were given up, to be run again",
            metrics.abandoned.clone(),
        );
        registry.register("tick_seconds", "Duration of a tick", metrics.ticks.clone());
        registry.register(
            "stage_seconds",
            "Time until the last ticker has answered a stage",
            metrics.stages.clone(),
        );
        metrics
    }

    pub(crate) fn abandoned(&self, why: Why) {
        self.abandoned.get_or_create(&OfReason { reason: why.as_str() }).inc();
    }

    /// A cut-over was tried; `pause` is how long writes waited for it, if they did.
    pub(crate) fn tried(&self, outcome: &'static str, pause: Option<Duration>) {
        pause.into_iter().for_each(|pause| self.pauses.observe(pause.as_secs_f64()));
        self.cutovers.get_or_create(&OfOutcome { outcome }).inc();
    }

    pub(crate) fn ticked(&self, took: Duration) {
        self.ticks.observe(took.as_secs_f64());
    }

    pub(crate) fn staged(&self, stage: Stage, took: Duration) {
        let stage = match stage {
            Stage::Unspecified => return,
            Stage::Observe => "observe",
            Stage::Edit => "edit",
            Stage::Move => "move",
            Stage::Commit => "commit",
        };
        self.stages.get_or_create(&OfStage { stage }).observe(took.as_secs_f64());
    }

    pub(crate) fn assigned<'a>(&self, tickers: impl Iterator<Item = (&'a str, usize)>) {
        self.regions.clear();
        let mut count = 0;
        for (ticker, regions) in tickers {
            let label = OfTicker { ticker: ticker.to_owned() };
            self.regions.get_or_create(&label).set(i64::try_from(regions).unwrap_or(i64::MAX));
            count += 1;
        }
        self.tickers.set(count);
    }

    /// Sets what only a leader knows back to nothing.
    pub(crate) fn resigned(&self) {
        self.leads.set(0);
        self.frozen.set(0);
        self.dilation.set(0.0);
        self.assigned(std::iter::empty());
    }
}
