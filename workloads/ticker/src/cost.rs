//! What each region cost in a stage. Pure; knows measured time and signs of work, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_proto::tick::v1::{Cost, Letter};
use fortia_vec::RegionPos;
use fortia_world::step::Effort;
use fortia_world::wire::{region_pos, to_region_pos};

/// The work that letters are for the regions that get them.
pub(crate) fn of_letters(inbox: &[Letter]) -> BTreeMap<RegionPos, u64> {
    let mut work = BTreeMap::new();
    let to = |letter: &Letter| letter.to.as_ref().map(to_region_pos);
    // Letters to one region mostly come together.
    for together in inbox.chunk_by(|a, b| to(a) == to(b)) {
        if let Some(region) = to(&together[0]) {
            *work.entry(region).or_default() += together.len() as u64;
        }
    }
    work
}

/// The work that walkers are, in letters: about as long as one takes to look whether a kept step can be gone, and to
/// search eight cells.
pub(crate) fn of_walkers(effort: Effort) -> u64 {
    effort.walkers + effort.cells / 8
}

/// Spreads the time of a stage over the regions it was spent on, by the work seen in each. Regions without any are left
/// out: they cost nothing.
pub(crate) fn spread(took: Duration, work: &BTreeMap<RegionPos, u64>) -> Vec<Cost> {
    let total: u64 = work.values().sum();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let cost = |(region, of): (&RegionPos, &u64)| {
        let share = u128::from(micros) * u128::from(*of) / u128::from(total.max(1));
        Cost { region: Some(region_pos(*region)), micros: u64::try_from(share).unwrap_or(u64::MAX) }
    };
    work.iter().map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_regions_where_work_was() {
        let (quiet, busy) = (RegionPos::new(0, 0), RegionPos::new(1, 0));
        let costs = spread(Duration::from_micros(1000), &BTreeMap::from([(quiet, 1), (busy, 9)]));
        assert_eq!(costs.iter().map(|cost| cost.micros).collect::<Vec<_>>(), [100, 900]);
        assert!(spread(Duration::from_secs(1), &BTreeMap::new()).is_empty());
    }
}
