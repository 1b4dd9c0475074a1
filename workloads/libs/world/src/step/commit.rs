//! The commit: units that crossed a border arrive, and what changed becomes bytes. Knows no database.

use fortia_proto::tick::v1 as pb;

use super::{Changes, Territory};
use crate::entity::Entity;
use crate::wire;

impl Territory {
    /// Ends a tick: takes the letters of stage move and returns what changed, to be stored.
    pub fn commit(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Changes {
        let _ = tick;
        for letter in inbox {
            let (Some(to), Some(pb::letter::Kind::Arrival(unit))) = (letter.to, letter.kind) else {
                continue;
            };
            let to = wire::to_region_pos(&to);
            let unit = Entity::from_proto(&unit).ok().filter(|unit| self.owns(to) && unit.at.region() == to);
            if let Some(mut unit) = unit {
                unit.at = self.settled(unit.at);
                self.stow(unit, None);
            }
        }
        let chunks =
            self.before.keys().filter_map(|at| Some((*at, self.columns.get(at)?.encode()))).collect();
        let units = std::mem::take(&mut self.dirty_entities);
        let entities = units.iter().filter_map(|id| Some((*id, self.entities.get(id)?.encode()))).collect();
        let changed = std::mem::take(&mut self.touched).into_iter().collect();
        self.before.clear();
        self.pending.clear();
        self.redirected.clear();
        self.edited.clear();
        Changes { chunks, entities, changed }
    }
}
