//! The commit: units that crossed a border or came home arrive, and what changed is told. Knows no database.

use std::collections::BTreeMap;

use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1 as world;
use fortia_vec::{ChunkPos, RegionPos};

use super::{Changes, StepError, Territory};
use crate::entity::{Entity, Event};

impl Territory {
    /// Ends a tick: takes the letters of stage move and returns what changed, to be stored.
    ///
    /// # Errors
    /// As [`Territory::observe`].
    pub fn commit(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Result<Changes, StepError> {
        for letter in inbox {
            match self.open(letter, "commit")? {
                (to, pb::letter::Kind::Arrival(unit)) => self.arrive(tick, to, &unit)?,
                (to, pb::letter::Kind::Credit(credit)) => self.credit(to, &credit),
                (to, _) => return Err(StepError::Letter(to, "commit")),
            }
        }
        self.reveal();
        let gone = self.decay(tick);
        let columns = self.before.keys().filter_map(|at| self.columns.get(at).cloned()).collect();
        let units = std::mem::take(&mut self.dirty_entities);
        let dead = std::mem::take(&mut self.buried).into_iter().map(|dead| (dead.id, dead.encode()));
        let mut entities: BTreeMap<u64, Vec<u8>> = dead.collect();
        entities.extend(units.iter().filter_map(|id| Some((*id, self.entities.get(id)?.encode()))));
        let born = std::mem::take(&mut self.born).into_iter().collect();
        let touched = std::mem::take(&mut self.touched).into_iter();
        let mut changed: Vec<ChunkPos> = touched.chain(self.before.keys().copied()).collect();
        changed.sort_unstable();
        changed.dedup();
        let patches = self.patches(&changed);
        self.before.clear();
        self.woken.clear();
        self.pending.clear();
        self.redirected.clear();
        self.sound(Changes {
            columns,
            entities: entities.into_iter().collect(),
            born,
            gone,
            changed,
            patches,
        })
    }

    fn arrive(&mut self, tick: u64, to: RegionPos, unit: &world::Entity) -> Result<(), StepError> {
        let mut unit = Entity::from_proto(unit).map_err(|error| StepError::Arrival(to, error))?;
        if unit.at.region() != to {
            return Err(StepError::Astray { id: unit.id, at: unit.at, to });
        }
        if unit.due.is_some_and(|due| due.event == Event::Revived && due.tick <= tick) {
            self.revive(tick, &mut unit);
        }
        unit.at = self.settled(unit.at);
        self.stow(unit, None);
        Ok(())
    }
}
