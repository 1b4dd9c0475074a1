//! Reading and writing the world on real shards.

use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Changes, Info, Player, World};
use fortia_testredis::{DataPlane, TestServer};
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use tokio::sync::watch;

async fn world(plane: &DataPlane) -> (World, watch::Sender<Topology>) {
    let (sender, topology) = watch::channel(plane.topology().await);
    (World::connect(&plane.boot(Service::Game), topology), sender)
}

fn text(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn chunk(value: &str) -> Changes {
    Changes { chunks: vec![(ChunkPos { x: 3, y: -3 }, text(value))], ..Changes::default() }
}

const AT: [ChunkPos; 1] = [ChunkPos { x: 3, y: -3 }];

#[tokio::test]
async fn readers_see_the_committed_tick_while_the_next_is_half_written() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    world.write_chunks(&[(AT[0], text("0"))]).await.expect("worldgen writes");
    world.commit_tick(1, 1, &chunk("1"), 0).await.expect("commits");
    assert_eq!(world.chunks(0, &AT).await, Ok(vec![Some(text("0"))]));
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
    // Tick 2 dies half-way and is run again under a new epoch.
    world.commit_tick(1, 2, &chunk("half"), 0).await.expect("commits");
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
    world.commit_tick(2, 2, &chunk("2"), 0).await.expect("commits");
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
    assert_eq!(world.chunks(2, &AT).await, Ok(vec![Some(text("2"))]));
    assert_eq!(world.chunks(9, &AT).await, Ok(vec![Some(text("2"))]));
}

#[tokio::test]
async fn a_reader_whose_tick_is_overwritten_is_told_to_fetch_it_again() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    for tick in 1..=3 {
        world.commit_tick(1, tick, &chunk(&tick.to_string()), 0).await.expect("commits");
    }
    let old = world.chunks(1, &AT).await;
    assert!(matches!(&old, Err(error @ RdbError::TooNew { .. }) if error.is_retryable()), "{old:?}");
}

#[tokio::test]
async fn an_empty_value_removes_the_thing_from_the_next_tick_on() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let entity = |value: &str| Changes { entities: vec![(7, text(value))], ..Changes::default() };
    world.commit_tick(1, 1, &entity("alive"), 0).await.expect("commits");
    world.commit_tick(1, 2, &entity(""), 0).await.expect("commits");
    assert_eq!(world.entities(1, &[7, 8]).await, Ok(vec![Some(text("alive")), None]));
    assert_eq!(world.entities(2, &[7]).await, Ok(vec![None]));
}

#[tokio::test]
async fn chunks_of_all_shards_come_back_in_the_order_asked() {
    let plane = DataPlane::start(3).await;
    let (world, _topology) = world(&plane).await;
    // More than one call's worth on each shard.
    let all: Vec<(ChunkPos, Bytes)> = ChunkPos::within(20).map(|at| (at, text(format!("{at}")))).collect();
    world.write_chunks(&all).await.expect("writes");
    let mut at: Vec<ChunkPos> = all.iter().map(|(at, _)| *at).collect();
    at.push(ChunkPos { x: 21, y: 0 });
    let read = world.chunks(0, &at).await.expect("reads");
    assert_eq!(read.last(), Some(&None));
    assert!(all.iter().zip(&read).all(|((_, wrote), read)| read.as_ref() == Some(wrote)));
    for shard in &plane.shards {
        assert!(shard.run::<u64>(&["DBSIZE"]).await > 400, "keys are spread");
    }
}

#[tokio::test]
async fn an_action_for_a_tick_already_read_runs_in_the_next_one() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    let region = RegionPos { x: 1, y: -1 };
    assert_eq!(world.push_action(5, region, text("a")).await, Ok(5));
    assert_eq!(world.push_action(5, region, text("b")).await, Ok(5));
    let taken = Ok(vec![(region, vec![text("a"), text("b")])]);
    assert_eq!(world.take_actions(1, 5, &[region]).await, taken);
    let later = world.push_action(5, region, text("c")).await.expect("goes later");
    assert!(later > 5, "{later}");
    // A tick that is run again reads the same.
    assert_eq!(world.take_actions(2, 5, &[region]).await, taken);
    assert_eq!(world.take_actions(2, later, &[region]).await, Ok(vec![(region, vec![text("c")])]));
}

#[tokio::test]
async fn actions_are_kept_until_their_tick_is_committed_and_gone_a_tick_later() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let region = RegionPos { x: 0, y: 0 };
    world.push_action(1, region, text("a")).await.expect("pushes");
    let read = Changes { read_actions: vec![region], ..Changes::default() };
    world.commit_tick(1, 1, &read, 0).await.expect("commits");
    assert_eq!(plane.shards[0].run::<u64>(&["EXISTS", "v1:actions:1:0:0"]).await, 1);
    world.commit_tick(1, 2, &read, 0).await.expect("commits");
    assert_eq!(plane.shards[0].run::<u64>(&["EXISTS", "v1:actions:1:0:0"]).await, 0);
}

#[tokio::test]
async fn world_and_player_records_come_back_as_written() {
    let plane = DataPlane::start(3).await;
    let (world, _topology) = world(&plane).await;
    assert_eq!(world.info().await, Ok(None));
    assert_eq!(world.player("ada").await, Ok(None));
    let info = Info { seed: u64::MAX, size: 8, created_ms: 1_700_000_000_000, tick_period_ms: 1000 };
    world.write_info(&info).await.expect("writes");
    assert_eq!(world.info().await, Ok(Some(info)));
    let player = Player { joined_ms: 5, start: BlockPos { x: -4, y: 9, z: 30 } };
    for _ in 0..2 {
        world.create_player("ada", &player, &[9, 3]).await.expect("writes");
    }
    assert_eq!(world.player("ada").await, Ok(Some(player)));
    assert_eq!(world.player_entities("ada").await, Ok(vec![3, 9]));
    assert_eq!(world.player_entities("bob").await, Ok(vec![]));
}

#[tokio::test]
async fn a_commit_counts_only_when_enough_replicas_have_it() {
    let mut plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let alone = world.commit_tick(1, 1, &chunk("1"), 1).await;
    assert!(matches!(alone, Err(RdbError::NotReplicated { wanted: 1, confirmed: 0, .. })), "{alone:?}");
    let replica = TestServer::start().await;
    replica.follow(&plane.shards[0]).await;
    world.commit_tick(1, 1, &chunk("1"), 1).await.expect("one replica confirms");
    plane.shards[0].kill();
}

#[tokio::test]
async fn the_world_stays_visible_through_a_replica_while_its_primary_is_dead() {
    let mut plane = DataPlane::start(1).await;
    let replica = TestServer::start().await;
    replica.follow(&plane.shards[0]).await;
    let mut topology = plane.topology().await;
    topology.groups[0].replicas = vec![replica.address()];
    let (_sender, topology) = watch::channel(topology);
    let world = World::connect(&plane.boot(Service::Game), topology);
    world.commit_tick(1, 1, &chunk("1"), 1).await.expect("commits");
    plane.shards[0].kill();
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
    let write = world.commit_tick(1, 2, &chunk("2"), 0).await;
    assert!(matches!(write, Err(RdbError::Unreachable { .. })), "{write:?}");
}

#[tokio::test]
async fn who_reads_primaries_alone_gets_an_error_and_no_old_value_while_the_primary_is_dead() {
    let mut plane = DataPlane::start(1).await;
    let replica = TestServer::start().await;
    replica.follow(&plane.shards[0]).await;
    let mut topology = plane.topology().await;
    topology.groups[0].replicas = vec![replica.address()];
    let (_sender, topology) = watch::channel(topology);
    let game = World::connect(&plane.boot(Service::Game), topology);
    let ticker = game.clone().primary_only();
    game.commit_tick(1, 1, &chunk("1"), 1).await.expect("commits");
    // The replica falls behind, then the primary dies.
    replica.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    game.commit_tick(1, 2, &chunk("2"), 0).await.expect("commits");
    assert_eq!(ticker.chunks(2, &AT).await, Ok(vec![Some(text("2"))]));
    plane.shards[0].kill();
    assert_eq!(game.chunks(2, &AT).await, Ok(vec![Some(text("1"))]));
    let reads = [ticker.chunks(2, &AT).await.map(drop), ticker.entities(2, &[1]).await.map(drop)];
    for read in reads {
        assert!(matches!(&read, Err(error) if error.is_retryable()), "{read:?}");
    }
}

#[tokio::test]
async fn a_write_to_a_demoted_primary_is_refused_as_fenced() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.raise(1).await.expect("connects");
    plane.shards[0].run::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let write = world.commit_tick(1, 1, &chunk("1"), 0).await;
    assert!(matches!(&write, Err(error @ RdbError::Fenced { .. }) if error.is_retryable()), "{write:?}");
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.commit_tick(1, 1, &chunk("1"), 0).await.expect("commits");
    plane.shards[0].run::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
}

#[tokio::test]
async fn a_server_that_hangs_fails_the_request_within_seconds() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.raise(1).await.expect("connects");
    plane.shards[0].run::<()>(&["CLIENT", "PAUSE", "20000", "ALL"]).await;
    let begun = std::time::Instant::now();
    let asked = world.chunks(1, &AT).await;
    assert!(matches!(asked, Err(RdbError::Unreachable { .. })), "{asked:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
