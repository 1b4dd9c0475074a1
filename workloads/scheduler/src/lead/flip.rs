//! One try to cut over, at the barrier: freeze, drain, turn the guards, flip the topology, within the longest pause or
//! not at all. Knows hands and clock; whether it is time is decided in `cutover`.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_common::control::Control;
use fortia_common::failpoint::Failed;
use fortia_common::pace::Pace;
use fortia_common::records::{CutoverRecord, Durability};
use fortia_common::topology::{Layout, Topology};
use fortia_proto::tick::v1::Part;
use fortia_rdb::RdbError;
use fortia_rdb::migrate::engine::Engine;
use futures::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use super::{Leader, now_ms};
use crate::cutover::{self, Guards, Unproven};

/// Part of the pause that must be left when the guards are turned: from then on there is no way back that is short.
const LEFT: u32 = 4;

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Rdb(#[from] RdbError),
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error("{0} keys are noted: too many to carry while nobody writes")]
    Hopeless(u64),
    #[error("{0}")]
    Failpoint(#[from] Failed),
    #[error("not done within {0:?}: it takes longer than maxCutoverPause allows")]
    Late(Duration),
}

/// A try that came to nothing, whether anybody was kept from writing, and whether guards may be turned.
struct Vain {
    why: TryError,
    froze: bool,
    turned: bool,
}

/// What a try has to go by.
struct Try {
    after: Topology,
    target: Layout,
    /// Shards of both layouts.
    shards: u32,
    engine: Engine,
    lives: BTreeMap<u32, String>,
    began: Instant,
    most: Duration,
}

/// Run ids of servers as they are now.
async fn runs(engine: &Engine, shards: impl Iterator<Item = u32>) -> Result<BTreeMap<u32, String>, RdbError> {
    let runs = shards.map(async |shard| Ok((shard, engine.life(shard).await?.run)));
    Ok(try_join_all(runs).await?.into_iter().collect())
}

impl Try {
    fn late(&self) -> TryError {
        TryError::Late(self.most)
    }

    /// Makes sure that no server was started since the proofs were made.
    async fn same_lives(&self) -> Result<(), TryError> {
        Ok(cutover::same_lives(&self.lives, &runs(&self.engine, 0..self.shards).await?)?)
    }

    /// When it is too late to turn the guards.
    fn last_look(&self) -> Instant {
        self.began + self.most - self.most / LEFT
    }
}

impl Leader<'_> {
    /// Tries to cut over; if that fails all is as before, and it is tried again later.
    pub(super) async fn cut_over(&mut self, target: Layout) -> Result<(), RdbError> {
        let tries = self.pending.tries + 1;
        let (topology, tools) = (&self.topology, self.tools);
        let engine = Engine::new(&tools.boot, tools.topology.clone(), topology.serving, target);
        let shards = topology.serving.shards.max(target.shards);
        let lives = self.proven(&engine, &target).await;
        tools.metrics.frozen.set(1);
        let after = cutover::flipped(topology, target);
        let (began, most) = (Instant::now(), self.most_pause());
        let tried = match lives {
            Ok(lives) => {
                self.attempt(&Try { after: after.clone(), target, shards, engine, lives, began, most }).await
            }
            Err(why) => Err(Vain { why, froze: false, turned: false }),
        };
        let (pause, why) = match tried {
            Ok(parts) => {
                let pause = began.elapsed();
                self.barrier.ledger().confirmed(target.version, &parts);
                self.flipped(after, pause).await?;
                (pause, None)
            }
            Err(vain) => {
                let why = vain.why.to_string();
                (self.retreat(&vain, tries, began).await, Some(why))
            }
        };
        self.tools.metrics.frozen.set(0);
        self.untold = Some(CutoverRecord {
            version: target.version,
            tick: self.barrier.committed(),
            tries,
            pause_us: pause.as_micros() as u64,
            flipped: why.is_none(),
            why,
            at: now_ms(),
        });
        self.tell().await;
        self.due = Instant::now();
        Ok(())
    }

    /// The servers on which every pod has proven its source. Asked before anything is frozen, and only if there is hope.
    async fn proven(&self, engine: &Engine, target: &Layout) -> Result<BTreeMap<u32, String>, TryError> {
        let lag = self.pending.lag.unwrap_or_default();
        if cutover::is_hopeless(lag, self.topology.serving.shards) {
            return Err(TryError::Hopeless(lag));
        }
        let pods = (0..self.topology.serving.shards).map(async |source| {
            let told = self.tools.control.progress(target.version, source).await?;
            Ok::<_, RdbError>((told, engine.guard(source).await?.since))
        });
        let lives = cutover::proven(&try_join_all(pods).await?)?;
        // The same look as in the pause: what it would find is found before, and its connections stand when it counts.
        let now = runs(engine, 0..self.topology.serving.shards.max(target.shards)).await?;
        cutover::same_lives(&lives, &now)?;
        Ok(lives)
    }

    async fn attempt(&self, this: &Try) -> Result<Vec<Part>, Vain> {
        let vain = |why| Vain { why, froze: true, turned: false };
        let drained = timeout_at(this.last_look(), self.drain(this)).await;
        drained.map_err(|_| vain(this.late()))?.map_err(vain)?;
        if Instant::now() >= this.last_look() {
            return Err(vain(this.late()));
        }
        let vain = |why| Vain { why, froze: true, turned: true };
        let flipped = timeout_at(this.began + this.most, self.turn(this)).await;
        flipped.map_err(|_| vain(this.late()))?.map_err(vain)
    }

    /// Stops the writes and carries what is noted. Each step can be done again, by this leader or another.
    async fn drain(&self, this: &Try) -> Result<(), TryError> {
        let (tools, topology) = (self.tools, &self.topology);
        let frozen = tools.cutover.freeze(topology).await?;
        tools.failpoints.pass("cutover.frozen").await?;
        cutover::same_lives(&this.lives, frozen.runs())?;
        let on_disk = tools.config.borrow().durability == Durability::Disk;
        tools.cutover.drain(topology, &frozen, on_disk).await?;
        tools.failpoints.pass("cutover.drained").await?;
        // After the last key has arrived: a target that was started again since may have lost some.
        this.same_lives().await
    }

    /// From the first turned guard on nobody writes before the flip: no one knows its epoch yet. Returns what the new version's
    /// shards must not forget.
    async fn turn(&self, this: &Try) -> Result<Vec<Part>, TryError> {
        // The next tick may have been begun before. Its actions, already read somewhere, must stay the same, so it
        // counts as closed; its lists were carried and it is run again.
        let closed = self.barrier.committed() + 1;
        let parts =
            self.tools.cutover.turn(&self.topology, &this.after, closed, self.barrier.epoch()).await?;
        let parts = parts.into_iter().map(|(shard, number)| Part { shard, number }).collect();
        self.tools.failpoints.pass("cutover.turned").await?;
        // Only a turned guard is proof against writes: a source that came back without its last second may not have known
        // that it was frozen, nor a target what was carried to it.
        this.same_lives().await?;
        let flipped = self.tools.control.flip(Some(self.lease), self.topology.epoch, &this.after).await;
        let flipped = match self.tools.failpoints.pass("cutover.flipped").await {
            Ok(()) => flipped.map_err(TryError::from),
            Err(failed) => Err(failed.into()),
        };
        let Err(why) = flipped else { return Ok(parts) };
        // The answer may be lost of what was done.
        let there = self.tools.control.topology().await?;
        if there.is_some_and(|there| there.serving == this.target) { Ok(parts) } else { Err(why) }
    }

    async fn flipped(&mut self, after: Topology, pause: Duration) -> Result<(), RdbError> {
        let (version, epoch) = (after.serving.version, after.epoch);
        tracing::info!(version, epoch, pause_us = pause.as_micros() as u64, "topology flipped");
        self.tools.metrics.tried("flipped", Some(pause));
        self.guards = after.previous.map_or(Guards::Open, |previous| Guards::Noting(previous.version));
        self.pace = Pace::default();
        // What tickers know is what was carried: nobody loads the world anew.
        self.take_over(after).await?;
        self.seen().await;
        Ok(())
    }

    /// Lets the serving version be written again.
    async fn retreat(&mut self, vain: &Vain, tries: u32, began: Instant) -> Duration {
        let (turned, why) = (vain.turned, &vain.why);
        let target = self.pending.version;
        tracing::warn!(target, tries, turned, %why, "not cut over; it is tried again later");
        let failed = Instant::now();
        self.guards = if turned { Guards::Ahead } else { Guards::Unknown };
        if turned && let Err(error) = self.fence().await {
            tracing::warn!(%error, "not taken back yet; trying again");
        }
        // What was flipped after all needs no way back.
        if self.guards == Guards::Unknown && self.pending.version == target {
            match self.tools.cutover.note(&self.topology).await {
                Ok(()) => self.guards = Guards::Noting(target),
                Err(error) => tracing::warn!(%error, "not taken back yet; trying again"),
            }
        }
        let pause = vain.froze.then(|| began.elapsed());
        self.seen().await;
        let outcome = if matches!(vain.why, TryError::Late(_)) { "late" } else { "failed" };
        self.tools.metrics.tried(outcome, pause);
        match vain.why {
            TryError::Unproven(_) if !vain.froze => self.pending.put_off(failed),
            _ => self.pending.failed(failed),
        }
        // It fails nothing any more.
        let _ = self.tools.failpoints.pass("cutover.retreated").await;
        pause.unwrap_or_default()
    }

    /// Records what the last try came to. Readers of the record want it soon, not at once: what fails is done again.
    pub(super) async fn tell(&mut self) {
        let Some(record) = &self.untold else { return };
        match self.tools.control.set_cutover(record).await {
            Ok(()) => self.untold = None,
            Err(error) => tracing::warn!(%error, "the last cut-over is not recorded; trying again"),
        }
    }
}
