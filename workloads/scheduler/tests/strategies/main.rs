//! How fast a tick edits the world, under `Queue` and under `Lock`, with real shards and real processes, beside what the
//! same machine does without coordination and with optimistic transactions. `FORTIA_BENCH=quick` measures a little;
//! `WRITE=1` writes docs/edit-strategies.md's tables and plots.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod cluster;
mod load;
mod report;
mod rivals;

use std::time::Duration;

use cluster::Cluster;
use fortia_common::records::{Durability, EditStrategy};
use fortia_testredis::TestServer;
use load::Shape;
use report::{Measured, Spread};
use rivals::Keeps;

/// The world most points are about.
const BASE: Shape = Shape { radius: 32, active: 32, edits: 16, zipf: 0.0 };
const TICKERS: u32 = 2;
/// Clients tried for the optimistic transactions.
const CLIENTS: [u32; 3] = [2, 8, 32];
/// Windows measured of each of the worlds with and without idle chunks.
const IDLE_ROUNDS: usize = 8;
/// Windows measured of everything, to show the noise of the machine.
const WINDOWS: usize = 3;

fn quick() -> bool {
    std::env::var("FORTIA_BENCH").is_ok_and(|how| how == "quick")
}

fn window() -> Duration {
    Duration::from_millis(if quick() { 500 } else { 1000 })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn square(radius: u32, edits: u32, zipf: f64) -> Shape {
    Shape { radius, active: radius, edits, zipf }
}

/// Worlds, tickers.
fn points() -> Vec<(Shape, u32)> {
    if quick() {
        return vec![(square(16, 16, 0.0), 2), (square(16, 16, 1.2), 2)];
    }
    let mut points: Vec<(Shape, u32)> = Vec::new();
    for radius in [4, 16, 32, 64, 128] {
        points.push((square(radius, 16, 0.0), TICKERS));
    }
    for tickers in [1, 3, 4] {
        points.push((BASE, tickers));
    }
    for edits in [1, 4, 64] {
        points.push((Shape { edits, ..BASE }, TICKERS));
    }
    for zipf in [0.8, 1.2] {
        for radius in [4, 16, 32, 64] {
            points.push((square(radius, 16, zipf), TICKERS));
        }
        for tickers in [1, 4] {
            points.push((Shape { zipf, ..BASE }, tickers));
        }
    }
    points
}

async fn measure(shape: Shape, tickers: u32) -> Measured {
    let edits: u64 = shape.counts().iter().map(|(_, count)| u64::from(*count)).sum();
    let (mut blocks, mut bytes) = (Vec::new(), Vec::new());
    let mut watch = Vec::new();
    {
        let mut shards = Vec::new();
        for _ in 0..cluster::SHARDS {
            shards.push(TestServer::start().await);
        }
        for _ in 0..WINDOWS {
            blocks.push(rivals::ideal(shape, &shards, window(), cores(), Keeps::Blocks).await);
            bytes.push(rivals::ideal(shape, &shards, window(), cores(), Keeps::Bytes).await);
        }
        // As many clients as do best.
        for clients in CLIENTS {
            let mut rates = Vec::new();
            for _ in 0..WINDOWS {
                rates.push(rivals::watch(shape, &shards, window() / 5, clients).await);
            }
            watch.push((Spread::of(rates.iter().map(|(rate, _)| *rate).collect()), rates[0].1));
        }
    }
    let (watch, lost) = watch.into_iter().max_by(|a, b| a.0.mid.total_cmp(&b.0.mid)).unwrap();
    let mut cluster = Cluster::start(shape, tickers, EditStrategy::Queue).await;
    let queue = rates(&cluster, edits).await;
    cluster.switch(EditStrategy::Lock, Durability::Memory).await;
    let lock = rates(&cluster, edits).await;
    let [queue, lock, ideal, decoding] = [queue, lock, blocks, bytes].map(Spread::of);
    let measured = Measured { shape, tickers, edits, queue, lock, ideal, decoding, watch, lost };
    println!("{}", measured.line());
    measured
}

/// Edits a second in each window.
async fn rates(cluster: &Cluster, edits: u64) -> Vec<f64> {
    let mut rates = Vec::new();
    for _ in 0..WINDOWS {
        let commits = cluster.commits(window(), 1).await;
        rates.push((commits.len() - 1) as f64 * edits as f64 / commits[commits.len() - 1]);
    }
    rates
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_edit_strategies() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let mut all = Vec::new();
    for (shape, tickers) in points() {
        all.push(measure(shape, tickers).await);
    }
    let base = if quick() { 16 } else { BASE.radius };
    for (name, zipf) in [("uniform", 0.0), ("zipf12", 1.2)] {
        let of: Vec<&Measured> = all.iter().filter(|m| m.shape == square(base, 16, zipf)).collect();
        let best = of.iter().max_by(|a, b| a.best().mid.total_cmp(&b.best().mid)).unwrap();
        // The peers do not depend on the tickers: all windows of a shape are one measurement.
        let peers: [fn(&Measured) -> Spread; 2] = [|m| m.ideal, |m| m.decoding];
        for (suffix, peer) in ["", ".decoding"].into_iter().zip(peers) {
            let peer = Spread::of(of.iter().flat_map(|m| peer(m).all()).collect());
            println!(
                "figure tick.vs_ideal.{name}{suffix} {:.2} ratio ({}; {:.2}-{:.2}; {} tickers, {} cores)",
                best.best().mid / peer.mid,
                best.best_name(),
                best.best().min / peer.max,
                best.best().max / peer.min,
                best.tickers,
                cores(),
            );
        }
    }
    let least =
        all.iter().filter(|m| m.shape == square(base, 16, 0.0)).map(|m| (m.best().mid / m.watch.mid, m));
    let (ratio, at) = least.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    println!(
        "figure tick.vs_naive_watch {ratio:.0} ratio (windows {:.0}-{:.0}; uniform, {} tickers; the best of 2, 8 and 32 clients)",
        at.best().min / at.watch.max,
        at.best().max / at.watch.min,
        at.tickers,
    );
    if std::env::var("WRITE").is_ok_and(|write| write == "1") {
        report::write(&all, cores());
    }
}

/// 10,000 ticks, one after the other, of a world in which every chunk is edited.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_tick_jitter() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let shape = square(8, 4, 0.0);
    let ticks = if quick() { 1_000 } else { 10_000 };
    let cluster = Cluster::start(shape, TICKERS, EditStrategy::Queue).await;
    cluster.commits(Duration::from_secs(1), 1).await;
    let commits = cluster.commits(Duration::ZERO, ticks).await;
    let mut took: Vec<f64> = commits.windows(2).map(|pair| (pair[1] - pair[0]) * 1000.0).collect();
    took.sort_by(f64::total_cmp);
    let mean = took.iter().sum::<f64>() / took.len() as f64;
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    println!(
        "figure tick.p999_over_mean {:.2} ratio (mean {mean:.2} ms, p50 {:.2}, p99 {:.2}, p99.9 {:.2}, most {:.2}; {} ticks, {} chunks, {TICKERS} tickers)",
        at(0.999) / mean,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        took.len(),
        shape.chunks(),
    );
}

/// The same edits in about a thousand chunks, of a world that has no others, and of one that has 100,000 more.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_idle_chunks() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let small = square(15, 4, 0.0);
    let large = Shape { radius: if quick() { 64 } else { 159 }, ..small };
    let mut worlds = [
        Cluster::start(small, TICKERS, EditStrategy::Queue).await,
        Cluster::start(large, TICKERS, EditStrategy::Queue).await,
    ];
    // By turns, so that what the machine does meanwhile meets both alike.
    let mut means = [Vec::new(), Vec::new()];
    for round in 0..2 * IDLE_ROUNDS {
        worlds[(round + 1) % 2].rest().await;
        let world = &mut worlds[round % 2];
        world.switch(EditStrategy::Queue, Durability::Memory).await;
        let commits = world.commits(window(), 20).await;
        means[round % 2].push(commits[commits.len() - 1] * 1000.0 / (commits.len() - 1) as f64);
    }
    let [small_ms, large_ms] = means.clone().map(Spread::of);
    let pairs = means[1].iter().zip(&means[0]).map(|(large, small)| large / small);
    let ratio = Spread::of(pairs.collect());
    println!(
        "figure tick.idle_overhead {:.3} ratio ({:.3}-{:.3} in {IDLE_ROUNDS} pairs of windows; {:.2} ms a tick ({:.2}-{:.2}) with {} chunks, {:.2} ms ({:.2}-{:.2}) with {})",
        ratio.mid,
        ratio.min,
        ratio.max,
        large_ms.mid,
        large_ms.min,
        large_ms.max,
        large.chunks(),
        small_ms.mid,
        small_ms.min,
        small_ms.max,
        small.chunks(),
    );
}

/// What it costs to wait until a tick is on disk, with the sync policies a server can have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_tick_durability() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let shape = square(8, 4, 0.0);
    for policy in ["everysec", "always"] {
        let mut cluster = Cluster::start(shape, TICKERS, EditStrategy::Queue).await;
        for shard in &cluster.plane.shards {
            shard.run::<()>(&["CONFIG", "SET", "appendfsync", policy]).await;
            shard.run::<()>(&["CONFIG", "SET", "appendonly", "yes"]).await;
        }
        for (name, durability) in [("memory", Durability::Memory), ("disk", Durability::Disk)] {
            cluster.switch(EditStrategy::Queue, durability).await;
            let commits = cluster.commits(window() * 2, 3).await;
            let mean = commits[commits.len() - 1] * 1000.0 / (commits.len() - 1) as f64;
            println!("figure tick.{name}_{policy} {mean:.2} ms (mean tick of {} chunks)", shape.chunks());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of the benches"]
async fn server_process() {
    cluster::serve().await;
}
