//! The world as it is before anybody came: hills, caves, water and trees from a seed. Knows no entities and no ticks.
//!
//! Every block is a pure function of seed and place, so columns may be made in any order, on any machine; a tree on a
//! border between columns is drawn by each of them in its own part.

use fortia_vec::{CHUNK, ChunkPos, LocalPos};
use noise::{Fbm, MultiFractal, NoiseFn, Perlin};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::HEIGHT;
use crate::block::Block;
use crate::chunk::{Column, VOLUME};

/// Height of the highest block of water.
pub const SEA_LEVEL: i32 = 22;

const LOWEST_GROUND: i32 = 6;
const HIGHEST_GROUND: i32 = 50;
const MIDDLE_GROUND: f64 = 27.0;
const HILLS: f64 = 30.0;
/// Blocks between two hills, about.
const HILL_SCALE: f64 = 150.0;
const FOREST_SCALE: f64 = 70.0;
/// Caves are computed at every fourth block and blended between: 64 times fewer samples.
const LATTICE: i32 = 4;
const CAVE_SCALE: [f64; 3] = [26.0, 26.0, 15.0];
/// Caves run where two noises are both near zero; this bounds the sum of their squares.
const CAVE_WIDTH: f64 = 0.018;
/// Blocks of rock between a sea bed and the caves below.
const SEA_BED: i32 = 5;
/// At most one tree stands in each square of this side.
const GROVE: i32 = 6;
/// Blocks a crown reaches from its trunk.
const CROWN: i32 = 2;

/// Places in the cave lattice of one column, per axis.
const ACROSS: usize = (CHUNK / LATTICE) as usize + 1;
const UPWARDS: usize = HEIGHT as usize / LATTICE as usize + 1;

/// The column of a new world of this seed.
pub fn column(seed: u64, at: ChunkPos) -> Column {
    Generator::new(seed).column(at)
}

/// Makes columns of one seed; cheaper than [`column()`] for many of them.
pub struct Generator {
    seed: u64,
    hills: Fbm<Perlin>,
    forest: Perlin,
    caves: [Perlin; 2],
}

/// A tree: where its trunk begins, and how many blocks of wood it has.
struct Tree {
    x: i32,
    y: i32,
    foot: i32,
    trunk: i32,
}

impl Generator {
    /// The generator of worlds of this seed.
    pub fn new(seed: u64) -> Generator {
        let part = |name: &str| xxh3_64_with_seed(name.as_bytes(), seed) as u32;
        Generator {
            seed,
            hills: Fbm::new(part("hills")).set_octaves(4),
            forest: Perlin::new(part("forest")),
            caves: [Perlin::new(part("caves")), Perlin::new(part("tunnels"))],
        }
    }

    /// The column there, without entities.
    pub fn column(&self, at: ChunkPos) -> Column {
        let origin = at.origin();
        let mut blocks = vec![Block::Air; VOLUME];
        let lattice = self.lattice(at);
        for y in 0..CHUNK {
            for x in 0..CHUNK {
                let ground = self.ground(origin.x.wrapping_add(x), origin.y.wrapping_add(y));
                for z in 0..=ground.max(SEA_LEVEL) {
                    let carved = may_carve(ground, z) && is_cave(lattice_at(&lattice, x, y, z));
                    blocks[offset(x, y, z)] = block(ground, z, carved);
                }
            }
        }
        for tree in self.trees(at) {
            tree.draw(at, &mut blocks);
        }
        Column::from_blocks(at, &blocks).unwrap_or_else(|| Column::empty(at))
    }

    /// Height of the ground there before caves are cut: the highest block that is neither water nor tree.
    pub fn ground(&self, x: i32, y: i32) -> i32 {
        let hills = self.hills.get([f64::from(x) / HILL_SCALE, f64::from(y) / HILL_SCALE]);
        ((MIDDLE_GROUND + HILLS * hills) as i32).clamp(LOWEST_GROUND, HIGHEST_GROUND)
    }

    /// Whether dry, whole ground is there: above water and with no cave open to the sky.
    pub fn is_land(&self, x: i32, y: i32) -> bool {
        let ground = self.ground(x, y);
        ground > SEA_LEVEL && !self.carved(x, y, ground)
    }

    /// Whether a cave is there; the same answer as the column gives.
    fn carved(&self, x: i32, y: i32, z: i32) -> bool {
        let low = [x, y, z].map(|v| v.div_euclid(LATTICE));
        let corner = |i: usize, j: usize, k: usize| {
            self.sample(low[0].wrapping_add(i as i32), low[1].wrapping_add(j as i32), low[2] + k as i32)
        };
        let within = [x, y, z].map(|v| v.rem_euclid(LATTICE));
        may_carve(self.ground(x, y), z) && is_cave(blend(corner, within))
    }

    /// Both cave noises at a place of the lattice.
    fn sample(&self, i: i32, j: i32, k: i32) -> [f64; 2] {
        let at = [i, j, k].map(|v| f64::from(v) * f64::from(LATTICE));
        let at = [at[0] / CAVE_SCALE[0], at[1] / CAVE_SCALE[1], at[2] / CAVE_SCALE[2]];
        [self.caves[0].get(at), self.caves[1].get(at)]
    }

    /// The samples a column needs, x fastest, then y, then z.
    fn lattice(&self, at: ChunkPos) -> Vec<[f64; 2]> {
        let (low_x, low_y) = (at.origin().x.div_euclid(LATTICE), at.origin().y.div_euclid(LATTICE));
        let mut samples = Vec::with_capacity(ACROSS * ACROSS * UPWARDS);
        for k in 0..UPWARDS as i32 {
            for j in 0..ACROSS as i32 {
                for i in 0..ACROSS as i32 {
                    samples.push(self.sample(low_x.wrapping_add(i), low_y.wrapping_add(j), k));
                }
            }
        }
        samples
    }

    /// All trees with a block in the column.
    fn trees(&self, at: ChunkPos) -> Vec<Tree> {
        let range = |low: i32| {
            let high = low.saturating_add(CHUNK - 1 + CROWN);
            low.saturating_sub(CROWN).div_euclid(GROVE)..=high.div_euclid(GROVE)
        };
        let (xs, ys) = (range(at.origin().x), range(at.origin().y));
        xs.flat_map(|i| ys.clone().filter_map(move |j| self.tree(i, j))).collect()
    }

    /// The tree of one square, if one grows there.
    fn tree(&self, i: i32, j: i32) -> Option<Tree> {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&i.to_le_bytes());
        key[4..].copy_from_slice(&j.to_le_bytes());
        let dice = xxh3_64_with_seed(&key, self.seed);
        let x = i.wrapping_mul(GROVE).wrapping_add((dice % GROVE as u64) as i32);
        let y = j.wrapping_mul(GROVE).wrapping_add((dice / 64 % GROVE as u64) as i32);
        let forest = self.forest.get([f64::from(x) / FOREST_SCALE, f64::from(y) / FOREST_SCALE]);
        let chance = if forest > 0.05 { 70 } else { 8 };
        if dice / 4096 % 100 >= chance || !self.is_land(x, y) {
            return None;
        }
        let ground = self.ground(x, y);
        let grows = block(ground, ground, false) == Block::Grass;
        grows.then(|| Tree { x, y, foot: ground + 1, trunk: 4 + (dice / 1_048_576 % 3) as i32 })
    }
}

impl Tree {
    /// Draws the part of the tree that lies in the column. Wood goes before leaves and leaves before air, so that the
    /// order of trees does not matter.
    fn draw(&self, at: ChunkPos, blocks: &mut [Block]) {
        let top = self.foot + self.trunk - 1;
        for z in top - 2..=top + 1 {
            let reach = if z > top - 1 { CROWN - 1 } else { CROWN };
            for y in -reach..=reach {
                for x in -reach..=reach {
                    let corner = x.abs() == reach && y.abs() == reach;
                    if !corner || z < top {
                        grow(at, blocks, [self.x.wrapping_add(x), self.y.wrapping_add(y), z], Block::Leaves);
                    }
                }
            }
        }
        for z in self.foot..=top {
            grow(at, blocks, [self.x, self.y, z], Block::Wood);
        }
    }
}

/// Puts a tree's block if it lies in the column and nothing stronger is there.
fn grow(at: ChunkPos, blocks: &mut [Block], [x, y, z]: [i32; 3], block: Block) {
    let (x, y) = (x.wrapping_sub(at.origin().x), y.wrapping_sub(at.origin().y));
    let inside = 0..CHUNK;
    if inside.contains(&x) && inside.contains(&y) && (0..i32::from(HEIGHT)).contains(&z) {
        let here = &mut blocks[offset(x, y, z)];
        if *here == Block::Air || (*here == Block::Leaves && block == Block::Wood) {
            *here = block;
        }
    }
}

fn offset(x: i32, y: i32, z: i32) -> usize {
    ((z * CHUNK + y) * CHUNK + x) as usize
}

/// What is at height `z` of a place with this ground.
fn block(ground: i32, z: i32, carved: bool) -> Block {
    let shore = ground <= SEA_LEVEL + 1;
    match ground - z {
        _ if z == 0 => Block::Bedrock,
        ..0 if z <= SEA_LEVEL => Block::Water,
        ..0 => Block::Air,
        _ if carved => Block::Air,
        0..3 if shore => Block::Sand,
        0 => Block::Grass,
        1..4 => Block::Dirt,
        _ => Block::Stone,
    }
}

/// Caves leave the floor of the world and the beds of waters alone.
fn may_carve(ground: i32, z: i32) -> bool {
    let roof = if ground <= SEA_LEVEL + 2 { SEA_BED } else { 0 };
    z > 1 && z <= ground - roof
}

fn is_cave([a, b]: [f64; 2]) -> bool {
    a * a + b * b < CAVE_WIDTH
}

fn lattice_at(samples: &[[f64; 2]], x: i32, y: i32, z: i32) -> [f64; 2] {
    let low = [x, y, z].map(|v| (v / LATTICE) as usize);
    let corner =
        |i: usize, j: usize, k: usize| samples[((low[2] + k) * ACROSS + low[1] + j) * ACROSS + low[0] + i];
    blend(corner, [x, y, z].map(|v| v % LATTICE))
}

/// Blends the eight corners around a place. One function for columns and single places: both round alike.
fn blend(corner: impl Fn(usize, usize, usize) -> [f64; 2], within: [i32; 3]) -> [f64; 2] {
    let [x, y, z] = within.map(|v| f64::from(v) / f64::from(LATTICE));
    let mix = |a: [f64; 2], b: [f64; 2], t: f64| [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t];
    let edge = |j, k| mix(corner(0, j, k), corner(1, j, k), x);
    mix(mix(edge(0, 0), edge(1, 0), y), mix(edge(0, 1), edge(1, 1), y), z)
}

/// The highest solid ground of a column at a place (x and y below 16) on which a unit can start: dry, open to the sky.
pub fn landing(column: &Column, x: u8, y: u8) -> Option<u8> {
    let (z, block) = column.surface(x, y)?;
    let dry = matches!(block, Block::Grass | Block::Sand | Block::Dirt | Block::Stone);
    (dry && z + 2 < HEIGHT && column.get(LocalPos { x, y, z: z + 1 }) == Block::Air).then_some(z + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fortia_vec::BlockPos;

    use super::*;

    /// All blocks of a square of columns.
    fn square(seed: u64, side: i32) -> BTreeMap<BlockPos, Block> {
        let generator = Generator::new(seed);
        let mut all = BTreeMap::new();
        for at in (0..side).flat_map(|x| (0..side).map(move |y| ChunkPos::new(x, y))) {
            for (offset, block) in generator.column(at).blocks().enumerate() {
                let (x, y, z) = (offset % 16, offset / 16 % 16, offset / 256);
                all.insert(at.origin().offset(x as i32, y as i32, z as i32), block);
            }
        }
        all
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let at = ChunkPos::new(-3, 5);
        assert_eq!(column(42, at).encode(), column(42, at).encode());
        assert_ne!(column(42, at).encode(), column(43, at).encode());
        assert_ne!(
            column(42, at).blocks().collect::<Vec<_>>(),
            column(42, ChunkPos::new(-3, 6)).blocks().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_tree_on_a_border_is_whole_on_both_sides() {
        let mut crossing = 0;
        for seed in 0..6 {
            let world = square(seed, 3);
            let generator = Generator::new(seed);
            for (i, j) in (-1..9).flat_map(|i| (-1..9).map(move |j| (i, j))) {
                let Some(tree) = generator.tree(i, j) else { continue };
                let inside = |v: i32| (CROWN..3 * CHUNK - CROWN).contains(&v);
                if !inside(tree.x) || !inside(tree.y) {
                    continue;
                }
                let near_border = |v: i32| !(CROWN..CHUNK - CROWN).contains(&v.rem_euclid(CHUNK));
                crossing += usize::from(near_border(tree.x) || near_border(tree.y));
                let top = tree.foot + tree.trunk - 1;
                for z in tree.foot..=top {
                    assert_eq!(world[&BlockPos::new(tree.x, tree.y, z)], Block::Wood);
                }
                for (x, y) in (-2..=2).flat_map(|x| (-2..=2).map(move |y| (x, y))) {
                    let leaf = world[&BlockPos::new(tree.x + x, tree.y + y, top - 1)];
                    assert_ne!(
                        leaf,
                        Block::Air,
                        "seed {seed}: gap in the crown at {x},{y} of {},{}",
                        tree.x,
                        tree.y
                    );
                }
            }
        }
        assert!(crossing > 10, "only {crossing} trees on borders: the test shows nothing");
    }

    #[test]
    fn a_world_has_hills_caves_water_and_trees_on_bedrock() {
        let mut heights = BTreeSet::new();
        let mut found = BTreeMap::<Block, usize>::new();
        let mut caves = 0;
        for seed in 0..4 {
            let generator = Generator::new(seed);
            for at in ChunkPos::within(4) {
                let column = generator.column(at);
                for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                    let origin = at.origin();
                    let ground = generator.ground(origin.x + i32::from(x), origin.y + i32::from(y));
                    heights.insert(ground);
                    assert_eq!(column.get(LocalPos { x, y, z: 0 }), Block::Bedrock);
                    let hollow = |z: i32| column.get(LocalPos { x, y, z: z as u8 }) == Block::Air;
                    caves += (1..ground).filter(|z| hollow(*z)).count();
                }
                column.blocks().for_each(|block| *found.entry(block).or_default() += 1);
            }
        }
        assert!(heights.len() > 15, "heights {heights:?}");
        assert!(caves > 1000, "{caves} blocks of caves");
        for block in [Block::Water, Block::Sand, Block::Grass, Block::Wood, Block::Leaves, Block::Dirt] {
            assert!(found.get(&block).is_some_and(|count| *count > 100), "{block:?}: {found:?}");
        }
    }

    #[test]
    fn whether_a_place_is_land_agrees_with_its_column() {
        let generator = Generator::new(9);
        for at in ChunkPos::within(3) {
            let column = generator.column(at);
            for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                let block = at.origin().offset(i32::from(x), i32::from(y), 0);
                let ground = generator.ground(block.x, block.y);
                let here = column.get(LocalPos { x, y, z: ground as u8 });
                assert_eq!(generator.is_land(block.x, block.y), ground > SEA_LEVEL && here != Block::Air);
            }
        }
    }

    #[test]
    fn the_rim_of_the_numbers_is_generated_too() {
        let rim = i32::MAX / CHUNK;
        for at in [ChunkPos::new(rim, rim), ChunkPos::new(-rim, -rim)] {
            assert_eq!(column(1, at).get(LocalPos { x: 0, y: 0, z: 0 }), Block::Bedrock);
        }
    }
}
