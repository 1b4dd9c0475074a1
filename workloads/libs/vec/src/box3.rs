//! Boxes of blocks. Knows corners only.

use crate::BlockPos;

/// A box of blocks with both corners inside; it is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Box3 {
    low: BlockPos,
    high: BlockPos,
}

impl Box3 {
    /// The smallest box that holds both blocks, given in any order.
    pub fn new(a: BlockPos, b: BlockPos) -> Box3 {
        Box3 {
            low: BlockPos::new(a.x.min(b.x), a.y.min(b.y), a.z.min(b.z)),
            high: BlockPos::new(a.x.max(b.x), a.y.max(b.y), a.z.max(b.z)),
        }
    }

    /// All blocks at most `reach` away on every axis; it stops at the ends of `i32`.
    pub fn around(centre: BlockPos, reach: u32) -> Box3 {
        let low = |v: i32| v.saturating_sub_unsigned(reach);
        let high = |v: i32| v.saturating_add_unsigned(reach);
        Box3 {
            low: BlockPos::new(low(centre.x), low(centre.y), low(centre.z)),
            high: BlockPos::new(high(centre.x), high(centre.y), high(centre.z)),
        }
    }

    /// The corner with the smallest coordinates.
    pub const fn low(&self) -> BlockPos {
        self.low
    }

    /// The corner with the largest coordinates.
    pub const fn high(&self) -> BlockPos {
        self.high
    }

    /// Whether the block is in the box.
    pub fn contains(&self, at: BlockPos) -> bool {
        (self.low.x..=self.high.x).contains(&at.x)
            && (self.low.y..=self.high.y).contains(&at.y)
            && (self.low.z..=self.high.z).contains(&at.z)
    }

    /// Whether the two boxes share a block.
    pub fn intersects(&self, other: &Box3) -> bool {
        self.intersection(other).is_some()
    }

    /// The blocks both boxes share.
    pub fn intersection(&self, other: &Box3) -> Option<Box3> {
        let (a, b) = (self, other);
        let low = BlockPos::new(a.low.x.max(b.low.x), a.low.y.max(b.low.y), a.low.z.max(b.low.z));
        let high = BlockPos::new(a.high.x.min(b.high.x), a.high.y.min(b.high.y), a.high.z.min(b.high.z));
        (low.x <= high.x && low.y <= high.y && low.z <= high.z).then_some(Box3 { low, high })
    }

    /// How many blocks the box holds.
    pub fn volume(&self) -> u128 {
        let side = |low: i32, high: i32| u128::from(high.abs_diff(low)) + 1;
        side(self.low.x, self.high.x) * side(self.low.y, self.high.y) * side(self.low.z, self.high.z)
    }

    /// All blocks of the box, ascending.
    pub fn iter(&self) -> impl Iterator<Item = BlockPos> + use<> {
        let Box3 { low, high } = *self;
        (low.x..=high.x).flat_map(move |x| {
            (low.y..=high.y).flat_map(move |y| (low.z..=high.z).map(move |z| BlockPos { x, y, z }))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block() -> impl Strategy<Value = BlockPos> {
        (-6..6, -6..6, -6..6).prop_map(|(x, y, z)| BlockPos::new(x, y, z))
    }

    proptest! {
        #[test]
        fn iterating_gives_exactly_the_blocks_that_are_contained(a in block(), b in block()) {
            let inside = Box3::new(a, b);
            let listed: Vec<_> = inside.iter().collect();
            let contained: Vec<_> =
                Box3::around(BlockPos::default(), 8).iter().filter(|at| inside.contains(*at)).collect();
            prop_assert_eq!(&listed, &contained);
            prop_assert_eq!(listed.len() as u128, inside.volume());
        }

        #[test]
        fn boxes_intersect_when_they_share_a_block(a in block(), b in block(), c in block(), d in block()) {
            let (one, other) = (Box3::new(a, b), Box3::new(c, d));
            let shared: Vec<_> = one.iter().filter(|at| other.contains(*at)).collect();
            prop_assert_eq!(one.intersects(&other), !shared.is_empty());
            prop_assert_eq!(one.intersection(&other).map(|i| i.iter().collect::<Vec<_>>()).unwrap_or_default(), shared);
        }
    }

    #[test]
    fn a_box_around_the_rim_of_the_numbers_does_not_overflow() {
        let all = Box3::around(BlockPos::new(i32::MIN, 0, i32::MAX), u32::MAX);
        assert!(all.contains(BlockPos::new(i32::MAX, i32::MIN, i32::MAX)));
    }
}
