//! One chunk column: its blocks, the ids of the entities in it, and its bytes. Knows no rules of the world.

use std::collections::BTreeSet;

use fortia_proto::world::v1 as pb;
use fortia_vec::{CHUNK, ChunkPos, LocalPos};
use prost::Message;

use crate::block::Block;
use crate::{HEIGHT, wire};

/// Blocks of one column.
pub const VOLUME: usize = (CHUNK * CHUNK) as usize * HEIGHT as usize;

/// Below this many bytes packed blocks are stored as they are: compressing would not help.
const COMPRESS_FROM: usize = 64;
const COMPRESSION_LEVEL: i32 = 3;

/// One chunk column, packed: a palette, and per block an index of 0, 1, 2, 4 or 8 bits.
#[derive(Debug, Clone)]
pub struct Column {
    at: ChunkPos,
    palette: Vec<Block>,
    /// Bits per index; none when the palette has one entry.
    bits: u8,
    packed: Vec<u8>,
    entities: BTreeSet<u64>,
}

/// Why bytes are not a chunk column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// Not a message of this shape.
    #[error("bytes are no chunk message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A chunk without a place.
    #[error("chunk has no position")]
    NoPosition,
    /// A column of another height.
    #[error("chunk {at} is {height} blocks high instead of {HEIGHT}")]
    Height {
        /// The chunk.
        at: ChunkPos,
        /// The height it claims, in blocks.
        height: u32,
    },
    /// A palette that is empty, too long, or names a kind twice or one that does not exist.
    #[error("chunk {at} has a bad palette")]
    Palette {
        /// The chunk.
        at: ChunkPos,
    },
    /// Packed blocks whose length, bits or indices do not fit the palette.
    #[error("chunk {at} has bad blocks: {reason}")]
    Blocks {
        /// The chunk.
        at: ChunkPos,
        /// What is wrong.
        reason: &'static str,
    },
    /// Entity ids that do not ascend.
    #[error("chunk {at} lists its entities out of order")]
    Entities {
        /// The chunk.
        at: ChunkPos,
    },
}

impl Column {
    /// A column of air.
    pub fn empty(at: ChunkPos) -> Column {
        Column { at, palette: vec![Block::Air], bits: 0, packed: Vec::new(), entities: BTreeSet::new() }
    }

    /// A column from all its blocks, x fastest, then y, then z; `None` unless there are exactly [`VOLUME`].
    pub fn from_blocks(at: ChunkPos, blocks: &[Block]) -> Option<Column> {
        if blocks.len() != VOLUME {
            return None;
        }
        let (palette, bits, packed) = pack(blocks.iter().copied());
        Some(Column { at, palette, bits, packed, entities: BTreeSet::new() })
    }

    /// Where the column is.
    pub fn at(&self) -> ChunkPos {
        self.at
    }

    /// The block there; air above the top.
    pub fn get(&self, at: LocalPos) -> Block {
        if at.z >= HEIGHT { Block::Air } else { self.palette[self.index(offset(at))] }
    }

    /// Puts a block there. Returns whether that changed anything; above the top nothing can be put.
    pub fn set(&mut self, at: LocalPos, block: Block) -> bool {
        if at.z >= HEIGHT || self.get(at) == block {
            return false;
        }
        let index = match self.palette.iter().position(|known| *known == block) {
            Some(index) => index,
            None => self.learn(block),
        };
        put(&mut self.packed, self.bits, offset(at), index as u8);
        true
    }

    /// All blocks, x fastest, then y, then z.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        (0..VOLUME).map(|offset| self.palette[self.index(offset)])
    }

    /// Height and kind of the highest block that is not air at this place (x and y below 16), or `None` if all is air.
    pub fn surface(&self, x: u8, y: u8) -> Option<(u8, Block)> {
        (0..HEIGHT).rev().map(|z| (z, self.get(LocalPos { x, y, z }))).find(|(_, block)| *block != Block::Air)
    }

    /// Ids of the entities that stand in the column.
    pub fn entities(&self) -> &BTreeSet<u64> {
        &self.entities
    }

    /// Adds or removes the id of an entity. Returns whether that changed anything.
    pub fn set_entity(&mut self, id: u64, present: bool) -> bool {
        if present { self.entities.insert(id) } else { self.entities.remove(&id) }
    }

    fn index(&self, offset: usize) -> usize {
        if self.bits == 0 { 0 } else { usize::from(read(&self.packed, self.bits, offset)) }
    }

    /// Adds a kind to the palette, packing anew when its index needs more bits.
    fn learn(&mut self, block: Block) -> usize {
        let bits = bits_for(self.palette.len() + 1);
        if bits != self.bits {
            let mut packed = vec![0; VOLUME * usize::from(bits) / 8];
            for offset in 0..VOLUME {
                put(&mut packed, bits, offset, self.index(offset) as u8);
            }
            self.packed = packed;
            self.bits = bits;
        }
        self.palette.push(block);
        self.palette.len() - 1
    }

    /// The column as a message. Equal columns give equal messages, whatever happened to them before.
    pub fn to_proto(&self) -> pb::Chunk {
        let (palette, bits, packed) = pack(self.blocks());
        let (blocks, compressed) = compress(packed);
        pb::Chunk {
            at: Some(wire::chunk_pos(self.at)),
            height: u32::from(HEIGHT),
            palette: palette.into_iter().map(Block::kind).collect(),
            blocks,
            bits: u32::from(bits),
            compressed,
            entities: self.entities.iter().copied().collect(),
        }
    }

    /// The bytes to store. Equal columns give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Reads a column from stored bytes.
    ///
    /// # Errors
    /// When the bytes are not a column of this height with known blocks. It never panics, and never takes more
    /// memory than a few times the bytes and one column.
    pub fn decode(bytes: &[u8]) -> Result<Column, ColumnError> {
        Column::from_proto(&pb::Chunk::decode(bytes)?)
    }

    /// Reads a column from a message.
    ///
    /// # Errors
    /// As [`Column::decode`].
    pub fn from_proto(chunk: &pb::Chunk) -> Result<Column, ColumnError> {
        let at = chunk.at.as_ref().map(wire::to_chunk_pos).ok_or(ColumnError::NoPosition)?;
        if chunk.height != u32::from(HEIGHT) {
            return Err(ColumnError::Height { at, height: chunk.height });
        }
        let palette = read_palette(&chunk.palette).ok_or(ColumnError::Palette { at })?;
        let bits = bits_for(palette.len());
        if chunk.bits != u32::from(bits) {
            return Err(ColumnError::Blocks { at, reason: "bits do not fit the palette" });
        }
        let packed = unpack(chunk, bits).map_err(|reason| ColumnError::Blocks { at, reason })?;
        let known = |offset| usize::from(read(&packed, bits, offset)) < palette.len();
        if bits > 0 && palette.len() < 1 << bits && !(0..VOLUME).all(known) {
            return Err(ColumnError::Blocks { at, reason: "an index is beyond the palette" });
        }
        if !chunk.entities.is_sorted_by(|a, b| a < b) {
            return Err(ColumnError::Entities { at });
        }
        Ok(Column { at, palette, bits, packed, entities: chunk.entities.iter().copied().collect() })
    }
}

impl PartialEq for Column {
    /// Columns are equal when place, blocks and entities are, however they are packed.
    fn eq(&self, other: &Column) -> bool {
        self.at == other.at && self.entities == other.entities && self.blocks().eq(other.blocks())
    }
}

impl Eq for Column {}

fn offset(at: LocalPos) -> usize {
    // x and y are taken modulo the side, so that no LocalPos, however made, leaves its layer.
    let side = CHUNK as usize;
    (usize::from(at.z) * side + usize::from(at.y) % side) * side + usize::from(at.x) % side
}

/// Bits an index needs: a divisor of eight, so that no index lies across two bytes.
const fn bits_for(palette: usize) -> u8 {
    match palette {
        0..=1 => 0,
        2 => 1,
        3..=4 => 2,
        5..=16 => 4,
        _ => 8,
    }
}

fn read(packed: &[u8], bits: u8, offset: usize) -> u8 {
    let bit = offset * usize::from(bits);
    let mask = u8::MAX >> (8 - bits);
    (packed[bit / 8] >> (bit % 8)) & mask
}

fn put(packed: &mut [u8], bits: u8, offset: usize, index: u8) {
    if bits == 0 {
        return;
    }
    let bit = offset * usize::from(bits);
    let mask = u8::MAX >> (8 - bits);
    let byte = &mut packed[bit / 8];
    *byte = (*byte & !(mask << (bit % 8))) | (index << (bit % 8));
}

/// Packs blocks in the one canonical way: an ascending palette of exactly the kinds there are.
fn pack(blocks: impl Iterator<Item = Block>) -> (Vec<Block>, u8, Vec<u8>) {
    let blocks: Vec<Block> = blocks.collect();
    let mut indices = [0u8; Block::ALL.len()];
    for block in &blocks {
        indices[*block as usize] = 1;
    }
    let palette: Vec<Block> = Block::ALL.into_iter().filter(|block| indices[*block as usize] == 1).collect();
    for (index, block) in palette.iter().enumerate() {
        indices[*block as usize] = index as u8;
    }
    let bits = bits_for(palette.len());
    let mut packed = vec![0; VOLUME * usize::from(bits) / 8];
    for (offset, block) in blocks.into_iter().enumerate() {
        put(&mut packed, bits, offset, indices[block as usize]);
    }
    (palette, bits, packed)
}

/// Compresses if that makes it shorter.
fn compress(packed: Vec<u8>) -> (Vec<u8>, bool) {
    if packed.len() < COMPRESS_FROM {
        return (packed, false);
    }
    match zstd::bulk::compress(&packed, COMPRESSION_LEVEL) {
        Ok(frame) if frame.len() < packed.len() => (frame, true),
        _ => (packed, false),
    }
}

fn unpack(chunk: &pb::Chunk, bits: u8) -> Result<Vec<u8>, &'static str> {
    let length = VOLUME * usize::from(bits) / 8;
    let packed = if chunk.compressed {
        // The capacity is the bound: a frame that holds more is an error, not more memory.
        zstd::bulk::decompress(&chunk.blocks, length).map_err(|_| "not a zstd frame of the right size")?
    } else if chunk.blocks.len() == length {
        chunk.blocks.clone()
    } else {
        return Err("wrong length");
    };
    if packed.len() == length { Ok(packed) } else { Err("wrong length") }
}

fn read_palette(kinds: &[u32]) -> Option<Vec<Block>> {
    if kinds.is_empty() || kinds.len() > Block::ALL.len() {
        return None;
    }
    let mut seen = BTreeSet::new();
    kinds.iter().map(|kind| Block::from_kind(*kind).filter(|block| seen.insert(*block))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Edits of a few kinds at few places, so that they meet.
    fn edits() -> impl Strategy<Value = Vec<(LocalPos, Block)>> {
        let at = (0u8..16, 0u8..16, 0..HEIGHT).prop_map(|(x, y, z)| LocalPos { x, y, z });
        prop::collection::vec((at, prop::sample::select(&Block::ALL[..])), 0..300)
    }

    fn column(edits: &[(LocalPos, Block)], entities: &BTreeSet<u64>) -> Column {
        let mut column = Column::empty(ChunkPos::new(-7, 9));
        for (at, block) in edits {
            column.set(*at, *block);
        }
        for id in entities {
            column.set_entity(*id, true);
        }
        column
    }

    /// The message of a column with stone below, for tests that break it.
    fn sound() -> pb::Chunk {
        column(&[(LocalPos::default(), Block::Stone)], &BTreeSet::new()).to_proto()
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(edits in edits(), entities in prop::collection::btree_set(any::<u64>(), 0..9)) {
            let column = column(&edits, &entities);
            let decoded = Column::decode(&column.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&column));
            prop_assert_eq!(decoded.unwrap().encode(), column.encode());
        }

        #[test]
        fn a_block_stays_what_it_was_set_to_last(edits in edits()) {
            let column = column(&edits, &BTreeSet::new());
            let mut last = std::collections::BTreeMap::new();
            last.extend(edits);
            for z in 0..HEIGHT {
                for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                    let at = LocalPos { x, y, z };
                    prop_assert_eq!(column.get(at), last.get(&at).copied().unwrap_or_default());
                }
            }
        }

        #[test]
        fn equal_columns_have_equal_bytes_whatever_happened_to_them(edits in edits(), detour in edits()) {
            let straight = column(&edits, &BTreeSet::from([7]));
            let mut wandering = column(&detour, &BTreeSet::from([7, 8]));
            wandering.set_entity(8, false);
            for (at, _) in &detour {
                wandering.set(*at, Block::Air);
            }
            for (at, block) in &edits {
                wandering.set(*at, *block);
            }
            prop_assert_eq!(wandering.encode(), straight.encode());
        }

        #[test]
        fn any_bytes_are_a_column_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Column::decode(&bytes);
        }

        #[test]
        fn a_damaged_column_is_a_column_or_an_error(edits in edits(), at: prop::sample::Index, bit in 0..8) {
            let mut bytes = column(&edits, &BTreeSet::from([1, 2])).encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            if let Ok(column) = Column::decode(&bytes) {
                prop_assert_eq!(Column::decode(&column.encode()), Ok(column));
            }
        }

        #[test]
        fn any_message_is_a_column_or_an_error(
            palette in prop::collection::vec(0u32..14, 0..14), bits in 0u32..10, compressed: bool,
            length in prop::sample::select(vec![0usize, 1, 2048, 4096, 8192, 16384]), fill: u8,
        ) {
            let mut chunk = sound();
            let blocks = vec![fill; length];
            let blocks = if compressed { zstd::bulk::compress(&blocks, 1).unwrap() } else { blocks };
            chunk = pb::Chunk { palette, bits, compressed, blocks, ..chunk };
            if let Ok(column) = Column::from_proto(&chunk) {
                prop_assert_eq!(column.blocks().count(), VOLUME);
                prop_assert_eq!(Column::decode(&column.encode()), Ok(column));
            }
        }
    }

    #[test]
    fn a_frame_that_swells_is_refused_before_it_is_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 19).unwrap();
        let chunk = pb::Chunk { blocks: bomb, compressed: true, ..sound() };
        let error = Column::from_proto(&chunk).unwrap_err();
        assert!(matches!(error, ColumnError::Blocks { .. }), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_place() {
        let at = Some(pb::ChunkPos { x: 3, y: -4 });
        let broken = [
            pb::Chunk { at, height: 65, ..sound() },
            pb::Chunk { at, palette: vec![], ..sound() },
            pb::Chunk { at, palette: vec![0, 0], ..sound() },
            pb::Chunk { at, palette: vec![0, 99], ..sound() },
            pb::Chunk { at, bits: 2, ..sound() },
            pb::Chunk {
                at,
                palette: vec![0, 1, 2],
                bits: 2,
                blocks: vec![255; 4096],
                compressed: false,
                ..sound()
            },
            pb::Chunk { at, entities: vec![2, 1], ..sound() },
            pb::Chunk { at, entities: vec![1, 1], ..sound() },
        ];
        for chunk in broken {
            let error = Column::from_proto(&chunk).unwrap_err().to_string();
            assert!(error.contains("chunk 3,-4"), "{error}");
        }
        assert_eq!(Column::from_proto(&pb::Chunk { at: None, ..sound() }), Err(ColumnError::NoPosition));
    }

    #[test]
    fn nothing_is_put_above_the_top() {
        let mut column = Column::empty(ChunkPos::default());
        assert!(!column.set(LocalPos { x: 0, y: 0, z: HEIGHT }, Block::Stone));
        assert_eq!(column.get(LocalPos { x: 0, y: 0, z: u8::MAX }), Block::Air);
        assert!(column.set(LocalPos { x: 3, y: 4, z: HEIGHT - 1 }, Block::Stone));
        assert_eq!(column.surface(3, 4), Some((HEIGHT - 1, Block::Stone)));
        assert_eq!(column.surface(4, 3), None);
    }

    #[test]
    fn a_column_needs_all_its_blocks() {
        assert_eq!(Column::from_blocks(ChunkPos::default(), &[Block::Air; 10]), None);
        let full = Column::from_blocks(ChunkPos::default(), &vec![Block::Stone; VOLUME]).unwrap();
        assert!(full.blocks().all(|block| block == Block::Stone) && full.encode().len() < 32);
    }
}
