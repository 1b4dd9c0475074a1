//! Copying → CatchingUp → Verifying for one source shard. Knows the order of the work and what may be tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::control::Control;
use fortia_common::records::Progress;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::{Guard, State};
use fortia_rdb::keyspace::KeyText;
use fortia_rdb::migrate::Migration;
use futures::stream::{self, TryStreamExt};

use crate::report::Report;
use crate::verify::{self, Difference};
use crate::{Job, MigrateError, PAUSE};

/// Batches on their way at a time: the servers work while the next keys are read.
pub(crate) const AT_ONCE: usize = 4;
/// Differing keys named in an error.
const NAMED: usize = 5;

/// What is carried from where to where.
pub(crate) struct Carry {
    pub(crate) migration: Migration,
    pub(crate) from: Layout,
    pub(crate) to: Layout,
    pub(crate) index: u32,
}

pub(crate) async fn run(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    topology: Topology,
) -> Result<Progress, MigrateError> {
    let (carry, guards) = frozen(boot, job, control, topology).await?;
    let total = carry.migration.count(carry.index, carry.from.version).await?;
    let mut report = Report::begin(control, carry.to.version, carry.index, Phase::Copying, total).await?;
    carry.copy_all(&mut report).await?;
    report.enter(Phase::CatchingUp).await?;
    carry.catch_up(&mut report).await?;
    report.enter(Phase::Verifying).await?;
    carry.verify(&mut report).await?;
    carry.still_frozen(&guards).await?;
    Ok(report.done().await?)
}

/// Waits until every shard of both layouts is frozen for the target: before that, what is read could still change.
async fn frozen(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    mut topology: Topology,
) -> Result<(Carry, Vec<Guard>), MigrateError> {
    let begun = tokio::time::Instant::now();
    loop {
        let (from, to) = layouts(job, &topology)?;
        let carry = Carry { migration: Migration::new(boot, topology), from, to, index: job.index };
        let guards = carry.guards().await?;
        let Some(shard) = carry.first_not_frozen(&guards) else { return Ok((carry, guards)) };
        let waited = begun.elapsed();
        if waited >= job.patience {
            return Err(MigrateError::NotFrozen { shard, target: to.version, waited: job.patience });
        }
        tracing::debug!(shard, target = to.version, "waiting for the scheduler to freeze the shard");
        tokio::time::sleep(PAUSE.min(Duration::from_millis(200))).await;
        topology = match control.topology().await? {
            Some(newest) => newest,
            None => carry.migration.topology().clone(),
        };
    }
}

fn layouts(job: &Job, topology: &Topology) -> Result<(Layout, Layout), MigrateError> {
    let from = topology.serving;
    let called_off = MigrateError::CalledOff { from: job.from, epoch: topology.epoch, serving: from.version };
    let to = match topology.target {
        Some(to) if from.version == job.from => to,
        _ => return Err(called_off),
    };
    if job.index >= from.shards {
        return Err(MigrateError::NoShard { index: job.index, version: from.version, shards: from.shards });
    }
    Ok((from, to))
}

impl Carry {
    async fn guards(&self) -> Result<Vec<Guard>, MigrateError> {
        let shards = 0..self.from.shards.max(self.to.shards);
        Ok(futures::future::try_join_all(shards.map(|shard| self.migration.guard(shard))).await?)
    }

    fn first_not_frozen(&self, guards: &[Guard]) -> Option<u32> {
        let frozen = |guard: &Guard| {
            // A guard newer than our topology: the next look reads the newer one.
            let ours = guard.epoch <= self.migration.topology().epoch;
            guard.state == State::Frozen && guard.target == self.to.version && ours
        };
        guards.iter().find(|guard| !frozen(guard)).map(|guard| guard.index)
    }

    /// What was proven holds only if no tick ran meanwhile; a tick closes its actions, so the guards tell.
    async fn still_frozen(&self, before: &[Guard]) -> Result<(), MigrateError> {
        let now = self.guards().await?;
        let held = |now: &Guard, before: &Guard| {
            now.state == State::Frozen && now.target == before.target && now.closed == before.closed
        };
        match now.iter().zip(before).find(|(now, before)| !held(now, before)) {
            Some((guard, _)) => Err(MigrateError::Thawed { shard: guard.index }),
            None => Ok(()),
        }
    }

    /// Batches of the shard's keys of a version, as a scan finds them.
    pub(crate) fn batches(
        &self,
        shard: u32,
        version: u64,
    ) -> impl stream::Stream<Item = Result<Vec<KeyText>, MigrateError>> + '_ {
        stream::try_unfold(Some(0), move |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let step = self.migration.scan(shard, version, cursor).await?;
            Ok(Some((step.keys, (step.cursor != 0).then_some(step.cursor))))
        })
    }

    /// Keys of the source version on the source shard that belong there. One that does not is left over from
    /// somewhere: nobody reads it, and copied it would overwrite the true one.
    pub(crate) fn own(&self, mut keys: Vec<KeyText>) -> Vec<KeyText> {
        keys.retain(|key| {
            let own = key.shard(&self.from) == self.index;
            if !own {
                tracing::warn!(%key, index = self.index, "key does not belong on this shard; left where it is");
            }
            own
        });
        keys
    }

    async fn copy_all(&self, report: &mut Report<'_>) -> Result<(), MigrateError> {
        let batches = self.batches(self.index, self.from.version);
        let copies = batches.map_ok(|keys| async move {
            Ok(self.migration.copy(self.index, &self.from, &self.to, &self.own(keys)).await?)
        });
        let mut copies = std::pin::pin!(copies.try_buffer_unordered(AT_ONCE));
        while let Some(copied) = copies.try_next().await? {
            report.progress.keys += copied.keys;
            report.progress.bytes += copied.bytes;
            report.step().await?;
        }
        Ok(())
    }

    async fn catch_up(&self, report: &mut Report<'_>) -> Result<(), MigrateError> {
        loop {
            let keys = self.migration.dirty(self.index, self.from.version).await?;
            if keys.is_empty() {
                return Ok(());
            }
            self.migration.clear_dirty(self.index, self.from.version, &keys).await?;
            self.migration.copy(self.index, &self.from, &self.to, &self.own(keys)).await?;
            report.step().await?;
        }
    }

    async fn verify(&self, report: &mut Report<'_>) -> Result<(), MigrateError> {
        let different = verify::differences(self, report).await?;
        if different.is_empty() {
            return Ok(());
        }
        tracing::warn!(index = self.index, count = different.len(), first = %named(&different), "keys differ; copying again");
        verify::mend(self, different).await?;
        report.progress.verified = 0;
        let different = verify::differences(self, report).await?;
        if different.is_empty() {
            return Ok(());
        }
        let first = named(&different);
        Err(MigrateError::Different { index: self.index, count: different.len(), first })
    }
}

fn named(different: &BTreeSet<Difference>) -> String {
    let names: Vec<String> = different.iter().take(NAMED).map(ToString::to_string).collect();
    names.join(", ")
}
