//! Corruptions planted between CatchingUp and Verifying: all are found, and mended before the flip.
#![allow(clippy::print_stdout, reason = "figures")]

use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::Layout;
use fortia_rdb::keyspace::shard_of;
use fortia_testredis::DataPlane;

use crate::contents::{Difference, contents};
use crate::data::{Shape, fill};
use crate::hand::Hand;

/// Keys of the world.
const KEYS: u64 = 4_000;
/// Where the pods stand while damage is done.
const BEFORE: &str = "verifying.forward";

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    Dropped,
    Added,
    Changed,
    WrongShard,
    WrongType,
    Stale,
}

impl Plant {
    const ALL: [Plant; 6] =
        [Plant::Dropped, Plant::Added, Plant::Changed, Plant::WrongShard, Plant::WrongType, Plant::Stale];

    /// Damages key number `n` on one server by plain commands, past all guards.
    async fn plant(self, hand: &Hand, n: u64) {
        let (text, value) = (Shape::Mixed.text(n), Shape::Mixed.value(n));
        let (old, new) = (format!("v{}:{text}", hand.from.version), format!("v{}:{text}", hand.to.version));
        let on = |layout: &Layout| shard_of(text.as_bytes(), layout) as usize;
        let (source, target) = (&hand.plane.shards[on(&hand.from)], &hand.plane.shards[on(&hand.to)]);
        // Some other byte of each kind of value: a field, a member, an item, the end of a string.
        let spoil: &[&str] = match n % 10 {
            5 | 6 | 9 => &["APPEND", "x"],
            7 => &["SADD", "x"],
            8 => &["RPUSH", "x"],
            _ => &["HSET", "d0", "x"],
        };
        let spoiled = |key: &str| {
            let mut command = vec![spoil[0].to_owned(), key.to_owned()];
            command.extend(spoil[1..].iter().map(|word| (*word).to_owned()));
            command
        };
        let run = async |server: &fortia_testredis::TestServer, words: &[String]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            server.run::<redis::Value>(&words).await;
        };
        match self {
            Plant::Dropped => run(target, &["DEL".into(), new]).await,
            Plant::Added => {
                let surplus = format!("surplus:{n}");
                let home = shard_of(surplus.as_bytes(), &hand.to) as usize;
                let name = format!("v{}:{surplus}", hand.to.version);
                run(&hand.plane.shards[home], &["SET".into(), name, "x".into()]).await;
            }
            Plant::Changed => run(target, &spoiled(&new)).await,
            Plant::WrongShard => {
                let wrong = &hand.plane.shards[(on(&hand.to) + 1) % hand.to.shards as usize];
                let put = value.put(&new);
                put.query_async::<redis::Value>(&mut wrong.connect().await).await.expect("planted");
            }
            Plant::WrongType => {
                run(target, &["DEL".into(), new.clone()]).await;
                let other = if matches!(n % 10, 7) { ["RPUSH", "x"] } else { ["SADD", "x"] };
                run(target, &[other[0].into(), new, other[1].into()]).await;
            }
            Plant::Stale => run(source, &spoiled(&old)).await,
        }
    }
}

/// Migrates a world, plants so much of one kind, and returns how much was caught.
async fn caught(plant: Plant, count: u64) -> u64 {
    let plane = DataPlane::start(1).await;
    let numbers: Vec<u64> = (0..KEYS).collect();
    fill(&plane.shards, &plane.topology().await.serving, Shape::Mixed, &numbers).await;
    let hand = Hand::begin(plane, 3).await;
    let failpoints = Failpoints::default();
    failpoints.arm(BEFORE, Action::Stop).expect("a point");
    let mut pods = hand.pods(&failpoints);
    failpoints.reached(BEFORE).await;
    // Spread over all kinds of values.
    for i in 0..count {
        plant.plant(&hand, i * (KEYS / count) + i % 10).await;
    }
    failpoints.disarm(BEFORE);
    let told = hand.proven(&mut pods).await;
    let mended: u64 = told.iter().map(|progress| progress.mended).sum();
    let expected = contents(&hand.plane.shards, &hand.from).await;
    hand.flip().await;
    hand.ended(pods).await;
    let difference = Difference::of(&expected, &contents(&hand.plane.shards, &hand.to).await);
    let left = difference.missing.len() + difference.extra.len() + difference.changed.len();
    println!("{plant:?}: {count} planted, {mended} mended, {left} left");
    mended.min(count).min(count - (left as u64).min(count))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_planted_corruption_is_found_and_mended_before_the_flip() {
    for plant in Plant::ALL {
        assert_eq!(caught(plant, 5).await, 5, "{plant:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a bench"]
async fn bench_reshard_plants() {
    let mut all = 0;
    for plant in Plant::ALL {
        all += caught(plant, 200).await;
    }
    println!();
    println!("figure reshard.plants_caught {all} of 1200");
    assert_eq!(all, 1200);
}
