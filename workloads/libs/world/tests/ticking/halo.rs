//! Chunks of others are loaded where somebody may look at them, and whoever looks sees them as they were at the tick before.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, command, spawn};
use fortia_proto::world::v1::{Action, action};
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use fortia_world::block::Block;
use fortia_world::entity::{Entity, Kind};
use fortia_world::generate::Generator;
use fortia_world::order::Order;
use fortia_world::step::{StepError, Territory};
use fortia_world::{start, wire};

const SEED: u64 = 11;
/// Four regions, which meet at the origin.
const RADIUS: u32 = 2;
const EAST: RegionPos = RegionPos::new(0, 0);
const WEST: RegionPos = RegionPos::new(-1, 0);

/// The chunks a region asks for, all of which are then loaded; an entity is listed in the one at the origin, if there is one.
fn asked(territory: &mut Territory, entity: Option<u64>) -> BTreeSet<ChunkPos> {
    let generator = Generator::new(SEED);
    let mut asked = BTreeSet::new();
    while let Some(at) = territory.missing_chunks().first().copied() {
        assert!(asked.insert(at), "chunk {at} is asked for twice");
        let mut column = generator.column(at);
        if let Some(id) = entity.filter(|_| at == ChunkPos::new(0, 0)) {
            column.set_entity(id, true);
        }
        territory.load(column);
    }
    asked
}

#[test]
fn around_a_region_in_which_nobody_is_nothing_is_loaded() {
    let next_door = ChunkPos::new(-1, 3);
    let mut territory = Territory::new([EAST], 20);
    assert_eq!(asked(&mut territory, None), EAST.chunks().collect());
    territory.refresh(&[next_door], &[]);
    assert!(territory.missing_chunks().is_empty(), "what changes there is of no interest");
    assert_eq!(territory.observe(1, &[]), Ok(vec![]));
}

#[test]
fn around_a_region_in_which_somebody_is_everything_is_loaded_and_loaded_anew_when_it_changes() {
    let next_door = ChunkPos::new(-1, 3);
    let mut territory = Territory::new([EAST], 20);
    let around: BTreeSet<ChunkPos> =
        (-1..=8).flat_map(|x| (-1..=8).map(move |y| ChunkPos::new(x, y))).collect();
    assert_eq!(asked(&mut territory, Some(7)), around);
    territory.refresh(&[next_door, ChunkPos::new(-2, 3), ChunkPos::new(3, 3)], &[]);
    assert_eq!(territory.missing_chunks(), [next_door]);
    assert_eq!(
        territory.observe(1, &[]),
        Err(StepError::NotLoaded(next_door)),
        "nobody looks at what is old"
    );
}

/// Three worlds that must be the same: of one territory, which has no neighbours, of four that are assigned once, and of
/// four that know nothing at the beginning of each tick.
struct Worlds([Cluster; 3]);

impl Worlds {
    fn new(put: impl Fn(&mut Cluster)) -> Worlds {
        let owners: [fn(usize) -> usize; 3] = [|_| 0, |region| region, |region| region];
        Worlds(owners.map(|owners| {
            let mut cluster = Cluster::new(SEED, RADIUS, owners);
            put(&mut cluster);
            cluster
        }))
    }

    fn tick(&mut self, actions: &[(RegionPos, Vec<Action>)]) {
        self.0[2].assign(|region| region);
        self.0.iter_mut().for_each(|cluster| cluster.tick(actions));
        let [alone, kept, anew] = &self.0;
        assert_eq!(alone.written, kept.written, "tick {}", alone.tick);
        assert_eq!(alone.written, anew.written, "tick {}", alone.tick);
        alone.check();
    }

    /// Gives a unit an order, and ticks until it is over; returns the unit.
    fn order(&mut self, id: u64, order: Order) -> Entity {
        let unit = self.0[1].unit(id);
        self.tick(&[(unit.at.region(), vec![command(1, &unit.owner, id, order)])]);
        for _ in 0..200 {
            if self.0[1].unit(id).order == Order::Hold {
                break;
            }
            self.tick(&[]);
        }
        self.0[1].unit(id)
    }
}

#[test]
fn a_unit_that_comes_back_to_a_border_sees_what_was_changed_next_door_meanwhile() {
    let (ann, bob) = (1, 2);
    let mut worlds = Worlds::new(|cluster| {
        for (id, owner, x, y) in [(ann, "ann", 1, 15), (bob, "bob", -6, 20)] {
            let at = cluster.surface(x, y);
            cluster.put(&Entity::new(Kind::Handyman, id, owner, at, at));
        }
    });
    let east = worlds.0[1].unit(ann).at;
    // In a chunk through which she does not come: her own steps do not make it known anew.
    let block = worlds.0[1].surface(-1, 16).down();
    worlds.tick(&[]);
    let there = worlds.0[1].surface(-10, 6);
    let away = worlds.order(ann, Order::Move { to: there });
    assert_eq!((away.outcome.as_str(), away.at.region()), ("done", WEST), "nobody is left in the east");
    let digger = worlds.order(bob, Order::Mine { at: block });
    assert_eq!((digger.outcome.as_str(), digger.at.region()), ("done", WEST), "{digger:?}");
    assert_eq!(worlds.0[1].block(block), Block::Air);
    let back = worlds.order(ann, Order::Move { to: east });
    assert_eq!((back.outcome.as_str(), back.at.region()), ("done", EAST), "{back:?}");
    // Whoever saw the old block would be told that someone was faster.
    assert_eq!(worlds.order(ann, Order::Mine { at: block }).outcome, "there is nothing to mine");
}

#[test]
fn what_is_dug_next_door_is_told_and_not_loaded_anew() {
    let (ann, bob) = (1, 2);
    let mut cluster = Cluster::new(SEED, RADIUS, |region| region);
    for (id, owner, x, y) in [(ann, "ann", 1, 15), (bob, "bob", -3, 15)] {
        let at = cluster.surface(x, y);
        cluster.put(&Entity::new(Kind::Handyman, id, owner, at, at));
    }
    cluster.tick(&[]);
    let loaded = cluster.loaded;
    let below = cluster.unit(bob).at.down();
    let mine = command(1, "bob", bob, Order::Mine { at: below });
    cluster.tick(&[(below.region(), vec![mine])]);
    for _ in 0..4 {
        // Each looks whether the copies are as the chunks are.
        cluster.tick(&[]);
    }
    assert_eq!(cluster.block(below), Block::Air);
    assert_eq!(cluster.loaded, loaded);
}

#[test]
fn who_walks_in_the_tick_in_which_it_appears_where_nobody_was_sees_what_is_next_door() {
    let mut worlds = Worlds::new(|_| {});
    let at = worlds.0[1].surface(2, 6);
    let to = worlds.0[1].surface(-9, 6);
    let id = start::unit_ids("ann", 1)[0];
    let mut walk = command(2, "ann", id, Order::Move { to });
    if let Some(action::Kind::Command(command)) = &mut walk.kind {
        // Sent to where it is not, so that it comes in the same stage as the spawn, and after it.
        command.at = Some(wire::block_pos(at));
    }
    worlds.tick(&[spawn("ann", at), (WEST, vec![walk])]);
    let unit = worlds.0[1].unit(id);
    let crosses = |at: &BlockPos| at.region() == WEST;
    assert!(unit.path.iter().any(crosses), "it has found a way over the border: {unit:?}");
    for _ in 0..40 {
        worlds.tick(&[]);
    }
    assert_eq!(worlds.0[1].unit(id).at.region(), WEST);
}
