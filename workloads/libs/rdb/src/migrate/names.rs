//! The names two scans found, as sums: whoever has the same sums has the same names, and where they differ few names are
//! to be looked at. Knows no values and no servers.

use xxhash_rust::xxh3::xxh3_128;

use crate::keyspace::KeyText;

/// Buckets names are spread over, by the first bits of their hash.
const BUCKETS: usize = 1 << BITS;
const BITS: u32 = 12;

/// Names, each counted once for every time it was found.
#[derive(Clone)]
pub struct Names(Vec<u128>);

/// Some of the buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<bool>);

impl Default for Names {
    fn default() -> Names {
        Names(vec![0; BUCKETS])
    }
}

impl Names {
    /// Counts a name. A scan may find one twice: its bucket then differs from one that has it once.
    pub fn add(&mut self, key: &KeyText) {
        let hash = xxh3_128(key.as_bytes());
        let sum = &mut self.0[bucket(hash)];
        *sum = sum.wrapping_add(hash);
    }

    /// The buckets in which the other has other names; none when both have the same.
    pub fn differing(&self, other: &Names) -> Option<Buckets> {
        let differs: Vec<bool> = self.0.iter().zip(&other.0).map(|(here, there)| here != there).collect();
        differs.contains(&true).then_some(Buckets(differs))
    }
}

impl Buckets {
    /// Whether a name falls into one of them.
    pub fn have(&self, key: &KeyText) -> bool {
        self.0[bucket(xxh3_128(key.as_bytes()))]
    }
}

fn bucket(hash: u128) -> usize {
    (hash >> (u128::BITS - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::WorldKey;

    fn key(id: u64) -> KeyText {
        KeyText::from(&WorldKey::Entity(id))
    }

    fn names(ids: impl IntoIterator<Item = u64>) -> Names {
        let mut names = Names::default();
        ids.into_iter().for_each(|id| names.add(&key(id)));
        names
    }

    proptest! {
        #[test]
        fn the_same_names_in_any_order_have_the_same_sums(mut ids in prop::collection::vec(any::<u64>(), 0..200)) {
            let forward = names(ids.clone());
            ids.reverse();
            prop_assert_eq!(forward.differing(&names(ids)), None);
        }

        #[test]
        fn a_name_that_only_one_side_has_is_in_a_bucket_that_differs(extra in 1000u64.., swapped: bool) {
            let here = names(0..1000);
            let there = names((u64::from(swapped)..1000).chain([extra]));
            let buckets = here.differing(&there).expect("they differ");
            prop_assert!(buckets.have(&key(extra)));
            prop_assert!((0..1000).filter(|id| buckets.have(&key(*id))).count() < 10);
        }
    }

    #[test]
    fn a_name_found_twice_is_looked_at() {
        assert!(names([1, 2]).differing(&names([1, 2, 2])).is_some_and(|buckets| buckets.have(&key(2))));
    }
}
