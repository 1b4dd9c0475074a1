//! One tick of a part of the world, in stages: observe, edit, move, commit. Knows no ticker, no database and no clock.
//!
//! Invariant: what a stage does to a region depends only on that region and one chunk around it as they were at the tick
//! before, on the actions that name the region, and on the letters sent to it. Which regions share a territory makes no
//! difference to a single byte. Two rules keep it so: a letter is delivered at the next stage even to the region it came
//! from, and units look at the world as it was at the tick before (module `view`), not at what their territory edits.

use std::collections::{BTreeMap, BTreeSet};

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};

use crate::block::Block;
use crate::chunk::Column;
use crate::entity::Entity;
use crate::order::Order;
use crate::wire;

mod commit;
mod edit;
mod observe;
mod path;
mod rules;
mod shift;
mod view;

/// What a tick changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Columns to store, ascending: blocks or the list of entities changed.
    pub chunks: Vec<(ChunkPos, Vec<u8>)>,
    /// Entities to store, ascending by id.
    pub entities: Vec<(u64, Vec<u8>)>,
    /// Chunks in which blocks or entities changed, ascending.
    pub changed: Vec<ChunkPos>,
}

/// Some regions of a world with all that is in them, and the chunks around them.
///
/// Load what is missing, then run `observe`, `edit`, `shift` and `commit` for one tick after another. A territory whose
/// tick was given up must be thrown away and loaded anew.
#[derive(Debug, Clone)]
pub struct Territory {
    radius: u32,
    regions: BTreeSet<RegionPos>,
    columns: BTreeMap<ChunkPos, Column>,
    entities: BTreeMap<u64, Entity>,
    missing_chunks: BTreeSet<ChunkPos>,
    missing_entities: BTreeSet<u64>,
    /// Units with an order other than hold: the only ones a tick looks at.
    active: BTreeSet<u64>,
    /// Columns of the tick before, for those that changed since.
    before: BTreeMap<ChunkPos, Column>,
    /// Edits sent by units of this tick: where, and what to put there.
    pending: BTreeMap<u64, (BlockPos, Block)>,
    /// Units that got another order after they sent their edit.
    redirected: BTreeSet<u64>,
    /// Where blocks changed in this tick.
    edited: BTreeSet<BlockPos>,
    dirty_entities: BTreeSet<u64>,
    touched: BTreeSet<ChunkPos>,
}

impl Territory {
    /// A territory of these regions, still to be loaded, in a world of this radius (in chunks).
    pub fn new(regions: impl IntoIterator<Item = RegionPos>, radius: u32) -> Territory {
        let regions: BTreeSet<RegionPos> = regions.into_iter().collect();
        let owned = regions.iter().flat_map(|region| region.chunks()).filter(|at| at.is_within(radius));
        let around = owned.flat_map(|at| at.neighbours().into_iter().chain([at]));
        let missing_chunks = around.filter(|at| at.is_within(radius)).collect();
        Territory {
            radius,
            regions,
            missing_chunks,
            columns: BTreeMap::new(),
            entities: BTreeMap::new(),
            missing_entities: BTreeSet::new(),
            active: BTreeSet::new(),
            before: BTreeMap::new(),
            pending: BTreeMap::new(),
            redirected: BTreeSet::new(),
            edited: BTreeSet::new(),
            dirty_entities: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The regions this territory owns, ascending.
    pub fn regions(&self) -> impl Iterator<Item = RegionPos> + '_ {
        self.regions.iter().copied()
    }

    /// Chunks that must be loaded before the next tick, ascending: owned ones and one chunk around them.
    pub fn missing_chunks(&self) -> Vec<ChunkPos> {
        self.missing_chunks.iter().copied().collect()
    }

    /// Entities that must be loaded before the next tick, ascending: those listed in owned chunks.
    pub fn missing_entities(&self) -> Vec<u64> {
        self.missing_entities.iter().copied().collect()
    }

    /// Takes in a missing column as it was committed; others are ignored.
    pub fn load(&mut self, column: Column) {
        let at = column.at();
        if !self.missing_chunks.remove(&at) {
            return;
        }
        if self.owns(at.region()) {
            let unknown = column.entities().iter().filter(|id| !self.entities.contains_key(id));
            self.missing_entities.extend(unknown);
        }
        self.columns.insert(at, column);
    }

    /// Takes in a missing entity as it was committed; others are ignored.
    pub fn load_entity(&mut self, entity: Entity) {
        if self.missing_entities.remove(&entity.id) {
            self.remember(entity);
        }
    }

    /// Drops what is known of these chunks where others own them, so that they are missing and loaded anew.
    pub fn forget(&mut self, changed: &[ChunkPos]) {
        for at in changed {
            if !self.owns(at.region()) && self.columns.remove(at).is_some() {
                self.missing_chunks.insert(*at);
            }
        }
    }

    /// A loaded column, owned or around, as it is now.
    pub fn column(&self, at: ChunkPos) -> Option<&Column> {
        self.columns.get(&at)
    }

    /// A unit in this territory as it is now.
    pub fn entity(&self, id: u64) -> Option<&Entity> {
        self.entities.get(&id)
    }

    fn owns(&self, region: RegionPos) -> bool {
        self.regions.contains(&region)
    }

    /// The block there now; nothing outside the loaded chunks or the world's height.
    fn block(&self, at: BlockPos) -> Option<Block> {
        let local = at.local().filter(|local| local.z < crate::HEIGHT)?;
        Some(self.columns.get(&at.chunk())?.get(local))
    }

    /// An owned column to change; what it was at the tick before is kept.
    fn column_mut(&mut self, at: ChunkPos) -> Option<&mut Column> {
        if !self.regions.contains(&at.region()) {
            return None;
        }
        let column = self.columns.get_mut(&at)?;
        self.before.entry(at).or_insert_with(|| column.clone());
        self.touched.insert(at);
        Some(column)
    }

    /// Puts a unit into memory without marking it changed.
    fn remember(&mut self, unit: Entity) {
        if unit.order == Order::Hold {
            self.active.remove(&unit.id);
        } else {
            self.active.insert(unit.id);
        }
        self.entities.insert(unit.id, unit);
    }

    /// Takes a unit that stands in this region out of memory, to change it and [`Territory::stow`] it again.
    fn take(&mut self, id: u64, region: RegionPos) -> Option<Entity> {
        self.entities.get(&id).filter(|unit| unit.at.region() == region)?;
        self.active.remove(&id);
        self.entities.remove(&id)
    }

    /// Puts a changed unit back. `was` is where it stood, if it was in the territory before.
    fn stow(&mut self, unit: Entity, was: Option<BlockPos>) {
        let (id, here) = (unit.id, unit.at.chunk());
        let left = was.map(BlockPos::chunk).filter(|left| *left != here);
        if let Some(column) = left.and_then(|left| self.column_mut(left)) {
            column.set_entity(id, false);
        }
        if (left.is_some() || was.is_none())
            && let Some(column) = self.column_mut(here)
        {
            column.set_entity(id, true);
        }
        self.touched.insert(here);
        self.dirty_entities.insert(id);
        self.remember(unit);
    }
}

/// A letter to a region.
fn letter(to: RegionPos, kind: pb::letter::Kind) -> pb::Letter {
    pb::Letter { to: Some(wire::region_pos(to)), kind: Some(kind) }
}
