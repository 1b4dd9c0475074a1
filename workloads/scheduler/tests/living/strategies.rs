//! On real shards, with real tickers: `Lock` and `Queue`, and changing from one to the other in a running world, write
//! what one territory alone writes, also when a ticker dies or a tick is run again under the other strategy.

use std::collections::BTreeMap;

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::EditStrategy;
use fortia_proto::world::v1::{Action, Command, Spawn, action};
use fortia_testredis::TestServer;
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::block::Block;
use fortia_world::entity::{Entity, Kind};
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
        let world = self.cluster.world().await;
        let (tick, ids, chunks, units) = loop {
            let tick = self.cluster.committed().await;
            let ids: Vec<u64> = reference(&self.asked, tick).1.into_keys().collect();
            // Unless two ticks have overwritten it meanwhile.
            if let (Ok(chunks), Ok(units)) =
                (world.chunks(tick, &all).await, world.entities(tick, &ids).await)
            {
                break (tick, ids, chunks, units);
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

    /// The entities of the committed world, as the reference has them: what is compared with it in the end.
    async fn entities(&self) -> Vec<Entity> {
        let (_, entities) = reference(&self.asked, self.cluster.committed().await);
        entities.values().map(|bytes| Entity::decode(bytes).expect("an entity")).collect()
    }

    async fn order(&mut self, unit: &Entity, order: Order) {
        let seen = self.cluster.committed().await;
        let command = Command {
            unit: unit.id,
            order: Some(order.to_proto()),
            at: Some(wire::block_pos(unit.at)),
            seen,
        };
        self.act(unit.at.region(), &unit.owner, action::Kind::Command(command)).await;
    }

    /// Waits, tick by tick, until there is an entity like that.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Entity) -> bool) -> Entity {
        for _ in 0..200 {
            if let Some(found) = self.entities().await.into_iter().find(&wanted) {
                return found;
            }
            self.cluster.ticks(1).await;
        }
        panic!("no {what} in 200 ticks");
    }

    /// Makes the tickers' commits count, or not, from the next tick on that changes something.
    async fn replicas(&self, replicas: Vec<String>) {
        let mut topology = self.cluster.plane.topology().await;
        topology.epoch += 1;
        for group in &mut topology.groups[..2] {
            group.replicas.clone_from(&replicas);
        }
        self.cluster.plane.set_topology(&topology).await;
        let epoch = topology.epoch as f64;
        let known =
            async |c: &Cluster| c.metric("scheduler-0", "fortia_scheduler_topology_epoch") == Some(epoch);
        self.cluster.wait_until("the scheduler to know the topology", known).await;
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
        let letters = territory.observe(tick, &actions).expect("stage observe");
        let letters = territory.edit(tick, letters).expect("stage edit");
        let letters = territory.shift(tick, letters).expect("stage move");
        let changes = territory.commit(tick, letters).expect("the commit");
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

#[tokio::test(flavor = "multi_thread")]
async fn under_lock_barracks_train_a_fighter_who_kills_a_handyman_as_in_one_territory() {
    let mut play = Play::living(EditStrategy::Lock, 3).await;
    let builder = play.until("handyman", |it| it.kind == Kind::Handyman && it.owner == "ann").await;
    let sides = [(2, 0), (0, 2), (-2, 0), (0, -2), (2, 2), (-2, -2), (2, -2), (-2, 2)];
    let mut barracks = None;
    for (x, y) in sides {
        let at = surface(builder.at.x + x, builder.at.y + y);
        play.order(&builder, Order::Build { at, block: Block::Barracks }).await;
        play.cluster.ticks(3).await;
        let ended = play.until("end", |it| it.id == builder.id && it.order == Order::Hold).await;
        if ended.outcome == "done" {
            barracks = Some(play.until("barracks", |it| it.at == at && it.due.is_none()).await);
            break;
        }
    }
    let barracks = barracks.expect("room for barracks");
    play.order(&barracks, Order::Train { kind: Kind::Fighter }).await;
    let fighter = play.until("fighter", |it| it.kind == Kind::Fighter).await;
    let victim = play.until("victim", |it| it.kind == Kind::Handyman && it.owner == "bob").await;
    let seen = play.cluster.committed().await;
    play.order(&fighter, Order::Attack { target: victim.id, at: victim.at, seen }).await;
    // All want the same blocks meanwhile: claims are made while blows land.
    for round in 0..4 {
        play.quarrel(round).await;
    }
    play.until("death", |it| it.id == victim.id && it.is_dead()).await;
    play.until("end of the fight", |it| it.id == fighter.id && it.outcome == "done").await;
    play.cluster.kill("ticker-0").await;
    play.until("return", |it| it.id == victim.id && !it.is_dead()).await;
    play.compare().await;
    let (locks, _) = locks_taken(&play.cluster, &["ticker-1", "ticker-2"]).await;
    assert!(locks > 0.0, "the strategy is Lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_given_up_under_one_strategy_is_run_again_under_the_other_with_the_same_bytes() {
    let tickers = ["ticker-0", "ticker-1"];
    for (first, second) in
        [(EditStrategy::Lock, EditStrategy::Queue), (EditStrategy::Queue, EditStrategy::Lock)]
    {
        let mut play = Play::living(first, 2).await;
        // A replica that is dead confirms nothing: a tick that changes something is run again and again.
        let mut replica = TestServer::start().await;
        replica.kill();
        let dead = vec![replica.address()];
        play.replicas(dead).await;
        let (last, abandoned) = (play.cluster.committed().await, play.cluster.abandoned("scheduler-0"));
        let above = surface(0, 0);
        for player in PLAYERS {
            for unit in start::unit_ids(player, 2) {
                let command = Command {
                    unit,
                    order: Some(Order::Mine { at: above.down() }.to_proto()),
                    at: Some(wire::block_pos(above)),
                    seen: 0,
                };
                for region in [(-1, -1), (-1, 0), (0, -1), (0, 0)].map(|(x, y)| RegionPos::new(x, y)) {
                    play.act(region, player, action::Kind::Command(command)).await;
                }
            }
        }
        let given_up = async |more: f64| {
            let enough = async |c: &Cluster| c.abandoned("scheduler-0") >= abandoned + more;
            play.cluster.wait_until("a tick to be given up", enough).await;
            play.cluster.abandoned("scheduler-0") - abandoned
        };
        let runs = given_up(1.0).await;
        let stuck = play.cluster.committed().await;
        let locked = locks_taken(&play.cluster, &tickers).await.0;
        assert_eq!(locked > 0.0, first == EditStrategy::Lock, "{first:?}: {locked} locks");
        configure(&play.cluster, second, 2).await;
        // One may have begun before.
        given_up(runs + 2.0).await;
        assert_eq!(play.cluster.committed().await, stuck, "the tick that was given up is not committed");
        assert!(stuck >= last);
        let before = locks_taken(&play.cluster, &tickers).await.0;
        play.replicas(Vec::new()).await;
        play.cluster.ticks_after(stuck, 3).await;
        let after = locks_taken(&play.cluster, &tickers).await.0;
        match second {
            EditStrategy::Lock => assert!(before > 0.0, "no locks after the change"),
            EditStrategy::Queue => assert_eq!(after, before, "no locks after the change"),
        }
        play.compare().await;
    }
}
