//! Keys of several versions of the database, whatever they mean: carried and compared in the modules below; scanned,
//! counted and unlinked here. Knows where keys belong, not what they hold; the order of the work is the migrator's.

mod carry;
mod compare;
pub mod cutover;
mod drain;
pub mod engine;
mod lane;
pub mod names;
mod read;
mod wire;

use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::records;
use fortia_common::topology::Topology;

use crate::RdbError;
use crate::guard::{self, Guard};
use crate::keyspace::{self, KeyText};
use crate::place::Shards;

/// Keys looked at in one step of a scan.
const SCANNED: u64 = 256;
/// Longest wait for an answer: batches are large, and nobody waits for one of them.
const RESPONSE: Duration = Duration::from_secs(20);

/// The shards of both versions, as a migration sees them.
pub struct Migration {
    shards: Shards,
    topology: Topology,
}

/// One step of a scan: a key may be seen more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Where to go on; 0: the scan is complete.
    pub cursor: u64,
    /// Keys of the version found in this step.
    pub keys: Vec<KeyText>,
}

impl Migration {
    /// Works under this topology; it stays as it is for the life of the migration.
    pub fn new(boot: &Boot, topology: Topology) -> Migration {
        Migration { shards: Shards::new(boot, RESPONSE), topology }
    }

    /// The topology worked under.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The guard of a shard.
    ///
    /// # Errors
    /// When the topology has no such shard, or it does not answer.
    pub async fn guard(&self, shard: u32) -> Result<Guard, RdbError> {
        guard::read(&*self.shards.primary(&self.topology, shard)?).await
    }

    /// One step of a scan over the keys of a version on a shard, from `cursor` (0: the beginning).
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn scan(&self, shard: u32, version: u64, cursor: u64) -> Result<Scanned, RdbError> {
        let (cursor, found) = self.scan_step(shard, version, cursor).await?;
        let text = |name: &Vec<u8>| KeyText::of_physical(name, version);
        Ok(Scanned { cursor, keys: found.iter().filter_map(text).collect() })
    }

    async fn scan_step(
        &self,
        shard: u32,
        version: u64,
        cursor: u64,
    ) -> Result<(u64, Vec<Vec<u8>>), RdbError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(keyspace::pattern(version)).arg("COUNT").arg(SCANNED);
        self.shards.primary(&self.topology, shard)?.get(scan).await
    }

    /// As [`Migration::scan`], with what a version has beside keys of the world: for those who take all of it away.
    ///
    /// # Errors
    /// As [`Migration::scan`].
    pub async fn scan_all(&self, shard: u32, version: u64, cursor: u64) -> Result<Scanned, RdbError> {
        let (cursor, found) = self.scan_step(shard, version, cursor).await?;
        let text = |name: &Vec<u8>| KeyText::of_any(name, version);
        Ok(Scanned { cursor, keys: found.iter().filter_map(text).collect() })
    }

    /// How many names of a version a shard has, those included that are no keys of the world.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn count(&self, shard: u32, version: u64) -> Result<u64, RdbError> {
        let (mut cursor, mut keys) = (0, 0);
        loop {
            let step = self.scan_all(shard, version, cursor).await?;
            keys += step.keys.len() as u64;
            cursor = step.cursor;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }

    /// Unlinks keys of a version that nobody reads any more from a shard: how many there were. Its guard is asked in
    /// the same call, because the caller may be late.
    ///
    /// # Errors
    /// `WrongVersion` when the guard lets the version be written, copied or filled, `Stale` when it has a newer
    /// epoch; otherwise when the shard does not answer.
    pub async fn unlink(&self, shard: u32, version: u64, keys: &[KeyText]) -> Result<u64, RdbError> {
        self.unlink_physical(shard, version, keys.iter().map(|key| key.physical(version)).collect()).await
    }

    /// Unlinks what a version has beside keys of the world: written keys, lists of actions and checkpoints.
    ///
    /// # Errors
    /// As [`Migration::unlink`].
    pub async fn unlink_own(&self, shard: u32, version: u64) -> Result<(), RdbError> {
        let own = [keyspace::dirty(version), keyspace::acting(version), keyspace::checkpoint(version)];
        self.unlink_physical(shard, version, own.map(String::into_bytes).into()).await.map(drop)
    }

    async fn unlink_physical(&self, shard: u32, version: u64, keys: Vec<Vec<u8>>) -> Result<u64, RdbError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut call = redis::cmd("FCALL");
        call.arg("fortia_unlink").arg(keys.len() + 1).arg(records::GUARD).arg(keys);
        call.arg(self.shards.cluster()).arg(self.topology.epoch).arg(version);
        self.shards.primary(&self.topology, shard)?.one(call).await
    }
}
