//! Coordinates of the world: blocks, chunks, regions, boxes, rays and distances. Knows numbers only, not what stands there.
//!
//! x and y are horizontal, z is up. A chunk is a column of 16 x 16 blocks, a region 8 x 8 chunks.

mod box3;
mod distance;
mod position;
mod ray;

pub use box3::Box3;
pub use distance::Distance;
pub use position::{
    BlockPos, CHUNK, ChunkPos, LocalPos, ParsePosError, REGION, RegionPos, WorldPos, regions_of,
};
pub use ray::{Ray, Traversal};
