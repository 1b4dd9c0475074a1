//! Strays: entities of which chunks and records say different things. In a sound world there are none. After a loss that
//! somebody accepted, one shard may remember a tick that another forgot: then a record says where its entity is, and who has no
//! record is not there. A second list that names somebody does no harm. Knows lists and records, not what was lost.

use fortia_vec::ChunkPos;

use super::Territory;
use crate::entity::Entity;

impl Territory {
    /// A missing entity that has no record: it is taken off the list of whatever owned chunk names it.
    pub fn absent_entity(&mut self, id: u64) {
        if self.missing_entities.remove(&id) {
            for at in self.listed(id) {
                self.list(at, id, false);
            }
        }
    }

    /// Whether its own chunk, and no other of this territory, lists the entity.
    pub(super) fn is_stray(&self, entity: &Entity) -> bool {
        let at = entity.at.chunk();
        let own = self.columns.get(&at).filter(|_| self.owns(at.region()));
        own.is_none_or(|column| !column.entities().contains(&entity.id))
    }

    /// Puts an entity's lists right. Returns whether it is in this territory.
    pub(super) fn relist(&mut self, entity: &Entity) -> bool {
        let at = entity.at.chunk();
        for other in self.listed(entity.id).into_iter().filter(|other| *other != at) {
            self.list(other, entity.id, false);
        }
        self.list(at, entity.id, true)
    }

    /// Owned chunks that list this entity. Looks at all of them.
    fn listed(&self, id: u64) -> Vec<ChunkPos> {
        let lists = self.columns.values().filter(|column| column.entities().contains(&id));
        lists.map(|column| column.at()).filter(|at| self.owns(at.region())).collect()
    }
}
