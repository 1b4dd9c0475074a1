//! The executor of a leader: feeds the barrier with what happens and carries out its commands. Knows streams, clock
//! and databases; what is to be done is decided in `barrier` and `hold`.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fortia_common::records::{Config, Held};
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::{Committed, Stage};
use fortia_proto::world::v1::ChunkPos;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::barrier::{Barrier, Command, Conn, Event, Place};
use crate::hold::{self, Guards, Step};
use crate::metrics::Metrics;
use crate::streams::{Happening, Ticker};

/// Time between two attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Time between two looks while there is nothing to do; events end it early.
const LOOK: Duration = Duration::from_secs(1);
/// Least time for a stage.
const STAGE: Duration = Duration::from_secs(5);
/// How many times as long a stage may take in which tickers load their regions.
const LOADING: u32 = 6;
/// Longest pause between two runs of a tick that fails again and again.
const BACKOFF: Duration = Duration::from_secs(2);

/// What a leader works with.
pub(crate) struct Tools {
    pub(crate) control: ControlDb,
    pub(crate) world: World,
    pub(crate) topology: watch::Receiver<Topology>,
    pub(crate) config: watch::Receiver<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
}

/// Leads under a lease until told to stop; the caller drops this when the lease is lost.
///
/// # Errors
/// When the control database says that another leads or has committed: the lease must be asked for again.
pub(crate) async fn lead(
    tools: &Tools,
    lease: u64,
    mut happenings: mpsc::Receiver<Happening>,
) -> Result<(), RdbError> {
    let Some(mut leader) = (tokio::select! {
        leader = Leader::begin(tools, lease) => Some(leader),
        () = tools.stop.cancelled() => None,
    }) else {
        return Ok(());
    };
    let mut topology = tools.topology.clone();
    loop {
        let idle = leader.barrier.idle();
        let deadline = leader.deadline;
        tokio::select! {
            Some(happening) = happenings.recv() => leader.happened(happening).await?,
            Ok(()) = topology.changed(), if idle => leader.due = Instant::now(),
            () = sleep_until(leader.due), if idle => leader.look().await?,
            Some(place) = end_of(deadline) => leader.feed(Event::Deadline(place)).await?,
            () = tools.stop.cancelled(), if idle => return Ok(()),
        }
    }
}

async fn end_of(deadline: Option<(Instant, Place)>) -> Option<Place> {
    let (at, place) = deadline?;
    sleep_until(at).await;
    Some(place)
}

/// Asks until there is an answer; says so in the log when that takes more than one attempt.
async fn insist<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<Option<T>, RdbError>>,
{
    let mut told = false;
    loop {
        match ask().await {
            Ok(Some(answer)) => return answer,
            Ok(None) if !told => tracing::info!(what, "not there yet; waiting"),
            Err(error) if !told => tracing::warn!(what, %error, "cannot be read; trying again"),
            Ok(None) | Err(_) => {}
        }
        told = true;
        sleep(RETRY).await;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

struct Leader<'a> {
    tools: &'a Tools,
    lease: u64,
    barrier: Barrier,
    tickers: HashMap<Conn, Ticker>,
    topology: Topology,
    held: Option<Held>,
    guards: Guards,
    /// When to look what is to be done; only while no tick runs.
    due: Instant,
    /// The next tick does not begin before.
    paced: Instant,
    deadline: Option<(Instant, Place)>,
    tick_began: Instant,
    stage_began: Option<(Stage, Instant)>,
    last_commit: Option<Instant>,
    /// Runs of the tick that failed, one after the other.
    failures: u32,
    /// What went wrong between ticks last time, so that it is not told again and again.
    trouble: Option<String>,
}

impl<'a> Leader<'a> {
    async fn begin(tools: &'a Tools, lease: u64) -> Leader<'a> {
        let info = insist("the world's info", || tools.world.info()).await;
        let committed =
            insist("the committed tick", || async { tools.control.committed().await.map(|t| Some(t.unwrap_or(0))) })
                .await;
        let held = insist("the held record", || async { tools.control.held().await.map(Some) }).await;
        let topology = tools.topology.borrow().clone();
        tracing::info!(lease, committed, radius = info.size, "leading");
        tools.metrics.tick.set(committed);
        let now = Instant::now();
        Leader {
            tools,
            lease,
            barrier: Barrier::new(lease, topology.epoch, committed, fortia_vec::regions_of(info.size)),
            tickers: HashMap::new(),
            topology,
            held,
            guards: Guards::Unknown,
            due: now,
            paced: now,
            deadline: None,
            tick_began: now,
            stage_began: None,
            last_commit: None,
            failures: 0,
            trouble: None,
        }
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.tools.config.borrow().world.tick_period_ms.max(1))
    }

    async fn happened(&mut self, happening: Happening) -> Result<(), RdbError> {
        let event = match happening {
            Happening::Joined { conn, instance, ticker } => {
                tracing::info!(conn, ticker = instance, "ticker connected");
                self.tickers.insert(conn, ticker);
                self.due = self.due.min(self.paced.max(Instant::now()));
                Event::Joined { conn, instance }
            }
            Happening::Left { conn } => {
                if self.tickers.remove(&conn).is_some() {
                    tracing::info!(conn, "ticker disconnected");
                }
                Event::Left { conn }
            }
            Happening::Answered { conn, answer } => Event::Answered { conn, answer },
        };
        let membership = !matches!(event, Event::Answered { .. });
        self.feed(event).await?;
        if membership {
            self.tools.metrics.assigned(self.barrier.tickers());
        }
        Ok(())
    }

    /// Does what is due between two ticks, which mostly is the next tick.
    async fn look(&mut self) -> Result<(), RdbError> {
        let current = self.tools.topology.borrow().clone();
        if current.epoch != self.topology.epoch {
            self.topology = current;
            self.feed(Event::Changed { topology_epoch: self.topology.epoch }).await?;
        }
        self.due = Instant::now() + LOOK;
        let step = hold::step(&self.topology, self.held.as_ref(), self.guards);
        self.tools.metrics.held.set(i64::from(!matches!(step, Step::Run | Step::Open)));
        let done = match step {
            Step::Run if Instant::now() < self.paced => {
                self.due = self.paced;
                Ok(())
            }
            Step::Run => return self.feed(Event::Due).await,
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
        self.last_commit = None;
        tracing::info!(version, tick, epoch = self.topology.epoch, "world held: the serving version is frozen");
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
        if matches!(tokio::time::timeout(STAGE, seen).await, Ok(Ok(_))) {
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
            tracing::info!(version = serving.serving.version, epoch = serving.epoch, "re-sharding given up: going on");
        }
        self.guards = Guards::Open;
        self.due = Instant::now();
        Ok(())
    }

    /// Feeds an event and all that follow from it.
    async fn feed(&mut self, event: Event) -> Result<(), RdbError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for command in self.barrier.next(event) {
                events.extend(self.carry_out(command).await?);
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: Command) -> Result<Option<Event>, RdbError> {
        match command {
            Command::Raise { epoch, reason } => {
                tracing::info!(epoch, topology = self.topology.epoch, reason, "new epoch");
                self.tools.metrics.epoch.set(epoch);
                self.tools.metrics.assigned(self.barrier.tickers());
                let raised = self.tools.world.raise(epoch).await;
                if let Err(error) = &raised {
                    self.tools.metrics.abandoned.inc();
                    tracing::warn!(epoch, %error, "the epoch did not reach all shards; trying again");
                    self.due = Instant::now() + RETRY;
                }
                Ok(Some(Event::Raised { epoch, ok: raised.is_ok() }))
            }
            Command::Send { conn, frame } => {
                let sent = self.tickers.get(&conn).is_some_and(|ticker| ticker.send(frame));
                Ok((!sent).then(|| {
                    self.tickers.remove(&conn);
                    Event::Left { conn }
                }))
            }
            Command::Begin { place, loads } => {
                self.begins(place, loads);
                Ok(None)
            }
            Command::Commit { tick, changed } => {
                self.stage_ends();
                self.deadline = None;
                self.commit(tick, changed).await?;
                Ok(Some(Event::Committed { tick }))
            }
            Command::Close { conn, reason } => {
                tracing::warn!(conn, reason, "ticker's stream closed");
                self.tickers.remove(&conn);
                Ok(None)
            }
            Command::Abandon { place, reason } => {
                self.abandoned(place, &reason);
                Ok(None)
            }
        }
    }

    fn begins(&mut self, place: Place, loads: bool) {
        self.stage_ends();
        let now = Instant::now();
        if place.stage == Stage::Observe {
            self.tick_began = now;
        }
        self.stage_began = Some((place.stage, now));
        let limit = STAGE.max(self.period() * 5) * if loads { LOADING } else { 1 };
        self.deadline = Some((now + limit, place));
        tracing::debug!(?place, loads, "stage begins");
    }

    fn stage_ends(&mut self) {
        if let Some((stage, began)) = self.stage_began.take() {
            self.tools.metrics.staged(stage, began.elapsed());
        }
    }

    fn abandoned(&mut self, place: Place, reason: &str) {
        self.failures += 1;
        self.tools.metrics.abandoned.inc();
        self.stage_began = None;
        self.deadline = None;
        // Perhaps the guards are not as they should be: the next look makes sure that they are.
        self.guards = Guards::Unknown;
        // The first time at once: somebody else takes over.
        let pause = Duration::from_millis(100) * (1 << (self.failures - 1).min(5)) - Duration::from_millis(100);
        self.due = Instant::now() + pause.min(BACKOFF);
        self.paced = self.due;
        tracing::warn!(?place, failures = self.failures, reason, "tick will be run again");
    }

    /// Commits until it is known to be done.
    async fn commit(&mut self, tick: u64, changed: Vec<ChunkPos>) -> Result<(), RdbError> {
        let record = Committed { tick, at: now_ms(), changed };
        let mut again = false;
        while let Err(error) = self.tools.control.commit(self.lease, &record).await {
            match error {
                // An attempt whose answer was lost has done it.
                RdbError::Conflict { .. } if again && self.tools.control.committed().await? == Some(tick) => break,
                RdbError::NotLeader { .. } | RdbError::Conflict { .. } => return Err(error),
                _ => tracing::warn!(tick, %error, "tick not known to be committed; trying again"),
            }
            again = true;
            sleep(RETRY).await;
        }
        self.committed(tick).await;
        Ok(())
    }

    async fn committed(&mut self, tick: u64) {
        let (now, period) = (Instant::now(), self.period());
        let took = now - self.tick_began;
        self.failures = 0;
        self.paced = self.tick_began + period;
        self.due = self.paced;
        self.tools.metrics.tick.set(tick);
        self.tools.metrics.ticked(took);
        if let Some(last) = self.last_commit.replace(now) {
            self.tools.metrics.dilation.set((now - last).as_secs_f64() / period.as_secs_f64());
        }
        if took > period {
            let (took_ms, period_ms) = (took.as_millis() as u64, period.as_millis() as u64);
            tracing::info!(tick, took_ms, period_ms, "slow tick: the world's time is dilated");
        }
        if let Some(held) = hold::resumed(self.held.as_ref(), now_ms()) {
            match self.tools.control.set_held(&held).await {
                Ok(()) => {
                    tracing::info!(tick, version = held.version, pause_ms = held.pause_ms, "ticks go on");
                    self.held = Some(held);
                }
                Err(error) => tracing::warn!(tick, %error, "the end of the hold is not recorded; trying again"),
            }
        }
    }
}
