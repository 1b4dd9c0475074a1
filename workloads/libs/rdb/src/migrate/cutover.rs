//! The scheduler's hands in a re-sharding: who notes, who is frozen, the last drain, and the turn of the guards.
//! Knows guards and notes; when to do what is the scheduler's.

use std::collections::BTreeMap;

use fortia_common::boot::Boot;
use fortia_common::topology::Topology;
use tokio::sync::watch;

use crate::RdbError;

/// The shards' guards and the last drain. Keeps its connections warm.
pub struct Cutover {}

/// All sources stand still: what is noted on them, and who they are.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    runs: BTreeMap<u32, String>,
}

impl Frozen {
    /// How many keys are still to be carried.
    pub fn lag(&self) -> u64 {
        0
    }

    /// Run ids of the sources, by shard.
    pub fn runs(&self) -> &BTreeMap<u32, String> {
        &self.runs
    }
}

fn missing<T>() -> Result<T, RdbError> {
    Err(RdbError::Refused { address: String::new(), reason: "not there yet".into() })
}

impl Cutover {
    /// Follows the topology for the addresses of shards. Connects to nothing before it is asked.
    pub fn new(_boot: &Boot, _topology: watch::Receiver<Topology>) -> Cutover {
        Cutover {}
    }

    /// Lets the serving version be written and noted: for the target, or for the version before that is kept.
    ///
    /// # Errors
    /// `Topology` when there is neither, `Stale` when a guard has a newer epoch; otherwise when a shard does not answer.
    pub async fn note(&self, _topology: &Topology) -> Result<(), RdbError> {
        missing()
    }

    /// Lets the serving version be written, with no target.
    ///
    /// # Errors
    /// `Stale` when a guard has a newer epoch; otherwise when a shard does not answer.
    pub async fn open(&self, _topology: &Topology) -> Result<(), RdbError> {
        missing()
    }

    /// How many keys of all sources are noted.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn lag(&self, _topology: &Topology) -> Result<u64, RdbError> {
        missing()
    }

    /// Stops all writes of the serving version, takes over all sources and looks at what is noted.
    ///
    /// # Errors
    /// As [`Cutover::note`]; some shards may be frozen then.
    pub async fn freeze(&self, _topology: &Topology) -> Result<Frozen, RdbError> {
        missing()
    }

    /// Carries what is noted; how many keys.
    ///
    /// # Errors
    /// When a guard refuses or a shard does not answer.
    pub async fn drain(&self, _topology: &Topology, _frozen: &Frozen) -> Result<u64, RdbError> {
        missing()
    }

    /// Opens the guards for the topology to be flipped to, under its epoch; every action up to tick `closed` was read.
    ///
    /// # Errors
    /// As [`Cutover::note`].
    pub async fn turn(&self, _topology: &Topology, _after: &Topology, _closed: u64) -> Result<(), RdbError> {
        missing()
    }
}
