//! Bytes of stored records: frames of the segment being written, and whole sealed segments (header, then
//! compressed frames). Knows no file system.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::record::Record;

const MAGIC: &[u8; 8] = b"fortlog1";
const FRAME_HEAD: usize = 8;
/// Bytes before a sealed segment's header: magic and the header's length.
pub const PREFIX: usize = 12;
const LONGEST_HEADER: u32 = 1 << 20;
const LONGEST_RAW: u64 = 64 << 20;
const ZSTD_LEVEL: i32 = 6;

/// Why bytes are not a sealed segment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SegmentError {
    /// Too short, or another kind of file.
    #[error("not a log segment")]
    Foreign,
    /// The header cannot be read.
    #[error("log segment's header is damaged")]
    Header,
    /// The records cannot be read whole.
    #[error("log segment's records are damaged")]
    Records,
}

/// What a sealed segment holds; enough to know whether to open it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Time of the earliest record, Unix nanoseconds.
    #[prost(fixed64, tag = "1")]
    pub first: u64,
    /// Time of the latest record, Unix nanoseconds.
    #[prost(fixed64, tag = "2")]
    pub last: u64,
    /// Number of records.
    #[prost(uint64, tag = "3")]
    pub records: u64,
    /// Names of the services, in order.
    #[prost(string, repeated, tag = "4")]
    pub services: Vec<String>,
    /// Highest severity.
    #[prost(uint32, tag = "5")]
    pub highest: u32,
    /// Size of the frames before compression, in bytes.
    #[prost(uint64, tag = "6")]
    pub raw: u64,
    /// Checksum of the compressed frames.
    #[prost(fixed64, tag = "7")]
    pub checksum: u64,
    /// When it was sealed, Unix nanoseconds by the clock of the server that did.
    #[prost(fixed64, tag = "8")]
    pub sealed: u64,
}

/// Appends the frame of `record`: length, checksum, protobuf.
pub fn write_frame(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    // A vector takes any number of bytes.
    let _ = record.encode(out);
    let body = &out[start + FRAME_HEAD..];
    let (length, checksum) = (body.len() as u32, xxh3_64(body) as u32);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// The records of all whole frames, and how many bytes they take. What follows is torn: a write that was cut.
pub fn read_frames(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, size)) = read_frame(&bytes[at..]) {
        records.push(record);
        at += size;
    }
    (records, at)
}

fn read_frame(bytes: &[u8]) -> Option<(Record, usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let checksum = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let body = bytes.get(FRAME_HEAD..FRAME_HEAD.checked_add(length)?)?;
    if body.is_empty() || xxh3_64(body) as u32 != checksum {
        return None;
    }
    Some((Record::decode(body).ok()?, FRAME_HEAD + length))
}

/// The header of a segment with these records, without sizes.
pub fn header<'a>(records: impl Iterator<Item = &'a Record>) -> Header {
    let mut header = Header { first: u64::MAX, ..Header::default() };
    let mut services = BTreeSet::new();
    for record in records {
        header.first = header.first.min(record.time);
        header.last = header.last.max(record.time);
        header.highest = header.highest.max(record.level() as u32);
        header.records += 1;
        if !services.contains(&record.service) {
            services.insert(record.service.clone());
        }
    }
    header.services = services.into_iter().collect();
    header
}

/// The bytes of a segment sealed at `now` (Unix nanoseconds): `frames` compressed behind `header`.
///
/// # Errors
/// When the frames cannot be compressed.
pub fn seal(mut header: Header, frames: &[u8], now: u64) -> Result<(Header, Vec<u8>), SegmentError> {
    let body = zstd::bulk::compress(frames, ZSTD_LEVEL).map_err(|_| SegmentError::Records)?;
    header.raw = frames.len() as u64;
    header.checksum = xxh3_64(&body);
    header.sealed = now;
    let mut encoded = header.encode_to_vec();
    let checksum = xxh3_64(&encoded) as u32;
    encoded.extend_from_slice(&checksum.to_le_bytes());
    let mut out = Vec::with_capacity(PREFIX + encoded.len() + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    out.extend_from_slice(&encoded);
    out.extend_from_slice(&body);
    Ok((header, out))
}

/// Where the header of a sealed segment that begins with `prefix` is, with its checksum.
///
/// # Errors
/// When it is no sealed segment.
pub fn header_range(prefix: &[u8]) -> Result<RangeInclusive<usize>, SegmentError> {
    let length = prefix.strip_prefix(MAGIC).and_then(|rest| rest.get(..4)).ok_or(SegmentError::Foreign)?;
    let length = u32::from_le_bytes(length.try_into().map_err(|_| SegmentError::Foreign)?);
    if !(4..=LONGEST_HEADER).contains(&length) {
        return Err(SegmentError::Header);
    }
    Ok(PREFIX..=PREFIX + length as usize - 1)
}

/// Reads a header from the bytes at [`header_range`].
///
/// # Errors
/// When they are damaged.
pub fn read_header(bytes: &[u8]) -> Result<Header, SegmentError> {
    let (header, checksum) = bytes.split_last_chunk().ok_or(SegmentError::Header)?;
    if xxh3_64(header) as u32 != u32::from_le_bytes(*checksum) {
        return Err(SegmentError::Header);
    }
    Header::decode(header).map_err(|_| SegmentError::Header)
}

/// The records of a whole sealed segment.
///
/// # Errors
/// When it is damaged anywhere.
pub fn open(segment: &[u8]) -> Result<Vec<Record>, SegmentError> {
    let range = header_range(segment)?;
    let body = segment.get(range.end() + 1..).ok_or(SegmentError::Header)?;
    let header = read_header(segment.get(range).ok_or(SegmentError::Header)?)?;
    if header.raw > LONGEST_RAW || xxh3_64(body) != header.checksum {
        return Err(SegmentError::Records);
    }
    let frames = zstd::bulk::decompress(body, header.raw as usize).map_err(|_| SegmentError::Records)?;
    let (records, read) = read_frames(&frames);
    if read != frames.len() || records.len() as u64 != header.records {
        return Err(SegmentError::Records);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Level;
    use crate::record::tests::sample;

    fn frames(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        records.iter().for_each(|r| write_frame(r, &mut out));
        out
    }

    fn samples() -> Vec<Record> {
        (0..100).map(|i| sample(i, "game", Level::Info, &format!("tick {i} is done"))).collect()
    }

    #[test]
    fn a_sealed_segment_gives_its_records_back_and_is_smaller() {
        let records = samples();
        let raw = frames(&records);
        let (header, sealed) = seal(header(records.iter()), &raw, 7).expect("sealed");
        assert!(sealed.len() * 4 < raw.len(), "{} of {} bytes", sealed.len(), raw.len());
        assert_eq!((header.first, header.last, header.records), (0, 99, 100));
        assert_eq!(open(&sealed).expect("opened"), records);
        let range = header_range(&sealed[..PREFIX]).expect("range");
        assert_eq!(read_header(&sealed[range]).expect("header"), header);
    }

    #[test]
    fn a_damaged_segment_is_an_error_wherever_the_damage_is() {
        let records = &samples()[..3];
        let (_, sealed) = seal(header(records.iter()), &frames(records), 7).expect("sealed");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 0x55;
            assert!(open(&damaged).is_err(), "byte {at}");
            assert!(open(&sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn frames_before_a_torn_one_are_read() {
        let records = &samples()[..3];
        let bytes = frames(records);
        let two = frames(&records[..2]).len();
        for cut in two..bytes.len() {
            assert_eq!(read_frames(&bytes[..cut]), (records[..2].to_vec(), two));
        }
        let zeros = [bytes.clone(), vec![0; 100]].concat();
        assert_eq!(read_frames(&zeros), (records.to_vec(), bytes.len()));
    }
}
