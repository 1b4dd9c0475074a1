//! The migrator: carries the keys of one source shard to the next version and proves it, or unlinks an old version.
//! One pod of an Indexed Job; it can end anywhere and be run again from the start, even twice at once.

mod carry;
mod collect;
mod job;
mod report;
mod verify;

use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::control::Control;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::{Config, Progress};
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;

pub use job::{Job, JobError, Work};

/// Attempts at least, and for as long as the job's patience lasts, before a failure that may pass (a server down, a
/// newer epoch) is the Job's: the world is held meanwhile, and a Job waits longer and longer between its pods.
const ATTEMPTS: u32 = 5;
/// Time between two attempts, and between two looks at something waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the pod's work could not be done.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A database failed.
    #[error(transparent)]
    Database(#[from] RdbError),
    /// The control database has no topology.
    #[error("no topology was written within {0:?}: the operator writes it")]
    NoTopology(Duration),
    /// No re-sharding from this version runs (any more).
    #[error("no re-sharding from version {from} runs: the topology of epoch {epoch} serves {serving}")]
    CalledOff {
        /// The version asked for.
        from: u64,
        /// Epoch of the topology.
        epoch: u64,
        /// The version it serves.
        serving: u64,
    },
    /// A shard is not held for the migration.
    #[error("shard {shard} was not frozen for version {target} within {waited:?}: the scheduler freezes it")]
    NotFrozen {
        /// The first shard that is not.
        shard: u32,
        /// The target version.
        target: u64,
        /// How long was waited.
        waited: Duration,
    },
    /// A shard was written while it was being carried.
    #[error("shard {shard} was not frozen all the time: what was copied is old")]
    Thawed {
        /// The shard.
        shard: u32,
    },
    /// There is no such shard in the layout.
    #[error("there is no shard {index}: version {version} has {shards} shards")]
    NoShard {
        /// The index given.
        index: u32,
        /// The version.
        version: u64,
        /// How many it has.
        shards: u32,
    },
    /// The version to unlink is in use.
    #[error("version {version} is not unlinked from shard {shard}: {reason}")]
    InUse {
        /// The version.
        version: u64,
        /// The shard.
        shard: u32,
        /// Who uses it.
        reason: String,
    },
    /// After copying again, source and target still differ.
    #[error("{count} keys of shard {index} still differ after copying again, among them {first}")]
    Different {
        /// The source shard.
        index: u32,
        /// How many keys.
        count: usize,
        /// The first few.
        first: String,
    },
    /// Keys of the version came back while it was being unlinked.
    #[error("shard {shard} still has {keys} keys of version {version}: something writes them")]
    NotEmpty {
        /// The shard.
        shard: u32,
        /// How many keys.
        keys: u64,
        /// The version.
        version: u64,
    },
}

impl MigrateError {
    fn is_retryable(&self) -> bool {
        match self {
            MigrateError::Database(error) => error.is_retryable(),
            MigrateError::Thawed { .. } => true,
            _ => false,
        }
    }
}

/// Does the pod's work, from the start; what may pass is tried again. `configured` is told the configuration as
/// soon as it is known.
///
/// # Errors
/// When the work cannot be done; nothing that is served has been touched then.
pub async fn run(
    boot: &Boot,
    job: &Job,
    _failpoints: &Failpoints,
    configured: impl Fn(&Config),
) -> Result<Progress, MigrateError> {
    let control = ControlDb::connect(boot);
    let begun = tokio::time::Instant::now();
    let mut attempt = 1;
    loop {
        let failed = match once(boot, job, &control, &configured).await {
            Ok(progress) => return Ok(progress),
            Err(failed) => failed,
        };
        if !failed.is_retryable() || (attempt >= ATTEMPTS && begun.elapsed() >= job.patience) {
            return Err(failed);
        }
        tracing::warn!(index = job.index, attempt, error = %failed, "starting again");
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(
    boot: &Boot,
    job: &Job,
    control: &ControlDb,
    configured: impl Fn(&Config),
) -> Result<Progress, MigrateError> {
    if let Some(config) = control.config().await? {
        configured(&config);
    }
    let topology = topology(control, job.patience).await?;
    match job.work {
        Work::Copy => carry::run(boot, job, control, topology).await,
        Work::Collect => collect::run(boot, job, control, topology).await,
    }
}

async fn topology(control: &ControlDb, patience: Duration) -> Result<Topology, MigrateError> {
    let wait = async {
        loop {
            if let Some(topology) = control.topology().await? {
                return Ok::<_, RdbError>(topology);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(patience, wait).await {
        Ok(topology) => Ok(topology?),
        Err(_) => Err(MigrateError::NoTopology(patience)),
    }
}
