//! A world that grows: chunks beyond the first radius are made when somebody comes near, and who makes them makes no
//! difference to a single byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::{Cluster, command, spawn};
use fortia_proto::world::v1::Action;
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::chunk::Column;
use fortia_world::generate::Generator;
use fortia_world::order::Order;
use fortia_world::start;
use fortia_world::step::Territory;
use proptest::prelude::*;

/// Chunks that are made at first, and how far the worlds may grow: 16 regions.
const RADIUS: u32 = 1;
const LIMIT: u32 = 10;
const PLAYERS: [&str; 3] = ["ann", "bob", "eve"];

/// Walks beyond the first radius: in which tick, whose unit, and where to.
fn walks() -> impl Strategy<Value = Vec<(u64, usize, (i32, i32))>> {
    prop::collection::vec((1u64..30, 0..PLAYERS.len(), (-170..170i32, -170..170i32)), 4..12)
}

/// The chunks within two of one.
fn near(at: &ChunkPos) -> impl Iterator<Item = ChunkPos> {
    let at = *at;
    (-2..=2).flat_map(move |x| (-2..=2).map(move |y| at.offset(x, y)))
}

/// The order to walk to a place.
fn walk(x: i32, y: i32) -> Order {
    Order::Move { to: BlockPos::new(x, y, 30) }
}

/// What the game would send in the next tick.
fn actions(
    cluster: &Cluster,
    starts: &[BlockPos],
    walks: &[(u64, usize, (i32, i32))],
) -> Vec<(RegionPos, Vec<Action>)> {
    let mut actions = BTreeMap::<RegionPos, Vec<Action>>::new();
    for (player, at) in PLAYERS.iter().zip(starts).filter(|_| cluster.tick == 0) {
        let (region, spawned) = spawn(player, *at);
        actions.entry(region).or_default().extend(spawned);
    }
    for (_, player, (x, y)) in walks.iter().filter(|(tick, ..)| *tick == cluster.tick) {
        let id = start::unit_ids(PLAYERS[*player], 1)[0];
        let region = cluster.unit(id).at.region();
        actions.entry(region).or_default().push(command(1, PLAYERS[*player], id, walk(*x, *y)));
    }
    actions.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_world_that_grows_is_the_same_for_any_partition(
        seed in 0u64..1000,
        walks in walks(),
        owners in prop::collection::vec(0..5usize, 16),
        later in prop::collection::vec(0..5usize, 16),
        change in 1u64..60,
    ) {
        let starts: Vec<BlockPos> = PLAYERS.iter().map(|player| start::position(seed, RADIUS, player)).collect();
        prop_assume!(starts.iter().all(|at| at.z < 64));
        let mut whole = Cluster::new(seed, RADIUS, |_| 0);
        whole.grow(seed, LIMIT, |_| 0);
        let mut parts = Cluster::new(seed, RADIUS, |_| 0);
        parts.grow(seed, LIMIT, |region| owners[region]);
        let generator = Generator::new(seed);
        for _ in 0..70 {
            if parts.tick == change || parts.tick == change + 7 {
                parts.reassign(|region| later[region]);
                parts.check_known();
            }
            let actions = actions(&whole, &starts, &walks);
            let stood: Vec<ChunkPos> = whole.entities.keys().map(|id| whole.unit(*id).at.chunk()).collect();
            let before = whole.chunks.clone();
            whole.tick(&actions);
            parts.tick(&actions);
            prop_assert_eq!(&whole.written, &parts.written, "tick {}", whole.tick);
            for at in stood.iter().flat_map(near).filter(|at| at.is_within(LIMIT)) {
                prop_assert!(whole.chunks.contains_key(&at), "{} is missing at tick {}", at, whole.tick);
            }
            for (at, bytes) in whole.chunks.iter().filter(|(at, _)| !before.contains_key(at)) {
                prop_assert_eq!(bytes, &generator.column(*at).encode(), "{}", at);
                prop_assert!(stood.iter().flat_map(near).any(|near| near == *at), "nobody is near {}", at);
            }
            whole.check();
        }
        prop_assert_eq!(&whole.chunks, &parts.chunks);
        prop_assert_eq!(&whole.entities, &parts.entities);
    }
}

/// A world of one player whose unit is told to walk east.
fn walker(radius: u32, limit: u32, east: i32) -> (Cluster, u64) {
    let seed = 11;
    let mut cluster = Cluster::new(seed, radius, |_| 0);
    cluster.grow(seed, limit, |region| region);
    let at = start::position(seed, radius, "ann");
    cluster.tick(&[spawn("ann", at)]);
    let id = start::unit_ids("ann", 1)[0];
    let from = cluster.unit(id).at;
    cluster.tick(&[(from.region(), vec![command(1, "ann", id, walk(east, from.y))])]);
    (cluster, id)
}

#[test]
fn a_unit_walks_beyond_the_first_radius_and_only_what_it_comes_near_is_made() {
    let (mut cluster, id) = walker(2, 8, 7 * 16);
    for _ in 0..240 {
        cluster.tick(&[]);
        cluster.check();
    }
    let unit = cluster.unit(id);
    assert!(unit.at.chunk().x > 3, "{unit:?} did not get far");
    let made: Vec<_> = cluster.chunks.keys().filter(|at| !at.is_within(2)).collect();
    assert!((5..90).contains(&made.len()), "{} chunks were made: {made:?}", made.len());
    assert!(!cluster.chunks.contains_key(&ChunkPos::new(-8, 8)), "nobody came near");
    let column = Column::decode(&cluster.chunks[&unit.at.chunk()]).expect("a column");
    assert!(column.entities().contains(&id));
}

#[test]
fn nobody_walks_over_the_edge_of_the_world() {
    let (mut cluster, id) = walker(1, 2, 3 * 16);
    cluster.tick(&[]);
    assert_eq!(cluster.unit(id).outcome, "outside the world");
    assert!(cluster.chunks.keys().all(|at| at.is_within(2)));
}

/// Loads a territory of a world in which nobody has been anywhere; returns how many chunks it asked for.
fn load(territory: &mut Territory, radius: u32, generator: &Generator) -> usize {
    let mut asked = 0;
    loop {
        let missing = territory.missing_chunks();
        if missing.is_empty() {
            return asked;
        }
        asked += missing.len();
        for at in missing {
            match at.is_within(radius) {
                true => territory.load(generator.column(at)),
                false => assert!(territory.absent(at)),
            }
        }
    }
}

#[test]
fn a_world_that_may_grow_far_costs_what_was_made_and_its_ticks_nothing() {
    const RADIUS: u32 = 2;
    let generator = Arc::new(Generator::new(11));
    let made = ChunkPos::within(RADIUS).count();
    for limit in [8, 640] {
        let all = regions_of(limit);
        let began = Instant::now();
        let mut alone = Territory::new(all.iter().copied(), RADIUS).growing(generator.clone(), limit);
        let asked = load(&mut alone, RADIUS, &generator);
        let loaded = began.elapsed();
        assert!(asked <= ChunkPos::within(RADIUS + 1).count(), "{asked} chunks asked for, {made} made");
        let began = Instant::now();
        for tick in 1..=1000 {
            let letters = alone.observe(tick, &[]).expect("observes");
            let letters = alone.edit(tick, letters).expect("edits");
            let letters = alone.shift(tick, letters).expect("moves");
            let changes = alone.commit(tick, letters).expect("commits");
            assert!(changes.changed.is_empty());
        }
        let ticked = began.elapsed();
        println!(
            "limit {limit}: {} regions, {asked} chunks asked for, loaded in {loaded:?}, 1000 ticks in {ticked:?}",
            all.len()
        );
        // One of two tickers, whose regions lie together in squares of four by four: only the borders are looked at.
        let mine = |at: &&RegionPos| (at.x.div_euclid(4) + at.y.div_euclid(4)) % 2 == 0;
        let half: Vec<RegionPos> = all.iter().filter(mine).copied().collect();
        let mut half = Territory::new(half, RADIUS).growing(generator.clone(), limit);
        let asked = load(&mut half, RADIUS, &generator);
        let chunks = ChunkPos::within(limit).count();
        println!("limit {limit}, one of two tickers: {asked} chunks asked for, of {chunks}");
        assert!(limit < 640 || asked * 20 < chunks, "{asked} of {chunks}");
    }
}

#[test]
fn what_was_made_beside_the_first_radius_is_found_without_loading_what_others_have_of_that() {
    const RADIUS: u32 = 7;
    let generator = Arc::new(Generator::new(11));
    let made = [8, 9, 10].map(|x| ChunkPos::new(x, 3));
    // Its first chunks are beside the last ones of the first radius, which another region has.
    let mut territory = Territory::new([RegionPos::new(1, 0)], RADIUS).growing(generator.clone(), 20);
    while let Some(at) = territory.missing_chunks().first().copied() {
        assert!(!at.is_within(RADIUS), "{at} is another's, and nobody looks at it");
        match made.contains(&at) {
            true => territory.load(generator.column(at)),
            false => assert!(territory.absent(at)),
        }
    }
    assert!(made.iter().all(|at| territory.column(*at).is_some()));
}
