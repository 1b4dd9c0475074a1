//! Runs frames: loads what is missing, lets the territory take its stage, commits. Knows the world's shards and the
//! pure tick; knows nothing of streams and leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_common::records::{Config, Durability};
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::letter::Kind;
use fortia_proto::tick::v1::{Done, EditStrategy, Frame, Letter, Part, Stage};
use fortia_proto::world::v1::Action;
use fortia_rdb::RdbError;
use fortia_rdb::world::{Remembered, Safe, World};
use fortia_vec::{ChunkPos, RegionPos};
use fortia_world::chunk::ColumnError;
use fortia_world::entity::EntityError;
use fortia_world::step::StepError;
use fortia_world::wire::{chunk_pos, to_chunk_pos, to_region_pos};
use prost::Message;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Traffic;
use crate::commit::{replicas_in_sync, write};
use crate::cost;
use crate::epoch::{Epoch, Genesis};
use crate::fill::fill;
use crate::lock::Locks;
use crate::metrics::Metrics;

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
    #[error("entity {0} cannot be read: {1}")]
    Entity(u64, EntityError),
    #[error("the claims on chunk {0} in tick {1} are gone from its shard")]
    ClaimsLost(ChunkPos, u64),
    #[error("a claim on chunk {0} cannot be read")]
    Claim(ChunkPos),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("the world has no info: worldgen is not done")]
    NoInfo,
    #[error("topology epoch {0} is not known here after {TOPOLOGY:?}")]
    Topology(u64),
    #[error("frame of epoch {epoch}, tick {tick}, stage {stage} does not follow what was run before")]
    Order { epoch: u64, tick: u64, stage: i32 },
    #[error("the stage panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The executor of frames. Each runs alone; after an error nothing is kept.
pub(crate) struct Runner {
    world: World,
    topology: watch::Receiver<Topology>,
    config: watch::Receiver<Config>,
    metrics: Metrics,
    traffic: Option<Traffic>,
    genesis: Option<Genesis>,
    epoch: Option<Epoch>,
}

impl Runner {
    pub(crate) fn new(
        world: World,
        topology: watch::Receiver<Topology>,
        config: watch::Receiver<Config>,
        metrics: Metrics,
        traffic: Option<Traffic>,
    ) -> Runner {
        Runner { world, topology, config, metrics, traffic, genesis: None, epoch: None }
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
    pub(crate) async fn run(&mut self, mut frame: Frame) -> Result<Done, FrameError> {
        let began = Instant::now();
        let stage = frame.stage();
        // Taken, so that after an error or a cancelled call nothing half done is left.
        let mut kept = self.epoch.take();
        let mut work = cost::of_letters(&frame.inbox);
        if let Some(epoch) = &mut kept {
            // The few are put to the many.
            std::mem::swap(&mut frame.inbox, &mut epoch.local);
            frame.inbox.append(&mut epoch.local);
            for (region, letters) in std::mem::take(&mut epoch.local_work) {
                *work.entry(region).or_default() += letters;
            }
        }
        let mut done = Done { epoch: frame.epoch, tick: frame.tick, stage: frame.stage, ..Done::default() };
        let epoch = if stage == Stage::Observe {
            let (epoch, outbox) = self.observe(kept, &frame, &mut work).await?;
            done.outbox = outbox;
            epoch
        } else {
            let follows = kept.filter(|kept| kept.epoch == frame.epoch && kept.next == (frame.tick, stage));
            let mut epoch = follows.ok_or(FrameError::order(&frame))?;
            match stage {
                Stage::Edit => {
                    let (epoch, outbox) = self.edit(epoch, frame).await?;
                    done.outbox = outbox;
                    epoch
                }
                Stage::Move => {
                    // Who is new in a region where nobody was may move already.
                    let before = frame.tick.saturating_sub(1);
                    fill(&self.world, &self.metrics, &mut epoch.territory, before).await?;
                    let (epoch, outbox) = stage_of(epoch, frame, |epoch, tick, inbox| {
                        let outbox = epoch.territory.shift(tick, inbox)?;
                        epoch.next.1 = Stage::Commit;
                        Ok(epoch.sort(outbox))
                    })
                    .await?;
                    for (region, effort) in epoch.territory.efforts() {
                        *work.entry(region).or_default() += cost::of_walkers(effort);
                    }
                    done.outbox = outbox;
                    epoch
                }
                _ => {
                    let epoch = self.commit(epoch, frame, &mut done).await?;
                    let changed = done.changed.iter().map(to_chunk_pos);
                    changed.for_each(|chunk| *work.entry(chunk.region()).or_default() += 4);
                    epoch
                }
            }
        };
        self.metrics.letters.inc_by(done.outbox.len() as u64);
        done.costs = cost::spread(began.elapsed(), &work);
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
            Some(mut kept) if kept.precedes(frame) => {
                let changed: Vec<ChunkPos> = frame.changed.iter().map(to_chunk_pos).collect();
                kept.territory.refresh(&changed, &frame.patches);
                kept.topology_epoch = frame.topology_epoch;
                if kept.epoch == frame.epoch { kept } else { self.reassign(kept, frame)? }
            }
            _ => self.begin(frame).await?,
        };
        fill(&self.world, &self.metrics, &mut epoch.territory, tick.saturating_sub(1)).await?;
        let actions = self.actions(frame, &epoch.regions, work).await?;
        let traffic = self.traffic.clone();
        let lock = frame.edit_strategy() == EditStrategy::Lock;
        let (mut epoch, mut outbox) = spawn_blocking(move || {
            let mut outbox = epoch.territory.observe(tick, &actions)?;
            if let Some(traffic) = traffic {
                traffic(tick, &epoch.territory, &mut outbox);
            }
            epoch.next = (tick, Stage::Edit);
            epoch.claimed = None;
            epoch.unlocked.clear();
            // Edits become claims first, wherever their letters go.
            let outbox = if lock { outbox } else { epoch.sort(outbox) };
            Ok::<_, StepError>((epoch, outbox))
        })
        .await??;
        if lock {
            epoch.claimed = Some(self.locks(&epoch, tick).claim(&epoch.territory, &mut outbox).await?);
            outbox = epoch.sort(outbox);
        }
        Ok((epoch, outbox))
    }

    async fn edit(&self, mut epoch: Epoch, mut frame: Frame) -> Result<(Epoch, Vec<Letter>), FrameError> {
        let mut refusals = Vec::new();
        if let Some(claimed) = epoch.claimed.take() {
            let locks = self.locks(&epoch, frame.tick);
            (refusals, epoch.unlocked) = locks.decide(&epoch.territory, &claimed, &mut frame.inbox).await?;
        }
        let metrics = self.metrics.clone();
        stage_of(epoch, frame, move |epoch, tick, inbox| {
            let edits = inbox.iter().filter(|letter| matches!(letter.kind, Some(Kind::Edit(_)))).count();
            let mut outbox = epoch.territory.edit(tick, inbox)?;
            metrics.edited(outbox[..edits.min(outbox.len())].iter().chain(&refusals));
            outbox.extend(refusals);
            epoch.next.1 = Stage::Move;
            Ok(epoch.sort(outbox))
        })
        .await
    }

    fn locks(&self, epoch: &Epoch, tick: u64) -> Locks<'_> {
        Locks { world: &self.world, metrics: &self.metrics, epoch: epoch.epoch, tick }
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
        let genesis = match self.genesis.take() {
            Some(genesis) => genesis,
            None => Genesis::of(&self.world.info().await?.ok_or(FrameError::NoInfo)?),
        };
        let genesis = self.genesis.insert(genesis);
        let territory = genesis.territory([]);
        let nothing = Epoch {
            epoch: frame.epoch,
            topology_epoch: frame.topology_epoch,
            territory,
            regions: Vec::new(),
            next: (frame.tick, Stage::Observe),
            local: Vec::new(),
            local_work: BTreeMap::new(),
            claimed: None,
            unlocked: Vec::new(),
        };
        self.reassign(nothing, frame)
    }

    /// The epoch of the frame, with what is known already of its regions.
    fn reassign(&self, kept: Epoch, frame: &Frame) -> Result<Epoch, FrameError> {
        let regions: BTreeSet<RegionPos> = frame.regions.iter().map(to_region_pos).collect();
        if regions.is_empty() {
            // Regions come with the first frame of an epoch only, and that was lost.
            return Err(FrameError::order(frame));
        }
        let mut territory = kept.territory;
        territory.reassign(regions.iter().copied());
        self.metrics.regions.set(regions.len() as i64);
        let missing = territory.missing_chunks().len();
        tracing::info!(epoch = frame.epoch, tick = frame.tick, regions = regions.len(), missing, "new epoch");
        Ok(Epoch { epoch: frame.epoch, territory, regions: regions.into_iter().collect(), ..kept })
    }

    async fn actions(
        &self,
        frame: &Frame,
        regions: &[RegionPos],
        work: &mut BTreeMap<RegionPos, u64>,
    ) -> Result<Vec<(RegionPos, Vec<Action>)>, FrameError> {
        let remembered = Remembered { parts: &frame.parts, again: frame.again };
        let taken = self.world.take_actions(frame.epoch, frame.tick, regions, remembered).await?;
        let mut actions = Vec::new();
        for (region, list) in taken {
            let decoded: Vec<Action> = list.into_iter().filter_map(|bytes| decode(region, bytes)).collect();
            self.metrics.actions.inc_by(decoded.len() as u64);
            *work.entry(region).or_default() += decoded.len() as u64;
            actions.push((region, decoded));
        }
        Ok(actions)
    }

    async fn commit(&self, epoch: Epoch, frame: Frame, done: &mut Done) -> Result<Epoch, FrameError> {
        let tick = frame.tick;
        let (mut epoch, mut changes) =
            stage_of(epoch, frame, |epoch, tick, inbox| epoch.territory.commit(tick, inbox)).await?;
        done.changed = std::mem::take(&mut changes.changed).into_iter().map(chunk_pos).collect();
        done.patches = std::mem::take(&mut changes.patches);
        let unlocked = std::mem::take(&mut epoch.unlocked);
        let topology = self.topology.borrow().clone();
        let on_disk = self.config.borrow().durability == Durability::Disk;
        let safe = |shard| Safe { replicas: replicas_in_sync(&topology, shard), on_disk };
        let commit = self.world.commit(epoch.epoch, tick);
        let parts = write(commit, changes, unlocked, &self.metrics).await?.end(safe).await?;
        done.parts = parts.into_iter().map(|(shard, number)| Part { shard, number }).collect();
        epoch.next = (tick + 1, Stage::Observe);
        Ok(epoch)
    }
}

impl FrameError {
    fn order(frame: &Frame) -> FrameError {
        FrameError::Order { epoch: frame.epoch, tick: frame.tick, stage: frame.stage }
    }
}

/// Takes a stage with the frame's letters, on a thread where it may take its time.
async fn stage_of<T: Send + 'static>(
    mut epoch: Epoch,
    frame: Frame,
    stage: impl FnOnce(&mut Epoch, u64, Vec<Letter>) -> Result<T, StepError> + Send + 'static,
) -> Result<(Epoch, T), FrameError> {
    let ran = spawn_blocking(move || {
        let outcome = stage(&mut epoch, frame.tick, frame.inbox);
        (epoch, outcome)
    });
    let (epoch, outcome) = ran.await?;
    Ok((epoch, outcome?))
}

fn decode(region: RegionPos, bytes: Bytes) -> Option<Action> {
    let decoded = Action::decode(bytes);
    if let Err(error) = &decoded {
        tracing::warn!(%region, %error, "action cannot be read; passing over it");
    }
    decoded.ok()
}
