//! A reference cluster in memory: committed bytes in maps, several territories, letters carried by region.

// What a test stands on may end it: nothing here reads outside input.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use fortia_proto::tick::v1::Letter;
use fortia_proto::world::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::order::Order;
use fortia_world::step::{Changes, Territory};
use fortia_world::{generate, start, wire};

/// The committed world and those who tick it.
pub(crate) struct Cluster {
    pub(crate) chunks: BTreeMap<ChunkPos, Vec<u8>>,
    pub(crate) entities: BTreeMap<u64, Vec<u8>>,
    pub(crate) tick: u64,
    /// Bytes written by the last tick.
    pub(crate) written: Changes,
    radius: u32,
    territories: Vec<Territory>,
}

impl Cluster {
    /// A new world of this seed, ticked by one territory for each number in `owners`: region i goes to owner i.
    pub(crate) fn new(seed: u64, radius: u32, owners: impl Fn(usize) -> usize) -> Cluster {
        let generator = generate::Generator::new(seed);
        let chunks = ChunkPos::within(radius).map(|at| (at, generator.column(at).encode())).collect();
        let mut cluster = Cluster {
            chunks,
            entities: BTreeMap::new(),
            tick: 0,
            written: Changes::default(),
            radius,
            territories: Vec::new(),
        };
        cluster.assign(owners);
        cluster
    }

    /// Throws all memory away and gives the regions to new owners.
    pub(crate) fn assign(&mut self, owners: impl Fn(usize) -> usize) {
        let mut parts = BTreeMap::<usize, Vec<RegionPos>>::new();
        for (i, region) in regions_of(self.radius).into_iter().enumerate() {
            parts.entry(owners(i)).or_default().push(region);
        }
        self.territories = parts.into_values().map(|part| Territory::new(part, self.radius)).collect();
    }

    /// Runs one tick and commits it.
    pub(crate) fn tick(&mut self, actions: &[(RegionPos, Vec<pb::Action>)]) {
        self.tick += 1;
        let tick = self.tick;
        self.load();
        let outbox = self.each(|territory| territory.observe(tick, actions));
        let mut inboxes = self.route(outbox);
        let outbox = self.each(|territory| territory.edit(tick, inboxes.remove(0)));
        let mut inboxes = self.route(outbox);
        let outbox = self.each(|territory| territory.shift(tick, inboxes.remove(0)));
        let mut inboxes = self.route(outbox);
        let mut written = Changes::default();
        for territory in &mut self.territories {
            let changes = territory.commit(tick, inboxes.remove(0));
            written.chunks.extend(changes.chunks);
            written.entities.extend(changes.entities);
            written.changed.extend(changes.changed);
        }
        self.store(written);
    }

    fn load(&mut self) {
        for territory in &mut self.territories {
            territory.forget(&self.written.changed);
            for at in territory.missing_chunks() {
                territory.load(Column::decode(&self.chunks[&at]).unwrap());
            }
            for id in territory.missing_entities() {
                territory.load_entity(Entity::decode(&self.entities[&id]).unwrap());
            }
            assert!(territory.missing_chunks().is_empty() && territory.missing_entities().is_empty());
        }
    }

    fn each(&mut self, stage: impl FnMut(&mut Territory) -> Vec<Letter>) -> Vec<Letter> {
        self.territories.iter_mut().flat_map(stage).collect()
    }

    /// Sorts letters into the inboxes of their territories, last first: the order they come in must not matter.
    fn route(&self, mut letters: Vec<Letter>) -> Vec<Vec<Letter>> {
        letters.reverse();
        let of = |territory: &Territory| {
            let owned: BTreeSet<_> = territory.regions().collect();
            let mine = |letter: &&Letter| owned.contains(&wire::to_region_pos(&letter.to.unwrap()));
            letters.iter().filter(mine).cloned().collect()
        };
        self.territories.iter().map(of).collect()
    }

    fn store(&mut self, mut written: Changes) {
        written.chunks.sort();
        written.entities.sort();
        written.changed.sort();
        let once = |length: usize, unique: usize| assert_eq!(length, unique, "written twice: {written:?}");
        once(written.chunks.len(), written.chunks.iter().map(|(at, _)| at).collect::<BTreeSet<_>>().len());
        once(
            written.entities.len(),
            written.entities.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(),
        );
        self.chunks.extend(written.chunks.iter().cloned());
        self.entities.extend(written.entities.iter().cloned());
        self.written = written;
    }

    /// A committed unit.
    pub(crate) fn unit(&self, id: u64) -> Entity {
        Entity::decode(&self.entities[&id]).unwrap()
    }

    /// A committed block.
    pub(crate) fn block(&self, at: BlockPos) -> Block {
        Column::decode(&self.chunks[&at.chunk()]).unwrap().get(at.local().unwrap())
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
        assert_eq!(listed.len(), self.entities.len());
        for id in self.entities.keys() {
            let unit = self.unit(*id);
            assert_eq!(listed.get(id), Some(&unit.at.chunk()), "unit {id} at {}", unit.at);
            let block = |at: BlockPos| if at.z < 0 { Block::Bedrock } else { self.block(at) };
            assert!(!block(unit.at).is_solid() && !block(unit.at.up()).is_solid(), "{unit:?} is walled in");
            let floor = block(unit.at.down());
            assert!(
                floor.is_solid() || block(unit.at) == Block::Water,
                "{unit:?} hangs in the air over {floor:?}"
            );
        }
    }
}

/// The action that brings a player's first units into the world.
pub(crate) fn spawn(player: &str, at: BlockPos) -> (RegionPos, Vec<pb::Action>) {
    let units = start::unit_ids(player, start::UNITS);
    let spawn = pb::Spawn { owner: player.into(), at: Some(wire::block_pos(at)), units };
    let kind = Some(pb::action::Kind::Spawn(spawn));
    (at.region(), vec![pb::Action { id: 1, player: player.into(), kind }])
}

/// A command of a player to a unit, sent to a region.
pub(crate) fn command(id: u64, player: &str, unit: u64, order: Order) -> pb::Action {
    let command = pb::Command { unit, order: Some(order.to_proto()) };
    pb::Action { id, player: player.into(), kind: Some(pb::action::Kind::Command(command)) }
}
