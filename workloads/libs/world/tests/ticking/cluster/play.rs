//! What a test does to the world: orders, waits, and things put where a test wants them.

use fortia_vec::BlockPos;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::step::Territory;

use super::{Cluster, command};

impl Cluster {
    /// Sends an order of its owner's to where the unit is, and ticks.
    pub(crate) fn order(&mut self, unit: u64, order: Order) {
        let it = self.unit(unit);
        self.tick(&[(it.at.region(), vec![command(7, &it.owner, unit, order)])]);
        self.check();
    }

    /// Ticks until something has come true.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Cluster) -> bool) {
        for _ in 0..400 {
            if wanted(self) {
                return;
            }
            self.tick(&[]);
            self.check();
        }
        panic!("it never comes to that");
    }

    /// Ticks until the unit's order is over.
    pub(crate) fn finish(&mut self, unit: u64) -> Entity {
        self.until(|cluster| cluster.unit(unit).order == Order::Hold);
        self.unit(unit)
    }

    /// Puts goods into a unit's hands.
    pub(crate) fn hand(&mut self, unit: u64, goods: Goods) {
        let mut unit = self.unit(unit);
        unit.goods = goods;
        self.put(&unit);
    }

    /// Puts an entity into the committed world.
    pub(crate) fn put(&mut self, entity: &Entity) {
        let at = entity.at.chunk();
        let mut column = Column::decode(&self.chunks[&at]).unwrap();
        column.set_entity(entity.id, true);
        if let (Some(block), Some(local)) = (entity.kind.block(), entity.at.local()) {
            column.set(local, block);
        }
        self.chunks.insert(at, column.encode());
        self.stored.insert(at);
        self.entities.insert(entity.id, entity.encode());
        for territory in &mut self.territories {
            *territory = Territory::new(territory.regions(), self.radius);
        }
    }

    /// Takes an entity out of the list of the chunk it was in, for one that is put somewhere else.
    pub(crate) fn take_away(&mut self, id: u64, was: BlockPos) {
        let mut column = Column::decode(&self.chunks[&was.chunk()]).unwrap();
        column.set_entity(id, false);
        self.chunks.insert(was.chunk(), column.encode());
        self.stored.insert(was.chunk());
    }
}
