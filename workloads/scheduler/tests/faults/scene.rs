//! A world in processes, with its reference: ticks are followed, orders are given, faults are made and every snapshot
//! is compared. Knows what a fault does; which and how many, the tests say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::{Config, EditStrategy, LEASE};
use fortia_proto::tick::v1::Stage;
use fortia_proto::world::v1::Action;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_testredis::DataPlane;
use fortia_vec::{ChunkPos, RegionPos};
use fortia_world::chunk::Column;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::play;
use crate::process::{Process, free_address};
use crate::reference::{Key, Reference};
use crate::relay::{Relay, Trap, When};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const SCHEDULERS: [&str; 2] = ["scheduler-0", "scheduler-1"];
pub(crate) const TICKERS: [&str; 3] = ["ticker-0", "ticker-1", "ticker-2"];

/// What happens to a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillTicker,
    PauseTicker,
    DuplicateTicker,
    KillScheduler,
}

impl Fault {
    pub(crate) const ALL: [Fault; 4] =
        [Fault::KillTicker, Fault::PauseTicker, Fault::DuplicateTicker, Fault::KillScheduler];
}

/// The cluster of processes under test.
pub(crate) struct Scene {
    plane: DataPlane,
    pub(crate) control: ControlDb,
    world: World,
    radius: u32,
    reference: Arc<Mutex<Reference>>,
    stepped: watch::Receiver<u64>,
    follower: JoinHandle<()>,
    trap: Arc<Trap>,
    /// Per scheduler: its process, where it listens and where its relay does.
    schedulers: Vec<(Process, String, String)>,
    tickers: Vec<Process>,
}

fn lock(reference: &Mutex<Reference>) -> MutexGuard<'_, Reference> {
    reference.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    /// A generated world of this radius on two shards, two schedulers behind relays, three tickers, and players.
    pub(crate) async fn start(radius: u32, period_ms: u64, strategy: EditStrategy) -> Scene {
        let plane = DataPlane::start(2).await;
        configure(&plane, radius, period_ms, strategy).await;
        let (_, topology) = watch::channel(plane.topology().await);
        let world = World::connect(&plane.boot_as(Service::Game, "test"), topology);
        let control = ControlDb::connect(&plane.boot_as(Service::Game, "test"));
        let all: Vec<ChunkPos> = ChunkPos::within(radius).collect();
        let chunks = world.chunks(0, &all).await.expect("the generated world");
        let chunks = all.into_iter().zip(chunks.into_iter().map(|chunk| chunk.expect("a chunk"))).collect();
        let reference = Arc::new(Mutex::new(Reference::new(radius, chunks)));
        let (steps, stepped) = watch::channel(0);
        let follower = tokio::spawn(follow(control.clone(), world.clone(), Arc::clone(&reference), steps));
        let trap = Trap::new();
        let mut schedulers = Vec::new();
        for instance in SCHEDULERS {
            let listen = free_address();
            let relay = Relay::start(&listen, Arc::clone(&trap)).await;
            let process = Process::spawn(&plane, Service::Scheduler, instance, &listen, &relay);
            schedulers.push((process, listen, relay));
        }
        let mut scene = Scene {
            plane,
            control,
            world,
            radius,
            reference,
            stepped,
            follower,
            trap,
            schedulers,
            tickers: Vec::new(),
        };
        for instance in TICKERS {
            let ticker = scene.ticker(instance);
            scene.tickers.push(ticker);
        }
        scene.after_tick(3).await;
        scene.joined(TICKERS.len()).await;
        scene
    }

    fn ticker(&self, instance: &str) -> Process {
        Process::spawn(&self.plane, Service::Ticker, instance, "127.0.0.1:0", "127.0.0.1:0")
    }

    pub(crate) fn tick(&self) -> u64 {
        *self.stepped.borrow()
    }

    /// Waits until the reference has run this tick, which was committed.
    pub(crate) async fn after_tick(&self, tick: u64) {
        let mut stepped = self.stepped.clone();
        let waited = timeout(PATIENCE, stepped.wait_for(|now| *now >= tick)).await;
        waited
            .unwrap_or_else(|_| panic!("no tick {tick}: the last was {}", self.tick()))
            .expect("ticks are followed");
    }

    /// Waits until so many processes of tickers were let in since the beginning.
    async fn joined(&self, processes: usize) {
        timeout(PATIENCE, self.trap.let_in(processes)).await.expect("a ticker connects");
    }

    /// Makes a fault happen in this stage of the next tick that comes to it; returns the tick once it and the one
    /// after it are committed and everything is whole again.
    pub(crate) async fn fault(&mut self, fault: Fault, stage: Stage, when: When, target: usize) -> u64 {
        let instance = TICKERS[target % TICKERS.len()];
        let inside = self.trap.inside();
        let twin = match fault {
            Fault::DuplicateTicker => {
                let knocked = self.trap.knock(instance, || self.ticker(instance));
                Some(timeout(PATIENCE, knocked).await.expect("the twin connects"))
            }
            _ => None,
        };
        let told = self.trap.arm(instance, stage, when);
        let hit = timeout(PATIENCE, told).await.expect("the stage comes").expect("the relay lives");
        let tick = hit.tick;
        match fault {
            Fault::KillTicker => {
                self.tickers[target].kill();
                drop(hit);
                self.tickers[target] = self.ticker(instance);
                self.after_tick(tick + 1).await;
                self.joined(inside + 1).await;
            }
            Fault::PauseTicker => {
                self.tickers[target].pause();
                drop(hit);
                self.after_tick(tick + 1).await;
                self.tickers[target].resume();
            }
            Fault::DuplicateTicker => {
                self.trap.open(instance);
                self.joined(inside + 1).await;
                drop(hit);
                self.after_tick(tick + 2).await;
                // The first one goes, in whatever it does: the twin takes its place.
                self.tickers[target].kill();
                self.tickers[target] = twin.expect("a twin");
                let now = self.tick();
                self.after_tick(now + 1).await;
            }
            Fault::KillScheduler => {
                self.kill_leader(true).await;
                drop(hit);
                self.after_tick(tick + 1).await;
            }
        }
        self.trap.disarm();
        tick
    }

    /// Kills the leading scheduler and starts it again, to stand by; returns when it was killed. `expire`: its lease is
    /// over at once, so that the standby need not wait for that.
    pub(crate) async fn kill_leader(&mut self, expire: bool) -> Instant {
        let leader = self.leader().await;
        let (process, listen, relay) = &mut self.schedulers[leader];
        let killed = Instant::now();
        process.kill();
        if expire {
            self.plane.control_db.run::<i64>(&["HSET", LEASE, "expires", "0"]).await;
        }
        *process = Process::spawn(&self.plane, Service::Scheduler, SCHEDULERS[leader], listen, relay);
        killed
    }

    /// Tells the leading scheduler to end in order, and returns after how long the other has committed a tick.
    pub(crate) async fn hand_over(&mut self) -> Duration {
        let leader = self.leader().await;
        let (told, epoch) = (Instant::now(), self.lease_epoch().await);
        self.schedulers[leader].0.terminate();
        let waited = timeout(PATIENCE, async {
            while self.lease_epoch().await == epoch {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the other takes the lease");
        let last = self.control.committed().await.expect("the control database").unwrap_or(0);
        self.after_tick(last + 1).await;
        told.elapsed()
    }

    async fn lease_epoch(&self) -> u64 {
        self.plane.control_db.run::<u64>(&["HGET", LEASE, "epoch"]).await
    }

    async fn leader(&self) -> usize {
        let waited = timeout(PATIENCE, async {
            loop {
                let leader = self.control.leader().await.expect("the control database");
                if let Some(found) =
                    self.schedulers.iter().position(|(_, _, relay)| Some(relay) == leader.as_ref())
                {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("a leader")
    }

    /// A reader of this world.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            world: self.world.clone(),
            control: self.control.clone(),
            reference: Arc::clone(&self.reference),
            stepped: self.stepped.clone(),
        }
    }

    /// Reads the whole world at its newest tick and compares it; returns the tick.
    pub(crate) async fn compare(&self) -> u64 {
        let all: Vec<ChunkPos> = ChunkPos::within(self.radius).collect();
        let reader = self.reader();
        let snapshot = reader.read(&all).await;
        reader.compare(&snapshot).await;
        snapshot.tick
    }

    /// How many writes and takes of late tickers the shards have refused.
    pub(crate) async fn refused(&self) -> u64 {
        let mut refused = 0;
        for shard in &self.plane.shards {
            let errors: String = shard.run(&["INFO", "errorstats"]).await;
            let stale = errors.lines().find_map(|line| line.trim().strip_prefix("errorstat_STALE:count="));
            refused += stale.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
        refused
    }

    /// Ends the following of ticks; a mismatch found by it is a panic here.
    pub(crate) async fn end(self) {
        if self.follower.is_finished() {
            self.follower.await.expect("every tick changed what it had to");
        } else {
            self.follower.abort();
        }
    }
}

async fn configure(plane: &DataPlane, radius: u32, period_ms: u64, strategy: EditStrategy) {
    let json: String = plane.control_db.run(&["GET", fortia_common::records::CONFIG]).await;
    let mut config: Config = serde_json::from_str(&json).expect("a configuration");
    (config.world.radius, config.world.tick_period_ms) = (radius, period_ms);
    config.edit_strategy = strategy;
    plane.set_config(&config).await;
    let mut boot = plane.boot(Service::Worldgen);
    boot.log = "error".into();
    fortia_worldgen::run(boot.clone(), &fortia_log::init(&boot)).await.expect("worldgen");
}

/// Runs the reference after each committed tick, compares what the tick says it changed, and gives the next orders.
/// Ticks come one by one, none twice and none left out.
async fn follow(
    control: ControlDb,
    world: World,
    reference: Arc<Mutex<Reference>>,
    steps: watch::Sender<u64>,
) {
    let mut given = BTreeMap::new();
    let first = play::join(&lock(&reference));
    give(&world, 1, first, &mut given).await;
    loop {
        let after = *steps.borrow();
        for committed in control.ticks(after, Duration::from_secs(1)).await.expect("ticks") {
            let orders = {
                let mut reference = lock(&reference);
                assert_eq!(committed.tick, reference.tick + 1, "ticks are committed one by one");
                let actions: Vec<_> = given.remove(&committed.tick).unwrap_or_default().into_iter().collect();
                let changed = reference.step(&actions);
                let told: Vec<_> = committed.changed.iter().map(|at| ChunkPos::new(at.x, at.y)).collect();
                assert_eq!(told, changed, "what tick {} changed", committed.tick);
                play::orders(&reference)
            };
            // Far enough for most not to be moved on, near enough for the reference to be about the same.
            give(&world, committed.tick + 2, orders, &mut given).await;
            steps.send_replace(committed.tick);
        }
    }
}

/// Actions by the tick they run in and the region they name, in the order they were put.
type Given = BTreeMap<u64, BTreeMap<RegionPos, Vec<Action>>>;

/// Puts actions, and notes in which tick they run and in which order.
async fn give(world: &World, tick: u64, actions: Vec<(RegionPos, Action)>, given: &mut Given) {
    for (region, action) in actions {
        let runs_in = world.push_action(tick, region, action.encode_to_vec().into()).await.expect("taken");
        given.entry(runs_in).or_default().entry(region).or_default().push(action);
    }
}

/// Part of the world as a reader saw it.
pub(crate) struct Snapshot {
    pub(crate) tick: u64,
    values: Vec<(Key, Option<Bytes>)>,
}

/// Reads as a game server does: the committed tick, chunks as of it, the entities they list as of it.
pub(crate) struct Reader {
    world: World,
    control: ControlDb,
    reference: Arc<Mutex<Reference>>,
    stepped: watch::Receiver<u64>,
}

impl Reader {
    /// Reads chunks and all entities in them at the newest tick.
    pub(crate) async fn read(&self, at: &[ChunkPos]) -> Snapshot {
        loop {
            let tick = self.control.committed().await.expect("control database").unwrap_or(0);
            match self.read_at(tick, at).await {
                Ok(snapshot) => return snapshot,
                // Two newer ticks have changed it since: a newer one is committed.
                Err(RdbError::TooNew { .. }) => {}
                Err(error) => panic!("a read fails: {error}"),
            }
        }
    }

    async fn read_at(&self, tick: u64, at: &[ChunkPos]) -> Result<Snapshot, RdbError> {
        let chunks = self.world.chunks(tick, at).await?;
        let mut ids = BTreeSet::new();
        for bytes in chunks.iter().flatten() {
            let column = Column::decode(bytes).expect("a whole column");
            ids.extend(column.entities().iter().copied());
        }
        let ids: Vec<u64> = ids.into_iter().collect();
        let entities = self.world.entities(tick, &ids).await?;
        let chunks = at.iter().map(|at| Key::Chunk(*at)).zip(chunks);
        let entities = ids.into_iter().map(Key::Entity).zip(entities);
        Ok(Snapshot { tick, values: chunks.chain(entities).collect() })
    }

    /// Compares a snapshot with the reference world of its tick, once that is there.
    pub(crate) async fn compare(&self, snapshot: &Snapshot) {
        let mut stepped = self.stepped.clone();
        let ran = timeout(PATIENCE, stepped.wait_for(|now| *now >= snapshot.tick)).await;
        ran.expect("the reference runs").expect("ticks are followed");
        let reference = lock(&self.reference);
        for (key, value) in &snapshot.values {
            let expected = reference.as_of(snapshot.tick, *key);
            assert!(
                value.as_ref() == expected,
                "{key:?} at tick {} is not that of the reference",
                snapshot.tick
            );
        }
    }
}
