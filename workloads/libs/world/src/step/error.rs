//! Why a stage cannot be ended: something would vanish without a word. Knows no remedy: the tick is run again from what
//! is committed, and while that does not help, the world stands still and says why.

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};

use super::Territory;
use crate::entity::EntityError;
use crate::wire;

/// Why a stage failed. The territory must be thrown away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A letter to nobody.
    #[error("a letter names no region")]
    NoRegion,
    /// A letter that came to the wrong territory.
    #[error("a letter to region {0} came to a territory that does not own it")]
    NotOwned(RegionPos),
    /// A letter that this stage does not take, or that lacks a part.
    #[error("a letter to region {0} cannot be understood in stage {1}: do all servers run the same version?")]
    Letter(RegionPos, &'static str),
    /// A unit that cannot be read.
    #[error("a unit that comes to region {0} cannot be read: {1}")]
    Arrival(RegionPos, EntityError),
    /// A unit that was sent to another region than the one it stands in.
    #[error("entity {id} stands at {at}, but was sent to region {to}")]
    Astray {
        /// The entity.
        id: u64,
        /// Where it stands.
        at: BlockPos,
        /// Where it was sent.
        to: RegionPos,
    },
    /// Somebody may look at a chunk that was not loaded.
    #[error("chunk {0} is needed, but not loaded")]
    NotLoaded(ChunkPos),
    /// An entity for which there is no list.
    #[error("entity {id} stands at {at}, in a chunk that is not loaded here")]
    NoChunk {
        /// The entity.
        id: u64,
        /// Where it stands.
        at: BlockPos,
    },
}

impl Territory {
    /// The region a letter is for, which must be one of this territory.
    pub(super) fn addressee(&self, letter: &pb::Letter) -> Result<RegionPos, StepError> {
        let to = letter.to.as_ref().map(wire::to_region_pos).ok_or(StepError::NoRegion)?;
        if self.owns(to) { Ok(to) } else { Err(StepError::NotOwned(to)) }
    }

    /// The region a letter is for, which must be one of this territory, and what it says.
    pub(super) fn open(
        &self,
        letter: pb::Letter,
        stage: &'static str,
    ) -> Result<(RegionPos, pb::letter::Kind), StepError> {
        let to = self.addressee(&letter)?;
        letter.kind.map(|kind| (to, kind)).ok_or(StepError::Letter(to, stage))
    }

    /// What a stage has made, unless something was lost in it.
    pub(super) fn sound<T>(&mut self, made: T) -> Result<T, StepError> {
        self.lost.take().map_or(Ok(made), Err)
    }
}
