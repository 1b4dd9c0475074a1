//! Generation: committed digests of what each seed gives, and how quick it is.

// A bench tells its figures, and what it stands on may end it: nothing here reads outside input.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::thread;
use std::time::Instant;

use fortia_vec::{ChunkPos, RegionPos};
use fortia_world::chunk::Column;
use fortia_world::generate::{Generator, hidden};
use xxhash_rust::xxh3::xxh3_64;

/// Seeds and chunks whose blocks are committed.
const SEEDS: [u64; 4] = [0, 1, 42, u64::MAX];
const CHUNKS: [(i32, i32); 6] = [(0, 0), (-1, 0), (7, -3), (64, 64), (-500, 12), (100_000, -100_000)];

fn digest(column: &Column) -> u64 {
    xxh3_64(&column.blocks().map(|block| block.kind() as u8).collect::<Vec<u8>>())
}

/// Worlds that exist must not change: chunks beyond the first radius are made years after the others.
#[test]
fn every_seed_gives_the_blocks_that_are_committed() {
    let mut found = String::new();
    for seed in SEEDS {
        let generator = Generator::new(seed);
        for (x, y) in CHUNKS {
            let at = ChunkPos::new(x, y);
            let near = [(-1, 0), (1, 0), (0, -1), (0, 1)].map(|(x, y)| generator.column(at.offset(x, y)));
            let column = generator.column(at);
            let flags = hidden(&column, near.each_ref().map(Some));
            let flags: Vec<u8> = flags.iter().flat_map(|line| line.to_le_bytes()).collect();
            found += &format!("{seed} {x},{y} {:016x} {:016x}\n", digest(&column), xxh3_64(&flags));
        }
    }
    let wanted = include_str!("vectors/generated.txt");
    assert!(found == wanted, "the generator has changed; it gives:\n{found}");
}

#[test]
#[ignore = "bench"]
fn bench_worldgen() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let regions: Vec<Vec<ChunkPos>> =
        (-3..3).flat_map(|x| (-2..2).map(move |y| RegionPos::new(x, y).chunks().collect())).collect();
    let count: usize = regions.iter().map(Vec::len).sum();
    let (mut together, mut alone, mut lone) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..5 {
        let generator = Generator::new(seed);
        let made = |regions: &[Vec<ChunkPos>]| {
            let columns = regions.iter().flat_map(|region| generator.columns(region));
            columns.map(|column| column.encode().len()).sum::<usize>()
        };
        let begun = Instant::now();
        thread::scope(|scope| {
            for part in regions.chunks(regions.len().div_ceil(cores)) {
                scope.spawn(|| assert!(made(part) > 0));
            }
        });
        together.push(count as f64 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        assert!(made(&regions) > 0);
        alone.push(count as f64 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        assert!(regions.iter().map(|region| generator.column(region[0]).encode().len()).sum::<usize>() > 0);
        lone.push(begun.elapsed().as_secs_f64() * 1e6 / regions.len() as f64);
    }
    told("worldgen.chunks_per_s_core", "chunks/s", alone);
    told("worldgen.lone_chunk", "us", lone);
    println!("{cores} cores");
    told("worldgen.chunks_per_s", "chunks/s", together);
}

fn told(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("figure {name} {middle:.0} {unit} (min {low:.0} max {high:.0}, {} runs)", values.len());
}
