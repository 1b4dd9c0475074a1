//! The stages of a tick: what territories lack is loaded, their letters are carried. Knows who owns which region; nothing
//! of what is in a letter.

use std::collections::BTreeSet;

use fortia_proto::tick::v1::Letter;
use fortia_proto::world::v1 as pb;
use fortia_vec::RegionPos;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::step::Territory;
use fortia_world::wire;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Cluster;

impl Cluster {
    /// Runs the first stages of a tick; returns the letters for the next.
    pub(super) fn stages(
        &mut self,
        tick: u64,
        actions: &[(RegionPos, Vec<pb::Action>)],
        stages: usize,
    ) -> Vec<Vec<Letter>> {
        let actions = &self.located(tick - 1, actions);
        let mut outbox = self.each(|territory| territory.observe(tick, actions).unwrap());
        if self.table.is_some() {
            outbox = self.claim(tick, outbox);
        }
        let mut inboxes = self.route(outbox.concat());
        if stages < 2 {
            return inboxes;
        }
        let refusals = if self.table.is_some() { self.decide(tick, &mut inboxes) } else { Vec::new() };
        let mut outbox = self.each(|territory| territory.edit(tick, inboxes.remove(0)).unwrap());
        outbox.push(refusals);
        let mut inboxes = self.route(outbox.concat());
        if stages < 3 {
            return inboxes;
        }
        self.fill();
        let outbox = self.each(|territory| territory.shift(tick, inboxes.remove(0)).unwrap());
        self.route(outbox.concat())
    }

    pub(super) fn load(&mut self) {
        for territory in &mut self.territories {
            territory.refresh(&self.written.changed, &self.patches);
            for at in &self.written.changed {
                let known = territory.column(*at).map(Column::encode);
                assert!(known.is_none_or(|known| known == self.chunks[at]), "an old copy of {at} is kept");
            }
        }
        self.fill();
    }

    /// Loads what the territories lack, as it was committed.
    pub(super) fn fill(&mut self) {
        for territory in &mut self.territories {
            let mut missing = territory.missing_chunks();
            while !missing.is_empty() {
                for at in missing {
                    self.loaded += 1;
                    if !self.chunks.contains_key(&at) {
                        assert!(territory.absent(at), "chunk {at} is lost");
                        continue;
                    }
                    let stored =
                        self.stored.contains(&at).then(|| Column::decode(&self.chunks[&at]).unwrap());
                    territory.load(stored.unwrap_or_else(|| self.ground[&at].0.clone()));
                }
                missing = territory.missing_chunks();
            }
            for id in territory.missing_entities() {
                territory.load_entity(Entity::decode(&self.entities[&id]).unwrap());
            }
            assert!(territory.missing_entities().is_empty());
        }
    }

    pub(super) fn each(&mut self, stage: impl FnMut(&mut Territory) -> Vec<Letter>) -> Vec<Vec<Letter>> {
        self.territories.iter_mut().map(stage).collect()
    }

    /// Sorts letters into the inboxes of their territories, last first: the order they come in must not matter.
    pub(super) fn route(&self, mut letters: Vec<Letter>) -> Vec<Vec<Letter>> {
        letters.reverse();
        if let Some(seed) = self.shuffled {
            let by = seed ^ self.tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ letters.len() as u64;
            let mut mixed: Vec<(u64, Letter)> = letters
                .into_iter()
                .enumerate()
                .map(|(i, letter)| (xxh3_64_with_seed(&i.to_le_bytes(), by), letter))
                .collect();
            mixed.sort_by_key(|(by, _)| *by);
            letters = mixed.into_iter().map(|(_, letter)| letter).collect();
        }
        let of = |territory: &Territory| {
            let owned: BTreeSet<_> = territory.regions().collect();
            let mine = |letter: &&Letter| owned.contains(&wire::to_region_pos(&letter.to.unwrap()));
            letters.iter().filter(mine).cloned().collect()
        };
        self.territories.iter().map(of).collect()
    }

    /// Actions with the place where each unit is seen, as the game adds it.
    pub(super) fn located(
        &self,
        seen: u64,
        actions: &[(RegionPos, Vec<pb::Action>)],
    ) -> Vec<(RegionPos, Vec<pb::Action>)> {
        let mut actions = actions.to_vec();
        for action in actions.iter_mut().flat_map(|(_, actions)| actions) {
            if let Some(pb::action::Kind::Command(command)) = &mut action.kind
                && let (None, Some(unit)) = (&command.at, self.entities.get(&command.unit))
            {
                command.at = Some(wire::block_pos(Entity::decode(unit).unwrap().at));
                command.seen = seen;
            }
        }
        actions
    }
}
