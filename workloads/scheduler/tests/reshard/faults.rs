//! Whoever dies or stands still, at whatever point of a re-sharding: it gets on by itself, and no acknowledged write is
//! lost. Knows which faults there are and where they happen.
#![allow(clippy::print_stdout, reason = "figures")]

use std::time::{Duration, Instant};

use fortia_common::control::Control;
use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::keyspace::shard_of;
use tokio::time::timeout;

use crate::process::Armed;
use crate::scene::{PATIENCE, Scene, Wanted};
use crate::tail::cut;
use crate::{from_env, is_quick};

/// Where the pods stand when it happens.
const OF_PODS: [&str; 14] = [
    "pod.started",
    "copying.attempted",
    "copying.page_read",
    "copying.batch_carried",
    "copying.checkpointed",
    "copying.done",
    "catching_up.read",
    "catching_up.carried",
    "catching_up.cleaned",
    "verifying.forward",
    "verifying.backward",
    "verifying.mended",
    "verifying.proven",
    "collecting.batch",
];
/// Where the scheduler stands.
const OF_SCHEDULER: [&str; 7] = [
    "noting.done",
    "cutover.lag",
    "cutover.frozen",
    "cutover.drained",
    "cutover.turned",
    "cutover.flipped",
    "cutover.retreated",
];

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillPod,
    TwoPods,
    PausePod,
    KillSource,
    KillTarget,
    CutSource,
    CutTarget,
    StopServer,
    KillScheduler,
    KillTicker,
    StopControl,
    StopOperator,
}

impl Fault {
    const ALL: [Fault; 12] = [
        Fault::KillPod,
        Fault::KillSource,
        Fault::KillScheduler,
        Fault::TwoPods,
        Fault::CutSource,
        Fault::KillTarget,
        Fault::CutTarget,
        Fault::PausePod,
        Fault::KillTicker,
        Fault::StopServer,
        Fault::StopControl,
        Fault::StopOperator,
    ];
}

/// The point that is passed only when something differs, and where a pod stands before it looks.
const MENDS: &str = "verifying.mended";
const BEFORE_PROOF: &str = "verifying.forward";
/// A point that makes a copy slow.
const SLOWLY: &str = "copying.batch_carried";

/// How long things stand still.
#[derive(Clone, Copy)]
struct Times {
    pod: Duration,
    server: Duration,
}

fn wanted() -> Wanted<'static> {
    Wanted {
        shards: 2,
        options: &["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"],
        period_ms: 100,
        writers: 4,
        every: Duration::from_millis(5),
        readers: 0,
        read_latency: None,
        // Long enough for a server to come back within it.
        max_pause: Duration::from_millis(1500),
    }
}

/// A world whose servers can lose power, with some keys beside its own, all on disk.
async fn world() -> Scene {
    let mut scene = Scene::start(&wanted()).await;
    some_keys(&scene).await;
    scene.plane.add_shard().await;
    scene.follow_journals();
    scene
}

/// Puts some hundred keys of every type beside the world's.
async fn some_keys(scene: &Scene) {
    let serving = scene.plane.topology().await.serving;
    for n in 0..400 {
        let text = format!("y{}:{n}", n % 3);
        let key = format!("v{}:{text}", serving.version);
        let shard = &scene.plane.shards[shard_of(text.as_bytes(), &serving) as usize];
        let command: &[&str] = match n % 3 {
            0 => &["SET", &key, "value"],
            1 => &["HSET", &key, "a", "1", "b", "2"],
            _ => &["RPUSH", &key, "x", "y"],
        };
        shard.run::<redis::Value>(command).await;
    }
}

/// Texts of the keys of [`some_keys`] that a version does not have.
async fn missing(scene: &Scene, serving: &Layout) -> Vec<String> {
    let mut missing = Vec::new();
    for n in 0..400 {
        let text = format!("y{}:{n}", n % 3);
        let shard = &scene.plane.shards[shard_of(text.as_bytes(), serving) as usize];
        if shard.run::<u64>(&["EXISTS", &format!("v{}:{text}", serving.version)]).await == 0 {
            missing.push(text);
        }
    }
    missing
}

/// Arms the point in who is to come by, the source's pod or the scheduler; returns what stands in for it here.
async fn arm(scene: &mut Scene, point: &'static str, source: u32) -> Failpoints {
    let failpoints = Failpoints::default();
    if OF_SCHEDULER.contains(&point) {
        failpoints.arm(point, Action::Stop).expect("a point");
        if point == "cutover.retreated" {
            // There is nothing to retreat from but a try that fails.
            failpoints.arm_at("cutover.drained", Action::Fail, 1).expect("a point");
        }
        scene.replace_scheduler(failpoints.clone()).await;
        return failpoints;
    }
    let mut points = vec![(point, "stop")];
    if point == "copying.checkpointed" {
        // A checkpoint is written every second: the copy has to last so long.
        points.push((SLOWLY, "pause:1200"));
    }
    if point == MENDS {
        points.push((BEFORE_PROOF, "stop"));
    }
    scene.hand.pods.arm(source, Armed::new(&points, &failpoints));
    failpoints
}

/// One re-sharding with one fault. Returns what was lost, and whether the point was reached.
async fn faulted(
    scene: &mut Scene,
    point: &'static str,
    fault: Fault,
    times: Times,
    n: u64,
) -> (Vec<String>, bool) {
    let serving = scene.plane.topology().await.serving;
    let shards = if serving.shards == 2 { 3 } else { 2 };
    // Every other re-sharding goes back: each direction has its turn with each source.
    let source = (n / 2 % u64::from(serving.shards)) as u32;
    let collects = point == "collecting.batch";
    let (target, failpoints);
    if collects {
        target = scene.reshard(shards).await;
        scene.flipped(target.version).await;
        failpoints = arm(scene, point, source).await;
        scene.collect().await;
    } else {
        failpoints = arm(scene, point, source).await;
        target = scene.reshard(shards).await;
    }
    let reached = reach(scene, &failpoints, point, target, source).await;
    let mut lost = happen(scene, fault, source, target, times, n).await;
    failpoints.disarm(point);
    failpoints.disarm(SLOWLY);
    failpoints.disarm(BEFORE_PROOF);
    if !collects {
        scene.flipped(target.version).await;
        lost.extend(scene.players.lost().await);
        lost.extend(missing(scene, &target).await);
        scene.collect().await;
    }
    scene.collected().await;
    scene.ticks(1).await;
    lost.extend(scene.players.lost().await);
    lost.extend(missing(scene, &target).await);
    (lost, reached)
}

/// Waits for somebody to stand at the point. Some are passed only when there is something to mend or to drain.
async fn reach(scene: &Scene, failpoints: &Failpoints, point: &str, target: Layout, source: u32) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if timeout(Duration::from_millis(10), failpoints.reached(point)).await.is_ok() {
            return true;
        }
        if point == MENDS
            && timeout(Duration::from_millis(10), failpoints.reached(BEFORE_PROOF)).await.is_ok()
        {
            damage(scene, target, source).await;
            failpoints.disarm(BEFORE_PROOF);
        }
        let topology = scene.control.topology().await.ok().flatten();
        let is_over = |topology: Topology| match topology.phase {
            Some(Phase::Collecting) => false,
            _ => topology.serving == target,
        };
        if topology.is_some_and(is_over) {
            // The flip is told before the point behind it is passed.
            return timeout(Duration::from_millis(50), failpoints.reached(point)).await.is_ok();
        }
    }
    false
}

/// Damage that the proof has to find, in keys of this source. Made while the pod stands before its proof: what somebody
/// removes from a target after that, no proof can know.
async fn damage(scene: &Scene, target: Layout, source: u32) {
    let serving = scene.plane.topology().await.serving;
    for n in 0..40 {
        let text = format!("y{}:{n}", n % 3);
        if shard_of(text.as_bytes(), &serving) == source {
            let shard = &scene.plane.shards[shard_of(text.as_bytes(), &target) as usize];
            shard.run::<u64>(&["DEL", &format!("v{}:{text}", target.version)]).await;
        }
    }
}

/// Which server it happens to.
fn hit(fault: Fault, source: u32, target: Layout, n: u64) -> usize {
    match fault {
        Fault::KillTarget => (n / 2 % u64::from(target.shards)) as usize,
        // The one that is nothing but a target, where there is one.
        Fault::CutTarget if target.shards == 3 => 2,
        Fault::CutTarget => ((n / 2 + 1) % u64::from(target.shards)) as usize,
        _ => source as usize,
    }
}

/// Makes the fault; returns what a server lacks after it that it must not.
async fn happen(
    scene: &mut Scene,
    fault: Fault,
    source: u32,
    target: Layout,
    times: Times,
    n: u64,
) -> Vec<String> {
    let hit = hit(fault, source, target, n);
    match fault {
        Fault::CutSource | Fault::CutTarget => return cut(scene, hit, n).await,
        Fault::KillPod => scene.hand.pods.kill(source),
        Fault::TwoPods => {
            // The older stands still meanwhile with all it holds, and then goes on beside the newer.
            scene.hand.pods.stop(source, true);
            scene.hand.pods.double(&scene.hand.boot, source);
            tokio::time::sleep(times.server / 2).await;
            scene.hand.pods.stop(source, false);
        }
        Fault::PausePod => {
            scene.hand.pods.stop(source, true);
            tokio::time::sleep(times.pod).await;
            scene.hand.pods.stop(source, false);
        }
        Fault::KillSource | Fault::KillTarget => {
            scene.plane.shards[hit].kill();
            tokio::time::sleep(times.server / 4).await;
            scene.plane.shards[hit].restart();
        }
        Fault::StopServer => {
            scene.plane.shards[hit].stop();
            tokio::time::sleep(times.server).await;
            scene.plane.shards[hit].cont();
        }
        Fault::KillScheduler => scene.replace_scheduler(Failpoints::default()).await,
        Fault::KillTicker => {
            scene.kill("ticker-0");
            scene.spawn("ticker-0", Failpoints::default());
        }
        Fault::StopControl => {
            scene.plane.control_db.stop();
            tokio::time::sleep(times.server).await;
            scene.plane.control_db.cont();
        }
        Fault::StopOperator => {
            scene.hand.stop(true);
            tokio::time::sleep(times.server).await;
            scene.hand.stop(false);
        }
    }
    Vec::new()
}

/// Makes faults, each point with one fault after the other; returns how many, how many acknowledged writes were lost and
/// at how many points nobody came by.
async fn faults(
    scene: &mut Scene,
    range: std::ops::Range<u64>,
    times: Times,
    until: Instant,
) -> (u64, u64, u64) {
    let points: Vec<&'static str> = OF_PODS.iter().chain(&OF_SCHEDULER).copied().collect();
    // Those that are asked for, or all.
    let named = std::env::var("FORTIA_TEST_FAULT").unwrap_or_default();
    let is_asked = |fault: &Fault| named.is_empty() || named.contains(&format!("{fault:?}"));
    let kinds: Vec<Fault> = Fault::ALL.into_iter().filter(is_asked).collect();
    let (mut made, mut all_lost, mut unreached) = (0, 0, 0);
    for n in range {
        if Instant::now() > until {
            break;
        }
        let point = points[n as usize % points.len()];
        let fault = kinds[(n as usize + n as usize / points.len()) % kinds.len()];
        let begun = Instant::now();
        let (lost, reached) = faulted(scene, point, fault, times, n).await;
        println!(
            "{n}: {fault:?} at {point}{}: {:?}, {} lost",
            if reached { "" } else { " (not reached)" },
            begun.elapsed(),
            lost.len()
        );
        assert!(lost.is_empty(), "{fault:?} at {point}: {lost:?}");
        made += 1;
        all_lost += lost.len() as u64;
        unreached += u64::from(!reached);
    }
    (made, all_lost, unreached)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_whatever_point_a_re_sharding_gets_on_and_no_acknowledged_write_is_lost() {
    let times = Times { pod: Duration::from_secs(2), server: Duration::from_millis(800) };
    let mut scene = world().await;
    let until = Instant::now() + Duration::from_secs(45);
    let (made, lost, unreached) = faults(&mut scene, 0..24, times, until).await;
    println!("{made} faults, {lost} writes lost, {unreached} points not reached");
    assert!(made >= 5, "only {made} faults within 45 s");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_faults() {
    let count = from_env("FORTIA_BENCH_FAULTS", if is_quick() { 40 } else { 1000 });
    let seconds = from_env("FORTIA_BENCH_S", if is_quick() { 120 } else { 7200 });
    let pod = if is_quick() { PATIENCE / 20 } else { PATIENCE };
    let times = Times { pod, server: Duration::from_secs(3) };
    let until = Instant::now() + Duration::from_secs(seconds);
    println!();
    let (mut made, mut lost, mut unreached) = (0, 0, 0);
    while made < count && Instant::now() < until {
        // A new world now and then, so that no fault lives on what an earlier one left.
        let mut scene = world().await;
        let end = (made + 50).min(count);
        let (some, gone, not) = faults(&mut scene, made..end, times, until).await;
        (made, lost, unreached) = (made + some, lost + gone, unreached + not);
        scene.end().await;
    }
    println!("figure reshard.faulted {made} migrations ({unreached} whose point was not reached)");
    println!("figure reshard.lost {lost} writes");
    assert_eq!(made, count, "time is over");
}
