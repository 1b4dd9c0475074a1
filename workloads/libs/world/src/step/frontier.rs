//! Chunks beyond the first radius: made when an entity comes near, by the owner of their region. Knows the generator.
//!
//! A chunk is made in a tick when, at the tick before, an entity stood within [`NEAR`] chunks of it. That is a rule about the
//! committed world: whether the entity's territory knows the chunk, or asks twice, makes no difference to a byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fortia_proto::tick::v1 as pb;
use fortia_vec::{ChunkPos, RegionPos};

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
    first: u32,
    /// Makes the others; without it there are none.
    generator: Option<Arc<Generator>>,
    /// Chunks into which an entity came, and whose surroundings have not been looked at since.
    entered: BTreeSet<ChunkPos>,
    /// Chunks that were asked for: they are there by now.
    asked: BTreeSet<ChunkPos>,
    /// Chunks made in this tick; nobody sees them before the next.
    made: BTreeMap<ChunkPos, Column>,
}

impl Frontier {
    pub(super) fn new(first: u32) -> Frontier {
        Frontier { first, ..Frontier::default() }
    }

    /// An entity has come into a chunk.
    pub(super) fn enter(&mut self, at: ChunkPos) {
        // Where all around is made already there is nothing to look at.
        let inland = self.first.checked_sub(NEAR as u32).is_some_and(|inland| at.is_within(inland));
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
        self.frontier = Frontier { generator: Some(generator), ..Frontier::new(self.radius) };
        self.radius = limit.max(self.radius);
        self.missing_chunks = around(&self.regions, self.radius);
        self
    }

    /// Takes in that a missing chunk is not stored. `false` when it should be: chunks within the first radius are there
    /// from the beginning.
    #[must_use]
    pub fn absent(&mut self, at: ChunkPos) -> bool {
        !at.is_within(self.frontier.first) && self.missing_chunks.remove(&at)
    }

    /// In stage observe, first of all: asks for the chunks near entities.
    pub(super) fn approach(&mut self) -> Vec<pb::Letter> {
        let mut outbox = Vec::new();
        for at in std::mem::take(&mut self.frontier.entered) {
            // Who only passed through during the last tick was not there at its end.
            if self.columns.get(&at).is_none_or(|column| column.entities().is_empty()) {
                continue;
            }
            for near in (-NEAR..=NEAR).flat_map(|x| (-NEAR..=NEAR).map(move |y| at.offset(x, y))) {
                let may_lack = near.is_within(self.radius) && !near.is_within(self.frontier.first);
                if may_lack && !self.columns.contains_key(&near) && self.frontier.asked.insert(near) {
                    let kind = pb::letter::Kind::Approached(wire::chunk_pos(near));
                    outbox.push(letter(near.region(), kind));
                }
            }
        }
        outbox
    }

    /// In stage edit: makes a chunk of region `to`, unless it is there.
    pub(super) fn make(&mut self, to: RegionPos, at: ChunkPos) {
        let lacks = at.region() == to
            && self.owns(to)
            && at.is_within(self.radius)
            && !at.is_within(self.frontier.first)
            && !self.columns.contains_key(&at);
        let Frontier { generator: Some(generator), made, .. } = &mut self.frontier else { return };
        if lacks {
            made.entry(at).or_insert_with(|| generator.column(at));
        }
    }

    /// At the commit: what was made is there, and is stored like any changed chunk.
    pub(super) fn reveal(&mut self) {
        for (at, column) in std::mem::take(&mut self.frontier.made) {
            self.before.insert(at, column.clone());
            self.touched.insert(at);
            self.columns.insert(at, column);
        }
    }
}

/// The chunks of these regions within a radius, and one chunk around them.
pub(super) fn around(regions: &BTreeSet<RegionPos>, radius: u32) -> BTreeSet<ChunkPos> {
    let owned = regions.iter().flat_map(|region| region.chunks()).filter(|at| at.is_within(radius));
    let around = owned.flat_map(|at| at.neighbours().into_iter().chain([at]));
    around.filter(|at| at.is_within(radius)).collect()
}
