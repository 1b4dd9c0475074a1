//! The executor of a leader: feeds the barrier with what happens and carries out its commands. Knows streams, clock
//! and databases; what is to be done is decided in `barrier` and `cutover`.

mod between;
mod flip;
mod raise;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fortia_common::boot::Boot;
use fortia_common::failpoint::Failpoints;
use fortia_common::pace::Pace;
use fortia_common::records::{Config, CutoverRecord};
use fortia_common::topology::{Phase, Topology};
use fortia_proto::tick::v1::{Committed, Stage};
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::migrate::cutover::Cutover;
use fortia_rdb::world::World;
use fortia_vec::regions_of;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::assign::Costs;
use crate::barrier::Barrier;
use crate::cutover::{Guards, Pending};
use crate::exchange::{Command, Conn, Event, Place, Why};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::streams::{Happening, Ticker};

/// Time between two attempts at something that failed.
const RETRY: Duration = Duration::from_millis(500);
/// After the first ticker has come, time for the others: whoever is there at once need not load the whole world and
/// drop most of it a moment later. Longer than a ticker's search for a leader.
const GATHER: Duration = Duration::from_millis(150);
/// A dilation that is worth a word in the log.
const SLOW: f64 = 1.5;
/// Longest pause between two runs of a tick that fails again and again.
const BACKOFF: Duration = Duration::from_secs(2);

/// What a leader works with.
pub(crate) struct Tools {
    pub(crate) control: ControlDb,
    pub(crate) boot: Boot,
    pub(crate) world: World,
    pub(crate) cutover: Cutover,
    pub(crate) failpoints: Failpoints,
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

/// A stage that runs.
struct StageBegan {
    stage: Stage,
    at: Instant,
    loads: bool,
}

struct Leader<'a> {
    tools: &'a Tools,
    lease: u64,
    barrier: Barrier,
    tickers: HashMap<Conn, Ticker>,
    topology: Topology,
    /// Oldest epoch of a topology under which what tickers know is still the world.
    memory_since: u64,
    guards: Guards,
    /// Version and epoch that it was last said are noted for.
    noted: Option<(u64, u64)>,
    pending: Pending,
    /// What the last try to cut over came to, until the control database has it.
    untold: Option<CutoverRecord>,
    /// When to look what is to be done; only while no tick runs.
    due: Instant,
    /// The next tick does not begin before.
    paced: Instant,
    deadline: Option<(Instant, Place)>,
    tick_began: Instant,
    stage_began: Option<StageBegan>,
    patience: Patience,
    pace: Pace,
    /// Whether it was said that the world is slow.
    slow: bool,
    /// Runs of the tick that failed, one after the other.
    failures: u32,
    /// What was last said to be forgotten, if anything was said.
    forgotten: Option<Option<String>>,
    /// What went wrong between ticks last time, so that it is not told again and again.
    trouble: Option<String>,
}

impl<'a> Leader<'a> {
    async fn begin(tools: &'a Tools, lease: u64) -> Leader<'a> {
        let info = insist("the world's info", || tools.world.info()).await;
        let committed = insist("the committed tick", || async {
            tools.control.committed().await.map(|t| Some(t.unwrap_or(0)))
        })
        .await;
        let last = insist("the committed tick's record", || async {
            let ticks = tools.control.ticks(committed.saturating_sub(1), Duration::ZERO).await?;
            Ok(Some(ticks.into_iter().find(|record| record.tick == committed)))
        })
        .await;
        let topology = tools.topology.borrow().clone();
        tracing::info!(lease, committed, radius = info.radius, "leading");
        tools.metrics.tick.set(committed);
        let now = Instant::now();
        Leader {
            tools,
            lease,
            barrier: Barrier::new(
                lease,
                &topology,
                committed,
                Ledger::after(last.as_ref()),
                regions_of(info.limit),
                Costs::new(info.radius),
            ),
            tickers: HashMap::new(),
            memory_since: topology.epoch,
            // The one before may still be at its flip: it is fenced before anything is written.
            guards: match topology.phase {
                Some(Phase::Cutover) => Guards::Ahead,
                _ => Guards::Unknown,
            },
            noted: None,
            pending: Pending::default(),
            untold: None,
            topology,
            due: now,
            paced: now,
            deadline: None,
            tick_began: now,
            stage_began: None,
            patience: Patience::default(),
            pace: Pace::default(),
            slow: false,
            failures: 0,
            forgotten: None,
            trouble: None,
        }
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.tools.config.borrow().world.tick_period_ms.max(1))
    }

    /// Longest time for which a cut-over may keep writes from being made.
    fn most_pause(&self) -> Duration {
        Duration::from_millis(self.tools.config.borrow().max_cutover_pause_ms.max(1))
    }

    async fn happened(&mut self, happening: Happening) -> Result<(), RdbError> {
        let event = match happening {
            Happening::Joined { conn, instance, process, ticker } => {
                tracing::info!(conn, ticker = instance, "ticker connected");
                if self.tickers.is_empty() {
                    self.paced = self.paced.max(Instant::now() + GATHER);
                }
                self.tickers.insert(conn, ticker);
                self.due = self.due.min(self.paced.max(Instant::now()));
                Event::Joined { conn, instance, process }
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
                self.tools.metrics.epochs.inc();
                self.tools.metrics.assigned(self.barrier.tickers());
                let ok = self.raise(epoch).await;
                if !ok {
                    // Data do not come back by themselves.
                    let stands = matches!(self.forgotten, Some(Some(_)));
                    self.due = Instant::now() + if stands { BACKOFF } else { RETRY };
                }
                Ok(Some(Event::Raised { epoch, ok }))
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
            Command::Commit { tick, changed, version, parts } => {
                self.stage_ends();
                self.deadline = None;
                self.commit(Committed { tick, at: now_ms(), changed, version, parts }).await?;
                Ok(Some(Event::Committed { tick }))
            }
            Command::Close { conn, reason } => {
                tracing::warn!(conn, reason, "ticker's stream closed");
                self.tickers.remove(&conn);
                Ok(None)
            }
            Command::Abandon { place, why, reason } => {
                self.abandoned(place, why, &reason);
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
        self.stage_began = Some(StageBegan { stage: place.stage, at: now, loads });
        let limit = self.patience.deadline(self.period(), loads, self.failures);
        self.deadline = Some((now + limit, place));
        tracing::debug!(?place, loads, "stage begins");
    }

    fn stage_ends(&mut self) {
        if let Some(StageBegan { stage, at, loads }) = self.stage_began.take() {
            self.patience.answered(at.elapsed(), loads);
            self.tools.metrics.staged(stage, at.elapsed());
        }
    }

    fn abandoned(&mut self, place: Place, why: Why, reason: &str) {
        self.failures += 1;
        self.tools.metrics.abandoned(why);
        self.stage_began = None;
        self.deadline = None;
        // Perhaps the guards are not as they should be: the next look makes sure that they are.
        self.guards = Guards::Unknown;
        // The first time at once: somebody else takes over.
        let pause =
            Duration::from_millis(100) * (1 << (self.failures - 1).min(5)) - Duration::from_millis(100);
        self.due = Instant::now() + pause.min(BACKOFF);
        self.paced = self.due;
        tracing::warn!(?place, failures = self.failures, reason, "tick will be run again");
    }

    /// Commits until it is known to be done.
    async fn commit(&mut self, record: Committed) -> Result<(), RdbError> {
        let tick = record.tick;
        let mut again = false;
        while let Err(error) = self.tools.control.commit(self.lease, &record).await {
            match error {
                // An attempt whose answer was lost has done it.
                RdbError::Conflict { .. } if again && self.tools.control.committed().await? == Some(tick) => {
                    break;
                }
                RdbError::NotLeader { .. } | RdbError::Conflict { .. } => return Err(error),
                _ => tracing::warn!(tick, %error, "tick not known to be committed; trying again"),
            }
            again = true;
            sleep(RETRY).await;
        }
        self.committed(tick, record.at).await;
        Ok(())
    }

    /// Says in the log when the world slows down and when it is on time again, not at every tick.
    fn tell_dilation(&mut self, tick: u64, dilation: f64) {
        if !self.slow && dilation > SLOW {
            tracing::warn!(
                tick,
                dilation,
                "ticks take longer than their period: the world's time is dilated"
            );
            self.slow = true;
        } else if self.slow && dilation < (SLOW + 1.0) / 2.0 {
            tracing::info!(tick, dilation, "ticks are on time again");
            self.slow = false;
        }
    }

    async fn committed(&mut self, tick: u64, at: u64) {
        let (now, period) = (Instant::now(), self.period());
        let took = now - self.tick_began;
        self.failures = 0;
        self.paced = self.tick_began + period;
        self.due = self.paced;
        self.tools.metrics.tick.set(tick);
        self.tools.metrics.ticked(took);
        self.pace.committed(at);
        let dilation = self.pace.dilation(period).unwrap_or_default();
        self.tools.metrics.dilation.set(dilation);
        self.tell_dilation(tick, dilation);
        self.pending.ticked(self.paced, self.most_pause());
        self.guards = self.guards.after_tick(&self.topology, tick);
        self.tell().await;
    }
}
