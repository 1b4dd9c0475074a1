//! The land of region 0,0 and around, for tests of ways.

// What a test stands on may end it: nothing here reads outside input.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fortia_vec::{BlockPos, ChunkPos, LocalPos, RegionPos};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::generate::Generator;
use fortia_world::path::area::Area;
use fortia_world::path::pillar::Pillar;
use fortia_world::path::surface::Surface;

/// Of the world, in chunks: the area of region 0,0 is all inside it, and it goes on beyond.
pub(crate) const RADIUS: u32 = 12;

pub(crate) struct Ground {
    columns: BTreeMap<ChunkPos, Column>,
    surfaces: BTreeMap<ChunkPos, Arc<Surface>>,
}

impl Ground {
    pub(crate) fn new(seed: u64) -> Ground {
        let generator = Generator::new(seed);
        let mut ground = Ground { columns: BTreeMap::new(), surfaces: BTreeMap::new() };
        for at in (-1..9).flat_map(|x| (-1..9).map(move |y| ChunkPos::new(x, y))) {
            ground.lay(generator.column(at));
        }
        ground
    }

    pub(crate) fn lay(&mut self, column: Column) {
        self.surfaces.insert(column.at(), Arc::new(Surface::of(&column)));
        self.columns.insert(column.at(), column);
    }

    pub(crate) fn lift(&mut self, at: ChunkPos) -> Column {
        self.surfaces.remove(&at);
        self.columns.remove(&at).unwrap()
    }

    /// Where an area reads the land.
    pub(crate) fn land(&self) -> impl FnMut(ChunkPos) -> Option<Arc<Surface>> + '_ {
        |at| self.surfaces.get(&at).cloned()
    }

    /// As [`Ground::land`], with nothing prepared.
    pub(crate) fn raw(&self) -> impl FnMut(ChunkPos) -> Option<Arc<Surface>> + '_ {
        |at| self.columns.get(&at).map(|column| Arc::new(Surface::of(column)))
    }

    /// The area of region 0,0, all read.
    pub(crate) fn area(&self) -> Area {
        let mut area = Area::new(RegionPos::new(0, 0), RADIUS);
        area.size(&mut self.land());
        area
    }

    fn pillar(&self, x: i32, y: i32) -> Pillar {
        let at = BlockPos::new(x, y, 0);
        let local = at.local().unwrap();
        Pillar::of((0..HEIGHT).map(|z| self.columns[&at.chunk()].get(LocalPos { z, ..local })))
    }

    /// The highest cell there.
    pub(crate) fn top(&self, x: i32, y: i32) -> BlockPos {
        self.nearest(BlockPos::new(x, y, i32::from(HEIGHT)))
    }

    /// The lowest cell there.
    pub(crate) fn bottom(&self, x: i32, y: i32) -> BlockPos {
        self.nearest(BlockPos::new(x, y, 0))
    }

    /// The cell nearest to a height.
    pub(crate) fn nearest(&self, at: BlockPos) -> BlockPos {
        BlockPos { z: self.pillar(at.x, at.y).nearest(at.z).unwrap(), ..at }
    }

    /// A block deep in the rock, with nothing but rock around.
    pub(crate) fn solid(&self, x: i32, y: i32) -> Option<BlockPos> {
        let pillar = self.pillar(x, y);
        let rock = |z: i32| (z - 6..z + 6).all(|z| !pillar.is_free(z));
        let z = (8..64).rev().find(|z| rock(*z) && *z < self.top(x, y).z)?;
        Some(BlockPos::new(x, y, z))
    }

    pub(crate) fn put(&mut self, at: BlockPos, block: Block) {
        let Some(local) = at.local().filter(|local| (1..HEIGHT).contains(&local.z)) else { return };
        let mut column = self.columns[&at.chunk()].clone();
        column.set(local, block);
        self.lay(column);
    }
}
