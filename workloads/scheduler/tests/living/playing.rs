//! Players on real tickers: what is due later comes in its tick, whoever ticks it by then.

use fortia_common::boot::Service;
use fortia_proto::world::v1::{Action, Command, Spawn, action};
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Event, Kind};
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::{rules, start, wire};

use crate::cluster::{Cluster, RADIUS, SEED};

/// What Ann has, as a reader sees it.
async fn owned(cluster: &Cluster) -> Vec<Entity> {
    let world = cluster.world().await;
    let ids = world.player_entities("ann").await.expect("a read");
    let found = world.entities(cluster.committed().await, &ids).await.expect("a read");
    found.into_iter().flatten().map(|bytes| Entity::decode(&bytes).expect("an entity")).collect()
}

async fn of_kind(cluster: &Cluster, kind: Kind) -> Vec<Entity> {
    owned(cluster).await.into_iter().filter(|it| it.kind == kind).collect()
}

async fn act(cluster: &Cluster, id: u64, region: RegionPos, kind: action::Kind) {
    cluster.act(region, &Action { id, player: "ann".into(), kind: Some(kind) }).await;
}

async fn order(cluster: &Cluster, id: u64, unit: &Entity, order: Order) {
    let seen = cluster.committed().await;
    let at = Some(wire::block_pos(unit.at));
    let command = Command { unit: unit.id, order: Some(order.to_proto()), at, seen };
    act(cluster, id, unit.at.region(), action::Kind::Command(command)).await;
}

/// A free place beside the unit, in its chunk.
async fn site(cluster: &Cluster, unit: &Entity) -> BlockPos {
    let column = Column::decode(&cluster.chunk(unit.at.chunk()).await).expect("a column");
    let block = |at: BlockPos| at.local().map_or(Block::Bedrock, |local| column.get(local));
    let taken: Vec<BlockPos> = owned(cluster).await.iter().map(|it| it.at).collect();
    let around =
        (-2..=2).flat_map(|x| (-2..=2).flat_map(move |y| (-2..=3).map(move |z| unit.at.offset(x, y, z))));
    let mut free = around.filter(|at| {
        let clear = taken.iter().all(|it| (it.x, it.y) != (at.x, at.y));
        clear && at.chunk() == unit.at.chunk() && block(*at) == Block::Air && block(at.down()).is_solid()
    });
    free.next().expect("room to build")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fighter_in_training_is_ready_in_its_tick_and_once_though_its_ticker_dies() {
    let mut cluster = Cluster::living(2).await;
    let at = start::position(SEED, RADIUS, "ann");
    let spawn = || {
        let units = start::unit_ids("ann", start::UNITS);
        action::Kind::Spawn(Spawn { owner: "ann".into(), at: Some(wire::block_pos(at)), units })
    };
    act(&cluster, 1, at.region(), spawn()).await;
    act(&cluster, 2, at.region(), spawn()).await;
    cluster.ticks(3).await;
    assert_eq!(
        owned(&cluster).await.len(),
        1 + start::UNITS,
        "asked twice, done once, and on the player's list"
    );

    let unit = of_kind(&cluster, Kind::Handyman).await.remove(0);
    let place = site(&cluster, &unit).await;
    order(&cluster, 3, &unit, Order::Build { at: place, block: Block::Barracks }).await;
    let stand = async |c: &Cluster| of_kind(c, Kind::Barracks).await.iter().any(|it| it.due.is_none());
    cluster.wait_until("barracks to stand", stand).await;
    let barracks = of_kind(&cluster, Kind::Barracks).await.remove(0);
    assert_eq!((barracks.at, barracks.owner.as_str()), (place, "ann"));

    order(&cluster, 4, &barracks, Order::Train { kind: Kind::Fighter }).await;
    let trains = async |c: &Cluster| of_kind(c, Kind::Barracks).await[0].due.is_some();
    cluster.wait_until("the training to begin", trains).await;
    let due = of_kind(&cluster, Kind::Barracks).await[0].due.expect("it trains");
    assert_eq!(due.event, Event::Trained);
    // One of the two has the barracks; the other, or a new one, knows of the training from the stored entity alone.
    cluster.kill("ticker-0").await;
    cluster.spawn(Service::Ticker, "ticker-2");
    cluster.kill("ticker-1").await;
    let ready = async |c: &Cluster| !of_kind(c, Kind::Fighter).await.is_empty();
    cluster.wait_until("the fighter", ready).await;
    cluster.ticks(3).await;
    let fighters = of_kind(&cluster, Kind::Fighter).await;
    assert_eq!(fighters.len(), 1);
    let history = cluster.control.ticks(due.tick - 1, std::time::Duration::ZERO).await.expect("ticks");
    let changed = history.iter().find(|tick| tick.tick == due.tick).map(|tick| tick.changed.clone());
    assert!(changed.expect("the tick").contains(&wire::chunk_pos(barracks.at.chunk())));
    let camp = of_kind(&cluster, Kind::Camp).await.remove(0);
    let spent =
        [rules::building(Block::Barracks).map(|p| p.cost), rules::recruit(Kind::Fighter).map(|p| p.cost)];
    let spent = spent.into_iter().flatten().fold(Goods::NONE, Goods::plus);
    assert_eq!(Some(camp.goods), rules::FIRST_STOCK.minus(spent), "paid once");
}
