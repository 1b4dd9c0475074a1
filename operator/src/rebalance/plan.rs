//! What a re-sharding will move and whether it fits into memory. Pure.

/// What the source shards hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Keys and used memory in bytes, by shard.
    pub shards: Vec<(u64, u64)>,
    /// `maxmemory` of a server in bytes; 0: without bound.
    pub max_memory: u64,
}

impl Sizes {
    /// Keys of all shards.
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|(keys, _)| keys).sum()
    }

    /// Memory of all shards, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether both versions fit while they live side by side on `to` target shards.
    ///
    /// # Errors
    /// What is missing and what to do, in words.
    pub fn fits(&self, to: u32) -> Result<(), String> {
        if self.max_memory == 0 || to == 0 {
            return Ok(());
        }
        let share = self.bytes() / u64::from(to);
        for index in 0..self.shards.len().max(to as usize) {
            let own = self.shards.get(index).map_or(0, |(_, bytes)| *bytes);
            let needed = own + if index < to as usize { share } else { 0 };
            // A little is left for what players do meanwhile.
            let usable = self.max_memory / 100 * 95;
            if needed > usable {
                return Err(format!(
                    "shard-{index} would need {} MiB of its {} MiB while both versions live: raise \
                     spec.redis.resources.limits.memory or choose more shards",
                    needed >> 20,
                    usable >> 20
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_plan_that_fits_is_accepted() {
        let sizes = Sizes { shards: vec![(10, 40 * MIB), (12, 40 * MIB)], max_memory: 100 * MIB };
        assert_eq!((sizes.keys(), sizes.fits(3)), (22, Ok(())));
    }

    #[test]
    fn a_plan_that_needs_more_memory_than_there_is_names_the_shard_and_the_way_out() {
        let sizes = Sizes { shards: vec![(10, 60 * MIB), (12, 60 * MIB)], max_memory: 100 * MIB };
        let refusal = sizes.fits(1).expect_err("refused");
        assert!(
            refusal.starts_with("shard-0 would need 180 MiB") && refusal.contains("limits.memory"),
            "{refusal}"
        );
    }

    #[test]
    fn without_a_limit_everything_fits() {
        assert_eq!(Sizes { shards: vec![(1, u64::MAX / 4)], max_memory: 0 }.fits(1), Ok(()));
    }
}
