//! Positions and how one kind converts to another. Knows the sizes of chunk and region, not the world's height.

use std::fmt;
use std::str::FromStr;

use glam::{DVec3, IVec2, IVec3};
use serde::{Deserialize, Serialize};

/// Blocks along each horizontal side of a chunk.
pub const CHUNK: i32 = 16;
/// Chunks along each side of a region.
pub const REGION: i32 = 8;

/// A block's place in the world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockPos {
    /// West to east, in blocks.
    pub x: i32,
    /// South to north, in blocks.
    pub y: i32,
    /// Up, in blocks; 0 is the lowest block.
    pub z: i32,
}

/// A chunk column's place, in chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkPos {
    /// West to east, in chunks.
    pub x: i32,
    /// South to north, in chunks.
    pub y: i32,
}

/// A region's place, in regions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionPos {
    /// West to east, in regions.
    pub x: i32,
    /// South to north, in regions.
    pub y: i32,
}

/// A block's place inside its chunk: `x` and `y` are below 16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalPos {
    /// West to east, 0..16.
    pub x: u8,
    /// South to north, 0..16.
    pub y: u8,
    /// Up.
    pub z: u8,
}

/// A point in the world, in blocks with fractions; block (0,0,0) spans 0.0..1.0 on each axis.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorldPos(pub DVec3);

impl BlockPos {
    /// The block at these coordinates.
    #[inline]
    pub const fn new(x: i32, y: i32, z: i32) -> BlockPos {
        BlockPos { x, y, z }
    }

    /// The chunk that holds this block.
    #[inline]
    pub const fn chunk(self) -> ChunkPos {
        ChunkPos { x: self.x.div_euclid(CHUNK), y: self.y.div_euclid(CHUNK) }
    }

    /// The region that holds this block.
    #[inline]
    pub const fn region(self) -> RegionPos {
        self.chunk().region()
    }

    /// The place inside the chunk, or `None` when `z` is not in 0..=255 (no world is that deep or high).
    #[inline]
    pub fn local(self) -> Option<LocalPos> {
        let z = u8::try_from(self.z).ok()?;
        Some(LocalPos { x: self.x.rem_euclid(CHUNK) as u8, y: self.y.rem_euclid(CHUNK) as u8, z })
    }

    /// This place moved by so many blocks; it wraps at the ends of `i32`, which no world reaches.
    #[inline]
    pub const fn offset(self, x: i32, y: i32, z: i32) -> BlockPos {
        BlockPos { x: self.x.wrapping_add(x), y: self.y.wrapping_add(y), z: self.z.wrapping_add(z) }
    }

    /// The block above.
    #[inline]
    pub const fn up(self) -> BlockPos {
        self.offset(0, 0, 1)
    }

    /// The block below.
    #[inline]
    pub const fn down(self) -> BlockPos {
        self.offset(0, 0, -1)
    }

    /// The six blocks that share a face with this one.
    #[inline]
    pub fn faces(self) -> [BlockPos; 6] {
        [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
            .map(|(x, y, z)| self.offset(x, y, z))
    }

    /// The point in the middle of the block.
    pub fn centre(self) -> WorldPos {
        WorldPos(IVec3::from(self).as_dvec3() + DVec3::splat(0.5))
    }
}

impl ChunkPos {
    /// The chunk at these coordinates.
    #[inline]
    pub const fn new(x: i32, y: i32) -> ChunkPos {
        ChunkPos { x, y }
    }

    /// The region that holds this chunk.
    #[inline]
    pub const fn region(self) -> RegionPos {
        RegionPos { x: self.x.div_euclid(REGION), y: self.y.div_euclid(REGION) }
    }

    /// The chunk's lowest block with the smallest x and y.
    #[inline]
    pub const fn origin(self) -> BlockPos {
        BlockPos { x: self.x.wrapping_mul(CHUNK), y: self.y.wrapping_mul(CHUNK), z: 0 }
    }

    /// The block at a place inside this chunk.
    #[inline]
    pub fn block(self, at: LocalPos) -> BlockPos {
        self.origin().offset(i32::from(at.x), i32::from(at.y), i32::from(at.z))
    }

    /// The chunk so many chunks away.
    #[inline]
    pub const fn offset(self, x: i32, y: i32) -> ChunkPos {
        ChunkPos { x: self.x.wrapping_add(x), y: self.y.wrapping_add(y) }
    }

    /// The eight chunks around this one, ascending.
    #[inline]
    pub fn neighbours(self) -> [ChunkPos; 8] {
        AROUND.map(|(x, y)| self.offset(x, y))
    }

    /// Whether a world of this radius has the chunk.
    #[inline]
    pub const fn is_within(self, radius: u32) -> bool {
        self.x.unsigned_abs() <= radius && self.y.unsigned_abs() <= radius
    }

    /// All chunks of a world of this radius (-radius..=radius on both axes), ascending.
    pub fn within(radius: u32) -> impl Iterator<Item = ChunkPos> {
        let side = side(radius);
        (-side..=side).flat_map(move |x| (-side..=side).map(move |y| ChunkPos { x, y }))
    }
}

impl RegionPos {
    /// The region at these coordinates.
    #[inline]
    pub const fn new(x: i32, y: i32) -> RegionPos {
        RegionPos { x, y }
    }

    /// The region's chunk with the smallest x and y.
    #[inline]
    pub const fn origin(self) -> ChunkPos {
        ChunkPos { x: self.x.wrapping_mul(REGION), y: self.y.wrapping_mul(REGION) }
    }

    /// The 64 chunks of the region, ascending; at the world's rim some may not exist.
    pub fn chunks(self) -> impl Iterator<Item = ChunkPos> {
        (0..REGION).flat_map(move |x| (0..REGION).map(move |y| self.origin().offset(x, y)))
    }

    /// The eight regions around this one, ascending.
    #[inline]
    pub fn neighbours(self) -> [RegionPos; 8] {
        AROUND.map(|(x, y)| RegionPos { x: self.x.wrapping_add(x), y: self.y.wrapping_add(y) })
    }

    /// Whether a world of this radius has at least one chunk of the region.
    #[inline]
    pub fn is_within(self, radius: u32) -> bool {
        let side = side(radius);
        let (low, high) = ((-side).div_euclid(REGION), side.div_euclid(REGION));
        (low..=high).contains(&self.x) && (low..=high).contains(&self.y)
    }
}

/// All regions that a world of this radius (in chunks) touches, ascending.
pub fn regions_of(radius: u32) -> Vec<RegionPos> {
    let side = side(radius);
    let (low, high) = ((-side).div_euclid(REGION), side.div_euclid(REGION));
    (low..=high).flat_map(|x| (low..=high).map(move |y| RegionPos { x, y })).collect()
}

const AROUND: [(i32, i32); 8] = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)];

/// The radius as a signed number whose blocks still fit into `i32`.
fn side(radius: u32) -> i32 {
    radius.min(i32::MAX as u32 / CHUNK as u32) as i32
}

impl LocalPos {
    /// The place at these coordinates; x and y must be below 16.
    #[inline]
    pub fn new(x: u8, y: u8, z: u8) -> Option<LocalPos> {
        (i32::from(x) < CHUNK && i32::from(y) < CHUNK).then_some(LocalPos { x, y, z })
    }
}

impl WorldPos {
    /// The block that holds this point. Coordinates beyond `i32` stop at its ends.
    #[inline]
    pub fn block(self) -> BlockPos {
        BlockPos::from(self.0.floor().as_ivec3())
    }
}

impl From<IVec3> for BlockPos {
    #[inline]
    fn from(v: IVec3) -> BlockPos {
        BlockPos { x: v.x, y: v.y, z: v.z }
    }
}

impl From<BlockPos> for IVec3 {
    #[inline]
    fn from(p: BlockPos) -> IVec3 {
        IVec3::new(p.x, p.y, p.z)
    }
}

impl From<IVec2> for ChunkPos {
    #[inline]
    fn from(v: IVec2) -> ChunkPos {
        ChunkPos { x: v.x, y: v.y }
    }
}

impl From<ChunkPos> for IVec2 {
    #[inline]
    fn from(p: ChunkPos) -> IVec2 {
        IVec2::new(p.x, p.y)
    }
}

impl From<IVec2> for RegionPos {
    #[inline]
    fn from(v: IVec2) -> RegionPos {
        RegionPos { x: v.x, y: v.y }
    }
}

impl From<RegionPos> for IVec2 {
    #[inline]
    fn from(p: RegionPos) -> IVec2 {
        IVec2::new(p.x, p.y)
    }
}

/// A text is not a position: it must be whole numbers with commas between them, without spaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a position: write {numbers} whole numbers with commas between them, like {example}")]
pub struct ParsePosError {
    text: String,
    numbers: usize,
    example: &'static str,
}

/// Splits `text` into exactly N numbers written as Display writes them.
fn parse<const N: usize>(text: &str, example: &'static str) -> Result<[i32; N], ParsePosError> {
    let error = || ParsePosError { text: text.chars().take(64).collect(), numbers: N, example };
    let mut numbers = [0; N];
    let mut parts = text.split(',');
    for number in &mut numbers {
        let part = parts.next().ok_or_else(error)?;
        *number = part.parse().map_err(|_| error())?;
    }
    if parts.next().is_some() { Err(error()) } else { Ok(numbers) }
}

impl fmt::Display for BlockPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.x, self.y, self.z)
    }
}

impl fmt::Display for LocalPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.x, self.y, self.z)
    }
}

impl fmt::Display for ChunkPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.x, self.y)
    }
}

impl fmt::Display for RegionPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.x, self.y)
    }
}

impl FromStr for BlockPos {
    type Err = ParsePosError;

    fn from_str(text: &str) -> Result<BlockPos, ParsePosError> {
        parse::<3>(text, "1,-2,30").map(|[x, y, z]| BlockPos { x, y, z })
    }
}

impl FromStr for ChunkPos {
    type Err = ParsePosError;

    fn from_str(text: &str) -> Result<ChunkPos, ParsePosError> {
        parse::<2>(text, "1,-2").map(|[x, y]| ChunkPos { x, y })
    }
}

impl FromStr for RegionPos {
    type Err = ParsePosError;

    fn from_str(text: &str) -> Result<RegionPos, ParsePosError> {
        parse::<2>(text, "1,-2").map(|[x, y]| RegionPos { x, y })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_is_found_again_from_its_chunk_and_local_place(x: i32, y: i32, z in 0..256) {
            let at = BlockPos::new(x, y, z);
            let local = at.local().unwrap();
            prop_assert_eq!(at.chunk().block(local), at);
            prop_assert_eq!(LocalPos::new(local.x, local.y, local.z), Some(local));
        }

        #[test]
        fn a_block_outside_a_byte_of_height_has_no_local_place(x: i32, y: i32, z: i32) {
            prop_assert_eq!(BlockPos::new(x, y, z).local().is_some(), (0..256).contains(&z));
        }

        #[test]
        fn a_region_holds_exactly_the_chunks_that_name_it(x in -1000..1000, y in -1000..1000) {
            let region = RegionPos::new(x, y);
            let chunks: BTreeSet<_> = region.chunks().collect();
            prop_assert_eq!(chunks.len(), 64);
            prop_assert!(chunks.iter().all(|chunk| chunk.region() == region));
        }

        #[test]
        fn neighbours_are_mutual(x: i32, y: i32) {
            let at = ChunkPos::new(x, y);
            prop_assert!(at.neighbours().iter().all(|n| *n != at && n.neighbours().contains(&at)));
            let at = RegionPos::new(x, y);
            prop_assert!(at.neighbours().iter().all(|n| *n != at && n.neighbours().contains(&at)));
        }

        #[test]
        fn the_regions_of_a_world_hold_all_its_chunks(radius in 0u32..40) {
            let regions = regions_of(radius);
            let of_chunks: BTreeSet<_> = ChunkPos::within(radius).map(ChunkPos::region).collect();
            prop_assert_eq!(regions.iter().copied().collect::<BTreeSet<_>>(), of_chunks);
            prop_assert_eq!(ChunkPos::within(radius).count(), (2 * radius as usize + 1).pow(2));
            prop_assert!(ChunkPos::within(radius).all(|chunk| chunk.is_within(radius)));
            prop_assert!(!ChunkPos::new(radius as i32 + 1, 0).is_within(radius));
            prop_assert!(regions.iter().all(|r| r.is_within(radius)));
            let outside = regions.iter().flat_map(|r| r.neighbours()).filter(|r| !regions.contains(r));
            prop_assert!(outside.into_iter().all(|r| !r.is_within(radius)));
        }

        #[test]
        fn a_printed_position_is_read_back(x: i32, y: i32, z: i32) {
            let block = BlockPos::new(x, y, z);
            prop_assert_eq!(block.to_string().parse(), Ok(block));
            prop_assert_eq!(ChunkPos::new(x, y).to_string().parse(), Ok(ChunkPos::new(x, y)));
            prop_assert_eq!(RegionPos::new(x, y).to_string().parse(), Ok(RegionPos::new(x, y)));
            prop_assert_eq!(BlockPos::from(IVec3::from(block)), block);
        }

        #[test]
        fn the_centre_of_a_block_lies_in_it(x: i32, y: i32, z: i32) {
            let at = BlockPos::new(x, y, z);
            prop_assert_eq!(at.centre().block(), at);
        }
    }

    #[test]
    fn a_text_that_is_no_position_is_refused_with_advice() {
        for text in ["", "1", "1,2,3", "1, 2", "a,b", "1,2,", "99999999999,0"] {
            let error = text.parse::<ChunkPos>().unwrap_err().to_string();
            assert!(error.contains("like 1,-2"), "{error}");
        }
    }

    #[test]
    fn negative_blocks_belong_to_negative_chunks() {
        assert_eq!(BlockPos::new(-1, -16, 0).chunk(), ChunkPos::new(-1, -1));
        assert_eq!(BlockPos::new(-17, 15, 0).chunk(), ChunkPos::new(-2, 0));
        assert_eq!(ChunkPos::new(-1, -9).region(), RegionPos::new(-1, -2));
    }
}
