//! A cluster in one process: schedulers, tickers and worldgen as tasks, on real Redis servers. For tests only.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::{ACKS, COMMANDS, Config, Durability, EditStrategy, WorldConfig};
use fortia_proto::tick::v1::Committed;
use fortia_proto::world::v1::Action;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_testredis::DataPlane;
use fortia_vec::{ChunkPos, RegionPos};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Chunks from -RADIUS to RADIUS: 16 regions.
pub(crate) const RADIUS: u32 = 9;
pub(crate) const SEED: u64 = 42;
pub(crate) const PERIOD_MS: u64 = 100;
/// Longest wait for anything; a lease and a deadline fit in.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) plane: DataPlane,
    pub(crate) control: ControlDb,
    tasks: BTreeMap<String, (JoinHandle<()>, SocketAddr)>,
}

impl Cluster {
    /// A data plane with a generated world, and no server yet.
    pub(crate) async fn start(shards: u32) -> Cluster {
        Cluster::configured(shards, &config(SEED)).await
    }

    /// As [`Cluster::start`], with another configuration.
    pub(crate) async fn configured(shards: u32, config: &Config) -> Cluster {
        let plane = DataPlane::start(shards).await;
        plane.set_config(config).await;
        let control = ControlDb::connect(&plane.boot_as(Service::Game, "test"));
        let cluster = Cluster { plane, control, tasks: BTreeMap::new() };
        cluster.worldgen().await.expect("worldgen");
        cluster
    }

    /// With a scheduler and two tickers.
    pub(crate) async fn living(shards: u32) -> Cluster {
        Cluster::start(shards).await.alive().await
    }

    /// Starts a scheduler and two tickers.
    pub(crate) async fn alive(self) -> Cluster {
        self.alive_with(Failpoints::default()).await
    }

    /// As [`Cluster::alive`], with points at which the scheduler can be stopped.
    pub(crate) async fn alive_with(self, failpoints: Failpoints) -> Cluster {
        let mut cluster = self;
        cluster.spawn_with(Service::Scheduler, "scheduler-0", failpoints);
        cluster.spawn(Service::Ticker, "ticker-0");
        cluster.spawn(Service::Ticker, "ticker-1");
        cluster
            .wait_until("both tickers to own regions", async |c| c.regions("scheduler-0").len() == 2)
            .await;
        cluster.ticks(2).await;
        cluster
    }

    pub(crate) async fn worldgen(&self) -> Result<(), fortia_worldgen::WorldgenError> {
        let mut boot = self.plane.boot(Service::Worldgen);
        boot.log = log_filter();
        fortia_worldgen::run(boot.clone(), &fortia_log::init(&boot)).await
    }

    /// Starts a server.
    pub(crate) fn spawn(&mut self, service: Service, instance: &str) {
        self.spawn_with(service, instance, Failpoints::default());
    }

    fn spawn_with(&mut self, service: Service, instance: &str, failpoints: Failpoints) {
        let mut boot = self.plane.boot_as(service, instance);
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        boot.admin = port;
        boot.log = log_filter();
        let name = instance.to_owned();
        let task = tokio::spawn(async move {
            let log = fortia_log::init(&boot);
            match service {
                Service::Scheduler => {
                    fortia_scheduler::run_with(boot, &log, failpoints).await.expect("scheduler runs")
                }
                Service::Ticker => fortia_ticker::run(boot, &log).await.expect("ticker runs"),
                other => panic!("{other} is no server of this cluster"),
            }
        });
        self.tasks.insert(name, (task, port));
    }

    /// Ends a server at once, as a crash would.
    pub(crate) async fn kill(&mut self, instance: &str) {
        let (task, _) = self.tasks.remove(instance).expect("it runs");
        task.abort();
        let _ = task.await;
    }

    /// Waits for a server to end by itself.
    pub(crate) async fn ended(&mut self, instance: &str) {
        let (task, _) = self.tasks.remove(instance).expect("it runs");
        timeout(PATIENCE, task).await.expect("it ends in time").expect("it ends well");
    }

    /// Sets the wanted time between two ticks and waits until all servers know it.
    pub(crate) async fn set_period(&self, ms: u64) {
        let mut config = config(SEED);
        config.world.tick_period_ms = ms;
        self.reconfigure(&config).await;
    }

    /// Writes a configuration and waits until all servers know it.
    pub(crate) async fn reconfigure(&self, config: &Config) {
        self.plane.set_config(config).await;
        let told: usize = self.plane.control_db.run(&["XLEN", ACKS]).await;
        let command = r#"{"id":"r","action":{"do":"reload"}}"#;
        self.plane.control_db.run::<String>(&["XADD", COMMANDS, "*", "json", command]).await;
        let servers = self.tasks.len();
        self.wait_until("all servers to reload", async |c: &Cluster| {
            c.plane.control_db.run::<usize>(&["XLEN", ACKS]).await >= told + servers
        })
        .await;
    }

    /// Tells a server to end in order.
    pub(crate) async fn drain(&self, instance: &str) {
        let command = format!(r#"{{"id":"d","instance":"{instance}","action":{{"do":"drain"}}}}"#);
        let add = ["XADD", "fortia:commands", "*", "json", &command];
        self.plane.control_db.run::<String>(&add).await;
    }

    pub(crate) async fn wait_until(&self, what: &str, mut holds: impl AsyncFnMut(&Cluster) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited too long for {what}"));
    }

    pub(crate) async fn committed(&self) -> u64 {
        self.control.committed().await.expect("control database").unwrap_or(0)
    }

    /// Waits for so many more ticks and returns them.
    pub(crate) async fn ticks(&self, count: usize) -> Vec<Committed> {
        let begin = self.committed().await;
        self.ticks_after(begin, count).await
    }

    pub(crate) async fn ticks_after(&self, begin: u64, count: usize) -> Vec<Committed> {
        let mut ticks: Vec<Committed> = Vec::new();
        let waited = timeout(PATIENCE, async {
            while ticks.len() < count {
                let after = ticks.last().map_or(begin, |tick| tick.tick);
                ticks.extend(self.control.ticks(after, Duration::from_secs(1)).await.expect("ticks"));
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {count} ticks after {begin}"));
        ticks
    }

    /// The world as a reader sees it.
    pub(crate) async fn world(&self) -> World {
        let (_, topology) = watch::channel(self.plane.topology().await);
        World::connect(&self.plane.boot_as(Service::Game, "test"), topology)
    }

    pub(crate) async fn chunk(&self, at: ChunkPos) -> Bytes {
        let chunks = self.world().await.chunks(self.committed().await, &[at]).await.expect("a read");
        chunks[0].clone().expect("the chunk")
    }

    /// All chunks, as bytes.
    pub(crate) async fn chunks(&self) -> Vec<Option<Bytes>> {
        let all: Vec<ChunkPos> = ChunkPos::within(RADIUS).collect();
        self.world().await.chunks(self.committed().await, &all).await.expect("a read")
    }

    /// Puts an action; returns the tick it runs in.
    pub(crate) async fn act(&self, region: RegionPos, action: &Action) -> u64 {
        let first = self.committed().await + 1;
        self.world().await.push_action(first, region, action.encode_to_vec().into()).await.expect("taken")
    }

    /// A metric of a server, by its name with labels.
    pub(crate) fn metric(&self, instance: &str, name: &str) -> Option<f64> {
        let text = self.metrics(instance)?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').next_back()?.parse().ok()
    }

    /// How many runs of ticks were given up, by the word of a scheduler.
    pub(crate) fn abandoned(&self, instance: &str) -> f64 {
        let text = self.metrics(instance).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("fortia_scheduler_abandoned_total"));
        lines.filter_map(|line| line.split(' ').next_back()?.parse::<f64>().ok()).sum()
    }

    /// How many regions each ticker owns, by the word of a scheduler.
    pub(crate) fn regions(&self, instance: &str) -> BTreeMap<String, u64> {
        let text = self.metrics(instance).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("fortia_scheduler_regions{ticker=\""));
        let split = lines.filter_map(|line| line.split_once("\"} "));
        split.filter_map(|(t, n)| Some((t.to_owned(), n.parse().ok()?))).filter(|(_, n)| *n > 0).collect()
    }

    fn metrics(&self, instance: &str) -> Option<String> {
        self.get(instance, "/metrics")
    }

    /// The answer of an admin port.
    pub(crate) fn get(&self, instance: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.tasks.get(instance)?.1).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn log_filter() -> String {
    std::env::var("FORTIA_TEST_LOG").unwrap_or_else(|_| "error".into())
}

pub(crate) fn config(seed: u64) -> Config {
    Config {
        generation: 1,
        world: WorldConfig {
            name: "test".into(),
            seed,
            radius: RADIUS,
            limit: RADIUS,
            tick_period_ms: PERIOD_MS,
        },
        edit_strategy: EditStrategy::Queue,
        durability: Durability::Memory,
        game_address: "game.test:80".into(),
        logs: None,
        max_cutover_pause_ms: 1000,
        accepted_loss: None,
    }
}
