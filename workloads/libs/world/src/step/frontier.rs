//! Chunks beyond the first radius: made when an entity comes near, by the owner of their region. Knows the generator.
//!
//! A chunk is made in a tick when, at the tick before, an entity stood within [`NEAR`] chunks of it. That is a rule about the
//! committed world: whether the entity's territory knows the chunk, or asks twice, makes no difference to a byte.
//!
//! Who loads a territory looks for what was made from chunk to chunk, not at every place where one could be: that costs
//! what was made, however far the world may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fortia_proto::tick::v1 as pb;
use fortia_vec::{ChunkPos, REGION, RegionPos};

use super::{Territory, letter};
use crate::chunk::Column;
use crate::generate::Generator;
use crate::wire;

/// Chunks around an entity that are made. Entities see one chunk far: nobody ever sees the edge of what is made.
const NEAR: i32 = 2;

/// What a territory knows of the chunks beyond the first radius.
#[derive(Debug, Clone, Default)]
pub(super) struct Frontier {
    /// Chunks within it were made before the first tick.
    radius: u32,
    /// Makes the others; without it there are none.
    generator: Option<Arc<Generator>>,
    /// Chunks into which an entity came, and whose surroundings have not been looked at since.
    entered: BTreeSet<ChunkPos>,
    /// Chunks that were asked for: they are there by now.
    asked: BTreeSet<ChunkPos>,
    /// While the territory is loaded: chunks beyond the first radius that were looked for.
    sought: Option<BTreeSet<ChunkPos>>,
    /// Chunks made in this tick; nobody sees them before the next.
    made: BTreeMap<ChunkPos, Column>,
}

impl Frontier {
    pub(super) fn new(radius: u32) -> Frontier {
        Frontier { radius, ..Frontier::default() }
    }

    /// An entity has come into a chunk.
    pub(super) fn enter(&mut self, at: ChunkPos) {
        // Where all around is made already there is nothing to look at.
        let inland = self.radius.checked_sub(NEAR as u32).is_some_and(|inland| at.is_within(inland));
        if self.generator.is_some() && !inland {
            self.entered.insert(at);
        }
    }
}

impl Territory {
    /// Lets the world grow to `limit` chunks when entities come near its edge: chunks beyond the radius may be absent
    /// until then. To be called before anything is loaded.
    #[must_use]
    pub fn growing(mut self, generator: Arc<Generator>, limit: u32) -> Territory {
        self.limit = limit.max(self.frontier.radius);
        self.frontier.generator = Some(generator);
        self.seek();
        self
    }

    /// Everything in the regions is missing, and around those in which somebody is, but for what is known. In a world that
    /// grows also what must be looked at to find what was made.
    pub(super) fn seek(&mut self) {
        let known = &self.columns;
        let unknown = |at: &ChunkPos| !known.contains_key(at);
        let around = around(&self.regions, self.frontier.radius).into_iter();
        let (owned, beside): (Vec<ChunkPos>, _) = around.partition(|at| self.owns(at.region()));
        self.missing_chunks = owned.into_iter().filter(unknown).collect();
        if self.frontier.generator.is_some() {
            let beyond = |at: &ChunkPos| at.is_within(self.limit) && !at.is_within(self.frontier.radius);
            let lookouts: BTreeSet<ChunkPos> = lookouts(&self.regions, self.limit).filter(beyond).collect();
            self.missing_chunks.extend(lookouts.iter().copied().filter(unknown));
            self.frontier.sought = Some(lookouts);
            let known: Vec<ChunkPos> = self.columns.keys().copied().collect();
            // What is beside the regions within the first radius is there without being loaded.
            known.into_iter().chain(beside).for_each(|at| self.spread(at));
        }
        let inhabited: Vec<RegionPos> = self.inhabited.keys().copied().collect();
        inhabited.into_iter().for_each(|region| self.surround(region));
    }

    /// Takes in that a missing chunk is not stored. `false` when it should be: chunks within the first radius are there
    /// from the beginning.
    #[must_use]
    pub fn absent(&mut self, at: ChunkPos) -> bool {
        !at.is_within(self.frontier.radius) && self.missing_chunks.remove(&at)
    }

    /// In stage observe, first of all: asks for the chunks near entities.
    pub(super) fn approach(&mut self) -> Vec<pb::Letter> {
        self.frontier.sought = None;
        let mut outbox = Vec::new();
        for at in std::mem::take(&mut self.frontier.entered) {
            // Who only passed through during the last tick was not there at its end.
            if self.columns.get(&at).is_none_or(|column| column.entities().is_empty()) {
                continue;
            }
            for near in (-NEAR..=NEAR).flat_map(|x| (-NEAR..=NEAR).map(move |y| at.offset(x, y))) {
                let may_lack = near.is_within(self.limit) && !near.is_within(self.frontier.radius);
                if may_lack && !self.columns.contains_key(&near) && self.frontier.asked.insert(near) {
                    let kind = pb::letter::Kind::Approached(wire::chunk_pos(near));
                    outbox.push(letter(near.region(), kind));
                }
            }
        }
        outbox
    }

    /// While the territory is loaded: where a chunk is there, those beside it may be.
    pub(super) fn spread(&mut self, at: ChunkPos) {
        let Some(mut sought) = self.frontier.sought.take() else { return };
        for near in at.neighbours() {
            let may_be = near.is_within(self.limit) && !near.is_within(self.frontier.radius);
            if may_be && self.borders(near) && sought.insert(near) && !self.columns.contains_key(&near) {
                self.missing_chunks.insert(near);
            }
        }
        self.frontier.sought = Some(sought);
    }

    /// Whether the chunk is in one of the regions or beside one.
    pub(super) fn borders(&self, at: ChunkPos) -> bool {
        self.owns(at.region()) || at.neighbours().into_iter().any(|near| self.owns(near.region()))
    }

    /// In stage edit: makes a chunk of region `to`, unless it is there.
    pub(super) fn make(&mut self, to: RegionPos, at: ChunkPos) {
        let lacks = at.region() == to
            && self.owns(to)
            && at.is_within(self.limit)
            && !at.is_within(self.frontier.radius)
            && !self.columns.contains_key(&at);
        let Frontier { generator: Some(generator), made, .. } = &mut self.frontier else { return };
        if lacks {
            made.entry(at).or_insert_with(|| generator.column(at));
        }
    }

    /// At the commit: what was made is there, and is stored like any changed chunk.
    pub(super) fn reveal(&mut self) {
        for (at, column) in std::mem::take(&mut self.frontier.made) {
            self.before.insert(at, Vec::new());
            self.columns.insert(at, column);
        }
    }
}

/// The chunks of these regions within a radius, and one chunk around them.
fn around(regions: &BTreeSet<RegionPos>, radius: u32) -> BTreeSet<ChunkPos> {
    let radius = i32::try_from(radius).unwrap_or(i32::MAX);
    let along = |first: i32| (first - 1).max(-radius)..=(first + REGION).min(radius);
    let chunks = regions.iter().flat_map(|region| {
        let first = region.origin();
        let all = along(first.x).flat_map(move |x| along(first.y).map(move |y| ChunkPos::new(x, y)));
        // What another one owns comes with that.
        all.filter(|at| at.region() == *region || !regions.contains(&at.region()))
    });
    chunks.collect()
}

/// Chunks of which at least one is there when any chunk is there that is not connected, within these regions and one
/// chunk around them, to those of the first radius.
///
/// Chunks are made in squares of five around each chunk an entity stands in, and entities walk. Who comes into this part of
/// the world from another comes over the line of chunks around the regions, and what it left there, or beside it, has
/// five chunks in a row along that line, or ends at its corner.
fn lookouts(regions: &BTreeSet<RegionPos>, limit: u32) -> impl Iterator<Item = ChunkPos> + '_ {
    let side = i32::try_from(limit).unwrap_or(i32::MAX);
    let around = |region: RegionPos| region.neighbours().into_iter().map(move |next| (region, next));
    let open = regions.iter().flat_map(move |region| around(*region));
    let open = open.filter(move |(_, next)| next.is_within(limit) && !regions.contains(next));
    open.flat_map(move |(region, next)| {
        let along = |from: i32, step: i32| match step {
            0 => vec![from - 1, from + REGION / 2 - 1, from + REGION],
            -1 => vec![from - 1],
            _ => vec![from + REGION],
        };
        let first = region.origin();
        let (xs, ys) = (along(first.x, next.x - region.x), along(first.y, next.y - region.y));
        let line: Vec<ChunkPos> = xs.iter().flat_map(|x| ys.iter().map(|y| ChunkPos::new(*x, *y))).collect();
        line.into_iter().map(move |at| ChunkPos::new(at.x.clamp(-side, side), at.y.clamp(-side, side)))
    })
}
