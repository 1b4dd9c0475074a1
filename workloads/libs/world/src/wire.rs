//! How positions look in messages. Knows both shapes, and no other part of a message.

use fortia_proto::world::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};

/// The message of a block's place.
pub fn block_pos(at: BlockPos) -> pb::BlockPos {
    pb::BlockPos { x: at.x, y: at.y, z: at.z }
}

/// The message of a chunk's place.
pub fn chunk_pos(at: ChunkPos) -> pb::ChunkPos {
    pb::ChunkPos { x: at.x, y: at.y }
}

/// The message of a region's place.
pub fn region_pos(at: RegionPos) -> pb::RegionPos {
    pb::RegionPos { x: at.x, y: at.y }
}

/// The block's place a message gives.
pub fn to_block_pos(at: &pb::BlockPos) -> BlockPos {
    BlockPos::new(at.x, at.y, at.z)
}

/// The chunk's place a message gives.
pub fn to_chunk_pos(at: &pb::ChunkPos) -> ChunkPos {
    ChunkPos::new(at.x, at.y)
}

/// The region's place a message gives.
pub fn to_region_pos(at: &pb::RegionPos) -> RegionPos {
    RegionPos::new(at.x, at.y)
}
