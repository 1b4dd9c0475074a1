//! Which ticker owns which region, in which order letters come and which ticks are given up makes no difference to a
//! single byte, whatever units and buildings are told; and no goods come from nothing or vanish.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, Ground, command, ground, spawn};
use crate::wealth::Account;
use fortia_proto::world::v1::Action;
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::entity::{Entity, Event, Kind};
use fortia_world::order::Order;
use fortia_world::{generate, rules, start};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Nine regions, so that each of eight territories has one.
const RADIUS: u32 = 8;
const SEEDS: [u64; 2] = [11, 42];
/// Where four regions meet: everything happens near these places.
const CORNERS: [i32; 2] = [0, 128];
const PLAYERS: [&str; 4] = ["ann", "bob", "eve", "mallory"];
const TICKS: u64 = 40;

/// One command of a scenario: in which tick, whose unit, by whom, and what.
#[derive(Debug, Clone)]
struct Cue {
    tick: u64,
    /// Which of all entities there are then.
    unit: prop::sample::Index,
    /// By whom, if not by its owner.
    player: Option<usize>,
    /// What to do.
    verb: u8,
    /// Where, from the unit.
    offset: (i32, i32, i32),
    /// Whom, of all entities there are.
    target: prop::sample::Index,
    /// Region named in the action, from the unit's.
    astray: (i32, i32),
    /// All shall do it, to the ground of this place or to this target: conflicts across the borders.
    crowd: Option<(i32, i32)>,
}

#[derive(Debug, Clone)]
struct Scenario {
    seed: usize,
    corner: usize,
    starts: Vec<(i32, i32)>,
    fighters: Vec<(usize, (i32, i32))>,
    cues: Vec<Cue>,
    owners: Vec<usize>,
    later: Vec<usize>,
    /// The tick after which the regions have new owners.
    change: u64,
    /// A tick that is given up after so many stages, and run again by other owners.
    broken: (u64, usize),
}

fn cue() -> impl Strategy<Value = Cue> {
    let near = || prop_oneof![4 => -3..=3, 1 => -25..=25];
    let astray = prop_oneof![4 => Just((0, 0)), 1 => (-2..=2, -2..=2)];
    let crowd = prop_oneof![6 => Just(None), 1 => (-2..=1, -2..=1).prop_map(Some)];
    let player = prop_oneof![8 => Just(None), 1 => (0..PLAYERS.len()).prop_map(Some)];
    let units = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let place = (near(), near(), -2..=2);
    (1..TICKS, units, player, 0..12u8, place, astray, crowd).prop_map(
        |(tick, (unit, target), player, verb, offset, astray, crowd)| Cue {
            tick,
            unit,
            player,
            verb,
            offset,
            target,
            astray,
            crowd,
        },
    )
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let near = || (-5..5, -5..5);
    let fighters = prop::collection::vec((0..PLAYERS.len(), near()), 0..6);
    let owners = || (1..=8usize).prop_flat_map(|count| prop::collection::vec(0..count, 9));
    let starts = prop::collection::vec(near(), PLAYERS.len());
    let cues = prop::collection::vec(cue(), 1..70);
    let world = (0..SEEDS.len(), 0..CORNERS.len(), 1..TICKS, (5..TICKS, 1..=3usize));
    (world, starts, fighters, cues, owners(), owners()).prop_map(
        |((seed, corner, change, broken), starts, fighters, cues, owners, later)| Scenario {
            seed,
            corner,
            starts,
            fighters,
            cues,
            owners,
            later,
            change,
            broken,
        },
    )
}

impl Scenario {
    /// The cell above the generated ground there, from the corner.
    fn surface(&self, (x, y): (i32, i32)) -> BlockPos {
        let (x, y) = (CORNERS[self.corner] + x, CORNERS[self.corner] + y);
        surface(SEEDS[self.seed], x, y)
    }

    /// Players with camps and handymen, and some fighters more.
    fn begin(&self, cluster: &mut Cluster) {
        for (player, at) in PLAYERS.iter().zip(&self.starts) {
            cluster.tick(&[spawn(player, self.surface(*at))]);
        }
        for (i, (owner, at)) in self.fighters.iter().enumerate() {
            let camp = cluster.unit(start::camp_id(PLAYERS[*owner])).at;
            let at = self.surface(*at);
            let at = cluster.surface(at.x, at.y);
            cluster.put(&Entity::new(Kind::Fighter, i as u64 + 1, PLAYERS[*owner], at, camp));
        }
    }

    /// The actions of the next tick, as the game would send them from what it sees committed.
    fn actions(&self, cluster: &Cluster) -> Vec<(RegionPos, Vec<Action>)> {
        let mut all = BTreeMap::<RegionPos, Vec<Action>>::new();
        let ids: Vec<u64> = cluster.entities.keys().copied().collect();
        for (i, cue) in self.cues.iter().enumerate().filter(|(_, cue)| cue.tick == cluster.tick) {
            let told = if cue.crowd.is_some() { ids.clone() } else { vec![*cue.unit.get(&ids)] };
            for id in told {
                let unit = cluster.unit(id);
                let (x, y, z) = cue.offset;
                let at = match cue.crowd {
                    Some(place) => self.surface(place).down(),
                    None => unit.at.offset(x, y, z),
                };
                let target = cluster.unit(*cue.target.get(&ids));
                let player = cue.player.map_or(unit.owner.as_str(), |player| PLAYERS[player]);
                let order = order(cue.verb, at, &target, cluster.tick);
                let region = unit.at.region();
                let region = RegionPos::new(region.x + cue.astray.0, region.y + cue.astray.1);
                all.entry(region).or_default().push(command(i as u64 % 3, player, id, order));
            }
        }
        all.into_iter().collect()
    }
}

fn order(verb: u8, at: BlockPos, target: &Entity, seen: u64) -> Order {
    match verb {
        0 => Order::Hold,
        1 => Order::Move { to: at },
        2 => Order::Chop { at },
        3 | 4 => Order::Mine { at },
        5..=7 => Order::Build { at, block: rules::BUILDINGS[(at.x.rem_euclid(4)) as usize].what },
        8 => Order::Train { kind: Kind::Fighter },
        _ => Order::Attack { target: target.id, at: target.at, seen },
    }
}

/// The cell above the generated ground there.
fn surface(seed: u64, x: i32, y: i32) -> BlockPos {
    let ground = generate::Generator::new(seed).ground(x, y);
    BlockPos::new(x, y, ground + 1)
}

/// What happened in all scenarios together, so that the test cannot become one about nothing.
#[derive(Debug, Default)]
struct Happened {
    deaths: u64,
    returns: u64,
    burials: u64,
    births: u64,
    unloads: u64,
    crossings: u64,
    /// Ticks in which goods changed hands, and somebody died meanwhile.
    trades: u64,
    losses: u64,
}

impl Happened {
    fn look(&mut self, before: &BTreeMap<u64, Vec<u8>>, after: &Cluster) {
        for (id, _) in &after.written.entities {
            let now = after.unit(*id);
            let Some(was) = before.get(id).map(|bytes| Entity::decode(bytes).expect("an entity")) else {
                continue;
            };
            self.deaths += u64::from(!was.is_dead() && now.is_dead());
            self.returns += u64::from(was.is_dead() && !now.is_dead());
            self.burials += u64::from(!was.is_dead() && after.is_gone(*id));
            self.unloads +=
                u64::from(was.due.is_some_and(|due| due.event == Event::Unloads) && now.due.is_none());
            self.crossings += u64::from(was.at.region() != now.at.region());
        }
        self.births += after.written.born.len() as u64;
    }
}

fn check(scenario: &Scenario, grounds: &[Ground], happened: &mut Happened) -> Result<(), TestCaseError> {
    let mut whole = Cluster::on(&grounds[scenario.seed], RADIUS, |_| 0);
    let mut parts = Cluster::on(&grounds[scenario.seed], RADIUS, |region| scenario.owners[region]);
    scenario.begin(&mut whole);
    scenario.begin(&mut parts);
    while whole.tick < TICKS {
        if parts.tick == scenario.change {
            match scenario.change % 2 {
                0 => parts.assign(|region| scenario.later[region]),
                _ => parts.reassign(|region| scenario.later[region]),
            }
        }
        let actions = scenario.actions(&whole);
        let before = whole.entities.clone();
        if whole.tick + 1 == scenario.broken.0 {
            parts.abandon(&actions, scenario.broken.1, |region| scenario.later[region]);
        }
        whole.tick(&actions);
        // The bytes of the tick before are still there.
        let account = Account::of(&parts, &whole);
        happened.trades += u64::from(account.trades());
        happened.losses += u64::from(account.deaths > 0);
        account.check().map_err(|error| TestCaseError::fail(format!("tick {}: {error}", whole.tick)))?;
        parts.tick(&actions);
        prop_assert_eq!(&whole.written, &parts.written, "tick {}", whole.tick);
        prop_assert_eq!(&whole.entities, &parts.entities, "tick {}", whole.tick);
        happened.look(&before, &whole);
    }
    prop_assert_eq!(&whole.chunks, &parts.chunks);
    whole.check();
    Ok(())
}

/// The scenarios are the same at every run, so that what must have happened among them has; `FORTIA_SCENARIOS` sets how
/// many there are.
#[test]
fn any_partition_gives_the_same_bytes_at_every_tick_and_keeps_all_goods() {
    let cases = std::env::var("FORTIA_SCENARIOS").ok().and_then(|text| text.parse().ok()).unwrap_or(240);
    let grounds = SEEDS.map(|seed| ground(seed, RADIUS));
    let happened = std::cell::RefCell::new(Happened::default());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&scenario(), |scenario| check(&scenario, &grounds, &mut happened.borrow_mut()));
    if let Err(error) = run {
        panic!("{error}");
    }
    let Happened { deaths, returns, burials, births, unloads, crossings, trades, losses } =
        happened.into_inner();
    let all = [deaths, returns, burials, births, unloads, crossings, trades, losses];
    println!("{all:?}");
    assert!(all.into_iter().all(|count| count > 0), "too little happened: {all:?}");
}

/// Letters come in whatever order tickers answer in, under either strategy.
#[test]
fn the_order_in_which_letters_come_makes_no_difference() {
    let cases = std::env::var("FORTIA_SCENARIOS").ok().and_then(|text| text.parse().ok()).unwrap_or(80);
    let grounds = SEEDS.map(|seed| ground(seed, RADIUS));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&(scenario(), any::<u64>()), |(scenario, seed)| {
        let ground = &grounds[scenario.seed];
        let mut straight = Cluster::on(ground, RADIUS, |_| 0);
        let mut shuffled = Cluster::on(ground, RADIUS, |region| scenario.owners[region]);
        shuffled.shuffle(seed);
        shuffled.lock(seed.is_multiple_of(2));
        scenario.begin(&mut straight);
        scenario.begin(&mut shuffled);
        while straight.tick < TICKS {
            let actions = scenario.actions(&straight);
            straight.tick(&actions);
            shuffled.tick(&actions);
            prop_assert_eq!(&straight.written, &shuffled.written, "tick {}", straight.tick);
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn units_cross_the_border_between_two_territories() {
    let mut cluster = Cluster::new(11, 2, |region| region);
    let at = surface(11, -4, 6);
    cluster.tick(&[spawn("ann", at)]);
    let id = start::unit_ids("ann", 1)[0];
    let from = cluster.unit(id).at;
    let to = cluster.surface(9, -7);
    cluster.tick(&[(from.region(), vec![command(1, "ann", id, Order::Move { to })])]);
    let mut regions = BTreeSet::from([from.region()]);
    for _ in 0..120 {
        cluster.tick(&[]);
        cluster.check();
        regions.insert(cluster.unit(id).at.region());
    }
    let unit = cluster.unit(id);
    assert_eq!((unit.outcome.as_str(), unit.at.x, unit.at.y), ("done", to.x, to.y), "{unit:?}");
    assert!(regions.len() >= 2, "{regions:?}");
}
