//! What a leader does between two ticks: hold, flip, go on, or begin the next tick. Knows guards and records; when to
//! do what is decided in `hold`.

use fortia_common::pace::Pace;
use fortia_common::records::{self, Held};
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::EditStrategy;
use fortia_rdb::RdbError;
use tokio::time::{Duration, Instant, timeout};

use super::{Leader, RETRY, now_ms};
use crate::exchange::Event;
use crate::hold::{self, Guards, Step};

/// Time between two looks while there is nothing to do; events end it early.
const LOOK: Duration = Duration::from_secs(1);
/// How long a leader waits to see its own flip.
const SEEN: Duration = Duration::from_secs(5);

impl Leader<'_> {
    /// Does what is due between two ticks, which mostly is the next tick.
    pub(super) async fn look(&mut self) -> Result<(), RdbError> {
        let current = self.tools.topology.borrow().clone();
        if current.epoch != self.topology.epoch {
            self.topology = current;
            self.feed(Event::Changed { topology_epoch: self.topology.epoch }).await?;
        }
        self.tools.metrics.topology_epoch.set(self.topology.epoch);
        self.due = Instant::now() + LOOK;
        let step = hold::step(&self.topology, self.held.as_ref(), self.guards);
        self.tools.metrics.held.set(i64::from(!matches!(step, Step::Run | Step::Open)));
        let done = match step {
            Step::Run if Instant::now() < self.paced => {
                self.due = self.paced;
                Ok(())
            }
            Step::Run => {
                self.barrier.edit_by(match self.tools.config.borrow().edit_strategy {
                    records::EditStrategy::Queue => EditStrategy::Queue,
                    records::EditStrategy::Lock => EditStrategy::Lock,
                });
                return self.feed(Event::Due).await;
            }
            Step::Wait => Ok(()),
            Step::Freeze(target) => self.freeze(target.version).await,
            Step::Flip(target) => self.flip(hold::flipped(&self.topology, target)).await,
            Step::Open => self.open().await,
        };
        match done {
            Ok(()) if step != Step::Wait => self.trouble = None,
            Ok(()) => {}
            Err(error) => self.troubled(step, &error),
        }
        Ok(())
    }

    fn troubled(&mut self, step: Step, error: &RdbError) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(?step, %error, "cannot be done now; trying again");
        }
        self.trouble = Some(trouble);
        self.due = Instant::now() + RETRY;
    }

    async fn freeze(&mut self, version: u64) -> Result<(), RdbError> {
        let begun = now_ms();
        match self.tools.world.freeze(&self.topology).await {
            // A leader before this one, which had frozen all, has begun to open the target: that is repeated next.
            Err(RdbError::Stale { .. }) if self.told(version) && hold::cuts_over(&self.topology) => {}
            frozen => frozen?,
        }
        let tick = self.barrier.committed();
        if !self.told(version) || self.held.as_ref().is_some_and(|held| held.tick != tick) {
            let held = Held { version, tick, since: begun, pause_ms: None };
            self.tools.control.set_held(&held).await?;
            self.held = Some(held);
        }
        self.guards = Guards::Frozen(version);
        self.pace = Pace::default();
        tracing::info!(
            version,
            tick,
            epoch = self.topology.epoch,
            "world held: the serving version is frozen"
        );
        self.due = Instant::now();
        Ok(())
    }

    fn told(&self, version: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.version == version && held.pause_ms.is_none())
    }

    async fn flip(&mut self, after: Topology) -> Result<(), RdbError> {
        // The next tick may have been begun before the hold. Its actions, already read somewhere, must stay the
        // same, so it counts as closed; its lists were copied and it is run again.
        let closed = self.barrier.committed() + 1;
        self.tools.world.open_target(&self.topology, after.epoch, closed).await?;
        // From here on the guards are not those of the serving version until the flip is seen.
        self.guards = Guards::Unknown;
        self.tools.control.flip(self.topology.epoch, &after).await?;
        tracing::info!(version = after.serving.version, epoch = after.epoch, "topology flipped");
        let mut topology = self.tools.topology.clone();
        let seen = topology.wait_for(|known| known.epoch >= after.epoch);
        // The flip is done: if word of it is late, the next look finds it.
        if matches!(timeout(SEEN, seen).await, Ok(Ok(_))) {
            self.guards = Guards::Open;
        }
        self.due = Instant::now();
        Ok(())
    }

    async fn open(&mut self) -> Result<(), RdbError> {
        // Groups that only a target has are left alone: they may not even be there yet.
        let serving = Topology { target: None, ..self.topology.clone() };
        self.tools.world.unfreeze(&serving).await?;
        if matches!(self.guards, Guards::Frozen(_)) {
            tracing::info!(
                version = serving.serving.version,
                epoch = serving.epoch,
                "re-sharding given up: going on"
            );
        }
        self.guards = Guards::Open;
        self.due = Instant::now();
        Ok(())
    }
}
