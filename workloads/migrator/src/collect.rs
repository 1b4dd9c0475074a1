//! Collecting: unlinks a version that nobody serves from one shard, a little at a time. Knows when it must not.

use std::time::{Duration, Instant};

use fortia_common::boot::Boot;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::Progress;
use fortia_common::topology::{Phase, Topology};
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::State;
use fortia_rdb::migrate::Migration;
use fortia_rdb::migrate::engine::Engine;
use tokio::sync::watch;

use crate::pace::Pace;
use crate::report::{EVERY, Report};
use crate::{Job, MigrateError, PAUSE};

/// Keys unlinked in one call.
const BATCH: usize = 256;
/// Rest between two batches, so that ticks on the same server hardly notice.
const REST: Duration = Duration::from_millis(5);
/// Scans until the version must be gone: keys that come back after that have a writer.
const ROUNDS: u32 = 3;

struct Collect<'a> {
    boot: &'a Boot,
    job: &'a Job,
    failpoints: &'a Failpoints,
    topology: watch::Receiver<Topology>,
    pace: Pace,
    report: Report<'a>,
}

/// Unlinks all there is. What may pass is tried again for as long as the job's patience lasts without a batch.
pub(crate) async fn run(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    failpoints: &Failpoints,
    topology: watch::Receiver<Topology>,
) -> Result<Progress, MigrateError> {
    let now = topology.borrow().clone();
    // The record is that of the re-sharding this ends: to the version served, or to this one when it was aborted.
    let to = if now.phase == Some(Phase::Aborting) { job.from } else { now.serving.version };
    let engine = Engine::new(boot, topology.clone(), now.serving, now.serving);
    let collect = Collect {
        boot,
        job,
        failpoints,
        topology,
        pace: Pace::new(job.read_latency, [job.index]),
        report: Report::new(control, to, job.index, Phase::Collecting),
    };
    if job.lost.contains(&job.index) {
        tracing::warn!(index = job.index, "the shard was lost with its volume: there is nothing to unlink");
        collect.report.change(|progress| progress.done = true);
        collect.report.tell().await?;
        return Ok(collect.report.progress());
    }
    tokio::select! {
        done = collect.patiently(&engine) => done,
        never = collect.pace.probing(&engine) => match never {},
    }
}

impl Collect<'_> {
    async fn patiently(&self, engine: &Engine) -> Result<Progress, MigrateError> {
        self.pace.calibrate(engine).await;
        let (mut last, mut keys) = (Instant::now(), 0);
        loop {
            let failed = match self.once().await {
                Ok(progress) => return Ok(progress),
                Err(failed) => failed,
            };
            let now = self.report.progress().keys;
            if now > keys {
                (last, keys) = (Instant::now(), now);
            }
            // In use, perhaps only because the scheduler has not set the guards yet.
            let may_pass = failed.may_pass() || matches!(failed, MigrateError::InUse { .. });
            if !may_pass || last.elapsed() >= self.job.patience {
                return Err(failed);
            }
            tracing::warn!(index = self.job.index, error = %failed, "trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self) -> Result<Progress, MigrateError> {
        let topology = self.topology.borrow().clone();
        self.unused(&topology)?;
        let (shard, version) = (self.job.index, self.job.from);
        let migration = Migration::new(self.boot, topology);
        self.unguarded(&migration).await?;
        if self.report.progress().total_keys.is_none() {
            let total = migration.count(shard, version).await?;
            self.report.change(|progress| progress.total_keys = Some(total));
            self.report.tell_or_warn().await;
        }
        for _ in 0..ROUNDS {
            self.scan(&migration).await?;
            migration.unlink_own(shard, version).await?;
            if migration.count(shard, version).await? == 0 {
                self.report.change(|progress| {
                    progress.keys = progress.total_keys.unwrap_or(progress.keys);
                    progress.done = true;
                });
                self.report.tell().await?;
                return Ok(self.report.progress());
            }
        }
        let keys = migration.count(shard, version).await?;
        Err(MigrateError::NotEmpty { shard, keys, version })
    }

    async fn scan(&self, migration: &Migration) -> Result<(), MigrateError> {
        let (shard, version) = (self.job.index, self.job.from);
        let (mut cursor, mut told) = (0, Instant::now());
        loop {
            let step = migration.scan_all(shard, version, cursor).await?;
            for batch in step.keys.chunks(self.pace.batch(BATCH)) {
                let begun = Instant::now();
                let unlinked = migration.unlink(shard, version, batch).await?;
                self.report.change(|progress| progress.keys += unlinked);
                self.failpoints.pass("collecting.batch").await?;
                self.pace.rest(begun.elapsed()).await;
            }
            // The plan may have changed while this ran. Every call asks the guard; this ends it without one.
            self.unused(&self.topology.borrow())?;
            if told.elapsed() >= EVERY {
                told = Instant::now();
                self.report.tell_or_warn().await;
            }
            cursor = step.cursor;
            if cursor == 0 {
                return Ok(());
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn unused(&self, topology: &Topology) -> Result<(), MigrateError> {
        let of = |version| version == self.job.from;
        let reason = if of(topology.serving.version) {
            "it is served"
        } else if topology.target.is_some_and(|to| of(to.version)) {
            "it is the target of a re-sharding"
        } else if topology.previous.is_some_and(|previous| of(previous.version)) {
            "it is kept so that one can go back"
        } else {
            return Ok(());
        };
        Err(self.in_use(reason.into()))
    }

    async fn unguarded(&self, migration: &Migration) -> Result<(), MigrateError> {
        let guard = migration.guard(self.job.index).await?;
        // A group that only the old layout has keeps its frozen guard until it is removed. The same rule is in
        // `fortia_unlink`, which has the last word; here it is told before anything is counted.
        let left = guard.state == State::Frozen && guard.target == 0;
        if guard.target == self.job.from || (guard.version == self.job.from && !left) {
            let state = guard.state.as_str();
            return Err(self.in_use(format!("its guard is {state} for version {}", guard.version)));
        }
        Ok(())
    }

    fn in_use(&self, reason: String) -> MigrateError {
        MigrateError::InUse { version: self.job.from, shard: self.job.index, reason }
    }
}
