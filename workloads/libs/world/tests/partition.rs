//! Which ticker owns which region makes no difference to a single byte.

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, command, spawn};
use fortia_proto::world::v1::Action;
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::block::Block;
use fortia_world::order::Order;
use fortia_world::start;
use proptest::prelude::*;

/// Regions meet in the middle of a world of this radius: four of them, and everything happens near that corner.
const RADIUS: u32 = 2;
const PLAYERS: [&str; 4] = ["ann", "bob", "eve", "mallory"];

/// One command of a scenario: in which tick, whose unit, by whom, and what.
#[derive(Debug, Clone)]
struct Wish {
    tick: u64,
    owner: usize,
    unit: usize,
    player: usize,
    /// What to do: 0 hold, 1 move, 2 chop, 3 mine, 4 build.
    verb: u8,
    /// Where, from the unit.
    offset: (i32, i32, i32),
    /// Region named in the action, from the unit's.
    astray: (i32, i32),
    /// All units shall do it, to the ground of this place: conflicts across the borders.
    crowd: Option<(i32, i32)>,
}

fn wish() -> impl Strategy<Value = Wish> {
    let near = prop_oneof![4 => -3..=3, 1 => -25..=25];
    let astray = prop_oneof![4 => Just((0, 0)), 1 => (-1..=1, -1..=1)];
    let crowd = prop_oneof![3 => Just(None), 1 => (-2..=1, -2..=1).prop_map(Some)];
    let player = prop_oneof![6 => Just(None), 1 => (0..PLAYERS.len()).prop_map(Some)];
    let unit = (0..PLAYERS.len(), 0..2usize, player);
    (1u64..14, unit, 0..5u8, (near.clone(), near, -2..=2), astray, crowd).prop_map(
        |(tick, (owner, unit, player), verb, offset, astray, crowd)| {
            let player = player.unwrap_or(owner);
            Wish { tick, owner, unit, player, verb, offset, astray, crowd }
        },
    )
}

fn order(verb: u8, at: BlockPos) -> Order {
    match verb {
        0 => Order::Hold,
        1 => Order::Move { to: at },
        2 => Order::Chop { at },
        3 => Order::Mine { at },
        _ if at.x % 2 == 0 => Order::Build { at, block: Block::Wall },
        _ => Order::Build { at, block: Block::Planks },
    }
}

/// The actions of a tick, as the game would send them from what it sees committed.
fn actions(
    cluster: &Cluster,
    seed: u64,
    wishes: &[Wish],
    starts: &[BlockPos],
) -> Vec<(RegionPos, Vec<Action>)> {
    let mut all = BTreeMap::<RegionPos, Vec<Action>>::new();
    if cluster.tick == 0 {
        for (player, at) in PLAYERS.iter().zip(starts) {
            let (region, actions) = spawn(player, *at);
            all.entry(region).or_default().extend(actions);
        }
    }
    for (i, wish) in wishes.iter().enumerate().filter(|(_, wish)| wish.tick == cluster.tick) {
        if let Some((x, y)) = wish.crowd {
            let order = order(wish.verb, surface(seed, x, y).down());
            for (player, id) in
                PLAYERS.iter().flat_map(|p| start::unit_ids(p, 2).into_iter().map(move |id| (p, id)))
            {
                let command = command(i as u64, player, id, order);
                all.entry(cluster.unit(id).at.region()).or_default().push(command);
            }
            continue;
        }
        let id = start::unit_ids(PLAYERS[wish.owner], 2)[wish.unit];
        let unit = cluster.unit(id);
        let (x, y, z) = wish.offset;
        let command =
            command(i as u64 % 3, PLAYERS[wish.player], id, order(wish.verb, unit.at.offset(x, y, z)));
        let region = unit.at.region();
        let region = RegionPos::new(region.x + wish.astray.0, region.y + wish.astray.1);
        all.entry(region).or_default().push(command);
    }
    all.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_partition_gives_the_same_bytes_at_every_tick(
        seed in 0u64..1000,
        starts in prop::collection::vec((-4..4, -4..4), PLAYERS.len()),
        wishes in prop::collection::vec(wish(), 1..60),
        owners in prop::collection::vec(0..4usize, 4),
        later in prop::collection::vec(0..4usize, 4),
        change in 1u64..16,
    ) {
        let starts: Vec<BlockPos> = starts.iter().map(|(x, y)| surface(seed, *x, *y)).collect();
        let mut whole = Cluster::new(seed, RADIUS, |_| 0);
        let mut parts = Cluster::new(seed, RADIUS, |region| owners[region]);
        for _ in 0..16 {
            if parts.tick == change {
                parts.assign(|region| later[region]);
            }
            let actions = actions(&whole, seed, &wishes, &starts);
            whole.tick(&actions);
            parts.tick(&actions);
            prop_assert_eq!(&whole.written, &parts.written, "tick {}", whole.tick);
            prop_assert_eq!(&whole.chunks, &parts.chunks, "tick {}", whole.tick);
            prop_assert_eq!(&whole.entities, &parts.entities, "tick {}", whole.tick);
            whole.check();
        }
        prop_assert_eq!(whole.entities.len(), 2 * PLAYERS.len());
    }
}

/// The cell above the ground there.
fn surface(seed: u64, x: i32, y: i32) -> BlockPos {
    let ground = fortia_world::generate::Generator::new(seed).ground(x, y);
    BlockPos::new(x, y, ground + 1)
}

#[test]
fn units_cross_the_border_between_two_territories() {
    let mut cluster = Cluster::new(11, RADIUS, |region| region);
    let at = surface(11, -4, 6);
    cluster.tick(&[spawn("ann", at)]);
    let id = start::unit_ids("ann", 1)[0];
    let from = cluster.unit(id).at;
    let to = surface(11, 9, -7);
    cluster.tick(&[(from.region(), vec![command(1, "ann", id, Order::Move { to })])]);
    let mut regions = std::collections::BTreeSet::from([from.region()]);
    for _ in 0..120 {
        cluster.tick(&[]);
        cluster.check();
        regions.insert(cluster.unit(id).at.region());
    }
    let unit = cluster.unit(id);
    assert_eq!((unit.outcome.as_str(), unit.at.x, unit.at.y), ("done", to.x, to.y), "{unit:?}");
    assert!(regions.len() >= 2, "{regions:?}");
}
