//! What the barrier costs: the scheduler as it is, over real streams, with tickers that answer at once, against bare
//! streams of the same messages in the same run. Whole tickers, 256 of them, would measure this machine instead.

mod bare;
mod stub;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fortia_common::boot::Service;
use fortia_common::records::{CONFIG, Config};
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::{Info, World};
use fortia_testredis::DataPlane;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use bare::Bare;
use stub::Stubs;

/// A region for each of 256 tickers.
const RADIUS: u32 = 64;
const ROUNDS: usize = 5;
const TICKERS: [usize; 5] = [1, 2, 4, 8, 256];
/// How long each side is measured in each round.
const MEASURED: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime of its own, as each server has: nothing is handed over without the kernel.
fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().expect("a runtime")
}

/// The leading scheduler.
struct Scheduler {
    control: ControlDb,
    admin: SocketAddr,
    _plane: DataPlane,
}

impl Scheduler {
    /// Starts it on `runtime`, over a world that is said to be complete: nobody looks at its chunks here.
    async fn start(runtime: &Runtime) -> Scheduler {
        let plane = DataPlane::start(1).await;
        let json: String = plane.control_db.run(&["GET", CONFIG]).await;
        let mut config: Config = serde_json::from_str(&json).expect("a configuration");
        (config.world.radius, config.world.tick_period_ms) = (RADIUS, 1);
        plane.set_config(&config).await;
        let (_, topology) = watch::channel(plane.topology().await);
        let info = Info { seed: 1, radius: RADIUS, limit: RADIUS, created_ms: 0, tick_period_ms: 1 };
        World::connect(&plane.boot(Service::Worldgen), topology)
            .write_info(&info)
            .await
            .expect("info written");
        let mut boot = plane.boot(Service::Scheduler);
        boot.admin = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        boot.log = "error".into();
        let admin = boot.admin;
        runtime.spawn(async move {
            let log = fortia_log::init(&boot);
            fortia_scheduler::run(boot, &log).await.expect("scheduler runs");
        });
        let control = ControlDb::connect(&plane.boot_as(Service::Game, "bench"));
        Scheduler { control, admin, _plane: plane }
    }

    async fn address(&self) -> String {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.control.leader().await.expect("control database") {
                return leader;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port");
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        text
    }

    /// Stages ended and the seconds they took, of those in which a ticker has nothing else to do than to answer.
    fn stages(&self) -> (f64, f64) {
        let text = self.metrics();
        let sum = |part: &str| -> f64 {
            let stages =
                ["edit", "move"].map(|s| format!("fortia_scheduler_stage_seconds_{part}{{stage=\"{s}\"}} "));
            let values =
                text.lines().filter_map(|line| stages.iter().find_map(|name| line.strip_prefix(name)));
            values.filter_map(|value| value.parse::<f64>().ok()).sum()
        };
        (sum("count"), sum("sum"))
    }

    /// Tickers that own regions.
    fn owners(&self) -> usize {
        let text = self.metrics();
        let lines = text.lines().filter(|line| line.starts_with("fortia_scheduler_regions{"));
        lines.filter(|line| !line.ends_with(" 0")).count()
    }

    /// The mean time of an empty stage with `tickers` tickers, in µs.
    async fn stage(&self, tickers: usize) -> f64 {
        let stubs = Stubs::connect(&self.address().await, tickers).await;
        let begun = Instant::now();
        while self.owners() != tickers {
            assert!(begun.elapsed() < PATIENCE, "{} of {tickers} own regions", self.owners());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (before, after) = {
            let before = self.stages();
            tokio::time::sleep(MEASURED).await;
            (before, self.stages())
        };
        stubs.leave().await;
        while self.owners() > 0 {
            assert!(begun.elapsed() < PATIENCE, "tickers stay");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(after.0 > before.0 + 10.0, "{tickers} tickers: no stages");
        (after.1 - before.1) / (after.0 - before.0) * 1e6
    }
}

/// Least, median and most.
fn spread(values: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// What was measured one after the other, in µs.
struct Round {
    call: f64,
    r: f64,
    p: f64,
    stages: Vec<f64>,
}

/// `call`: one bare call and its answer, a PING. `r`: one round trip on one bare stream that is open already. `p`: a message's share of the time of 256 bare streams that wait for nobody.
#[test]
#[ignore = "a bench"]
fn bench_barrier() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let (servers, tickers) = (runtime("scheduler"), runtime("ticker"));
    tickers.block_on(async {
        let scheduler = Scheduler::start(&servers).await;
        let bare = Bare::start(&servers).await;
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let r = bare.round_trip(1, MEASURED).await;
            let call = bare.call(MEASURED).await;
            let p = bare.round_trip(256, MEASURED).await / 256.0 / 2.0;
            let mut stages = Vec::new();
            for tickers in TICKERS {
                stages.push(scheduler.stage(tickers).await);
            }
            println!("round {round}: call {call:.0} us, r {r:.0} us, p {p:.1} us, stages of 1 2 4 8 256 tickers {stages:.0?} us");
            // The first one warms up.
            if round > 0 {
                rounds.push(Round { call, r, p, stages });
            }
        }
        for (i, tickers) in TICKERS.into_iter().enumerate() {
            let (least, median, most) = spread(rounds.iter().map(|round| round.stages[i] / round.r));
            println!("figure barrier.{tickers}.by_r {median:.2} x r ({least:.2}-{most:.2}; r: a round trip on an open stream)");
            let by_model = |round: &Round| round.stages[i] / (round.r + 2.0 * tickers as f64 * round.p);
            let (least, median, most) = spread(rounds.iter().map(by_model));
            println!("figure barrier.{tickers}.by_model {median:.2} x (r+2Np) ({least:.2}-{most:.2})");
        }
        let small = |round: &Round| round.stages[..4].iter().copied().fold(0.0, f64::max) / round.call;
        let (least, median, most) = spread(rounds.iter().map(small));
        println!("figure barrier.small {median:.2} calls ({least:.2}-{most:.2}; the worst of 1, 2, 4, 8 tickers by one call)");
        let large = |round: &Round| round.stages[4] / (round.r + 512.0 * round.p);
        let (least, median, most) = spread(rounds.iter().map(large));
        println!("figure barrier.large {median:.2} x (r+2Np) ({least:.2}-{most:.2}; N = 256)");
    });
}
