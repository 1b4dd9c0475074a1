//! Worldgen as a process on real shards: it makes the world, goes on where it was killed, and tells how far it is.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_common::boot::{Service, var};
use fortia_common::records::{Config, Durability, EditStrategy, WORLD_PROGRESS, WorldConfig, WorldProgress};
use fortia_rdb::world::{Info, World};
use fortia_testredis::{CLUSTER, DataPlane};
use fortia_vec::ChunkPos;
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::generate::Generator;
use tokio::sync::watch;

const RADIUS: u32 = 24;
const CHUNKS: u64 = 49 * 49;
const PATIENCE: Duration = Duration::from_secs(60);

async fn plane(seed: u64) -> (DataPlane, World) {
    let plane = DataPlane::start(2).await;
    let config = Config {
        generation: 1,
        world: WorldConfig {
            name: "test".into(),
            seed,
            radius: RADIUS,
            limit: RADIUS + 8,
            tick_period_ms: 50,
        },
        edit_strategy: EditStrategy::Queue,
        durability: Durability::Memory,
        game_address: "127.0.0.1:0".into(),
        logs: None,
        max_cutover_pause_ms: 1000,
        accepted_loss: None,
    };
    plane.set_config(&config).await;
    let (_, topology) = watch::channel(plane.topology().await);
    let world = World::connect(&plane.boot(Service::Worldgen), topology);
    (plane, world)
}

fn worldgen(plane: &DataPlane) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fortia-worldgen"))
        .env(var::INSTANCE, "worldgen-0")
        .env(var::CLUSTER, CLUSTER)
        .env(var::CONTROL_DB, plane.control_db.address())
        .env(var::LISTEN, "127.0.0.1:0")
        .env(var::ADMIN, "127.0.0.1:0")
        .env(var::LOG, "warn")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .spawn()
        .expect("worldgen starts")
}

/// Keys in all shards: chunks, and a guard on each.
async fn stored(plane: &DataPlane) -> u64 {
    let mut keys = 0;
    for shard in &plane.shards {
        keys += shard.run::<u64>(&["DBSIZE"]).await - 1;
    }
    keys
}

async fn ended(mut child: Child) -> bool {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a process") {
            return status.success();
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("worldgen does not end");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn progress(plane: &DataPlane) -> Option<WorldProgress> {
    let json: Option<String> = plane.control_db.run(&["GET", WORLD_PROGRESS]).await;
    json.map(|json| serde_json::from_str(&json).expect("a progress"))
}

#[tokio::test]
async fn a_killed_worldgen_goes_on_where_it_was_and_makes_the_same_world() {
    let (plane, world) = plane(7).await;
    let mut first = worldgen(&plane);
    let begun = Instant::now();
    while stored(&plane).await < CHUNKS / 8 {
        assert!(begun.elapsed() < PATIENCE, "worldgen makes nothing");
        assert!(first.try_wait().expect("a process").is_none(), "worldgen ended too early to be killed");
    }
    first.kill().expect("killed");
    first.wait().expect("a process");
    let (left, told) = (stored(&plane).await, progress(&plane).await);
    assert!(left < CHUNKS, "worldgen was quicker than its killer");
    assert_eq!(told.map(|told| told.of), Some(CHUNKS));
    assert_eq!(world.info().await, Ok(None), "half a world has no info");

    // One that was stored is marked: it must not be made again.
    let all: Vec<ChunkPos> = ChunkPos::within(RADIUS).collect();
    let there = world.chunks(0, &all).await.expect("chunks");
    let (marked, _) = all.iter().zip(there).find(|(_, bytes)| bytes.is_some()).expect("a stored chunk");
    let mut mark = Column::empty(*marked);
    mark.set(marked.origin().local().expect("local"), Block::Planks);
    world.write_chunks(&[(*marked, Bytes::from(mark.encode()))]).await.expect("marked");

    assert!(ended(worldgen(&plane)).await, "the second run makes the world");
    let info = world.info().await.expect("info").expect("the world is complete");
    assert_eq!(
        Info { created_ms: 0, ..info },
        Info { seed: 7, radius: RADIUS, limit: RADIUS + 8, created_ms: 0, tick_period_ms: 50 }
    );
    assert_eq!(progress(&plane).await, Some(WorldProgress { chunks: CHUNKS, of: CHUNKS }));
    let generator = Generator::new(7);
    for (at, bytes) in all.iter().zip(world.chunks(0, &all).await.expect("chunks")) {
        let wanted = if at == marked { mark.encode() } else { generator.column(*at).encode() };
        assert_eq!(bytes.as_deref(), Some(&wanted[..]), "chunk {at}");
    }

    assert!(ended(worldgen(&plane)).await, "a third run finds the world");
    assert_eq!(world.info().await, Ok(Some(info)));
}

#[tokio::test]
async fn a_world_of_another_seed_is_left_alone() {
    let (plane, world) = plane(7).await;
    let other = Info { seed: 8, radius: RADIUS, limit: RADIUS + 8, created_ms: 1, tick_period_ms: 50 };
    world.write_info(&other).await.expect("written");
    assert!(!ended(worldgen(&plane)).await, "worldgen refuses");
    assert_eq!((stored(&plane).await, world.info().await), (1, Ok(Some(other))));
}
