//! What each region cost in a stage. Pure; knows measured time and signs of work, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_proto::tick::v1::Cost;
use fortia_vec::RegionPos;
use fortia_world::wire::region_pos;

/// Spreads the time of a stage over the regions it was spent on, by the work seen in each (a region without any
/// counts as one piece of work).
pub(crate) fn spread(took: Duration, regions: &[RegionPos], work: &BTreeMap<RegionPos, u64>) -> Vec<Cost> {
    let of = |region: &RegionPos| 1 + work.get(region).copied().unwrap_or(0);
    let total: u64 = regions.iter().map(of).sum();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    regions
        .iter()
        .map(|region| {
            let share = u128::from(micros) * u128::from(of(region)) / u128::from(total.max(1));
            Cost { region: Some(region_pos(*region)), micros: u64::try_from(share).unwrap_or(u64::MAX) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_regions_where_work_was() {
        let (idle, busy) = (RegionPos::new(0, 0), RegionPos::new(1, 0));
        let costs = spread(Duration::from_micros(1000), &[idle, busy], &BTreeMap::from([(busy, 8)]));
        assert_eq!(costs.iter().map(|cost| cost.micros).collect::<Vec<_>>(), [100, 900]);
        assert!(spread(Duration::from_secs(1), &[], &BTreeMap::new()).is_empty());
    }
}
