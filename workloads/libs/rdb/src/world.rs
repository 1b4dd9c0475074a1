//! The world in its shards: reads that fall back to replicas, writes through the guards.
//! Knows keys, slots and who answers; knows nothing of what chunks, entities and actions contain.

mod commit;
mod kept;
mod read;
mod ticks;

pub use commit::{Changes, Commit, Safe};
pub use ticks::{Claim, Locked, RANK, Remembered};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Boot;
use fortia_common::server::TRUST;
use fortia_common::topology::{Layout, Topology};
use fortia_vec::{BlockPos, ChunkPos};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::RdbError;
use crate::connection::RESPONSE;
use crate::guard::{self, Guard};
use crate::keyspace::WorldKey;
use crate::place::Shards;
use crate::write::{Op, Writer};

/// How long a writer waits for a re-sharding that cuts over: its epoch or version is old, or nothing is written.
const CUTOVER: Duration = Duration::from_secs(2);
/// When it first looks whether writes go on under the topology it has. Each wait is twice as long as the one before: the
/// frozen server is the one that has to carry its last keys. Who flipped is heard of at once.
const AGAIN: Duration = Duration::from_millis(5);
/// The longest such wait: for so long a writer may sleep although a try to cut over was given up.
const LONGEST: Duration = Duration::from_millis(80);

/// The shards of the world. Clones share their connections.
#[derive(Clone)]
pub struct World {
    shards: Arc<Shards>,
    topology: watch::Receiver<Topology>,
    /// Whether a replica may answer a read while its primary is down.
    replicas_answer: bool,
    /// When this process was last registered, if that matters to it.
    registered: Option<watch::Receiver<Instant>>,
}

/// The world as a whole, as worldgen left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it was generated from.
    pub seed: u64,
    /// Chunks from -radius to radius were made before the first tick.
    pub radius: u32,
    /// Chunks from -limit to limit are made when somebody comes near.
    pub limit: u32,
    /// Unix time in ms of its creation.
    pub created_ms: u64,
    /// Wanted time between two ticks.
    pub tick_period_ms: u64,
}

/// A player in this world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Player {
    /// Unix time in ms at which they joined.
    pub joined_ms: u64,
    /// Where they started.
    pub start: BlockPos,
}

impl World {
    /// The shards of the topology, as it changes. Connects to nothing before it is asked.
    pub fn connect(boot: &Boot, topology: watch::Receiver<Topology>) -> World {
        World {
            shards: Arc::new(Shards::new(boot, RESPONSE)),
            topology,
            replicas_answer: true,
            registered: None,
        }
    }

    /// The same world, for a server that is registered: once it is not, what only waits for servers that follow is not
    /// believed to be there.
    pub fn registered(self, registered: watch::Receiver<Instant>) -> World {
        World { registered: Some(registered), ..self }
    }

    /// Whether the operator waits for this process before it collects what that follows.
    fn is_waited_for(&self) -> bool {
        self.registered.as_ref().is_none_or(|registered| registered.borrow().elapsed() < TRUST)
    }

    /// The same world, read from primaries alone: for those who compute from what they read and write the outcome.
    /// A replica that fell behind answers with an older slot and no error.
    pub fn primary_only(self) -> World {
        World { replicas_answer: false, ..self }
    }

    fn now(&self) -> Topology {
        self.topology.borrow().clone()
    }

    fn writer<'a>(&'a self, topology: &Topology, tick_epoch: u64) -> Writer<'a> {
        Writer {
            cluster: self.shards.cluster(),
            epoch: topology.epoch,
            tick_epoch,
            version: topology.serving.version,
        }
    }

    /// Makes a player: their entities first, then the record that says they joined. Writing the same player again
    /// changes nothing.
    ///
    /// # Errors
    /// When a guard refuses (`Frozen` while a re-sharding cuts over and takes too long) or a shard does not answer.
    pub async fn create_player(&self, name: &str, player: &Player, entities: &[u64]) -> Result<(), RdbError> {
        if !entities.is_empty() {
            let ids = entities.iter().map(|id| Bytes::from(id.to_string())).collect();
            self.write_patiently(WorldKey::PlayerEntities(name.to_owned()), Op::SetAdd(ids)).await?;
        }
        let fields = fields(&[
            ("joined", player.joined_ms.to_string()),
            ("x", player.start.x.to_string()),
            ("y", player.start.y.to_string()),
            ("z", player.start.z.to_string()),
        ]);
        self.write_patiently(WorldKey::Player(name.to_owned()), Op::HashSet(fields)).await
    }

    /// Takes entities that are gone for good off a player's list. Doing it again changes nothing.
    ///
    /// # Errors
    /// As [`World::create_player`].
    pub async fn forget_entities(&self, name: &str, entities: &[u64]) -> Result<(), RdbError> {
        if entities.is_empty() {
            return Ok(());
        }
        let ids = entities.iter().map(|id| Bytes::from(id.to_string())).collect();
        self.write_patiently(WorldKey::PlayerEntities(name.to_owned()), Op::SetRemove(ids)).await
    }

    /// Writes generated chunks, as of tick 0.
    ///
    /// # Errors
    /// When a guard refuses or a shard does not answer.
    pub async fn write_chunks(&self, chunks: &[(ChunkPos, Bytes)]) -> Result<(), RdbError> {
        let chunks = chunks.to_vec();
        self.commit(0, 0).write(&Changes { chunks, ..Changes::default() }).await
    }

    /// Writes the record that says the world is complete. Worldgen's last write.
    ///
    /// # Errors
    /// As [`World::write_chunks`].
    pub async fn write_info(&self, info: &Info) -> Result<(), RdbError> {
        let fields = fields(&[
            ("seed", info.seed.to_string()),
            ("radius", info.radius.to_string()),
            ("limit", info.limit.to_string()),
            ("created", info.created_ms.to_string()),
            ("tick_period", info.tick_period_ms.to_string()),
        ]);
        self.write(&self.now(), 0, vec![(WorldKey::Info, Op::HashSet(fields))]).await
    }

    /// The guard of a shard of the topology.
    ///
    /// # Errors
    /// When the topology has no such shard, or it does not answer.
    pub async fn guard(&self, shard: u32) -> Result<Guard, RdbError> {
        guard::read(&*self.shards.primary(&self.now(), shard)?).await
    }

    /// Writes to one key, over a cut-over.
    async fn write_patiently(&self, key: WorldKey, op: Op) -> Result<(), RdbError> {
        self.patiently(|topology| {
            let written = vec![(key.clone(), op.clone())];
            async move { self.write(&topology, 0, written).await }
        })
        .await
    }

    /// Writes under the topology of the moment, again while a re-sharding cuts over: keys and shards are another then.
    async fn patiently<W: Future<Output = Result<(), RdbError>>>(
        &self,
        write: impl Fn(Topology) -> W,
    ) -> Result<(), RdbError> {
        let until = Instant::now() + CUTOVER;
        let mut wait = AGAIN;
        loop {
            let topology = self.now();
            let epoch = topology.epoch;
            let refused = match write(topology).await {
                Err(
                    refused @ (RdbError::Stale { .. }
                    | RdbError::WrongVersion { .. }
                    | RdbError::Frozen { .. }),
                ) => refused,
                done => return done,
            };
            if Instant::now() >= until {
                return Err(refused);
            }
            let mut topology = self.topology.clone();
            // Either comes first: the topology after the flip, or that writes go on under the one before.
            let newer = topology.wait_for(|topology| topology.epoch > epoch);
            // Nobody changes it any more; the answer holds it, so it goes before the next wait.
            let closed = matches!(timeout(wait, newer).await, Ok(Err(_)));
            if closed {
                tokio::time::sleep(wait).await;
            }
            wait = (2 * wait).min(LONGEST);
        }
    }

    /// One pipelined call per shard, all shards at once.
    async fn write(
        &self,
        topology: &Topology,
        tick_epoch: u64,
        operations: Vec<(WorldKey, Op)>,
    ) -> Result<(), RdbError> {
        let writer = self.writer(topology, tick_epoch);
        let sent = by_server(&topology.serving, operations).into_iter().map(|(shard, operations)| {
            let calls = writer.calls(&operations);
            async move { self.shards.primary(topology, shard)?.ask(&calls).await }
        });
        try_join_all(sent).await?;
        Ok(())
    }
}

/// What is written to each key by shard, in the order given, with the physical keys.
fn by_server<T>(
    layout: &Layout,
    written: impl IntoIterator<Item = (WorldKey, T)>,
) -> BTreeMap<u32, Vec<(Vec<u8>, T)>> {
    let mut by_shard: BTreeMap<u32, Vec<(Vec<u8>, T)>> = BTreeMap::new();
    for (key, what) in written {
        let physical = key.physical(layout.version).into_bytes();
        by_shard.entry(key.shard(layout)).or_default().push((physical, what));
    }
    by_shard
}

/// Indices into `keys` by shard.
fn by_shard(keys: &[WorldKey], layout: &Layout) -> BTreeMap<u32, Vec<usize>> {
    let mut shards: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, key) in keys.iter().enumerate() {
        shards.entry(key.shard(layout)).or_default().push(i);
    }
    shards
}

fn fields(pairs: &[(&'static str, String)]) -> Vec<Bytes> {
    let pair =
        |(name, value): &(&'static str, String)| [Bytes::from_static(name.as_bytes()), value.clone().into()];
    pairs.iter().flat_map(pair).collect()
}

fn field<T: std::str::FromStr>(
    key: &str,
    fields: &HashMap<String, String>,
    name: &str,
) -> Result<T, RdbError> {
    let text = fields.get(name).ok_or_else(|| RdbError::corrupt(key, format!("field {name} is missing")))?;
    text.parse().map_err(|_| RdbError::corrupt(key, format!("field {name} is {text:?}")))
}
