//! Whatever is killed, paused or doubled in whatever stage: ticks are committed one by one, each with the bytes of the
//! reference world, and no reader ever sees half of one. Real server processes on real Redis servers.

mod play;
mod process;
mod progress;
mod reader;
mod reference;
mod relay;
mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fortia_common::records::EditStrategy;
use fortia_proto::tick::v1::Stage;
use fortia_vec::ChunkPos;

use progress::Progress;
use relay::When;
use scene::{Fault, Scene};

/// Chunks from -RADIUS to RADIUS: four regions that meet in the middle.
const RADIUS: u32 = 4;
const PERIOD_MS: u64 = 20;
/// Faults per stage that every test run makes.
const FAULTS: usize = 20;
const STAGES: [Stage; 4] = [Stage::Observe, Stage::Edit, Stage::Move, Stage::Commit];

/// Not a test: what a process of these tests is started as.
#[test]
#[ignore = "a server process of the other tests"]
fn server_process() {
    process::serve();
}

/// Reads parts of the world as fast as it can until stopped, and compares each with the reference.
struct Watcher {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    fn start(scene: &Scene) -> Watcher {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (reader, stopped, counted) = (scene.reader(), Arc::clone(&stop), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            // The four chunks at the corner of the regions, where most happens, then a wider square, then all.
            let squares: Vec<Vec<ChunkPos>> =
                [1, 2, RADIUS].into_iter().map(|radius| ChunkPos::within(radius).collect()).collect();
            for at in squares.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let snapshot = reader.read(at).await;
                reader.compare(&snapshot).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Watcher { stop, seen, task }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every snapshot is the reference world of its tick");
        self.seen.load(Ordering::Relaxed)
    }
}

/// When in its stage fault number `n` happens: before, after, or some time into it.
fn when(n: usize) -> When {
    match n % 4 {
        0 => When::Before,
        1 => When::After,
        _ => When::During(Duration::from_micros(200 * (n as u64 % 16))),
    }
}

/// Makes faults until every stage has `wanted`, or the time is over.
async fn run_faults(scene: &mut Scene, progress: &mut Progress, wanted: usize, until: Instant) {
    while let Some((stage, n)) = progress.next(wanted) {
        if Instant::now() > until {
            return;
        }
        let (fault, nth) = (Fault::ALL[n % Fault::ALL.len()], n / Fault::ALL.len());
        let tick = scene.fault(fault, STAGES[stage], when(nth), n % scene::TICKERS.len()).await;
        assert!(scene.compare().await > tick);
        progress.equal(stage);
    }
}

/// The strategy of tests that do not try both: `FORTIA_TEST_STRATEGY=Lock`, or Queue.
fn strategy() -> EditStrategy {
    match std::env::var("FORTIA_TEST_STRATEGY") {
        Ok(strategy) if strategy == "Lock" => EditStrategy::Lock,
        _ => EditStrategy::Queue,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_snapshot_and_every_tick_is_that_of_the_reference_world_whatever_dies_in_whatever_stage() {
    println!("{}", whatever_dies(EditStrategy::Queue).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_lock_too_every_snapshot_and_every_tick_is_that_of_the_reference_world_whatever_dies() {
    println!("{}", whatever_dies(EditStrategy::Lock).await);
}

/// Returns what was seen.
async fn whatever_dies(strategy: EditStrategy) -> String {
    let mut scene = Scene::start(RADIUS, PERIOD_MS, strategy).await;
    let watcher = Watcher::start(&scene);
    let mut progress = Progress::default();
    run_faults(&mut scene, &mut progress, FAULTS, Instant::now() + Duration::from_secs(120)).await;
    let seen = watcher.end().await;
    let refused = scene.refused().await;
    let said = format!("{progress}; {seen} snapshots, {} ticks, {refused} late calls refused", scene.tick());
    assert!(progress.next(FAULTS).is_none(), "too slow: {progress}");
    assert!(seen > 100, "only {seen} snapshots were read");
    assert!(refused > 0, "tickers that were paused in a stage go on with it, and are refused");
    scene.end().await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_told_to_end_hands_over_at_once() {
    let mut scene = Scene::start(RADIUS, PERIOD_MS, strategy()).await;
    let took = scene.hand_over().await;
    scene.compare().await;
    scene.end().await;
    // A lease that is not given up is renewed every 0.4 s and lasts for 1.5 s.
    assert!(took < Duration::from_millis(1100), "{took:?}");
}

/// Faults of each stage that one world sees: units die, and land is mined away.
const PER_WORLD: usize = 50;

/// One world for some more faults of each stage: faults that were equal, snapshots seen, late calls refused.
async fn more_faults(first: usize, until: Instant) -> (Progress, u64, u64) {
    let mut scene = Scene::start(RADIUS, PERIOD_MS, strategy()).await;
    let watcher = Watcher::start(&scene);
    let mut progress = Progress::from(first);
    run_faults(&mut scene, &mut progress, first + PER_WORLD, until).await;
    let seen = watcher.end().await;
    let refused = scene.refused().await;
    scene.compare().await;
    scene.end().await;
    (progress.since(first), seen, refused)
}

/// How many faults of each stage, and for how long at most; a run that was cut short is gone on with by the next. Some
/// worlds run at once, since most of the time a standby waits for the end of a lease.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_tick_faults() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let wanted = from_env("FORTIA_BENCH_FAULTS", 1000) as usize;
    let worlds = from_env("FORTIA_BENCH_WORLDS", 4) as usize;
    let until = Instant::now() + Duration::from_secs(from_env("FORTIA_BENCH_S", 1500));
    let mut progress = Progress::load();
    let (mut seen, mut refused) = (0, 0);
    while progress.next(wanted).is_some() && Instant::now() < until {
        let first = progress.least();
        let worlds = worlds.min((wanted - first).div_ceil(PER_WORLD));
        let runs = (0..worlds).map(|world| tokio::spawn(more_faults(first + world * PER_WORLD, until)));
        for run in futures::future::join_all(runs).await {
            let (equal, snapshots, late) =
                run.expect("every tick and every snapshot is that of the reference");
            progress.add(&equal);
            seen += snapshots;
            refused += late;
        }
        progress.save();
        println!("{progress}; {seen} snapshots, {refused} late calls refused");
    }
    for (stage, equal) in STAGES.iter().zip(progress.counts()) {
        let stage = stage.as_str_name().trim_start_matches("STAGE_").to_lowercase();
        println!("figure tick.faulted_equal.{stage} {equal} of {equal} ({wanted} wanted)");
    }
    let all: usize = progress.counts().iter().sum();
    println!("figure tick.faulted_equal {all} of {all} ({} wanted)", 4 * wanted);
    println!("figure tick.snapshots_equal {seen} of {seen}");
    assert!(progress.next(wanted).is_none(), "time is over: run it again to go on from here");
}

/// From SIGKILL of the leader to the next committed tick; the lease ends by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_takeover() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let kills = from_env("FORTIA_BENCH_KILLS", 12);
    let mut scene = Scene::start(8, 1000, strategy()).await;
    let mut took = Vec::new();
    for kill in 0..kills {
        // Not always at the same time after a tick or a renewal.
        tokio::time::sleep(Duration::from_millis(2000 + 137 * kill)).await;
        let killed = scene.kill_leader(false).await;
        let last = scene.control.committed().await.expect("control database").unwrap_or(0);
        scene.after_tick(last + 1).await;
        took.push(killed.elapsed().as_secs_f64());
        println!("takeover {:.2} s", killed.elapsed().as_secs_f64());
    }
    scene.compare().await;
    scene.end().await;
    took.sort_by(f64::total_cmp);
    let (least, median, most) = (took[0], took[took.len() / 2], took[took.len() - 1]);
    println!(
        "figure scheduler.takeover_s {most:.2} s (most of {kills} kills; least {least:.2}, median {median:.2})"
    );
    assert!(most <= 3.0, "a standby takes over in 3 s");
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
