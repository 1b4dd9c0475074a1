//! The migrator: carries the keys of one source shard to the next version while the world goes on, and proves it; or
//! unlinks an old version. One pod of an Indexed Job; it can end anywhere and be run again, even twice at once.

mod catch_up;
mod collect;
mod copy;
mod follow;
mod job;
mod pace;
mod pages;
mod pod;
mod report;
mod verify;

use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::control::Control;
use fortia_common::ending::Ending;
use fortia_common::failpoint::{Failed, Failpoints};
use fortia_common::records::{Config, Progress};
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use tokio::sync::watch;

pub use job::{Job, JobError, Work};

/// Time between two attempts, and between two looks at something waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the pod's work could not be done.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A database failed.
    #[error(transparent)]
    Database(#[from] RdbError),
    /// A failpoint said so.
    #[error(transparent)]
    Failpoint(#[from] Failed),
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
    /// A guard is not as the migration needs it.
    #[error(
        "shard {shard} is not ready for version {target} within {waited:?}: the scheduler sets its guard"
    )]
    NotReady {
        /// The first shard that is not.
        shard: u32,
        /// The target version.
        target: u64,
        /// How long was waited.
        waited: Duration,
    },
    /// A newer pod works on the same source.
    #[error("attempt {newer} works on shard {index}: this pod gives way")]
    Overtaken {
        /// The source shard.
        index: u32,
        /// The newer attempt.
        newer: u64,
    },
    /// A server has another life than when keys were carried to it, or from it.
    #[error(
        "a server was started again while shard {index} was carried: what it had in memory alone is gone"
    )]
    Restarted {
        /// The source shard.
        index: u32,
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
    /// After carrying them again, source and target still differ.
    #[error("{count} keys of shard {index} differ after others were carried again, among them {first}")]
    Different {
        /// The source shard.
        index: u32,
        /// How many keys.
        count: u64,
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
    /// What it means for the whole Job, where trying again mends nothing; none: another pod may be luckier.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            MigrateError::Different { .. } => Some(Ending::Different),
            MigrateError::Database(RdbError::Corrupt { .. }) => Some(Ending::Corrupt),
            MigrateError::Database(RdbError::OutOfMemory { .. }) => Some(Ending::OutOfMemory),
            MigrateError::CalledOff { .. } => Some(Ending::CalledOff),
            _ => None,
        }
    }

    /// Whether the same work may succeed a little later.
    fn may_pass(&self) -> bool {
        match self {
            MigrateError::Database(RdbError::Attempt { .. })
            | MigrateError::Failpoint(_)
            | MigrateError::Restarted { .. } => true,
            MigrateError::Database(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Does the pod's work; what may pass is tried again. Work on a source ends when the topology has moved on: well, if
/// it serves the target. `configured` is told the configuration as soon as it is known.
///
/// # Errors
/// When the work cannot be done, or is not wanted any more; nothing that is served has been touched then.
pub async fn run(
    boot: &Boot,
    job: &Job,
    failpoints: &Failpoints,
    configured: impl Fn(&Config),
) -> Result<Progress, MigrateError> {
    let control = ControlDb::connect(boot);
    let (topology, config) = begin(&control, job.patience).await?;
    if let Some(config) = config {
        configured(&config);
    }
    failpoints.pass("pod.started").await?;
    let (known, topology) = watch::channel(topology);
    let work = async {
        match job.work {
            Work::Copy | Work::CatchUp => pod::run(boot, job, &control, failpoints, topology).await,
            Work::Collect => collect::run(boot, job, &control, failpoints, topology).await,
        }
    };
    tokio::select! {
        done = work => done,
        never = follow::follow(&control, &known) => match never {},
    }
}

/// The topology, once there is one, and the configuration, if there is one.
async fn begin(control: &ControlDb, patience: Duration) -> Result<(Topology, Option<Config>), MigrateError> {
    let wait = async {
        loop {
            let asked = async { Ok::<_, RdbError>((control.topology().await?, control.config().await?)) };
            match asked.await {
                Ok((Some(topology), config)) => return Ok((topology, config)),
                Err(error) if !error.is_retryable() => return Err(error),
                Ok((None, _)) => {}
                Err(error) => tracing::warn!(%error, "the control database does not answer; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(patience, wait).await {
        Ok(begun) => Ok(begun?),
        Err(_) => Err(MigrateError::NoTopology(patience)),
    }
}
