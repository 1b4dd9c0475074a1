//! Which ticker owns which region. Pure; knows names, hashes and costs, not what a ticker is or whether it lives.

use std::collections::{BTreeMap, BTreeSet};

use fortia_vec::{REGION, RegionPos};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The part of every region's cost that does not depend on what is in it, in µs. A chunk made before the first tick adds
/// one: of regions nothing else is known of yet, those with more chunks will cost more.
const BASE: u64 = 36;

/// Measured cost of regions, in µs a tick, smoothed over the last ticks. Regions that nobody speaks of cost nothing,
/// here too: what they cost once fades when it is looked at.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Chunks this far from the origin were made before the first tick.
    radius: u32,
    tick: u64,
    /// What a region cost, and after which tick.
    of: BTreeMap<RegionPos, (u64, u64)>,
}

impl Costs {
    /// Nothing is measured yet in a world with this first radius, in chunks.
    pub fn new(radius: u32) -> Costs {
        Costs { radius, tick: 0, of: BTreeMap::new() }
    }

    /// What a region is reckoned to cost, in µs a tick; never 0.
    pub fn of(&self, region: RegionPos) -> u64 {
        self.of.get(&region).map_or(0, |(micros, at)| faded(*micros, self.tick - at)) + self.base(region)
    }

    /// What it costs though nothing happens in it.
    fn base(&self, region: RegionPos) -> u64 {
        BASE + chunks_along(region.x, self.radius) * chunks_along(region.y, self.radius)
    }

    /// Takes in what regions cost in one tick, in µs; those left out cost nothing.
    pub fn measured(&mut self, tick: u64, spent: impl IntoIterator<Item = (RegionPos, u64)>) {
        self.tick = self.tick.max(tick);
        for (region, micros) in spent {
            let micros = micros.min(u64::from(u32::MAX));
            let known = self.of.entry(region).or_insert((micros, self.tick));
            let idle = (self.tick - known.1).saturating_sub(1);
            *known = ((faded(known.0, idle) * 7 + micros) / 8, self.tick);
        }
    }
}

/// How many chunks of a region are within the radius along one axis, 8 at most.
fn chunks_along(region: i32, radius: u32) -> u64 {
    let (low, radius) = (i64::from(region) * i64::from(REGION), i64::from(radius));
    let high = low + i64::from(REGION) - 1;
    u64::try_from(high.min(radius) - low.max(-radius) + 1).unwrap_or(0)
}

/// What is left of a cost after so many ticks without any: an eighth goes with each.
fn faded(micros: u64, ticks: u64) -> u64 {
    // After 256 ticks nothing is left of the largest cost.
    (0..ticks.min(256)).fold(micros, |left, _| left * 7 / 8)
}

/// Who owns what, and who was there to own something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    owners: BTreeMap<RegionPos, String>,
    /// The regions of each ticker that was there, ascending.
    tickers: BTreeMap<String, Vec<RegionPos>>,
    /// By ticker: what its regions cost whatever happens in them.
    bases: BTreeMap<String, u64>,
    /// The largest such cost of a region.
    largest: u64,
}

impl Assignment {
    /// The owner of a region; none outside the world or while there are no tickers.
    pub fn owner(&self, region: RegionPos) -> Option<&str> {
        self.owners.get(&region).map(String::as_str)
    }

    /// The regions of a ticker, ascending.
    pub fn regions(&self, ticker: &str) -> &[RegionPos] {
        self.tickers.get(ticker).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a ticker has more than it may by now: unless it has, [`assign`] moves nothing while the tickers are the
    /// same. To know that costs what was measured, not how big the world is.
    pub fn is_uneven(&self, costs: &Costs) -> bool {
        let mut loads: BTreeMap<&str, u64> = self.bases.iter().map(|(t, base)| (t.as_str(), *base)).collect();
        let mut largest = self.largest;
        for region in costs.of.keys() {
            if let Some(load) = self.owner(*region).and_then(|owner| loads.get_mut(owner)) {
                let cost = costs.of(*region);
                *load += cost - costs.base(*region);
                largest = largest.max(cost);
            }
        }
        let cap = cap(loads.values().sum(), loads.len(), largest);
        loads.values().any(|load| *load > cap)
    }
}

/// Assigns every region to a ticker.
///
/// The wish is rendezvous hashing over squares of regions. No ticker's load exceeds 9/8 of the mean or the mean and one
/// region, whichever is more; who exceeds it gives regions away until it has 17/16 at most, and so much everybody gets
/// who gets some, as far as regions allow: a tick waits for the slowest. A region stays where it was in `previous` unless
/// its owner is gone or has too much, or a newcomer wins it; so when a ticker goes only its regions move. No ticker is
/// idle while another has two regions.
pub fn assign(
    regions: &[RegionPos],
    tickers: &BTreeSet<String>,
    costs: &Costs,
    previous: &Assignment,
) -> Assignment {
    if tickers.is_empty() {
        return Assignment::default();
    }
    let newcomers: Vec<&String> =
        tickers.iter().filter(|ticker| !previous.tickers.contains_key(*ticker)).collect();
    let mut shares = Shares::new(regions, tickers, costs);
    let mut orphans = Vec::new();
    for region in regions {
        let old = previous.owners.get(region).filter(|old| tickers.contains(*old));
        match old {
            Some(old) => {
                let winner = newcomers.iter().copied().chain([old]).max_by_key(|t| score(t, *region));
                shares.give(winner.unwrap_or(old), *region);
            }
            None => orphans.push(*region),
        }
    }
    orphans.extend(shares.shed());
    orphans.sort_by_key(|region| (std::cmp::Reverse(costs.of(*region)), *region));
    for region in orphans {
        shares.place(region);
    }
    shares.employ_idle();
    shares.into_assignment()
}

/// Side of the squares of regions that have the same wish, in regions.
const SQUARE: i32 = 4;

/// How much a ticker is wanted for a region. Neighbours have the same wish: a ticker reads anew what others change beside
/// its regions, so regions of one ticker should lie together.
fn score(ticker: &str, region: RegionPos) -> (u64, &str) {
    let mut text = [0; 8];
    text[..4].copy_from_slice(&region.x.div_euclid(SQUARE).to_le_bytes());
    text[4..].copy_from_slice(&region.y.div_euclid(SQUARE).to_le_bytes());
    (xxh3_64_with_seed(&text, xxh3_64(ticker.as_bytes())), ticker)
}

/// What nobody may exceed. With the mean and one region as the least, who has least always has room: see `place`.
fn cap(total: u64, tickers: usize, largest: u64) -> u64 {
    let mean = total / tickers.max(1) as u64;
    (mean + mean / 8).max(mean + largest)
}

/// Load and regions of one ticker.
type Share = (u64, BTreeSet<RegionPos>);

struct Shares<'a> {
    costs: &'a Costs,
    /// Nobody may have more.
    cap: u64,
    /// Who gets or gives away regions should not have more.
    goal: u64,
    owned: BTreeMap<&'a str, Share>,
}

impl<'a> Shares<'a> {
    fn new(regions: &[RegionPos], tickers: &'a BTreeSet<String>, costs: &'a Costs) -> Shares<'a> {
        let total: u64 = regions.iter().map(|r| costs.of(*r)).sum();
        let largest = regions.iter().map(|r| costs.of(*r)).max().unwrap_or(0);
        let mean = total / tickers.len() as u64;
        let cap = cap(total, tickers.len(), largest);
        let goal = mean + mean / 16;
        Shares {
            costs,
            cap,
            goal,
            owned: tickers.iter().map(|t| (t.as_str(), (0, BTreeSet::new()))).collect(),
        }
    }

    fn give(&mut self, ticker: &str, region: RegionPos) {
        if let Some((load, owned)) = self.owned.get_mut(ticker) {
            *load += self.costs.of(region);
            owned.insert(region);
        }
    }

    /// Takes the least wanted regions from those who have too much.
    fn shed(&mut self) -> Vec<RegionPos> {
        let mut shed = Vec::new();
        for (ticker, (load, owned)) in &mut self.owned {
            let too_much = *load > self.cap;
            while too_much && *load > self.goal {
                let Some(least) = owned.iter().copied().min_by_key(|r| score(ticker, *r)) else { break };
                owned.remove(&least);
                *load -= self.costs.of(least);
                shed.push(least);
            }
        }
        shed
    }

    /// Gives a region to the ticker that wants it most among those who have none, else among those with room, else to
    /// who has least.
    fn place(&mut self, region: RegionPos) {
        let cost = self.costs.of(region);
        let best = |fits: &dyn Fn(&Share) -> bool| {
            let fitting = self.owned.iter().filter(|(_, share)| fits(share));
            fitting.map(|(ticker, _)| *ticker).max_by_key(|ticker| score(ticker, region))
        };
        let least = || self.owned.iter().min_by_key(|(ticker, (load, _))| (*load, **ticker)).map(|(t, _)| *t);
        let ticker = best(&|(_, owned)| owned.is_empty())
            .or_else(|| best(&|(load, _)| load + cost <= self.goal))
            .or_else(least);
        if let Some(ticker) = ticker {
            self.give(ticker, region);
        }
    }

    fn employ_idle(&mut self) {
        let idle: Vec<&str> = self.owned.iter().filter(|(_, (_, r))| r.is_empty()).map(|(t, _)| *t).collect();
        for ticker in idle {
            let rich =
                self.owned.iter_mut().filter(|(_, (_, r))| r.len() > 1).max_by_key(|(_, (load, _))| *load);
            let Some((from, (load, owned))) = rich else { return };
            let Some(least) = owned.iter().copied().min_by_key(|r| score(from, *r)) else { return };
            owned.remove(&least);
            *load -= self.costs.of(least);
            self.give(ticker, least);
        }
    }

    fn into_assignment(self) -> Assignment {
        let mut assignment = Assignment::default();
        for (ticker, (_, regions)) in self.owned {
            let bases = regions.iter().map(|region| self.costs.base(*region));
            assignment.largest = bases.clone().max().unwrap_or(0).max(assignment.largest);
            assignment.bases.insert(ticker.to_owned(), bases.sum());
            assignment.owners.extend(regions.iter().map(|region| (*region, ticker.to_owned())));
            assignment.tickers.insert(ticker.to_owned(), regions.into_iter().collect());
        }
        assignment
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(n: usize) -> BTreeSet<String> {
        (0..n).map(|i| format!("ticker-{i}")).collect()
    }

    fn load(assignment: &Assignment, ticker: &str, costs: &Costs) -> u64 {
        assignment.regions(ticker).iter().map(|r| costs.of(*r)).sum()
    }

    prop_compose! {
        fn a_world()(radius in 0u32..60, tickers in 1usize..9, seed: u64) -> (Vec<RegionPos>, BTreeSet<String>, Costs) {
            let regions = fortia_vec::regions_of(radius);
            let mut costs = Costs::new(radius);
            let cost = |region: &RegionPos| score(&region.to_string(), *region).0.wrapping_mul(seed | 1) % 20_000;
            costs.measured(1, regions.iter().map(|region| (*region, cost(region))));
            (regions, names(tickers), costs)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_region_has_one_owner_and_loads_are_balanced((regions, tickers, costs) in a_world()) {
            let assignment = assign(&regions, &tickers, &costs, &Assignment::default());
            prop_assert!(regions.iter().all(|r| assignment.owner(*r).is_some_and(|o| tickers.contains(o))));
            let total: u64 = regions.iter().map(|r| costs.of(*r)).sum();
            let largest = regions.iter().map(|r| costs.of(*r)).max().unwrap_or(0);
            let mean = total / tickers.len() as u64;
            for ticker in &tickers {
                prop_assert!(load(&assignment, ticker, &costs) <= (mean * 9 / 8).max(mean + largest));
                prop_assert!(!assignment.regions(ticker).is_empty() || tickers.len() > regions.len());
            }
        }

        #[test]
        fn when_a_ticker_goes_only_its_regions_move((regions, tickers, costs) in a_world(), gone in 0usize..9) {
            let before = assign(&regions, &tickers, &costs, &Assignment::default());
            let gone = format!("ticker-{}", gone % tickers.len());
            let left: BTreeSet<String> = tickers.iter().filter(|t| **t != gone).cloned().collect();
            let after = assign(&regions, &left, &costs, &before);
            for region in regions {
                prop_assert_ne!(after.owner(region), Some(gone.as_str()));
                if before.owner(region) != Some(gone.as_str()) && !left.is_empty() {
                    prop_assert_eq!(after.owner(region), before.owner(region));
                }
            }
        }

        #[test]
        fn a_newcomer_gets_work_and_the_same_input_gives_the_same_answer((regions, tickers, costs) in a_world()) {
            let before = assign(&regions, &tickers, &costs, &Assignment::default());
            prop_assert_eq!(&before, &assign(&regions, &tickers, &costs, &Assignment::default()));
            let more: BTreeSet<String> = tickers.iter().cloned().chain(["newcomer".into()]).collect();
            let after = assign(&regions, &more, &costs, &before);
            prop_assert!(!after.regions("newcomer").is_empty() || regions.len() < more.len());
        }
    }

    proptest! {
        #[test]
        fn unless_loads_are_uneven_no_region_would_move(
            (regions, tickers, costs) in a_world(), busy in prop::collection::vec((0usize..999, 0u64..200_000), 0..9),
        ) {
            let before = assign(&regions, &tickers, &costs, &Assignment::default());
            let mut later = costs.clone();
            let spent = busy.iter().map(|(i, micros)| (regions[i % regions.len()], *micros));
            later.measured(9, spent.collect::<BTreeMap<_, _>>());
            let after = assign(&regions, &tickers, &later, &before);
            prop_assert!(before.is_uneven(&later) || after == before);
        }
    }

    #[test]
    fn nothing_moves_when_nobody_came_or_went() {
        let (regions, tickers, costs) = (fortia_vec::regions_of(20), names(3), Costs::new(20));
        let before = assign(&regions, &tickers, &costs, &Assignment::default());
        assert_eq!(assign(&regions, &tickers, &costs, &before), before);
    }

    #[test]
    fn what_a_region_cost_once_fades_though_nobody_speaks_of_it() {
        let (busy, idle) = (RegionPos::new(1, 0), RegionPos::new(2, 0));
        let mut costs = Costs::new(0);
        costs.measured(1, [(busy, 8000), (idle, 8000)]);
        (2..10).for_each(|tick| costs.measured(tick, [(busy, 8000)]));
        assert_eq!(costs.of(busy), 8000 + BASE);
        assert!((2500..3000).contains(&costs.of(idle)), "{}", costs.of(idle));
        costs.measured(200, []);
        assert_eq!((costs.of(busy), costs.of(idle)), (BASE, BASE));
    }

    /// What every 64th tick pays to see whether regions should move: here something was measured in every region.
    #[test]
    #[ignore = "a bench"]
    fn bench_assign() {
        // Figures stand at the beginning of a line; the test's name was printed before.
        println!();
        for limit in [160, 640] {
            assigned_again(fortia_vec::regions_of(limit));
        }
    }

    fn assigned_again(regions: Vec<RegionPos>) {
        let mut costs = Costs::new(32);
        let cost = |region: &RegionPos| score(&region.to_string(), *region).0 % 2_000;
        costs.measured(1, regions.iter().map(|region| (*region, cost(region))));
        for tickers in [2, 8, 64] {
            let tickers = names(tickers);
            let before = assign(&regions, &tickers, &costs, &Assignment::default());
            let took = (0..16).map(|_| {
                let began = std::time::Instant::now();
                assert!(!before.is_uneven(&costs));
                began.elapsed().as_secs_f64() * 1e6
            });
            let (least, most) = took.fold((f64::MAX, 0f64), |(l, m), t| (l.min(t), m.max(t)));
            let (regions, tickers) = (regions.len(), tickers.len());
            println!(
                "figure assign.us {least:.0} us (up to {most:.0}; {regions} regions, {tickers} tickers, every 64th tick)"
            );
        }
    }

    #[test]
    fn without_tickers_nobody_owns_anything() {
        let regions = fortia_vec::regions_of(8);
        let none = assign(&regions, &BTreeSet::new(), &Costs::new(8), &Assignment::default());
        assert_eq!(none.owner(regions[0]), None);
    }
}
