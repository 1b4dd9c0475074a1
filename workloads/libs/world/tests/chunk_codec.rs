//! The chunk format against plain protobuf and zstd: time and size on generated and edited chunks.

// A bench tells its figures, and what it stands on may end it: nothing here reads outside input.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use fortia_vec::{ChunkPos, LocalPos};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::generate::Generator;
use prost::Message;

/// The peer: one byte a block, x fastest, then y, then z; compressed by zstd at its default level.
#[derive(Clone, PartialEq, Message)]
struct Plain {
    #[prost(sint32, tag = "1")]
    x: i32,
    #[prost(sint32, tag = "2")]
    y: i32,
    #[prost(uint32, tag = "3")]
    height: u32,
    #[prost(bytes = "vec", tag = "4")]
    blocks: Vec<u8>,
    #[prost(fixed64, repeated, tag = "5")]
    entities: Vec<u64>,
}

/// The peer's contexts and buffers are made once; ours needs none.
struct Peer {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
    compressed: Vec<u8>,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            compressor: zstd::bulk::Compressor::new(3).unwrap(),
            decompressor: zstd::bulk::Decompressor::new().unwrap(),
            plain: Vec::with_capacity(1 << 16),
            compressed: Vec::with_capacity(1 << 17),
        }
    }

    fn encode(&mut self, plain: &Plain) -> Vec<u8> {
        self.plain.clear();
        plain.encode(&mut self.plain).unwrap();
        self.compressed.clear();
        self.compressor.compress_to_buffer(&self.plain, &mut self.compressed).unwrap();
        self.compressed.clone()
    }

    fn decode(&mut self, bytes: &[u8]) -> Plain {
        self.plain.clear();
        self.decompressor.decompress_to_buffer(bytes, &mut self.plain).unwrap();
        Plain::decode(&self.plain[..]).unwrap()
    }
}

fn plain(column: &Column) -> Plain {
    Plain {
        x: column.at().x,
        y: column.at().y,
        height: u32::from(HEIGHT),
        blocks: column.blocks().map(|block| block.kind() as u8).collect(),
        entities: column.entities().iter().copied().collect(),
    }
}

/// Numbers that look like chance and are the same every time.
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// What players do to a chunk: a house of planks, a wall across, a shaft with a gallery, some trees felled.
fn edited(mut column: Column, state: &mut u64) -> Column {
    let mut put = |x: u64, y: u64, z: u64, block| {
        column.set(LocalPos { x: x as u8 % 16, y: y as u8 % 16, z: z as u8 % HEIGHT }, block)
    };
    let (x, y, z) = (dice(state) % 10, dice(state) % 10, 24 + dice(state) % 8);
    for (i, j, k) in (0..6).flat_map(|i| (0..6).flat_map(move |j| (0..5).map(move |k| (i, j, k)))) {
        let shell = [0, 5].contains(&i) || [0, 5].contains(&j) || k == 4;
        put(x + i, y + j, z + k, if shell { Block::Planks } else { Block::Air });
    }
    (0..16).for_each(|i| (0..3).for_each(|k| _ = put(i, y + 7, z + k, Block::Wall)));
    (0..20).for_each(|k| _ = put(x, y, z.saturating_sub(k), Block::Air));
    (0..16).for_each(|i| _ = put(i, y, 12, Block::Air));
    for _ in 0..dice(state) % 60 {
        let block = [Block::Air, Block::Wall, Block::Planks, Block::Dirt][dice(state) as usize % 4];
        put(dice(state), dice(state), 8 + dice(state) % 32, block);
    }
    column
}

/// Chunks of eight worlds, a third of them edited and lived in.
fn chunks() -> Vec<Column> {
    let mut state = 1;
    let mut all = Vec::new();
    for seed in 0..8 {
        let generator = Generator::new(seed);
        for (i, at) in ChunkPos::within(4).enumerate() {
            let mut column = generator.column(ChunkPos::new(at.x * 9, at.y * 9));
            if i % 3 == 0 {
                column = edited(column, &mut state);
                (0..dice(&mut state) % 9).for_each(|id| _ = column.set_entity((id << 40) | (77 * id), true));
            }
            all.push(column);
        }
    }
    all
}

fn told(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("figure {name} {middle:.3} {unit} (min {low:.3} max {high:.3}, {} runs)", values.len());
}

#[test]
#[ignore = "bench"]
fn bench_chunk_codec() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let columns = chunks();
    let mut peer = Peer::new();
    let ours: Vec<Vec<u8>> = columns.iter().map(Column::encode).collect();
    let theirs: Vec<Vec<u8>> = columns.iter().map(|column| peer.encode(&plain(column))).collect();
    for (column, (our, their)) in columns.iter().zip(ours.iter().zip(&theirs)) {
        assert_eq!(Column::decode(our).as_ref(), Ok(column));
        assert_eq!(peer.decode(their), plain(column));
    }
    let bytes = |all: &[Vec<u8>]| all.iter().map(Vec::len).sum::<usize>() as f64;
    let mut level1 = zstd::bulk::Compressor::new(1).unwrap();
    let squeezed: Vec<Vec<u8>> = ours.iter().map(|bytes| level1.compress(bytes).unwrap()).collect();
    let count = columns.len() as f64;
    println!(
        "{count} chunks; bytes a chunk: ours {:.0}, ours with zstd -1 on top {:.0}, plain + zstd -3 {:.0}",
        bytes(&ours) / count,
        bytes(&squeezed) / count,
        bytes(&theirs) / count
    );
    let (mut ratios, mut our_times, mut their_times) = (Vec::new(), Vec::new(), Vec::new());
    let mut parts = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..9 {
        let begun = Instant::now();
        let decoded: Vec<Column> =
            ours.iter().map(|bytes| Column::decode(black_box(bytes)).unwrap()).collect();
        let middle = Instant::now();
        decoded.iter().for_each(|column| drop(black_box(black_box(column).encode())));
        let our = begun.elapsed();
        parts[0].push((middle - begun).as_secs_f64() / count * 1e6);
        parts[1].push(middle.elapsed().as_secs_f64() / count * 1e6);
        let begun = Instant::now();
        let decoded: Vec<Plain> = theirs.iter().map(|bytes| peer.decode(black_box(bytes))).collect();
        let middle = Instant::now();
        decoded.iter().for_each(|plain| drop(black_box(peer.encode(black_box(plain)))));
        let their = begun.elapsed();
        parts[2].push((middle - begun).as_secs_f64() / count * 1e6);
        parts[3].push(middle.elapsed().as_secs_f64() / count * 1e6);
        ratios.push(their.as_secs_f64() / our.as_secs_f64());
        our_times.push(our.as_secs_f64() / count * 1e6);
        their_times.push(their.as_secs_f64() / count * 1e6);
    }
    for (name, part) in ["decode", "encode", "peer_decode", "peer_encode"].iter().zip(parts) {
        told(&format!("chunk.codec_{name}"), "us", part);
    }
    told("chunk.codec_ours", "us", our_times);
    told("chunk.codec_peer", "us", their_times);
    told("chunk.size_vs_zstd", "x", vec![bytes(&ours) / bytes(&theirs)]);
    told("chunk.codec_vs_zstd", "x", ratios);
}
