//! Patches: how chunks on a territory's edge changed in a tick, so that whoever keeps a copy need not read it again. Knows
//! what a copy lacks, not who has one.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{CHUNK, ChunkPos, LocalPos};

use super::Territory;
use crate::block::Block;
use crate::chunk::Column;
use crate::{HEIGHT, wire};

/// Blocks and entities in one patch: a chunk that has more is sooner read than told.
const MOST: usize = 512;
/// Places of one layer of a chunk.
const LAYER: u32 = (CHUNK * CHUNK) as u32;
/// Kinds, as a place's number leaves room for.
const KINDS: u32 = 256;

impl Territory {
    /// At the commit: patches of the changed chunks that are beside regions of others.
    pub(super) fn patches(&self, changed: &[ChunkPos]) -> Vec<pb::Patch> {
        let edge =
            changed.iter().filter(|at| at.neighbours().into_iter().any(|near| !self.owns(near.region())));
        edge.filter_map(|at| self.patch(*at)).collect()
    }

    /// None when it takes too many words. Of graves a patch says nothing.
    fn patch(&self, at: ChunkPos) -> Option<pb::Patch> {
        let column = self.columns.get(&at)?;
        let edits = self.before.get(&at).map_or(&[][..], |before| before);
        if edits.len() + column.entities().len() > MOST || !column.graves().is_empty() {
            return None;
        }
        let block = |(place, _): &(LocalPos, Block)| number(*place) * KINDS + column.get(*place).kind();
        Some(pb::Patch {
            at: Some(wire::chunk_pos(at)),
            blocks: edits.iter().map(block).collect(),
            entities: column.entities().iter().copied().collect(),
        })
    }
}

/// Makes a copy of the chunk as it was before into one as it is now. `false` when the patch is not for this copy, which
/// is of no use then.
#[must_use]
pub(super) fn apply(patch: &pb::Patch, copy: &mut Column) -> bool {
    if !copy.graves().is_empty() {
        return false;
    }
    copy.set_entities(&patch.entities);
    patch.blocks.iter().all(|block| {
        let place = place(block / KINDS).zip(Block::from_kind(block % KINDS));
        place.is_some_and(|(place, block)| {
            copy.set(place, block);
            true
        })
    })
}

/// The number of a place: x fastest, then y, then z.
fn number(place: LocalPos) -> u32 {
    u32::from(place.z) * LAYER + u32::from(place.y) * CHUNK as u32 + u32::from(place.x)
}

fn place(number: u32) -> Option<LocalPos> {
    let z = u8::try_from(number / LAYER).ok().filter(|z| *z < HEIGHT)?;
    let side = CHUNK as u32;
    Some(LocalPos { x: (number % side) as u8, y: (number / side % side) as u8, z })
}
