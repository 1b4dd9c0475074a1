//! Follows the committed ticks and tells every subscriber what changed where it watches. Each changed chunk that
//! anyone watches is read once a tick, however many watch it. Knows no HTTP.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fortia_common::pace::Pace;
use fortia_common::topology::Topology;
use fortia_vec::ChunkPos;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::{History, Since};
use crate::news::News;
use crate::read::Reader;
use crate::ticks::{Committed, Ticks};

/// News kept for subscribers that are slow to take them; a slower one catches up from the history.
const NEWS: usize = 16;
/// Subscribers that may read what they missed at once: all come back together when their server has gone.
const CATCHING_UP: usize = 8;
/// How long to wait for a tick before asking again.
const WAIT: Duration = Duration::from_secs(5);
/// How long to wait before reading again what could not be read.
const RETRY: Duration = Duration::from_millis(200);

/// The newest committed tick this server knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Its number; 0 is the world as it was made.
    pub(crate) tick: u64,
    /// When it was committed.
    pub(crate) since: Instant,
}

/// What this server knows of the last ticks. Cheap to clone, all clones are one.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Inner>);

struct Inner {
    /// Whether all ticks that were committed when this server started are taken in.
    begun: watch::Sender<bool>,
    now: watch::Sender<Now>,
    history: Mutex<History>,
    pace: Mutex<Pace>,
    owed: watch::Sender<Owed>,
    news: broadcast::Sender<Arc<News>>,
    /// Leave to read what was missed.
    catching_up: Semaphore,
    /// How many subscribers watch a chunk.
    watched: Mutex<HashMap<ChunkPos, usize>>,
}

impl Default for Feed {
    fn default() -> Self {
        Feed(Arc::new(Inner {
            begun: watch::Sender::new(false),
            now: watch::Sender::new(Now { tick: 0, since: Instant::now() }),
            history: Mutex::default(),
            pace: Mutex::default(),
            owed: watch::Sender::default(),
            news: broadcast::Sender::new(NEWS),
            catching_up: Semaphore::new(CATCHING_UP),
            watched: Mutex::default(),
        }))
    }
}

/// What is to be told.
#[derive(Debug, Default)]
struct Owed {
    /// As of this tick.
    tick: u64,
    /// Changed since what was told last; none is news, too: the tick.
    chunks: BTreeSet<ChunkPos>,
}

/// Makes chunks be read and told about until it is dropped.
pub(crate) struct Watch {
    feed: Feed,
    chunks: BTreeSet<ChunkPos>,
    /// News of ticks from now on.
    pub(crate) news: broadcast::Receiver<Arc<News>>,
}

impl Feed {
    /// The newest committed tick, as it changes.
    pub(crate) fn now(&self) -> watch::Receiver<Now> {
        self.0.now.subscribe()
    }

    /// The time from one tick to the next as the last ones came, where that is longer than wanted.
    pub(crate) fn period(&self, wanted: Duration) -> Duration {
        let real = lock(&self.0.pace).period_ms().map(|ms| Duration::from_secs_f64(ms / 1000.0));
        real.map_or(wanted, |real| real.max(wanted))
    }

    /// How many times as long as wanted the last ticks took; none before there are two.
    pub(crate) fn dilation(&self, wanted: Duration) -> Option<f64> {
        lock(&self.0.pace).dilation(wanted)
    }

    /// The newest committed tick.
    pub(crate) fn newest(&self) -> Now {
        *self.0.now.borrow()
    }

    /// The newest tick, and which of the chunks `of` changed after tick `after` up to it.
    pub(crate) fn since(&self, after: u64, of: &BTreeSet<ChunkPos>) -> (u64, Since) {
        let history = lock(&self.0.history);
        (self.newest().tick, history.since(after, of))
    }

    /// Waits for leave to read what a subscriber missed, until it is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.catching_up.acquire().await.ok()
    }

    /// Starts to watch chunks. What changed up to the tick that [`Feed::since`] returns afterwards is the caller's to
    /// read; everything later comes as news.
    pub(crate) fn watch(&self, chunks: BTreeSet<ChunkPos>) -> Watch {
        let news = self.0.news.subscribe();
        let mut watched = lock(&self.0.watched);
        for at in &chunks {
            *watched.entry(*at).or_default() += 1;
        }
        Watch { feed: self.clone(), chunks, news }
    }

    /// Takes in committed ticks, oldest first. Returns the watched chunks they changed.
    fn take(&self, ticks: &[Committed]) -> BTreeSet<ChunkPos> {
        // What comes while we listen has just been committed, whatever the scheduler's clock says.
        let listened = *self.0.begun.borrow();
        {
            let (mut history, mut pace) = (lock(&self.0.history), lock(&self.0.pace));
            for tick in ticks {
                let since = if listened { Instant::now() } else { tick.since };
                pace.committed(tick.at);
                history.push(tick.tick, &tick.changed);
                self.0.now.send_replace(Now { tick: tick.tick, since });
            }
        }
        // After the ticks are known: whoever starts to watch from here on reads what they changed.
        let watched = lock(&self.0.watched);
        ticks.iter().flat_map(|tick| &tick.changed).filter(|at| watched.contains_key(at)).copied().collect()
    }

    /// Waits until the newest tick is known, or `stop`.
    pub(crate) async fn begun(&self, stop: &CancellationToken) {
        let mut begun = self.0.begun.subscribe();
        tokio::select! {
            _ = begun.wait_for(|begun| *begun) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Begins the pace anew after every cut-over, until `stop`: its pause is no slow tick.
    pub(crate) async fn forget_pauses(
        self,
        mut topology: watch::Receiver<Topology>,
        stop: CancellationToken,
    ) {
        let mut known = topology.borrow_and_update().serving.version;
        loop {
            let new = tokio::select! {
                new = topology.wait_for(|now| now.serving.version != known) => new.map(|now| now.serving.version),
                () = stop.cancelled() => return,
            };
            let Ok(new) = new else { return };
            known = new;
            *lock(&self.0.pace) = Pace::default();
        }
    }

    /// Follows the ticks until `stop`. Databases that do not answer are asked again; nothing is left out.
    pub(crate) async fn follow(self, mut ticks: Ticks, stop: CancellationToken) {
        loop {
            // At first only what is there already: a world that is paused must be served too.
            let wait = if *self.0.begun.borrow() { WAIT } else { Duration::ZERO };
            let new = tokio::select! {
                new = ticks.after(self.newest().tick, wait) => new,
                () = stop.cancelled() => return,
            };
            if new.is_empty() {
                self.0.begun.send_replace(true);
            } else {
                self.owe(self.take(&new));
            }
        }
    }

    /// Puts down what is to be told as of the newest tick.
    fn owe(&self, changed: BTreeSet<ChunkPos>) {
        let tick = self.newest().tick;
        self.0.owed.send_modify(|owed| {
            owed.tick = tick;
            owed.chunks.extend(changed);
        });
    }

    /// Tells what [`Feed::follow`] puts down, until `stop`. Apart from it: however long the shards take to answer, the
    /// newest tick is known.
    pub(crate) async fn tell(self, reader: Reader, stop: CancellationToken) {
        let mut owed = self.0.owed.subscribe();
        let telling = async {
            // The sender lives as long as self. What is put down while it is told comes in the next round; a round with
            // nothing new says a tick again, which subscribers know already.
            while owed.changed().await.is_ok() {
                let mut now = Owed::default();
                self.0.owed.send_if_modified(|owed| {
                    now = Owed { tick: owed.tick, chunks: std::mem::take(&mut owed.chunks) };
                    false
                });
                if let Some(chunks) = self.tell_now(&reader, now).await {
                    tokio::time::sleep(RETRY).await;
                    self.0.owed.send_modify(|owed| owed.chunks.extend(chunks));
                }
            }
        };
        stop.run_until_cancelled(telling).await;
    }

    /// Reads what is owed and tells everyone. Returns the chunks when they cannot be read now.
    async fn tell_now(&self, reader: &Reader, Owed { tick, chunks }: Owed) -> Option<BTreeSet<ChunkPos>> {
        let at: Vec<ChunkPos> = chunks.iter().copied().collect();
        match reader.area_at(tick, &at).await {
            Ok(area) => {
                // No receiver is no error: nobody watches.
                let _ = self.0.news.send(Arc::new(News::of(tick, &area)));
                None
            }
            Err(error) if error.is_retryable() => {
                tracing::debug!(tick, %error, "news cannot be read yet");
                Some(chunks)
            }
            Err(error) => {
                tracing::error!(tick, %error, "changed chunks cannot be read and are not told");
                None
            }
        }
    }
}

impl Watch {
    /// The chunks watched.
    pub(crate) fn chunks(&self) -> &BTreeSet<ChunkPos> {
        &self.chunks
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.feed.0.watched);
        for at in &self.chunks {
            if let Some(count) = watched.get_mut(at) {
                *count -= 1;
                if *count == 0 {
                    watched.remove(at);
                }
            }
        }
    }
}

/// Nothing that holds these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
