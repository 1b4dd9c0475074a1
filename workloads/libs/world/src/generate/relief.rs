//! The second stage of generation: heights and biomes made smooth with those of the neighbours. Knows no blocks.

use fortia_vec::CHUNK;

use super::landscape::{Biome, FINE, Landscape};
use super::{AREA, line};

const LOWEST_GROUND: i32 = 6;
const HIGHEST_GROUND: i32 = 54;
/// How far around a place its ground is looked at, in blocks: less than a chunk.
const REACH: i32 = 4;
/// Places along a chunk and what is looked at around it.
const SIDE: usize = (CHUNK + 2 * REACH) as usize;
const WINDOW: usize = 2 * REACH as usize + 1;
/// Bits in which the places of one biome are counted.
const COUNT: u32 = 16;

/// The ground of one chunk as it will be, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relief {
    /// Height of the ground before caves are cut: the highest block that is neither water nor plant.
    pub(super) ground: [i32; AREA],
    pub(super) biomes: [Biome; AREA],
}

impl Relief {
    /// The relief of the chunk in the middle of these nine, x fastest: every height is the mean around it, every biome
    /// the one that is most frequent there.
    pub(super) fn of(around: [&Landscape; 9]) -> Relief {
        // Two sums in one: heights, and how often each biome is there.
        let mut wide = [(0i32, 0u64); SIDE * SIDE];
        for (i, cell) in wide.iter_mut().enumerate() {
            let (x, y) = ((i % SIDE) as i32 - REACH, (i / SIDE) as i32 - REACH);
            let chunk = (x.div_euclid(CHUNK) + 1) + (y.div_euclid(CHUNK) + 1) * 3;
            let (chunk, here) = (around[chunk as usize], line(x.rem_euclid(CHUNK), y.rem_euclid(CHUNK)));
            *cell = (chunk.heights[here], 1 << (COUNT * chunk.biomes[here] as u32));
        }
        let plus = |a: (i32, u64), b: (i32, u64)| (a.0 + b.0, a.1 + b.1);
        let mut rows = [(0, 0); SIDE * CHUNK as usize];
        for (i, sum) in rows.iter_mut().enumerate() {
            let first = i / CHUNK as usize * SIDE + i % CHUNK as usize;
            *sum = wide[first..first + WINDOW].iter().copied().fold((0, 0), plus);
        }
        let mut relief = Relief { ground: [0; AREA], biomes: [Biome::Meadow; AREA] };
        for here in 0..AREA {
            let (heights, counts) =
                (0..WINDOW).map(|row| rows[here + row * CHUNK as usize]).fold((0, 0), plus);
            let mean = heights.div_euclid((WINDOW * WINDOW) as i32 * FINE);
            relief.ground[here] = mean.clamp(LOWEST_GROUND, HIGHEST_GROUND);
            let count = |biome: &Biome| counts >> (COUNT * *biome as u32) & ((1 << COUNT) - 1);
            // Of two that are equally frequent the first in the list.
            let most = Biome::ALL.into_iter().rev().max_by_key(count);
            relief.biomes[here] = most.unwrap_or(Biome::Meadow);
        }
        relief
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(height: i32, biome: Biome) -> Landscape {
        Landscape { heights: [height * FINE; AREA], biomes: [biome; AREA] }
    }

    #[test]
    fn a_cliff_between_two_chunks_becomes_a_slope_that_both_share() {
        let (low, high) = (flat(20, Biome::Meadow), flat(40, Biome::Mountains));
        let west = Relief::of([&low, &low, &high, &low, &low, &high, &low, &low, &high]);
        let east = Relief::of([&low, &high, &high, &low, &high, &high, &low, &high, &high]);
        let along: Vec<i32> =
            (8..16).map(|x| west.ground[line(x, 3)]).chain((0..8).map(|x| east.ground[line(x, 3)])).collect();
        assert!(along.is_sorted() && along.windows(2).all(|pair| pair[1] - pair[0] <= 3), "{along:?}");
        assert_eq!((along[0], along[15]), (20, 40));
        assert_eq!((west.biomes[line(15, 3)], east.biomes[line(0, 3)]), (Biome::Meadow, Biome::Mountains));
    }

    #[test]
    fn a_speck_of_another_biome_vanishes() {
        let plain = flat(25, Biome::Meadow);
        let mut specked = plain.clone();
        specked.biomes[line(7, 7)] = Biome::Desert;
        let relief = Relief::of([&plain, &plain, &plain, &plain, &specked, &plain, &plain, &plain, &plain]);
        assert_eq!(relief.biomes, [Biome::Meadow; AREA]);
    }
}
