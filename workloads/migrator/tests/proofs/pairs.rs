//! Every pair of layouts, with writers: afterwards the new version is what was put and written, key for key.
#![allow(clippy::print_stdout, reason = "figures")]

use std::time::Duration;

use fortia_common::failpoint::Failpoints;
use fortia_testredis::DataPlane;

use crate::contents::{Contents, Difference, contents};
use crate::data::{Shape, fill};
use crate::hand::Hand;
use crate::writers::Writers;

/// Re-shards a world of so many keys while four writers write, and returns how the outcome differs.
async fn pair(from: u32, to: u32, keys: u64) -> Difference {
    let plane = DataPlane::start(from).await;
    let numbers: Vec<u64> = (0..keys).collect();
    let serving = plane.topology().await.serving;
    fill(&plane.shards, &serving, Shape::Mixed, &numbers).await;
    let mut expected: Contents =
        numbers.iter().map(|n| (Shape::Mixed.text(*n).into_bytes(), Shape::Mixed.value(*n))).collect();
    let layout = fortia_common::topology::Layout { version: 2, shards: to, ..serving };
    let hand = Hand::ready(plane, layout).await;
    let writers = Writers::start(&hand.topology(), Shape::Mixed, keys, 4, Duration::from_millis(2));
    let hand = hand.start().await;
    let mut pods = hand.pods(&Failpoints::default());
    hand.proven(&mut pods).await;
    let pause = hand.flip().await;
    hand.ended(pods).await;
    let writes = writers.end(&mut expected).await;
    let difference = Difference::of(&expected, &contents(&hand.plane.shards, &hand.to).await);
    println!("{from} -> {to}: {keys} keys, {writes} writes, paused for {pause:?}: {difference:?}");
    difference
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_layouts_up_to_three_shards_carries_all_that_was_put_and_written_meanwhile() {
    for from in 1..=3 {
        for to in 1..=3 {
            let difference = pair(from, to, 10_000 / 3).await;
            assert!(difference.is_none(), "{from} -> {to}: {difference:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_pairs() {
    let (most, keys) = if crate::is_quick() { (4, 160_000) } else { (8, 10_000_000) };
    let (mut equal, mut all) = (0, Difference::default());
    for from in 1..=most {
        for to in 1..=most {
            let difference = pair(from, to, keys / u64::from(most * most)).await;
            equal += u32::from(difference.is_none());
            all.missing.extend(difference.missing);
            all.extra.extend(difference.extra);
            all.changed.extend(difference.changed);
        }
    }
    println!();
    println!("figure reshard.pairs_equal {equal} of {}", most * most);
    println!("figure reshard.missing {} keys", all.missing.len());
    println!("figure reshard.extra {} keys", all.extra.len());
    println!("figure reshard.changed {} keys", all.changed.len());
    assert_eq!((equal, all), (most * most, Difference::default()));
}
