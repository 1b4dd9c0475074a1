//! The ticker's metrics. Knows names and units only.

use std::time::Duration;

use fortia_proto::tick::v1::{Letter, Stage, letter};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStage {
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// What a ticker measures.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) connected: Gauge,
    pub(crate) regions: Gauge,
    pub(crate) loaded: Counter,
    pub(crate) strays: Counter,
    pub(crate) chunks: Counter,
    pub(crate) entities: Counter,
    pub(crate) bytes: Counter,
    pub(crate) actions: Counter,
    pub(crate) failed: Counter,
    pub(crate) letters: Counter,
    pub(crate) locks: Counter,
    pub(crate) lock_conflicts: Counter,
    edits: Family<OfOutcome, Counter>,
    stages: Family<OfStage, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            connected: Gauge::default(),
            regions: Gauge::default(),
            loaded: Counter::default(),
            strays: Counter::default(),
            chunks: Counter::default(),
            entities: Counter::default(),
            bytes: Counter::default(),
            actions: Counter::default(),
            failed: Counter::default(),
            letters: Counter::default(),
            locks: Counter::default(),
            lock_conflicts: Counter::default(),
            edits: Family::default(),
            stages: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 16))),
        };
        let registry = registry.sub_registry_with_prefix("fortia_ticker");
        registry.register("connected", "Whether a leading scheduler is connected", metrics.connected.clone());
        registry.register("regions", "Regions owned", metrics.regions.clone());
        registry.register("loaded_chunks", "Chunks loaded from shards", metrics.loaded.clone());
        registry.register(
            "strays",
            "Entities that were not where a chunk listed them, as after a loss that was accepted",
            metrics.strays.clone(),
        );
        registry.register("dirty_chunks", "Chunks committed", metrics.chunks.clone());
        registry.register("dirty_entities", "Entities committed", metrics.entities.clone());
        registry.register("committed_bytes", "Bytes of chunks and entities committed", metrics.bytes.clone());
        registry.register("actions", "Actions taken", metrics.actions.clone());
        registry.register("failed", "Stages that failed", metrics.failed.clone());
        registry.register("letters", "Letters sent to regions of other tickers", metrics.letters.clone());
        registry.register("locks", "Locks of chunks taken (strategy Lock)", metrics.locks.clone());
        let met = "Claims that met another on their block when they were made (strategy Lock)";
        registry.register("lock_conflicts", met, metrics.lock_conflicts.clone());
        let edits = "Edits decided here; those not done met another edit or somebody in the way";
        registry.register("edits", edits, metrics.edits.clone());
        registry.register("stage_seconds", "Duration of a stage of a tick", metrics.stages.clone());
        metrics
    }

    /// Counts answers to edits.
    pub(crate) fn edited<'a>(&self, answers: impl Iterator<Item = &'a Letter>) {
        let outcomes = answers.filter_map(|letter| match &letter.kind {
            Some(letter::Kind::Outcome(outcome)) => Some(outcome.done),
            _ => None,
        });
        let (done, refused) =
            outcomes.fold((0, 0), |(yes, no), done| (yes + u64::from(done), no + u64::from(!done)));
        for (outcome, count) in [("done", done), ("refused", refused)] {
            self.edits.get_or_create(&OfOutcome { outcome }).inc_by(count);
        }
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
}
