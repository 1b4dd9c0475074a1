//! What the loss of power takes from a server: the part of its append-only file that no fsync has seen. Knows bytes and
//! times, not what they say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::server::TestServer;

/// A key of no world: every second it is written and waited for.
const MARK: &str = "fortia-test:mark";
/// Longest single wait for an fsync, in milliseconds; it is asked again.
const WAIT: &str = "1000";

/// The part of a file that is on disk for sure.
#[derive(Clone, Copy, Debug)]
struct Synced {
    bytes: u64,
    /// What was answered before this moment is in it.
    at: Instant,
}

/// What was cut off.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// So many bytes are gone.
    pub bytes: u64,
    /// What was answered before this moment is still there.
    pub since: Instant,
}

/// Follows how far a server's append-only file is on disk; ends when dropped.
pub struct Journal {
    synced: Arc<Mutex<Synced>>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Begins to follow a server that runs with `--appendonly yes`; all it has by now is on disk then.
    pub async fn follow(server: &TestServer) -> Journal {
        let synced = Arc::new(Mutex::new(Synced { bytes: 0, at: Instant::now() }));
        let (address, file) = (server.address(), server.journal());
        let size = move || std::fs::metadata(&file).map_or(0, |file| file.len());
        let known = Arc::clone(&synced);
        let task = tokio::spawn(async move {
            loop {
                // It ends with its server, and begins again with it.
                let _ = marks(&address, &size, &known).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let journal = Journal { synced, task };
        while journal.synced().bytes == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        journal
    }

    /// Kills the server and cuts its file, as a loss of power would: of what is not on disk so many hundredths are left.
    pub async fn cut(&self, server: &mut TestServer, left: u64) -> Cut {
        // Nothing is answered any more; what was is heard.
        server.stop();
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
        let synced = *self.synced();
        let file =
            std::fs::OpenOptions::new().write(true).open(server.journal()).expect("an append-only file");
        let end = file.metadata().expect("its size").len();
        let loose = end.saturating_sub(synced.bytes);
        let kept = end - loose + loose * left.min(100) / 100;
        file.set_len(kept).expect("a shorter file");
        *self.synced() = Synced { bytes: kept, at: Instant::now() };
        Cut { bytes: end - kept, since: synced.at }
    }

    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes marks and waits until each is on disk, for as long as the server lives.
async fn marks(address: &str, size: &impl Fn() -> u64, known: &Mutex<Synced>) -> redis::RedisResult<()> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    connection.set_response_timeout(Duration::from_secs(10));
    loop {
        redis::cmd("SET").arg(MARK).arg("1").query_async::<()>(&mut connection).await?;
        let mut wait = redis::cmd("WAITAOF");
        wait.arg("1").arg("0").arg(WAIT);
        while wait.query_async::<(u64, u64)>(&mut connection).await?.0 == 0 {}
        // The file may have grown since: that much is taken to be on disk although it is not.
        let at = Instant::now();
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Synced { bytes: size(), at };
    }
}
