//! Runs frames: loads what is missing, lets the territory take its stage, commits. Knows the world's shards and the
//! pure tick; knows nothing of streams and leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::{Done, Frame, Letter, Stage};
use fortia_proto::world::v1::Action;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Changes, World};
use fortia_vec::{ChunkPos, RegionPos};
use fortia_world::chunk::{Column, ColumnError};
use fortia_world::entity::{Entity, EntityError};
use fortia_world::step::Territory;
use fortia_world::wire::{chunk_pos, to_chunk_pos, to_region_pos};
use prost::Message;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cost;
use crate::metrics::Metrics;

/// Chunks or entities read in one go.
const BATCH: usize = 128;
/// How long a ticker waits for the topology a frame runs under.
const TOPOLOGY: Duration = Duration::from_secs(2);

/// Why a stage could not be run; the scheduler gets the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Rdb(#[from] RdbError),
    #[error("chunk {0} is not there at tick {1}")]
    NoChunk(ChunkPos, u64),
    #[error("chunk {0} cannot be read: {1}")]
    Chunk(ChunkPos, ColumnError),
    #[error("entity {0} is listed in a chunk, but not there at tick {1}")]
    NoEntity(u64, u64),
    #[error("entity {0} cannot be read: {1}")]
    Entity(u64, EntityError),
    #[error("the world has no info: worldgen is not done")]
    NoInfo,
    #[error("topology epoch {0} is not known here after {TOPOLOGY:?}")]
    Topology(u64),
    #[error("frame of epoch {epoch}, tick {tick}, stage {stage} does not follow what was run before")]
    Order { epoch: u64, tick: u64, stage: i32 },
    #[error("the stage panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What is kept from frame to frame of one epoch.
struct Epoch {
    epoch: u64,
    territory: Territory,
    regions: Vec<RegionPos>,
    /// The stage that may come next, and its tick.
    next: (u64, Stage),
    /// Regions whose lists of actions of the tick before the running one are to be removed by its commit.
    read: BTreeSet<RegionPos>,
    /// Regions in which actions were found in the running tick.
    acted: BTreeSet<RegionPos>,
}

/// The executor of frames. Each runs alone; after an error nothing is kept.
pub(crate) struct Runner {
    world: World,
    topology: watch::Receiver<Topology>,
    metrics: Metrics,
    radius: Option<u32>,
    epoch: Option<Epoch>,
}

impl Runner {
    pub(crate) fn new(world: World, topology: watch::Receiver<Topology>, metrics: Metrics) -> Runner {
        Runner { world, topology, metrics, radius: None, epoch: None }
    }

    /// Whether a tick has begun here and not been committed.
    pub(crate) fn in_tick(&self) -> bool {
        self.epoch.as_ref().is_some_and(|epoch| epoch.next.1 != Stage::Observe)
    }

    /// Drops all memory of the world.
    pub(crate) fn reset(&mut self) {
        self.epoch = None;
        self.metrics.regions.set(0);
    }

    /// Runs one stage.
    pub(crate) async fn run(&mut self, frame: Frame) -> Result<Done, FrameError> {
        let began = Instant::now();
        let stage = frame.stage();
        let order = FrameError::Order { epoch: frame.epoch, tick: frame.tick, stage: frame.stage };
        // Taken, so that after an error or a cancelled call nothing half done is left.
        let kept = self.epoch.take().filter(|epoch| epoch.epoch == frame.epoch);
        let mut work = inbox_work(&frame.inbox);
        let mut done = Done { epoch: frame.epoch, tick: frame.tick, stage: frame.stage, ..Done::default() };
        let epoch = if stage == Stage::Observe {
            let (epoch, outbox) = self.observe(kept, &frame, &mut work).await?;
            done.outbox = outbox;
            epoch
        } else {
            let Some(mut epoch) = kept.filter(|epoch| epoch.next == (frame.tick, stage)) else {
                return Err(order);
            };
            match stage {
                Stage::Edit => {
                    (epoch, done.outbox) = stage_of(epoch, frame, Territory::edit).await?;
                    epoch.next.1 = Stage::Move;
                }
                Stage::Move => {
                    (epoch, done.outbox) = stage_of(epoch, frame, Territory::shift).await?;
                    epoch.next.1 = Stage::Commit;
                }
                _ => {
                    let changed;
                    (epoch, changed) = self.commit(epoch, frame).await?;
                    changed.iter().for_each(|chunk| *work.entry(chunk.region()).or_default() += 4);
                    done.changed = changed.into_iter().map(chunk_pos).collect();
                }
            }
            epoch
        };
        done.costs = cost::spread(began.elapsed(), &epoch.regions, &work);
        self.epoch = Some(epoch);
        self.metrics.staged(stage, began.elapsed());
        Ok(done)
    }

    async fn observe(
        &mut self,
        kept: Option<Epoch>,
        frame: &Frame,
        work: &mut BTreeMap<RegionPos, u64>,
    ) -> Result<(Epoch, Vec<Letter>), FrameError> {
        self.follow(frame.topology_epoch).await?;
        let tick = frame.tick;
        let mut epoch = match kept {
            Some(mut epoch) if epoch.next == (tick, Stage::Observe) => {
                let changed: Vec<ChunkPos> = frame.changed.iter().map(to_chunk_pos).collect();
                epoch.territory.forget(&changed);
                epoch
            }
            _ => self.begin(frame).await?,
        };
        self.load(&mut epoch.territory, tick.saturating_sub(1)).await?;
        let actions = self.actions(frame, &mut epoch, work).await?;
        let (epoch, outbox) = spawn_blocking(move || {
            let outbox = epoch.territory.observe(tick, &actions);
            epoch.next = (tick, Stage::Edit);
            (epoch, outbox)
        })
        .await?;
        Ok((epoch, outbox))
    }

    /// Waits until the topology the frame runs under is known here.
    async fn follow(&mut self, topology_epoch: u64) -> Result<(), FrameError> {
        let known = self.topology.wait_for(|topology| topology.epoch >= topology_epoch);
        match timeout(TOPOLOGY, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(FrameError::Topology(topology_epoch)),
        }
    }

    /// Begins an epoch with no memory of the world.
    async fn begin(&mut self, frame: &Frame) -> Result<Epoch, FrameError> {
        let radius = match self.radius {
            Some(radius) => radius,
            None => self.world.info().await?.ok_or(FrameError::NoInfo)?.size,
        };
        self.radius = Some(radius);
        let regions: Vec<RegionPos> = frame.regions.iter().map(to_region_pos).collect();
        self.metrics.regions.set(regions.len() as i64);
        tracing::info!(epoch = frame.epoch, tick = frame.tick, regions = regions.len(), "new epoch");
        Ok(Epoch {
            epoch: frame.epoch,
            territory: Territory::new(regions.iter().copied(), radius),
            // Which lists the tick before left is not known: all are removed.
            read: regions.iter().copied().collect(),
            acted: BTreeSet::new(),
            regions,
            next: (frame.tick, Stage::Observe),
        })
    }

    /// Loads what the territory lacks, as of `tick`.
    async fn load(&self, territory: &mut Territory, tick: u64) -> Result<(), FrameError> {
        for batch in territory.missing_chunks().chunks(BATCH) {
            let found = self.world.chunks(tick, batch).await?;
            self.metrics.loaded.inc_by(batch.len() as u64);
            for (at, bytes) in batch.iter().zip(found) {
                let bytes = bytes.ok_or(FrameError::NoChunk(*at, tick))?;
                territory.load(Column::decode(&bytes).map_err(|error| FrameError::Chunk(*at, error))?);
            }
        }
        for batch in territory.missing_entities().chunks(BATCH) {
            let found = self.world.entities(tick, batch).await?;
            for (id, bytes) in batch.iter().zip(found) {
                let bytes = bytes.ok_or(FrameError::NoEntity(*id, tick))?;
                territory
                    .load_entity(Entity::decode(&bytes).map_err(|error| FrameError::Entity(*id, error))?);
            }
        }
        Ok(())
    }

    async fn actions(
        &self,
        frame: &Frame,
        epoch: &mut Epoch,
        work: &mut BTreeMap<RegionPos, u64>,
    ) -> Result<Vec<(RegionPos, Vec<Action>)>, FrameError> {
        let taken = self.world.take_actions(frame.epoch, frame.tick, &epoch.regions).await?;
        epoch.acted.clear();
        let mut actions = Vec::new();
        for (region, list) in taken.into_iter().filter(|(_, list)| !list.is_empty()) {
            epoch.acted.insert(region);
            let decoded: Vec<Action> = list.into_iter().filter_map(|bytes| decode(region, bytes)).collect();
            self.metrics.actions.inc_by(decoded.len() as u64);
            *work.entry(region).or_default() += decoded.len() as u64;
            actions.push((region, decoded));
        }
        Ok(actions)
    }

    async fn commit(&self, epoch: Epoch, frame: Frame) -> Result<(Epoch, Vec<ChunkPos>), FrameError> {
        let tick = frame.tick;
        let (mut epoch, changes) = stage_of(epoch, frame, Territory::commit).await?;
        let changed = changes.changed;
        let stored = Changes {
            chunks: changes.chunks.into_iter().map(|(at, bytes)| (at, Bytes::from(bytes))).collect(),
            entities: changes.entities.into_iter().map(|(id, bytes)| (id, Bytes::from(bytes))).collect(),
            read_actions: epoch.read.iter().copied().collect(),
        };
        let bytes: usize = stored.chunks.iter().map(|(_, b)| b.len()).sum::<usize>()
            + stored.entities.iter().map(|(_, b)| b.len()).sum::<usize>();
        let replicas = replicas_in_sync(&self.topology.borrow());
        self.world.commit_tick(epoch.epoch, tick, &stored, replicas).await?;
        self.metrics.chunks.inc_by(stored.chunks.len() as u64);
        self.metrics.entities.inc_by(stored.entities.len() as u64);
        self.metrics.bytes.inc_by(bytes as u64);
        epoch.read = std::mem::take(&mut epoch.acted);
        epoch.next = (tick + 1, Stage::Observe);
        Ok((epoch, changed))
    }
}

/// Lets the territory take a stage with the frame's letters, on a thread where it may take its time.
async fn stage_of<T: Send + 'static>(
    mut epoch: Epoch,
    frame: Frame,
    stage: impl FnOnce(&mut Territory, u64, Vec<Letter>) -> T + Send + 'static,
) -> Result<(Epoch, T), FrameError> {
    Ok(spawn_blocking(move || {
        let outcome = stage(&mut epoch.territory, frame.tick, frame.inbox);
        (epoch, outcome)
    })
    .await?)
}

fn decode(region: RegionPos, bytes: Bytes) -> Option<Action> {
    let decoded = Action::decode(bytes);
    if let Err(error) = &decoded {
        tracing::warn!(%region, %error, "action cannot be read; passing over it");
    }
    decoded.ok()
}

fn inbox_work(inbox: &[Letter]) -> BTreeMap<RegionPos, u64> {
    let mut work = BTreeMap::new();
    for to in inbox.iter().filter_map(|letter| letter.to.as_ref()) {
        *work.entry(to_region_pos(to)).or_default() += 1;
    }
    work
}

/// How many replicas of each shard must have a commit: one, where every shard has one.
fn replicas_in_sync(topology: &Topology) -> u32 {
    let shards = usize::try_from(topology.serving.shards).unwrap_or(usize::MAX);
    let mut serving = topology.groups.iter().take(shards).peekable();
    u32::from(serving.peek().is_some() && serving.all(|group| !group.replicas.is_empty()))
}
