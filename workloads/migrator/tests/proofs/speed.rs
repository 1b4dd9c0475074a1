//! How fast keys are carried and proven, beside the ways others have, with the same data and the same durability. Prints
//! figures; decides nothing.
#![allow(clippy::print_stdout, reason = "figures")]

use std::time::{Duration, Instant};

use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::{Layout, Phase, Placement};
use fortia_rdb::keyspace::shard_of;
use fortia_testredis::{DataPlane, TestServer};

use crate::data::{Shape, fill};
use crate::hand::Hand;
use crate::{is_quick, peers};

/// What every server is started with, ours and those of others.
pub(crate) const DURABLE: &[&str] =
    &["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"];
/// When the first pod begins to copy.
const BEGINS: &str = "copying.attempted";

/// One migration, measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    keys: usize,
    copy: Duration,
    verify: Duration,
    /// Value bytes that went through the pods.
    bytes: u64,
}

impl Measured {
    fn keys_per_s(&self) -> f64 {
        self.keys as f64 / self.copy.as_secs_f64()
    }
}

/// What is carried.
#[derive(Clone, Copy)]
struct Load {
    shape: Shape,
    keys: usize,
    from: Layout,
    to: Layout,
    replicas: bool,
}

const fn layout(version: u64, shards: u32, placement: Placement) -> Layout {
    Layout { version, shards, placement }
}

impl Load {
    /// Everything moves from one server to another.
    fn moving(shape: Shape, keys: usize) -> Load {
        let (from, to) = (layout(1, 1, Placement::Modulo), layout(2, 2, Placement::Modulo));
        Load { shape, keys, from, to, replicas: false }
    }

    /// Carries it once, and looks how long that takes.
    async fn measure(self, moves: bool) -> Measured {
        let Load { shape, keys, from, to, .. } = self;
        let plane = DataPlane::built(from.shards, from.placement, DURABLE).await;
        let numbers = shape.numbers(keys, |text| (shard_of(text, &from) != shard_of(text, &to)) == moves);
        fill(&plane.shards, &from, shape, &numbers).await;
        let hand = Hand::ready(plane, to).await;
        let mut replicas: Vec<TestServer> = Vec::new();
        if self.replicas {
            for shard in &hand.plane.shards {
                replicas.push(shard.replica(DURABLE).await);
            }
        }
        let hand = hand.start().await;
        let failpoints = Failpoints::default();
        failpoints.arm(BEGINS, Action::Pause(Duration::ZERO)).expect("a point");
        let mut pods = hand.pods(&failpoints);
        failpoints.reached(BEGINS).await;
        let begun = Instant::now();
        let copied = all_past(&hand, Phase::Copying).await;
        let caught_up = all_past(&hand, Phase::CatchingUp).await;
        let proven = all_past(&hand, Phase::Verifying).await;
        let told = hand.proven(&mut pods).await;
        let carried: u64 = told.iter().map(|progress| progress.keys).sum();
        assert_eq!(carried as usize, keys, "{told:?}");
        hand.flip().await;
        hand.ended(pods).await;
        let bytes = told.iter().map(|progress| progress.bytes).sum();
        Measured { keys, copy: copied - begun, verify: proven - caught_up, bytes }
    }

    /// The middle one of three, by speed.
    async fn middle(self, moves: bool) -> Measured {
        let mut all = Vec::new();
        for _ in 0..runs() {
            let measured = self.measure(moves).await;
            println!("{:?}: {:.0} keys/s, {measured:?}", self.shape, measured.keys_per_s());
            all.push(measured);
        }
        all.sort_by(|a, b| a.keys_per_s().total_cmp(&b.keys_per_s()));
        all[all.len() / 2]
    }
}

/// When the last pod had this phase behind it.
async fn all_past(hand: &Hand, phase: Phase) -> Instant {
    loop {
        let told = hand.progress().await;
        if told.len() == hand.from.shards as usize && told.iter().all(|progress| progress.phase > phase) {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn runs() -> usize {
    if is_quick() { 1 } else { 3 }
}

async fn middle_of(mut measure: impl AsyncFnMut() -> f64) -> f64 {
    let mut all = Vec::new();
    for _ in 0..runs() {
        all.push(measure().await);
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_speed() {
    let part = if is_quick() { 6 } else { 1 };
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let kinds = [("small", Shape::Small, 300_000, 24_000), ("16k", Shape::Large, 24_000, 12_000)];
    for (name, shape, keys, others) in kinds {
        let (keys, others) = (keys / part, others / part);
        let ours = Load::moving(shape, keys).middle(true).await.keys_per_s();
        let import = middle_of(async || peers::import(shape, others).await).await;
        let mut best: f64 = 0.0;
        for call in [10, 100, 1000] {
            let migrate = middle_of(async || peers::migrate(shape, keys / 2, call).await).await;
            println!("{name}: MIGRATE COPY of {call} keys a call {migrate:.0} keys/s");
            best = best.max(migrate);
        }
        println!("figure reshard.keys_per_s.{name} {ours:.0} keys/s");
        println!("figure reshard.vs_import.{name} {:.1} x (import: {import:.0} keys/s)", ours / import);
        println!("figure reshard.vs_migrate.{name} {:.2} x (best: {best:.0} keys/s)", ours / best);
        if shape == Shape::Small {
            let ceiling = middle_of(async || peers::ceiling(1056, keys).await).await;
            println!("figure reshard.vs_ceiling {:.2} x (ceiling: {ceiling:.0} keys/s)", ours / ceiling);
        }
    }
    let slots = Load::moving(Shape::Slots, 300_000 / part).middle(true).await.keys_per_s();
    println!("figure reshard.keys_per_s.slots {slots:.0} keys/s");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_stay() {
    let keys = if is_quick() { 60_000 } else { 400_000 };
    println!();
    let from = layout(1, 2, Placement::Modulo);
    let load =
        |placement| Load { shape: Shape::Small, keys, from, to: layout(2, 2, placement), replicas: false };
    let stay = load(Placement::Modulo).middle(false).await;
    let moved = load(Placement::Jump).middle(true).await;
    println!(
        "figure reshard.stay_put_speedup {:.2} x (moved: {:.0} keys/s)",
        stay.keys_per_s() / moved.keys_per_s(),
        moved.keys_per_s()
    );
    println!("figure reshard.stay_put_bytes {} bytes", stay.bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_verify() {
    let keys = if is_quick() { 50_000 } else { 300_000 };
    println!();
    for (name, replicas) in [("", true), (".without_replicas", false)] {
        let measured = Load { replicas, ..Load::moving(Shape::Small, keys) }.middle(true).await;
        let share = measured.verify.as_secs_f64() / measured.copy.as_secs_f64();
        println!("figure reshard.verify_share{name} {share:.2} x");
    }
}
