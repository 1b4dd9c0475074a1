//! The strategy `Lock` as a ticker carries it out: claims go to the shards at the end of stage observe, and come back as
//! edits and refusals when stage edit begins. Knows when and whom to ask; what claims mean is decided in `world::step::lock`.

use std::collections::{BTreeMap, BTreeSet};

use fortia_proto::tick::v1::Letter;
use fortia_rdb::world::World;
use fortia_vec::ChunkPos;
use fortia_world::entity::Entity;
use fortia_world::step::Territory;
use fortia_world::step::lock::{Bids, Won, read_claim};

use crate::frame::FrameError;
use crate::metrics::Metrics;

/// Chunks claimed or read in one go, so that a tick with very many does not wait too long for one answer.
const BATCH: usize = 1024;

/// What one tick claims here.
pub(crate) struct Locks<'a> {
    pub(crate) world: &'a World,
    pub(crate) metrics: &'a Metrics,
    pub(crate) epoch: u64,
    pub(crate) tick: u64,
}

/// Bids of the units here, and the chunks that were claimed here.
#[derive(Default)]
pub(crate) struct Claimed {
    bids: Bids,
    chunks: BTreeSet<ChunkPos>,
}

impl Locks<'_> {
    /// Turns the edits among the letters of stage observe into claims, and puts these into the shards.
    pub(crate) async fn claim(
        &self,
        territory: &Territory,
        outbox: &mut Vec<Letter>,
    ) -> Result<Claimed, FrameError> {
        let mut bids = Bids::of(outbox);
        let strangers = self.strangers(&bids.strangers(territory)?).await?;
        let claims = bids.claims(territory, &strangers);
        outbox.extend(Bids::notices(&claims));
        let chunks = claims.iter().map(|(at, _)| *at).collect();
        let of_chunk =
            |claims: Vec<(u32, Vec<u8>)>| claims.into_iter().map(|(block, claim)| (block, claim.into()));
        let claims: Vec<_> =
            claims.into_iter().map(|(at, claims)| (at, of_chunk(claims).collect())).collect();
        for batch in claims.chunks(BATCH) {
            let locked = self.world.lock(self.epoch, self.tick, batch).await?;
            self.metrics.locks.inc_by(locked.locks);
            self.metrics.lock_conflicts.inc_by(locked.conflicts);
        }
        Ok(Claimed { bids, chunks })
    }

    /// Reads what all have claimed, where it concerns this territory: edits go into the inbox of stage edit, refusals
    /// are returned for stage move. Also returns the chunks whose locks this territory removes.
    pub(crate) async fn decide(
        &self,
        territory: &Territory,
        claimed: &Claimed,
        inbox: &mut Vec<Letter>,
    ) -> Result<(Vec<Letter>, Vec<ChunkPos>), FrameError> {
        let noticed = Bids::noticed(inbox);
        let wished: BTreeSet<ChunkPos> = claimed.bids.chunks().collect();
        let chunks: Vec<ChunkPos> = noticed.union(&wished).copied().collect();
        if chunks.is_empty() {
            return Ok(Default::default());
        }
        let mut read = Vec::with_capacity(chunks.len());
        for batch in chunks.chunks(BATCH) {
            read.extend(self.world.claims(self.epoch, self.tick, batch).await?);
        }
        let mut table: BTreeMap<ChunkPos, Won> = BTreeMap::new();
        for (at, claims) in chunks.iter().zip(read) {
            // Only a shard that lost writes can have lost them; the tick is run again.
            if claims.is_none() && (noticed.contains(at) || claimed.chunks.contains(at)) {
                return Err(FrameError::ClaimsLost(*at, self.tick));
            }
            let won = claims.into_iter().flatten().map(|(block, claim)| Some((block, read_claim(&claim)?)));
            table.insert(*at, won.collect::<Option<Won>>().ok_or(FrameError::Claim(*at))?);
        }
        let decided = claimed.bids.decide(territory, &table);
        inbox.extend(decided.edits);
        Ok((decided.refusals, noticed.into_iter().collect()))
    }

    /// Units of other territories, as they were at the tick before.
    async fn strangers(&self, ids: &[u64]) -> Result<Vec<Entity>, FrameError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.tick.saturating_sub(1);
        let found = self.world.entities(before, ids).await?;
        // Their owner takes those off the list that have no record.
        let there = ids.iter().zip(found).filter_map(|(id, bytes)| Some((id, bytes?)));
        there
            .map(|(id, bytes)| Entity::decode(&bytes).map_err(|error| FrameError::Entity(*id, error)))
            .collect()
    }
}
