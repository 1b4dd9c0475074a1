//! One pod on one source: copying, catching up, verifying, and then keeping up until the flip. Knows the order of the
//! work, when it may begin, and what may be tried again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::{Progress, Proof};
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::State;
use fortia_rdb::migrate::engine::{Attempt, Engine};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pace::Pace;
use crate::pages::Sizes;
use crate::report::{EVERY, Report};
use crate::{Job, MigrateError, PAUSE, Work, catch_up, copy, verify};

/// Time between two looks at guards that are waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Servers sync their files every second, or a little later: what was carried so long ago is on a target's disk.
const ON_DISK: Duration = Duration::from_millis(1200);
/// Time between two looks at whether the servers of a proof still live.
const PULSE: Duration = Duration::from_millis(250);

/// What every part of the work needs.
pub(crate) struct Pod<'a> {
    pub(crate) job: &'a Job,
    pub(crate) from: Layout,
    pub(crate) to: Layout,
    pub(crate) engine: Engine,
    pub(crate) failpoints: &'a Failpoints,
    pub(crate) pace: Pace,
    pub(crate) report: Report<'a>,
    control: &'a ControlDb,
    sizes: Mutex<Sizes>,
}

/// The servers' lives in which something was proven. A server that was started again may have forgotten writes.
#[derive(Clone, Debug)]
pub(crate) struct Lives {
    /// Run ids, by shard.
    runs: BTreeMap<u32, String>,
    /// Epoch at which the source began to note: notes of before are gone.
    since: u64,
    /// Whether any of the servers has keys that expire.
    pub(crate) expires: bool,
}

impl PartialEq for Lives {
    fn eq(&self, other: &Lives) -> bool {
        (&self.runs, self.since) == (&other.runs, other.since)
    }
}

/// How far the source is, whoever carries from it.
enum Reached {
    Nothing,
    Copied,
    Proven(Lives),
}

/// Works until the topology has no such re-sharding any more.
pub(crate) async fn run(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    failpoints: &Failpoints,
    mut topology: watch::Receiver<Topology>,
) -> Result<Progress, MigrateError> {
    let phase = if job.work == Work::Copy { Phase::Copying } else { Phase::CatchingUp };
    let Some((from, to)) = layouts(job, &mut topology).await? else {
        tracing::info!(index = job.index, from = job.from, "the flip was before this pod began");
        return Ok(Progress { done: true, ..Progress::new(phase) });
    };
    let pod = Pod {
        job,
        from,
        to,
        engine: Engine::new(boot, topology.clone(), from, to),
        failpoints,
        pace: Pace::new(job.read_latency, servers(job.index, to)),
        report: Report::new(control, to.version, job.index, phase),
        control,
        sizes: Mutex::default(),
    };
    let work = async {
        tokio::select! {
            done = pod.work() => match done { Ok(never) => match never {}, Err(failed) => failed },
            never = pod.telling() => match never {},
            never = pod.pace.probing(&pod.engine) => match never {},
        }
    };
    tokio::select! {
        biased;
        // What was on its way is refused by guards, or harmless.
        gone = until(&mut topology, |now| now.serving != from || now.target != Some(to)) => pod.ended(&gone),
        failed = work => Err(failed),
    }
}

/// The layouts of the re-sharding, once the topology has it; none when it has been flipped already.
async fn layouts(
    job: &Job,
    topology: &mut watch::Receiver<Topology>,
) -> Result<Option<(Layout, Layout)>, MigrateError> {
    let flipped_to = if job.work == Work::Copy { job.from + 1 } else { job.from.saturating_sub(1) };
    let begun = |topology: &Topology| topology.target.is_some() || topology.serving.version != job.from;
    // The operator may start the pod a little early.
    let _ = tokio::time::timeout(job.patience, until(topology, begun)).await;
    let known = topology.borrow().clone();
    let from = known.serving;
    match known.target {
        Some(to) if from.version == job.from && job.index < from.shards => Ok(Some((from, to))),
        Some(_) if from.version == job.from => {
            Err(MigrateError::NoShard { index: job.index, version: from.version, shards: from.shards })
        }
        _ if from.version == flipped_to => Ok(None),
        _ => Err(called_off(job, &known)),
    }
}

/// The first topology of which this holds.
async fn until(topology: &mut watch::Receiver<Topology>, holds: impl FnMut(&Topology) -> bool) -> Topology {
    if let Ok(found) = topology.wait_for(holds).await {
        return found.clone();
    }
    // Whoever follows the topology lives as long as the work. No guard is held here: pods run on any thread.
    std::future::pending().await
}

/// The source and all targets.
fn servers(source: u32, to: Layout) -> impl Iterator<Item = u32> {
    (0..to.shards.max(source + 1)).filter(move |shard| *shard == source || *shard < to.shards)
}

fn called_off(job: &Job, topology: &Topology) -> MigrateError {
    MigrateError::CalledOff { from: job.from, epoch: topology.epoch, serving: topology.serving.version }
}

impl Pod<'_> {
    pub(crate) fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, topology: &Topology) -> Result<Progress, MigrateError> {
        if topology.serving == self.to {
            Ok(self.report.progress())
        } else {
            Err(called_off(self.job, topology))
        }
    }

    async fn work(&self) -> Result<Infallible, MigrateError> {
        self.window().await;
        self.pace.calibrate(&self.engine).await;
        let mut reached = if self.job.work == Work::Copy { Reached::Nothing } else { Reached::Copied };
        loop {
            let failed = match self.attempt(&mut reached).await {
                Ok(never) => match never {},
                Err(failed) => failed,
            };
            // The migration is wanted for as long as the topology has it: what may pass is waited for.
            if !failed.may_pass() {
                return Err(failed);
            }
            tracing::warn!(index = self.job.index, error = %failed, "trying again");
            tokio::time::sleep(PAUSE).await;
            if matches!(failed, MigrateError::Database(RdbError::Attempt { .. })) {
                self.give_way().await?;
            }
        }
    }

    /// Waits for its turn, when not all sources are copied from at once.
    async fn window(&self) {
        let Some(before) = self.job.index.checked_sub(self.job.parallelism) else { return };
        loop {
            match self.control.progress(self.to.version, before).await {
                Ok(Some(told)) if told.done || told.phase > Phase::Copying => return,
                Ok(_) => {}
                Err(error) => tracing::warn!(index = self.job.index, %error, "waiting for source {before}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Of two pods on one source the newer goes on: the older waits, and ends when that lasts. A cut-over tells no
    /// progress, so after one that failed the pod goes on.
    async fn give_way(&self) -> Result<(), MigrateError> {
        let begun = Instant::now();
        loop {
            match self.report.newer().await {
                Ok(Some(newer)) if begun.elapsed() >= self.job.patience => {
                    return Err(MigrateError::Overtaken { index: self.job.index, newer });
                }
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Carries from the source until something stops it.
    async fn attempt(&self, reached: &mut Reached) -> Result<Infallible, MigrateError> {
        self.ready().await?;
        let attempt = self.engine.attempt(self.job.index).await?;
        self.report.begin(attempt.number).await?;
        self.failpoints.pass("copying.attempted").await?;
        if let Reached::Nothing = reached {
            copy::run(self, &attempt).await?;
            self.report.change(|progress| progress.total_keys = Some(progress.keys));
            *reached = Reached::Copied;
        }
        if !matches!(reached, Reached::Proven(_)) {
            self.report.enter(Phase::CatchingUp).await;
        }
        let lane = catch_up::rounds(self, &attempt).await?;
        // One drainer for all the rest of the attempt: one that was dropped half-way might still have values of before
        // on their way when the next carries newer ones.
        tokio::select! {
            ended = catch_up::draining(self, &attempt, lane) => ended,
            ended = self.proving(&attempt, reached) => ended,
        }
    }

    /// Proves the source. Ends when a server of the proof has another life: a target may have forgotten this attempt with
    /// its last second, and would take keys from an older one. The next attempt tells it, and proves anew.
    async fn proving(&self, attempt: &Attempt, reached: &mut Reached) -> Result<Infallible, MigrateError> {
        let lives = match reached {
            Reached::Proven(lives) => lives.clone(),
            _ => self.prove(attempt).await?,
        };
        *reached = Reached::Proven(lives.clone());
        while self.lives().await? == lives {
            tokio::time::sleep(PULSE).await;
        }
        self.report.change(|progress| {
            progress.done = false;
            progress.proof = None;
            progress.lives.clear();
        });
        *reached = Reached::Copied;
        Err(MigrateError::Restarted { index: self.job.index })
    }

    /// The proof counts once what was carried before it is on the targets' disks: what a source acknowledged long ago must not be
    /// lost with the last second of a target that serves since a moment ago.
    async fn prove(&self, attempt: &Attempt) -> Result<Lives, MigrateError> {
        self.report.enter(Phase::Verifying).await;
        let (lives, proof, begun) = verify::prove(self, attempt).await?;
        self.failpoints.pass("verifying.proven").await?;
        self.report.enter(Phase::Cutover).await;
        tokio::time::sleep(ON_DISK.saturating_sub(begun.elapsed())).await;
        self.proven(&lives, proof);
        self.report.tell_or_warn().await;
        Ok(lives)
    }

    fn proven(&self, lives: &Lives, proof: Proof) {
        self.report.change(|progress| {
            progress.total_keys = Some(proof.keys);
            progress.keys = proof.keys;
            progress.verified = proof.keys;
            progress.since = lives.since;
            progress.lives = lives.runs.clone();
            progress.proof = Some(proof);
            progress.done = true;
        });
    }

    /// The lives of the source and all targets, as they are now.
    pub(crate) async fn lives(&self) -> Result<Lives, MigrateError> {
        let since = self.engine.guard(self.job.index).await?.since;
        let shards: Vec<u32> = servers(self.job.index, self.to).collect();
        let lives = try_join_all(shards.iter().map(|shard| self.engine.life(*shard))).await?;
        let expires = lives.iter().any(|life| life.expires);
        Ok(Lives {
            runs: shards.into_iter().zip(lives.into_iter().map(|life| life.run)).collect(),
            since,
            expires,
        })
    }

    /// Waits until the source notes what is written and every target may be filled: what was written before that is
    /// in no note.
    async fn ready(&self) -> Result<(), MigrateError> {
        let begun = Instant::now();
        while let Some(shard) = self.first_not_ready().await? {
            if begun.elapsed() >= self.job.patience {
                let waited = self.job.patience;
                return Err(MigrateError::NotReady { shard, target: self.to.version, waited });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn first_not_ready(&self) -> Result<Option<u32>, MigrateError> {
        let guards =
            try_join_all(servers(self.job.index, self.to).map(|shard| self.engine.guard(shard))).await?;
        let ready = |shard: u32, guard: &fortia_rdb::guard::Guard| {
            let notes = guard.state == State::Copying && guard.version == self.from.version;
            guard.target == self.to.version && (shard != self.job.index || notes)
        };
        Ok(servers(self.job.index, self.to)
            .zip(&guards)
            .find(|(shard, guard)| !ready(*shard, guard))
            .map(|(shard, _)| shard))
    }

    /// Tells progress about once a second. Never ends.
    async fn telling(&self) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            if self.report.progress().attempt > 0 {
                if let Ok(lag) = self.engine.lag(self.job.index).await {
                    self.report.change(|progress| progress.lag = Some(lag));
                }
                self.report.tell_or_warn().await;
            }
        }
    }
}
