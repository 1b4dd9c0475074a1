//! Looks at the committed world, and checks of what must be true of it after every tick.

use std::collections::{BTreeMap, BTreeSet};

use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::step::Territory;

use super::Cluster;

impl Cluster {
    /// A committed unit.
    pub(crate) fn unit(&self, id: u64) -> Entity {
        Entity::decode(&self.entities[&id]).unwrap()
    }

    /// A committed block.
    pub(crate) fn block(&self, at: BlockPos) -> Block {
        Column::decode(&self.chunks[&at.chunk()]).unwrap().get(at.local().unwrap())
    }

    /// The cell on top of all solid blocks there.
    pub(crate) fn surface(&self, x: i32, y: i32) -> BlockPos {
        let mut cell = BlockPos::new(x, y, i32::from(fortia_world::HEIGHT));
        while cell.z > 0 && !self.block(cell.down()).is_solid() {
            cell = cell.down();
        }
        cell
    }

    /// Whether a committed entity is dead for good.
    pub(crate) fn is_gone(&self, id: u64) -> bool {
        let it = self.unit(id);
        it.is_dead() && it.due.is_none()
    }

    /// How many flow fields the territories have made since they were assigned.
    pub(crate) fn fields_made(&self) -> u64 {
        self.territories.iter().map(Territory::fields_made).sum()
    }

    /// Checks that every unit is listed in the chunk it stands in and nowhere else, and stands where units can.
    pub(crate) fn check(&self) {
        let mut listed = BTreeMap::new();
        for bytes in self.chunks.values() {
            let column = Column::decode(bytes).unwrap();
            for id in column.entities() {
                assert_eq!(listed.insert(*id, column.at()), None, "unit {id} is listed twice");
            }
        }
        let there = |id: &&u64| !self.is_gone(**id);
        assert_eq!(listed.len(), self.entities.keys().filter(there).count());
        for id in self.entities.keys().filter(there) {
            let unit = self.unit(*id);
            assert_eq!(listed.get(id), Some(&unit.at.chunk()), "unit {id} at {}", unit.at);
            let block = |at: BlockPos| if at.z < 0 { Block::Bedrock } else { self.block(at) };
            if let Some(of) = unit.kind.block() {
                assert_eq!(block(unit.at), of, "{unit:?} is no building");
                continue;
            }
            assert!(!block(unit.at).is_solid() && !block(unit.at.up()).is_solid(), "{unit:?} is walled in");
            let floor = block(unit.at.down());
            assert!(
                floor.is_solid() || block(unit.at) == Block::Water,
                "{unit:?} hangs in the air over {floor:?}"
            );
        }
    }

    /// Checks that every territory knows all chunks there are in its regions, and beside those in which somebody is; and
    /// of what else it knows, no others than were committed.
    pub(crate) fn check_known(&mut self) {
        self.load();
        let entities = self.entities.keys().filter(|id| !self.is_gone(**id));
        let inhabited: BTreeSet<_> = entities.map(|id| self.unit(*id).at.region()).collect();
        for territory in &self.territories {
            let owned: BTreeSet<_> = territory.regions().collect();
            let watched = |at: ChunkPos| owned.contains(&at.region()) && inhabited.contains(&at.region());
            for (at, bytes) in &self.chunks {
                let needed = owned.contains(&at.region()) || at.neighbours().into_iter().any(watched);
                let known = territory.column(*at);
                assert!(known.is_some() || !needed, "chunk {at} is not known");
                assert!(known.is_none_or(|known| known.encode() == *bytes), "chunk {at} is old");
            }
        }
    }
}
