//! The fourth stage of generation: trees, by the relief of a chunk and of its neighbours. Knows how a tree looks.

use fortia_vec::{BlockPos, CHUNK, ChunkPos};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::landscape::Biome;
use super::offset;
use crate::HEIGHT;
use crate::block::Block;

/// At most one tree stands in each square of this side.
const GROVE: i32 = 6;
/// Blocks a crown reaches from its trunk: less than a chunk.
pub(super) const CROWN: i32 = 2;

/// A tree: where its trunk begins, and how many blocks of wood it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// The lowest block of the trunk.
    pub(super) foot: BlockPos,
    /// Blocks of wood.
    pub(super) trunk: i32,
}

/// What is asked of the ground a tree might stand on.
pub(super) struct Soil {
    /// Height of the ground.
    pub(super) ground: i32,
    /// What grows there.
    pub(super) biome: Biome,
    /// Whether it is grass, and whole.
    pub(super) grass: bool,
}

/// All trees with a block in the chunk; `soil` tells of places in it and in its neighbours.
pub(super) fn trees(seed: u64, at: ChunkPos, soil: &mut impl FnMut(i32, i32) -> Soil) -> Vec<Tree> {
    let range = |low: i32| {
        let high = low.saturating_add(CHUNK - 1 + CROWN);
        low.saturating_sub(CROWN).div_euclid(GROVE)..=high.div_euclid(GROVE)
    };
    let (xs, ys) = (range(at.origin().x), range(at.origin().y));
    let squares = xs.flat_map(|i| ys.clone().map(move |j| (i, j)));
    squares.filter_map(|(i, j)| tree(seed, at, i, j, soil)).collect()
}

/// The tree of one square, if one grows there that reaches into the chunk.
fn tree(seed: u64, at: ChunkPos, i: i32, j: i32, soil: &mut impl FnMut(i32, i32) -> Soil) -> Option<Tree> {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&i.to_le_bytes());
    key[4..].copy_from_slice(&j.to_le_bytes());
    let dice = xxh3_64_with_seed(&key, seed);
    let x = i.wrapping_mul(GROVE).wrapping_add((dice % GROVE as u64) as i32);
    let y = j.wrapping_mul(GROVE).wrapping_add((dice / 64 % GROVE as u64) as i32);
    let near = |v: i32, low: i32| (-CROWN..CHUNK + CROWN).contains(&v.wrapping_sub(low));
    if !near(x, at.origin().x) || !near(y, at.origin().y) {
        return None;
    }
    let soil = soil(x, y);
    let chance = match soil.biome {
        Biome::Forest => 70,
        Biome::Mountains => 16,
        Biome::Meadow => 10,
        Biome::Desert => 0,
    };
    let foot = BlockPos::new(x, y, soil.ground + 1);
    let trunk = 4 + (dice / 1_048_576 % 3) as i32;
    (dice / 4096 % 100 < chance && soil.grass).then_some(Tree { foot, trunk })
}

impl Tree {
    /// Draws the part of the tree that lies in the chunk. Wood goes before leaves and leaves before air, so that the
    /// order of trees does not matter.
    pub(super) fn draw(&self, at: ChunkPos, blocks: &mut [Block]) {
        let top = self.foot.z + self.trunk - 1;
        for z in top - 2..=top + 1 {
            let reach = if z > top - 1 { CROWN - 1 } else { CROWN };
            for y in -reach..=reach {
                for x in -reach..=reach {
                    let corner = x.abs() == reach && y.abs() == reach;
                    if !corner || z < top {
                        grow(at, blocks, BlockPos { z, ..self.foot.offset(x, y, 0) }, Block::Leaves);
                    }
                }
            }
        }
        for z in self.foot.z..=top {
            grow(at, blocks, BlockPos { z, ..self.foot }, Block::Wood);
        }
    }
}

/// Puts a tree's block if it lies in the chunk and nothing stronger is there.
fn grow(at: ChunkPos, blocks: &mut [Block], place: BlockPos, block: Block) {
    let (x, y) = (place.x.wrapping_sub(at.origin().x), place.y.wrapping_sub(at.origin().y));
    let inside = 0..CHUNK;
    if inside.contains(&x) && inside.contains(&y) && (0..i32::from(HEIGHT)).contains(&place.z) {
        let here = &mut blocks[offset(x, y, place.z)];
        if *here == Block::Air || (*here == Block::Leaves && block == Block::Wood) {
            *here = block;
        }
    }
}
