//! The strategy `Lock`: edits as claims in a table, as the shards keep it. Knows claims and bids; nothing of letters but
//! that they hold them.

use std::collections::BTreeMap;

use fortia_proto::tick::v1::Letter;
use fortia_vec::ChunkPos;
use fortia_world::entity::Entity;
use fortia_world::step::lock::{Bids, RANK, Won, read_claim};

use super::Cluster;

impl Cluster {
    /// Edits become claims; who comes first differs from tick to tick.
    pub(super) fn claim(&mut self, tick: u64, mut outboxes: Vec<Vec<Letter>>) -> Vec<Vec<Letter>> {
        let Cluster { territories, entities, table, epoch, conflicts, .. } = self;
        self.bids = outboxes.iter_mut().map(Bids::of).collect();
        let count = territories.len();
        for i in (0..count).map(|i| (i + tick as usize) % count) {
            let (territory, bids) = (&territories[i], &mut self.bids[i]);
            let strangers = bids.strangers(territory).unwrap().into_iter();
            let strangers: Vec<Entity> =
                strangers.map(|id| Entity::decode(&entities[&id]).unwrap()).collect();
            let claims = bids.claims(territory, &strangers);
            outboxes[i].extend(Bids::notices(&claims));
            for (at, claims) in claims {
                let of_chunk = table.as_mut().unwrap().entry(at).or_default();
                if of_chunk.0 != (tick, *epoch) {
                    *of_chunk = ((tick, *epoch), BTreeMap::new());
                }
                for (block, claim) in claims {
                    let held = of_chunk.1.get(&block);
                    *conflicts += u64::from(held.is_some());
                    if held.is_none_or(|held| claim[..RANK] < held[..RANK]) {
                        of_chunk.1.insert(block, claim);
                    }
                }
            }
        }
        outboxes
    }

    /// Claims become edits, and refusals, which are returned.
    pub(super) fn decide(&mut self, tick: u64, inboxes: &mut [Vec<Letter>]) -> Vec<Letter> {
        let mut refusals = Vec::new();
        let table = self.table.as_ref().unwrap();
        for ((territory, bids), inbox) in self.territories.iter().zip(&self.bids).zip(inboxes) {
            let mut chunks = Bids::noticed(inbox);
            chunks.extend(bids.chunks());
            let won = |at: ChunkPos| {
                let claims =
                    table.get(&at).filter(|(of, _)| *of == (tick, self.epoch)).map(|(_, claims)| claims);
                let read = |(block, claim): (&u32, &Vec<u8>)| (*block, read_claim(&claim[RANK..]).unwrap());
                (at, claims.map(|claims| claims.iter().map(read).collect::<Won>()).unwrap_or_default())
            };
            let decided = bids.decide(territory, &chunks.into_iter().map(won).collect());
            inbox.extend(decided.edits);
            refusals.extend(decided.refusals);
        }
        refusals
    }
}
