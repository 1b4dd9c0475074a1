//! Graves: the chunk in which somebody died for good says until when its record is kept. Knows no fights.
//!
//! So the record goes in the tick the chunk's bytes name, whoever owns the chunk by then, and a tick that is run again
//! removes it again. Nothing but its owner's list names it: no chunk has listed it since its death.

use std::collections::BTreeMap;

use fortia_vec::ChunkPos;

use super::Territory;
use super::wheel::Wheel;
use crate::chunk::{Column, Grave};
use crate::entity::Entity;
use crate::rules;

/// The graves of a territory.
#[derive(Debug, Clone, Default)]
pub(super) struct Graves {
    wheel: Wheel,
    /// By who lies there: in which chunk.
    chunks: BTreeMap<u64, ChunkPos>,
}

impl Graves {
    /// Takes in the graves of an owned column.
    pub(super) fn read(&mut self, column: &Column) {
        for (id, grave) in column.graves() {
            self.wheel.set(grave.until, *id);
            self.chunks.insert(*id, column.at());
        }
    }
}

impl Territory {
    /// Notes until when the record of who has died in this tick is kept.
    pub(super) fn entomb(&mut self, tick: u64, dead: &Entity) {
        let grave = Grave { owner: dead.owner.clone(), until: tick + rules::REMEMBERED };
        self.graves.wheel.set(grave.until, dead.id);
        self.graves.chunks.insert(dead.id, dead.at.chunk());
        if let Some(column) = self.column_mut(dead.at.chunk()) {
            column.bury(dead.id, grave);
        }
    }

    /// At the commit: the owners and ids of those whose records go with this tick, ascending.
    pub(super) fn decay(&mut self, tick: u64) -> Vec<(String, u64)> {
        let mut gone = Vec::new();
        for id in self.graves.wheel.take(tick) {
            let chunk = self.graves.chunks.remove(&id);
            let grave = chunk.and_then(|at| self.column_mut(at)?.unearth(id));
            gone.extend(grave.map(|grave| (grave.owner, id)));
        }
        gone.sort();
        gone
    }
}
