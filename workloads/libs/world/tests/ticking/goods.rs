//! What players see of their goods: what is carried, unloaded, built and trained.

use crate::cluster::{Cluster, command, spawn};
use fortia_vec::{BlockPos, Distance};
use fortia_world::block::Block;
use fortia_world::entity::{Entity, Event, Kind};
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::{rules, start};

const SEED: u64 = 42;
const RADIUS: u32 = 3;

/// A world with Ann, and her two handymen.
fn world() -> (Cluster, [u64; 2]) {
    let mut cluster = Cluster::new(SEED, RADIUS, |_| 0);
    cluster.tick(&[spawn("ann", start::position(SEED, RADIUS, "ann"))]);
    let units = start::unit_ids("ann", 2);
    (cluster, [units[0], units[1]])
}

fn camp(cluster: &Cluster) -> Entity {
    cluster.unit(start::camp_id("ann"))
}

fn set_stock(cluster: &mut Cluster, goods: Goods) {
    let mut camp = camp(cluster);
    camp.goods = goods;
    cluster.put(&camp);
}

/// A cell on the ground under open sky, so far from the camp and from all units.
fn site(cluster: &Cluster, far: std::ops::Range<u32>) -> BlockPos {
    let camp = camp(cluster).at;
    let air = |at: BlockPos| (0..20).all(|up| cluster.block(at.offset(0, 0, up)) == Block::Air);
    let ground = |at: &BlockPos| {
        air(*at) && cluster.block(at.down()).is_solid() && cluster.block(at.down()) != Block::Wood
    };
    let side = -30..=30;
    let cells =
        side.clone().flat_map(|x| side.clone().flat_map(move |y| (-8..8).map(move |z| camp.offset(x, y, z))));
    let mut cells: Vec<_> =
        cells.filter(|at| far.contains(&BlockPos { z: camp.z, ..*at }.chebyshev(camp))).collect();
    cells.sort_by_key(|at| (at.manhattan(camp), *at));
    let units: Vec<BlockPos> = cluster.entities.keys().map(|id| cluster.unit(*id).at).collect();
    let free = |at: &BlockPos| units.iter().all(|unit| (unit.x, unit.y) != (at.x, at.y));
    cells.into_iter().find(|at| at.chunk().is_within(RADIUS) && free(at) && ground(at)).expect("a site")
}

/// Lets a handyman build, and returns the building once it stands.
fn build(cluster: &mut Cluster, unit: u64, at: BlockPos, block: Block) -> u64 {
    cluster.order(unit, Order::Build { at, block });
    assert_eq!(cluster.finish(unit).outcome, "done");
    let there = |id: &&u64| cluster.unit(**id).at == at && !cluster.unit(**id).kind.is_unit();
    let id = *cluster.entities.keys().find(there).expect("a building");
    cluster.until(|c| c.unit(id).due.is_none());
    id
}

/// All goods of Ann's, wherever they are.
fn wealth(cluster: &Cluster) -> Goods {
    cluster.entities.keys().fold(Goods::NONE, |sum, id| sum.plus(cluster.unit(*id).goods))
}

#[test]
fn who_stops_beside_the_camp_unloads_into_the_stock() {
    let (mut cluster, [unit, _]) = world();
    let far = site(&cluster, 6..20);
    cluster.order(unit, Order::Move { to: far });
    cluster.finish(unit);
    cluster.hand(unit, Goods::new(3, 4));
    let camp_at = camp(&cluster).at;
    let all = wealth(&cluster);
    let beside = site(&cluster, 1..3);
    cluster.order(unit, Order::Move { to: beside });
    assert_eq!(cluster.finish(unit).outcome, "done");
    assert_eq!(cluster.unit(unit).due.map(|due| due.event), Some(Event::Unloads));
    cluster.tick(&[]);
    assert_eq!((cluster.unit(unit).goods, cluster.unit(unit).home), (Goods::NONE, camp_at));
    assert_eq!(camp(&cluster).goods, rules::FIRST_STOCK.plus(Goods::new(3, 4)));
    assert_eq!(wealth(&cluster), all);
    cluster.tick(&[]);
    assert!(cluster.written.entities.is_empty(), "then it rests");
}

#[test]
fn who_stops_beside_a_strangers_camp_keeps_its_goods() {
    let (mut cluster, [unit, _]) = world();
    let at = site(&cluster, 10..20);
    cluster.tick(&[spawn("eve", at)]);
    let eves = cluster.unit(start::camp_id("eve")).at;
    cluster.hand(unit, Goods::new(3, 4));
    cluster.order(unit, Order::Move { to: eves.up() });
    cluster.finish(unit);
    for _ in 0..3 {
        cluster.tick(&[]);
    }
    let unit = cluster.unit(unit);
    assert!(unit.at.chebyshev(eves) <= 2, "{unit:?}");
    assert_eq!((unit.goods, unit.due), (Goods::new(3, 4), None));
    assert_eq!(cluster.unit(start::camp_id("eve")).goods, rules::FIRST_STOCK);
}

#[test]
fn who_stops_between_a_strangers_house_and_its_own_unloads_into_its_own_stock_and_beside_the_strangers_alone_nowhere()
 {
    for own in [false, true] {
        let (mut cluster, [unit, _]) = world();
        let far = site(&cluster, 10..20);
        cluster.tick(&[spawn("eve", far)]);
        let here = site(&cluster, 22..30);
        let put = |cluster: &mut Cluster, id: u64, kind: Kind, owner: &str, x: i32| {
            let camp = cluster.unit(start::camp_id(owner)).at;
            let at = BlockPos { z: here.z, ..here.offset(x, 1, 0) };
            cluster.put(&Entity::new(kind, id, owner, at, camp));
        };
        // The stranger's is nearer, and one is barracks.
        put(&mut cluster, 71, Kind::House, "eve", 0);
        put(&mut cluster, 72, Kind::Barracks, "eve", -1);
        if own {
            put(&mut cluster, 73, Kind::House, "ann", 2);
        }
        let mut loaded = cluster.unit(unit);
        let left = loaded.at;
        loaded.at = here;
        loaded.goods = Goods::new(3, 4);
        cluster.take_away(unit, left);
        cluster.put(&loaded);
        cluster.order(unit, Order::Move { to: here });
        for _ in 0..3 {
            cluster.tick(&[]);
            cluster.check();
        }
        let unit = cluster.unit(unit);
        let (hands, home, stock) = match own {
            true => (Goods::NONE, cluster.unit(73).at, rules::FIRST_STOCK.plus(Goods::new(3, 4))),
            false => (Goods::new(3, 4), camp(&cluster).at, rules::FIRST_STOCK),
        };
        assert_eq!((unit.at, unit.goods, unit.home, unit.due), (here, hands, home, None));
        assert_eq!(camp(&cluster).goods, stock);
        assert_eq!(cluster.unit(start::camp_id("eve")).goods, rules::FIRST_STOCK, "a stranger's stock");
    }
}

#[test]
fn a_building_is_paid_from_the_hands_and_the_rest_from_the_stock() {
    let (mut cluster, [unit, _]) = world();
    cluster.hand(unit, Goods::new(4, 4));
    let at = site(&cluster, 8..20);
    cluster.order(unit, Order::Build { at, block: Block::House });
    assert_eq!(cluster.finish(unit).outcome, "done");
    let cost = rules::building(Block::House).expect("houses are built").cost;
    assert_eq!(cluster.unit(unit).goods, Goods::new(0, 4 - cost.stone));
    assert_eq!(camp(&cluster).goods, Goods::new(20 - (cost.wood - 4), 20));
    assert_eq!(cluster.block(at), Block::House);
}

#[test]
fn what_neither_hands_nor_stock_can_pay_is_not_built() {
    let (mut cluster, [unit, _]) = world();
    set_stock(&mut cluster, Goods::new(5, 1));
    let at = site(&cluster, 3..8);
    cluster.order(unit, Order::Build { at, block: Block::House });
    assert_eq!(cluster.finish(unit).outcome, "too little wood or stone");
    assert_eq!((cluster.block(at), camp(&cluster).goods), (Block::Air, Goods::new(5, 1)));
}

#[test]
fn of_two_who_ask_the_stock_for_its_last_piece_one_gets_it() {
    let (mut cluster, units) = world();
    set_stock(&mut cluster, Goods::new(1, 0));
    let from = units.map(|id| cluster.unit(id).at);
    let beside = |at: BlockPos| {
        let cells = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (0, 1)].map(|(x, y)| at.offset(x, y, 0));
        let free =
            |cell: &BlockPos| cluster.block(*cell) == Block::Air && from.iter().all(|unit| unit != cell);
        cells.into_iter().find(free).expect("room to build")
    };
    let places = from.map(beside);
    let build = |i: usize| command(1, "ann", units[i], Order::Build { at: places[i], block: Block::Planks });
    cluster.tick(&[(from[0].region(), vec![build(0)]), (from[1].region(), vec![build(1)])]);
    let mut outcomes = units.map(|id| cluster.finish(id).outcome);
    outcomes.sort();
    assert_eq!(outcomes, ["done", "too little wood or stone"]);
    assert_eq!(wealth(&cluster), Goods::NONE);
}

#[test]
fn a_house_rises_and_then_is_a_place_to_unload_and_to_come_back_to() {
    let (mut cluster, [unit, _]) = world();
    let at = site(&cluster, 8..20);
    cluster.order(unit, Order::Build { at, block: Block::House });
    assert_eq!(cluster.finish(unit).outcome, "done");
    let house = *cluster.entities.keys().find(|id| cluster.unit(**id).kind == Kind::House).expect("a house");
    let born = (cluster.unit(house).owner, house);
    assert_eq!((born.0.as_str(), cluster.unit(house).doing().0), ("ann", "rising"));
    cluster.hand(unit, Goods::new(2, 0));
    let here = cluster.unit(unit).at;
    cluster.order(unit, Order::Move { to: here });
    cluster.tick(&[]);
    assert_eq!(cluster.unit(unit).goods, Goods::new(2, 0), "it does not stand yet");
    cluster.until(|c| c.unit(house).due.is_none());
    assert_eq!(cluster.unit(house).health, rules::of(Kind::House).health);
    cluster.order(unit, Order::Move { to: here });
    cluster.tick(&[]);
    assert_eq!((cluster.unit(unit).goods, cluster.unit(unit).home), (Goods::NONE, at));
}

#[test]
fn barracks_train_a_fighter_for_their_owner() {
    let (mut cluster, [unit, _]) = world();
    let at = site(&cluster, 4..12);
    let barracks = build(&mut cluster, unit, at, Block::Barracks);
    let before = camp(&cluster).goods;
    cluster.order(barracks, Order::Train { kind: Kind::Fighter });
    let product = rules::recruit(Kind::Fighter).expect("fighters are trained");
    assert_eq!(camp(&cluster).goods, before.minus(product.cost).expect("enough"));
    cluster.tick(&[]);
    assert_eq!(cluster.unit(barracks).doing(), ("training", Some(cluster.tick + product.ticks)));
    let idle = |c: &Cluster| c.written.entities.is_empty() && c.written.columns.is_empty();
    for _ in 1..product.ticks {
        cluster.tick(&[]);
        assert!(idle(&cluster), "training costs nothing until it is over");
    }
    cluster.tick(&[]);
    cluster.check();
    let [(owner, id)] = &cluster.written.born[..] else { panic!("{:?}", cluster.written.born) };
    let fighter = cluster.unit(*id);
    assert_eq!((owner.as_str(), fighter.owner.as_str(), fighter.kind), ("ann", "ann", Kind::Fighter));
    assert!(fighter.at.chebyshev(at) <= 3 && fighter.camp == camp(&cluster).at);
    assert_eq!((cluster.unit(barracks).outcome.as_str(), cluster.unit(barracks).due), ("done", None));
    let to = fighter.at.offset(3, 0, 0);
    cluster.order(fighter.id, Order::Move { to });
    assert_ne!(cluster.unit(fighter.id).at, fighter.at, "it takes orders");
}

#[test]
fn barracks_that_train_or_rise_take_no_orders_and_say_until_when() {
    let (mut cluster, [unit, _]) = world();
    let at = site(&cluster, 4..12);
    cluster.order(unit, Order::Build { at, block: Block::Barracks });
    cluster.finish(unit);
    let barracks =
        *cluster.entities.keys().find(|id| cluster.unit(**id).kind == Kind::Barracks).expect("barracks");
    let train = Order::Train { kind: Kind::Fighter };
    cluster.order(barracks, train);
    let due = cluster.unit(barracks).due.expect("they rise");
    assert_eq!(cluster.unit(barracks).outcome, format!("this barracks is rising until tick {}", due.tick));
    cluster.until(|c| c.unit(barracks).due.is_none());
    cluster.order(barracks, train);
    cluster.tick(&[]);
    cluster.order(barracks, Order::Hold);
    let due = cluster.unit(barracks).due.expect("they train");
    assert_eq!(cluster.unit(barracks).outcome, format!("this barracks is training until tick {}", due.tick));
    assert_eq!(cluster.unit(barracks).order, train);
}

#[test]
fn nobody_is_trained_from_an_empty_stock() {
    let (mut cluster, [unit, _]) = world();
    let at = site(&cluster, 4..12);
    let barracks = build(&mut cluster, unit, at, Block::Barracks);
    set_stock(&mut cluster, Goods::new(1, 9));
    cluster.order(barracks, Order::Train { kind: Kind::Fighter });
    assert_eq!(cluster.finish(barracks).outcome, "too little wood or stone");
    assert_eq!(camp(&cluster).goods, Goods::new(1, 9));
}

#[test]
fn orders_for_which_a_kind_is_not_made_are_refused_with_what_it_takes() {
    let (mut cluster, [unit, _]) = world();
    let camp = camp(&cluster).id;
    let at = cluster.unit(unit).at;
    cluster.order(unit, Order::Train { kind: Kind::Fighter });
    let outcome = cluster.unit(unit).outcome;
    assert_eq!(outcome, "a handyman cannot train: it takes hold, move, chop, mine, build");
    cluster.order(camp, Order::Move { to: at });
    assert_eq!(cluster.unit(camp).outcome, "a camp cannot move: it takes hold");
}

#[test]
fn a_building_cannot_be_mined() {
    let (mut cluster, [unit, _]) = world();
    let at = camp(&cluster).at;
    cluster.order(unit, Order::Mine { at });
    assert_eq!(cluster.finish(unit).outcome, "a building cannot be mined");
    assert_eq!(cluster.block(at), Block::Camp);
}
