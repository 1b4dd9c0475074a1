//! The halo: chunks of others, one around the regions of a territory. Knows in which regions somebody is, not what they
//! look at.
//!
//! Only entities look at chunks of others: each at those within one chunk of its region. So around a region in which
//! nobody is, nothing is needed. What is known there is kept as it is by patches of those who change it, or dropped when
//! there are none. When somebody appears in such a region, what is unknown around it is missing from that moment on;
//! stages observe and move, the only ones in which entities look around, fail while anything is missing. So no stage ever
//! takes what is not loaded for what is not there.
//!
//! Invariant: a loaded chunk of others is as it was committed; around a region in which somebody is, all that there are
//! are loaded, or missing.

use std::collections::HashMap;

use fortia_proto::tick::v1 as pb;
use fortia_vec::{ChunkPos, REGION, RegionPos};

use super::{StepError, Territory, patch};
use crate::wire;

impl Territory {
    /// Takes in which chunks the last tick changed, or made, and what is told of them. Others' of which nothing is told are
    /// no longer known, and loaded anew where somebody may look at them.
    pub fn refresh(&mut self, changed: &[ChunkPos], patches: &[pb::Patch]) {
        let told = patches.iter().filter_map(|patch| Some((wire::to_chunk_pos(patch.at.as_ref()?), patch)));
        let told: HashMap<ChunkPos, &pb::Patch> = told.collect();
        for at in changed {
            if self.owns(at.region()) {
                continue;
            }
            let Some(column) = self.columns.get_mut(at) else {
                self.need(*at);
                continue;
            };
            self.ways.stale(*at);
            if told.get(at).is_none_or(|patch| !patch::apply(patch, column)) {
                self.columns.remove(at);
                self.need(*at);
            }
        }
    }

    /// A chunk of others is not known: it is missing where somebody may look at it.
    fn need(&mut self, at: ChunkPos) {
        if self.is_watched(at) {
            self.missing_chunks.insert(at);
        }
    }

    /// Puts an entity into the list of an owned chunk, or takes it out. Returns whether the chunk is there.
    pub(super) fn list(&mut self, at: ChunkPos, id: u64, present: bool) -> bool {
        let Some(column) = self.column_mut(at) else { return false };
        if column.set_entity(id, present) {
            match present {
                true => self.people(at.region(), 1),
                false => self.leave(at.region()),
            }
        }
        true
    }

    /// So many entities more are in an owned region. With the first, what is around it is needed.
    pub(super) fn people(&mut self, region: RegionPos, more: usize) {
        if more > 0 {
            let there = self.inhabited.entry(region).or_default();
            *there += more;
            if *there == more {
                self.surround(region);
            }
        }
    }

    fn leave(&mut self, region: RegionPos) {
        if let Some(there) = self.inhabited.get_mut(&region) {
            *there -= 1;
            if *there == 0 {
                self.inhabited.remove(&region);
            }
        }
    }

    /// What is not known around a region is missing. Beyond the first radius it may turn out not to be there.
    pub(super) fn surround(&mut self, region: RegionPos) {
        let ring = ring(region).filter(|at| at.is_within(self.limit) && !self.owns(at.region()));
        let unknown: Vec<ChunkPos> = ring.filter(|at| !self.columns.contains_key(at)).collect();
        self.missing_chunks.extend(unknown);
    }

    /// Whether somebody is in an owned region beside the chunk.
    fn is_watched(&self, at: ChunkPos) -> bool {
        at.neighbours().into_iter().any(|near| self.inhabited.contains_key(&near.region()))
    }

    /// At the beginning of a stage in which entities look around.
    pub(super) fn ready(&self) -> Result<(), StepError> {
        self.missing_chunks.first().map_or(Ok(()), |at| Err(StepError::NotLoaded(*at)))
    }
}

/// The chunks around a region, that are not in it.
fn ring(region: RegionPos) -> impl Iterator<Item = ChunkPos> {
    let first = region.origin();
    let all = (-1..=REGION).flat_map(move |x| (-1..=REGION).map(move |y| first.offset(x, y)));
    all.filter(move |at| at.region() != region)
}
