//! The committed ticks as the control database tells them, never ahead of the topology they were committed under.
//! Knows the control database, not who wants to know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fortia_common::control::Control;
use fortia_common::topology::Topology;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_vec::ChunkPos;
use tokio::sync::watch;
use tokio::time::Instant;

/// Pause after the control database did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// A committed tick.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// Its number.
    pub(crate) tick: u64,
    /// When it was committed.
    pub(crate) since: Instant,
    /// The same as the scheduler's clock told it, in Unix ms.
    pub(crate) at: u64,
    /// Chunks in which blocks or entities changed.
    pub(crate) changed: Vec<ChunkPos>,
}

/// Where committed ticks come from.
pub(crate) struct Ticks {
    control: ControlDb,
    topology: watch::Receiver<Topology>,
    answers: bool,
}

impl Ticks {
    /// Reads the ticks from `control`; `topology` is the one that the world is read by.
    pub(crate) fn new(control: ControlDb, topology: watch::Receiver<Topology>) -> Ticks {
        Ticks { control, topology, answers: true }
    }

    /// The ticks after tick `after`, oldest first, waiting about `wait` for the first; never fails but waits until the
    /// control database answers.
    pub(crate) async fn after(&mut self, after: u64, wait: Duration) -> Vec<Committed> {
        loop {
            match self.ask(after, wait).await {
                Ok(ticks) => {
                    self.answers = true;
                    return ticks;
                }
                Err(error) if std::mem::take(&mut self.answers) => {
                    tracing::warn!(%error, "committed ticks cannot be read; trying again");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ask(&mut self, after: u64, wait: Duration) -> Result<Vec<Committed>, RdbError> {
        let ticks = self.control.ticks(after, wait).await?;
        if !ticks.is_empty() {
            self.follow_flips().await?;
        }
        Ok(ticks.into_iter().map(Committed::from).collect())
    }

    /// Waits until the topology is known that these ticks were committed under. Without it the old version would be
    /// read as of a tick that only the new version has.
    async fn follow_flips(&mut self) -> Result<(), RdbError> {
        let Some(written) = self.control.topology().await? else { return Ok(()) };
        // The sender lives as long as the server: an error only says that it ends.
        let _ = self.topology.wait_for(|known| known.epoch >= written.epoch).await;
        Ok(())
    }
}

impl From<fortia_proto::tick::v1::Committed> for Committed {
    fn from(tick: fortia_proto::tick::v1::Committed) -> Committed {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = unix.saturating_sub(Duration::from_millis(tick.at));
        let now = Instant::now();
        Committed {
            tick: tick.tick,
            since: now.checked_sub(age).unwrap_or(now),
            at: tick.at,
            changed: tick.changed.iter().map(|at| ChunkPos::new(at.x, at.y)).collect(),
        }
    }
}
