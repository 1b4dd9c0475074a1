//! What players see of fights: blows, death, and who comes back.

use crate::cluster::{Cluster, command, spawn};
use fortia_vec::{BlockPos, ChunkPos, Distance};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Event, Kind};
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::{rules, start};

const SEED: u64 = 42;
const RADIUS: u32 = 3;
/// Ann's fighter.
const FIGHTER: u64 = 1;

/// A world with Ann, who has a fighter, and Eve, who has her camp some blocks away; and Eve's two handymen.
fn world() -> (Cluster, [u64; 2]) {
    let mut cluster = Cluster::new(SEED, RADIUS, |region| region);
    let at = start::position(SEED, RADIUS, "ann");
    cluster.tick(&[spawn("ann", at)]);
    let eve = cluster.surface(at.x + 9, at.y);
    cluster.tick(&[spawn("eve", eve)]);
    let there = cluster.surface(at.x + 4, at.y + 4);
    put(&mut cluster, Kind::Fighter, FIGHTER, "ann", there);
    cluster.check();
    let units = start::unit_ids("eve", 2);
    (cluster, [units[0], units[1]])
}

fn put(cluster: &mut Cluster, kind: Kind, id: u64, owner: &str, at: BlockPos) {
    let camp = cluster.unit(start::camp_id(owner)).at;
    cluster.put(&Entity::new(kind, id, owner, at, camp));
}

/// Orders an attack on where the target is seen.
fn attack(cluster: &mut Cluster, unit: u64, target: u64) {
    let (at, seen) = (cluster.unit(target).at, cluster.tick);
    cluster.order(unit, Order::Attack { target, at, seen });
}

/// Lets Ann's fighter attack until it is over.
fn fight(cluster: &mut Cluster, target: u64) -> Entity {
    attack(cluster, FIGHTER, target);
    cluster.finish(FIGHTER)
}

#[test]
fn a_fighter_walks_up_and_strikes_until_the_target_is_dead() {
    let (mut cluster, [victim, _]) = world();
    let blow = rules::of(Kind::Fighter).blow.expect("fighters attack");
    attack(&mut cluster, FIGHTER, victim);
    let mut health = vec![cluster.unit(victim).health];
    let mut struck = Vec::new();
    cluster.until(|c| c.unit(victim).health < health[0]);
    while !cluster.unit(victim).is_dead() {
        if health.last() != Some(&cluster.unit(victim).health) {
            health.push(cluster.unit(victim).health);
            struck.push(cluster.tick);
        }
        assert!(cluster.unit(FIGHTER).at.chebyshev(cluster.unit(victim).at) <= blow.range);
        cluster.tick(&[]);
    }
    assert!(health.windows(2).all(|two| two[0] - two[1] == blow.damage), "{health:?}");
    assert!(struck.windows(2).all(|two| two[1] - two[0] == blow.rest), "{struck:?}");
    assert_eq!(cluster.unit(FIGHTER).outcome, "done");
    assert_eq!(cluster.unit(victim).outcome, "killed by ann");
}

#[test]
fn a_dead_handyman_lies_where_it_fell_and_comes_back_at_its_camp_with_empty_hands() {
    let (mut cluster, [victim, _]) = world();
    let mut loaded = cluster.unit(victim);
    loaded.goods = Goods::new(5, 5);
    cluster.put(&loaded);
    fight(&mut cluster, victim);
    let dead = cluster.unit(victim);
    assert_eq!((dead.at, dead.goods, dead.doing().0), (loaded.at, Goods::NONE, "dead"));
    let due = dead.due.expect("it comes back");
    assert_eq!(
        (due.event, Some(due.tick - cluster.tick)),
        (Event::Revived, rules::of(Kind::Handyman).returns_after)
    );
    while cluster.tick + 1 < due.tick {
        cluster.tick(&[]);
        let idle = cluster.written.entities.iter().all(|(id, _)| *id == FIGHTER);
        assert!(idle, "the dead cost nothing until they come back");
    }
    cluster.tick(&[]);
    cluster.check();
    let back = cluster.unit(victim);
    assert_eq!((back.health, back.due), (rules::of(Kind::Handyman).health, None));
    assert!(back.at.chebyshev(back.camp) <= 3, "{back:?}");
    cluster.order(victim, Order::Mine { at: back.at.down() });
    assert_eq!(cluster.unit(victim).outcome, "done", "it takes orders again");
}

#[test]
fn a_dead_handyman_takes_no_orders_and_says_until_when() {
    let (mut cluster, [victim, _]) = world();
    fight(&mut cluster, victim);
    let dead = cluster.unit(victim);
    cluster.order(victim, Order::Move { to: dead.camp });
    let now = cluster.unit(victim);
    assert_eq!((now.order, now.at, now.due), (Order::Hold, dead.at, dead.due));
    assert_eq!(now.outcome, format!("this handyman is dead until tick {}", dead.due.expect("a tick").tick));
}

#[test]
fn a_handyman_comes_back_at_the_house_where_it_unloaded_last_or_else_at_the_camp() {
    for stands in [true, false] {
        let (mut cluster, [victim, _]) = world();
        let camp = cluster.unit(start::camp_id("eve")).at;
        let house = cluster.surface(camp.x + 9, camp.y + 9);
        if stands {
            put(&mut cluster, Kind::House, 77, "eve", house);
        }
        let mut unit = cluster.unit(victim);
        unit.home = house;
        cluster.put(&unit);
        fight(&mut cluster, victim);
        cluster.until(|c| !c.unit(victim).is_dead());
        let back = cluster.unit(victim);
        let home = if stands { house } else { camp };
        assert_eq!(back.home, home);
        assert!(back.at.chebyshev(home) <= 3, "{back:?}");
    }
}

/// A world in which ann's fighter has just died at the hands of eve's, which is unit 2; and the chunk it died in.
fn fallen() -> (Cluster, ChunkPos) {
    let (mut cluster, _) = world();
    let at = cluster.unit(FIGHTER).at;
    let there = cluster.surface(at.x + 2, at.y);
    put(&mut cluster, Kind::Fighter, 2, "eve", there);
    attack(&mut cluster, 2, FIGHTER);
    cluster.until(|c| c.unit(FIGHTER).is_dead());
    (cluster, at.chunk())
}

#[test]
fn a_dead_fighter_is_gone_for_good_and_its_owner_is_told_by_whom() {
    let (mut cluster, _) = fallen();
    assert!(cluster.is_gone(FIGHTER));
    assert_eq!(cluster.unit(FIGHTER).outcome, "killed by eve");
    for _ in 0..50 {
        cluster.tick(&[]);
        cluster.check();
    }
    assert!(cluster.is_gone(FIGHTER) && !cluster.is_gone(2));
}

#[test]
fn the_record_of_the_dead_goes_in_its_tick_whoever_owns_the_chunk_by_then_and_however_often_that_tick_is_run()
{
    let (mut plain, at) = fallen();
    let (mut broken, _) = fallen();
    let goes = plain.tick + rules::REMEMBERED;
    let graves = |c: &Cluster| Column::decode(&c.chunks[&at]).expect("a column").graves().len();
    assert_eq!(graves(&plain), 1);
    while plain.tick + 1 < goes {
        if plain.tick % 1000 == 7 {
            broken.assign(|region| region % 2);
        }
        plain.tick(&[]);
        broken.tick(&[]);
        assert_eq!(plain.written, broken.written);
        assert!(plain.written.gone.is_empty() && plain.is_gone(FIGHTER), "its owner can still see it");
    }
    broken.abandon(&[], 3, |_| 0);
    plain.tick(&[]);
    broken.tick(&[]);
    assert_eq!(plain.written, broken.written);
    assert_eq!(plain.written.gone, [("ann".to_owned(), FIGHTER)]);
    assert!(!plain.entities.contains_key(&FIGHTER) && graves(&plain) == 0);
    assert_eq!((plain.chunks, plain.entities), (broken.chunks, broken.entities));
}

#[test]
fn two_who_strike_each_other_in_the_same_tick_can_both_die() {
    let (mut cluster, _) = world();
    let at = cluster.unit(FIGHTER).at;
    let there = cluster.surface(at.x + 1, at.y);
    put(&mut cluster, Kind::Fighter, 2, "eve", there);
    for id in [FIGHTER, 2] {
        let mut weak = cluster.unit(id);
        weak.health = 1;
        cluster.put(&weak);
    }
    let attack = |by: u64, target: u64| {
        let unit = cluster.unit(by);
        let order = Order::Attack { target, at: cluster.unit(target).at, seen: cluster.tick };
        (unit.at.region(), vec![command(1, &unit.owner, by, order)])
    };
    let actions = [attack(FIGHTER, 2), attack(2, FIGHTER)];
    cluster.tick(&actions);
    cluster.check();
    assert!(cluster.is_gone(FIGHTER) && cluster.is_gone(2));
}

#[test]
fn a_destroyed_building_leaves_no_block_and_whoever_stood_on_it_falls() {
    let (mut cluster, [above, _]) = world();
    let at = cluster.unit(FIGHTER).at;
    let barracks = cluster.surface(at.x + 3, at.y);
    put(&mut cluster, Kind::Barracks, 77, "eve", barracks);
    let mut unit = cluster.unit(above);
    cluster.order(above, Order::Move { to: barracks.up() });
    cluster.until(|c| c.unit(above).order == Order::Hold);
    unit.at = cluster.unit(above).at;
    assert_eq!(unit.at, barracks.up());
    assert_eq!(fight(&mut cluster, 77).outcome, "done");
    assert!(cluster.is_gone(77));
    assert_eq!((cluster.block(barracks), cluster.unit(above).at), (Block::Air, barracks));
    assert_eq!(cluster.unit(77).outcome, "killed by ann");
}

#[test]
fn barracks_destroyed_while_they_train_yield_nobody() {
    let (mut cluster, _) = world();
    let at = cluster.unit(FIGHTER).at;
    let there = cluster.surface(at.x + 2, at.y);
    put(&mut cluster, Kind::Barracks, 77, "eve", there);
    let mut weak = cluster.unit(77);
    weak.health = 1;
    cluster.put(&weak);
    cluster.order(77, Order::Train { kind: Kind::Fighter });
    cluster.tick(&[]);
    assert_eq!(cluster.unit(77).doing().0, "training");
    fight(&mut cluster, 77);
    let count = cluster.entities.len();
    for _ in 0..30 {
        cluster.tick(&[]);
    }
    assert_eq!(cluster.entities.len(), count);
}

#[test]
fn a_target_that_runs_away_is_followed_across_the_border_of_regions() {
    let mut cluster = Cluster::new(SEED, RADIUS, |region| region);
    cluster.tick(&[spawn("ann", cluster.surface(-9, 5))]);
    cluster.tick(&[spawn("eve", cluster.surface(9, 5))]);
    let victim = start::unit_ids("eve", 1)[0];
    let there = cluster.surface(-6, 4);
    put(&mut cluster, Kind::Fighter, FIGHTER, "ann", there);
    let began = cluster.unit(FIGHTER).at.region();
    assert_ne!(began, cluster.unit(victim).at.region());
    attack(&mut cluster, FIGHTER, victim);
    let away = cluster.surface(30, 30);
    cluster.order(victim, Order::Move { to: away });
    cluster.until(|c| c.unit(victim).is_dead());
    assert_eq!(
        (cluster.unit(FIGHTER).at.region(), cluster.unit(victim).at.region()).0,
        cluster.unit(victim).at.region()
    );
    assert_ne!(cluster.unit(FIGHTER).at.region(), began);
    assert!(cluster.unit(victim).at.x > 10, "it ran: {:?}", cluster.unit(victim).at);
}

#[test]
fn an_attack_told_through_another_region_is_not_given_up_beside_the_target() {
    let (mut cluster, [victim, _]) = world();
    fight(&mut cluster, victim);
    cluster.until(|c| c.unit(FIGHTER).due.is_none());
    let at = cluster.unit(FIGHTER).at;
    let there = cluster.surface(at.x + 1, at.y);
    put(&mut cluster, Kind::Fighter, 2, "eve", there);
    let beside = at.region().neighbours().into_iter().find(|region| region.is_within(RADIUS));
    let order = Order::Attack { target: 2, at: there, seen: cluster.tick };
    cluster.tick(&[(beside.expect("a neighbour"), vec![command(1, "ann", FIGHTER, order)])]);
    cluster.tick(&[]);
    assert!(cluster.unit(2).health < rules::of(Kind::Fighter).health, "{:?}", cluster.unit(FIGHTER));
}

#[test]
fn who_rests_after_a_blow_does_not_strike_sooner_for_being_told_again() {
    let (mut cluster, [victim, _]) = world();
    attack(&mut cluster, FIGHTER, victim);
    let full = rules::of(Kind::Handyman).health;
    cluster.until(|c| c.unit(victim).health < full);
    let (tick, health) = (cluster.tick, cluster.unit(victim).health);
    let blow = rules::of(Kind::Fighter).blow.expect("fighters attack");
    while cluster.tick + 1 < tick + blow.rest {
        attack(&mut cluster, FIGHTER, victim);
        assert_eq!(cluster.unit(victim).health, health);
    }
    attack(&mut cluster, FIGHTER, victim);
    assert_eq!(cluster.unit(victim).health, health - blow.damage);
}

#[test]
fn attacks_that_make_no_sense_end_with_a_reason() {
    let (mut cluster, [victim, _]) = world();
    let at = cluster.unit(victim).at;
    attack(&mut cluster, victim, FIGHTER);
    let refused = "a handyman cannot attack: it takes hold, move, chop, mine, build";
    assert_eq!(cluster.unit(victim).outcome, refused);

    let own = start::unit_ids("ann", 1)[0];
    assert_eq!(fight(&mut cluster, own).outcome, "you do not attack your own");
    assert_eq!(fight(&mut cluster, start::camp_id("eve")).outcome, "a camp cannot be attacked");

    let seen = cluster.tick;
    cluster.order(FIGHTER, Order::Attack { target: 12345, at, seen });
    assert_eq!(cluster.unit(FIGHTER).outcome, "the target is gone");

    fight(&mut cluster, victim);
    let lying = cluster.unit(victim);
    assert!(lying.is_dead());
    cluster.until(|c| c.unit(FIGHTER).due.is_none());
    assert_eq!(fight(&mut cluster, victim).outcome, "it is dead already");
}

#[test]
fn a_target_in_a_region_nobody_would_think_of_is_gone() {
    let (mut cluster, [victim, _]) = world();
    let near: Vec<_> = {
        let at = cluster.unit(victim).at;
        [-2, 2].iter().flat_map(|x| [-2, 2].map(|y| at.offset(*x, y, 0).region())).collect()
    };
    let corners = [(-40, -40), (40, -40), (-40, 40), (40, 40)].map(|(x, y)| cluster.surface(x, y));
    let far = corners.into_iter().find(|at| !near.contains(&at.region())).expect("a region far away");
    let seen = cluster.tick;
    cluster.order(FIGHTER, Order::Attack { target: victim, at: far, seen });
    assert_eq!(cluster.unit(FIGHTER).outcome, "the target is gone");
}
