//! Fills a territory with what it lacks, from the shards. Knows reads and decoding, not when they are needed.

use fortia_rdb::world::World;
use fortia_vec::ChunkPos;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::step::Territory;
use futures::{StreamExt, TryStreamExt, stream};

use crate::frame::FrameError;
use crate::metrics::Metrics;

/// Chunks or entities read in one go.
const BATCH: usize = 128;
/// Batches of chunks read at once: while one is decoded, others are on their way.
const BATCHES: usize = 4;

/// Loads what the territory lacks, as of `tick`.
pub(crate) async fn fill(
    world: &World,
    metrics: &Metrics,
    territory: &mut Territory,
    tick: u64,
) -> Result<(), FrameError> {
    loop {
        let missing = territory.missing_chunks();
        if missing.is_empty() {
            break;
        }
        fill_chunks(world, metrics, territory, tick, &missing).await?;
    }
    fill_entities(world, metrics, territory, tick).await
}

async fn fill_entities(
    world: &World,
    metrics: &Metrics,
    territory: &mut Territory,
    tick: u64,
) -> Result<(), FrameError> {
    let batches: Vec<Vec<u64>> = territory.missing_entities().chunks(BATCH).map(<[u64]>::to_vec).collect();
    let read =
        |batch: Vec<u64>| async move { world.entities(tick, &batch).await.map(|found| (batch, found)) };
    let mut reads = stream::iter(batches).map(read).buffered(BATCHES);
    while let Some((batch, found)) = reads.try_next().await? {
        for (id, bytes) in batch.into_iter().zip(found) {
            let Some(bytes) = bytes else {
                tracing::error!(id, tick, "an entity is listed and has no record: taken off the list");
                metrics.strays.inc();
                territory.absent_entity(id);
                continue;
            };
            let entity = Entity::decode(&bytes).map_err(|error| FrameError::Entity(id, error))?;
            if !territory.load_entity(entity) {
                tracing::error!(id, tick, "an entity is not where it is listed: its record is believed");
                metrics.strays.inc();
            }
        }
    }
    Ok(())
}

/// Loads these chunks; those that are there may show that others are missing.
async fn fill_chunks(
    world: &World,
    metrics: &Metrics,
    territory: &mut Territory,
    tick: u64,
    missing: &[ChunkPos],
) -> Result<(), FrameError> {
    let batches: Vec<Vec<ChunkPos>> = missing.chunks(BATCH).map(<[ChunkPos]>::to_vec).collect();
    let read = |batch: Vec<ChunkPos>| {
        let world = world.clone();
        async move { world.chunks(tick, &batch).await.map(|found| (batch, found)) }
    };
    let mut reads = stream::iter(batches).map(read).buffered(BATCHES);
    while let Some((batch, found)) = reads.try_next().await? {
        metrics.loaded.inc_by(batch.len() as u64);
        for (at, bytes) in batch.iter().zip(found) {
            let Some(bytes) = bytes else {
                // Beyond the first radius chunks are made when somebody comes near.
                if territory.absent(*at) {
                    continue;
                }
                return Err(FrameError::NoChunk(*at, tick));
            };
            territory.load(Column::decode(&bytes).map_err(|error| FrameError::Chunk(*at, error))?);
        }
    }
    Ok(())
}
