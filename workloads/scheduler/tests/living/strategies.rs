//! On real shards, with real tickers: `Lock` and `Queue`, and changing from one to the other in a running world, write
//! what one territory alone writes, also when a ticker dies.

use std::collections::BTreeMap;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::EditStrategy;
use fortia_proto::world::v1::{Action, Command, Spawn, action};
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::block::Block;
use fortia_world::generate::Generator;
use fortia_world::order::Order;
use fortia_world::step::Territory;
use fortia_world::{start, wire};

use crate::cluster::{Cluster, RADIUS, SEED, config};

const PLAYERS: [&str; 4] = ["ann", "bob", "eve", "mallory"];

/// What was asked, by the tick it runs in.
type Asked = BTreeMap<u64, BTreeMap<RegionPos, Vec<Action>>>;

struct Play {
    cluster: Cluster,
    asked: Asked,
    actions: u64,
}

impl Play {
    async fn living(strategy: EditStrategy, tickers: usize) -> Play {
        let mut cluster = Cluster::start(2).await;
        configure(&cluster, strategy, 1).await;
        cluster.spawn(Service::Scheduler, "scheduler-0");
        for i in 0..tickers {
            cluster.spawn(Service::Ticker, &format!("ticker-{i}"));
        }
        cluster
            .wait_until("all tickers to own regions", async |c| c.regions("scheduler-0").len() == tickers)
            .await;
        let mut play = Play { cluster, asked: Asked::new(), actions: 0 };
        for (i, player) in PLAYERS.into_iter().enumerate() {
            let at = surface(if i % 2 == 0 { -1 } else { 1 }, i as i32 - 2);
            let units = start::unit_ids(player, 2);
            let spawn = Spawn { owner: player.into(), at: Some(wire::block_pos(at)), units };
            play.act(at.region(), player, action::Kind::Spawn(spawn)).await;
        }
        play.cluster.ticks(3).await;
        play
    }

    async fn act(&mut self, region: RegionPos, player: &str, kind: action::Kind) {
        self.actions += 1;
        let action = Action { id: self.actions, player: player.into(), kind: Some(kind) };
        let tick = self.cluster.act(region, &action).await;
        self.asked.entry(tick).or_default().entry(region).or_default().push(action);
    }

    /// All units want the same block, at the corner where four regions meet; some to build there, some to mine.
    async fn quarrel(&mut self, round: i32) {
        let above = surface(round % 3 - 1, round / 3 % 3 - 1);
        for (i, player) in PLAYERS.into_iter().enumerate() {
            for unit in start::unit_ids(player, 2) {
                let order = match (i as i32 + round) % 3 {
                    0 => Order::Build { at: above, block: Block::Wall },
                    1 => Order::Build { at: above, block: Block::Planks },
                    _ => Order::Mine { at: above.down() },
                };
                let command = Command { unit, order: Some(order.to_proto()), ..Command::default() };
                // Where the unit is is not asked: whoever has it takes the order, and the others pass it on.
                for region in [(-1, -1), (-1, 0), (0, -1), (0, 0)].map(|(x, y)| RegionPos::new(x, y)) {
                    self.act(region, player, action::Kind::Command(command)).await;
                }
            }
        }
        self.cluster.ticks(1).await;
    }

    /// Compares all chunks and units as of one committed tick with those of the reference; returns the tick.
    async fn compare(&self) -> u64 {
        let all: Vec<ChunkPos> = ChunkPos::within(RADIUS).collect();
        let ids: Vec<u64> = PLAYERS.iter().flat_map(|player| start::unit_ids(player, 2)).collect();
        let world = self.cluster.world().await;
        let (tick, chunks, units) = loop {
            let tick = self.cluster.committed().await;
            // Unless two ticks have overwritten it meanwhile.
            if let (Ok(chunks), Ok(units)) =
                (world.chunks(tick, &all).await, world.entities(tick, &ids).await)
            {
                break (tick, chunks, units);
            }
        };
        let (wanted_chunks, wanted_units) = reference(&self.asked, tick);
        for (at, chunk) in all.iter().zip(&chunks) {
            assert_eq!(chunk.as_ref(), wanted_chunks.get(at), "chunk {at} at tick {tick}");
        }
        for (id, unit) in ids.iter().zip(&units) {
            assert_eq!(unit.as_ref(), wanted_units.get(id), "unit {id} at tick {tick}");
        }
        tick
    }
}

async fn configure(cluster: &Cluster, strategy: EditStrategy, generation: u64) {
    let mut config = config(SEED);
    config.generation = generation;
    config.edit_strategy = strategy;
    cluster.plane.set_config(&config).await;
    let reload = format!(r#"{{"id":"r{generation}","action":{{"do":"reload"}}}}"#);
    cluster.plane.control_db.run::<String>(&["XADD", "fortia:commands", "*", "json", &reload]).await;
}

fn surface(x: i32, y: i32) -> BlockPos {
    BlockPos::new(x, y, Generator::new(SEED).ground(x, y) + 1)
}

/// The world as one territory alone makes it of the same actions.
fn reference(asked: &Asked, until: u64) -> (BTreeMap<ChunkPos, Bytes>, BTreeMap<u64, Bytes>) {
    let generator = Generator::new(SEED);
    let mut territory = Territory::new(regions_of(RADIUS), RADIUS);
    let mut chunks = BTreeMap::new();
    for at in ChunkPos::within(RADIUS) {
        let column = generator.column(at);
        chunks.insert(at, Bytes::from(column.encode()));
        territory.load(column);
    }
    let mut units = BTreeMap::new();
    for tick in 1..=until {
        let actions: Vec<_> = asked.get(&tick).cloned().unwrap_or_default().into_iter().collect();
        let letters = territory.observe(tick, &actions);
        let letters = territory.edit(tick, letters);
        let letters = territory.shift(tick, letters);
        let changes = territory.commit(tick, letters);
        chunks.extend(changes.columns.iter().map(|column| (column.at(), column.encode().into())));
        units.extend(changes.entities.into_iter().map(|(id, bytes)| (id, bytes.into())));
    }
    (chunks, units)
}

async fn locks_taken(cluster: &Cluster, tickers: &[&str]) -> (f64, f64) {
    let sum = |name: &str| tickers.iter().filter_map(|ticker| cluster.metric(ticker, name)).sum();
    (sum("fortia_ticker_locks_total"), sum("fortia_ticker_lock_conflicts_total"))
}

#[tokio::test(flavor = "multi_thread")]
async fn under_lock_a_quarrel_of_four_tickers_ends_as_it_does_in_one_territory() {
    let mut play = Play::living(EditStrategy::Lock, 4).await;
    for round in 0..12 {
        play.quarrel(round).await;
    }
    play.cluster.ticks(3).await;
    play.compare().await;
    let (locks, conflicts) =
        locks_taken(&play.cluster, &["ticker-0", "ticker-1", "ticker-2", "ticker-3"]).await;
    assert!(locks > 0.0 && conflicts > 0.0, "{locks} locks, {conflicts} conflicts");
    let mut left: Vec<String> = Vec::new();
    for shard in &play.cluster.plane.shards {
        left.extend(shard.run::<Vec<String>>(&["KEYS", "v1:lock:*"]).await);
    }
    assert!(left.len() <= 4, "locks are gone with their tick: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_ticker_s_locks_stop_nobody_and_the_tick_run_again_gives_the_same_bytes() {
    let mut play = Play::living(EditStrategy::Lock, 3).await;
    for round in 0..12 {
        if round % 4 == 1 {
            play.cluster.kill("ticker-0").await;
        }
        if round % 4 == 3 {
            play.cluster.spawn(Service::Ticker, "ticker-0");
        }
        play.quarrel(round).await;
    }
    play.cluster.ticks(2).await;
    play.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strategy_of_a_running_world_is_changed_at_a_barrier() {
    let mut play = Play::living(EditStrategy::Queue, 2).await;
    let tickers = ["ticker-0", "ticker-1"];
    play.quarrel(0).await;
    assert_eq!(locks_taken(&play.cluster, &tickers).await.0, 0.0);
    let abandoned = play.cluster.metric("scheduler-0", "fortia_scheduler_epochs_total");
    for (generation, strategy) in [EditStrategy::Lock, EditStrategy::Queue].into_iter().enumerate() {
        let before = locks_taken(&play.cluster, &tickers).await.0;
        configure(&play.cluster, strategy, 2 + generation as u64).await;
        play.cluster.ticks(3).await;
        for round in 0..6 {
            play.quarrel(round).await;
        }
        play.cluster.ticks(2).await;
        let taken = locks_taken(&play.cluster, &tickers).await.0 - before;
        assert_eq!(taken > 0.0, strategy == EditStrategy::Lock, "{strategy:?}: {taken} locks");
        play.compare().await;
    }
    assert_eq!(play.cluster.metric("scheduler-0", "fortia_scheduler_epochs_total"), abandoned);
}
