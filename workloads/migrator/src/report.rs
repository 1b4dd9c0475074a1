//! How far the pod is, told to the control database about once a second. Knows the record, not the work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fortia_common::records::Progress;
use fortia_common::topology::Phase;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;

/// How often progress is told.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// The pod's progress and where it is told.
pub(crate) struct Report<'a> {
    control: &'a ControlDb,
    version: u64,
    index: u32,
    progress: Mutex<Progress>,
}

impl<'a> Report<'a> {
    /// To report on shard `index` in the re-sharding to `version`.
    pub(crate) fn new(control: &'a ControlDb, version: u64, index: u32, phase: Phase) -> Report<'a> {
        Report { control, version, index, progress: Mutex::new(Progress::new(phase)) }
    }

    /// What is told.
    pub(crate) fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Changes what is told; the next telling tells it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
    }

    /// Tells the next phase.
    pub(crate) async fn enter(&self, phase: Phase) {
        tracing::info!(index = self.index, %phase, "next phase");
        self.change(|progress| progress.phase = phase);
        self.tell_or_warn().await;
    }

    /// Tells, whatever a pod of an older attempt has told. A record of an earlier run is replaced: that was done then
    /// says nothing about now.
    pub(crate) async fn begin(&self, attempt: u64) -> Result<(), RdbError> {
        self.change(|progress| progress.attempt = attempt);
        self.tell().await
    }

    /// Tells all that is known, unless a newer attempt has told already: the word is then with that one.
    pub(crate) async fn tell(&self) -> Result<(), RdbError> {
        let newer = self.newer().await?;
        let progress = self.told();
        match newer {
            Some(newer) => tracing::debug!(index = self.index, newer, "a newer attempt reports"),
            None => self.control.set_progress(self.version, self.index, &progress).await?,
        }
        Ok(())
    }

    /// The attempt that has told something, if it is newer than this one.
    pub(crate) async fn newer(&self) -> Result<Option<u64>, RdbError> {
        let told = self.control.progress(self.version, self.index).await?.map_or(0, |told| told.attempt);
        Ok((told > self.lock().attempt).then_some(told))
    }

    /// As [`Report::tell`]; a control database that is away for a while does not stop the work.
    pub(crate) async fn tell_or_warn(&self) {
        if let Err(error) = self.tell().await {
            tracing::warn!(index = self.index, %error, "progress cannot be told");
        }
    }

    fn told(&self) -> Progress {
        let mut progress = self.progress();
        // A scan may see a key twice, and keys come while it runs: what is told never passes the total.
        if let Some(total) = progress.total_keys {
            progress.keys = progress.keys.min(total);
            progress.verified = progress.verified.min(total);
        }
        progress
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
