//! A world on real shards with a scheduler and tickers in processes of their own: this program started once more.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_common::boot::{Boot, Service, var};
use fortia_common::records::{Config, Durability, EditStrategy, WorldConfig};
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::{Changes, Info, World};
use fortia_testredis::DataPlane;
use fortia_vec::{ChunkPos, LocalPos};
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Kind};
use fortia_world::generate::Generator;
use tokio::sync::watch;

use crate::load::Shape;

/// Says to this program which server it is, and under which load.
const SERVICE: &str = "FORTIA_BENCH_SERVICE";
const SHAPE: &str = "FORTIA_BENCH_SHAPE";
/// Shards of every measured world.
pub(crate) const SHARDS: u32 = 2;
/// Different chunks in a world; others have the blocks of one of them.
const DIFFERENT: i32 = 8;
/// Chunks written in one go.
const BATCH: usize = 1024;
/// Longest wait for the first tick, and for any.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    pub(crate) plane: DataPlane,
    pub(crate) control: ControlDb,
    processes: Vec<Child>,
    generation: u64,
    shape: Shape,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The chunks of a measured world, as stored.
pub(crate) fn chunks(radius: u32) -> impl Iterator<Item = (ChunkPos, Bytes)> {
    let generator = Generator::new(42);
    let kinds: Vec<Vec<_>> = (0..DIFFERENT * DIFFERENT)
        .map(|i| generator.column(ChunkPos::new(i % DIFFERENT, i / DIFFERENT)).blocks().collect())
        .collect();
    ChunkPos::within(radius).map(move |at| {
        let kind = at.x.rem_euclid(DIFFERENT) + at.y.rem_euclid(DIFFERENT) * DIFFERENT;
        let column = Column::from_blocks(at, &kinds[kind as usize]).expect("as many blocks as a column has");
        (at, column.encode().into())
    })
}

impl Cluster {
    /// A world of this shape, that so many tickers tick; returns after the first tick.
    pub(crate) async fn start(shape: Shape, tickers: u32, strategy: EditStrategy) -> Cluster {
        let plane = DataPlane::start(SHARDS).await;
        let control = ControlDb::connect(&plane.boot_as(Service::Game, "bench"));
        let mut cluster = Cluster { plane, control, processes: Vec::new(), generation: 0, shape };
        // Tickers load the whole world in the first tick.
        cluster.configure(strategy, Durability::Memory, 3000).await;
        cluster.write_world().await;
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        cluster.spawn(Service::Scheduler, "scheduler-0", &port.to_string());
        for i in 0..tickers {
            cluster.spawn(Service::Ticker, &format!("ticker-{i}"), "127.0.0.1:0");
        }
        cluster.wait_for(1).await;
        cluster.switch(strategy, Durability::Memory).await;
        cluster
    }

    async fn write_world(&self) {
        let (_sender, topology) = watch::channel(self.plane.topology().await);
        let world = World::connect(&self.plane.boot(Service::Worldgen), topology);
        let radius = self.shape.radius;
        let made = tokio::task::spawn_blocking(move || chunks(radius).collect::<Vec<(ChunkPos, Bytes)>>());
        let all = made.await.expect("chunks are made");
        for batch in all.chunks(BATCH) {
            world.write_chunks(batch).await.expect("writes");
        }
        self.settle(&world, &all).await;
        let info = Info {
            seed: 42,
            radius: self.shape.radius,
            limit: self.shape.radius,
            created_ms: 0,
            tick_period_ms: 1,
        };
        world.write_info(&info).await.expect("writes");
    }

    /// Somebody lives in every region, so that every ticker sees what its neighbours do, as it must where units edit.
    async fn settle(&self, world: &World, all: &[(ChunkPos, Bytes)]) {
        let mut regions = BTreeSet::new();
        let mut settled = Changes::default();
        for (at, bytes) in all.iter().filter(|(at, _)| regions.insert(at.region())) {
            let (id, mut column) =
                (settled.entities.len() as u64 + 1, Column::decode(bytes).expect("a column"));
            let (z, _) = column.surface(0, 0).expect("ground");
            let home = at.block(LocalPos { x: 0, y: 0, z: z + 1 });
            column.set_entity(id, true);
            settled.chunks.push((*at, column.encode().into()));
            settled.entities.push((id, Entity::new(Kind::Handyman, id, "ann", home, home).encode().into()));
            settled.born.push(("ann".into(), id));
        }
        world.commit_tick(0, 0, &settled, 0).await.expect("writes");
    }

    async fn configure(&mut self, strategy: EditStrategy, durability: Durability, period_ms: u64) {
        self.generation += 1;
        let world = WorldConfig {
            name: "bench".into(),
            seed: 42,
            radius: self.shape.radius,
            limit: self.shape.radius,
            tick_period_ms: period_ms,
        };
        let config = Config {
            generation: self.generation,
            world,
            edit_strategy: strategy,
            durability,
            game_address: "game.test:80".into(),
            logs: None,
            max_cutover_pause_ms: 1000,
            accepted_loss: None,
        };
        self.plane.set_config(&config).await;
    }

    /// Goes on with another strategy, as fast as ticks can be.
    pub(crate) async fn switch(&mut self, strategy: EditStrategy, durability: Durability) {
        self.configure(strategy, durability, 1).await;
        self.reload().await;
        let committed = self.control.committed().await.expect("answers").unwrap_or(0);
        self.wait_for(committed + 2).await;
    }

    /// Ticks as slowly as lets others be measured, and is not long in going on.
    pub(crate) async fn rest(&mut self) {
        self.configure(EditStrategy::Queue, Durability::Memory, 200).await;
        self.reload().await;
    }

    async fn reload(&self) {
        let command = format!(r#"{{"id":"b{}","action":{{"do":"reload"}}}}"#, self.generation);
        self.plane.control_db.run::<String>(&["XADD", "fortia:commands", "*", "json", &command]).await;
    }

    fn spawn(&mut self, service: Service, instance: &str, listen: &str) {
        let boot = self.plane.boot_as(service, instance);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "server_process", "--ignored", "--nocapture", "--test-threads", "1"]);
        let Shape { radius, active, edits, zipf } = self.shape;
        command.env(SERVICE, service.as_str()).env(SHAPE, format!("{radius} {active} {edits} {zipf}"));
        command.env(var::INSTANCE, instance).env(var::CLUSTER, boot.cluster);
        command.env(var::CONTROL_DB, boot.control_db).env(var::LISTEN, listen);
        command.env(var::ADMIN, "127.0.0.1:0").env(var::ADVERTISE, listen);
        let log = std::env::var("FORTIA_TEST_LOG").ok();
        command.env(var::LOG, log.as_deref().unwrap_or("error"));
        command.stdin(Stdio::null());
        if log.is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        self.processes.push(command.spawn().expect("this program starts"));
    }

    async fn wait_for(&self, tick: u64) {
        let begun = Instant::now();
        while self.control.committed().await.expect("answers").unwrap_or(0) < tick {
            assert!(begun.elapsed() < PATIENCE, "tick {tick} does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// When ticks are committed, for so long and at least three of them: seconds since the first.
    pub(crate) async fn commits(&self, time: Duration, least: usize) -> Vec<f64> {
        let mut last = self.control.committed().await.expect("answers").expect("a tick");
        let mut times: Vec<Instant> = Vec::new();
        loop {
            let ticks = self.control.ticks(last, Duration::from_secs(1)).await.expect("ticks");
            let now = Instant::now();
            for tick in ticks {
                assert_eq!(tick.tick, last + 1, "the measure is too slow");
                last = tick.tick;
                times.push(now);
            }
            if let Some(first) = times.first()
                && (now - *first >= time && times.len() > least)
            {
                return times.iter().map(|time| (*time - *first).as_secs_f64()).collect();
            }
            assert!(times.first().is_none_or(|first| first.elapsed() < PATIENCE), "ticks do not come");
        }
    }
}

/// What this program does when it was started as a server.
pub(crate) async fn serve() {
    let Ok(service) = std::env::var(SERVICE) else { return };
    let shape = std::env::var(SHAPE).expect("a shape");
    let mut numbers = shape.split(' ').map(|number| number.parse::<f64>().expect("a number"));
    let mut next = || numbers.next().expect("four numbers");
    let (radius, active, edits) = (next() as u32, next() as u32, next() as u32);
    let shape = Shape { radius, active, edits, zipf: next() };
    if service == Service::Scheduler.as_str() {
        let boot = Boot::from_env(Service::Scheduler).expect("boots");
        let log = fortia_log::init(&boot);
        fortia_scheduler::run(boot, &log).await.expect("runs");
    } else {
        let boot = Boot::from_env(Service::Ticker).expect("boots");
        let log = fortia_log::init(&boot);
        fortia_ticker::run_under(boot, &log, Some(shape.traffic())).await.expect("runs");
    }
}
