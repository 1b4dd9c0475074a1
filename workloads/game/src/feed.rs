//! Follows the committed ticks and tells every subscriber what changed where it watches. Each changed chunk that
//! anyone watches is read once a tick, however many watch it. Knows no HTTP.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fortia_common::pace::Pace;
use fortia_common::topology::{Phase, Topology};
use fortia_vec::ChunkPos;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::{History, Since};
use crate::news::News;
use crate::read::Reader;
use crate::ticks::{Committed, Ticks};

/// News kept for subscribers that are slow to take them; a slower one catches up from the history.
const NEWS: usize = 16;
/// How long to wait for a tick before asking again.
const WAIT: Duration = Duration::from_secs(5);
/// How long to wait for a tick before reading again what could not be read.
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
    news: broadcast::Sender<Arc<News>>,
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
            news: broadcast::Sender::new(NEWS),
            watched: Mutex::default(),
        }))
    }
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

    /// How many times as long as wanted the last ticks took; none before there are two.
    pub(crate) fn dilation(&self, wanted: Duration) -> Option<f64> {
        lock(&self.0.pace).dilation(wanted)
    }

    /// The newest tick and what changed after tick `after` up to it.
    pub(crate) fn since(&self, after: u64) -> (u64, Since) {
        let history = lock(&self.0.history);
        (self.0.now.borrow().tick, history.since(after))
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
    fn take(&self, ticks: Vec<Committed>) -> BTreeSet<ChunkPos> {
        let mut changed = BTreeSet::new();
        {
            let mut history = lock(&self.0.history);
            for tick in ticks {
                lock(&self.0.pace).committed(tick.at);
                changed.extend(tick.changed.iter().copied());
                self.0.now.send_replace(Now { tick: tick.tick, since: tick.since });
                history.push(tick.tick, tick.changed);
            }
        }
        // After the ticks are known: whoever starts to watch from here on reads what they changed.
        let watched = lock(&self.0.watched);
        changed.retain(|at| watched.contains_key(at));
        changed
    }

    /// Waits until the newest tick is known, or `stop`.
    pub(crate) async fn begun(&self, stop: &CancellationToken) {
        let mut begun = self.0.begun.subscribe();
        tokio::select! {
            _ = begun.wait_for(|begun| *begun) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Begins the pace anew whenever a hold begins or ends, until `stop`: a pause is no slow tick. The last tick before
    /// a hold may be heard of after its begin, so the end counts too; that it may cost the first tick after it does
    /// no harm.
    pub(crate) async fn forget_holds(self, mut topology: watch::Receiver<Topology>, stop: CancellationToken) {
        // With the version a hold that came and went between two looks is seen as well.
        let state = |now: &Topology| (now.phase.is_some_and(Phase::holds_tick), now.serving.version);
        let mut known = state(&topology.borrow_and_update());
        loop {
            let new = tokio::select! {
                new = topology.wait_for(|now| state(now) != known) => new.map(|now| state(&now)),
                () = stop.cancelled() => return,
            };
            let Ok(new) = new else { return };
            known = new;
            *lock(&self.0.pace) = Pace::default();
        }
    }

    /// Follows the ticks until `stop`. Databases that do not answer are asked again; nothing is left out.
    pub(crate) async fn follow(self, mut ticks: Ticks, reader: Reader, stop: CancellationToken) {
        let mut owed: Option<BTreeSet<ChunkPos>> = None;
        loop {
            let after = self.0.now.borrow().tick;
            // At first only what is there already: a world that is paused must be served too.
            let wait = match (*self.0.begun.borrow(), &owed) {
                (false, _) => Duration::ZERO,
                (true, Some(_)) => RETRY,
                (true, None) => WAIT,
            };
            let new = tokio::select! {
                new = ticks.after(after, wait) => new,
                () = stop.cancelled() => return,
            };
            if new.is_empty() {
                self.0.begun.send_replace(true);
            } else {
                owed.get_or_insert_default().extend(self.take(new));
            }
            if let Some(chunks) = owed.take() {
                owed = self.tell(&reader, chunks).await;
            }
        }
    }

    /// Reads these chunks and tells everyone. Returns them when they cannot be read now.
    async fn tell(&self, reader: &Reader, chunks: BTreeSet<ChunkPos>) -> Option<BTreeSet<ChunkPos>> {
        let tick = self.0.now.borrow().tick;
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
