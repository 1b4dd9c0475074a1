//! One chunk column: its blocks, the ids of the entities in it, and its bytes. Knows no rules of the world.

mod plane;
mod section;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fortia_proto::world::v1 as pb;
use fortia_vec::{CHUNK, ChunkPos, LocalPos};
use prost::Message;

use self::plane::SIDE;
use self::section::{Fault, Place, Section};
use crate::block::Block;
use crate::{HEIGHT, wire};

/// Blocks of one column.
pub const VOLUME: usize = (CHUNK * CHUNK) as usize * HEIGHT as usize;

/// Bytes that most columns fit in.
const USUAL: usize = 2048;
/// Sections of one column, 16 blocks high each.
const SECTIONS: usize = HEIGHT as usize / SIDE;
const _: () = assert!((HEIGHT as usize).is_multiple_of(SIDE) && CHUNK as usize == SIDE);

/// One chunk column. Cheap to clone: copies share each section until one of them changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    at: ChunkPos,
    /// Lowest first.
    sections: [Section; SECTIONS],
    entities: Arc<BTreeSet<u64>>,
    graves: Arc<BTreeMap<u64, Grave>>,
}

/// Of one who died for good in the column: whose it was, and in which tick its record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grave {
    /// Account name of its owner.
    pub owner: String,
    /// The tick.
    pub until: u64,
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
    #[error("chunk {at} has more than {SECTIONS} sections: {left} bytes are left")]
    Height {
        /// The chunk.
        at: ChunkPos,
        /// Bytes after the last section.
        left: usize,
    },
    /// A palette that is empty, does not ascend, or names a kind that does not exist.
    #[error("chunk {at} has a bad palette")]
    Palette {
        /// The chunk.
        at: ChunkPos,
    },
    /// Blocks that do not fit their palette, or end too early.
    #[error("chunk {at} has bad blocks")]
    Blocks {
        /// The chunk.
        at: ChunkPos,
    },
    /// Entity ids that do not ascend.
    #[error("chunk {at} lists its entities out of order")]
    Entities {
        /// The chunk.
        at: ChunkPos,
    },
    /// Graves that do not ascend by id.
    #[error("chunk {at} lists its graves out of order")]
    Graves {
        /// The chunk.
        at: ChunkPos,
    },
}

impl Column {
    /// A column of air.
    pub fn empty(at: ChunkPos) -> Column {
        let sections = std::array::from_fn(|_| Section::Uniform(Block::Air));
        Column { at, sections, entities: Arc::default(), graves: Arc::default() }
    }

    /// A column from all its blocks, x fastest, then y, then z; `None` unless there are exactly [`VOLUME`].
    pub fn from_blocks(at: ChunkPos, blocks: &[Block]) -> Option<Column> {
        if blocks.len() != VOLUME {
            return None;
        }
        let section = |i: usize| {
            let blocks = &blocks[i * SIDE * SIDE * SIDE..];
            Section::of(|place| blocks[place.z * SIDE * SIDE + place.line])
        };
        Some(Column { sections: std::array::from_fn(section), ..Column::empty(at) })
    }

    /// Where the column is.
    pub fn at(&self) -> ChunkPos {
        self.at
    }

    /// The block there; air above the top.
    pub fn get(&self, at: LocalPos) -> Block {
        let (section, place) = place(at);
        self.sections.get(section).map_or(Block::Air, |section| section.get(place))
    }

    /// Puts a block there. Returns whether that changed anything; above the top nothing can be put.
    pub fn set(&mut self, at: LocalPos, block: Block) -> bool {
        let (section, place) = place(at);
        match self.sections.get_mut(section) {
            Some(section) if section.get(place) != block => {
                section.set(place, block);
                true
            }
            _ => false,
        }
    }

    /// All blocks, x fastest, then y, then z.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let layer = |z: usize| (0..SIDE * SIDE).map(move |line| Place { line, z });
        self.sections
            .iter()
            .flat_map(move |section| (0..SIDE).flat_map(layer).map(move |place| section.get(place)))
    }

    /// Height and kind of the highest block that is not air at this place (x and y below 16), or `None` if all is air.
    pub fn surface(&self, x: u8, y: u8) -> Option<(u8, Block)> {
        let (_, Place { line, .. }) = place(LocalPos { x, y, z: 0 });
        let tops = self.sections.iter().enumerate().rev();
        tops.filter_map(|(i, section)| section.top(line).map(|(z, block)| ((i * SIDE + z) as u8, block)))
            .next()
    }

    /// For each place (x fastest, then y) the heights, as bits, of blocks that are `wanted`.
    pub fn which(&self, wanted: impl Fn(Block) -> bool) -> Lines {
        let mut lines = [0u64; (CHUNK * CHUNK) as usize];
        for (i, section) in self.sections.iter().enumerate() {
            for (line, bits) in lines.iter_mut().zip(section.which(&wanted)) {
                *line |= u64::from(bits) << (i * SIDE);
            }
        }
        lines
    }

    /// Ids of the entities that stand in the column.
    pub fn entities(&self) -> &BTreeSet<u64> {
        &self.entities
    }

    /// Adds or removes the id of an entity. Returns whether that changed anything.
    pub fn set_entity(&mut self, id: u64, present: bool) -> bool {
        if self.entities.contains(&id) == present {
            return false;
        }
        let entities = Arc::make_mut(&mut self.entities);
        if present { entities.insert(id) } else { entities.remove(&id) }
    }

    /// These are all who stand in the column.
    pub fn set_entities(&mut self, ids: &[u64]) {
        if !self.entities.iter().eq(ids) {
            self.entities = Arc::new(ids.iter().copied().collect());
        }
    }

    /// By id, those who died here for good and whose records are still there.
    pub fn graves(&self) -> &BTreeMap<u64, Grave> {
        &self.graves
    }

    /// Notes who died here.
    pub fn bury(&mut self, id: u64, grave: Grave) {
        Arc::make_mut(&mut self.graves).insert(id, grave);
    }

    /// Forgets who died here.
    pub fn unearth(&mut self, id: u64) -> Option<Grave> {
        if !self.graves.contains_key(&id) {
            return None;
        }
        Arc::make_mut(&mut self.graves).remove(&id)
    }

    /// The column as a message. Equal columns give equal messages, whatever happened to them before.
    pub fn to_proto(&self) -> pb::Chunk {
        let mut sections = Vec::with_capacity(USUAL);
        self.sections.iter().for_each(|section| section.write(&mut sections));
        pb::Chunk {
            at: Some(wire::chunk_pos(self.at)),
            sections,
            entities: self.entities.iter().copied().collect(),
            graves: self
                .graves
                .iter()
                .map(|(id, grave)| pb::Grave { id: *id, owner: grave.owner.clone(), until: grave.until })
                .collect(),
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
        let mut column = Column::empty(at);
        let mut bytes = &chunk.sections[..];
        for section in &mut column.sections {
            *section = Section::read(&mut bytes).map_err(|fault| match fault {
                Fault::Palette => ColumnError::Palette { at },
                Fault::Blocks => ColumnError::Blocks { at },
            })?;
        }
        if !bytes.is_empty() {
            return Err(ColumnError::Height { at, left: bytes.len() });
        }
        if !chunk.entities.is_sorted_by(|a, b| a < b) {
            return Err(ColumnError::Entities { at });
        }
        if !chunk.entities.is_empty() {
            column.entities = Arc::new(chunk.entities.iter().copied().collect());
        }
        if !chunk.graves.is_sorted_by(|a, b| a.id < b.id) {
            return Err(ColumnError::Graves { at });
        }
        for grave in &chunk.graves {
            column.bury(grave.id, Grave { owner: grave.owner.clone(), until: grave.until });
        }
        Ok(column)
    }
}

/// One bit for each block of a column: by place (x fastest, then y), the lowest block in the lowest bit.
pub type Lines = [u64; (CHUNK * CHUNK) as usize];
const _: () = assert!(HEIGHT as u32 == u64::BITS);

/// Which section, and where in it. x and y are taken modulo the side, so that no place, however made, leaves its layer.
fn place(at: LocalPos) -> (usize, Place) {
    let line = usize::from(at.y) % SIDE * SIDE + usize::from(at.x) % SIDE;
    let z = usize::from(at.z);
    (z / SIDE, Place { line, z: z % SIDE })
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

    /// Bytes much like those of a section.
    fn section() -> impl Strategy<Value = Vec<u8>> {
        let palette = prop_oneof![
            prop::collection::vec(0u8..16, 0..14),
            (1u8..12).prop_map(|kinds| (0..kinds).collect::<Vec<u8>>()),
        ];
        let length = prop_oneof![Just(0usize), Just(2), Just(512), Just(1024), Just(2048), 0usize..600];
        (palette, any::<bool>(), length, any::<u64>()).prop_map(|(palette, plain, length, seed)| {
            let first = palette.len() as u8 | if plain { 0x80 } else { 0 };
            [first].into_iter().chain(palette).chain(dice(seed).take(length)).collect()
        })
    }

    /// Bytes that look like chance and are the same every time.
    fn dice(seed: u64) -> impl Iterator<Item = u8> {
        (0u64..).map(move |i| xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed) as u8)
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(edits in edits(), entities in prop::collection::btree_set(any::<u64>(), 0..9)) {
            let mut column = column(&edits, &entities);
            for id in entities.iter().skip(3) {
                column.bury(*id, Grave { owner: "ann".into(), until: id ^ 5 });
            }
            let decoded = Column::decode(&column.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&column));
            prop_assert_eq!(decoded.unwrap().encode(), column.encode());
        }

        #[test]
        fn a_block_stays_what_it_was_set_to_last(edits in edits()) {
            let column = column(&edits, &BTreeSet::new());
            let mut last = std::collections::BTreeMap::new();
            last.extend(edits);
            let all: Vec<Block> = column.blocks().collect();
            let solid = column.which(Block::is_solid);
            for z in 0..HEIGHT {
                for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                    let at = LocalPos { x, y, z };
                    let wanted = last.get(&at).copied().unwrap_or_default();
                    let line = usize::from(y) * 16 + usize::from(x);
                    prop_assert_eq!(column.get(at), wanted);
                    prop_assert_eq!(all[usize::from(z) * 256 + line], wanted);
                    prop_assert_eq!(solid[line] >> z & 1 == 1, wanted.is_solid());
                }
            }
            prop_assert_eq!(Column::from_blocks(column.at(), &all), Some(column));
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
            prop_assert_eq!(wandering, straight);
        }

        #[test]
        fn a_change_of_a_copy_leaves_the_column_as_it_was(edits in edits(), later in edits()) {
            let before = column(&edits, &BTreeSet::from([7]));
            let bytes = before.encode();
            let mut copy = before.clone();
            later.iter().for_each(|(at, block)| { copy.set(*at, *block); });
            copy.set_entity(8, true);
            prop_assert_eq!(before.encode(), bytes);
        }

        #[test]
        fn any_bytes_are_a_column_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Column::decode(&bytes);
        }

        #[test]
        fn any_message_is_a_column_or_an_error(sections in prop::collection::vec(section(), 3..6)) {
            if let Ok(column) = Column::from_proto(&pb::Chunk { sections: sections.concat(), ..sound() }) {
                prop_assert_eq!(column.blocks().count(), VOLUME);
                prop_assert_eq!(Column::decode(&column.encode()), Ok(column));
            }
        }
    }

    /// As a fuzzer does it: 200,000 times some bytes of a sound column are flipped, cut out, doubled or replaced.
    #[test]
    fn a_damaged_column_is_a_column_or_an_error() {
        let generator = crate::generate::Generator::new(3);
        let sound: Vec<Vec<u8>> = ChunkPos::within(2).map(|at| generator.column(at).encode()).collect();
        let (mut columns, mut errors) = (0, 0);
        for round in 0..200_000u64 {
            let mut dice = dice(round).map(usize::from);
            let mut next = || dice.next().unwrap_or(0);
            let mut bytes = sound[next() % sound.len()].clone();
            for _ in 0..1 + next() % 4 {
                let at = (next() << 8 | next()) % bytes.len().max(1);
                let end = (at + next() % 9).min(bytes.len());
                match next() % 4 {
                    0 if at < bytes.len() => bytes[at] ^= 1 << (next() % 8),
                    1 => drop(bytes.drain(at..end)),
                    2 => bytes.extend_from_within(at..end),
                    _ => bytes[at..end].fill(next() as u8),
                }
            }
            match Column::decode(&bytes) {
                Ok(column) => {
                    columns += 1;
                    assert_eq!(Column::decode(&column.encode()), Ok(column), "round {round}");
                }
                Err(_) => errors += 1,
            }
        }
        assert!(columns > 1000 && errors > 1000, "{columns} columns, {errors} errors: the test shows little");
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_place() {
        let at = Some(pb::ChunkPos { x: 3, y: -4 });
        let with = |sections: Vec<u8>| pb::Chunk { at, sections, ..sound() };
        let air = [1, 0];
        let grave = |id| pb::Grave { id, owner: "ann".into(), until: 9 };
        assert!(Column::from_proto(&with(air.repeat(4))).is_ok());
        let broken = [
            with(vec![]),
            with(air.repeat(3)),
            with(air.repeat(5)),
            with([air.repeat(2), vec![1, 99], air.to_vec()].concat()),
            with([air.repeat(3), vec![2, 0, 1]].concat()),
            pb::Chunk { at, entities: vec![2, 1], ..sound() },
            pb::Chunk { at, entities: vec![1, 1], ..sound() },
            pb::Chunk { at, graves: vec![grave(2), grave(1)], ..sound() },
            pb::Chunk { at, graves: vec![grave(1), grave(1)], ..sound() },
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
