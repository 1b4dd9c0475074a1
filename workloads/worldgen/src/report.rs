//! How far the world is, told to the control database about once a second, to the log and to the metrics. Knows the
//! record, not the work.

use std::time::{Duration, Instant};

use fortia_common::records::WorldProgress;
use fortia_rdb::control::ControlDb;
use prometheus_client::metrics::gauge::Gauge;

const EVERY: Duration = Duration::from_secs(1);

/// The progress and where it is told.
pub(crate) struct Report<'a> {
    control: &'a ControlDb,
    gauge: &'a Gauge,
    progress: WorldProgress,
    told: Instant,
    /// Percent that the log has.
    logged: u64,
}

impl<'a> Report<'a> {
    /// Begins to report on a world of so many chunks.
    pub(crate) async fn begin(control: &'a ControlDb, gauge: &'a Gauge, of: u64) -> Report<'a> {
        let progress = WorldProgress { chunks: 0, of };
        let report = Report { control, gauge, progress, told: Instant::now(), logged: 0 };
        report.tell().await;
        report
    }

    /// So many more chunks are there.
    pub(crate) async fn add(&mut self, chunks: usize) {
        self.progress.chunks += chunks as u64;
        self.gauge.set(self.progress.chunks as i64);
        let WorldProgress { chunks, of } = self.progress;
        let percent = chunks * 100 / of.max(1);
        if percent >= self.logged + 10 {
            self.logged = percent;
            tracing::info!(chunks, of, percent, "generating the world");
        }
        if chunks == of || self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            self.tell().await;
        }
    }

    /// The work goes on without the word about it.
    async fn tell(&self) {
        if let Err(error) = self.control.set_world_progress(&self.progress).await {
            tracing::warn!(%error, "the progress could not be told");
        }
    }
}
