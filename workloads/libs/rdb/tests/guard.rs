//! What the guards refuse, and that a refusal changes nothing.

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::GUARD;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::guard::State;
use fortia_rdb::migrate::cutover::Cutover;
use fortia_rdb::world::{Changes, Player, Remembered, World};
use fortia_testredis::{CLUSTER, DataPlane};
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use tokio::sync::watch;

async fn world(plane: &DataPlane) -> (World, watch::Sender<Topology>) {
    let (sender, topology) = watch::channel(plane.topology().await);
    (World::connect(&plane.boot(Service::Ticker), topology), sender)
}

fn one_chunk(value: &'static str) -> Changes {
    Changes {
        chunks: vec![(ChunkPos { x: 0, y: 0 }, Bytes::from_static(value.as_bytes()))],
        ..Changes::default()
    }
}

fn cutover(plane: &DataPlane) -> Cutover {
    Cutover::new(&plane.boot(Service::Scheduler))
}

const HERE: [ChunkPos; 1] = [ChunkPos { x: 0, y: 0 }];

#[tokio::test]
async fn a_late_ticker_is_refused_by_the_guard() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.commit_tick(5, 1, &one_chunk("new"), 0).await.expect("epoch 5 commits");
    let late = world.commit_tick(4, 1, &one_chunk("late"), 0).await;
    assert!(matches!(late, Err(RdbError::Stale { .. })), "{late:?}");
    let late = world.take_actions(4, 2, &[RegionPos { x: 0, y: 0 }], Remembered::default()).await;
    assert!(matches!(late, Err(RdbError::Stale { .. })), "{late:?}");
    assert_eq!(world.chunks(1, &HERE).await, Ok(vec![Some(Bytes::from_static(b"new"))]));
}

#[tokio::test]
async fn an_epoch_raised_by_the_scheduler_shuts_out_tickers_that_have_not_heard_of_it() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    world.raise(7).await.expect("raises");
    for shard in 0..2 {
        assert_eq!(world.guard(shard).await.expect("a guard").tick_epoch, 7);
    }
    assert!(matches!(world.commit_tick(6, 1, &one_chunk("late"), 0).await, Err(RdbError::Stale { .. })));
    assert!(matches!(world.raise(6).await, Err(RdbError::Stale { .. })));
}

#[tokio::test]
async fn a_writer_of_an_older_topology_is_refused() {
    let plane = DataPlane::start(1).await;
    let (world, _sender) = world(&plane).await;
    let (mut newer, guards) = (plane.topology().await, cutover(&plane));
    newer.epoch = 9;
    guards.open(&newer).await.expect("the guard goes to epoch 9");
    let old = world.commit_tick(1, 1, &one_chunk("old"), 0).await;
    assert!(matches!(old, Err(RdbError::Stale { .. })), "{old:?}");
    let old = guards.open(&plane.topology().await).await;
    assert!(matches!(old, Err(RdbError::Stale { .. })), "{old:?}");
}

#[tokio::test]
async fn only_the_writable_version_is_written() {
    let plane = DataPlane::start(1).await;
    let (world, topology) = world(&plane).await;
    topology.send_modify(|topology| topology.serving.version = 2);
    let other = world.commit_tick(1, 1, &one_chunk("other"), 0).await;
    assert!(matches!(other, Err(RdbError::WrongVersion { .. })), "{other:?}");
    assert_eq!(plane.shards[0].run::<u64>(&["DBSIZE"]).await, 1, "only the guard is there");
}

#[tokio::test]
async fn a_frozen_world_takes_no_writes_until_it_is_noted_again_and_keeps_what_it_had() {
    let mut plane = DataPlane::start(1).await;
    let (world, sender) = world(&plane).await;
    world.commit_tick(1, 1, &one_chunk("before"), 0).await.expect("commits");
    let topology = plane.retarget(2, Phase::Cutover).await;
    sender.send_replace(topology.clone());
    let guards = cutover(&plane);
    guards.note(&topology).await.expect("notes");
    let of = async |shard| {
        let guard = world.guard(shard).await.expect("a guard");
        (guard.state, guard.version, guard.target, guard.epoch, guard.since)
    };
    assert_eq!(of(0).await, (State::Copying, 1, 2, 2, 2));
    assert_eq!(of(1).await, (State::Frozen, 1, 2, 2, 2));
    guards.freeze(&topology).await.expect("freezes");
    assert_eq!(of(0).await, (State::Frozen, 1, 2, 2, 2));
    let region = RegionPos { x: 0, y: 0 };
    let refusals = [
        world.commit_tick(1, 2, &one_chunk("during"), 0).await,
        world.push_action(2, region, Bytes::from_static(b"a")).await.map(drop),
        world.take_actions(1, 2, &[region], Remembered::default()).await.map(drop),
        world.lock(1, 2, &[(HERE[0], vec![(1, Bytes::new())])]).await.map(drop),
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(RdbError::Frozen { .. })), "{refused:?}");
    }
    guards.note(&topology).await.expect("goes back");
    assert_eq!(world.chunks(2, &HERE).await, Ok(vec![Some(Bytes::from_static(b"before"))]));
    world.commit_tick(1, 2, &one_chunk("after"), 0).await.expect("commits again");
}

#[tokio::test]
async fn a_turn_moves_writers_over_notes_the_way_back_and_leaves_surplus_groups_frozen() {
    let mut plane = DataPlane::start(2).await;
    let (world, sender) = world(&plane).await;
    world
        .take_actions(1, 3, &[RegionPos { x: 0, y: 0 }], Remembered::default())
        .await
        .expect("tick 3 is closed somewhere");
    let topology = plane.retarget(1, Phase::Cutover).await;
    let guards = cutover(&plane);
    guards.note(&topology).await.expect("notes");
    guards.freeze(&topology).await.expect("freezes");
    // A player who comes in the middle is let in as soon as it is over, and so is one who does not know yet.
    let pusher = world.clone();
    let action = tokio::spawn(async move {
        pusher.push_action(2, RegionPos { x: 0, y: 0 }, Bytes::from_static(b"go")).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut flipped = topology.clone();
    flipped.epoch += 1;
    flipped.serving = Layout { version: 2, shards: 1, ..topology.serving };
    flipped.target = None;
    flipped.previous = Some(topology.serving);
    assert_eq!(guards.turn(&topology, &flipped, 3, 9).await, Ok(vec![(0, 1)]), "what it must not forget");
    let guard = world.guard(0).await.expect("a guard");
    assert_eq!((guard.version, guard.state, guard.target, guard.closed), (2, State::Copying, 1, 3));
    assert_eq!(guard.tick_epoch, 9, "a ticker that slept through it all is refused here, too");
    let left = world.guard(1).await.expect("a guard");
    assert_eq!((left.version, left.state, left.target), (1, State::Frozen, 0));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    sender.send_replace(flipped.clone());
    assert_eq!(action.await.expect("joins"), Ok(4));
    let key = "v2:actions:4:0:0";
    assert_eq!(plane.shards[0].run::<u64>(&["EXISTS", key]).await, 1);
    // Noting goes on as it began: what was written since the turn stays noted.
    guards.note(&flipped).await.expect("notes");
    assert_eq!(plane.shards[0].run::<u64>(&["HEXISTS", "v2:dirty", "actions:4:0:0"]).await, 1);
    guards.open(&flipped).await.expect("opens");
    assert_eq!(plane.shards[0].run::<u64>(&["EXISTS", "v2:dirty"]).await, 0);
}

#[tokio::test]
async fn a_server_of_another_cluster_or_group_or_without_guard_is_never_an_empty_world() {
    let plane = DataPlane::start(2).await;
    let spoil: [&[&str]; 4] = [
        &["HSET", GUARD, "uid", "other"],
        &["HSET", GUARD, "uid", CLUSTER, "group", "shard-1"],
        &["HSET", GUARD, "group", "shard-0", "index", "1"],
        &["FLUSHALL"],
    ];
    for change in spoil {
        plane.shards[0].run::<redis::Value>(change).await;
        let (world, _topology) = world(&plane).await;
        let everywhere: Vec<ChunkPos> = ChunkPos::within(1).collect();
        let read = world.chunks(1, &everywhere).await;
        assert!(matches!(read, Err(RdbError::Foreign { .. })), "{change:?}: {read:?}");
        let written = world.raise(1).await;
        assert!(matches!(written, Err(RdbError::Foreign { .. })), "{change:?}: {written:?}");
    }
}

#[tokio::test]
async fn a_write_on_a_server_that_lost_its_guard_is_refused_on_a_connection_that_still_stands() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.raise(1).await.expect("connects");
    plane.shards[0].run::<()>(&["FLUSHALL"]).await;
    assert!(matches!(world.commit_tick(1, 1, &one_chunk("x"), 0).await, Err(RdbError::Foreign { .. })));
    assert_eq!(plane.shards[0].run::<u64>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn a_call_with_one_refused_operation_writes_nothing() {
    let plane = DataPlane::start(1).await;
    let shard = &plane.shards[0];
    shard.run::<()>(&["SET", "v1:e:2", "not a hash"]).await;
    let (world, _topology) = world(&plane).await;
    let value = Bytes::from_static(b"entity");
    let changes = Changes { entities: vec![(1, value.clone()), (2, value)], ..Changes::default() };
    let refused = world.commit_tick(3, 1, &changes, 0).await;
    assert!(matches!(refused, Err(RdbError::Corrupt { .. })), "{refused:?}");
    assert_eq!(shard.run::<u64>(&["EXISTS", "v1:e:1"]).await, 0);
}

#[tokio::test]
async fn a_value_goes_to_the_slot_of_its_tick_or_to_the_older_one_also_when_a_key_is_named_twice() {
    let plane = DataPlane::start(1).await;
    let shard = &plane.shards[0];
    let write = async |tick: &str, values: [&str; 2]| {
        let call = ["FCALL", "fortia_slots", "3", GUARD, "v1:e:1", "v1:e:1", CLUSTER, "1", "1", "1", tick];
        assert_eq!(shard.run::<u64>(&[&call[..], &values].concat()).await, 2);
        shard.run::<Vec<Option<String>>>(&["HMGET", "v1:e:1", "t0", "d0", "t1", "d1"]).await
    };
    let slots = |slots: [&str; 4]| slots.map(|field| (!field.is_empty()).then(|| field.to_owned())).to_vec();
    assert_eq!(write("9", ["a", "b"]).await, slots(["9", "b", "", ""]));
    assert_eq!(write("10", ["c", "d"]).await, slots(["9", "b", "10", "d"]));
    assert_eq!(write("10", ["e", "f"]).await, slots(["9", "b", "10", "f"]));
    assert_eq!(write("11", ["g", "h"]).await, slots(["11", "h", "10", "f"]));
}

#[tokio::test]
async fn a_value_of_the_past_is_refused_and_takes_no_newer_ones_place() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    for tick in [4, 5] {
        world.commit_tick(1, tick, &one_chunk("new"), 0).await.expect("commits");
    }
    // A worldgen pod that was paused since before the first tick; it is no ticker, so no epoch fences it.
    let late = world.write_chunks(&[(HERE[0], Bytes::from_static(b"late"))]).await;
    assert!(matches!(late, Err(RdbError::Conflict { .. })), "{late:?}");
    for tick in [4, 5] {
        assert_eq!(world.chunks(tick, &HERE).await, Ok(vec![Some(Bytes::from_static(b"new"))]));
    }
}

#[tokio::test]
async fn actions_of_one_call_count_for_the_room_in_their_list() {
    let plane = DataPlane::start(1).await;
    let shard = &plane.shards[0];
    let list = "v1:actions:1:0:0";
    let push: Vec<&str> = ["RPUSH", list].into_iter().chain(std::iter::repeat_n("a", 4095)).collect();
    shard.run::<()>(&push).await;
    let twice = ["FCALL", "fortia_write", "3", GUARD, list, list, CLUSTER, "1", "0", "1"];
    let acts = ["ACT", "2", "1", "a", "ACT", "2", "1", "b"];
    let mut call = redis::cmd(twice[0]);
    call.arg(&twice[1..]).arg(&acts);
    let refused: redis::RedisResult<u64> = call.query_async(&mut shard.connect().await).await;
    assert!(refused.is_err_and(|error| error.code() == Some("FULL")));
    assert_eq!(shard.run::<u64>(&["LLEN", list]).await, 4095);
}

#[tokio::test]
async fn while_a_version_is_copied_every_written_key_is_noted() {
    let plane = DataPlane::start(1).await;
    plane.shards[0].run::<()>(&["HSET", GUARD, "state", "copying", "target", "2"]).await;
    let (world, _topology) = world(&plane).await;
    world.commit_tick(1, 1, &one_chunk("x"), 0).await.expect("commits");
    let noted = async || -> Vec<String> { plane.shards[0].run(&["HGETALL", "v1:dirty"]).await };
    assert_eq!(noted().await, ["", "1", "c:0:0", "1"]);
    world.commit_tick(1, 2, &one_chunk("y"), 0).await.expect("commits");
    assert_eq!(noted().await, ["", "2", "c:0:0", "2"], "its stamp tells that it was written again");
    let refused = world.push_action(2, RegionPos { x: 1, y: 0 }, Bytes::from_static(b"a")).await;
    assert_eq!(refused, Ok(2));
    world
        .create_player("p", &Player { joined_ms: 1, start: BlockPos { x: 0, y: 0, z: 0 } }, &[7])
        .await
        .expect("joins");
    assert_eq!(noted().await[4..], ["actions:2:1:0", "3", "ue:p", "4", "u:p", "5"]);
    world.take_actions(1, 3, &[], Remembered::default()).await.expect("takes");
    assert_eq!(noted().await[1], "6", "lists that are removed are noted");
    world.lock(1, 3, &[(HERE[0], vec![(1, Bytes::from_static(&[b'0'; 44]))])]).await.expect("locks");
    assert_eq!(noted().await[1], "6", "locks are not carried");
}

#[tokio::test]
async fn no_tick_is_taken_from_a_shard_that_came_back_without_a_part_of_a_commit() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let parts = async || world.guard(0).await.expect("a guard").parts;
    world.commit_tick(1, 1, &one_chunk("a"), 0).await.expect("commits");
    let mut commit = world.commit(1, 2);
    commit.write(&one_chunk("b")).await.expect("writes");
    commit.write(&one_chunk("c")).await.expect("writes");
    let confirmed = commit.end(|_| 0.into()).await.expect("ends");
    assert_eq!((confirmed, parts().await), (vec![(0, 3)], 3), "each part counts");
    let take = async |parts: &[u64]| world.take_actions(1, 3, &[], Remembered { parts, again: false }).await;
    assert_eq!(take(&[3]).await, Ok(vec![]));
    // As a file without its end would have it.
    plane.shards[0].run::<()>(&["HSET", GUARD, "parts", "2"]).await;
    let forgot = take(&[3]).await;
    assert!(
        matches!(&forgot, Err(RdbError::Forgotten { reason, .. }) if reason == "2 of 3 parts of commits"),
        "{forgot:?}"
    );
    assert_eq!(take(&[]).await, Ok(vec![]), "nothing is known of what it had");
}

#[tokio::test]
async fn a_tick_whose_outcome_may_be_written_is_taken_again_only_where_its_actions_are_known() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let again = Remembered { parts: &[], again: true };
    let refused = world.take_actions(1, 5, &[], again).await;
    assert!(matches!(refused, Err(RdbError::Forgotten { .. })), "{refused:?}");
    world.take_actions(1, 5, &[], Remembered::default()).await.expect("takes");
    assert_eq!(world.take_actions(2, 5, &[], again).await, Ok(vec![]));
}

#[tokio::test]
async fn while_a_version_is_kept_lists_of_actions_that_came_and_went_leave_no_notes() {
    let plane = DataPlane::start(1).await;
    let shard = &plane.shards[0];
    shard.run::<()>(&["HSET", GUARD, "version", "2", "state", "copying", "target", "1"]).await;
    let mut topology = plane.topology().await;
    topology.serving.version = 2;
    let (_sender, topology) = watch::channel(topology);
    let world = World::connect(&plane.boot(Service::Ticker), topology);
    let act = async |tick| {
        let region = RegionPos { x: tick as i32 % 3, y: 0 };
        world.push_action(tick, region, Bytes::from_static(b"a")).await.expect("acts");
        world.take_actions(1, tick, &[region], Remembered::default()).await.expect("takes");
    };
    // One that was carried when the version before still served: that it is gone is news there.
    shard.run::<()>(&["RPUSH", "v2:actions:1:0:0", "a"]).await;
    shard.run::<()>(&["SADD", "v2:acting", "1:0:0"]).await;
    for tick in 2..300 {
        act(tick).await;
    }
    let noted: Vec<String> = shard.run(&["HKEYS", "v2:dirty"]).await;
    assert_eq!(noted, ["", "actions:1:0:0", "actions:299:2:0"], "the running tick's, and the carried one");
}

#[tokio::test]
async fn a_service_with_its_own_user_needs_no_more_than_its_keys_and_commands() {
    let mut plane = DataPlane::start(1).await;
    let shard = &mut plane.shards[0];
    let rules = "ACL SETUSER ticker on >secret resetkeys ~v1:* ~fortia:guard -@all \
                 +fcall +hget +hmget +hset +hincrby +type +del +expire +rpush +llen +lrange +sadd +srem +smembers +hgetall";
    shard.run::<()>(&rules.split_whitespace().collect::<Vec<_>>()).await;
    shard.run::<()>(&["ACL", "SETUSER", "default", "resetpass", ">other"]).await;
    let mut boot = plane.boot(Service::Ticker);
    let (_sender, topology) = watch::channel(plane.topology().await);
    boot.password = "wrong".into();
    let refused = World::connect(&boot, topology.clone()).raise(1).await;
    assert!(matches!(refused, Err(RdbError::Fenced { .. })), "{refused:?}");
    boot.password = "secret".into();
    let world = World::connect(&boot, topology);
    let region = RegionPos { x: 0, y: 0 };
    let action = Bytes::from_static(b"a");
    world.push_action(1, region, action.clone()).await.expect("pushes");
    assert_eq!(
        world.take_actions(1, 1, &[region], Remembered::default()).await,
        Ok(vec![(region, vec![action])])
    );
    world.lock(1, 1, &[(HERE[0], vec![(1, Bytes::from_static(&[b'0'; 44]))])]).await.expect("locks");
    assert!(matches!(world.claims(1, 1, &HERE).await, Ok(claims) if claims[0].is_some()));
    assert_eq!(world.take_actions(1, 2, &[region], Remembered::default()).await, Ok(vec![]));
    let changes = Changes { unlocked: HERE.into(), ..one_chunk("x") };
    world.commit_tick(1, 1, &changes, 0).await.expect("commits");
}
