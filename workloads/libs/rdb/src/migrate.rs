//! Keys of several versions of the database, whatever they mean: carried and compared in the modules below; scanned,
//! counted and unlinked here. Knows types of values and where keys belong; the order of the work is the migrator's.

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

use bytes::Bytes;
use fortia_common::boot::Boot;
use fortia_common::records;
use fortia_common::topology::Topology;
use redis::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::RdbError;
use crate::connection::{Server, value};
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

/// A digest of a key's type and content, equal for equal values whatever the order of fields and members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueDigest(u64);

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

    /// Digests of keys of a version on a shard, in the order asked; none where there is no such key.
    ///
    /// # Errors
    /// `Corrupt` for a value of a type no world has; otherwise when the shard does not answer.
    pub async fn digests(
        &self,
        shard: u32,
        version: u64,
        keys: &[KeyText],
    ) -> Result<Vec<Option<ValueDigest>>, RdbError> {
        let keys: Vec<&KeyText> = keys.iter().collect();
        Ok(self.values(shard, version, &keys).await?.into_iter().map(Found::digest).collect())
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

    async fn values(&self, shard: u32, version: u64, keys: &[&KeyText]) -> Result<Vec<Found>, RdbError> {
        let server: &Server = &*self.shards.primary(&self.topology, shard)?;
        let physical: Vec<Vec<u8>> = keys.iter().map(|key| key.physical(version)).collect();
        let mut pipe = redis::pipe();
        for key in &physical {
            pipe.cmd("TYPE").arg(key.as_slice());
        }
        let types = server.read(&pipe).await?;
        let mut readers = Vec::with_capacity(types.len());
        for (key, answer) in physical.iter().zip(types) {
            let name: String = value(server.address(), answer)?;
            let kind = Kind::parse(&name).ok_or_else(|| {
                RdbError::corrupt(String::from_utf8_lossy(key), format!("no world has a {name}"))
            })?;
            readers.push(kind);
        }
        let mut pipe = redis::pipe();
        for (key, kind) in physical.iter().zip(&readers) {
            pipe.add_command(kind.read(key));
        }
        let answers = server.read(&pipe).await?;
        readers.into_iter().zip(answers).map(|(kind, answer)| kind.found(server.address(), answer)).collect()
    }
}

/// Types of values a world has.
#[derive(Clone, Copy)]
enum Kind {
    None,
    Hash,
    Set,
    List,
    String,
}

/// A value as read. Hashes are field, value, field, ...
enum Found {
    Nothing,
    Hash(Vec<Bytes>),
    Set(Vec<Bytes>),
    List(Vec<Bytes>),
    String(Bytes),
}

impl Kind {
    fn parse(name: &str) -> Option<Kind> {
        match name {
            "none" => Some(Kind::None),
            "hash" => Some(Kind::Hash),
            "set" => Some(Kind::Set),
            "list" => Some(Kind::List),
            "string" => Some(Kind::String),
            _ => None,
        }
    }

    fn read(self, key: &[u8]) -> redis::Cmd {
        let mut command = redis::cmd(match self {
            Kind::None => "EXISTS",
            Kind::Hash => "HGETALL",
            Kind::Set => "SMEMBERS",
            Kind::List => "LRANGE",
            Kind::String => "GET",
        });
        command.arg(key);
        if let Kind::List = self {
            command.arg(0).arg(-1);
        }
        command
    }

    fn found(self, address: &str, answer: Value) -> Result<Found, RdbError> {
        Ok(match self {
            Kind::None => Found::Nothing,
            Kind::Hash => Found::many(value(address, answer)?, Found::Hash),
            Kind::Set => Found::many(value(address, answer)?, Found::Set),
            Kind::List => Found::many(value(address, answer)?, Found::List),
            Kind::String => value::<Option<Bytes>>(address, answer)?.map_or(Found::Nothing, Found::String),
        })
    }
}

impl Found {
    /// A key that is gone since its type was asked reads as empty; Redis has no empty hashes, sets or lists.
    fn many(all: Vec<Bytes>, as_kind: impl Fn(Vec<Bytes>) -> Found) -> Found {
        if all.is_empty() { Found::Nothing } else { as_kind(all) }
    }

    fn digest(self) -> Option<ValueDigest> {
        let (tag, canonical) = match self {
            Found::Nothing => return None,
            Found::Hash(all) => {
                let mut pairs: Vec<[Bytes; 2]> =
                    all.chunks_exact(2).map(|p| [p[0].clone(), p[1].clone()]).collect();
                pairs.sort_unstable();
                (b'h', pairs.into_iter().flatten().collect())
            }
            Found::Set(mut all) => {
                all.sort_unstable();
                (b's', all)
            }
            Found::List(all) => (b'l', all),
            Found::String(value) => (b'v', vec![value]),
        };
        let mut hash = Xxh3::new();
        hash.update(&[tag]);
        for part in canonical {
            // With its length in front, so that no two different sequences look alike.
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(&part);
        }
        Some(ValueDigest(hash.digest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&'static str]) -> Vec<Bytes> {
        all.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn the_order_of_fields_and_members_does_not_matter_that_of_lists_does() {
        let digest = |found: Found| found.digest();
        assert_eq!(
            digest(Found::Hash(texts(&["a", "1", "b", "2"]))),
            digest(Found::Hash(texts(&["b", "2", "a", "1"])))
        );
        assert_eq!(digest(Found::Set(texts(&["a", "b"]))), digest(Found::Set(texts(&["b", "a"]))));
        assert_ne!(digest(Found::List(texts(&["a", "b"]))), digest(Found::List(texts(&["b", "a"]))));
    }

    #[test]
    fn values_that_only_look_alike_have_different_digests() {
        let alike = [
            Found::Hash(texts(&["a", "b"])),
            Found::Hash(texts(&["b", "a"])),
            Found::Set(texts(&["a", "b"])),
            Found::Set(texts(&["ab"])),
            Found::List(texts(&["a", "b"])),
            Found::List(texts(&["ab", ""])),
            Found::String(Bytes::from_static(b"ab")),
        ];
        let digests: Vec<_> = alike.into_iter().map(Found::digest).collect();
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "{i}");
        }
    }
}
