//! Whoever dies, stops or comes twice: what is carried is what was written last.

use std::time::Duration;

use bytes::Bytes;
use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::Placement;
use fortia_migrator::{Job, MigrateError, Work};
use fortia_rdb::world::Changes;
use fortia_testredis::DataPlane;

use crate::hand::{Hand, ended, job, wait};
use crate::writer::{Writer, populate, populated};

/// A pod that takes its time over every batch, so that it is not done when something happens to it.
fn slowly(ms: u64) -> Failpoints {
    let points = Failpoints::default();
    points.arm("copying.batch_carried", Action::Pause(Duration::from_millis(ms))).expect("a point");
    points
}

async fn checkpointed(hand: &Hand) -> serde_json::Value {
    wait("a checkpoint", async || hand.plane.shards[0].run::<u64>(&["HLEN", "v2:checkpoint"]).await > 0)
        .await;
    let text: String = hand.plane.shards[0].run(&["HGET", "v2:checkpoint", "0"]).await;
    serde_json::from_str(&text).expect("json")
}

#[tokio::test]
async fn the_next_pod_goes_on_where_the_last_checkpoint_is() {
    let mut hand = populated(1, Placement::Modulo).await;
    // Pages enough that copying lasts for some checkpoints, however the pod's lanes share them.
    let entities = (1000..6000).map(|id| (id, Bytes::from(format!("entity {id}")))).collect();
    let more = Changes { entities, ..Changes::default() };
    hand.world().commit_tick(1, 1, &more, 0).await.expect("commits");
    let writer = Writer::start(&hand);
    hand.begin(2).await;
    let killed = hand.pod(job(Work::Copy, 1, 0), &slowly(150));
    let checkpoint = checkpointed(&hand).await;
    killed.abort();
    let keys = checkpoint["keys"].as_u64().expect("a number");
    assert!(keys > 0 && checkpoint["copied"] == false, "{checkpoint}");
    let points = Failpoints::default();
    points.arm("copying.page_read", Action::Stop).expect("a point");
    let pod = hand.pod(job(Work::Copy, 1, 0), &points);
    wait("the next pod's word", async || {
        hand.progress(0).await.is_some_and(|told| told.attempt == 2 && told.keys >= keys)
    })
    .await;
    points.disarm("copying.page_read");
    hand.finish(vec![pod]).await;
    writer.checked(&hand).await;
}

#[tokio::test]
async fn a_pod_killed_anywhere_is_run_again() {
    let mut hand = populated(2, Placement::Modulo).await;
    let writer = Writer::start(&hand);
    hand.begin(3).await;
    for killed_after in [3, 8, 15, 25, 40, 80, 150] {
        let pods = hand.pods();
        tokio::time::sleep(Duration::from_millis(killed_after)).await;
        pods.iter().for_each(|pod| pod.abort());
    }
    hand.finish(hand.pods()).await;
    writer.checked(&hand).await;
}

#[tokio::test]
async fn a_pod_that_fails_at_any_point_goes_on_by_itself() {
    for point in [
        "copying.attempted",
        "copying.page_read",
        "copying.batch_carried",
        "copying.done",
        "catching_up.read",
        "catching_up.cleaned",
        "verifying.forward",
        "verifying.backward",
        "verifying.proven",
    ] {
        let mut hand = populated(1, Placement::Modulo).await;
        let writer = Writer::start(&hand);
        hand.begin(2).await;
        let points = Failpoints::default();
        points.arm_at(point, Action::Fail, 1).expect("a point");
        let pod = hand.pod(job(Work::Copy, 1, 0), &points);
        points.reached(point).await;
        hand.finish(vec![pod]).await;
        writer.checked(&hand).await;
    }
}

#[tokio::test]
async fn of_two_pods_on_one_source_the_newer_goes_on_and_the_older_does_no_harm() {
    let mut hand = populated(1, Placement::Modulo).await;
    let writer = Writer::start(&hand);
    hand.begin(2).await;
    let older = hand.pod(job(Work::Copy, 1, 0), &slowly(100));
    wait("the older to begin", async || hand.progress(0).await.is_some()).await;
    let newer = hand.pod(job(Work::Copy, 1, 0), &Failpoints::default());
    hand.proven().await;
    assert_eq!(hand.progress(0).await.expect("told").attempt, 2);
    hand.finish(vec![older, newer]).await;
    writer.checked(&hand).await;
}

#[tokio::test]
async fn an_overtaken_pod_ends_when_that_lasts() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    let impatient = Job { patience: Duration::from_secs(1), ..job(Work::Copy, 1, 0) };
    let older = hand.pod(impatient, &slowly(100));
    wait("the older to begin", async || hand.progress(0).await.is_some()).await;
    let newer = hand.pod(job(Work::Copy, 1, 0), &Failpoints::default());
    let failed = ended(older).await.expect_err("gives way");
    assert!(matches!(failed, MigrateError::Overtaken { index: 0, newer: 2 }), "{failed}");
    hand.finish(vec![newer]).await;
}

#[tokio::test]
async fn a_pod_that_stood_still_through_it_all_writes_nothing_old() {
    let mut hand = populated(2, Placement::Modulo).await;
    let writer = Writer::start(&hand);
    hand.begin(3).await;
    // Not polled, it stands still with all it has read: as a process that is stopped does.
    let boot = hand.plane.boot(fortia_common::boot::Service::Migrator);
    let (points, work) = (slowly(20), job(Work::Copy, 1, 0));
    let mut stopped = Box::pin(fortia_migrator::run(&boot, &work, &points, |_| ()));
    tokio::select! {
        _ = &mut stopped => panic!("it is not done"),
        () = points.reached("copying.batch_carried") => {}
    }
    hand.finish(hand.pods()).await;
    let ticks = writer.ticks();
    wait("ticks after the flip", async || writer.ticks() > ticks + 20).await;
    let done = tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("ends");
    assert!(done.is_ok() || matches!(done, Err(MigrateError::CalledOff { .. })), "{done:?}");
    writer.checked(&hand).await;
}

#[tokio::test]
async fn what_a_restarted_server_may_have_forgotten_is_proven_again() {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut hand = Hand::over(DataPlane::with_servers(2, &always).await).await;
    populate(&hand).await;
    hand.begin(3).await;
    let pods = hand.pods();
    let before = hand.proven().await;
    for shard in [0, 2] {
        hand.plane.shards[shard].kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        hand.plane.shards[shard].restart();
    }
    wait("another proof", async || {
        let told = hand.progress(0).await.expect("told");
        told.done && [0, 2].iter().all(|shard| told.lives[shard] != before[0].lives[shard])
    })
    .await;
    wait("the other's", async || {
        let told = hand.progress(1).await.expect("told");
        told.done && told.lives[&2] != before[1].lives[&2]
    })
    .await;
    hand.finish(pods).await;
}
