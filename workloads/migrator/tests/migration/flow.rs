//! The way of a migration without faults: from the first copy to the flip, and back.

use std::time::{Duration, Instant};

use fortia_common::failpoint::{Action, Failpoints};
use fortia_common::topology::{Phase, Placement};
use fortia_migrator::{Job, MigrateError, Work};

use crate::hand::{contents, ended, job, layouts, wait};
use crate::writer::{KEYS, Writer, populated};

async fn migrates(shards: u32, to: u32, placement: Placement) {
    let mut hand = populated(shards, placement).await;
    assert_eq!(hand.serving().await.len(), KEYS);
    let writer = Writer::start(&hand);
    hand.begin(to).await;
    let pods = hand.pods();
    let proven = hand.proven().await;
    let ticks = writer.ticks();
    for told in &proven {
        assert_eq!(told.phase, Phase::Cutover, "{told:?}");
        let proof = told.proof.as_ref().expect("a proof");
        assert!(Some(proof.keys) == told.total_keys && told.verified == proof.keys, "{told:?}");
        assert!(told.lives.len() >= to as usize && told.mended == 0, "{told:?}");
    }
    wait("ticks after the proof", async || writer.ticks() > ticks + 20).await;
    let flipped = hand.finish(pods).await;
    let ticks = writer.ticks();
    wait("ticks after the flip", async || writer.ticks() > ticks + 20).await;
    assert_eq!(flipped.serving.version, 2);
    writer.checked(&hand).await;
}

#[tokio::test]
async fn one_shard_becomes_two_by_modulo_while_it_is_written() {
    migrates(1, 2, Placement::Modulo).await;
}

#[tokio::test]
async fn two_shards_become_three_by_modulo_while_they_are_written() {
    migrates(2, 3, Placement::Modulo).await;
}

#[tokio::test]
async fn three_shards_become_two_by_modulo_while_they_are_written() {
    migrates(3, 2, Placement::Modulo).await;
}

#[tokio::test]
async fn two_shards_become_three_by_jump_while_they_are_written() {
    migrates(2, 3, Placement::Jump).await;
}

#[tokio::test]
async fn three_shards_become_two_by_jump_while_they_are_written() {
    migrates(3, 2, Placement::Jump).await;
}

#[tokio::test]
async fn going_back_loses_nothing_that_was_written_since() {
    let mut hand = populated(2, Placement::Modulo).await;
    let writer = Writer::start(&hand);
    hand.begin(3).await;
    hand.finish(hand.pods()).await;
    let ticks = writer.ticks();
    wait("ticks on the new version", async || writer.ticks() > ticks + 50).await;
    hand.go_back().await;
    let flipped = hand.finish(hand.pods()).await;
    assert_eq!((flipped.serving.version, flipped.serving.shards), (1, 2));
    writer.checked(&hand).await;
}

#[tokio::test]
async fn what_stays_on_its_server_does_not_pass_the_migrator() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(1).await;
    let pods = hand.pods();
    let told = hand.proven().await.remove(0);
    assert_eq!((told.stayed as usize, told.keys as usize, told.bytes), (KEYS, KEYS, 0));
    hand.finish(pods).await;
}

#[tokio::test]
async fn sources_wait_for_each_other_when_not_all_may_be_copied_at_once() {
    let mut hand = populated(2, Placement::Modulo).await;
    hand.begin(3).await;
    let first = Failpoints::default();
    first.arm("copying.done", Action::Stop).expect("a point");
    let one = |index| Job { parallelism: 1, ..job(Work::Copy, 1, index) };
    let pods = vec![hand.pod(one(0), &first), hand.pod(one(1), &Failpoints::default())];
    first.reached("copying.done").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(hand.progress(1).await, None);
    first.disarm("copying.done");
    hand.finish(pods).await;
}

#[tokio::test]
async fn a_throttled_pod_gets_done() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    let throttled = Job { read_latency: Some(Duration::from_nanos(1)), ..job(Work::Copy, 1, 0) };
    let pods = vec![hand.pod(throttled, &Failpoints::default())];
    hand.finish(pods).await;
}

#[tokio::test]
async fn a_pod_waits_for_the_guards_and_says_which_is_not_ready() {
    let mut hand = populated(1, Placement::Modulo).await;
    let topology = hand.plane.retarget(2, Phase::Copying).await;
    let impatient = Job { patience: Duration::from_millis(300), ..job(Work::Copy, 1, 0) };
    let failed = ended(hand.pod(impatient, &Failpoints::default())).await.expect_err("is not ready");
    assert!(matches!(failed, MigrateError::NotReady { shard: 0, target: 2, .. }), "{failed}");
    let waiting = hand.pod(job(Work::Copy, 1, 0), &Failpoints::default());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let control =
        fortia_rdb::control::ControlDb::connect(&hand.plane.boot(fortia_common::boot::Service::Operator));
    assert_eq!(control.progress(2, 0).await, Ok(None));
    hand.note(&topology).await;
    wait("the pod", async || control.progress(2, 0).await.expect("answers").is_some_and(|told| told.done))
        .await;
    waiting.abort();
}

#[tokio::test]
async fn a_pod_goes_on_under_a_newer_epoch_and_ends_when_it_is_called_off() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    let points = Failpoints::default();
    points.arm_at("copying.batch_carried", Action::Stop, 3).expect("a point");
    let pod = hand.pod(job(Work::Copy, 1, 0), &points);
    points.reached("copying.batch_carried").await;
    let newer = hand.bump().await;
    hand.note(&newer).await;
    points.disarm("copying.batch_carried");
    hand.proven().await;
    hand.abort().await;
    let failed = ended(pod).await.expect_err("called off");
    assert!(matches!(failed, MigrateError::CalledOff { from: 1, serving: 1, .. }), "{failed}");
}

#[tokio::test]
async fn a_pod_that_comes_after_the_flip_has_nothing_to_do() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    hand.finish(hand.pods()).await;
    let begun = Instant::now();
    ended(hand.pod(job(Work::Copy, 1, 0), &Failpoints::default())).await.expect("ends well");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_abort_leaves_the_serving_version_as_it_is() {
    let mut hand = populated(2, Placement::Modulo).await;
    let before = hand.serving().await;
    let topology = hand.begin(3).await;
    let points = Failpoints::default();
    points.arm_at("copying.batch_carried", Action::Stop, 5).expect("a point");
    let pods = [0, 1].map(|index| hand.pod(job(Work::Copy, 1, index), &points));
    points.reached("copying.batch_carried").await;
    wait("some keys", async || !contents(&hand.plane, &layouts(&topology).1).await.is_empty()).await;
    hand.abort().await;
    for pod in pods {
        let failed = ended(pod).await.expect_err("called off");
        assert!(matches!(failed, MigrateError::CalledOff { .. }), "{failed}");
    }
    for index in 0..3 {
        let collect = hand.pod(job(Work::Collect, 2, index), &Failpoints::default());
        assert!(ended(collect).await.expect("collects").done);
        let left: Vec<String> = hand.plane.shards[index as usize].run(&["KEYS", "v2:*"]).await;
        assert_eq!(left, Vec::<String>::new());
    }
    assert_eq!(hand.serving().await, before);
    // And the same re-sharding again.
    hand.begin(3).await;
    hand.finish(hand.pods()).await;
}
