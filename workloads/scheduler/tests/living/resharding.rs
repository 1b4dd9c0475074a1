//! Re-shardings on real Redis servers: ticks go on in every phase, the cut-over is short or taken back, and nothing is
//! lost, whoever leads.

use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::failpoint::{Action as Fault, Failpoints};
use fortia_common::records::{Config, GUARD};
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_migrator::Work;
use fortia_proto::world::v1::{Action, Command, Spawn, action};
use fortia_rdb::control::ControlDb;
use fortia_rdb::guard::{Guard, State};
use fortia_testredis::CLUSTER;
use fortia_vec::BlockPos;
use fortia_world::order::Order;
use fortia_world::{start, wire};

use crate::cluster::{Cluster, RADIUS, SEED, config};

const ANN: &str = "ann";
/// Long enough for a test to kill whoever is at it.
const LONG_MS: u64 = 60_000;

fn at() -> BlockPos {
    start::position(SEED, RADIUS, ANN)
}

async fn act(cluster: &Cluster, id: u64, kind: action::Kind) {
    cluster.act(at().region(), &Action { id, player: ANN.into(), kind: Some(kind) }).await;
}

/// Ann comes with her units.
async fn settle(cluster: &Cluster) {
    let units = start::unit_ids(ANN, start::UNITS);
    act(cluster, 1, action::Kind::Spawn(Spawn { owner: ANN.into(), at: Some(wire::block_pos(at())), units }))
        .await;
    cluster.ticks(3).await;
}

/// Ann's first unit digs so far below her start; returns once it is done.
async fn dig(cluster: &Cluster, depth: i32) {
    let unit = start::unit_ids(ANN, 1)[0];
    let order = Some(Order::Mine { at: at().offset(0, 0, -depth) }.to_proto());
    let seen = cluster.committed().await;
    act(cluster, 100 + depth as u64, action::Kind::Command(Command { unit, order, at: None, seen })).await;
    let dug = async |c: &Cluster| is_dug(c, depth).await;
    cluster.wait_until("the hole", dug).await;
}

async fn is_dug(cluster: &Cluster, depth: i32) -> bool {
    let at = at().offset(0, 0, -depth);
    let column = fortia_world::chunk::Column::decode(&cluster.chunk(at.chunk()).await).expect("a column");
    column.get(at.local().expect("in the world")) == fortia_world::block::Block::Air
}

fn loaded(cluster: &Cluster) -> f64 {
    let of = |ticker| cluster.metric(ticker, "fortia_ticker_loaded_chunks_total").expect("a metric");
    of("ticker-0") + of("ticker-1")
}

async fn guards(cluster: &Cluster) -> Vec<Guard> {
    let (world, groups) = (cluster.world().await, cluster.plane.topology().await.groups.len());
    let mut guards = Vec::new();
    for shard in 0..groups as u32 {
        guards.push(world.guard(shard).await.expect("a guard"));
    }
    guards
}

async fn guarded(cluster: &Cluster, wanted: &[(u64, State, u64)]) {
    let as_wanted = async |c: &Cluster| {
        let guards = guards(c).await;
        guards.iter().map(|guard| (guard.version, guard.state, guard.target)).eq(wanted.iter().copied())
    };
    cluster.wait_until("the guards", as_wanted).await;
}

/// With a scheduler that stops where `failpoints` say, and this longest pause.
async fn failing(shards: u32, max_cutover_pause_ms: u64, failpoints: &Failpoints) -> Cluster {
    let config = Config { max_cutover_pause_ms, ..config(SEED) };
    Cluster::configured(shards, &config).await.alive_with(failpoints.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_go_on_in_every_phase_and_nothing_is_lost_from_one_shard_to_two_and_back() {
    let mut cluster = Cluster::living(1).await;
    settle(&cluster).await;
    for (shards, depth) in [(2, 1), (1, 3)] {
        let before = cluster.plane.topology().await.serving;
        let target = cluster.plane.retarget(shards, Phase::Copying).await.target.expect("a target");
        let pods = cluster.pods(Work::Copy).await;
        dig(&cluster, depth).await;
        cluster.proven().await;
        cluster.ticks(3).await;
        dig(&cluster, depth + 1).await;
        let (seen, loads) = (cluster.chunks().await, loaded(&cluster));
        let cutover = cluster.phase(Phase::Cutover).await;
        let told = cluster.flipped(target).await;
        assert_eq!((told.tries, told.why), (1, None));
        assert!(told.pause_us < 1_000_000, "{} µs", told.pause_us);
        println!("figure reshard.pause.living {} µs", told.pause_us);
        let topology = cluster.plane.topology().await;
        let wanted = (cutover.epoch + 1, Some(Phase::Retaining), None, Some(before));
        assert_eq!((topology.epoch, topology.phase, topology.target, topology.previous), wanted);
        cluster.ticks(3).await;
        assert_eq!(cluster.chunks().await, seen, "nothing is lost or changed");
        assert_eq!(loaded(&cluster), loads, "nothing is loaded anew");
        assert_eq!(cluster.abandoned("scheduler-0"), 0.0);
        drop(pods);
        collect(&cluster).await;
    }
}

/// Gives the version before up, as the operator does before it collects.
async fn collect(cluster: &Cluster) {
    let change = |topology: &mut Topology| (topology.phase, topology.previous) = (None, None);
    let serving = cluster.change(change).await.serving;
    let open =
        async |c: &Cluster| guards(c).await[..serving.shards as usize].iter().all(|g| g.state == State::Open);
    cluster.wait_until("open guards", open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_the_flip_is_there_after_going_back() {
    let mut cluster = Cluster::living(2).await;
    settle(&cluster).await;
    let old = cluster.plane.topology().await.serving;
    let (new, pods) = cluster.carried(3).await;
    cluster.phase(Phase::Cutover).await;
    cluster.flipped(new).await;
    drop(pods);
    dig(&cluster, 1).await;
    guarded(&cluster, &[(2, State::Copying, 1); 3]).await;

    let back = |topology: &mut Topology| {
        (topology.phase, topology.target, topology.previous) = (Some(Phase::Copying), Some(old), None);
    };
    cluster.change(back).await;
    let pods = cluster.pods(Work::CatchUp).await;
    dig(&cluster, 2).await;
    cluster.proven().await;
    let (seen, loads) = (cluster.chunks().await, loaded(&cluster));
    cluster.phase(Phase::Cutover).await;
    cluster.flipped(old).await;
    let topology = cluster.plane.topology().await;
    assert_eq!((topology.phase, topology.previous), (Some(Phase::Collecting), None));
    cluster.ticks(3).await;
    assert_eq!(cluster.chunks().await, seen);
    assert!(is_dug(&cluster, 1).await && is_dug(&cluster, 2).await);
    assert_eq!(loaded(&cluster), loads, "nothing is loaded anew");
    let open = (1, State::Open, 0);
    guarded(&cluster, &[open, open, (2, State::Frozen, 0)]).await;
    drop(pods);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_a_server_forgot_is_set_again_while_keys_are_carried() {
    let mut cluster = Cluster::living(1).await;
    let topology = cluster.plane.retarget(2, Phase::Copying).await;
    let noting = [(1, State::Copying, 2), (1, State::Frozen, 2)];
    guarded(&cluster, &noting).await;
    // As the operator set it at first: what came after was in the last second before a crash.
    let forgotten: Vec<String> = ["FCALL", "fortia_guard", "1", GUARD, CLUSTER, "shard-1", "1"]
        .into_iter()
        .map(str::to_owned)
        .chain([topology.epoch.to_string(), "1".into(), "frozen".into(), "0".into(), String::new()])
        .collect();
    let forgotten: Vec<&str> = forgotten.iter().map(String::as_str).collect();
    cluster.plane.shards[1].run::<()>(&forgotten).await;
    assert_eq!(guards(&cluster).await[1].target, 0);
    guarded(&cluster, &noting).await;
    let (target, _pods) = (topology.target.expect("a target"), cluster.pods(Work::Copy).await);
    cluster.proven().await;
    cluster.phase(Phase::Cutover).await;
    cluster.flipped(target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_over_that_takes_too_long_is_taken_back_and_tried_again_later() {
    let failpoints = Failpoints::default();
    let mut cluster = failing(1, 300, &failpoints).await;
    settle(&cluster).await;
    failpoints.arm("cutover.drained", Fault::Stop).expect("a point");
    let (target, _pods) = cluster.carried(2).await;
    cluster.phase(Phase::Cutover).await;
    let late = async |c: &Cluster| c.tried().await.is_some_and(|tried| !tried.flipped);
    cluster.wait_until("the late try", late).await;
    let tried = cluster.tried().await.expect("told");
    assert!(tried.why.expect("why").contains("maxCutoverPause"));
    assert!((200_000..400_000).contains(&tried.pause_us), "{} µs", tried.pause_us);
    dig(&cluster, 1).await;
    assert_eq!(cluster.abandoned("scheduler-0"), 0.0);
    let again = async |c: &Cluster| c.tried().await.is_some_and(|tried| tried.tries > 1);
    cluster.wait_until("another try", again).await;
    failpoints.disarm("cutover.drained");
    let told = cluster.flipped(target).await;
    assert!(told.tries > 2);
    cluster.ticks(3).await;
    assert!(is_dug(&cluster, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_the_guards_were_turned_is_taken_back_too() {
    for (point, tries) in [("cutover.turned", 2), ("cutover.flipped", 1)] {
        let failpoints = Failpoints::default();
        let mut cluster = failing(2, 1000, &failpoints).await;
        settle(&cluster).await;
        failpoints.arm_at(point, Fault::Fail, 1).expect("a point");
        let (target, _pods) = cluster.carried(3).await;
        cluster.phase(Phase::Cutover).await;
        let told = cluster.flipped(target).await;
        // The answer to the flip was lost, not the flip.
        assert_eq!(told.tries, tries, "{point}");
        dig(&cluster, 1).await;
        guarded(&cluster, &[(2, State::Copying, 1); 3]).await;
    }
}

/// A leader that dies at a point is followed by one that ends the cut-over.
async fn dies_at(point: &'static str) {
    let failpoints = Failpoints::default();
    let mut cluster = failing(1, LONG_MS, &failpoints).await;
    settle(&cluster).await;
    let target = Layout { version: 2, shards: 2, ..cluster.plane.topology().await.serving };
    failpoints.arm(point, Fault::Stop).expect("a point");
    if point == "cutover.retreated" {
        // There is nothing to retreat from but a try that fails.
        failpoints.arm_at("cutover.turned", Fault::Fail, 1).expect("a point");
    }
    cluster.plane.retarget(2, Phase::Copying).await;
    let pods = cluster.pods(Work::Copy).await;
    if point != "noting.done" {
        cluster.proven().await;
        dig(&cluster, 1).await;
        cluster.phase(Phase::Cutover).await;
    }
    failpoints.reached(point).await;
    cluster.kill("scheduler-0").await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    if point == "noting.done" {
        cluster.proven().await;
        dig(&cluster, 1).await;
        cluster.phase(Phase::Cutover).await;
    }
    let serves = async |c: &Cluster| c.plane.topology().await.serving == target;
    cluster.wait_until("the flip", serves).await;
    guarded(&cluster, &[(2, State::Copying, 1); 2]).await;
    cluster.ticks(3).await;
    assert!(is_dug(&cluster, 1).await, "{point}");
    dig(&cluster, 2).await;
    drop(pods);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_before_the_guards_turn_is_followed_by_one_that_cuts_over() {
    for point in ["noting.done", "cutover.lag", "cutover.frozen", "cutover.drained"] {
        dies_at(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_after_the_guards_turned_is_followed_by_one_that_ends_it() {
    for point in ["cutover.turned", "cutover.flipped", "cutover.retreated"] {
        dies_at(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_that_were_turned_before_an_abort_are_turned_back() {
    let failpoints = Failpoints::default();
    let mut cluster = failing(2, LONG_MS, &failpoints).await;
    settle(&cluster).await;
    failpoints.arm("cutover.turned", Fault::Stop).expect("a point");
    let (_, pods) = cluster.carried(3).await;
    cluster.phase(Phase::Cutover).await;
    failpoints.reached("cutover.turned").await;
    cluster.kill("scheduler-0").await;
    drop(pods);
    cluster.change(|topology| (topology.phase, topology.target) = (Some(Phase::Aborting), None)).await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    cluster.ticks(3).await;
    dig(&cluster, 1).await;
    let guards = guards(&cluster).await;
    // That of a group only the target has is the operator's to close, before it collects.
    assert!(
        guards[..2].iter().all(|guard| (guard.version, guard.state, guard.target) == (1, State::Open, 0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_re_sharding_notes_nothing_more_and_can_be_tried_again() {
    let mut cluster = Cluster::living(1).await;
    settle(&cluster).await;
    cluster.plane.retarget(2, Phase::Copying).await;
    guarded(&cluster, &[(1, State::Copying, 2), (1, State::Frozen, 2)]).await;
    dig(&cluster, 1).await;
    assert!(cluster.plane.shards[0].run::<bool>(&["EXISTS", "v1:dirty"]).await);
    cluster.change(|topology| (topology.phase, topology.target) = (Some(Phase::Aborting), None)).await;
    let open = async |c: &Cluster| guards(c).await[0].state == State::Open;
    cluster.wait_until("an open guard", open).await;
    assert!(!cluster.plane.shards[0].run::<bool>(&["EXISTS", "v1:dirty"]).await);
    let (target, _pods) = cluster.carried(2).await;
    cluster.phase(Phase::Cutover).await;
    cluster.flipped(target).await;
    assert!(is_dug(&cluster, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_made_before_a_server_was_started_again_is_not_believed() {
    let mut cluster = Cluster::living(1).await;
    let (target, pods) = cluster.carried(2).await;
    drop(pods);
    let mut told = cluster.control.progress(target.version, 0).await.expect("progress").expect("told");
    let truth = told.clone();
    told.lives.insert(1, "another".into());
    cluster.control.set_progress(target.version, 0, &told).await.expect("progress");
    cluster.phase(Phase::Cutover).await;
    let refused = async |c: &Cluster| c.tried().await.is_some();
    cluster.wait_until("a try", refused).await;
    let why = cluster.tried().await.and_then(|tried| tried.why).expect("why");
    assert_eq!(why, "shard 1 was started again since it was proven equal");
    cluster.ticks(3).await;
    cluster.control.set_progress(target.version, 0, &truth).await.expect("progress");
    cluster.flipped(target).await;
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
