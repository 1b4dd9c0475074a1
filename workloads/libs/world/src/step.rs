//! One tick of a part of the world, in stages: observe, edit, move, commit. Knows no ticker, no database and no clock.
//!
//! Invariant: what a stage does to a region depends only on that region and one chunk around it as they were at the tick
//! before, on the actions that name the region, and on the letters sent to it. Which regions share a territory makes no
//! difference to a single byte. Two rules keep it so: a letter is delivered at the next stage even to the region it came
//! from, and units look at the world as it was at the tick before (module `view`), not at what their territory edits.

use std::collections::{BTreeMap, BTreeSet};

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, LocalPos, RegionPos};
use xxhash_rust::xxh3::xxh3_64;

use crate::block::Block;
use crate::chunk::Column;
use crate::entity::{Entity, Event};
use crate::goods::Goods;
use crate::path::Ways;
use crate::wire;
use view::Seen;

mod account;
mod commit;
mod edit;
mod error;
mod frontier;
mod graves;
mod halo;
pub mod lock;
mod observe;
mod outcome;
mod patch;
mod shift;
mod spawn;
mod stray;
mod strike;
mod task;
mod view;
mod wake;
mod walk;
mod wheel;

pub use error::StepError;
pub use walk::Effort;

/// What a tick changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Columns to store, ascending: blocks or the list of entities changed.
    pub columns: Vec<Column>,
    /// Entities to store, ascending by id.
    pub entities: Vec<(u64, Vec<u8>)>,
    /// New entities and their owners, ascending by owner.
    pub born: Vec<(String, u64)>,
    /// Owners and ids of those who died long ago and whose records go, ascending by owner.
    pub gone: Vec<(String, u64)>,
    /// Chunks in which blocks or entities changed, ascending.
    pub changed: Vec<ChunkPos>,
    /// What became of those of them that others may keep copies of, for [`Territory::refresh`].
    pub patches: Vec<pb::Patch>,
}

/// Some regions of a world with all that is in them, and the chunks around those in which somebody is.
///
/// Load what is missing, then run `observe`, `edit`, `shift` and `commit` for one tick after another; load what is missing
/// again before `shift`. A territory whose tick was given up, or in which a stage failed, must be thrown away and loaded
/// anew.
#[derive(Debug, Clone)]
pub struct Territory {
    /// The edge of the world, in chunks.
    limit: u32,
    /// What lies between the first radius and the edge.
    frontier: frontier::Frontier,
    regions: BTreeSet<RegionPos>,
    columns: BTreeMap<ChunkPos, Column>,
    entities: BTreeMap<u64, Entity>,
    missing_chunks: BTreeSet<ChunkPos>,
    missing_entities: BTreeSet<u64>,
    /// How many entities are listed in each region of this territory; none of which there are none.
    inhabited: BTreeMap<RegionPos, usize>,
    /// Those who have something to do: the only ones a tick looks at.
    active: BTreeSet<u64>,
    /// Those for whom something is due later.
    wheel: wheel::Wheel,
    /// Columns to store, and their blocks that changed in this tick, ascending, as they were at the tick before.
    before: BTreeMap<ChunkPos, Vec<(LocalPos, Block)>>,
    /// Whose time has come in this tick, for a later stage of it.
    woken: BTreeMap<u64, Event>,
    /// What was asked for in this tick, by whom.
    pending: BTreeMap<u64, Pending>,
    /// Units that got another order after they asked.
    redirected: BTreeSet<u64>,
    dirty_entities: BTreeSet<u64>,
    /// Who died for good in this tick.
    buried: Vec<Entity>,
    /// Who died for good and is remembered.
    graves: graves::Graves,
    /// The first thing that went wrong in the running stage.
    lost: Option<StepError>,
    /// Who is new in this tick, by owner.
    born: BTreeSet<(String, u64)>,
    /// Chunks in which entities changed, but not who is there.
    touched: BTreeSet<ChunkPos>,
    /// The land as walkers know it.
    ways: Ways,
    /// What walkers took in the last stage move.
    efforts: BTreeMap<RegionPos, Effort>,
}

/// What an entity asked for in a letter, whose answer comes at stage move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// To change this block into that.
    Edit { at: BlockPos, put: Block },
    /// To hit its target.
    Strike,
    /// To be given this much from its owner's stock.
    Pay(Goods),
    /// To unload.
    Unload,
    /// It has its answer.
    Answered,
}

impl Territory {
    /// A territory of these regions, still to be loaded, in a world of this radius (in chunks).
    pub fn new(regions: impl IntoIterator<Item = RegionPos>, radius: u32) -> Territory {
        let mut territory = Territory {
            limit: radius,
            frontier: frontier::Frontier::new(radius),
            regions: regions.into_iter().collect(),
            missing_chunks: BTreeSet::new(),
            columns: BTreeMap::new(),
            entities: BTreeMap::new(),
            missing_entities: BTreeSet::new(),
            inhabited: BTreeMap::new(),
            active: BTreeSet::new(),
            before: BTreeMap::new(),
            wheel: wheel::Wheel::default(),
            woken: BTreeMap::new(),
            pending: BTreeMap::new(),
            redirected: BTreeSet::new(),
            dirty_entities: BTreeSet::new(),
            buried: Vec::new(),
            graves: graves::Graves::default(),
            lost: None,
            born: BTreeSet::new(),
            touched: BTreeSet::new(),
            ways: Ways::default(),
            efforts: BTreeMap::new(),
        };
        territory.seek();
        territory
    }

    /// The regions this territory owns, ascending.
    pub fn regions(&self) -> impl Iterator<Item = RegionPos> + '_ {
        self.regions.iter().copied()
    }

    /// Chunks that must be loaded before the next tick, and before stage move, ascending: owned ones, and one chunk around
    /// regions in which somebody is. Loading some may show that others are missing.
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
            if !column.entities().is_empty() {
                self.frontier.enter(at);
            }
            self.people(at.region(), column.entities().len());
            self.graves.read(&column);
        }
        self.spread(at);
        self.ways.stale(at);
        self.columns.insert(at, column);
    }

    /// Takes in a missing entity as it was committed; others are ignored. Returns whether it is where it is listed; where it is
    /// not, its record is believed.
    pub fn load_entity(&mut self, entity: Entity) -> bool {
        if !self.missing_entities.remove(&entity.id) {
            return true;
        }
        let stray = self.is_stray(&entity);
        if !stray || self.relist(&entity) {
            self.remember(entity);
        }
        !stray
    }

    /// Owns other regions from the next tick on. What it knows of them it keeps, the rest is missing.
    pub fn reassign(&mut self, regions: impl IntoIterator<Item = RegionPos>) {
        self.regions = regions.into_iter().collect();
        let mut columns = std::mem::take(&mut self.columns);
        columns.retain(|at, _| self.borders(*at));
        self.columns = columns;
        self.entities.retain(|_, entity| self.regions.contains(&entity.at.region()));
        self.active.retain(|id| self.entities.contains_key(id));
        self.graves = graves::Graves::default();
        self.missing_entities.clear();
        self.inhabited.clear();
        let owned = self.columns.values().filter(|column| self.regions.contains(&column.at().region()));
        for column in owned {
            let unknown = column.entities().iter().filter(|id| !self.entities.contains_key(id));
            self.missing_entities.extend(unknown);
            if !column.entities().is_empty() {
                self.frontier.enter(column.at());
                *self.inhabited.entry(column.at().region()).or_default() += column.entities().len();
            }
            self.graves.read(column);
        }
        self.seek();
    }

    /// A loaded column, as it is now. Others' are loaded only around regions in which somebody is, or may be.
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

    /// The blocks of a column as they were at the tick before.
    fn seen(&self, at: ChunkPos) -> Option<Seen<'_>> {
        let before = self.before.get(&at).map_or(&[][..], |before| before);
        self.columns.get(&at).map(|column| Seen { column, before })
    }

    /// An owned column, to change who is there; blocks are changed by [`Territory::put`].
    fn column_mut(&mut self, at: ChunkPos) -> Option<&mut Column> {
        if !self.regions.contains(&at.region()) {
            return None;
        }
        let column = self.columns.get_mut(&at)?;
        self.before.entry(at).or_default();
        Some(column)
    }

    /// Changes a block of an owned column; what it was at the tick before is kept.
    fn put(&mut self, at: BlockPos, block: Block) {
        let Some((local, column)) = at.local().zip(self.column_mut(at.chunk())) else { return };
        let was = column.get(local);
        column.set(local, block);
        let before = self.before.entry(at.chunk()).or_default();
        if let Err(i) = before.binary_search_by_key(&local, |(at, _)| *at) {
            before.insert(i, (local, was));
        }
    }

    /// Puts a unit into memory without marking it changed.
    fn remember(&mut self, unit: Entity) {
        if unit.is_active() {
            self.active.insert(unit.id);
        } else {
            self.active.remove(&unit.id);
        }
        if let Some(due) = unit.due {
            self.wheel.set(due.tick, unit.id);
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
        if !self.owns(here.region()) || !self.columns.contains_key(&here) {
            self.lost.get_or_insert(StepError::NoChunk { id, at: unit.at });
        }
        let left = was.map(BlockPos::chunk).filter(|left| *left != here);
        // In before out: a region in which it is alone stays inhabited.
        if (left.is_some() || was.is_none()) && self.list(here, id, true) {
            self.frontier.enter(here);
        }
        if let Some(left) = left {
            self.list(left, id, false);
        }
        self.touched.insert(here);
        self.dirty_entities.insert(id);
        self.remember(unit);
    }

    /// Changes an entity, wherever in the territory it is.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entity)) {
        if let Some(mut entity) = self.entities.remove(&id) {
            let was = entity.at;
            change(&mut entity);
            self.stow(entity, Some(was));
        }
    }

    /// Puts a new entity where it is.
    fn bear(&mut self, entity: Entity) {
        self.born.insert((entity.owner.clone(), entity.id));
        self.stow(entity, None);
    }

    /// Takes an entity off the map and out of memory.
    fn withdraw(&mut self, id: u64) -> Option<Entity> {
        self.active.remove(&id);
        self.dirty_entities.remove(&id);
        let entity = self.entities.remove(&id)?;
        self.list(entity.at.chunk(), id, false);
        Some(entity)
    }

    /// In stage move: changes a unit and sends it to the region in which it is then.
    fn send(&mut self, id: u64, change: impl FnOnce(&mut Entity)) -> Option<pb::Letter> {
        let mut unit = self.withdraw(id)?;
        change(&mut unit);
        Some(letter(unit.at.region(), pb::letter::Kind::Arrival(Box::new(unit.to_proto()))))
    }
}

/// A letter to a region.
fn letter(to: RegionPos, kind: pb::letter::Kind) -> pb::Letter {
    pb::Letter { to: Some(wire::region_pos(to)), kind: Some(kind) }
}

/// The id of what a parent makes in a tick; never 0. Nobody makes two in one tick.
fn born(parent: u64, tick: u64) -> u64 {
    xxh3_64(&[parent.to_le_bytes(), tick.to_le_bytes()].concat()).max(1)
}
