//! What a migrator pod asks of the shards: pages, batches carried and compared, notes drained, attempts and checkpoints.
//! Knows the two layouts and which server has what; the order of the work is the migrator's.

use std::sync::Arc;
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::records;
use fortia_common::topology::{Layout, Topology};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::RdbError;
use crate::connection::{RESPONSE, Server};
use crate::guard::{self, Guard};
use crate::keyspace::{self, KeyText};
use crate::place::Shards;

use super::carry::Head;
pub use super::lane::Lane;
use super::wire::Wire;

/// How long a newer topology is waited for after a guard has refused an epoch.
pub(super) const NEWER_TOPOLOGY: Duration = Duration::from_secs(2);

/// The shards of both layouts. Clones share what they know.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// The right to carry from a source; a newer one ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The source shard.
    pub source: u32,
    /// Grows with every attempt.
    pub number: u64,
}

/// One step of a scan: a key may be seen more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where to go on; 0: the scan is complete.
    pub cursor: u64,
    /// Keys of the version found in this step.
    pub keys: Vec<KeyText>,
}

/// What a batch copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Keys.
    pub keys: u64,
    /// Those of them that stayed on their server.
    pub stayed: u64,
    /// Value bytes that went through here.
    pub bytes: u64,
    /// Keys that do not belong on the source, and were left alone.
    pub misplaced: u64,
}

/// What one step of draining did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Keys carried.
    pub keys: u64,
    /// Value bytes that went through here.
    pub bytes: u64,
    /// Keys still noted.
    pub left: u64,
}

/// One life of a server's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its run id: another after every start.
    pub run: String,
    /// Keys it has, of all versions.
    pub keys: u64,
    /// Whether any of them expires.
    pub expires: bool,
}

/// How far copying from a source is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// Epoch at which noting began: a record of another migration is worth nothing.
    pub since: u64,
    /// Run id of the source: cursors die with the process.
    pub run: String,
    /// Where the scan goes on.
    #[serde(with = "text")]
    pub cursor: u64,
    /// Keys the source had when copying began.
    pub total: u64,
    /// Keys copied.
    pub keys: u64,
    /// Value bytes that went through the migrator.
    pub bytes: u64,
    /// Keys that stayed on their server.
    pub stayed: u64,
    /// Whether all is copied.
    pub copied: bool,
}

/// What a batch compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Keys found equal.
    pub equal: u64,
    /// Wrapping sum of their digests.
    pub digest: u128,
    /// Keys that differ, or were written in between.
    pub suspects: Vec<KeyText>,
}

/// A key on a target that the source does not account for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// The source it belongs to does not have it.
    Unknown(KeyText),
    /// It belongs on another target.
    Misplaced(KeyText),
}

/// What a second look at a suspect says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Equal now; the digest of the value.
    Equal(u128),
    /// Noted, or written while being looked at.
    Dirty,
    /// Different, and nobody writes it.
    Different,
}

/// What all parts of a migration share.
pub(super) struct Shared {
    pub(super) shards: Shards,
    probes: Shards,
    topology: watch::Receiver<Topology>,
    pub(super) from: Layout,
    pub(super) to: Layout,
}

impl Shared {
    pub(super) fn new(
        boot: &Boot,
        topology: watch::Receiver<Topology>,
        from: Layout,
        to: Layout,
    ) -> Arc<Shared> {
        let (shards, probes) = (Shards::new(boot, RESPONSE), Shards::new(boot, RESPONSE));
        Arc::new(Shared { shards, probes, topology, from, to })
    }

    /// The topology, as long as it is of this migration.
    pub(super) fn now(&self) -> Result<Topology, RdbError> {
        let now = self.topology.borrow().clone();
        if now.serving == self.from && now.target == Some(self.to) {
            return Ok(now);
        }
        let reason = format!("no migration from {} to {} runs", self.from.version, self.to.version);
        Err(RdbError::Topology { epoch: now.epoch, reason })
    }

    /// Waits for a newer topology than the one that was refused.
    pub(super) async fn newer(&self, than: u64, by: Instant) -> Option<()> {
        let mut topology = self.topology.clone();
        let newer = topology.wait_for(|now| now.epoch > than);
        matches!(timeout_at(by, newer).await, Ok(Ok(_))).then_some(())
    }

    pub(super) fn head(&self, attempt: &Attempt) -> Result<Head, RdbError> {
        Ok(Head {
            cluster: self.shards.cluster().to_owned(),
            epoch: self.now()?.epoch,
            version: self.to.version,
            source: attempt.source,
            attempt: attempt.number,
        })
    }

    pub(super) async fn open(&self, shard: u32) -> Result<Wire, RdbError> {
        Wire::open(&self.shards.wanted_primary(&self.now()?, shard)?).await
    }

    fn server(&self, shard: u32) -> Result<Arc<Server>, RdbError> {
        self.shards.primary(&self.now()?, shard)
    }

    /// Calls a function on a shard, again when only the epoch was old.
    async fn call<T: redis::FromRedisValue>(
        &self,
        shard: u32,
        function: &str,
        arguments: impl Fn(&mut redis::Cmd),
    ) -> Result<T, RdbError> {
        let by = Instant::now() + NEWER_TOPOLOGY;
        loop {
            let now = self.now()?;
            let mut call = redis::cmd("FCALL");
            call.arg(function).arg(1).arg(records::GUARD).arg(self.shards.cluster());
            call.arg(now.epoch).arg(self.to.version);
            arguments(&mut call);
            match self.shards.primary(&now, shard)?.one(call).await {
                Err(stale @ RdbError::Stale { .. }) => self.newer(now.epoch, by).await.ok_or(stale)?,
                done => return done,
            }
        }
    }
}

impl Engine {
    /// Carries from one layout to the other. Connects to nothing before it is asked.
    pub fn new(boot: &Boot, topology: watch::Receiver<Topology>, from: Layout, to: Layout) -> Engine {
        Engine { shared: Shared::new(boot, topology, from, to) }
    }

    /// Which life of a server this is, and how much it has.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn life(&self, shard: u32) -> Result<Life, RdbError> {
        let mut info = redis::cmd("INFO");
        info.arg("server").arg("keyspace");
        let server = self.shared.server(shard)?;
        Ok(life(&server.get::<String>(info).await?))
    }

    /// The guard of a shard.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn guard(&self, shard: u32) -> Result<Guard, RdbError> {
        guard::read(&*self.shared.server(shard)?).await
    }

    /// Takes over a source: what worked on it before is refused from now on.
    ///
    /// # Errors
    /// `Frozen` while a cut-over works on it; otherwise when a guard refuses or a shard does not answer.
    pub async fn attempt(&self, source: u32) -> Result<Attempt, RdbError> {
        // A source that came back without its last second may know of fewer attempts than its targets.
        let guards = try_join_all((0..self.shared.to.shards).map(|target| self.guard(target))).await?;
        let floor = guards.iter().filter_map(|guard| guard.attempts.get(&source).copied()).max();
        let begin = |call: &mut redis::Cmd| {
            call.arg(source).arg(floor.unwrap_or_default()).arg("pod");
        };
        let number = self.shared.call(source, "fortia_attempt", begin).await?;
        let fence = |call: &mut redis::Cmd| {
            call.arg(source).arg(number);
        };
        let targets = 0..self.shared.to.shards;
        try_join_all(targets.map(|target| self.shared.call::<u64>(target, "fortia_fence", fence))).await?;
        Ok(Attempt { source, number })
    }

    /// How far copying from a source was, if it ever began.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn checkpoint(&self, source: u32) -> Result<Option<Checkpoint>, RdbError> {
        let key = keyspace::checkpoint(self.shared.to.version);
        let mut get = redis::cmd("HGET");
        get.arg(&key).arg(source);
        let record: Option<String> = self.shared.server(self.keeper(source))?.get(get).await?;
        let parse = |json: String| serde_json::from_str(&json).map_err(|e| RdbError::corrupt(&key, e));
        record.map(parse).transpose()
    }

    /// Records how far copying from a source is.
    ///
    /// # Errors
    /// `Attempt` when a newer attempt works; otherwise when the guard refuses or the shard does not answer.
    pub async fn set_checkpoint(&self, attempt: &Attempt, at: &Checkpoint) -> Result<(), RdbError> {
        let json = serde_json::to_string(at).map_err(|e| RdbError::corrupt("checkpoint", e))?;
        let record = |call: &mut redis::Cmd| {
            call.arg(attempt.source).arg(attempt.number).arg(&json);
        };
        self.shared.call(self.keeper(attempt.source), "fortia_checkpoint", record).await
    }

    /// The target that keeps the checkpoint of a source.
    fn keeper(&self, source: u32) -> u32 {
        source % self.shared.to.shards.max(1)
    }

    /// How many keys of a source are noted as written.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn lag(&self, source: u32) -> Result<u64, RdbError> {
        let mut length = redis::cmd("HLEN");
        length.arg(keyspace::dirty(self.shared.from.version));
        // One field has the last stamp.
        Ok(self.shared.server(source)?.get::<u64>(length).await?.saturating_sub(1))
    }

    /// Notes keys of a source as written, so that they are carried again.
    ///
    /// # Errors
    /// When the guard refuses or the shard does not answer.
    pub async fn note(&self, source: u32, keys: &[KeyText]) -> Result<u64, RdbError> {
        let mut noted = 0;
        for some in keys.chunks(1000) {
            let texts = |call: &mut redis::Cmd| {
                for key in some {
                    call.arg(key.as_bytes());
                }
            };
            noted += self.shared.call::<u64>(source, "fortia_note", texts).await?;
        }
        Ok(noted)
    }

    /// The round trip of a small read, on a connection of its own.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn probe(&self, shard: u32) -> Result<Duration, RdbError> {
        let server = self.shared.probes.primary(&self.shared.now()?, shard)?;
        let mut read = redis::cmd("HGET");
        read.arg(records::GUARD).arg("uid");
        let begun = Instant::now();
        server.get::<Option<String>>(read).await?;
        Ok(begun.elapsed())
    }

    /// Connections for one more worker on a source.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn lane(&self, source: u32) -> Result<Lane, RdbError> {
        Lane::open(self.shared.clone(), source).await
    }
}

/// What `INFO server keyspace` says.
pub(super) fn life(info: &str) -> Life {
    let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    let count = |name: &str| {
        let counts = line("db0:").into_iter().flat_map(|counts| counts.split(','));
        counts.filter_map(|count| count.strip_prefix(name)).find_map(|count| count.parse().ok())
    };
    Life {
        run: line("run_id:").unwrap_or_default().trim().to_owned(),
        keys: count("keys=").unwrap_or_default(),
        expires: count("expires=").unwrap_or(0u64) > 0,
    }
}

/// Cursors use all 64 bits: as JSON they are text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(cursor: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&cursor.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
