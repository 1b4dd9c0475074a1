//! Indices below 16 for the 4,096 places of a section, and their short form as bytes. Knows no blocks and no palette.
//!
//! A plane is 256 words, one for each vertical line of 16 places: x fastest, then y; the lowest place is in the lowest
//! four bits. Terrain lies in layers, so a line mostly is what its neighbours say: the short form says where it is not.

/// One index for each place of a section; see the module.
pub(super) type Plane = [u64; LINES];

/// Vertical lines of a section.
pub(super) const LINES: usize = SIDE * SIDE;
/// Places along each axis of a section.
pub(super) const SIDE: usize = 16;

/// What a fix does, in bits 4 to 6 of its byte; bits 0 to 3 say from which height on, bit 7 that it is the last.
mod fix {
    /// Everything from here on moves up by one; the place itself keeps what is below it.
    pub(super) const RISE: u8 = 0;
    /// Everything from here on moves down by one; the topmost place keeps what it has.
    pub(super) const SINK: u8 = 1;
    /// This place is as the one below it.
    pub(super) const BELOW: u8 = 2;
    /// This place and the next are as the one below them.
    pub(super) const BELOW_TWO: u8 = 3;
    /// This place is as the one above it.
    pub(super) const ABOVE: u8 = 4;
    /// This place and the next are as the one above them.
    pub(super) const ABOVE_TWO: u8 = 5;
    /// So many places are this: a byte follows with their number less one (high half) and the index (low half).
    pub(super) const RUN: u8 = 6;
    /// The topmost bit: the line needs no other fix.
    pub(super) const LAST: u8 = 0x80;
}

/// The index at a height of a line.
pub(super) const fn at(line: u64, z: usize) -> u64 {
    (line >> (4 * z)) & 15
}

/// The line with another index at a height.
pub(super) const fn with(line: u64, z: usize, index: u64) -> u64 {
    (line & !(15 << (4 * z))) | (index << (4 * z))
}

/// Appends the short form: two bytes with a bit for each row (y) that is not as the row before it; for each of these
/// rows two bytes with a bit for each line (x) that is not as expected; and for each of these lines its fixes. Returns
/// which indices there are, as bits.
pub(super) fn write(plane: &Plane, out: &mut Vec<u8>) -> u16 {
    let head = out.len();
    out.extend([0; 2]);
    let (mut rows, mut seen, mut south) = (0u16, 0, &[0; SIDE]);
    for (y, row) in plane.as_chunks::<SIDE>().0.iter().enumerate() {
        // In a row that is as the one before it every line is as expected, and in no other.
        if row == south {
            continue;
        }
        let mut guess = *south;
        for x in 1..SIDE {
            guess[x] = if y == 0 { row[x - 1] } else { expected(row[x - 1], south[x], south[x - 1]) };
        }
        let mut missed = (0..SIDE).fold(0u16, |missed, x| missed | u16::from(row[x] != guess[x]) << x);
        rows |= 1 << y;
        out.extend(missed.to_le_bytes());
        while missed != 0 {
            let x = missed.trailing_zeros() as usize;
            seen |= write_fixes(guess[x], row[x], out);
            missed &= missed - 1;
        }
        south = row;
    }
    out[head..head + 2].copy_from_slice(&rows.to_le_bytes());
    // Every index but 0 came with a run.
    seen | u16::from(plane.iter().any(|line| has_zero(*line)))
}

/// Reads the short form from the front of `bytes` into a plane; every index it gives is below `kinds`, which is 1 to 16.
/// `None` when the bytes are none.
pub(super) fn read(bytes: &mut &[u8], kinds: usize, plane: &mut Plane) -> Option<()> {
    let rows = read_mask(bytes)?;
    let mut south = [0; SIDE];
    for (y, row) in plane.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
        *row = south;
        if rows >> y & 1 == 0 {
            continue;
        }
        let missed = read_mask(bytes)?;
        // Where a line is not as the one to the south, those after it keep what it has until the south has it too.
        // To the south of the first row nothing ever has.
        let (mut line, mut kept) = (0, if y == 0 { u64::MAX } else { 0 });
        for x in missed.trailing_zeros() as usize..SIDE {
            row[x] = (line & kept) | (south[x] & !kept);
            if missed >> x & 1 == 1 {
                (line, kept) = (read_fixes(bytes, row[x], kinds)?, u64::MAX);
                row[x] = line;
            }
            if y > 0 {
                kept &= differing(line, south[x]);
            }
        }
        south = *row;
    }
    Some(())
}

fn read_mask(bytes: &mut &[u8]) -> Option<u16> {
    let (mask, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_le_bytes(*mask))
}

fn read_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

const ONES: u64 = 0x1111_1111_1111_1111;

/// What a line is expected to be: place by place as the one to the south where nothing changed between south-west and
/// west, else as the one to the west. In the first row it is as the one to the west and in the first place of a row as
/// the one to the south; the very first is expected to be all 0.
#[inline]
fn expected(west: u64, south: u64, south_west: u64) -> u64 {
    let changed = differing(west, south_west);
    (west & changed) | (south & !changed)
}

/// The places at which two lines differ, all four bits of each.
#[inline]
fn differing(a: u64, b: u64) -> u64 {
    let change = a ^ b;
    let change = change | change >> 1;
    let change = (change | change >> 2) & ONES;
    (change << 4).wrapping_sub(change)
}

/// Whether one of the indices is 0.
const fn has_zero(line: u64) -> bool {
    line.wrapping_sub(ONES) & !line & (ONES << 3) != 0
}

/// The line with each place as the one below it, the lowest 0.
const fn up(line: u64) -> u64 {
    line << 4
}

/// The line with each place as the one above it, the topmost as it is.
const fn down(line: u64) -> u64 {
    line >> 4 | line & 15 << 60
}

/// The line with the places from `z` up taken from another.
const fn merge(line: u64, other: u64, z: usize) -> u64 {
    let places = u64::MAX << (4 * z);
    (line & !places) | (other & places)
}

/// The line with so many places (1 to 16) from `z` up set to an index.
const fn run(line: u64, z: usize, places: usize, index: u64) -> u64 {
    let places = u64::MAX >> (64 - 4 * places) << (4 * z);
    (line & !places) | ((index * ONES) & places)
}

/// Writes how to get from what was expected to the line, which is another. Returns the indices of its runs, as bits.
fn write_fixes(mut have: u64, line: u64, out: &mut Vec<u8>) -> u16 {
    let mut runs = 0;
    loop {
        let z = first_difference(have, line);
        // Most lines need no more than one of these.
        let (risen, sunk) = (merge(have, up(have), z), merge(have, down(have), z));
        if risen == line || sunk == line {
            out.push(fix::LAST | u8::from(risen != line) << 4 | z as u8);
            return runs;
        }
        let index = at(line, z);
        let alike = first_difference(line >> (4 * z), index * ONES).min(SIDE - z);
        // Two places at once, where the next is to be the same and is not.
        let two = alike > 1 && at(have ^ line, z + 1) != 0;
        let patched = run(have, z, 1 + usize::from(two), index);
        let from_below = index == at(up(have), z);
        let from_above = index == at(if two { down(down(have)) } else { down(have) }, z);
        let patch = match (from_below, two) {
            (true, false) => fix::BELOW,
            (true, true) => fix::BELOW_TWO,
            (false, false) => fix::ABOVE,
            (false, true) => fix::ABOVE_TWO,
        };
        let patches = if from_below || from_above { first_difference(patched, line) } else { z };
        let (shift, moved) = if from_below { (fix::RISE, risen) } else { (fix::SINK, sunk) };
        let moves = first_difference(moved, line);
        let (op, then) = if moves > patches { (shift, moved) } else { (patch, patched) };
        // A run is a byte longer: it must reach further than what it replaces.
        let whole = run(have, z, alike, index);
        let reach = moves.max(patches);
        let is_run = reach == z || first_difference(whole, line) > reach + 1;
        let (op, then) = if is_run { (fix::RUN, whole) } else { (op, then) };
        let last = if then == line { fix::LAST } else { 0 };
        out.push(last | op << 4 | z as u8);
        if is_run {
            out.push(((alike - 1) << 4) as u8 | index as u8);
            runs |= 1 << index;
        }
        if last != 0 {
            return runs;
        }
        have = then;
    }
}

/// The lowest height at which two lines differ; 16 when they do not.
const fn first_difference(a: u64, b: u64) -> usize {
    (a ^ b).trailing_zeros() as usize / 4
}

fn read_fixes(bytes: &mut &[u8], mut line: u64, kinds: usize) -> Option<u64> {
    loop {
        let byte = read_byte(bytes)?;
        let (op, z) = (byte >> 4 & 7, usize::from(byte & 15));
        if op <= fix::SINK {
            line = merge(line, if op == fix::RISE { up(line) } else { down(line) }, z);
        } else {
            let source = if op < fix::ABOVE { up(line) } else { down(line) };
            let source = if op == fix::ABOVE_TWO { down(source) } else { source };
            let (mut index, mut places) = (at(source, z), 1 + usize::from(op & 1));
            if op >= fix::RUN {
                let follows = read_byte(bytes)?;
                (places, index) = (usize::from(follows >> 4) + 1, u64::from(follows & 15));
                if op > fix::RUN || z + places > SIDE || index as usize >= kinds {
                    return None;
                }
            }
            line = run(line, z, places, index);
        }
        if byte & fix::LAST != 0 {
            return Some(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines of few layers, much like their neighbours, with some that are not.
    fn plane(kinds: u64) -> impl Strategy<Value = Plane> {
        let change = (0..LINES, 0..SIDE, 0..SIDE, 0..kinds);
        prop::collection::vec(change, 0..200).prop_map(|changes| {
            let mut plane = [0; LINES];
            for (from, z, height, index) in changes {
                let wide = if index % 2 == 0 { LINES } else { (from + 3).min(LINES) };
                for line in &mut plane[from..wide] {
                    (z..(z + height).min(SIDE)).for_each(|z| *line = with(*line, z, index));
                }
            }
            plane
        })
    }

    proptest! {
        #[test]
        fn a_plane_is_read_back_from_its_short_form(plane in plane(16), rest in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = Vec::new();
            let seen = write(&plane, &mut bytes);
            let indices = plane.iter().flat_map(|line| (0..SIDE).map(|z| at(*line, z)));
            prop_assert_eq!(seen, indices.fold(0, |seen, index| seen | 1 << index));
            bytes.extend(&rest);
            let (mut left, mut found) = (&bytes[..], [0; LINES]);
            prop_assert_eq!(read(&mut left, 16, &mut found), Some(()));
            prop_assert_eq!(found, plane);
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn noise_is_read_back_too(lines in prop::collection::vec(any::<u64>(), LINES)) {
            let plane: Plane = lines.try_into().unwrap();
            let mut bytes = Vec::new();
            write(&plane, &mut bytes);
            let mut found = [0; LINES];
            prop_assert_eq!(read(&mut &bytes[..], 16, &mut found), Some(()));
            prop_assert_eq!(found, plane);
        }

        #[test]
        fn what_is_read_from_any_bytes_stays_below_the_number_of_kinds(
            bytes in prop::collection::vec(any::<u8>(), 0..3000), kinds in 1usize..=16,
        ) {
            let mut plane = [0; LINES];
            if read(&mut &bytes[..], kinds, &mut plane).is_some() {
                let all = plane.iter().flat_map(|line| (0..SIDE).map(|z| at(*line, z)));
                prop_assert!(all.max() < Some(kinds as u64));
            }
        }
    }

    #[test]
    fn a_slope_costs_one_byte_a_line() {
        let mut plane = [0; LINES];
        for (i, line) in plane.iter_mut().enumerate() {
            let ground = i % SIDE / 2 + 4;
            (0..ground).for_each(|z| *line = with(*line, z, if z + 1 == ground { 2 } else { 1 }));
        }
        let mut bytes = Vec::new();
        write(&plane, &mut bytes);
        assert!(bytes.len() <= 2 + 2 + 4 + 7, "{} bytes", bytes.len());
    }
}
