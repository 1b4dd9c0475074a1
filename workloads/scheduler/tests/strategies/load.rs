//! The edits that are measured: which chunks, how many in each, which blocks. Pure: everybody who is measured makes the
//! same edits from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fortia_proto::tick::v1::{Edit, Letter, letter};
use fortia_ticker::Traffic;
use fortia_vec::{BlockPos, CHUNK, ChunkPos, RegionPos};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::wire;
use rayon::prelude::*;

/// Blocks a unit reaches sideways: so far from its block stands who asks for an edit.
const REACH: i32 = 2;
/// Heights in which blocks are edited; there is ground.
const HEIGHTS: std::ops::Range<u64> = 2..34;
/// Places of a chunk that are edited.
const PLACES: u64 = (CHUNK * CHUNK) as u64 * (HEIGHTS.end - HEIGHTS.start);

/// How edits are spread over a world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Chunks from -radius to radius exist.
    pub(crate) radius: u32,
    /// Chunks from -active to active are edited.
    pub(crate) active: u32,
    /// Edits in a tick, by edited chunk on the mean.
    pub(crate) edits: u32,
    /// Exponent of a Zipf distribution over the chunks; 0: every chunk has the same number of edits.
    pub(crate) zipf: f64,
}

/// One edit, as a unit would ask for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) at: BlockPos,
    from: BlockPos,
    id: u64,
}

impl Shape {
    /// Chunks of the world.
    pub(crate) fn chunks(&self) -> u64 {
        u64::from(2 * self.radius + 1).pow(2)
    }

    /// How many edits each chunk gets in every tick; chunks without any are left out.
    pub(crate) fn counts(&self) -> Vec<(ChunkPos, u32)> {
        let mut chunks: Vec<ChunkPos> = ChunkPos::within(self.active).collect();
        if self.zipf == 0.0 {
            return chunks.into_iter().map(|at| (at, self.edits)).collect();
        }
        // Which chunk is hot is chance, so that the hot ones are not neighbours.
        chunks.sort_by_key(|at| mix(at.x as u64, at.y as u64));
        let weight = |rank: usize| ((rank + 1) as f64).powf(-self.zipf);
        let all: f64 = (0..chunks.len()).map(weight).sum();
        let total = f64::from(self.edits) * chunks.len() as f64;
        let mut owed = 0.0;
        let count = |(rank, at): (usize, ChunkPos)| {
            // What rounding leaves over goes to the next.
            owed += weight(rank) / all * total;
            // A chunk has no more places.
            let count = owed.min(PLACES as f64) as u32;
            owed -= f64::from(count);
            (at, count)
        };
        chunks.into_iter().enumerate().map(count).filter(|(_, count)| *count > 0).collect()
    }

    /// The edits of one chunk in a tick, each in a place of its own: all of them are made.
    pub(crate) fn of_chunk(
        &self,
        tick: u64,
        at: ChunkPos,
        count: u32,
    ) -> impl Iterator<Item = Wanted> + use<> {
        let places = u64::from(count * 4).next_power_of_two().clamp(64, PLACES);
        let seed = mix(at.x as u64, at.y as u64);
        let (first, step) = (mix(seed, tick), mix(tick, seed) | 1);
        let radius = self.radius as i32;
        (0..u64::from(count)).map(move |i| {
            let chance = mix(seed ^ tick, i);
            // An odd step comes to each of them once.
            let place = first.wrapping_add(i.wrapping_mul(step)) % places * (PLACES / places);
            let side = CHUNK as u64;
            let (x, y) = ((place % side) as i32, (place / side % side) as i32);
            let z = HEIGHTS.start + place / (side * side) % (HEIGHTS.end - HEIGHTS.start);
            let block = BlockPos::new(at.x * CHUNK + x, at.y * CHUNK + y, z as i32);
            let near = |by: u64| ((chance >> by) % (REACH as u64 + 1)) as i32;
            let inside = |v: i32| v.clamp(-radius * CHUNK, radius * CHUNK + CHUNK - 1);
            let from = block.offset(near(20) - near(24), near(28) - near(32), 0);
            Wanted { at: block, from: BlockPos { x: inside(from.x), y: inside(from.y), ..from }, id: chance }
        })
    }

    /// The traffic of a ticker: the edits of those who stand in its regions, in no order of places, as units ask.
    pub(crate) fn traffic(self) -> Traffic {
        let counts = self.counts();
        let here = Mutex::<Here>::default();
        Arc::new(move |tick, territory, outbox| {
            let regions: Vec<RegionPos> = territory.regions().collect();
            let owned = |region: RegionPos| regions.binary_search(&region).is_ok();
            let near = {
                let mut here = here.lock().expect("one ticker");
                if here.0 != regions {
                    let seen =
                        |at: &ChunkPos| at.neighbours().into_iter().chain([*at]).any(|at| owned(at.region()));
                    let near = counts.iter().filter(|(at, _)| seen(at)).copied().collect();
                    *here = (regions.clone(), Arc::new(near));
                }
                here.1.clone()
            };
            let letters = |(at, count): &(ChunkPos, u32)| {
                let Some(column) = territory.column(*at) else { return Vec::new() };
                let (home, mine) = (at.region(), owned(at.region()));
                let stands = |wanted: &Wanted| match wanted.from.region() {
                    region if region == home => mine,
                    region => owned(region),
                };
                let wanted: Vec<Wanted> = self.of_chunk(tick, *at, *count).filter(stands).collect();
                // In one go: the processor waits for several places of the memory at once.
                let there: Vec<Block> = wanted.iter().map(|wanted| wanted.there(column)).collect();
                wanted.iter().zip(there).map(|(wanted, there)| wanted.letter(there)).collect::<Vec<Letter>>()
            };
            let of_chunks: Vec<Vec<Letter>> = near.par_iter().map(letters).collect();
            outbox.reserve(of_chunks.iter().map(Vec::len).sum());
            // One of each chunk, then the next of each.
            let mut rest: Vec<_> = of_chunks.into_iter().map(Vec::into_iter).collect();
            while !rest.is_empty() {
                rest.retain_mut(|letters| letters.next().map(|letter| outbox.push(letter)).is_some());
            }
        })
    }
}

/// A ticker's regions, and the chunks to be edited in or beside them, each with its number of edits.
type Here = (Vec<RegionPos>, Arc<Vec<(ChunkPos, u32)>>);

impl Wanted {
    /// The block that is seen there.
    fn there(&self, column: &Column) -> Block {
        self.at.local().map_or(Block::Air, |at| column.get(at))
    }

    fn letter(&self, there: Block) -> Letter {
        let edit = Edit {
            id: self.id,
            unit: self.id,
            from: Some(wire::block_pos(self.from)),
            at: Some(wire::block_pos(self.at)),
            expect: there.kind(),
            put: other(there).kind(),
            ..Edit::default()
        };
        Letter { to: Some(wire::region_pos(self.at.region())), kind: Some(letter::Kind::Edit(edit)) }
    }
}

/// What an edit puts in the place of a block.
pub(crate) fn other(block: Block) -> Block {
    if block == Block::Stone { Block::Dirt } else { Block::Stone }
}

/// The edits of a tick by chunk, for those who measure without a world.
pub(crate) fn by_chunk(shape: &Shape, tick: u64) -> BTreeMap<ChunkPos, Vec<BlockPos>> {
    let counts = shape.counts().into_iter();
    counts
        .map(|(at, count)| (at, shape.of_chunk(tick, at, count).map(|wanted| wanted.at).collect()))
        .collect()
}

/// Numbers without a pattern (SplitMix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
