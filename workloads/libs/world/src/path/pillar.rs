//! One pillar of blocks as bits: where a unit can be in it, and which steps lead from one pillar to the next. Knows no
//! chunk and no goal. This is the only place that says what a step is.

use crate::HEIGHT;
use crate::block::Block;

/// Blocks a unit climbs in one step, and falls without harm.
const CLIMB: i32 = 1;
const DROP: i32 = 3;
/// What a step in water costs; one on land costs 1. No step costs more.
pub const SWIM: u32 = 3;

const _: () = assert!(HEIGHT == 64, "a pillar is one word of bits: bit z for a block");

/// The blocks at one (x, y), as far as they matter to walking: two pillars are equal when all steps in and between them
/// and their equal neighbours are. What is edited elsewhere in the rock changes no pillar.
///
/// Cells are heights 1 to 64, for the feet; the lowest block of the world is its floor, and nobody is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pillar {
    /// Bit z: a solid block where a head must pass.
    solid: u64,
    /// Bit z: water.
    water: u64,
    /// Bit z - 1: a unit can have its feet there.
    free: u64,
}

impl Pillar {
    /// Rock without end, as it is out of sight.
    pub const ROCK: Pillar = Pillar { solid: u64::MAX, water: 0, free: 0 };

    /// The pillar with solid blocks and water at the heights whose bits are set.
    pub const fn new(solid: u64, water: u64) -> Pillar {
        let room = !solid & !(solid >> 1);
        let ground = (solid << 1) | (water & !(water >> 1));
        let on_top = solid & (1 << 63);
        let free = ((room & ground) >> 1) | on_top;
        let cells = free << 1;
        let heads = (cells << 2) | (cells << 3) | (cells << 4);
        Pillar { solid: solid & heads, water, free }
    }

    /// The pillar of these blocks, lowest first.
    pub fn of(blocks: impl Iterator<Item = Block>) -> Pillar {
        let (mut solid, mut water) = (0, 0);
        for (z, block) in blocks.take(usize::from(HEIGHT)).enumerate() {
            solid |= u64::from(block.is_solid()) << z;
            water |= u64::from(block == Block::Water) << z;
        }
        Pillar::new(solid, water)
    }

    /// Heights of all cells, ascending.
    #[inline]
    pub(super) const fn cells(self) -> Heights {
        Heights { bits: self.free, low: 1 }
    }

    /// How many cells are below a height.
    #[inline]
    pub(super) const fn cells_below(self, z: i32) -> u32 {
        (self.free & !(u64::MAX << (z - 1))).count_ones()
    }

    /// Whether a unit can be with its feet there.
    #[inline]
    pub fn is_free(self, z: i32) -> bool {
        bits(self.free, z - 1) & 1 == 1
    }

    #[inline]
    fn is_water(self, z: i32) -> bool {
        bits(self.water, z) & 1 == 1
    }

    /// What a step into this cell costs.
    #[inline]
    pub fn price(self, z: i32) -> u32 {
        if self.is_water(z) { SWIM } else { 1 }
    }

    /// Heights of the cells of `to`, a pillar beside this one, to which one step leads from the cell at `z`; ascending.
    #[inline]
    pub fn steps(self, z: i32, to: Pillar) -> Heights {
        // Bit k: the cell at z - DROP + k.
        let mut found = bits(to.free, z - DROP - 1) & 0b1_1111;
        // Whoever drops needs room above the landing, up to where the head was.
        let walls = bits(to.solid, z - 1);
        if walls & 0b100 != 0 {
            found &= !0b111;
        }
        if walls & 0b010 != 0 {
            found &= !0b011;
        }
        if walls & 0b001 != 0 {
            found &= !0b001;
        }
        // Whoever climbs needs room above the start.
        if bits(self.solid, z + 2) & 1 != 0 {
            found &= 0b1111;
        }
        Heights { bits: found, low: z - DROP }
    }

    /// Heights of the cells of `from`, a pillar beside this one, from which one step leads to the cell at `z`; ascending.
    #[inline]
    pub(super) fn steps_back(self, z: i32, from: Pillar) -> Heights {
        // Bit k: the cell at z - CLIMB + k.
        let mut found = bits(from.free, z - CLIMB - 1) & 0b1_1111;
        let walls = bits(self.solid, z + 2);
        if walls & 0b001 != 0 {
            found &= !0b1_1100;
        }
        if walls & 0b010 != 0 {
            found &= !0b1_1000;
        }
        if walls & 0b100 != 0 {
            found &= !0b1_0000;
        }
        if bits(from.solid, z + 1) & 1 != 0 {
            found &= !1;
        }
        Heights { bits: found, low: z - CLIMB }
    }

    /// The top of the water a unit at `z` is under, if it can come up there.
    #[inline]
    pub fn rise(self, z: i32) -> Option<i32> {
        if !self.is_water(z) || !self.is_water(z + 1) {
            return None;
        }
        let top = z + bits(self.water, z).trailing_ones() as i32 - 1;
        self.is_free(top).then_some(top)
    }

    /// Heights of the cells under water from which a unit comes up to the cell at `z`; ascending.
    #[inline]
    pub(super) fn rise_back(self, z: i32) -> Heights {
        if !self.is_water(z) || self.is_water(z + 1) {
            return Heights { bits: 0, low: 1 };
        }
        let depth = (self.water << (63 - z)).leading_ones() as i32;
        let below = bits(u64::MAX, 65 - z.clamp(1, 64));
        let low = z + 1 - depth;
        let under = self.free & below & !bits(u64::MAX, 65 - low.clamp(1, 64));
        Heights { bits: under, low: 1 }
    }

    /// The height of the cell nearest to `z`, the upper one of two.
    #[inline]
    pub fn nearest(self, z: i32) -> Option<i32> {
        self.cells().min_by_key(|cell| (cell.abs_diff(z), z - cell))
    }
}

/// The word shifted so that its bit `low` comes first; there are zeros beyond both ends.
const fn bits(word: u64, low: i32) -> u64 {
    match low {
        0..64 => word >> low,
        -63..0 => word << -low,
        _ => 0,
    }
}

/// Some heights of a pillar, ascending.
#[derive(Debug, Clone, Copy)]
pub struct Heights {
    bits: u64,
    low: i32,
}

impl Iterator for Heights {
    type Item = i32;

    #[inline]
    fn next(&mut self) -> Option<i32> {
        if self.bits == 0 {
            return None;
        }
        let z = self.low + self.bits.trailing_zeros() as i32;
        self.bits &= self.bits - 1;
        Some(z)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of a pillar, for rules told block by block.
    #[derive(Debug, Clone)]
    struct Blocks(Vec<Block>);

    impl Blocks {
        fn at(&self, z: i32) -> Block {
            match usize::try_from(z) {
                Ok(z) => self.0.get(z).copied().unwrap_or(Block::Air),
                Err(_) => Block::Bedrock,
            }
        }

        fn is_open(&self, z: i32) -> bool {
            !self.at(z).is_solid()
        }

        fn is_free(&self, z: i32) -> bool {
            let ground =
                !self.is_open(z - 1) || (self.at(z) == Block::Water && self.at(z + 1) != Block::Water);
            self.is_open(z) && self.is_open(z + 1) && ground
        }

        fn can_step(&self, z: i32, to: &Blocks, next: i32) -> bool {
            let rise = next - z;
            if !(-3..=1).contains(&rise) || !to.is_free(next) {
                return false;
            }
            if rise > 0 { self.is_open(z + 2) } else { (next + 2..=z + 1).all(|z| to.is_open(z)) }
        }

        fn pillar(&self) -> Pillar {
            Pillar::of(self.0.iter().copied())
        }
    }

    fn blocks() -> impl Strategy<Value = Blocks> {
        let kind = prop_oneof![
            5 => Just(Block::Air), 3 => Just(Block::Water), 3 => Just(Block::Stone), 1 => Just(Block::Leaves)
        ];
        let runs = prop::collection::vec((kind, 1usize..5), 64);
        runs.prop_map(|runs| {
            let all = runs.into_iter().flat_map(|(block, length)| std::iter::repeat_n(block, length));
            Blocks(std::iter::once(Block::Bedrock).chain(all).take(64).collect())
        })
    }

    proptest! {
        #[test]
        fn cells_and_steps_are_those_of_the_rules_told_block_by_block(here in blocks(), there in blocks()) {
            let (a, b) = (here.pillar(), there.pillar());
            for z in -2..=67 {
                prop_assert_eq!(a.is_free(z), here.is_free(z), "cell {}", z);
                if !here.is_free(z) {
                    continue;
                }
                let expected: Vec<i32> = (z - 5..z + 5).filter(|next| here.can_step(z, &there, *next)).collect();
                prop_assert_eq!(a.steps(z, b).collect::<Vec<_>>(), expected, "from {}", z);
                prop_assert_eq!(a.price(z), if here.at(z) == Block::Water { SWIM } else { 1 });
            }
        }

        #[test]
        fn a_step_back_is_a_step_seen_from_its_end(here in blocks(), there in blocks()) {
            let (a, b) = (here.pillar(), there.pillar());
            for z in (1..=64).filter(|z| b.is_free(*z)) {
                let expected: Vec<i32> =
                    (1..=64).filter(|from| a.is_free(*from) && a.steps(*from, b).any(|to| to == z)).collect();
                prop_assert_eq!(b.steps_back(z, a).collect::<Vec<_>>(), expected, "to {}", z);
                let expected: Vec<i32> =
                    (1..=64).filter(|from| b.is_free(*from) && b.rise(*from) == Some(z)).collect();
                prop_assert_eq!(b.rise_back(z).collect::<Vec<_>>(), expected, "up to {}", z);
            }
        }

        #[test]
        fn who_is_under_water_comes_up_where_there_is_air(here in blocks()) {
            let pillar = here.pillar();
            for z in (1..=63).filter(|z| here.is_free(*z)) {
                let water = |z: i32| here.at(z) == Block::Water;
                let mut top = z;
                while water(top) && water(top + 1) {
                    top += 1;
                }
                prop_assert_eq!(pillar.rise(z), (top > z && here.is_free(top)).then_some(top));
            }
        }

        #[test]
        fn the_nearest_cell_is_the_first_found_up_and_down(here in blocks(), z in 0..=64) {
            let found = (0..=64).flat_map(|d| [z + d, z - d]).find(|z| here.is_free(*z));
            prop_assert_eq!(here.pillar().nearest(z), found);
        }

        #[test]
        fn an_edit_in_the_rock_changes_no_pillar(here in blocks(), at in 5usize..60) {
            let mut rock = here.clone();
            rock.0[at - 2..at + 3].fill(Block::Stone);
            let mut hollow = rock.clone();
            hollow.0[at] = Block::Air;
            prop_assume!((at as i32 - 5..=at as i32 + 1).all(|z| !rock.is_free(z)));
            prop_assert_eq!(rock.pillar(), hollow.pillar());
        }
    }
}
