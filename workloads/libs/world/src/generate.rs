//! The world as it is before anybody came, in stages. Knows no entities and no ticks.
//!
//! Each stage is a function of the seed, the place, and what the stage before says of the chunk and its neighbours:
//! landscape (raw heights, biomes, caves) → relief (smoothed with the neighbours) → blocks → plants (by the neighbours'
//! relief: a tree on a border is drawn by each chunk in its own part) → flags of hidden blocks. So chunks may be made
//! in any order, alone or together, on any machine, and are the same.

mod hidden;
mod landscape;
mod plants;
mod relief;

use std::collections::BTreeMap;

use fortia_vec::{BlockPos, CHUNK, ChunkPos, LocalPos};

pub use self::hidden::hidden;
use self::landscape::{Biome, Landscape, Noises, may_carve};
use self::plants::{Soil, trees};
use self::relief::Relief;
use crate::HEIGHT;
use crate::block::Block;
use crate::chunk::{Column, VOLUME};

/// Height of the highest block of water.
pub const SEA_LEVEL: i32 = 22;
/// Above it mountains are bare rock.
const TREE_LINE: i32 = 40;

/// Places of one chunk seen from above.
const AREA: usize = (CHUNK * CHUNK) as usize;

/// The column of a new world of this seed.
pub fn column(seed: u64, at: ChunkPos) -> Column {
    Generator::new(seed).column(at)
}

/// Makes columns of one seed.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    noises: Noises,
}

/// Earlier stages that several columns need.
#[derive(Default)]
struct Stages {
    landscapes: BTreeMap<ChunkPos, Landscape>,
    reliefs: BTreeMap<ChunkPos, Relief>,
}

impl Generator {
    /// The generator of worlds of this seed.
    pub fn new(seed: u64) -> Generator {
        Generator { seed, noises: Noises::new(seed) }
    }

    /// The column there, without entities.
    pub fn column(&self, at: ChunkPos) -> Column {
        self.make(at, &mut Stages::default())
    }

    /// The columns there, in the order asked: the same as one by one, and quicker where they lie together.
    pub fn columns(&self, at: &[ChunkPos]) -> Vec<Column> {
        let mut stages = Stages::default();
        at.iter().map(|at| self.make(*at, &mut stages)).collect()
    }

    /// Height of the ground there before caves are cut: the highest block that is neither water nor tree.
    pub fn ground(&self, x: i32, y: i32) -> i32 {
        let at = BlockPos::new(x, y, 0).chunk();
        Stages::default().relief(&self.noises, at).ground[line(x.rem_euclid(CHUNK), y.rem_euclid(CHUNK))]
    }

    fn make(&self, at: ChunkPos, stages: &mut Stages) -> Column {
        let mut blocks = self.bare(at, stages.relief(&self.noises, at));
        for tree in trees(self.seed, at, &mut |x, y| self.soil(x, y, stages)) {
            tree.draw(at, &mut blocks);
        }
        Column::from_blocks(at, &blocks).unwrap_or_else(|| Column::empty(at))
    }

    /// The third stage: ground, caves and water.
    fn bare(&self, at: ChunkPos, relief: &Relief) -> Vec<Block> {
        let mut blocks = vec![Block::Air; VOLUME];
        let highest = relief.ground.iter().copied().max().unwrap_or(0);
        let caves = self.noises.caves(at, highest);
        for (x, y) in (0..CHUNK).flat_map(|y| (0..CHUNK).map(move |x| (x, y))) {
            let (ground, biome) = (relief.ground[line(x, y)], relief.biomes[line(x, y)]);
            let hollow = caves.of_line(x, y, ground) & may_carve(ground);
            for z in 0..=ground.max(SEA_LEVEL) {
                blocks[offset(x, y, z)] = block(ground, biome, z, hollow >> z & 1 == 1);
            }
        }
        blocks
    }

    /// What a tree could stand on there.
    fn soil(&self, x: i32, y: i32, stages: &mut Stages) -> Soil {
        let relief = stages.relief(&self.noises, BlockPos::new(x, y, 0).chunk());
        let here = line(x.rem_euclid(CHUNK), y.rem_euclid(CHUNK));
        let (ground, biome) = (relief.ground[here], relief.biomes[here]);
        let grass = block(ground, biome, ground, false) == Block::Grass
            && !(may_carve(ground) >> ground & 1 == 1 && self.noises.is_cave(x, y, ground));
        Soil { ground, biome, grass }
    }
}

impl Stages {
    fn relief(&mut self, noises: &Noises, at: ChunkPos) -> &Relief {
        let Stages { landscapes, reliefs } = self;
        reliefs.entry(at).or_insert_with(|| {
            let near: [ChunkPos; 9] = std::array::from_fn(|i| at.offset(i as i32 % 3 - 1, i as i32 / 3 - 1));
            for at in near {
                landscapes.entry(at).or_insert_with(|| noises.landscape(at));
            }
            Relief::of(near.map(|at| &landscapes[&at]))
        })
    }
}

/// A place of a chunk seen from above; x and y below 16.
fn line(x: i32, y: i32) -> usize {
    (y * CHUNK + x) as usize
}

fn offset(x: i32, y: i32, z: i32) -> usize {
    z as usize * AREA + line(x, y)
}

/// What is at height `z` of a place with this ground.
fn block(ground: i32, biome: Biome, z: i32, hollow: bool) -> Block {
    let shore = ground <= SEA_LEVEL + 1;
    let bare = biome == Biome::Mountains && ground > TREE_LINE;
    match ground - z {
        _ if z == 0 => Block::Bedrock,
        ..0 if z <= SEA_LEVEL => Block::Water,
        ..0 => Block::Air,
        _ if hollow => Block::Air,
        0..3 if shore => Block::Sand,
        0..5 if biome == Biome::Desert => Block::Sand,
        _ if bare => Block::Stone,
        0 => Block::Grass,
        1..4 => Block::Dirt,
        _ => Block::Stone,
    }
}

/// The highest solid ground of a column at a place (x and y below 16) on which a unit can start: dry, open to the sky.
pub fn landing(column: &Column, x: u8, y: u8) -> Option<u8> {
    let (z, block) = column.surface(x, y)?;
    let dry = matches!(block, Block::Grass | Block::Sand | Block::Dirt | Block::Stone);
    (dry && z + 2 < HEIGHT && column.get(LocalPos { x, y, z: z + 1 }) == Block::Air).then_some(z + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::plants::{CROWN, Tree};
    use super::*;

    /// All trees near these chunks.
    fn all_trees(generator: &Generator, side: i32) -> Vec<Tree> {
        let mut stages = Stages::default();
        let chunks = (0..side).flat_map(|x| (0..side).map(move |y| ChunkPos::new(x, y)));
        let mut found: Vec<Tree> = chunks
            .flat_map(|at| trees(generator.seed, at, &mut |x, y| generator.soil(x, y, &mut stages)))
            .collect();
        found.sort_by_key(|tree| tree.foot);
        found.dedup();
        found
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
    fn a_chunk_made_alone_is_the_same_as_one_made_with_others() {
        let generator = Generator::new(42);
        let mut order: Vec<ChunkPos> = ChunkPos::within(3).collect();
        let together = generator.columns(&order);
        for column in &together {
            assert_eq!(column.encode(), generator.column(column.at()).encode(), "{}", column.at());
        }
        order.reverse();
        let mut backwards = generator.columns(&order);
        backwards.reverse();
        assert_eq!(together, backwards);
    }

    #[test]
    fn a_tree_on_a_border_is_whole_on_both_sides() {
        let mut crossing = 0;
        for seed in 0..6 {
            let generator = Generator::new(seed);
            let at: Vec<ChunkPos> = (0..9).map(|i| ChunkPos::new(i / 3, i % 3)).collect();
            let columns = generator.columns(&at);
            let block = |at: BlockPos| {
                let column = columns.iter().find(|column| column.at() == at.chunk()).unwrap();
                column.get(at.local().unwrap())
            };
            for tree in all_trees(&generator, 3) {
                let inside = |v: i32| (CROWN..3 * CHUNK - CROWN).contains(&v);
                if !inside(tree.foot.x) || !inside(tree.foot.y) {
                    continue;
                }
                let near_border = |v: i32| !(CROWN..CHUNK - CROWN).contains(&v.rem_euclid(CHUNK));
                crossing += usize::from(near_border(tree.foot.x) || near_border(tree.foot.y));
                for z in 0..tree.trunk {
                    assert_eq!(block(tree.foot.offset(0, 0, z)), Block::Wood);
                }
                for (x, y) in (-2..=2).flat_map(|x| (-2..=2).map(move |y| (x, y))) {
                    let leaf = block(tree.foot.offset(x, y, tree.trunk - 2));
                    assert_ne!(leaf, Block::Air, "seed {seed}: gap in the crown at {x},{y} of {}", tree.foot);
                }
            }
        }
        assert!(crossing > 10, "only {crossing} trees on borders: the test shows nothing");
    }

    #[test]
    fn a_world_has_every_biome_with_hills_caves_water_and_trees_on_bedrock() {
        let (mut heights, mut biomes, mut caves) = (BTreeSet::new(), [0; 4], 0);
        let mut found = BTreeMap::<Block, usize>::new();
        for seed in 0..4 {
            let generator = Generator::new(seed);
            let at: Vec<ChunkPos> = ChunkPos::within(4).map(|at| ChunkPos::new(at.x * 5, at.y * 5)).collect();
            for column in generator.columns(&at) {
                let mut stages = Stages::default();
                let relief = stages.relief(&generator.noises, column.at());
                for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                    let ground = relief.ground[line(i32::from(x), i32::from(y))];
                    heights.insert(ground);
                    biomes[relief.biomes[line(i32::from(x), i32::from(y))] as usize] += 1;
                    assert_eq!(column.get(LocalPos { x, y, z: 0 }), Block::Bedrock);
                    let hollow = |z: i32| column.get(LocalPos { x, y, z: z as u8 }) == Block::Air;
                    caves += (1..ground).filter(|z| hollow(*z)).count();
                }
                column.blocks().for_each(|block| *found.entry(block).or_default() += 1);
            }
        }
        assert!(heights.len() > 15, "heights {heights:?}");
        assert!(biomes.iter().all(|count| *count > 2000), "biomes {biomes:?}");
        assert!(caves > 1000, "{caves} blocks of caves");
        for block in [Block::Water, Block::Sand, Block::Grass, Block::Wood, Block::Leaves, Block::Dirt] {
            assert!(found.get(&block).is_some_and(|count| *count > 100), "{block:?}: {found:?}");
        }
    }

    #[test]
    fn the_ground_is_where_the_column_has_it_across_borders() {
        let generator = Generator::new(9);
        let column = generator.column(ChunkPos::new(-1, 0));
        for (x, y) in [(-16, 0), (-1, 15), (-9, 3)] {
            let ground = generator.ground(x, y);
            let local = |z: i32| BlockPos::new(x, y, z).local().unwrap();
            let above = column.get(local(ground + 1));
            assert!(
                !matches!(above, Block::Stone | Block::Dirt | Block::Grass | Block::Sand),
                "{x},{y}: {above:?}"
            );
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
