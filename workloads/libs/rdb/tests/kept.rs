//! Reads of a version that is, or is not, there any more.

use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::GUARD;
use fortia_common::server::TRUST;
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Changes, World};
use fortia_testredis::{DataPlane, TestServer};
use fortia_vec::ChunkPos;
use tokio::sync::watch;
use tokio::time::Instant;

const HERE: [ChunkPos; 1] = [ChunkPos { x: 0, y: 0 }];

/// A world of one chunk, on one shard.
async fn world(plane: &DataPlane) -> (World, watch::Sender<Topology>) {
    let (sender, topology) = watch::channel(plane.topology().await);
    let world = World::connect(&plane.boot(Service::Game), topology);
    let chunks = vec![(HERE[0], Bytes::from_static(b"a"))];
    world.commit_tick(1, 1, &Changes { chunks, ..Changes::default() }, 0).await.expect("commits");
    (world, sender)
}

async fn guard(server: &TestServer, version: &str, state: &str, target: &str) {
    server.run::<()>(&["HSET", GUARD, "version", version, "state", state, "target", target]).await;
}

fn there() -> Result<Vec<Option<Bytes>>, RdbError> {
    Ok(vec![Some(Bytes::from_static(b"a"))])
}

#[tokio::test]
async fn a_version_that_is_kept_for_the_way_back_is_read_and_one_that_may_be_collected_is_not() {
    let plane = DataPlane::start(1).await;
    let (world, topology) = world(&plane).await;
    let shard = &plane.shards[0];
    guard(shard, "2", "copying", "1").await;
    assert_eq!(world.chunks(1, &HERE).await, there());
    guard(shard, "2", "open", "0").await;
    drop(topology);
    let refused = world.chunks(1, &HERE).await;
    assert!(matches!(refused, Err(RdbError::Outdated { version: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_read_that_comes_too_late_for_its_version_is_made_again_under_the_topology_that_follows() {
    let plane = DataPlane::start(1).await;
    let (world, topology) = world(&plane).await;
    let shard = &plane.shards[0];
    shard.run::<()>(&["RENAME", "v1:c:0:0", "v2:c:0:0"]).await;
    guard(shard, "2", "open", "0").await;
    let read = tokio::spawn(async move { world.chunks(1, &HERE).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!read.is_finished(), "it waits for the topology");
    topology.send_modify(|topology| (topology.epoch, topology.serving.version) = (2, 2));
    assert_eq!(read.await.expect("it reads"), there());
}

#[tokio::test]
async fn a_group_that_serves_nothing_any_more_is_read_only_by_who_is_waited_for() {
    let plane = DataPlane::start(1).await;
    let (world, topology) = world(&plane).await;
    guard(&plane.shards[0], "1", "frozen", "0").await;
    drop(topology);
    let (registration, registered) = watch::channel(Instant::now());
    let world = world.registered(registered);
    assert_eq!(world.chunks(1, &HERE).await, there());
    registration.send_replace(Instant::now() - TRUST);
    let refused = world.chunks(1, &HERE).await;
    assert!(matches!(refused, Err(RdbError::Outdated { version: 1, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_replica_that_has_not_heard_of_the_cut_over_does_not_show_what_was_half_made_on_it() {
    let mut plane = DataPlane::start(1).await;
    let (world, topology) = world(&plane).await;
    let replica = plane.shards[0].replica(&[]).await;
    replica.run::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    guard(&replica, "1", "copying", "2").await;
    plane.shards[0].kill();
    topology.send_modify(|topology| {
        (topology.epoch, topology.serving.version) = (2, 2);
        topology.groups[0].replicas = vec![replica.address()];
    });
    let refused = world.chunks(1, &HERE).await;
    assert!(matches!(refused, Err(RdbError::Unreachable { .. })), "{refused:?}");
}
