//! What a unit sees: the nine chunks around it as they were at the tick before. Knows no rule of who may do what.

use fortia_vec::{BlockPos, ChunkPos, LocalPos};

use super::Territory;
use crate::HEIGHT;
use crate::block::Block;
use crate::chunk::Column;
use crate::path::pillar::Pillar;
use crate::path::surface::Surface;

/// The blocks of a column as they were at the tick before: as they are now, but for those that changed since.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) column: &'a Column,
    /// Ascending by place.
    pub(super) before: &'a [(LocalPos, Block)],
}

impl Seen<'_> {
    fn get(&self, at: LocalPos) -> Block {
        match self.before.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(changed) => self.before[changed].1,
            Err(_) => self.column.get(at),
        }
    }

    pub(super) fn surface(&self) -> Surface {
        if self.before.is_empty() {
            return Surface::of(self.column);
        }
        let mut column = self.column.clone();
        for (at, block) in self.before {
            column.set(*at, *block);
        }
        Surface::of(&column)
    }
}

/// The nine chunks around a place, as they were at the tick before.
pub(super) struct View<'a> {
    low: ChunkPos,
    columns: [Option<Seen<'a>>; 9],
}

impl<'a> View<'a> {
    /// What an entity sees from there. Every chunk around a region with entities is loaded, or the stage has failed (see
    /// [`Territory::ready`]), so this does not depend on the territory.
    pub(super) fn new(territory: &'a Territory, centre: BlockPos) -> View<'a> {
        let low = centre.chunk().offset(-1, -1);
        let columns = std::array::from_fn(|i| {
            let at = low.offset(i as i32 / 3, i as i32 % 3);
            territory.seen(at)
        });
        View { low, columns }
    }

    fn column(&self, at: ChunkPos) -> Option<Seen<'a>> {
        let (x, y) = (at.x.checked_sub(self.low.x)?, at.y.checked_sub(self.low.y)?);
        if (0..3).contains(&x) && (0..3).contains(&y) { self.columns[(x * 3 + y) as usize] } else { None }
    }

    /// The block there, or `None` out of sight and outside the world. Below the world is bedrock, above it air.
    pub(super) fn block(&self, at: BlockPos) -> Option<Block> {
        let column = self.column(at.chunk())?;
        Some(match at.local() {
            Some(local) if local.z < HEIGHT => column.get(local),
            _ if at.z < 0 => Block::Bedrock,
            _ => Block::Air,
        })
    }

    /// The pillar of blocks at a place; rock out of sight.
    pub(super) fn pillar(&self, at: BlockPos) -> Pillar {
        let Some((column, local)) = self.column(at.chunk()).zip(BlockPos { z: 0, ..at }.local()) else {
            return Pillar::ROCK;
        };
        Pillar::of((0..HEIGHT).map(|z| column.get(LocalPos { z, ..local })))
    }
}

/// Whether a unit can be with its feet there: room for feet and head, and ground below or the top of water.
pub(super) fn is_free(block: impl Fn(BlockPos) -> Block, at: BlockPos) -> bool {
    let (feet, head) = (block(at), block(at.up()));
    let room = !feet.is_solid() && !head.is_solid();
    room && (block(at.down()).is_solid() || (feet == Block::Water && head != Block::Water))
}

/// Where a unit at `at` ends up: lifted onto what was put in its place, or fallen to what is left below it.
pub(super) fn settle(block: impl Fn(BlockPos) -> Block, at: BlockPos) -> BlockPos {
    let mut cell = BlockPos { z: at.z.clamp(0, i32::from(HEIGHT)), ..at };
    let room = |cell: BlockPos| !block(cell).is_solid() && !block(cell.up()).is_solid();
    if room(cell) {
        while cell.z > 0 && !is_free(&block, cell) {
            cell = cell.down();
        }
    } else {
        // Above the world is air, so this ends there at the latest.
        while cell.z < i32::from(HEIGHT) && !room(cell) {
            cell = cell.up();
        }
    }
    cell
}
