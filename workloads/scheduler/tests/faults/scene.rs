//! A world in processes, with its reference: ticks are followed, orders are given, faults are made and every snapshot
//! is compared. Knows what a fault does; which and how many, the tests say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fortia_common::boot::Service;
use fortia_common::records::{Config, EditStrategy, LEASE};
use fortia_proto::tick::v1::Stage;
use fortia_proto::world::v1::Action;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_testredis::DataPlane;
use fortia_vec::{ChunkPos, RegionPos};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::play;
use crate::process::{Process, free_address};
use crate::reader::Reader;
use crate::reference::Reference;
use crate::relay::{Hit, Relay, Trap, When};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a shard that was killed is down.
const DOWN: Duration = Duration::from_millis(50);
pub(crate) const SCHEDULERS: [&str; 2] = ["scheduler-0", "scheduler-1"];
pub(crate) const TICKERS: [&str; 3] = ["ticker-0", "ticker-1", "ticker-2"];

/// What happens to a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillTicker,
    PauseTicker,
    DuplicateTicker,
    KillScheduler,
    KillShard,
}

impl Fault {
    pub(crate) const ALL: [Fault; 5] = [
        Fault::KillTicker,
        Fault::PauseTicker,
        Fault::DuplicateTicker,
        Fault::KillScheduler,
        Fault::KillShard,
    ];
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
    /// Held while orders are given, or while a shard is down: of an order that is not answered nobody knows whether it
    /// was taken.
    giving: Arc<tokio::sync::Mutex<()>>,
    trap: Arc<Trap>,
    /// Per scheduler: its process, where it listens and where its relay does.
    schedulers: Vec<(Process, String, String)>,
    tickers: Vec<Process>,
}

pub(crate) fn lock(reference: &Mutex<Reference>) -> MutexGuard<'_, Reference> {
    reference.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    /// A generated world of this radius on two shards, two schedulers behind relays, three tickers, and players.
    pub(crate) async fn start(radius: u32, period_ms: u64, strategy: EditStrategy) -> Scene {
        // A shard that is killed comes back with all it has answered.
        let always = ["--appendonly", "yes", "--appendfsync", "always"];
        let plane = DataPlane::with_servers(2, &always).await;
        configure(&plane, radius, period_ms, strategy).await;
        let (_, topology) = watch::channel(plane.topology().await);
        let world = World::connect(&plane.boot_as(Service::Game, "test"), topology);
        let control = ControlDb::connect(&plane.boot_as(Service::Game, "test"));
        let all: Vec<ChunkPos> = ChunkPos::within(radius).collect();
        let chunks = world.chunks(0, &all).await.expect("the generated world");
        let chunks = all.into_iter().zip(chunks.into_iter().map(|chunk| chunk.expect("a chunk"))).collect();
        let reference = Arc::new(Mutex::new(Reference::new(radius, chunks)));
        let (steps, stepped) = watch::channel(0);
        let giving = Arc::default();
        let follows =
            Follower { control: control.clone(), world: world.clone(), reference: Arc::clone(&reference) };
        let follower = tokio::spawn(follows.run(Arc::clone(&giving), steps));
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
            giving,
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
            Fault::KillShard => {
                self.kill_shard(target, hit).await;
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

    /// Kills a shard and starts it again with what it has on disk. The stage goes on in between.
    async fn kill_shard(&mut self, target: usize, hit: Hit) {
        let giving = Arc::clone(&self.giving);
        let _nobody_orders = giving.lock().await;
        let shard = target % self.plane.shards.len();
        self.plane.shards[shard].kill();
        drop(hit);
        tokio::time::sleep(DOWN).await;
        self.plane.shards[shard].restart();
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
struct Follower {
    control: ControlDb,
    world: World,
    reference: Arc<Mutex<Reference>>,
}

impl Follower {
    async fn run(self, giving: Arc<tokio::sync::Mutex<()>>, steps: watch::Sender<u64>) {
        let Follower { control, world, reference } = self;
        let mut given = BTreeMap::new();
        let first = play::join(&lock(&reference));
        give(&world, 1, first, &mut given).await;
        loop {
            let after = *steps.borrow();
            for committed in control.ticks(after, Duration::from_secs(1)).await.expect("ticks") {
                let orders = {
                    let mut reference = lock(&reference);
                    assert_eq!(committed.tick, reference.tick + 1, "ticks are committed one by one");
                    let actions: Vec<_> =
                        given.remove(&committed.tick).unwrap_or_default().into_iter().collect();
                    let changed = reference.step(&actions);
                    let told: Vec<_> = committed.changed.iter().map(|at| ChunkPos::new(at.x, at.y)).collect();
                    assert_eq!(told, changed, "what tick {} changed", committed.tick);
                    play::orders(&reference)
                };
                // Far enough for most not to be moved on, near enough for the reference to be about the same.
                let _shards_are_there = giving.lock().await;
                give(&world, committed.tick + 2, orders, &mut given).await;
                steps.send_replace(committed.tick);
            }
        }
    }
}

/// Actions by the tick they run in and the region they name, in the order they were put.
type Given = BTreeMap<u64, BTreeMap<RegionPos, Vec<Action>>>;

/// Puts actions, and notes in which tick they run and in which order.
async fn give(world: &World, tick: u64, actions: Vec<(RegionPos, Action)>, given: &mut Given) {
    for (region, action) in actions {
        let (begun, bytes) = (Instant::now(), action.encode_to_vec());
        let runs_in = loop {
            match world.push_action(tick, region, bytes.clone().into()).await {
                Ok(runs_in) => break runs_in,
                // Nobody orders while a shard is down: what fails is a connection to its last life, and nothing was taken.
                Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("an order is not taken: {error}"),
            }
        };
        given.entry(runs_in).or_default().entry(region).or_default().push(action);
    }
}
