//! How far the pod is, told to the control database about once a second. Knows the record, not the work.

use std::time::{Duration, Instant};

use fortia_common::records::Progress;
use fortia_common::topology::Phase;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;

const EVERY: Duration = Duration::from_secs(1);

/// The pod's progress and where it is told.
pub(crate) struct Report<'a> {
    control: &'a ControlDb,
    version: u64,
    index: u32,
    told: Instant,
    /// What is told.
    pub(crate) progress: Progress,
}

impl<'a> Report<'a> {
    /// Begins to report on shard `index` in the re-sharding to `version`. A record of an earlier run is replaced:
    /// that was done then says nothing about now.
    pub(crate) async fn begin(
        control: &'a ControlDb,
        version: u64,
        index: u32,
        phase: Phase,
        total_keys: u64,
    ) -> Result<Report<'a>, RdbError> {
        let progress = Progress { total_keys: Some(total_keys), ..Progress::new(phase) };
        control.set_progress(version, index, &progress).await?;
        Ok(Report { control, version, index, told: Instant::now(), progress })
    }

    /// Tells the next phase.
    pub(crate) async fn enter(&mut self, phase: Phase) -> Result<(), RdbError> {
        tracing::info!(index = self.index, keys = self.progress.keys, %phase, "next phase");
        self.progress.phase = phase;
        self.tell().await
    }

    /// Tells, if it was not told for a while. True when it was told now.
    pub(crate) async fn step(&mut self) -> Result<bool, RdbError> {
        if self.told.elapsed() < EVERY {
            return Ok(false);
        }
        self.tell().await.map(|()| true)
    }

    /// Tells that all is done.
    pub(crate) async fn done(mut self) -> Result<Progress, RdbError> {
        self.progress.done = true;
        self.tell().await?;
        Ok(self.progress)
    }

    async fn tell(&mut self) -> Result<(), RdbError> {
        // A scan may see a key twice: what is told never passes the total.
        let all = self.progress.total_keys.unwrap_or(u64::MAX);
        self.progress.keys = self.progress.keys.min(all);
        self.progress.verified = self.progress.verified.min(all);
        self.control.set_progress(self.version, self.index, &self.progress).await?;
        self.told = Instant::now();
        Ok(())
    }
}
