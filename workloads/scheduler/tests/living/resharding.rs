//! Holds and flips on real Redis servers: the ticks stop for a re-sharding and go on after it, whoever leads.

use std::time::Duration;

use crate::cluster::{Cluster, PERIOD_MS};
use fortia_common::boot::Service;
use fortia_common::records::Held;
use fortia_common::topology::Phase;
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::State;

/// Waits until the hold of a re-sharding to this version is told.
async fn held(cluster: &Cluster, version: u64) -> Held {
    let told =
        async |c: &Cluster| c.held().await.is_some_and(|h| h.version == version && h.pause_ms.is_none());
    cluster.wait_until("the hold", told).await;
    cluster.held().await.expect("held")
}

/// Waits until the world serves this version and ticks go on, and the pause is told.
async fn resumed(cluster: &Cluster, version: u64) -> u64 {
    let flipped = async |c: &Cluster| c.plane.topology().await.serving.version == version;
    cluster.wait_until("the serving version", flipped).await;
    let told = async |c: &Cluster| c.held().await.is_some_and(|held| held.pause_ms.is_some());
    cluster.wait_until("the end of the hold", told).await;
    cluster.ticks(3).await;
    cluster.held().await.and_then(|held| held.pause_ms).expect("a pause")
}

async fn reshard(cluster: &mut Cluster, shards: u32) {
    let before = cluster.chunks().await;
    let version = cluster.plane.retarget(shards, Phase::Copying).await.target.expect("a target").version;
    let held = held(cluster, version).await;
    assert_eq!(cluster.committed().await, held.tick);
    tokio::time::sleep(Duration::from_millis(3 * PERIOD_MS)).await;
    assert_eq!(cluster.committed().await, held.tick, "no tick while held");
    cluster.migrate().await;
    cluster.phase(Phase::Verifying).await;
    let cutover = cluster.phase(Phase::Cutover).await;
    let pause = resumed(cluster, version).await;
    assert!(pause >= 3 * PERIOD_MS, "{pause}");
    let topology = cluster.plane.topology().await;
    assert_eq!(
        (topology.epoch, topology.phase, topology.target),
        (cutover.epoch + 1, Some(Phase::Retaining), None)
    );
    assert_eq!(cluster.chunks().await, before, "nothing is lost or changed");
    assert!(cluster.committed().await > held.tick);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_world_is_held_flipped_and_goes_on_from_one_shard_to_two_and_back() {
    let mut cluster = Cluster::living(1).await;
    reshard(&mut cluster, 2).await;
    for shard in 0..2 {
        let guard = cluster.world().await.guard(shard).await.expect("a guard");
        assert_eq!((guard.version, guard.state, guard.target), (2, State::Open, 0));
    }
    reshard(&mut cluster, 1).await;
    let left = cluster.world().await.guard(1).await.expect("a guard");
    assert_eq!((left.version, left.state), (2, State::Frozen), "a group that serves no more stays frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_re_sharding_goes_on_with_the_old_version_and_can_be_tried_again() {
    let mut cluster = Cluster::living(1).await;
    cluster.plane.retarget(2, Phase::Copying).await;
    let first = held(&cluster, 2).await;
    cluster.phase(Phase::Aborting).await;
    resumed(&cluster, 1).await;
    let mut topology = cluster.plane.topology().await;
    (topology.epoch, topology.target, topology.phase) = (topology.epoch + 1, None, None);
    cluster.plane.set_topology(&topology).await;
    cluster.ticks(2).await;
    let guard = cluster.world().await.guard(0).await.expect("a guard");
    assert_eq!((guard.version, guard.state, guard.target), (1, State::Open, 0));
    cluster.plane.retarget(2, Phase::Copying).await;
    assert!(held(&cluster, 2).await.tick > first.tick, "the second hold is told anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_in_a_hold_is_followed_by_one_that_flips() {
    let mut cluster = Cluster::living(1).await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    cluster.plane.retarget(2, Phase::Copying).await;
    let before = held(&cluster, 2).await;
    cluster.kill("scheduler-0").await;
    cluster.migrate().await;
    cluster.phase(Phase::Cutover).await;
    resumed(&cluster, 2).await;
    let after = cluster.held().await.expect("held");
    assert_eq!((after.tick, after.since), (before.tick, before.since), "it is one hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_between_opening_the_target_and_the_flip_is_followed_by_one_that_repeats_both() {
    let mut cluster = Cluster::living(2).await;
    cluster.plane.retarget(3, Phase::Copying).await;
    let held = held(&cluster, 2).await;
    cluster.migrate().await;
    cluster.kill("scheduler-0").await;
    let cutover = cluster.phase(Phase::Cutover).await;
    cluster.world().await.open_target(&cutover, cutover.epoch + 1, held.tick).await.expect("opened");
    cluster.spawn(Service::Scheduler, "scheduler-1");
    resumed(&cluster, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_opened_and_then_aborted_is_closed_again() {
    let mut cluster = Cluster::living(2).await;
    cluster.plane.retarget(3, Phase::Copying).await;
    let held = held(&cluster, 2).await;
    cluster.migrate().await;
    cluster.kill("scheduler-0").await;
    let cutover = cluster.phase(Phase::Cutover).await;
    cluster.world().await.open_target(&cutover, cutover.epoch + 1, held.tick).await.expect("opened");
    cluster.phase(Phase::Aborting).await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    resumed(&cluster, 1).await;
    let world = cluster.world().await;
    // Those of groups only the target has are the operator's to close, before it collects.
    for shard in 0..cluster.plane.topology().await.serving.shards {
        let guard = world.guard(shard).await.expect("a guard");
        assert_eq!((guard.version, guard.state, guard.target), (1, State::Open, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_left_frozen_without_a_word_are_opened_by_the_next_leader() {
    let mut cluster = Cluster::start(1).await;
    // A leader froze, died before it told so, and the re-sharding was given up.
    let topology = cluster.plane.retarget(2, Phase::Copying).await;
    cluster.world().await.freeze(&topology).await.expect("frozen");
    cluster.phase(Phase::Aborting).await;
    cluster.spawn(Service::Scheduler, "scheduler-0");
    cluster.spawn(Service::Ticker, "ticker-0");
    cluster.ticks(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_was_taken_cannot_commit() {
    let cluster = Cluster::living(1).await;
    let control = ControlDb::connect(&cluster.plane.boot_as(Service::Scheduler, "thief"));
    // The lease ends, and somebody else is faster than the leader.
    cluster.plane.control_db.run::<i64>(&["HSET", "fortia:lease:scheduler", "expires", "0"]).await;
    let lease = control.lease("127.0.0.1:1", Duration::from_secs(2)).await.expect("an answer");
    assert!(lease.held);
    let last = cluster.committed().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.committed().await, last, "no commit under a lost lease");
    cluster.ticks_after(last, 3).await;
}
