//! What a ticker remembers from frame to frame, and whether that still is the world. Knows no shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use fortia_proto::tick::v1::{Frame, Letter, Stage};
use fortia_rdb::world::Info;
use fortia_vec::{ChunkPos, RegionPos};
use fortia_world::generate::Generator;
use fortia_world::step::Territory;
use fortia_world::wire::to_region_pos;

use crate::lock::Claimed;

/// An epoch's upper bits are of its leader's lease.
const LEADER: u32 = 20;

/// What is kept from frame to frame.
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    pub(crate) topology_epoch: u64,
    pub(crate) territory: Territory,
    /// Ascending.
    pub(crate) regions: Vec<RegionPos>,
    /// The stage that may come next, and its tick.
    pub(crate) next: (u64, Stage),
    /// Letters of the last stage to regions of this territory: they need not travel.
    pub(crate) local: Vec<Letter>,
    /// How many of those there are to each region.
    pub(crate) local_work: BTreeMap<RegionPos, u64>,
    /// What the running tick has claimed, when its strategy is `Lock`.
    pub(crate) claimed: Option<Claimed>,
    /// Chunks whose locks the running tick's commit removes.
    pub(crate) unlocked: Vec<ChunkPos>,
}

impl Epoch {
    /// Whether the frame begins the tick after the one that was committed here, so that memory is the world as it was
    /// committed. Another leader does not know what others changed, and after a fail-over a shard's world may be older
    /// than memory.
    pub(crate) fn precedes(&self, frame: &Frame) -> bool {
        let leader = |epoch: u64| epoch >> LEADER;
        self.next == (frame.tick, Stage::Observe)
            && self.topology_epoch >= frame.memory_since
            && leader(self.epoch) == leader(frame.epoch)
    }

    /// Keeps letters to regions of this territory for the next stage, and returns the others. Nearly all are kept, so
    /// only the others are moved; the order of letters says nothing. To be called where the letters were made, as long as
    /// they are in that processor's cache.
    pub(crate) fn sort(&mut self, mut outbox: Vec<Letter>) -> Vec<Letter> {
        let mut away = Vec::new();
        let mut end = outbox.len();
        while let Some(last) = outbox[..end].last() {
            // Letters to one region mostly come together.
            let to = last.to;
            let begin = outbox[..end].iter().rposition(|letter| letter.to != to).map_or(0, |other| other + 1);
            let region = to.as_ref().map(to_region_pos);
            match region.filter(|region| self.regions.binary_search(region).is_ok()) {
                Some(region) => *self.local_work.entry(region).or_default() += (end - begin) as u64,
                None => away.extend((begin..end).rev().map(|i| outbox.swap_remove(i))),
            }
            end = begin;
        }
        self.local = outbox;
        away
    }
}

/// What territories of this world are made from.
pub(crate) struct Genesis {
    radius: u32,
    limit: u32,
    generator: Arc<Generator>,
}

impl Genesis {
    pub(crate) fn of(info: &Info) -> Genesis {
        Genesis { radius: info.radius, limit: info.limit, generator: Arc::new(Generator::new(info.seed)) }
    }

    pub(crate) fn territory(&self, regions: impl IntoIterator<Item = RegionPos>) -> Territory {
        Territory::new(regions, self.radius).growing(self.generator.clone(), self.limit)
    }
}
