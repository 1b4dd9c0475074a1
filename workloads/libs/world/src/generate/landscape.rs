//! The first stage of generation: raw heights, biomes and caves, each a function of seed and place alone. Knows no
//! blocks and no neighbours.

use fortia_vec::{CHUNK, ChunkPos};
use noise::{Fbm, MultiFractal, NoiseFn, Perlin};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{AREA, SEA_LEVEL, line};
use crate::HEIGHT;

/// Parts of a block in which raw heights are told: whole numbers, so that their sums are exact.
pub(super) const FINE: i32 = 256;

const MIDDLE_GROUND: f64 = 27.0;
/// Blocks between two hills, about.
const HILL_SCALE: f64 = 150.0;
const CLIMATE_SCALE: f64 = 260.0;
/// Noises are computed at every fourth block and blended between: 16 times fewer samples, 64 for caves.
const LATTICE: i32 = 4;
const CAVE_SCALE: [f64; 3] = [26.0, 26.0, 15.0];
/// Caves run where two noises are both near zero; this bounds the sum of their squares.
const CAVE_WIDTH: f64 = 0.018;
/// Blocks of rock between a sea bed and the caves below.
const SEA_BED: i32 = 5;

/// Places of a lattice in one column, per axis.
const ACROSS: usize = (CHUNK / LATTICE) as usize + 1;
const UPWARDS: usize = HEIGHT as usize / LATTICE as usize + 1;

/// What grows and lies on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Biome {
    /// Grass, few trees.
    Meadow,
    /// Grass, many trees.
    Forest,
    /// Flat sand.
    Desert,
    /// High ground, bare above.
    Mountains,
}

impl Biome {
    pub(super) const ALL: [Biome; 4] = [Biome::Meadow, Biome::Forest, Biome::Desert, Biome::Mountains];

    fn of([_, warmth, moisture, wild]: [f64; 4]) -> Biome {
        match () {
            () if wild > 0.28 => Biome::Mountains,
            () if warmth > 0.2 && moisture < 0.0 => Biome::Desert,
            () if moisture > 0.08 => Biome::Forest,
            () => Biome::Meadow,
        }
    }

    /// How much hills rise and fall, and how much higher all is, in blocks.
    const fn hills(self) -> (f64, f64) {
        match self {
            Biome::Meadow => (26.0, 0.0),
            Biome::Forest => (30.0, 1.0),
            Biome::Desert => (12.0, 3.0),
            Biome::Mountains => (42.0, 9.0),
        }
    }
}

/// The raw ground of one chunk, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Landscape {
    /// Heights of the ground, in [`FINE`] parts of a block.
    pub(super) heights: [i32; AREA],
    pub(super) biomes: [Biome; AREA],
}

/// The noises of a seed.
#[derive(Debug, Clone)]
pub(super) struct Noises {
    hills: Fbm<Perlin>,
    warmth: Perlin,
    moisture: Perlin,
    wild: Perlin,
    caves: [Perlin; 2],
}

impl Noises {
    pub(super) fn new(seed: u64) -> Noises {
        let part = |name: &str| xxh3_64_with_seed(name.as_bytes(), seed) as u32;
        Noises {
            hills: Fbm::new(part("hills")).set_octaves(4),
            warmth: Perlin::new(part("warmth")),
            moisture: Perlin::new(part("moisture")),
            wild: Perlin::new(part("wild")),
            caves: [Perlin::new(part("caves")), Perlin::new(part("tunnels"))],
        }
    }

    /// The raw ground of a chunk.
    pub(super) fn landscape(&self, at: ChunkPos) -> Landscape {
        let low = low_corner(at);
        let samples: Vec<[f64; 4]> = (0..ACROSS as i32)
            .flat_map(|j| (0..ACROSS as i32).map(move |i| (i, j)))
            .map(|(i, j)| self.climate(low.0.wrapping_add(i), low.1.wrapping_add(j)))
            .collect();
        let mut landscape = Landscape { heights: [0; AREA], biomes: [Biome::Meadow; AREA] };
        for (x, y) in places() {
            let corner = (x / LATTICE) as usize + (y / LATTICE) as usize * ACROSS;
            let corners = [0, 1, ACROSS, ACROSS + 1].map(|next| samples[corner + next]);
            let here = blend(corners, x % LATTICE, y % LATTICE);
            let biome = Biome::of(here);
            let (amplitude, lift) = biome.hills();
            let height = MIDDLE_GROUND + lift + amplitude * here[0];
            landscape.heights[line(x, y)] = (height * f64::from(FINE)) as i32;
            landscape.biomes[line(x, y)] = biome;
        }
        landscape
    }

    /// Hills, warmth, moisture and wildness at a place of the lattice.
    fn climate(&self, i: i32, j: i32) -> [f64; 4] {
        let at = |scale: f64| [i, j].map(|v| f64::from(v) * f64::from(LATTICE) / scale);
        [
            self.hills.get(at(HILL_SCALE)),
            self.warmth.get(at(CLIMATE_SCALE)),
            self.moisture.get(at(CLIMATE_SCALE * 0.7)),
            self.wild.get(at(CLIMATE_SCALE * 1.3)),
        ]
    }

    /// The caves of a chunk, up to a height.
    pub(super) fn caves(&self, at: ChunkPos, top: i32) -> Caves {
        let low = low_corner(at);
        let levels = (top / LATTICE + 2).clamp(2, UPWARDS as i32);
        let mut samples = Vec::with_capacity(ACROSS * ACROSS * levels as usize);
        for j in 0..ACROSS as i32 {
            for i in 0..ACROSS as i32 {
                let (x, y) = (low.0.wrapping_add(i), low.1.wrapping_add(j));
                samples.extend((0..levels).map(|k| self.cave(x, y, k)));
            }
        }
        Caves { samples, levels: levels as usize }
    }

    /// Whether a cave is at a single place; the same answer as [`Caves`] gives.
    pub(super) fn is_cave(&self, x: i32, y: i32, z: i32) -> bool {
        let low = [x, y, z].map(|v| v.div_euclid(LATTICE));
        let level = |k: i32| {
            let corner = |(i, j): (i32, i32)| self.cave(low[0].wrapping_add(i), low[1].wrapping_add(j), k);
            blend([(0, 0), (1, 0), (0, 1), (1, 1)].map(corner), x.rem_euclid(LATTICE), y.rem_euclid(LATTICE))
        };
        is_hollow(level(low[2]), level(low[2] + 1), z)
    }

    /// Both cave noises at a place of the lattice.
    fn cave(&self, i: i32, j: i32, k: i32) -> [f64; 2] {
        let at = [i, j, k].map(|v| f64::from(v) * f64::from(LATTICE));
        let at = [at[0] / CAVE_SCALE[0], at[1] / CAVE_SCALE[1], at[2] / CAVE_SCALE[2]];
        [self.caves[0].get(at), self.caves[1].get(at)]
    }
}

/// Where caves of one chunk may be.
#[derive(Debug)]
pub(super) struct Caves {
    /// At each place of the lattice, upwards first, then x, then y.
    samples: Vec<[f64; 2]>,
    levels: usize,
}

impl Caves {
    /// The heights up to `top`, as bits, at which a cave is at a place (x and y below 16).
    pub(super) fn of_line(&self, x: i32, y: i32, top: i32) -> u64 {
        let corner = (x / LATTICE) as usize + (y / LATTICE) as usize * ACROSS;
        let level = |k: usize| {
            let sample = |next: usize| self.samples[(corner + next) * self.levels + k];
            blend([0, 1, ACROSS, ACROSS + 1].map(sample), x % LATTICE, y % LATTICE)
        };
        let mut hollow = 0;
        let mut above = level(0);
        for k in 0..=(top / LATTICE) as usize {
            let below = std::mem::replace(&mut above, level(k + 1));
            for z in k as i32 * LATTICE..(k as i32 + 1) * LATTICE {
                hollow |= u64::from(z <= top && is_hollow(below, above, z)) << z;
            }
        }
        hollow
    }
}

/// The heights, as bits, at which caves may be below this ground: they leave the floor of the world and the beds of
/// waters alone.
pub(super) fn may_carve(ground: i32) -> u64 {
    let roof = if ground <= SEA_LEVEL + 2 { SEA_BED } else { 0 };
    let top = (ground - roof).clamp(0, i32::from(HEIGHT) - 1);
    // From 2 to the top.
    (u64::MAX >> (63 - top)) & !3
}

/// The lattice's place at the chunk's low corner.
fn low_corner(at: ChunkPos) -> (i32, i32) {
    (at.origin().x.div_euclid(LATTICE), at.origin().y.div_euclid(LATTICE))
}

/// All places of a chunk, x fastest.
fn places() -> impl Iterator<Item = (i32, i32)> {
    (0..CHUNK).flat_map(|y| (0..CHUNK).map(move |x| (x, y)))
}

/// Between two samples, `along` of [`LATTICE`] steps from the first. One function for chunks and single places: both
/// round alike.
fn mix<const N: usize>(a: [f64; N], b: [f64; N], along: i32) -> [f64; N] {
    let t = f64::from(along) / f64::from(LATTICE);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

/// Between four samples: west and east to the south, then to the north.
fn blend<const N: usize>(corners: [[f64; N]; 4], x: i32, y: i32) -> [f64; N] {
    let [south_west, south_east, north_west, north_east] = corners;
    mix(mix(south_west, south_east, x), mix(north_west, north_east, x), y)
}

fn is_hollow(below: [f64; 2], above: [f64; 2], z: i32) -> bool {
    let [a, b] = mix(below, above, z % LATTICE);
    a * a + b * b < CAVE_WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_place_has_the_same_caves_as_its_chunk() {
        let noises = Noises::new(9);
        let mut hollow = 0;
        for at in ChunkPos::within(1) {
            let caves = noises.caves(at, 50);
            for (x, y) in places() {
                let line = caves.of_line(x, y, 50);
                for z in 0..=50 {
                    let single = noises.is_cave(at.origin().x + x, at.origin().y + y, z);
                    assert_eq!(line >> z & 1 == 1, single, "{at}: {x},{y},{z}");
                    hollow += usize::from(single);
                }
                assert_eq!(line >> 51, 0);
            }
        }
        assert!(hollow > 1000, "{hollow} hollow places: the test shows nothing");
    }

    #[test]
    fn caves_leave_the_floor_and_the_sea_bed_whole() {
        assert_eq!(may_carve(40), (1 << 41) - 1 - 3);
        assert_eq!(may_carve(SEA_LEVEL), (1 << (SEA_LEVEL - SEA_BED + 1)) - 1 - 3);
        assert_eq!(may_carve(3), 0);
    }
}
