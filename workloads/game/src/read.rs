//! Reads of the world as of one committed tick, whole or not at all. Knows when to try again: a topology that
//! changes under a read, or a tick that has become too old, never fails it.

use std::time::Duration;

use bytes::Bytes;
use fortia_common::records::Config;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Player, World};
use fortia_vec::ChunkPos;
use fortia_world::chunk::{Column, ColumnError};
use fortia_world::entity::{Entity, EntityError};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::feed::Now;
use crate::pulse::Pulse;

/// How long a read is tried again before it fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the second try; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Why a read failed for good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The databases.
    #[error(transparent)]
    Rdb(#[from] RdbError),
    /// A chunk of the first radius is not where the topology says: it is never shown as if there were none. Either the
    /// world is not complete yet, or this server follows a topology whose version is gone. Chunks beyond it are made
    /// when somebody comes near: until then there are none.
    #[error("chunk {0} is not there")]
    NoChunk(ChunkPos),
    /// The shards have served another version for a while: what this server would read may be gone.
    #[error("the shards serve another version than this server knows of")]
    Elsewhere,
    /// A stored chunk is none.
    #[error(transparent)]
    Chunk(#[from] ColumnError),
    /// A stored entity is none.
    #[error(transparent)]
    Entity(#[from] EntityError),
}

impl ReadError {
    /// Whether the same read may succeed a little later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            ReadError::Rdb(error) => error.is_retryable(),
            ReadError::NoChunk(_) | ReadError::Elsewhere => true,
            ReadError::Chunk(_) | ReadError::Entity(_) => false,
        }
    }

    /// Whether a newer committed tick must be read at.
    pub(crate) fn is_too_new(&self) -> bool {
        matches!(self, ReadError::Rdb(RdbError::TooNew { .. }))
    }
}

/// Something as it was after a committed tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen<T> {
    /// The tick.
    pub(crate) tick: u64,
    /// What was there.
    pub(crate) it: T,
}

/// Chunks and all entities in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    /// Those that have been made, in the order asked.
    pub(crate) columns: Vec<Column>,
    /// The entities that stand in them, chunk by chunk.
    pub(crate) entities: Vec<Entity>,
}

/// Reads at the newest committed tick.
#[derive(Clone)]
pub(crate) struct Reader {
    world: World,
    now: watch::Receiver<Now>,
    config: watch::Receiver<Config>,
    pulse: watch::Receiver<Pulse>,
}

impl Reader {
    /// Reads `world` at the tick that `now` says, unless `pulse` says that it is elsewhere.
    pub(crate) fn new(
        world: World,
        now: watch::Receiver<Now>,
        config: watch::Receiver<Config>,
        pulse: watch::Receiver<Pulse>,
    ) -> Reader {
        Reader { world, now, config, pulse }
    }

    /// The stored bytes of those chunks of the world that have been made, in the order asked.
    ///
    /// # Errors
    /// When the databases do not answer, or do not have one of the chunks, for too long.
    pub(crate) async fn chunks(&self, at: &[ChunkPos]) -> Result<Seen<Vec<(ChunkPos, Bytes)>>, ReadError> {
        self.patiently(|tick| self.chunks_at(tick, at).boxed()).await
    }

    /// Chunks of the world and all entities in them.
    ///
    /// # Errors
    /// As [`Reader::chunks`], or when something stored cannot be understood.
    pub(crate) async fn area(&self, at: &[ChunkPos]) -> Result<Seen<Area>, ReadError> {
        self.patiently(|tick| self.area_at(tick, at).boxed()).await
    }

    /// The entities that exist, in the order asked.
    ///
    /// # Errors
    /// As [`Reader::area`].
    pub(crate) async fn entities(&self, ids: &[u64]) -> Result<Seen<Vec<Entity>>, ReadError> {
        self.patiently(|tick| self.entities_at(tick, ids).boxed()).await
    }

    /// One try of [`Reader::area`] at a tick of the caller's.
    ///
    /// # Errors
    /// As the databases answer.
    pub(crate) async fn area_at(&self, tick: u64, at: &[ChunkPos]) -> Result<Area, ReadError> {
        let columns: Vec<Column> = self
            .chunks_at(tick, at)
            .await?
            .iter()
            .map(|(_, bytes)| Column::decode(bytes))
            .collect::<Result<_, _>>()?;
        let ids: Vec<u64> = columns.iter().flat_map(|column| column.entities().iter().copied()).collect();
        let entities = self.entities_at(tick, &ids).await?;
        Ok(Area { columns, entities })
    }

    /// A player; none when they have not joined.
    ///
    /// # Errors
    /// As [`Reader::chunks`].
    pub(crate) async fn player(&self, name: &str) -> Result<Option<Player>, ReadError> {
        Ok(self.patiently(|_| self.world.player(name).err_into().boxed()).await?.it)
    }

    /// Ids of a player's units, ascending.
    ///
    /// # Errors
    /// As [`Reader::chunks`].
    pub(crate) async fn player_entities(&self, name: &str) -> Result<Vec<u64>, ReadError> {
        Ok(self.patiently(|_| self.world.player_entities(name).err_into().boxed()).await?.it)
    }

    async fn chunks_at(&self, tick: u64, at: &[ChunkPos]) -> Result<Vec<(ChunkPos, Bytes)>, ReadError> {
        let found = self.world.chunks(tick, at).await?;
        let radius = self.config.borrow().world.radius;
        let there = |(at, bytes): (ChunkPos, Option<Bytes>)| match bytes {
            Some(bytes) => Some(Ok((at, bytes))),
            None if at.is_within(radius) => Some(Err(ReadError::NoChunk(at))),
            None => None,
        };
        at.iter().copied().zip(found).filter_map(there).collect()
    }

    async fn entities_at(&self, tick: u64, ids: &[u64]) -> Result<Vec<Entity>, ReadError> {
        let found = self.world.entities(tick, ids).await?;
        Ok(found.into_iter().flatten().map(|bytes| Entity::decode(&bytes)).collect::<Result<_, _>>()?)
    }

    /// Runs `read` at the newest tick until it succeeds, fails for good, or patience ends.
    async fn patiently<'a, T>(
        &'a self,
        read: impl Fn(u64) -> BoxFuture<'a, Result<T, ReadError>>,
    ) -> Result<Seen<T>, ReadError> {
        let until = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            // The world would refuse it too, but each read only after waiting for the topology that it lacks.
            if *self.pulse.borrow() == Pulse::Elsewhere {
                return Err(ReadError::Elsewhere);
            }
            let tick = self.now.borrow().tick;
            let error = match read(tick).await {
                Ok(it) => return Ok(Seen { tick, it }),
                Err(error) if error.is_retryable() && Instant::now() < until => error,
                Err(error) => return Err(error),
            };
            tracing::debug!(tick, %error, "reading again");
            if error.is_too_new() {
                // A newer tick is committed already; word of it is on its way.
                let mut now = self.now.clone();
                let _ = timeout_at(until, now.wait_for(|now| now.tick > tick)).await;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
