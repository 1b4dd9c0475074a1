//! Players who write through the World API and remember what was answered, and players who read. Knows latencies and
//! gaps; nothing of migrations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fortia_rdb::RdbError;
use fortia_rdb::world::{Player, World};
use fortia_vec::BlockPos;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Players each writer has.
const NAMES: u64 = 100;

/// For how long it is remembered what was acknowledged before the last.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What is known of one player's record. Values grow.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The values that were acknowledged, and when; the last ones.
    acknowledged: VecDeque<(u64, Instant)>,
    /// One that was asked for since and not answered yet.
    open: Option<u64>,
    /// Those that were acknowledged later and may be gone, or not, with the server that acknowledged them.
    forgiven: Vec<u64>,
}

/// What all players have seen.
#[derive(Default)]
struct Seen {
    known: BTreeMap<String, Known>,
    writes: u64,
    /// Longest time between two acknowledged writes of one writer.
    gap: Duration,
    reads: Vec<Duration>,
    failed_reads: u64,
    last_failure: String,
    failed_writes: u64,
}

/// Writers and readers of one world; they end when dropped.
pub(crate) struct Players {
    seen: Arc<Mutex<Seen>>,
    pause: tokio::sync::watch::Sender<bool>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    writers: u64,
    world: World,
    idle: Arc<tokio::sync::Semaphore>,
}

impl Known {
    fn acknowledge(&mut self, value: u64) {
        self.acknowledged.push_back((value, Instant::now()));
        while self.acknowledged.len() > 1 && self.acknowledged[1].1.elapsed() > REMEMBERED {
            self.acknowledged.pop_front();
        }
        self.open = None;
        self.forgiven.clear();
    }

    fn last(&self) -> Option<u64> {
        self.acknowledged.back().map(|(value, _)| *value)
    }

    /// Whether this may be what is there.
    fn may_be(&self, is: Option<u64>) -> bool {
        is == self.last()
            || is.is_some() && (is == self.open || is.is_some_and(|is| self.forgiven.contains(&is)))
    }

    /// A server came back with `found`. How many values it lacks that it may lack, and are forgiven; none when there is one
    /// that it may not.
    fn forgive(&mut self, found: u64, may_lack: impl Fn(Instant) -> bool) -> Option<usize> {
        let lacking = |(value, _): &&(u64, Instant)| *value > found;
        if self.acknowledged.iter().filter(lacking).any(|(_, at)| !may_lack(*at)) {
            return None;
        }
        let gone: Vec<u64> = self.acknowledged.iter().filter(lacking).map(|one| one.0).collect();
        self.acknowledged.retain(|one| one.0 <= found);
        self.forgiven.extend(&gone);
        Some(gone.len())
    }
}

impl Seen {
    fn wrote(&mut self, name: String, value: u64, gap: Duration) {
        self.known.entry(name).or_default().acknowledge(value);
        self.writes += 1;
        self.gap = self.gap.max(gap);
    }

    fn failed(&mut self, why: &str) {
        self.failed_writes += 1;
        why.clone_into(&mut self.last_failure);
    }

    /// `known`: the player was there before the read began.
    fn read(&mut self, name: &str, known: bool, took: Duration, found: Result<Option<Player>, RdbError>) {
        match found {
            Ok(Some(_)) => self.reads.push(took),
            Ok(None) if !known => {}
            other => {
                self.failed_reads += 1;
                self.last_failure = format!("{name}: {other:?}");
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn player(value: u64) -> Player {
    Player { joined_ms: value, start: BlockPos { x: value as i32, y: 2, z: 3 } }
}

impl Players {
    /// Starts writers that begin a write every `every`, two keys each, and so many readers.
    pub(crate) fn start(world: &World, writers: u64, every: Duration, readers: u64) -> Players {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (pause, paused) = tokio::sync::watch::channel(false);
        let idle = Arc::new(tokio::sync::Semaphore::new(writers as usize));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for id in 0..writers {
            let writer = Writer {
                id,
                world: world.clone(),
                seen: Arc::clone(&seen),
                paused: paused.clone(),
                idle: Arc::clone(&idle),
            };
            tasks.spawn(writer.write(every, stop.clone()));
        }
        for id in 0..readers {
            tasks.spawn(read(id, writers, world.clone(), Arc::clone(&seen), stop.clone()));
        }
        Players { seen, pause, stop, tasks, writers, world: world.clone(), idle }
    }

    /// Begins to count anew: gaps, reads and failures.
    pub(crate) fn reset(&self) {
        let mut seen = lock(&self.seen);
        (seen.gap, seen.failed_reads, seen.failed_writes, seen.writes) = (Duration::ZERO, 0, 0, 0);
        seen.reads.clear();
    }

    /// Longest time in which some writer had no write acknowledged.
    pub(crate) fn gap(&self) -> Duration {
        lock(&self.seen).gap
    }

    /// Writes acknowledged, and those answered with an error.
    pub(crate) fn writes(&self) -> (u64, u64) {
        let seen = lock(&self.seen);
        (seen.writes, seen.failed_writes)
    }

    /// Reads that were answered, and the time that 99 of 100 took at most.
    pub(crate) fn reads(&self) -> (usize, Duration) {
        let mut reads = lock(&self.seen).reads.clone();
        reads.sort_unstable();
        (reads.len(), reads.get(reads.len() * 99 / 100).copied().unwrap_or_default())
    }

    /// Reads that failed, and why the last did.
    pub(crate) fn failed_reads(&self) -> (u64, String) {
        let seen = lock(&self.seen);
        (seen.failed_reads, seen.last_failure.clone())
    }

    /// Holds the writers between two writes, reads every player, and returns those whose last acknowledged write is not
    /// there; then they go on.
    pub(crate) async fn lost(&self) -> Vec<String> {
        self.pause.send_replace(true);
        let all =
            tokio::time::timeout(Duration::from_secs(30), self.idle.acquire_many(self.writers as u32)).await;
        let all = all.expect("every write is answered in the end").expect("writers live");
        let known = lock(&self.seen).known.clone();
        let mut lost = Vec::new();
        for (name, known) in known {
            let found = self.read(&name).await;
            if !known.may_be(found.as_ref().map(|player| player.joined_ms)) {
                lost.push(format!("{name}: {known:?} is known, {found:?} is there"));
            }
        }
        drop(all);
        self.pause.send_replace(false);
        lost
    }

    /// All players there may be.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.seen).known.keys().cloned().collect()
    }

    /// Forgives a server that came back with `found` of this player what it lacks, as far as it was acknowledged before
    /// `killed` and it may lack what was acknowledged at that moment. How many values that were.
    ///
    /// # Errors
    /// When it lacks another.
    pub(crate) fn forgive(
        &self,
        name: &str,
        found: u64,
        killed: Instant,
        may_lack: impl Fn(Instant) -> bool,
    ) -> Result<usize, String> {
        let mut seen = lock(&self.seen);
        let known = seen.known.entry(name.to_owned()).or_default();
        if known.acknowledged.back().is_some_and(|(_, at)| *at > killed) {
            // Written again since: what there was before is gone anyhow.
            return Ok(0);
        }
        let lost = format!("{name}: a server came back with {found}; it may not lack all of {known:?}");
        known.forgive(found, may_lack).ok_or(lost)
    }

    /// Servers may still be on their way back.
    async fn read(&self, name: &str) -> Option<Player> {
        let begun = Instant::now();
        loop {
            match self.world.player(name).await {
                Ok(found) => return found,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        self.pause.send_replace(false);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a player does not fail");
        }
    }
}

struct Writer {
    id: u64,
    world: World,
    seen: Arc<Mutex<Seen>>,
    paused: tokio::sync::watch::Receiver<bool>,
    idle: Arc<tokio::sync::Semaphore>,
}

impl Writer {
    async fn write(mut self, every: Duration, stop: CancellationToken) {
        let mut pace = tokio::time::interval(every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut value, mut last) = (0, None::<Instant>);
        while !stop.is_cancelled() {
            if *self.paused.borrow_and_update() {
                let _ = self.paused.wait_for(|paused| !paused).await;
                last = None;
            }
            pace.tick().await;
            let Ok(_busy) = self.idle.acquire().await else { return };
            value += 1;
            let name = format!("w{}:{}", self.id, value % NAMES);
            lock(&self.seen).known.entry(name.clone()).or_default().open = Some(value);
            // What is refused or not answered is asked for again, as a player would: the same once more.
            while let Err(error) = self.world.create_player(&name, &player(value), &[value % 50]).await {
                lock(&self.seen).failed(&error.to_string());
                if stop.is_cancelled() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let now = Instant::now();
            let gap = last.replace(now).map_or(Duration::ZERO, |last| now - last);
            lock(&self.seen).wrote(name, value, gap);
        }
    }
}

async fn read(id: u64, writers: u64, world: World, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let mut n = id;
    while !stop.is_cancelled() {
        n += 1;
        let name = format!("w{}:{}", n % writers, (n / writers) % NAMES);
        let known = lock(&seen).known.get(&name).is_some_and(|known| known.last().is_some());
        let begun = Instant::now();
        let found = world.player(&name).await;
        let took = begun.elapsed();
        lock(&seen).read(&name, known, took, found);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
