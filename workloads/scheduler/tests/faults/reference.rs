//! The world as it has to be: the pure tick, run by itself on one territory, with every version of everything. Knows
//! no server and no database.

use std::collections::BTreeMap;

use bytes::Bytes;
use fortia_proto::world::v1::Action;
use fortia_vec::{ChunkPos, RegionPos, regions_of};
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::step::Territory;

/// Ticks whose versions are kept at least.
const KEPT: u64 = 256;

/// Something stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Chunk(ChunkPos),
    Entity(u64),
}

/// The reference world and its past.
pub(crate) struct Reference {
    pub(crate) tick: u64,
    territory: Territory,
    /// Values by the tick that wrote them, ascending.
    versions: BTreeMap<Key, Vec<(u64, Bytes)>>,
}

impl Reference {
    /// The world as it was generated.
    pub(crate) fn new(radius: u32, chunks: Vec<(ChunkPos, Bytes)>) -> Reference {
        let mut territory = Territory::new(regions_of(radius), radius);
        for (_, bytes) in &chunks {
            territory.load(Column::decode(bytes).expect("a column"));
        }
        assert!(territory.missing_chunks().is_empty() && territory.missing_entities().is_empty());
        let versions = chunks.into_iter().map(|(at, bytes)| (Key::Chunk(at), vec![(0, bytes)])).collect();
        Reference { tick: 0, territory, versions }
    }

    /// Runs the next tick; returns the chunks it changed.
    pub(crate) fn step(&mut self, actions: &[(RegionPos, Vec<Action>)]) -> Vec<ChunkPos> {
        self.tick += 1;
        let (tick, territory) = (self.tick, &mut self.territory);
        let letters = territory.observe(tick, actions).expect("stage observe");
        let letters = territory.edit(tick, letters).expect("stage edit");
        let letters = territory.shift(tick, letters).expect("stage move");
        let changes = territory.commit(tick, letters).expect("the commit");
        let chunks = changes.columns.iter().map(|column| (Key::Chunk(column.at()), column.encode()));
        let entities = changes.entities.into_iter().map(|(id, bytes)| (Key::Entity(id), bytes));
        // Empty: it is not there any more.
        let gone = changes.gone.into_iter().map(|(_, id)| (Key::Entity(id), Vec::new()));
        for (key, bytes) in chunks.chain(entities).chain(gone) {
            let versions = self.versions.entry(key).or_default();
            versions.push((tick, Bytes::from(bytes)));
            let old = versions.iter().filter(|(at, _)| at + KEPT < tick).count();
            versions.drain(..old.saturating_sub(1));
        }
        changes.changed
    }

    /// What a tick left there; none where there was nothing.
    pub(crate) fn as_of(&self, tick: u64, key: Key) -> Option<&Bytes> {
        let versions = self.versions.get(&key)?;
        let (_, value) = versions.iter().rev().find(|(at, _)| *at <= tick)?;
        (!value.is_empty()).then_some(value)
    }

    /// The units that are there now.
    pub(crate) fn units(&self) -> Vec<Entity> {
        let keys = self.versions.keys().filter(|key| matches!(key, Key::Entity(_)));
        keys.filter_map(|key| self.as_of(self.tick, *key))
            .map(|bytes| Entity::decode(bytes).expect("an entity"))
            .collect()
    }

    /// A column as it is now.
    pub(crate) fn column(&self, at: ChunkPos) -> Option<&Column> {
        self.territory.column(at)
    }
}
