//! Collecting: unlinks a version that nobody serves from one shard, a little at a time. Knows when it must not.

use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::control::Control;
use fortia_common::records::Progress;
use fortia_common::topology::{Phase, Topology};
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::State;
use fortia_rdb::migrate::Migration;

use crate::report::Report;
use crate::{Job, MigrateError};

/// Rest between two batches, so that ticks on the same server hardly notice.
const REST: Duration = Duration::from_millis(5);
/// Scans until the version must be gone: keys that come back after that have a writer.
const ROUNDS: u32 = 3;

pub(crate) async fn run(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    topology: Topology,
) -> Result<Progress, MigrateError> {
    unused(job, &topology)?;
    let (shard, version) = (job.index, job.from);
    let migration = Migration::new(boot, topology);
    unguarded(job, &migration).await?;
    let total = migration.count(shard, version).await?;
    // The record is that of the re-sharding away from this version.
    let mut report = Report::begin(control, version + 1, shard, Phase::Collecting, total).await?;
    for _ in 0..ROUNDS {
        let mut cursor = 0;
        loop {
            let step = migration.scan(shard, version, cursor).await?;
            report.progress.keys += migration.unlink(shard, version, &step.keys).await?;
            // The plan may have changed while this ran: look again whenever progress is told.
            if report.step().await?
                && let Some(newest) = control.topology().await?
            {
                unused(job, &newest)?;
            }
            cursor = step.cursor;
            if cursor == 0 {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        if migration.count(shard, version).await? == 0 {
            migration.unlink_own(shard, version).await?;
            return Ok(report.done().await?);
        }
    }
    let keys = migration.count(shard, version).await?;
    Err(MigrateError::NotEmpty { shard, keys, version })
}

fn unused(job: &Job, topology: &Topology) -> Result<(), MigrateError> {
    let use_of = |version| (version == job.from).then_some(());
    let reason = match (use_of(topology.serving.version), topology.target.and_then(|to| use_of(to.version))) {
        (Some(()), _) => "it is served",
        (_, Some(())) => "it is the target of a re-sharding",
        _ => return Ok(()),
    };
    Err(MigrateError::InUse { version: job.from, shard: job.index, reason: reason.into() })
}

async fn unguarded(job: &Job, migration: &Migration) -> Result<(), MigrateError> {
    let guard = migration.guard(job.index).await?;
    // A group that only the old layout has keeps its frozen guard until it is removed. The same rule is in
    // `fortia_unlink`, which has the last word; here it is told before anything is counted.
    let left = guard.state == State::Frozen && guard.target == 0;
    if guard.target == job.from || (guard.version == job.from && !left) {
        let reason = format!("its guard is {} for version {}", guard.state.as_str(), guard.version);
        return Err(MigrateError::InUse { version: job.from, shard: job.index, reason });
    }
    Ok(())
}
