//! A world that grows while it is ticked: chunks beyond the first radius are made, stored and served.

use crate::cluster::{Cluster, SEED, config};
use fortia_common::records::{Config, WorldConfig};
use fortia_proto::world::v1::{self as world, Action, Spawn, action};
use fortia_vec::ChunkPos;
use fortia_world::generate::Generator;
use fortia_world::start;

const RADIUS: u32 = 1;

/// Chunks there are at the committed tick.
async fn made(cluster: &Cluster) -> Vec<ChunkPos> {
    let all: Vec<ChunkPos> = ChunkPos::within(8).collect();
    let found = cluster.world().await.chunks(cluster.committed().await, &all).await.expect("a read");
    all.into_iter().zip(found).filter_map(|(at, bytes)| bytes.map(|_| at)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_near_a_player_are_made_and_stored_and_found_again_by_the_next_ticker() {
    let small = WorldConfig { radius: RADIUS, limit: 8, ..config(SEED).world };
    let mut cluster = Cluster::configured(2, &Config { world: small, ..config(SEED) }).await.alive().await;
    let first: Vec<ChunkPos> = ChunkPos::within(RADIUS).collect();
    assert_eq!(made(&cluster).await, first, "nobody is there yet");

    let at = start::position(SEED, RADIUS, "ann");
    let place = world::BlockPos { x: at.x, y: at.y, z: at.z };
    let units = start::unit_ids("ann", 1);
    let spawn = action::Kind::Spawn(Spawn { owner: "ann".into(), at: Some(place), units });
    cluster.act(at.region(), &Action { id: 1, player: "ann".into(), kind: Some(spawn) }).await;
    let far = at.chunk().offset(if at.chunk().x < 0 { -2 } else { 2 }, 0);
    cluster.wait_until("a chunk near the player to be made", async |c| made(c).await.contains(&far)).await;
    assert_eq!(cluster.chunk(far).await, Generator::new(SEED).column(far).encode());

    let before = made(&cluster).await;
    cluster.kill("ticker-0").await;
    cluster.ticks(3).await;
    assert_eq!(made(&cluster).await, before, "what was made stays, and nobody came near more");
}
