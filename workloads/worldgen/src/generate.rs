//! Makes the world once: all chunks at tick 0, then the record that says it is complete. Knows the shards and the
//! generator; may be repeated and resumed.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fortia_common::records::WorldConfig;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::{Info, World};
use fortia_vec::{ChunkPos, regions_of};
use fortia_world::generate::Generator;
use futures::{StreamExt, TryStreamExt};
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::WorldgenError;
use crate::report::Report;

/// Time between two attempts at something a server did not do.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the world that is configured, unless it is there.
///
/// # Errors
/// `OtherWorld` when another world is there; otherwise when a shard refuses for good.
pub(crate) async fn world(
    world: &World,
    control: &ControlDb,
    wanted: &WorldConfig,
    done: &Gauge,
) -> Result<(), WorldgenError> {
    if let Some(info) = insist("the world's info", || world.info()).await? {
        return same(&info, wanted);
    }
    let (radius, generator) = (wanted.radius, Arc::new(Generator::new(wanted.seed)));
    let count = (2 * u64::from(radius) + 1).pow(2);
    tracing::info!(chunks = count, seed = wanted.seed, radius, "generating the world");
    // One more than there are cores: while one batch is written the others are made.
    let at_once = available_parallelism().map_or(1, usize::from) + 1;
    // A region's chunks share the earlier stages of their generation.
    let batches = regions_of(radius)
        .into_iter()
        .map(|region| region.chunks().filter(|at| at.is_within(radius)).collect::<Vec<ChunkPos>>());
    let mut made = futures::stream::iter(batches)
        .map(|batch| make(world, generator.clone(), batch))
        .buffer_unordered(at_once);
    let mut report = Report::begin(control, done, count).await;
    while let Some(chunks) = made.try_next().await? {
        report.add(chunks).await;
    }
    let info = Info {
        seed: wanted.seed,
        radius: wanted.radius,
        limit: wanted.limit,
        created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        tick_period_ms: wanted.tick_period_ms,
    };
    insist("the world's info", || world.write_info(&info)).await?;
    tracing::info!(chunks = count, "the world is made");
    Ok(())
}

fn same(info: &Info, wanted: &WorldConfig) -> Result<(), WorldgenError> {
    if (info.seed, info.radius, info.limit) == (wanted.seed, wanted.radius, wanted.limit) {
        tracing::info!(
            seed = info.seed,
            radius = info.radius,
            limit = info.limit,
            "the world is there already"
        );
        return Ok(());
    }
    Err(WorldgenError::OtherWorld {
        seed: info.seed,
        radius: info.radius,
        limit: info.limit,
        wanted_seed: wanted.seed,
        wanted_radius: wanted.radius,
        wanted_limit: wanted.limit,
    })
}

/// Makes those chunks of a batch that are not there yet; returns how many chunks the batch has.
async fn make(
    world: &World,
    generator: Arc<Generator>,
    batch: Vec<ChunkPos>,
) -> Result<usize, WorldgenError> {
    let there = insist("chunks", || world.chunks(0, &batch)).await?;
    let count = batch.len();
    let missing: Vec<ChunkPos> =
        batch.into_iter().zip(there).filter(|(_, bytes)| bytes.is_none()).map(|(at, _)| at).collect();
    let columns = spawn_blocking(move || {
        let columns = generator.columns(&missing);
        columns.iter().map(|column| (column.at(), Bytes::from(column.encode()))).collect::<Vec<_>>()
    })
    .await?;
    insist("chunks", || world.write_chunks(&columns)).await?;
    Ok(count)
}

/// Asks again while that may help: shards come up one by one.
async fn insist<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, RdbError>
where
    F: Future<Output = Result<T, RdbError>>,
{
    let mut told = None;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() => {
                let news = Some(error.to_string());
                if told != news {
                    tracing::warn!(what, %error, "not done; trying again");
                    told = news;
                }
                sleep(RETRY).await;
            }
            ended => return ended,
        }
    }
}
