//! Crowds walk all over a world whose regions change hands: nobody is lost, nobody is there twice, and no byte depends on
//! who owned what.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, command, ground};
use fortia_proto::world::v1::Action;
use fortia_vec::{BlockPos, LocalPos, RegionPos};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Kind};
use fortia_world::order::Order;
use fortia_world::path::pillar::Pillar;

/// Chunks from -9 to 9: sixteen regions, nine of which are cut off by the rim.
const RADIUS: u32 = 9;
const WALKERS: u64 = 140;
const PLAYERS: [&str; 3] = ["ann", "bob", "eve"];

/// Numbers that look random and follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    fn place(&mut self, cluster: &Cluster) -> BlockPos {
        let side = 2 * RADIUS as i32 * 16;
        let (x, y) = (self.below(side as u64) as i32 - side / 2, self.below(side as u64) as i32 - side / 2);
        top(cluster, x, y)
    }
}

/// The cell on the ground there: not in a tree, where nobody gets down from.
fn top(cluster: &Cluster, x: i32, y: i32) -> BlockPos {
    let at = BlockPos::new(x, y, 0);
    let column = Column::decode(&cluster.chunks[&at.chunk()]).expect("a column");
    let local = at.local().expect("a place in it");
    let plant = |block: Block| matches!(block, Block::Wood | Block::Leaves);
    let block = |z: u8| column.get(LocalPos { z, ..local });
    let bare = (0..HEIGHT).map(|z| if plant(block(z)) { Block::Air } else { block(z) });
    BlockPos { z: Pillar::of(bare).nearest(i32::from(HEIGHT)).expect("somewhere to stand"), ..at }
}

fn is_open(cluster: &Cluster, at: BlockPos) -> bool {
    [at, at.up()].into_iter().all(|at| at.z < 63 && !cluster.block(at).is_solid())
}

fn is_water(cluster: &Cluster, at: BlockPos) -> bool {
    cluster.block(at) == Block::Water
}

fn owner(id: u64) -> &'static str {
    PLAYERS[(id % 3) as usize]
}

/// The orders of one tick: single walks, crowds to one goal, and work that changes the land they walk on.
fn orders(dice: &mut Dice, cluster: &Cluster) -> Vec<(RegionPos, Vec<Action>)> {
    let mut all = BTreeMap::<RegionPos, Vec<Action>>::new();
    let mut order = |id: u64, order: Order| {
        let region = cluster.unit(id).at.region();
        all.entry(region).or_default().push(command(id, owner(id), id, order));
    };
    for _ in 0..6 {
        let id = 1 + dice.below(WALKERS);
        order(id, Order::Move { to: dice.place(cluster) });
    }
    if cluster.tick % 24 == 1 {
        let to = dice.place(cluster);
        (1..=WALKERS).filter(|id| id % 4 != 0).for_each(|id| order(id, Order::Move { to }));
    }
    for _ in 0..3 {
        let id = 1 + dice.below(WALKERS);
        order(id, Order::Mine { at: cluster.unit(id).at.offset(1, 0, -1) });
    }
    all.into_iter().collect()
}

/// A world full of walkers, ticked by one territory.
fn world(seed: u64) -> Cluster {
    let ground = ground(seed, RADIUS);
    let mut cluster = Cluster::on(&ground, RADIUS, |_| 0);
    let mut dice = Dice(seed);
    for id in 1..=WALKERS {
        // Where a trunk stands there is no room.
        let at = std::iter::repeat_with(|| dice.place(&cluster))
            .find(|at| is_open(&cluster, *at))
            .expect("an open place");
        cluster.put(&Entity::new(Kind::Handyman, id, owner(id), at, at));
    }
    cluster.assign(|_| 0);
    cluster
}

#[test]
fn nobody_is_lost_or_doubled_however_regions_change_hands_and_ticks_are_given_up() {
    for seed in [7, 8] {
        let (mut whole, mut parts) = (world(seed), world(seed));
        let mut dice = Dice(seed ^ 99);
        let mut crossings = 0;
        for _ in 0..150 {
            let actions = orders(&mut dice, &whole);
            let hands = dice.below(1 << 32);
            let owners = |region: usize| (hands >> (2 * (region % 16)) & 3) as usize;
            match dice.below(6) {
                0 => parts.assign(owners),
                1 => parts.abandon(&actions, 1 + (hands >> 40) as usize % 3, owners),
                2 => parts.abandon(&actions, 3, |_| 0),
                _ => {}
            }
            let before: Vec<RegionPos> = (1..=WALKERS).map(|id| whole.unit(id).at.region()).collect();
            whole.tick(&actions);
            parts.tick(&actions);
            assert_eq!(whole.written, parts.written, "seed {seed}, tick {}", whole.tick);
            assert_eq!(parts.entities.len() as u64, WALKERS);
            let now = (1..=WALKERS).map(|id| parts.unit(id).at.region());
            crossings += now.zip(before).filter(|(now, before)| now != before).count();
            if parts.tick % 10 == 0 {
                parts.check();
            }
        }
        assert_eq!((&whole.chunks, &whole.entities), (&parts.chunks, &parts.entities));
        assert!(crossings > 100, "only {crossings} borders crossed: the test shows little");
    }
}

#[test]
fn those_who_search_too_much_wait_and_the_others_do_not() {
    let ground = ground(7, RADIUS);
    let mut cluster = Cluster::on(&ground, RADIUS, |_| 0);
    // All in one region: most of them Ann's, few of Bob's and Eve's. Everybody wants to go somewhere else, far away.
    let owner = |id: u64| if id <= 400 { "ann" } else { ["bob", "eve"][id as usize % 2] };
    let mut actions = Vec::new();
    let mut dice = Dice(3);
    for id in 1..=420 {
        let place = |cluster: &Cluster, dice: &mut Dice, low: i32| {
            let open = |at: &BlockPos| is_open(cluster, *at) && !is_water(cluster, *at);
            let place = || top(cluster, low + dice.below(100) as i32, low + dice.below(100) as i32);
            std::iter::repeat_with(place).find(open).unwrap()
        };
        let (at, to) = (place(&cluster, &mut dice, 1), place(&cluster, &mut dice, -120));
        cluster.put(&Entity::new(Kind::Handyman, id, owner(id), at, at));
        actions.push(command(id, owner(id), id, Order::Move { to }));
    }
    cluster.assign(|_| 0);
    let starts: Vec<BlockPos> = (1..=420).map(|id| cluster.unit(id).at).collect();
    let waiting = |cluster: &Cluster, whose: &dyn Fn(&str) -> bool| {
        let waits = |id: &u64| {
            let unit = cluster.unit(*id);
            unit.at == starts[*id as usize - 1] && unit.order != Order::Hold && whose(&unit.owner)
        };
        (1..=420u64).filter(waits).count()
    };
    cluster.tick(&[(RegionPos::new(0, 0), actions)]);
    let (anns, others) = (waiting(&cluster, &|o| o == "ann"), waiting(&cluster, &|o| o != "ann"));
    assert!(anns > 40 && others == 0, "{anns} of Ann's and {others} others wait");
    let mut ticks = 1;
    while waiting(&cluster, &|_| true) > 0 {
        cluster.tick(&[]);
        ticks += 1;
        assert!(ticks < 40, "somebody waits for ever");
    }
}

#[test]
fn a_crowd_to_one_goal_makes_one_field_and_one_more_when_the_land_changes() {
    let ground = ground(7, RADIUS);
    let mut cluster = Cluster::on(&ground, RADIUS, |_| 0);
    // All in the middle of one region, so that nobody walks through another.
    let dry = |cluster: &Cluster, at: &BlockPos| is_open(cluster, *at) && !is_water(cluster, *at);
    let places: Vec<BlockPos> =
        (0..1600).map(|i| top(&cluster, 44 + i % 40, 44 + i / 40)).filter(|at| dry(&cluster, at)).collect();
    let to = places[places.len() / 2];
    let crowd: Vec<u64> = (1..=120).collect();
    for id in &crowd {
        let at = places[*id as usize * places.len() / 121];
        cluster.put(&Entity::new(Kind::Handyman, *id, owner(*id), at, at));
    }
    cluster.assign(|_| 0);
    let walk = |cluster: &mut Cluster| {
        let go = |id: &u64| command(*id, owner(*id), *id, Order::Move { to });
        cluster.tick(&[(RegionPos::new(0, 0), crowd.iter().map(go).collect())]);
        let first = cluster.fields_made();
        for _ in 0..12 {
            cluster.tick(&[]);
        }
        (first, cluster.fields_made())
    };
    // One to the goal, and perhaps one for those who are cut off from it.
    let (first, after) = walk(&mut cluster);
    assert!((1..=2).contains(&first), "{first} fields for one goal");
    assert_eq!(after, first, "a field is made once, not in every tick");
    assert_eq!(walk(&mut cluster), (first, first), "nor for every order");
    let digger = crowd[0];
    let at = cluster.unit(digger).at.down();
    cluster.tick(&[(RegionPos::new(0, 0), vec![command(1, owner(digger), digger, Order::Mine { at })])]);
    assert_eq!(cluster.block(at), Block::Air);
    let (_, later) = walk(&mut cluster);
    assert!(later > first && later <= 2 * first, "{later} fields, {first} before the land changed");
}

#[test]
fn a_crowd_arrives_and_a_unit_on_its_own_arrives_as_well() {
    let mut cluster = world(7);
    // A dry place that can be walked to, and forty who are near it.
    let to = (0..200).map(|i| top(&cluster, i % 40 - 20, i / 40)).find(|at| at.z > 24).unwrap();
    let near =
        |cluster: &Cluster, id: &u64| cluster.unit(*id).at.x.abs() < 80 && cluster.unit(*id).at.y.abs() < 80;
    let crowd: Vec<u64> = (1..=WALKERS).filter(|id| near(&cluster, id)).collect();
    let mut actions = BTreeMap::<RegionPos, Vec<Action>>::new();
    for id in &crowd {
        let command = command(*id, owner(*id), *id, Order::Move { to });
        actions.entry(cluster.unit(*id).at.region()).or_default().push(command);
    }
    cluster.tick(&actions.into_iter().collect::<Vec<_>>());
    for _ in 0..400 {
        cluster.tick(&[]);
    }
    let done = crowd.iter().filter(|id| cluster.unit(**id).outcome == "done").count();
    assert!(crowd.len() > 20 && done * 10 > crowd.len() * 8, "{done} of {} arrived", crowd.len());
    assert!(crowd.iter().all(|id| cluster.unit(*id).order == Order::Hold), "somebody walks for ever");
}
