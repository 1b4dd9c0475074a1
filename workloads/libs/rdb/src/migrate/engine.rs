//! What a migrator pod asks of the shards: pages, batches carried and compared, notes drained, attempts and checkpoints.
//! Knows the two layouts and which server has what; the order of the work is the migrator's.

use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::topology::{Layout, Topology};
use tokio::sync::watch;

use crate::RdbError;
use crate::guard::Guard;
use crate::keyspace::KeyText;

/// The shards of both layouts. Clones share what they know.
#[derive(Clone)]
pub struct Engine {}

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

/// Connections of one worker: to a source and to all targets. One batch at a time; dropped after an error.
pub struct Lane {}

fn missing<T>() -> Result<T, RdbError> {
    Err(RdbError::Refused { address: String::new(), reason: "not there yet".into() })
}

impl Engine {
    /// Carries from one layout to the other. Connects to nothing before it is asked.
    pub fn new(_boot: &Boot, _topology: watch::Receiver<Topology>, _from: Layout, _to: Layout) -> Engine {
        Engine {}
    }

    /// Which life of a server this is, and how much it has.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn life(&self, _shard: u32) -> Result<Life, RdbError> {
        missing()
    }

    /// The guard of a shard.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn guard(&self, _shard: u32) -> Result<Guard, RdbError> {
        missing()
    }

    /// Takes over a source: what worked on it before is refused from now on.
    ///
    /// # Errors
    /// `Frozen` while a cut-over works on it; otherwise when a guard refuses or a shard does not answer.
    pub async fn attempt(&self, _source: u32) -> Result<Attempt, RdbError> {
        missing()
    }

    /// How far copying from a source was, if it ever began.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn checkpoint(&self, _source: u32) -> Result<Option<Checkpoint>, RdbError> {
        missing()
    }

    /// Records how far copying from a source is.
    ///
    /// # Errors
    /// `Attempt` when a newer attempt works; otherwise when the guard refuses or the shard does not answer.
    pub async fn set_checkpoint(&self, _attempt: &Attempt, _at: &Checkpoint) -> Result<(), RdbError> {
        missing()
    }

    /// How many keys of a source are noted as written.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn lag(&self, _source: u32) -> Result<u64, RdbError> {
        missing()
    }

    /// Notes keys of a source as written, so that they are carried again.
    ///
    /// # Errors
    /// When the guard refuses or the shard does not answer.
    pub async fn note(&self, _source: u32, _keys: &[KeyText]) -> Result<u64, RdbError> {
        missing()
    }

    /// The round trip of a small read, on a connection of its own.
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn probe(&self, _shard: u32) -> Result<Duration, RdbError> {
        missing()
    }

    /// Connections for one more worker on a source.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn lane(&self, _source: u32) -> Result<Lane, RdbError> {
        missing()
    }
}

impl Lane {
    /// One step of a scan over the keys of a version on a shard, from `cursor` (0: the beginning).
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn page(
        &mut self,
        _shard: u32,
        _version: u64,
        _cursor: u64,
        _count: u32,
    ) -> Result<Page, RdbError> {
        missing()
    }

    /// Copies keys of the source to where the new layout has them. `expires`: whether any may have an expiry.
    ///
    /// # Errors
    /// `Attempt` when a newer attempt works; otherwise when a guard refuses or a shard does not answer.
    pub async fn copy(
        &mut self,
        _attempt: &Attempt,
        _keys: &[KeyText],
        _expires: bool,
    ) -> Result<Copied, RdbError> {
        missing()
    }

    /// Carries up to `most` of the keys noted as written.
    ///
    /// # Errors
    /// As [`Lane::copy`].
    pub async fn drain(&mut self, _attempt: &Attempt, _most: usize) -> Result<Drained, RdbError> {
        missing()
    }

    /// Compares keys of the source with what the targets have.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn compare(&mut self, _keys: &[KeyText], _expires: bool) -> Result<Compared, RdbError> {
        missing()
    }

    /// Looks at one suspect again, so that a write in between is not taken for a difference.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn judge(&mut self, _key: &KeyText) -> Result<Judged, RdbError> {
        missing()
    }

    /// Which of these keys, found on a target, the sources do not account for.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn surplus(&mut self, _target: u32, _keys: Vec<KeyText>) -> Result<Vec<Surplus>, RdbError> {
        missing()
    }

    /// Removes keys from a target on which they do not belong.
    ///
    /// # Errors
    /// As [`Lane::copy`].
    pub async fn remove_misplaced(
        &mut self,
        _attempt: &Attempt,
        _target: u32,
        _keys: &[KeyText],
    ) -> Result<u64, RdbError> {
        missing()
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
