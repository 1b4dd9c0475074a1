//! Collecting takes away what nobody can need, and nothing else.

use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::records::GUARD;
use fortia_common::topology::{Placement, Topology};
use fortia_migrator::{Job, MigrateError, Work};
use fortia_rdb::RdbError;
use fortia_rdb::migrate::Migration;

use crate::hand::{Hand, contents, ended, job};
use crate::writer::populated;

async fn migrated(shards: u32, to: u32) -> Hand {
    let mut hand = populated(shards, Placement::Modulo).await;
    hand.begin(to).await;
    hand.finish(hand.pods()).await;
    hand
}

#[tokio::test]
async fn collecting_removes_the_old_version_only_and_resumes() {
    let hand = migrated(3, 2).await;
    hand.collect().await;
    let before = hand.serving().await;
    hand.plane.shards[0].run::<()>(&["SET", "v10:info", "another version"]).await;
    hand.plane.shards[0].run::<()>(&["SET", "v1:lock:1:2", "left over"]).await;
    let points = Failpoints::default();
    points.arm("collecting.batch", Action::Stop).expect("a point");
    let killed = hand.pod(job(Work::Collect, 1, 0), &points);
    points.reached("collecting.batch").await;
    killed.abort();
    for index in 0..3 {
        let told =
            ended(hand.pod(job(Work::Collect, 1, index), &Failpoints::default())).await.expect("collects");
        assert!(told.done && Some(told.keys) == told.total_keys, "{told:?}");
    }
    assert_eq!(hand.serving().await, before);
    for (i, shard) in hand.plane.shards.iter().enumerate() {
        assert_eq!(shard.run::<Vec<String>>(&["KEYS", "v1:*"]).await, Vec::<String>::new());
        assert_eq!(shard.run::<u64>(&["EXISTS", GUARD]).await, 1);
        assert_eq!(shard.run::<u64>(&["EXISTS", "v10:info"]).await, u64::from(i == 0));
    }
    let left = hand.plane.shards[2].run::<u64>(&["DBSIZE"]).await;
    assert_eq!(left, 1, "the surplus group is empty but for its guard");
    ended(hand.pod(job(Work::Collect, 1, 0), &Failpoints::default())).await.expect("again does no harm");
}

#[tokio::test]
async fn a_shard_that_was_lost_with_its_volume_is_passed_over() {
    let hand = migrated(3, 2).await;
    hand.collect().await;
    hand.plane.shards[2].run::<()>(&["FLUSHALL"]).await;
    let impatient = Job { patience: Duration::from_millis(600), ..job(Work::Collect, 1, 2) };
    let failed =
        ended(hand.pod(impatient.clone(), &Failpoints::default())).await.expect_err("it has no guard");
    assert!(matches!(failed, MigrateError::Database(RdbError::Foreign { .. })), "{failed}");
    let told = Job { lost: vec![2], ..impatient };
    assert!(ended(hand.pod(told, &Failpoints::default())).await.expect("there is nothing to do").done);
}

#[tokio::test]
async fn neither_the_version_that_is_served_nor_the_one_that_is_kept_is_collected() {
    let hand = migrated(1, 2).await;
    let kept = hand.topology().previous.expect("kept");
    let before = contents(&hand.plane, &kept).await;
    for version in [1, 2] {
        let impatient = Job { patience: Duration::from_millis(600), ..job(Work::Collect, version, 0) };
        let refused = ended(hand.pod(impatient, &Failpoints::default())).await.expect_err("is in use");
        assert!(matches!(refused, MigrateError::InUse { .. }), "{refused}");
    }
    assert_eq!(contents(&hand.plane, &kept).await, before);
    assert_eq!(hand.serving().await, before);
}

#[tokio::test]
async fn collecting_waits_until_the_guards_have_let_go() {
    let hand = migrated(1, 1).await;
    let collecting = Topology { previous: None, epoch: hand.topology().epoch + 1, ..hand.topology() };
    hand.plane.set_topology(&collecting).await;
    let pod = hand.pod(job(Work::Collect, 1, 0), &Failpoints::default());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!pod.is_finished());
    hand.open(0, &collecting).await;
    assert!(ended(pod).await.expect("collects").done);
}

#[tokio::test]
async fn a_late_collect_of_a_version_that_came_into_use_is_refused_by_the_guard() {
    let mut hand = populated(1, Placement::Modulo).await;
    let old = hand.topology();
    let boot = hand.plane.boot(Service::Migrator);
    let count =
        async |version: u64| Migration::new(&boot, old.clone()).count(0, version).await.expect("counts");
    // Pods that looked at everything before it changed, and hold keys that they found then.
    let refused = async |topology: &Topology, version: u64| {
        let pod = Migration::new(&boot, topology.clone());
        let keys = pod.scan(0, version, 0).await.expect("scans").keys;
        let before = count(version).await;
        assert!(!keys.is_empty() && before > 0);
        let unlinked = [pod.unlink(0, version, &keys).await.map(drop), pod.unlink_own(0, version).await];
        assert_eq!(count(version).await, before, "nothing is unlinked");
        unlinked
    };
    let in_use = |unlinked: [Result<(), RdbError>; 2]| {
        assert!(unlinked.iter().all(|one| matches!(one, Err(RdbError::WrongVersion { .. }))), "{unlinked:?}");
    };
    in_use(refused(&old, 1).await);
    let topology = hand.begin(1).await;
    in_use(refused(&topology, 1).await);
    let pods = hand.pods();
    hand.proven().await;
    in_use(refused(&topology, 1).await);
    in_use(refused(&topology, 2).await);
    let flipped = hand.finish(pods).await;
    in_use(refused(&flipped, 2).await);
    in_use(refused(&flipped, 1).await);
    let late = refused(&topology, 1).await;
    assert!(matches!(&late[0], Err(RdbError::Stale { .. })), "{late:?}");
}
