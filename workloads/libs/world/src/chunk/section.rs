//! A cube of 16 x 16 x 16 blocks: one kind, or a palette with an index for each block. Knows how a section looks in
//! bytes, nothing of where it is.

use std::sync::Arc;

use super::plane::{self, LINES, Plane, SIDE};
use crate::block::Block;

/// Kinds a palette can have: an index is four bits.
const KINDS: usize = 16;
// With a 17th kind of block a section can have more than a plane holds: it will need a second one.
const _: () = assert!(Block::ALL.len() <= KINDS);

/// A section. Cheap to clone: copies share their blocks until one is changed.
#[derive(Debug, Clone)]
pub(super) enum Section {
    /// Every block is this.
    Uniform(Block),
    /// More than one kind, or once more than one.
    Mixed(Arc<Mixed>),
}

/// Indices into a palette.
#[derive(Debug, Clone)]
pub(super) struct Mixed {
    palette: Palette,
    plane: Plane,
}

/// Kinds of blocks, ascending: each that is there, and perhaps some that no longer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Palette {
    kinds: [Block; KINDS],
    /// How many of them count; the others are air.
    count: u8,
}

/// Bit of a section's first byte: its indices are plain.
const PLAIN: u8 = 0x80;

/// A place in a section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its vertical line: x fastest, then y.
    pub(super) line: usize,
    /// Its height, below 16.
    pub(super) z: usize,
}

impl Section {
    /// A section from its blocks, by place.
    pub(super) fn of(block: impl Fn(Place) -> Block) -> Section {
        let mut indices = [0u8; Block::ALL.len()];
        for place in places() {
            indices[block(place) as usize] = 1;
        }
        let palette = Palette::of(Block::ALL.into_iter().filter(|kind| indices[*kind as usize] == 1));
        if let [only] = palette.kinds() {
            return Section::Uniform(*only);
        }
        for (index, kind) in palette.kinds().iter().enumerate() {
            indices[*kind as usize] = index as u8;
        }
        let mut mixed = Mixed { palette, plane: [0; LINES] };
        for place in places() {
            mixed.put(place, usize::from(indices[block(place) as usize]));
        }
        Section::Mixed(Arc::new(mixed))
    }

    /// The block there.
    pub(super) fn get(&self, place: Place) -> Block {
        match self {
            Section::Uniform(block) => *block,
            Section::Mixed(mixed) => mixed.palette.kinds[mixed.index(place)],
        }
    }

    /// Puts a block there.
    pub(super) fn set(&mut self, place: Place, block: Block) {
        let mixed = match self {
            Section::Uniform(all) => {
                let mixed = Mixed { palette: Palette::of([*all]), plane: [0; LINES] };
                *self = Section::Mixed(Arc::new(mixed));
                return self.set(place, block);
            }
            Section::Mixed(mixed) => Arc::make_mut(mixed),
        };
        let index = mixed.palette.kinds().binary_search(&block).unwrap_or_else(|index| {
            mixed.learn(index, block);
            index
        });
        mixed.put(place, index);
    }

    /// The height and kind of the highest block of a line that is not air.
    pub(super) fn top(&self, line: usize) -> Option<(usize, Block)> {
        let here = |z| (z, self.get(Place { line, z }));
        match self {
            Section::Uniform(Block::Air) => None,
            _ => (0..SIDE).rev().map(here).find(|(_, block)| *block != Block::Air),
        }
    }

    /// For each line the heights (as bits) of blocks that are `wanted`.
    pub(super) fn which(&self, wanted: impl Fn(Block) -> bool) -> [u16; LINES] {
        let mut all = [0; LINES];
        match self {
            Section::Uniform(block) if wanted(*block) => all = [u16::MAX; LINES],
            Section::Uniform(_) => {}
            Section::Mixed(mixed) => {
                let kinds = mixed
                    .palette
                    .kinds()
                    .iter()
                    .rev()
                    .fold(0u16, |kinds, kind| kinds << 1 | u16::from(wanted(*kind)));
                let (mut last, mut bits) = (!mixed.plane[0], 0);
                for (here, line) in all.iter_mut().zip(mixed.plane) {
                    // Most lines are as the one before.
                    if line != last {
                        bits = (0..SIDE).fold(0, |bits, z| bits | (kinds >> plane::at(line, z) & 1) << z);
                        last = line;
                    }
                    *here = bits;
                }
            }
        }
        all
    }

    /// Appends the section's bytes. Equal sections give equal bytes, whatever happened to them before.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mixed = match self {
            Section::Uniform(block) => return out.extend([1, *block as u8]),
            Section::Mixed(mixed) => mixed,
        };
        let (start, kinds) = (out.len(), mixed.palette.kinds());
        out.push(kinds.len() as u8);
        out.extend(kinds.iter().map(|block| *block as u8));
        let head = out.len();
        let seen = plane::write(&mixed.plane, out);
        if seen.count_ones() as usize != kinds.len() {
            // Some kind is no longer there.
            out.truncate(start);
            return Section::of(|place| self.get(place)).write(out);
        }
        let bits = bits_for(kinds.len());
        // The rule of when compressing pays: when it makes the section smaller.
        if out.len() - head >= packed_length(bits) {
            out.truncate(head);
            out[start] |= PLAIN;
            mixed.pack(bits, out);
        }
    }

    /// Reads a section from the front of `bytes`; what is wrong with them otherwise.
    pub(super) fn read(bytes: &mut &[u8]) -> Result<Section, Fault> {
        let (first, rest) = bytes.split_first().ok_or(Fault::Palette)?;
        let kinds = usize::from(first & !PLAIN);
        let (palette, rest) = rest.split_at_checked(kinds).ok_or(Fault::Palette)?;
        let palette = Palette::read(palette).ok_or(Fault::Palette)?;
        *bytes = rest;
        if let [only] = palette.kinds() {
            return if *first == 1 { Ok(Section::Uniform(*only)) } else { Err(Fault::Blocks) };
        }
        let mut all = Arc::new(Mixed { palette, plane: [0; LINES] });
        let mixed = Arc::make_mut(&mut all);
        let read = if first & PLAIN == 0 {
            plane::read(bytes, kinds, &mut mixed.plane)
        } else {
            unpack(bytes, kinds, &mut mixed.plane)
        };
        read.ok_or(Fault::Blocks)?;
        Ok(Section::Mixed(all))
    }
}

impl Eq for Section {}

impl PartialEq for Section {
    /// Sections are equal when their blocks are.
    fn eq(&self, other: &Section) -> bool {
        match (self, other) {
            (Section::Uniform(a), Section::Uniform(b)) => a == b,
            (Section::Mixed(a), Section::Mixed(b)) if a.palette == b.palette => a.plane == b.plane,
            // A palette may have kinds that are no longer there.
            _ => places().all(|place| self.get(place) == other.get(place)),
        }
    }
}

/// What is wrong with a section's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The palette is empty, does not ascend, or names a kind that does not exist.
    Palette,
    /// The indices do not fit it.
    Blocks,
}

impl Palette {
    fn of(kinds: impl IntoIterator<Item = Block>) -> Palette {
        let mut palette = Palette { kinds: [Block::Air; KINDS], count: 0 };
        for (slot, kind) in palette.kinds.iter_mut().zip(kinds) {
            *slot = kind;
            palette.count += 1;
        }
        palette
    }

    /// A palette from its bytes, if they are one.
    fn read(bytes: &[u8]) -> Option<Palette> {
        if bytes.is_empty() || bytes.len() > KINDS || !bytes.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut palette = Palette { kinds: [Block::Air; KINDS], count: bytes.len() as u8 };
        for (slot, byte) in palette.kinds.iter_mut().zip(bytes) {
            *slot = Block::from_kind(u32::from(*byte))?;
        }
        Some(palette)
    }

    /// The kinds, ascending.
    fn kinds(&self) -> &[Block] {
        &self.kinds[..usize::from(self.count)]
    }

    fn insert(&mut self, index: usize, block: Block) {
        let kinds = self.kinds;
        *self = Palette::of(
            kinds[..index].iter().chain([&block]).chain(&kinds[index..usize::from(self.count)]).copied(),
        );
    }
}

impl Mixed {
    fn index(&self, place: Place) -> usize {
        plane::at(self.plane[place.line], place.z) as usize
    }

    fn put(&mut self, place: Place, index: usize) {
        let line = &mut self.plane[place.line];
        *line = plane::with(*line, place.z, index as u64);
    }

    /// Makes room in the palette for a kind at `index`.
    fn learn(&mut self, index: usize, block: Block) {
        self.palette.insert(index, block);
        for place in places() {
            let old = self.index(place);
            if old >= index {
                self.put(place, old + 1);
            }
        }
    }

    /// Appends all indices in so many bits each, line by line, the lowest place in the lowest bits.
    fn pack(&self, bits: usize, out: &mut Vec<u8>) {
        let head = out.len();
        out.resize(head + packed_length(bits), 0);
        for place in places() {
            let bit = (place.line * SIDE + place.z) * bits;
            out[head + bit / 8] |= (self.index(place) as u8) << (bit % 8);
        }
    }
}

/// All places of a section, line by line, upwards.
fn places() -> impl Iterator<Item = Place> {
    (0..LINES).flat_map(|line| (0..SIDE).map(move |z| Place { line, z }))
}

/// Bits an index needs: a divisor of eight, so that no index lies across two bytes.
const fn bits_for(kinds: usize) -> usize {
    match kinds {
        0..=2 => 1,
        3..=4 => 2,
        _ => 4,
    }
}

/// Bytes of a section's indices in so many bits each.
const fn packed_length(bits: usize) -> usize {
    LINES * SIDE * bits / 8
}

fn unpack(bytes: &mut &[u8], kinds: usize, plane: &mut Plane) -> Option<()> {
    let bits = bits_for(kinds);
    let (packed, rest) = bytes.split_at_checked(packed_length(bits))?;
    for place in places() {
        let bit = (place.line * SIDE + place.z) * bits;
        let index = (packed[bit / 8] >> (bit % 8)) & (u8::MAX >> (8 - bits));
        if usize::from(index) >= kinds {
            return None;
        }
        plane[place.line] |= u64::from(index) << (4 * place.z);
    }
    *bytes = rest;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(section: &Section) -> Vec<u8> {
        let mut bytes = Vec::new();
        section.write(&mut bytes);
        bytes
    }

    #[test]
    fn noise_is_stored_plain_and_layers_are_not() {
        let mut dice = 7u64;
        let mut noise = Section::Uniform(Block::Air);
        for place in places() {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.set(place, Block::ALL[(dice >> 33) as usize % 4]);
        }
        let bytes = written(&noise);
        assert_eq!((bytes[0], bytes.len()), (PLAIN | 4, 1 + 4 + 1024));
        assert_eq!(Section::read(&mut &bytes[..]), Ok(noise));
        let layers = Section::of(|place| if place.z < 7 { Block::Stone } else { Block::Air });
        let bytes = written(&layers);
        assert_eq!((bytes[0], bytes.len()), (2, 1 + 2 + 6));
        assert_eq!(Section::read(&mut &bytes[..]), Ok(layers));
    }

    #[test]
    fn a_section_of_one_kind_is_one_value() {
        let mut section = Section::Uniform(Block::Stone);
        section.set(Place { line: 3, z: 4 }, Block::Water);
        section.set(Place { line: 3, z: 4 }, Block::Stone);
        assert_eq!(written(&section), [1, Block::Stone as u8]);
        assert_eq!(section, Section::Uniform(Block::Stone));
    }

    #[test]
    fn a_copy_shares_its_blocks_until_one_is_changed() {
        let section = Section::of(|place| if place.z < 7 { Block::Stone } else { Block::Air });
        let mut copy = section.clone();
        let shared = |a: &Section, b: &Section| matches!((a, b), (Section::Mixed(a), Section::Mixed(b)) if Arc::ptr_eq(a, b));
        assert!(shared(&section, &copy));
        copy.set(Place { line: 0, z: 0 }, Block::Air);
        assert!(!shared(&section, &copy) && section.get(Place { line: 0, z: 0 }) == Block::Stone);
    }

    #[test]
    fn sections_that_do_not_fit_together_are_refused() {
        let plain = |palette: &[u8], fill: u8, length| {
            let mut bytes = vec![PLAIN | palette.len() as u8];
            bytes.extend(palette);
            bytes.resize(bytes.len() + length, fill);
            bytes
        };
        assert!(Section::read(&mut &plain(&[0, 1, 2], 0b0001_1001, 1024)[..]).is_ok());
        let broken = [
            vec![],
            vec![0],
            vec![1],
            vec![2, 0],
            vec![1, 99],
            vec![17; 18],
            vec![PLAIN | 1, 3],
            plain(&[0, 0], 0, 512),
            plain(&[1, 0], 0, 512),
            plain(&[0, 99], 0, 512),
            plain(&[0, 1], 0, 511),
            plain(&[0, 1, 2], 255, 1024),
            vec![2, 0, 1],
            // A row, a line and no fix; a fix that does not exist; an index beyond the palette.
            vec![2, 0, 1, 1, 0, 1, 0],
            vec![2, 0, 1, 1, 0, 1, 0, 0xf0],
            vec![2, 0, 1, 1, 0, 1, 0, 0xe0, 0x02],
        ];
        for bytes in broken {
            assert!(Section::read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
