//! A world that lives: servers of the data plane, schedulers, tickers, the operator's hand, players. Knows how to begin a
//! re-sharding, to wait for its flip, and to kill or stop each of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fortia_common::boot::Service;
use fortia_common::control::Control;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::{
    COMMANDS, CONFIG, CUTOVER, Config, CutoverRecord, FORGOTTEN, ForgottenRecord, LEASE,
};
use fortia_common::server::Server;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_testredis::{DataPlane, Journal};
use tokio::runtime::{Builder, Runtime};

use crate::hand::Hand;
use crate::players::Players;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime of its own for a server: dropped with all that runs in it, at once, as a killed process would be.
struct Alone(Option<Runtime>);

impl Alone {
    fn run(program: impl Future<Output = ()> + Send + 'static) -> Alone {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.spawn(program);
        Alone(Some(runtime))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A living world.
pub(crate) struct Scene {
    pub(crate) plane: DataPlane,
    pub(crate) hand: Hand,
    pub(crate) players: Players,
    pub(crate) control: ControlDb,
    /// Of the shards, by index, where they are followed.
    pub(crate) journals: Vec<Journal>,
    /// When the last flip was seen.
    flip: Mutex<Option<Instant>>,
    follower: Server,
    servers: BTreeMap<String, Alone>,
}

/// What a world is to be like.
pub(crate) struct Wanted<'a> {
    pub(crate) shards: u32,
    pub(crate) options: &'a [&'a str],
    pub(crate) period_ms: u64,
    pub(crate) writers: u64,
    pub(crate) every: Duration,
    pub(crate) readers: u64,
    pub(crate) read_latency: Option<Duration>,
    pub(crate) max_pause: Duration,
}

impl Scene {
    /// A generated world that ticks, with players.
    pub(crate) async fn start(wanted: &Wanted<'_>) -> Scene {
        let plane = DataPlane::with_servers(wanted.shards, wanted.options).await;
        configure(&plane, wanted).await;
        let boot = plane.boot_as(Service::Game, "players");
        let control = ControlDb::connect(&boot);
        let ignore_filter = std::sync::Arc::new(|_: &str| Ok(()));
        let follower = Server::start(boot.clone(), control.clone(), ignore_filter).await.expect("a server");
        let world = World::connect(&boot, follower.topology());
        let hand = Hand::start(&plane, wanted.read_latency);
        let players = Players::start(&world, wanted.writers, wanted.every, wanted.readers);
        let (journals, servers) = (Vec::new(), BTreeMap::new());
        let mut scene =
            Scene { plane, hand, players, control, journals, flip: Mutex::default(), follower, servers };
        scene.spawn("scheduler-0", Failpoints::default());
        scene.spawn("ticker-0", Failpoints::default());
        scene.spawn("ticker-1", Failpoints::default());
        scene.ticks(2).await;
        scene
    }

    /// Follows how far the shards' files are on disk, so that these servers can lose power.
    pub(crate) fn follow_journals(&mut self) {
        self.journals = self.plane.shards.iter().map(Journal::follow).collect();
    }

    /// Starts a scheduler or ticker, by its name.
    pub(crate) fn spawn(&mut self, instance: &str, failpoints: Failpoints) {
        let scheduler = instance.starts_with("scheduler");
        let service = if scheduler { Service::Scheduler } else { Service::Ticker };
        let mut boot = self.plane.boot_as(service, instance);
        boot.log = log_filter();
        let alone = Alone::run(async move {
            let log = fortia_log::init(&boot);
            if scheduler {
                fortia_scheduler::run_with(boot, &log, failpoints).await.expect("scheduler runs");
            } else {
                fortia_ticker::run(boot, &log).await.expect("ticker runs");
            }
        });
        self.servers.insert(instance.to_owned(), alone);
    }

    /// Ends a scheduler or ticker with all it does, as a crash would.
    pub(crate) fn kill(&mut self, instance: &str) {
        self.servers.remove(instance);
    }

    /// Kills the scheduler and starts it again with these failpoints; the lease is not waited for.
    pub(crate) async fn replace_scheduler(&mut self, failpoints: Failpoints) {
        self.kill("scheduler-0");
        self.plane.control_db.run::<i64>(&["HSET", LEASE, "expires", "0"]).await;
        self.spawn("scheduler-0", failpoints);
    }

    /// Begins a re-sharding to so many shards.
    pub(crate) async fn reshard(&mut self, shards: u32) -> Layout {
        while self.plane.shards.len() < shards as usize {
            self.plane.add_shard().await;
        }
        // Groups there were before may be of a version that is gone: the operator closes them before it carries again.
        let groups = self.plane.groups();
        let begun = self
            .hand
            .change(|topology| {
                topology.groups = groups.clone();
                topology.target =
                    Some(Layout { version: topology.serving.version + 1, shards, ..topology.serving });
                topology.phase = Some(Phase::Copying);
            })
            .await;
        begun.target.expect("a target")
    }

    /// Waits until the topology is as wanted.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Topology) -> bool) -> Topology {
        let begun = Instant::now();
        loop {
            let topology = self.control.topology().await;
            if let Ok(Some(topology)) = &topology
                && is(topology)
            {
                return topology.clone();
            }
            let failures = self.hand.pods.failures();
            assert!(
                begun.elapsed() < PATIENCE,
                "no {what}: {topology:?}; pods: {failures:?}; {:?}",
                self.said().await
            );
            self.accept_loss().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A server that lost power may have lost commits: somebody accepts that, as people do by annotation.
    async fn accept_loss(&self) {
        let Some(json) = self.plane.control_db.run::<Option<String>>(&["GET", FORGOTTEN]).await else {
            return;
        };
        let forgotten: ForgottenRecord = serde_json::from_str(&json).expect("a record");
        let json: String = self.plane.control_db.run(&["GET", CONFIG]).await;
        let mut config: Config = serde_json::from_str(&json).expect("a configuration");
        if config.accepted_loss != Some(forgotten.tick) {
            config.accepted_loss = Some(forgotten.tick);
            self.plane.set_config(&config).await;
            let command = r#"{"id":"loss","action":{"do":"reload"}}"#;
            self.plane.control_db.run::<String>(&["XADD", COMMANDS, "*", "json", command]).await;
        }
    }

    async fn said(&self) -> Option<String> {
        self.plane.control_db.run(&["GET", CUTOVER]).await
    }

    /// Waits until this version is served.
    pub(crate) async fn flipped(&self, version: u64) -> Topology {
        let is = |topology: &Topology| topology.serving.version == version && topology.target.is_none();
        let topology = self.until("flip", is).await;
        *self.flip.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        topology
    }

    /// When the last flip was seen.
    pub(crate) fn last_flip(&self) -> Option<Instant> {
        *self.flip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the scheduler said of its last try.
    pub(crate) async fn cutover(&self) -> CutoverRecord {
        let begun = Instant::now();
        loop {
            if let Some(json) = self.said().await {
                let record: CutoverRecord = serde_json::from_str(&json).expect("a record");
                if record.flipped {
                    return record;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "the scheduler does not tell of a flip");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the version that was left be collected.
    pub(crate) async fn collect(&self) {
        self.hand.change(|t| (t.phase, t.previous) = (Some(Phase::Collecting), None)).await;
    }

    /// Waits until it is collected.
    pub(crate) async fn collected(&self) {
        self.until("end of collecting", |topology| topology.phase.is_none()).await;
    }

    pub(crate) async fn committed(&self) -> u64 {
        self.control.committed().await.ok().flatten().unwrap_or(0)
    }

    /// Waits for so many more ticks.
    pub(crate) async fn ticks(&self, count: u64) {
        let (begun, first) = (Instant::now(), self.committed().await);
        while self.committed().await < first + count {
            assert!(begun.elapsed() < PATIENCE, "no {count} ticks after {first}");
            self.accept_loss().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends all.
    pub(crate) async fn end(self) {
        self.players.end().await;
        drop(self.servers);
        self.hand.pods.clear();
        self.follower.stop().await;
    }
}

async fn configure(plane: &DataPlane, wanted: &Wanted<'_>) {
    let json: String = plane.control_db.run(&["GET", fortia_common::records::CONFIG]).await;
    let mut config: Config = serde_json::from_str(&json).expect("a configuration");
    config.world.tick_period_ms = wanted.period_ms;
    config.max_cutover_pause_ms = wanted.max_pause.as_millis() as u64;
    plane.set_config(&config).await;
    let mut boot = plane.boot(Service::Worldgen);
    boot.log = log_filter();
    fortia_worldgen::run(boot.clone(), &fortia_log::init(&boot)).await.expect("worldgen");
}

fn log_filter() -> String {
    std::env::var("FORTIA_TEST_LOG").unwrap_or_else(|_| "error".into())
}
