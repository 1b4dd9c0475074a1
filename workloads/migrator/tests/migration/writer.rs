//! A world that is written all the time, as tickers and the game write it, and what must be in it at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fortia_common::topology::Placement;
use fortia_rdb::RdbError;
use fortia_rdb::keyspace::WorldKey;
use fortia_rdb::world::{Changes, Info, Player, Remembered, World};
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use tokio::task::JoinHandle;

use crate::hand::Hand;

/// Keys of the world as [`populated`] leaves it.
pub(crate) const KEYS: usize = 625 + 300 + 80 + 3 + 1 + 20;

/// A world with every kind of key, and strings and wild names beside.
pub(crate) async fn populated(shards: u32, placement: Placement) -> Hand {
    let hand = Hand::start(shards, placement).await;
    populate(&hand).await;
    hand
}

pub(crate) async fn populate(hand: &Hand) {
    let world = hand.world();
    let text = |text: String| Bytes::from(text);
    let chunks: Vec<_> = ChunkPos::within(12).map(|at| (at, text(format!("chunk {at}").repeat(9)))).collect();
    world.write_chunks(&chunks).await.expect("writes chunks");
    let entities = (0..300).map(|id| (id, text(format!("entity {id}")))).collect();
    let changes = Changes { entities, chunks: chunks[..50].to_vec(), ..Changes::default() };
    world.commit_tick(1, 1, &changes, 0).await.expect("commits");
    for i in 0..40 {
        let player = Player { joined_ms: i, start: BlockPos { x: 1, y: 2, z: 3 } };
        world.create_player(&format!("player{i}"), &player, &[i, i + 100]).await.expect("writes a player");
        let region = RegionPos { x: i as i32 % 3, y: 0 };
        world.push_action(2, region, text(format!("action {i}\r\n\0"))).await.expect("pushes");
    }
    let info = Info { seed: 1, radius: 12, limit: 12, created_ms: 1, tick_period_ms: 50 };
    world.write_info(&info).await.expect("writes info");
    let topology = hand.topology();
    for i in 0..20 {
        let key = WorldKey::Player(format!("string {i} ä"));
        let shard = &hand.plane.shards[key.shard(&topology.serving) as usize];
        shard.run::<()>(&["SET", &key.physical(topology.serving.version), &format!("value {i}")]).await;
    }
}

/// Writes until it is told to stop.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    ticks: Arc<AtomicU64>,
    task: JoinHandle<Written>,
}

/// What was acknowledged.
#[derive(Default)]
struct Written {
    tick: u64,
    /// The last value of each entity; empty: removed.
    entities: BTreeMap<u64, Bytes>,
    players: BTreeSet<String>,
    /// Actions by the tick they go to, that are not taken yet.
    actions: BTreeMap<u64, BTreeSet<Bytes>>,
}

impl Writer {
    pub(crate) fn start(hand: &Hand) -> Writer {
        let (stop, ticks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let written = write(hand.world(), stop.clone(), ticks.clone());
        Writer { task: tokio::spawn(written), stop, ticks }
    }

    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Stops, and finds all that was acknowledged in the world as it is served now.
    pub(crate) async fn checked(self, hand: &Hand) {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.task.await.expect("writes");
        let world = hand.world();
        let ids: Vec<u64> = written.entities.keys().copied().collect();
        let found = world.entities(written.tick, &ids).await.expect("reads");
        for ((id, value), found) in written.entities.iter().zip(found) {
            assert_eq!(found.unwrap_or_default(), value, "entity {id} at tick {}", written.tick);
        }
        for name in &written.players {
            assert!(world.player(name).await.expect("reads").is_some(), "{name}");
            assert_eq!(world.player_entities(name).await.expect("reads"), [1, 2], "{name}");
        }
        for (tick, actions) in written.actions {
            let taken = world.take_actions(1, tick, &regions(), Remembered::default()).await.expect("takes");
            all_taken(tick, &actions, taken);
        }
    }
}

fn regions() -> Vec<RegionPos> {
    (0..3).map(|x| RegionPos { x, y: 0 }).collect()
}

fn all_taken(tick: u64, acknowledged: &BTreeSet<Bytes>, taken: Vec<(RegionPos, Vec<Bytes>)>) {
    let taken: BTreeSet<Bytes> = taken.into_iter().flat_map(|(_, actions)| actions).collect();
    let lost: Vec<_> = acknowledged.difference(&taken).collect();
    assert!(lost.is_empty(), "actions of tick {tick} are lost: {lost:?}");
}

async fn write(world: World, stop: Arc<AtomicBool>, ticks: Arc<AtomicU64>) -> Written {
    let (mut written, all) = (Written::default(), regions());
    let mut random = 7u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for tick in 2.. {
        for region in all.iter().copied() {
            let action = Bytes::from(format!("{tick} {}", region.x));
            let to = acknowledged(|| world.push_action(tick + 1, region, action.clone())).await;
            written.actions.entry(to).or_default().insert(action);
        }
        let taken = acknowledged(|| world.take_actions(1, tick, &all, Remembered::default())).await;
        all_taken(tick, &written.actions.remove(&tick).unwrap_or_default(), taken);
        let value =
            |id: u64, repeat: u64| (id, Bytes::from(format!("{id} at {tick};").repeat(repeat as usize)));
        // Some are removed: no bytes.
        let entities: Vec<_> = (0..20).map(|_| value(next(400), next(100))).collect();
        let entities: Vec<_> = entities.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        let at = ChunkPos { x: next(12) as i32, y: next(12) as i32 };
        let chunks = vec![(at, Bytes::from(format!("chunk {at} at {tick}")))];
        let changes = Changes { entities: entities.clone(), chunks, ..Changes::default() };
        acknowledged(|| world.commit_tick(1, tick, &changes, 0)).await;
        written.entities.extend(entities);
        written.tick = tick;
        if tick % 5 == 0 {
            let name = format!("late{tick}");
            let player = Player { joined_ms: tick, start: BlockPos { x: 1, y: 2, z: 3 } };
            acknowledged(|| world.create_player(&name, &player, &[1, 2])).await;
            written.players.insert(name);
        }
        ticks.store(tick, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written
}

/// Asks until it is done.
async fn acknowledged<T, F: Future<Output = Result<T, RdbError>>>(ask: impl Fn() -> F) -> T {
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(3)).await,
            Err(error) => panic!("{error}"),
        }
    }
}
