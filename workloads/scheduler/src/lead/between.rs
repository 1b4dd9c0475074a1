//! What a leader does between two ticks: see to the guards, cut over, or begin the next tick. Knows guards and records;
//! when to do what is decided in `cutover`.

use std::time::Duration;

use fortia_common::control::Control;
use fortia_common::records;
use fortia_common::topology::{Layout, Topology};
use fortia_proto::tick::v1::EditStrategy;
use fortia_rdb::RdbError;
use fortia_rdb::guard::State;
use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::{Leader, RETRY};
use crate::cutover::{self, Guards, Step};
use crate::exchange::Event;

/// Time between two looks while there is nothing to do; events end it early.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two questions how many keys are noted, while a cut-over waits for them to be few.
const ASK: Duration = Duration::from_millis(5);
/// How long a leader waits to see a topology that it wrote.
const SEEN: Duration = Duration::from_secs(5);

impl Leader<'_> {
    /// Does what is due between two ticks, which mostly is the next tick.
    pub(super) async fn look(&mut self) -> Result<(), RdbError> {
        let current = self.tools.topology.borrow().clone();
        if current.epoch > self.topology.epoch {
            self.follow(current).await?;
        }
        let now = Instant::now();
        self.due = now + LOOK;
        let step = cutover::step(&self.topology, self.guards, &self.pending, now);
        let done = match step {
            Step::Run if now < self.paced => {
                self.wait(now);
                return Ok(());
            }
            Step::Run => return self.tick().await,
            Step::Note => self.note().await,
            Step::Open => self.open().await,
            Step::Bump => self.bump().await,
            Step::Await => self.ask().await,
            Step::CutOver(target) => {
                self.cut_over(target).await?;
                Ok(())
            }
        };
        match done {
            Ok(()) if step != Step::Await => self.trouble = None,
            Ok(()) => {}
            Err(error) => self.troubled(step, &error),
        }
        Ok(())
    }

    /// Takes a newer topology over. What tickers know stays good as long as the same world is on the same servers.
    pub(super) async fn follow(&mut self, new: Topology) -> Result<(), RdbError> {
        if !self.topology.same_world(&new) {
            self.memory_since = new.epoch;
        }
        self.guards = self.guards.followed(&self.topology, &new);
        self.take_over(new).await
    }

    /// Ticks under this topology from now on.
    pub(super) async fn take_over(&mut self, new: Topology) -> Result<(), RdbError> {
        self.topology = new;
        self.pending.follow(&self.topology);
        self.tools.metrics.topology_epoch.set(self.topology.epoch);
        let (topology_epoch, memory_since) = (self.topology.epoch, self.memory_since);
        let version = self.topology.serving.version;
        self.feed(Event::Changed { topology_epoch, version, memory_since }).await
    }

    async fn tick(&mut self) -> Result<(), RdbError> {
        self.barrier.edit_by(match self.tools.config.borrow().edit_strategy {
            records::EditStrategy::Queue => EditStrategy::Queue,
            records::EditStrategy::Lock => EditStrategy::Lock,
        });
        self.feed(Event::Due).await
    }

    /// The next tick is not due. When a cut-over waits for few keys to be noted, it is asked again before.
    fn wait(&mut self, now: Instant) {
        self.due = self.paced;
        if self.pending.is_asked() {
            self.pending.lag = None;
            self.due = self.due.min(now + ASK);
        }
    }

    fn troubled(&mut self, step: Step, error: &RdbError) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(?step, %error, "cannot be done now; trying again");
        }
        self.trouble = Some(trouble);
        let now = Instant::now();
        match step {
            Step::Note | Step::Open if matches!(error, RdbError::Stale { .. }) => {
                self.guards = Guards::Ahead;
                self.due = now;
            }
            // Ticks go on until it is asked again.
            Step::Await => {
                self.pending.failed(now);
                self.due = now;
            }
            _ => self.due = self.due.min(now + RETRY),
        }
    }

    async fn note(&mut self) -> Result<(), RdbError> {
        let Some(noted) = cutover::noted(&self.topology) else { return Ok(()) };
        if let Err(error) = self.tools.cutover.note(&self.topology).await {
            if !matches!(error, RdbError::Stale { .. }) && self.serving_notes(noted).await {
                if self.noted == Some((noted.version, self.topology.epoch)) {
                    // All had their guards under this topology. Who is silent now is asked again in its time.
                    self.guards = Guards::Noting(noted.version);
                } else {
                    self.pending.unnoted_until = Some(Instant::now() + RETRY);
                }
                self.due = Instant::now();
            }
            return Err(error);
        }
        let (version, epoch) = (noted.version, self.topology.epoch);
        if self.noted.replace((version, epoch)) != Some((version, epoch)) {
            tracing::info!(version, epoch, "what is written is noted for the other version");
        }
        self.guards = Guards::Noting(noted.version);
        self.pending.unnoted_until = None;
        self.due = Instant::now();
        // A test that wants a leader to fail here kills it.
        let _ = self.tools.failpoints.pass("noting.done").await;
        Ok(())
    }

    /// Whether the serving shards are written and noted, whatever the others say.
    async fn serving_notes(&self, noted: Layout) -> bool {
        let serving = self.topology.serving;
        let guards = join_all((0..serving.shards).map(|shard| self.tools.world.guard(shard))).await;
        guards.into_iter().all(|guard| {
            guard.is_ok_and(|guard| {
                let wanted = (State::Copying, serving.version, noted.version);
                (guard.state, guard.version, guard.target) == wanted
            })
        })
    }

    async fn open(&mut self) -> Result<(), RdbError> {
        self.tools.cutover.open(&self.topology).await?;
        if matches!(self.guards, Guards::Noting(_)) {
            let (version, epoch) = (self.topology.serving.version, self.topology.epoch);
            tracing::info!(version, epoch, "nothing is noted any more");
        }
        self.guards = Guards::Open;
        self.due = Instant::now();
        Ok(())
    }

    async fn bump(&mut self) -> Result<(), RdbError> {
        self.fence().await?;
        self.seen().await;
        self.due = Instant::now();
        Ok(())
    }

    /// Fences whoever may have begun to turn the guards.
    pub(super) async fn fence(&mut self) -> Result<(), RdbError> {
        let bumped = cutover::bumped(&self.topology);
        match self.tools.control.flip(Some(self.lease), self.topology.epoch, &bumped).await {
            Ok(()) => {
                tracing::info!(epoch = bumped.epoch, "the same topology under a new epoch");
                self.guards = Guards::Unknown;
                self.take_over(bumped).await?;
            }
            // Somebody was faster, with what is looked at next.
            Err(RdbError::Conflict { .. }) => self.guards = Guards::Unknown,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until what is in the control database is known here: reads and writes of the world go by that.
    pub(super) async fn seen(&self) {
        let written = match self.tools.control.topology().await {
            Ok(Some(written)) => written.epoch,
            _ => self.topology.epoch,
        };
        let mut topology = self.tools.topology.clone();
        let seen = topology.wait_for(|known| known.epoch >= written);
        // If word of it is late, a later look finds it.
        let _ = timeout(SEEN, seen).await;
    }

    async fn ask(&mut self) -> Result<(), RdbError> {
        let lag = self.tools.cutover.lag(&self.topology).await?;
        // Nothing is begun yet that could fail here.
        let _ = self.tools.failpoints.pass("cutover.lag").await;
        self.tools.metrics.dirty_keys.set(lag);
        self.pending.lag = Some(lag);
        let now = Instant::now();
        // Held: asked again soon. Otherwise what is to be done is decided at once.
        let holds = lag > cutover::SMALL_LAG && self.pending.hold_until.is_some_and(|until| now < until);
        self.due = if holds { now + ASK } else { now };
        Ok(())
    }
}
