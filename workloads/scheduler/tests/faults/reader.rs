//! Readers of a world: what they see at a tick, compared with the reference world of that tick. Knows no faults.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_vec::ChunkPos;
use fortia_world::chunk::Column;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::reference::{Key, Reference};
use crate::scene::{PATIENCE, lock};

/// Part of the world as a reader saw it.
pub(crate) struct Snapshot {
    pub(crate) tick: u64,
    values: Vec<(Key, Option<Bytes>)>,
}

/// Reads as a game server does: the committed tick, chunks as of it, the entities they list as of it.
pub(crate) struct Reader {
    pub(crate) world: World,
    pub(crate) control: ControlDb,
    pub(crate) reference: Arc<Mutex<Reference>>,
    pub(crate) stepped: watch::Receiver<u64>,
}

impl Reader {
    /// Reads chunks and all entities in them at the newest tick.
    pub(crate) async fn read(&self, at: &[ChunkPos]) -> Snapshot {
        let begun = Instant::now();
        loop {
            let tick = self.control.committed().await.expect("control database").unwrap_or(0);
            match self.read_at(tick, at).await {
                Ok(snapshot) => return snapshot,
                // Two newer ticks have changed it since: a newer one is committed.
                Err(RdbError::TooNew { .. }) => {}
                // A shard that was killed is on its way back.
                Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("a read fails: {error}"),
            }
        }
    }

    async fn read_at(&self, tick: u64, at: &[ChunkPos]) -> Result<Snapshot, RdbError> {
        let chunks = self.world.chunks(tick, at).await?;
        let mut ids = BTreeSet::new();
        for bytes in chunks.iter().flatten() {
            let column = Column::decode(bytes).expect("a whole column");
            ids.extend(column.entities().iter().copied());
        }
        let ids: Vec<u64> = ids.into_iter().collect();
        let entities = self.world.entities(tick, &ids).await?;
        let chunks = at.iter().map(|at| Key::Chunk(*at)).zip(chunks);
        let entities = ids.into_iter().map(Key::Entity).zip(entities);
        Ok(Snapshot { tick, values: chunks.chain(entities).collect() })
    }

    /// Compares a snapshot with the reference world of its tick, once that is there.
    pub(crate) async fn compare(&self, snapshot: &Snapshot) {
        let mut stepped = self.stepped.clone();
        let ran = timeout(PATIENCE, stepped.wait_for(|now| *now >= snapshot.tick)).await;
        ran.expect("the reference runs").expect("ticks are followed");
        let reference = lock(&self.reference);
        for (key, value) in &snapshot.values {
            let expected = reference.as_of(snapshot.tick, *key);
            assert!(
                value.as_ref() == expected,
                "{key:?} at tick {} is not that of the reference",
                snapshot.tick
            );
        }
    }
}
