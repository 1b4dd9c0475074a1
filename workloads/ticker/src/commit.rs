//! Writes what a tick changed, in parts: while the shards take one, the next is encoded. Knows columns and their bytes, not
//! the tick they are of.

use bytes::Bytes;
use fortia_common::topology::Topology;
use fortia_rdb::world::{Changes, Commit};
use fortia_vec::ChunkPos;
use fortia_world::chunk::Column;
use fortia_world::step;
use rayon::prelude::*;
use tokio::task::spawn_blocking;

use crate::frame::FrameError;
use crate::metrics::Metrics;

/// Chunks that are encoded and written in one go.
const PART: usize = 256;

/// Writes all that changed, and removes the locks of these chunks. It does not count before the commit's end.
pub(crate) async fn write<'a>(
    mut commit: Commit<'a>,
    changes: step::Changes,
    unlocked: Vec<ChunkPos>,
    metrics: &Metrics,
) -> Result<Commit<'a>, FrameError> {
    // Each by its name, so that nothing a stage says is forgotten here.
    let step::Changes { mut columns, entities, born, gone, changed: _, patches: _ } = changes;
    metrics.chunks.inc_by(columns.len() as u64);
    metrics.entities.inc_by(entities.len() as u64);
    let entities = entities.into_iter().map(|(id, bytes)| (id, Bytes::from(bytes))).collect();
    let mut part = Changes { entities, born, gone, unlocked, chunks: Vec::new() };
    while !columns.is_empty() {
        let next = columns.split_off(columns.len().saturating_sub(PART));
        let encoded = spawn_blocking(move || encode(&next));
        metrics.bytes.inc_by(size(&part));
        let (encoded, written) = tokio::join!(encoded, commit.write(&part));
        written?;
        part = Changes { chunks: encoded?, ..Changes::default() };
    }
    metrics.bytes.inc_by(size(&part));
    commit.write(&part).await?;
    Ok(commit)
}

/// Columns as they are stored.
fn encode(columns: &[Column]) -> Vec<(ChunkPos, Bytes)> {
    columns.par_iter().map(|column| (column.at(), Bytes::from(column.encode()))).collect()
}

/// Bytes of chunks and entities.
fn size(part: &Changes) -> u64 {
    let chunks = part.chunks.iter().map(|(_, bytes)| bytes.len());
    chunks.chain(part.entities.iter().map(|(_, bytes)| bytes.len())).sum::<usize>() as u64
}

/// How many replicas of a shard must have a commit: one, where it has any.
pub(crate) fn replicas_in_sync(topology: &Topology, shard: u32) -> u32 {
    let group = usize::try_from(shard).ok().and_then(|shard| topology.groups.get(shard));
    group.is_some_and(|group| !group.replicas.is_empty()).into()
}
