//! New players and where new units stand. Knows the ground around a place, not why somebody appears there.

use fortia_proto::world::v1::Spawn;
use fortia_vec::{BlockPos, RegionPos};

use super::{Territory, view};
use crate::block::Block;
use crate::entity::{Entity, Kind};
use crate::{rules, start, wire};

/// Units one action may create.
const SPAWN_LIMIT: usize = 16;
/// How far from the ordered place new units may stand, in blocks.
const SPAWN_REACH: i32 = 3;

impl Territory {
    /// Stage edit: pitches a player's camp and creates the first units around it. The camp is the record that this was
    /// done: it stays where it is for ever, and a repeated spawn changes nothing.
    pub(super) fn spawn(&mut self, region: RegionPos, spawn: &Spawn) {
        let Some(at) = spawn.at.as_ref().map(wire::to_block_pos) else { return };
        let there = self.columns.contains_key(&at.chunk());
        if spawn.owner.is_empty() || at.region() != region || !there {
            return;
        }
        let id = start::camp_id(&spawn.owner);
        if self.entities.get(&id).is_some_and(|camp| camp.at.region() == region) {
            return;
        }
        let cells = self.landings(at);
        let here = cells.iter().copied().find(|cell| !self.is_occupied(*cell));
        let here = here.unwrap_or_else(|| self.settled(at));
        let mut camp = Entity::new(Kind::Camp, id, &spawn.owner, here, here);
        camp.goods = rules::FIRST_STOCK;
        self.put(here, Block::Camp);
        self.bear(camp);
        let mut cells = cells.into_iter().filter(|cell| *cell != here);
        for id in spawn.units.iter().take(SPAWN_LIMIT) {
            let cell = cells.next().unwrap_or_else(|| self.settled(at));
            self.bear(Entity::new(Kind::Handyman, *id, &spawn.owner, cell, here));
        }
    }

    /// Free dry cells of the same region near a place, nearest first; none on a roof.
    pub(super) fn landings(&self, at: BlockPos) -> Vec<BlockPos> {
        let near = -SPAWN_REACH..=SPAWN_REACH;
        let mut columns: Vec<(i32, i32)> =
            near.clone().flat_map(|x| near.clone().map(move |y| (x, y))).collect();
        columns.sort_by_key(|(x, y)| (x * x + y * y, *x, *y));
        let block = |at: BlockPos| self.solid_or_block(at);
        let cell = |(x, y): (i32, i32)| {
            let heights = [0, 1, -1, 2, -2, 3, -3].into_iter().map(|z| at.offset(x, y, z));
            let mut here = heights.filter(|cell| cell.region() == at.region());
            let dry = |cell: BlockPos| block(cell) != Block::Water && !block(cell.down()).is_building();
            here.find(|cell| view::is_free(block, *cell) && dry(*cell))
        };
        columns.into_iter().filter_map(cell).collect()
    }

    /// Where a unit there ends up now; see [`view::settle`].
    pub(super) fn settled(&self, at: BlockPos) -> BlockPos {
        view::settle(|at| self.solid_or_block(at), at)
    }

    /// The block there now; above the world air, and rock where nothing is known.
    fn solid_or_block(&self, at: BlockPos) -> Block {
        let above = at.z >= i32::from(crate::HEIGHT) && self.columns.contains_key(&at.chunk());
        self.block(at).unwrap_or(if above { Block::Air } else { Block::Bedrock })
    }
}
