//! One territory that ticks alone, and 1 to 8 tickers under `Queue`, under `Lock`, or switching between them, write the
//! same bytes. `FORTIA_SCENARIOS` sets how many random scenarios are tried.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Ground, command, ground, spawn};
use fortia_proto::world::v1::Action;
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::order::Order;
use fortia_world::{generate, rules, start};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Nine regions, so that each of eight tickers has one. Four meet at block (0,0), four at (128,128).
const RADIUS: u32 = 8;
const SEEDS: [u64; 2] = [11, 42];
const CORNERS: [i32; 2] = [0, 128];
const PLAYERS: [&str; 4] = ["ann", "bob", "eve", "mallory"];
const UNITS: usize = 2;
const TICKS: u64 = 8;

/// In which tick which units are told what.
#[derive(Debug, Clone)]
struct Cue {
    tick: u64,
    /// One unit, or all: then they want the same block.
    unit: Option<usize>,
    /// 0 hold, 1 move, 2 chop, 3 mine, 4 build.
    verb: u8,
    /// Where, from the unit, or from the corner if all are told.
    offset: (i32, i32, i32),
    /// Whether the action names a neighbour of the unit's region.
    astray: bool,
}

#[derive(Debug, Clone)]
struct Scenario {
    seed: usize,
    starts: Vec<(i32, i32)>,
    cues: Vec<Cue>,
    owners: Vec<usize>,
    later: Vec<usize>,
    /// A tick that is given up after so many stages, and run again by other owners.
    broken: (u64, usize),
    /// A tick from which on the other strategy is used.
    switched: u64,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let near = || -2..=2i32;
    let unit = prop_oneof![1 => Just(None), 1 => (0..PLAYERS.len() * UNITS).prop_map(Some)];
    let astray = prop::bool::weighted(0.2);
    let verb = prop_oneof![1 => 0..=2u8, 6 => Just(3), 3 => Just(4)];
    let cue = (2..=TICKS, unit, verb, (near(), near(), -2..=2), astray)
        .prop_map(|(tick, unit, verb, offset, astray)| Cue { tick, unit, verb, offset, astray });
    let owners = || (1..=8usize).prop_flat_map(|tickers| prop::collection::vec(0..tickers, 9));
    let starts = prop::collection::vec((-2..2, -2..2), PLAYERS.len());
    let times = (1..=TICKS, 1..=3usize, 1..=TICKS);
    (0..SEEDS.len(), starts, prop::collection::vec(cue, 8..48), owners(), owners(), times).prop_map(
        |(seed, starts, cues, owners, later, (tick, stages, switched))| Scenario {
            seed,
            starts,
            cues,
            owners,
            later,
            broken: (tick, stages),
            switched,
        },
    )
}

fn order(verb: u8, at: BlockPos) -> Order {
    match verb {
        0 => Order::Hold,
        1 => Order::Move { to: at },
        2 => Order::Chop { at },
        3 => Order::Mine { at },
        _ => Order::Build { at, block: rules::BUILDINGS[at.x.rem_euclid(4) as usize].what },
    }
}

/// The cell above the ground near the corner a player lives at.
fn surface(scenario: &Scenario, player: usize, (x, y): (i32, i32)) -> BlockPos {
    let corner = CORNERS[player % CORNERS.len()];
    let (x, y) = (corner + x, corner + y);
    let ground = generate::Generator::new(SEEDS[scenario.seed]).ground(x, y);
    BlockPos::new(x, y, ground + 1)
}

/// The actions of the next tick, as the game would send them from what it sees committed.
fn actions(cluster: &Cluster, scenario: &Scenario) -> Vec<(RegionPos, Vec<Action>)> {
    let mut all = BTreeMap::<RegionPos, Vec<Action>>::new();
    if cluster.tick == 0 {
        for (player, name) in PLAYERS.iter().enumerate() {
            let (region, actions) = spawn(name, surface(scenario, player, scenario.starts[player]));
            all.entry(region).or_default().extend(actions);
        }
        return all.into_iter().collect();
    }
    for (i, cue) in scenario.cues.iter().enumerate().filter(|(_, cue)| cue.tick == cluster.tick + 1) {
        let told = cue.unit.map_or(0..PLAYERS.len() * UNITS, |unit| unit..unit + 1);
        for unit in told {
            let (player, unit) = (unit % PLAYERS.len(), unit / PLAYERS.len());
            let id = start::unit_ids(PLAYERS[player], UNITS)[unit];
            let unit = cluster.unit(id);
            let (x, y, z) = cue.offset;
            let at = match cue.unit {
                Some(_) => unit.at.offset(x, y, z),
                // The ground at the corner, or what is above it.
                None => {
                    surface(scenario, player, (x / 2, y / 2)).offset(0, 0, if cue.verb == 4 { 0 } else { -1 })
                }
            };
            let region = unit.at.region();
            let region = if cue.astray { RegionPos::new(region.x + 1, region.y) } else { region };
            let command = command(i as u64 % 3, PLAYERS[player], id, order(cue.verb, at));
            all.entry(region).or_default().push(command);
        }
    }
    all.into_iter().collect()
}

/// What was seen in all scenarios together, so that the test cannot become one about nothing.
#[derive(Debug, Default)]
struct Seen {
    scenarios: u64,
    edits: u64,
    conflicts: u64,
}

fn check(scenario: &Scenario, grounds: &[Ground], seen: &mut Seen) -> Result<(), TestCaseError> {
    let ground = &grounds[scenario.seed];
    let mut reference = Cluster::on(ground, RADIUS, |_| 0);
    let owned = |region: usize| scenario.owners[region];
    let mut queue = Cluster::on(ground, RADIUS, owned);
    let mut lock = Cluster::on(ground, RADIUS, owned);
    lock.lock(true);
    let mut switching = Cluster::on(ground, RADIUS, |region| scenario.later[region]);
    for tick in 1..=TICKS {
        let actions = actions(&reference, scenario);
        if tick == scenario.broken.0 {
            for cluster in [&mut queue, &mut lock] {
                cluster.abandon(&actions, scenario.broken.1, |region| scenario.later[region]);
            }
        }
        switching.lock((tick < scenario.switched) == scenario.owners[0].is_multiple_of(2));
        reference.tick(&actions);
        seen.edits += reference.written.columns.len() as u64;
        for (name, cluster) in [("queue", &mut queue), ("lock", &mut lock), ("switching", &mut switching)] {
            cluster.tick(&actions);
            prop_assert_eq!(&reference.written, &cluster.written, "{} in tick {}", name, tick);
        }
    }
    seen.conflicts += lock.conflicts;
    seen.scenarios += 1;
    for cluster in [&queue, &lock, &switching] {
        prop_assert!(reference.chunks == cluster.chunks && reference.entities == cluster.entities);
    }
    Ok(())
}

#[test]
fn queue_and_lock_with_one_to_eight_tickers_write_what_one_territory_alone_writes() {
    let cases = std::env::var("FORTIA_SCENARIOS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let grounds: Vec<Ground> = SEEDS.iter().map(|seed| ground(*seed, RADIUS)).collect();
    let seen = std::cell::RefCell::new(Seen::default());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let ran = TestRunner::new(config)
        .run(&scenario(), |scenario| check(&scenario, &grounds, &mut seen.borrow_mut()));
    ran.unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(seen.scenarios >= u64::from(cases) && seen.conflicts > u64::from(cases), "{seen:?}");
}
