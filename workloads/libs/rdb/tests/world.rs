//! Reading and writing the world on real shards.

use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Changes, Info, Player, Remembered, World};
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

/// A replica of the only shard, and the topology that lists it.
async fn with_replica(plane: &DataPlane) -> (TestServer, watch::Sender<Topology>, watch::Receiver<Topology>) {
    let replica = TestServer::start().await;
    replica.follow(&plane.shards[0]).await;
    let mut topology = plane.topology().await;
    topology.groups[0].replicas = vec![replica.address()];
    let (sender, topology) = watch::channel(topology);
    (replica, sender, topology)
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
    assert_eq!(world.take_actions(1, 5, &[region], Remembered::default()).await, taken);
    let later = world.push_action(5, region, text("c")).await.expect("goes later");
    assert!(later > 5, "{later}");
    // A tick that is run again reads the same.
    assert_eq!(world.take_actions(2, 5, &[region], Remembered::default()).await, taken);
    assert_eq!(
        world.take_actions(2, later, &[region], Remembered::default()).await,
        Ok(vec![(region, vec![text("c")])])
    );
}

#[tokio::test]
async fn actions_are_kept_until_their_tick_is_committed_and_gone_when_the_next_begins() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let region = RegionPos { x: 0, y: 0 };
    world.push_action(1, region, text("a")).await.expect("pushes");
    world.take_actions(1, 1, &[region], Remembered::default()).await.expect("takes");
    world.commit_tick(1, 1, &chunk("1"), 0).await.expect("commits");
    let keys = ["EXISTS", "v1:actions:1:0:0", "v1:acting"];
    assert_eq!(plane.shards[0].run::<u64>(&keys).await, 2);
    assert_eq!(world.take_actions(1, 2, &[region], Remembered::default()).await, Ok(vec![]));
    assert_eq!(plane.shards[0].run::<u64>(&keys).await, 0);
}

#[tokio::test]
async fn a_ticker_takes_the_actions_of_its_regions_alone_from_all_shards() {
    let plane = DataPlane::start(3).await;
    let (world, _topology) = world(&plane).await;
    let all: Vec<RegionPos> = (-4..4).map(|x| RegionPos { x, y: 1 }).collect();
    for region in &all {
        world.push_action(1, *region, text(region.to_string())).await.expect("pushes");
        world.push_action(2, *region, text("later")).await.expect("pushes");
    }
    let mine: Vec<RegionPos> = all.iter().copied().filter(|region| region.x % 2 == 0).collect();
    let taken = world.take_actions(1, 1, &mine, Remembered::default()).await.expect("takes");
    let wanted: Vec<_> = mine.iter().map(|region| (*region, vec![text(region.to_string())])).collect();
    assert_eq!(taken, wanted);
}

#[tokio::test]
async fn a_full_list_of_actions_refuses_and_the_ticks_after_it_take_them() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    let region = RegionPos { x: 0, y: 0 };
    let list = |tick: u64| format!("v1:actions:{tick}:0:0");
    for tick in 1..=3 {
        let key = list(tick);
        let push: Vec<&str> = ["RPUSH", &key].into_iter().chain(std::iter::repeat_n("a", 4095)).collect();
        plane.shards[0].run::<()>(&push).await;
        assert_eq!(world.push_action(tick, region, text("last")).await, Ok(tick));
    }
    let refused = world.push_action(1, region, text("more")).await;
    assert!(matches!(&refused, Err(error @ RdbError::Full { .. }) if error.is_retryable()), "{refused:?}");
    assert_eq!(plane.shards[0].run::<u64>(&["LLEN", &list(3)]).await, 4096);
    let taken = world.take_actions(1, 1, &[region], Remembered::default()).await.expect("takes");
    assert_eq!((taken.len(), taken[0].1.len()), (1, 4096));
    assert_eq!(world.push_action(1, region, text("later")).await, Ok(4));
}

#[tokio::test]
async fn a_lock_table_that_nobody_removes_goes_by_itself() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    // A table made anew in place of an old one is no different.
    for tick in [1, 2] {
        world.lock(1, tick, &[(AT[0], vec![(5, claim(1, "edit"))])]).await.expect("locks");
        let left: i64 = plane.shards[0].run(&["TTL", "v1:lock:3:-3"]).await;
        assert!((1..=600).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn a_record_that_goes_leaves_neither_its_key_nor_its_place_on_its_owners_list() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    let ada = || "ada".to_owned();
    let born = Changes {
        entities: vec![(7, text("seven")), (8, text("eight"))],
        born: vec![(ada(), 7), (ada(), 8)],
        ..Changes::default()
    };
    world.commit_tick(1, 1, &born, 0).await.expect("commits");
    let gone = Changes { gone: vec![(ada(), 7)], ..Changes::default() };
    // A tick that is run again removes it again.
    for _ in 0..2 {
        world.commit_tick(1, 2, &gone, 0).await.expect("commits");
        assert_eq!(world.entities(2, &[7, 8]).await, Ok(vec![None, Some(text("eight"))]));
        assert_eq!(world.player_entities("ada").await, Ok(vec![8]));
    }
    for shard in &plane.shards {
        assert_eq!(shard.run::<i64>(&["EXISTS", "v1:e:7"]).await, 0, "nothing is left of it");
    }
}

fn claim(rank: u64, edit: &str) -> Bytes {
    text(format!("{rank:032}{edit}"))
}

#[tokio::test]
async fn the_first_rank_keeps_the_block_whoever_was_first_to_claim_it() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    let there = ChunkPos { x: -9, y: 2 };
    let early = [
        (AT[0], vec![(5, claim(7, "early")), (6, claim(1, "alone"))]),
        (there, vec![(5, claim(4, "there"))]),
    ];
    let locked = world.lock(3, 8, &early).await.expect("locks");
    assert_eq!((locked.locks, locked.conflicts), (2, 0));
    let better = [(AT[0], vec![(5, claim(2, "better"))])];
    assert_eq!(world.lock(3, 8, &better).await.expect("locks").conflicts, 1);
    let worse = [(AT[0], vec![(5, claim(3, "worse")), (9, claim(9, "new"))])];
    for _ in 0..2 {
        world.lock(3, 8, &worse).await.expect("locks");
    }
    let claims = world.claims(3, 8, &[AT[0], there, ChunkPos { x: 0, y: 0 }]).await.expect("reads");
    let here = vec![(5, text("better")), (6, text("alone")), (9, text("new"))];
    assert_eq!(claims, [Some(here), Some(vec![(5, text("there"))]), None]);
    let unlock = Changes { unlocked: vec![AT[0], there], ..Changes::default() };
    world.commit_tick(3, 8, &unlock, 0).await.expect("commits");
    assert_eq!(world.claims(3, 8, &AT).await, Ok(vec![None]));
}

#[tokio::test]
async fn a_lock_of_a_dead_ticker_is_worthless_under_the_next_epoch_and_nobody_waits_for_it() {
    let plane = DataPlane::start(1).await;
    let (world, _topology) = world(&plane).await;
    world.lock(3, 8, &[(AT[0], vec![(5, claim(1, "dead")), (6, claim(1, "dead"))])]).await.expect("locks");
    world.raise(4).await.expect("raises");
    let late = world.lock(3, 8, &[(AT[0], vec![(7, claim(0, "late"))])]).await;
    assert!(matches!(late, Err(RdbError::Stale { .. })), "{late:?}");
    assert_eq!(world.claims(4, 8, &AT).await, Ok(vec![None]));
    world.lock(4, 8, &[(AT[0], vec![(5, claim(9, "alive"))])]).await.expect("locks");
    assert_eq!(world.claims(4, 8, &AT).await, Ok(vec![Some(vec![(5, text("alive"))])]));
    assert_eq!(world.claims(3, 8, &AT).await, Ok(vec![None]));
}

#[tokio::test]
async fn more_claims_than_one_call_takes_come_back_all() {
    let plane = DataPlane::start(2).await;
    let (world, _topology) = world(&plane).await;
    let of_chunk = |n: u32| (0..n).map(|block| (block, claim(u64::from(block), "edit"))).collect::<Vec<_>>();
    let claims: Vec<_> = ChunkPos::within(3)
        .map(|at| (at, of_chunk(300)))
        .chain([(ChunkPos { x: 9, y: 9 }, of_chunk(5000))])
        .collect();
    let chunks: Vec<ChunkPos> = claims.iter().map(|(at, _)| *at).collect();
    for again in [0, 1] {
        let locked = world.lock(1, 1, &claims).await.expect("locks");
        assert_eq!((locked.locks, locked.conflicts), (chunks.len() as u64, 0), "run {again}");
    }
    let read = world.claims(1, 1, &chunks).await.expect("reads");
    assert!(
        read.iter().zip(&claims).all(|(read, (_, claims))| read.as_ref().map(Vec::len) == Some(claims.len()))
    );
}

#[tokio::test]
async fn world_and_player_records_come_back_as_written() {
    let plane = DataPlane::start(3).await;
    let (world, _topology) = world(&plane).await;
    assert_eq!(world.info().await, Ok(None));
    assert_eq!(world.player("ada").await, Ok(None));
    let info =
        Info { seed: u64::MAX, radius: 8, limit: 32, created_ms: 1_700_000_000_000, tick_period_ms: 1000 };
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
    let (_replica, _sender, topology) = with_replica(&plane).await;
    let world = World::connect(&plane.boot(Service::Game), topology);
    world.commit_tick(1, 1, &chunk("1"), 1).await.expect("commits");
    plane.shards[0].kill();
    assert_eq!(world.chunks(1, &AT).await, Ok(vec![Some(text("1"))]));
    let write = world.commit_tick(1, 2, &chunk("2"), 0).await;
    assert!(matches!(write, Err(RdbError::Unreachable { .. })), "{write:?}");
}

#[tokio::test]
async fn of_two_replicas_the_one_that_has_every_commit_is_read_while_the_primary_is_dead() {
    for behind in 0..2 {
        let mut plane = DataPlane::start(1).await;
        let replicas = [TestServer::start().await, TestServer::start().await];
        let mut topology = plane.topology().await;
        for replica in &replicas {
            replica.follow(&plane.shards[0]).await;
            topology.groups[0].replicas.push(replica.address());
        }
        let (_sender, topology) = watch::channel(topology);
        let world = World::connect(&plane.boot(Service::Game), topology);
        world.commit_tick(1, 1, &chunk("1"), 2).await.expect("both have it");
        replicas[behind].run::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
        world.commit_tick(1, 2, &chunk("2"), 1).await.expect("the other one has it");
        plane.shards[0].kill();
        assert_eq!(world.chunks(2, &AT).await, Ok(vec![Some(text("2"))]), "replica {behind} is behind");
    }
}

#[tokio::test]
async fn who_reads_primaries_alone_gets_an_error_and_no_old_value_while_the_primary_is_dead() {
    let mut plane = DataPlane::start(1).await;
    let (replica, _sender, topology) = with_replica(&plane).await;
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
