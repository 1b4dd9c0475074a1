//! Re-shardings of a world that is played: ticks go on, nobody's write is lost, no read fails, and writes stand still
//! only for the cut-over.
#![allow(clippy::print_stdout, reason = "figures")]

use std::time::Duration;

use fortia_common::topology::Phase;
use fortia_testredis::TestServer;

use crate::scene::{Scene, Wanted};
use crate::{from_env, is_quick};

/// Bytes of each key that is there besides the world.
const SIZE: usize = 1000;

/// What one re-sharding was like for the players.
#[derive(Debug)]
struct Seen {
    gap: Duration,
    pause: Duration,
    failed_reads: u64,
    /// 99 of 100 reads took no longer.
    p99: Duration,
    ticks: u64,
    lost: Vec<String>,
}

fn wanted(shards: u32) -> Wanted<'static> {
    Wanted {
        shards,
        options: &[],
        period_ms: 200,
        writers: 10,
        // Each write changes two keys: 5,000 keys a second.
        every: Duration::from_millis(4),
        readers: 4,
        read_latency: Some(Duration::from_millis(2)),
        max_pause: Duration::from_secs(1),
    }
}

/// Puts keys beside the world's, so that there is something to carry.
async fn ballast(shards: &[TestServer], version: u64, keys: u64) {
    let serving = fortia_common::topology::Layout {
        version,
        shards: shards.len() as u32,
        placement: fortia_common::topology::Placement::Modulo,
    };
    let mut names = vec![Vec::new(); shards.len()];
    for n in 0..keys {
        let text = format!("x:{n}");
        names[fortia_rdb::keyspace::shard_of(text.as_bytes(), &serving) as usize].push(text);
    }
    for (shard, texts) in shards.iter().zip(names) {
        let mut connection = shard.connect().await;
        for part in texts.chunks(500) {
            let mut put = redis::cmd("MSET");
            for text in part {
                put.arg(format!("v{version}:{text}")).arg(text.repeat(SIZE / text.len()));
            }
            put.query_async::<()>(&mut connection).await.expect("the shard takes it");
        }
    }
}

/// Re-shards, and collects what was left.
async fn live(scene: &mut Scene, shards: u32) -> Seen {
    scene.players.reset();
    let first = scene.committed().await;
    let target = scene.reshard(shards).await;
    scene.flipped(target.version).await;
    let ticks = scene.committed().await - first;
    let record = scene.cutover().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (failed_reads, why) = scene.players.failed_reads();
    assert!(failed_reads == 0 || !why.is_empty());
    if failed_reads > 0 {
        println!("a read failed: {why}");
    }
    let (gap, (_, p99)) = (scene.players.gap(), scene.players.reads());
    let lost = scene.players.lost().await;
    scene.ticks(2).await;
    scene.collect().await;
    scene.collected().await;
    Seen { gap, pause: Duration::from_micros(record.pause_us), failed_reads, p99, ticks, lost }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_played_world_is_re_sharded_while_it_ticks_and_no_acknowledged_write_is_lost() {
    let mut scene = Scene::start(&wanted(2)).await;
    ballast(&scene.plane.shards, 1, 20_000).await;
    let seen = live(&mut scene, 3).await;
    println!("{seen:?}; {:?} writes", scene.players.writes());
    assert_eq!(seen.lost, Vec::<String>::new());
    assert_eq!(seen.failed_reads, 0);
    assert!(seen.ticks > 0, "no tick was committed while keys were carried");
    assert!(seen.pause < Duration::from_secs(1), "{seen:?}");
    assert_eq!(scene.players.writes().1, 0, "a write was answered with {}", scene.players.failed_reads().1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_the_flip_survives_a_rollback() {
    let mut scene = Scene::start(&wanted(2)).await;
    ballast(&scene.plane.shards, 1, 2_000).await;
    let target = scene.reshard(3).await;
    let flipped = scene.flipped(target.version).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let previous = flipped.previous.expect("the version before is kept");
    scene
        .hand
        .change(|t| (t.target, t.previous, t.phase) = (Some(previous), None, Some(Phase::Copying)))
        .await;
    let back = scene.flipped(previous.version).await;
    assert_eq!((back.phase, back.previous), (Some(Phase::Collecting), None));
    assert_eq!(scene.players.lost().await, Vec::<String>::new());
    scene.ticks(2).await;
    scene.until("end of collecting", |topology| topology.phase.is_none()).await;
    assert_eq!(scene.players.failed_reads().0, 0, "{}", scene.players.failed_reads().1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_re_sharding_called_off_leaves_the_old_version_and_can_be_begun_again() {
    let mut scene = Scene::start(&wanted(2)).await;
    ballast(&scene.plane.shards, 1, 5_000).await;
    let target = scene.reshard(3).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let called_off = scene.hand.change(|t| {
        if t.target.is_some() {
            (t.target, t.phase) = (None, Some(Phase::Aborting));
        }
    });
    called_off.await;
    let over = scene.until("end of aborting", |topology| topology.phase.is_none()).await;
    assert_eq!((over.serving.version, over.target), (target.version - 1, None));
    assert_eq!(scene.players.lost().await, Vec::<String>::new());
    let again = scene.reshard(3).await;
    scene.flipped(again.version).await;
    assert_eq!(scene.players.lost().await, Vec::<String>::new());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_live() {
    let (times, keys) = if is_quick() { (4, 50_000) } else { (from_env("FORTIA_BENCH_TIMES", 20), 300_000) };
    let mut scene = Scene::start(&wanted(2)).await;
    ballast(&scene.plane.shards, 1, keys).await;
    scene.players.reset();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ((reads, calm), (writes, _)) = (scene.players.reads(), scene.players.writes());
    println!();
    println!("without a migration: {} writes/s, {reads} reads, p99 {calm:?}", 2 * writes / 5);
    let mut all = Vec::new();
    for time in 0..times {
        let seen = live(&mut scene, if time % 2 == 0 { 3 } else { 2 }).await;
        println!("{time}: {seen:?}");
        all.push(seen);
    }
    scene.end().await;
    let mut gaps: Vec<f64> = all.iter().map(|seen| seen.gap.as_secs_f64() * 1000.0).collect();
    gaps.sort_by(f64::total_cmp);
    let mut pauses: Vec<f64> = all.iter().map(|seen| seen.pause.as_secs_f64() * 1000.0).collect();
    pauses.sort_by(f64::total_cmp);
    let mut p99s: Vec<Duration> = all.iter().map(|seen| seen.p99).collect();
    p99s.sort_unstable();
    let ratio = p99s[p99s.len() / 2].as_secs_f64() / calm.as_secs_f64();
    println!(
        "figure reshard.pause_p99_ms {:.1} ms (longest gap of a writer in {times} re-shardings; middle {:.1}; the \
         scheduler's own word: most {:.1}, middle {:.1})",
        gaps[(gaps.len() * 99).div_ceil(100) - 1],
        gaps[gaps.len() / 2],
        pauses[pauses.len() - 1],
        pauses[pauses.len() / 2]
    );
    println!("figure reshard.failed_reads {} reads", all.iter().map(|seen| seen.failed_reads).sum::<u64>());
    println!("figure reshard.reader_p99_ratio {ratio:.2} x (calm: {calm:?})");
    let lost: Vec<&String> = all.iter().flat_map(|seen| &seen.lost).collect();
    println!("figure reshard.live_lost {} writes", lost.len());
    assert!(lost.is_empty(), "{lost:?}");
}
