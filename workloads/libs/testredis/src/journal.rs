//! What the loss of power takes from a server that syncs its append-only file every second: the end of that file. Knows
//! bytes and times, not what they say. Servers are not asked how much is on disk: up to 8.1.1 Valkey's `WAITAOF` answers
//! before the fsync it is to wait for (redis/redis#13793).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::server::TestServer;

/// Time between two looks at the file.
const LOOK: Duration = Duration::from_millis(10);
/// For how long it is remembered how long the file was.
const REMEMBERED: Duration = Duration::from_secs(3);

/// How long the file was.
#[derive(Clone, Copy, Debug)]
struct Look {
    bytes: u64,
    /// What was answered before this moment is in so many bytes.
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

/// Follows how long a server's append-only file is; ends when dropped.
pub struct Journal {
    looks: Arc<Mutex<VecDeque<Look>>>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Begins to follow a server that runs with `--appendonly yes`; what it has by now counts as on disk.
    pub fn follow(server: &TestServer) -> Journal {
        let file = server.journal();
        let looks = Arc::new(Mutex::new(VecDeque::from([look(&file)])));
        let seen = Arc::clone(&looks);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let mut looks = seen.lock().unwrap_or_else(PoisonError::into_inner);
                looks.push_back(look(&file));
                while looks.len() > 1 && looks[1].at.elapsed() > REMEMBERED {
                    looks.pop_front();
                }
            }
        });
        Journal { looks, task }
    }

    /// Kills the server and cuts its file, as a loss of power does so long after the last fsync: at the end of a write, or
    /// some bytes behind that.
    pub fn cut(&self, server: &mut TestServer, unsynced: Duration, more: u64) -> Cut {
        server.kill();
        let (file, now) = (server.journal(), Instant::now());
        let mut looks = self.looks();
        let before = looks.iter().rev().find(|look| look.at + unsynced <= now).or(looks.front());
        let before = *before.expect("there was a first look");
        let end = look(&file).bytes;
        let kept = end.min(before.bytes + more);
        let opened = std::fs::OpenOptions::new().write(true).open(&file);
        opened.expect("an append-only file").set_len(kept).expect("a shorter file");
        // What the server reads when it starts is on disk.
        *looks = VecDeque::from([look(&file)]);
        Cut { bytes: end - kept, since: before.at }
    }

    fn looks(&self) -> MutexGuard<'_, VecDeque<Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn look(file: &Path) -> Look {
    let at = Instant::now();
    Look { bytes: std::fs::metadata(file).map_or(0, |file| file.len()), at }
}
