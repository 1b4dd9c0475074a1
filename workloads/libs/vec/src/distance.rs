//! Distances between positions of one kind. Every result is exact: it cannot overflow for any two positions.

use crate::{BlockPos, ChunkPos, RegionPos};

/// How far apart two positions are, in their own unit (blocks, chunks or regions).
pub trait Distance: Copy {
    /// The distance on each axis.
    fn axes(self, other: Self) -> [u32; 3];

    /// The sum of the axes: steps without diagonals.
    #[inline]
    fn manhattan(self, other: Self) -> u64 {
        self.axes(other).into_iter().map(u64::from).sum()
    }

    /// The longest axis: steps with diagonals.
    #[inline]
    fn chebyshev(self, other: Self) -> u32 {
        self.axes(other).into_iter().max().unwrap_or(0)
    }

    /// The square of the straight line.
    #[inline]
    fn euclid2(self, other: Self) -> u128 {
        self.axes(other).into_iter().map(|d| u128::from(d) * u128::from(d)).sum()
    }
}

impl Distance for BlockPos {
    fn axes(self, other: BlockPos) -> [u32; 3] {
        [self.x.abs_diff(other.x), self.y.abs_diff(other.y), self.z.abs_diff(other.z)]
    }
}

impl Distance for ChunkPos {
    fn axes(self, other: ChunkPos) -> [u32; 3] {
        [self.x.abs_diff(other.x), self.y.abs_diff(other.y), 0]
    }
}

impl Distance for RegionPos {
    fn axes(self, other: RegionPos) -> [u32; 3] {
        [self.x.abs_diff(other.x), self.y.abs_diff(other.y), 0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block() -> impl Strategy<Value = BlockPos> {
        (any::<i32>(), any::<i32>(), any::<i32>()).prop_map(|(x, y, z)| BlockPos::new(x, y, z))
    }

    proptest! {
        #[test]
        fn distances_are_symmetric_and_ordered(a in block(), b in block()) {
            prop_assert_eq!(a.manhattan(b), b.manhattan(a));
            prop_assert_eq!(a.euclid2(b), b.euclid2(a));
            let (longest, sum) = (u128::from(a.chebyshev(b)), u128::from(a.manhattan(b)));
            prop_assert!(longest <= sum && sum <= 3 * longest);
            prop_assert!(longest * longest <= a.euclid2(b) && a.euclid2(b) <= sum * sum);
            prop_assert_eq!(a == b, a.manhattan(b) == 0);
        }

        #[test]
        fn a_detour_is_never_shorter(a in block(), b in block(), c in block()) {
            prop_assert!(a.manhattan(c) <= a.manhattan(b) + b.manhattan(c));
        }
    }

    #[test]
    fn distances_of_chunks_are_in_chunks() {
        assert_eq!(ChunkPos::new(-1, 2).manhattan(ChunkPos::new(1, -1)), 5);
        assert_eq!(RegionPos::new(-1, 2).chebyshev(RegionPos::new(1, -1)), 3);
    }
}
