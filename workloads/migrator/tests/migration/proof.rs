//! What verification finds, and what becomes of it.

use std::time::Duration;

use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::{Phase, Placement};
use fortia_migrator::{MigrateError, Work};
use fortia_rdb::keyspace::WorldKey;
use fortia_testredis::TestServer;

use crate::hand::{Hand, contents, ended, job, layouts, wait};
use crate::writer::{Writer, populated};

fn target<'a>(hand: &'a Hand, key: &WorldKey) -> &'a TestServer {
    &hand.plane.shards[key.shard(&layouts(&hand.topology()).1) as usize]
}

#[tokio::test]
async fn what_is_lost_changed_added_or_misplaced_in_the_target_is_found_and_mended() {
    let mut hand = populated(2, Placement::Modulo).await;
    let topology = hand.begin(3).await;
    let (from, to) = layouts(&topology);
    let points = Failpoints::default();
    points.arm("verifying.forward", Action::Stop).expect("a point");
    let pods = [0, 1].map(|index| hand.pod(job(Work::Copy, 1, index), &points));
    for index in 0..2 {
        wait("copying", async || {
            hand.progress(index).await.is_some_and(|told| told.phase >= Phase::Verifying)
        })
        .await;
    }
    let key = WorldKey::Entity;
    target(&hand, &key(1)).run::<u64>(&["DEL", "v2:e:1"]).await;
    target(&hand, &key(2)).run::<u64>(&["HSET", "v2:e:2", "d1", "changed"]).await;
    target(&hand, &key(3)).run::<String>(&["SET", "v2:e:3", "another type"]).await;
    target(&hand, &key(777_777)).run::<String>(&["SET", "v2:e:777777", "added"]).await;
    target(&hand, &key(4)).run::<u64>(&["PEXPIREAT", "v2:e:4", "4000000000000"]).await;
    // A write that nobody noted.
    let stale = &hand.plane.shards[key(5).shard(&from) as usize];
    stale.run::<u64>(&["HSET", "v1:e:5", "d0", "newer"]).await;
    let wrong = (key(6).shard(&to) + 1) % 3;
    hand.plane.shards[wrong as usize].run::<String>(&["SET", "v2:e:6", "misplaced"]).await;
    points.disarm("verifying.forward");
    let told = hand.proven().await;
    let mended: u64 = told.iter().map(|told| told.mended).sum();
    assert_eq!(mended, 7, "{told:?}");
    hand.finish(pods.into()).await;
}

#[tokio::test]
async fn leftovers_of_an_earlier_try_are_replaced_or_removed() {
    let mut hand = populated(2, Placement::Modulo).await;
    let topology = hand.begin(3).await;
    for (i, shard) in hand.plane.shards.iter().enumerate() {
        shard.run::<()>(&["SET", "v2:e:999999", "surplus"]).await;
        shard.run::<()>(&["SET", &format!("v2:c:{i}:0"), "stale"]).await;
    }
    let before = contents(&hand.plane, &layouts(&topology).0).await;
    hand.finish(hand.pods()).await;
    assert_eq!(hand.serving().await, before);
}

#[tokio::test]
async fn damage_that_goes_on_is_never_called_proven() {
    for spoil in ["DEL", "HSET", "ADD"] {
        let mut hand = populated(2, Placement::Modulo).await;
        hand.begin(3).await;
        let key = if spoil == "ADD" { WorldKey::Entity(12_345) } else { WorldKey::Entity(7) };
        let name = key.physical(2);
        let mut damage = redis::cmd(if spoil == "ADD" { "SET" } else { spoil });
        damage.arg(&name);
        match spoil {
            "HSET" => drop(damage.arg("d0").arg("changed")),
            "ADD" => drop(damage.arg("added")),
            _ => {}
        }
        let mut connection = target(&hand, &key).connect().await;
        let damaging = tokio::spawn(async move {
            loop {
                damage.query_async::<redis::Value>(&mut connection).await.expect("damages");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
        // Surplus is looked for by the pod of the target it is on.
        let topology = hand.topology();
        let index = match spoil {
            "ADD" => key.shard(&layouts(&topology).1) % 2,
            _ => key.shard(&topology.serving),
        };
        let pods = hand.pods();
        let failed = ended(pods.into_iter().nth(index as usize).expect("a pod")).await;
        let failed = failed.expect_err("the damage is found");
        assert!(matches!(failed, MigrateError::Different { .. }), "{spoil}: {failed}");
        assert!(failed.to_string().contains(&key.text()), "{spoil}: {failed}");
        assert!(!hand.progress(index).await.expect("told").done, "{spoil}");
        damaging.abort();
    }
}

#[tokio::test]
async fn a_key_that_does_not_belong_on_its_shard_never_overwrites_the_true_one() {
    let mut hand = populated(2, Placement::Modulo).await;
    let before = hand.serving().await;
    let key = WorldKey::Entity(7);
    let wrong = &hand.plane.shards[1 - key.shard(&hand.topology().serving) as usize];
    wrong.run::<()>(&["SET", &key.physical(1), "stray"]).await;
    hand.begin(3).await;
    let pods = hand.pods();
    hand.proven().await;
    assert_eq!(contents(&hand.plane, &layouts(&hand.topology()).1).await, before);
    pods.into_iter().for_each(|pod| pod.abort());
}

#[tokio::test]
async fn a_hot_world_is_proven_while_it_is_written() {
    let mut hand = populated(2, Placement::Modulo).await;
    let writers = Writer::start(&hand);
    hand.begin(3).await;
    let pods = hand.pods();
    let told = hand.proven().await;
    assert!(told.iter().all(|told| told.mended == 0), "{told:?}");
    hand.finish(pods).await;
    writers.checked(&hand).await;
}
