//! How hard a pod may work, by what reads of the same servers take meanwhile. Knows durations and how to probe; knows
//! nothing of the work.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fortia_rdb::migrate::engine::Engine;
use futures::future::join_all;

/// Time between two probes of a server.
const EVERY: Duration = Duration::from_millis(10);
/// Probes before the work that say what a quiet server takes.
const QUIET: usize = 50;
/// Probes judged together.
const WINDOW: usize = 20;
/// Slow reads are those that take so many times what slow ones took before.
const ALLOWED: u32 = 2;
/// Of a hundred reads so many are not slow.
const USUAL: usize = 90;
/// The least share of its time in which a lane works: nothing stands still for ever.
const LEAST: f64 = 0.05;
/// The share a throttled pod begins with.
const FIRST: f64 = 0.3;
const SLOWER: f64 = 0.7;
const FASTER: f64 = 0.03;

/// Lanes that work at once: servers answer one while another's batch is put together.
const LANES: usize = 3;
/// Names looked at in one step of a scan.
const NAMES: u32 = 512;
/// Of what is done at once without a throttle, one with a limit does this part: a shard that carries answers nobody else
/// meanwhile.
const PART: usize = 4;

/// The pace of a pod.
pub(crate) struct Pace {
    /// None: as fast as it goes.
    limit: Option<Duration>,
    shards: Vec<u32>,
    laws: Mutex<Vec<Law>>,
}

/// What one server's answers allow: less at once when they are slow, more by and by when they are not.
#[derive(Clone, Debug)]
struct Law {
    limit: Duration,
    quiet: Vec<Duration>,
    window: Vec<Duration>,
    duty: f64,
}

impl Law {
    fn new(limit: Duration) -> Law {
        Law { limit, quiet: Vec::new(), window: Vec::new(), duty: FIRST }
    }

    fn took(&mut self, time: Duration) {
        if self.quiet.len() < QUIET {
            self.quiet.push(time);
            if self.quiet.len() == QUIET {
                self.limit = allowed(self.limit, &mut self.quiet);
            }
            return;
        }
        self.window.push(time);
        if self.window.len() == WINDOW {
            let slow = quantile(&mut self.window, USUAL) > self.limit;
            self.duty = if slow { (self.duty * SLOWER).max(LEAST) } else { (self.duty + FASTER).min(1.0) };
            self.window.clear();
        }
    }
}

/// What a read may take, by what reads took before the work began: at most the limit, and no more than players would feel.
fn allowed(limit: Duration, quiet: &mut [Duration]) -> Duration {
    let felt = ALLOWED * quantile(quiet, USUAL);
    // A server that is slow by itself is not made faster by a pod that works less.
    limit.min(felt).max(ALLOWED * quantile(quiet, 50))
}

/// The time that so many of a hundred do not pass.
fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

impl Pace {
    /// Reads of these shards shall take no longer than the limit, or than they take now.
    pub(crate) fn new(limit: Option<Duration>, shards: impl IntoIterator<Item = u32>) -> Pace {
        let shards: Vec<u32> = shards.into_iter().collect();
        let law = Law::new(limit.unwrap_or_default());
        Pace { limit, laws: Mutex::new(vec![law; shards.len()]), shards }
    }

    /// The share of its time in which a lane works: what the slowest server allows.
    fn duty(&self) -> f64 {
        match self.limit {
            Some(_) => self.laws().iter().map(|law| law.duty).fold(1.0, f64::min),
            None => 1.0,
        }
    }

    /// How many keys a batch takes that may have so many.
    pub(crate) fn batch(&self, most: usize) -> usize {
        if self.limit.is_some() { (most / PART).max(1) } else { most }
    }

    /// How many lanes work at once.
    pub(crate) fn lanes(&self) -> usize {
        if self.limit.is_some() { 1 } else { LANES }
    }

    /// How many names one step of a scan looks at.
    pub(crate) fn names(&self) -> u32 {
        self.batch(NAMES as usize) as u32
    }

    /// Rests after work that took so long.
    pub(crate) async fn rest(&self, worked: Duration) {
        let duty = self.duty();
        if duty < 1.0 {
            tokio::time::sleep(worked.mul_f64(1.0 / duty - 1.0)).await;
        }
    }

    /// Learns what the servers take before the work begins.
    pub(crate) async fn calibrate(&self, engine: &Engine) {
        if self.limit.is_none() {
            return;
        }
        let learn = |(at, shard): (usize, &u32)| {
            let shard = *shard;
            async move {
                for _ in 0..QUIET {
                    self.probe(engine, at, shard).await;
                }
            }
        };
        join_all(self.shards.iter().enumerate().map(learn)).await;
    }

    /// Goes on probing. Never ends.
    pub(crate) async fn probing(&self, engine: &Engine) -> Infallible {
        if self.limit.is_none() {
            return std::future::pending().await;
        }
        let probe = |(at, shard): (usize, &u32)| {
            let shard = *shard;
            async move {
                loop {
                    self.probe(engine, at, shard).await;
                }
            }
        };
        join_all(self.shards.iter().enumerate().map(probe)).await.pop().unwrap_or_else(|| unreachable!())
    }

    async fn probe(&self, engine: &Engine, at: usize, shard: u32) {
        // A server that does not answer is the lanes' trouble, not slow.
        if let Ok(took) = engine.probe(shard).await
            && let Some(law) = self.laws().get_mut(at)
        {
            law.took(took);
        }
        tokio::time::sleep(EVERY).await;
    }

    fn laws(&self) -> MutexGuard<'_, Vec<Law>> {
        self.laws.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(probes: impl IntoIterator<Item = Duration>) -> Law {
        let mut law = Law::new(2 * MS);
        (0..QUIET).for_each(|_| law.took(MS));
        probes.into_iter().for_each(|time| law.took(time));
        law
    }

    #[test]
    fn slow_reads_slow_the_work_at_once_and_quick_ones_let_it_recover_by_and_by() {
        assert_eq!(after([]).duty, FIRST);
        assert_eq!(after([3 * MS; WINDOW]).duty, FIRST * SLOWER);
        assert_eq!(after([3 * MS; 2 * WINDOW]).duty, FIRST * SLOWER * SLOWER);
        assert_eq!(after([3 * MS; 100 * WINDOW]).duty, LEAST);
        let recovered = after([3 * MS; WINDOW].into_iter().chain([MS; 2 * WINDOW])).duty;
        assert!((recovered - FIRST * SLOWER - 2.0 * FASTER).abs() < 1e-9, "{recovered}");
        assert_eq!(after([MS; 100 * WINDOW]).duty, 1.0);
    }

    #[test]
    fn one_slow_read_in_ten_is_no_reason() {
        let one = |i: usize| if i.is_multiple_of(10) { 50 * MS } else { MS };
        assert_eq!(after((0..100 * WINDOW).map(one)).duty, 1.0);
    }

    #[test]
    fn reads_become_no_more_than_twice_as_slow_however_much_the_limit_would_allow() {
        let allowed = |limit: Duration, quiet: [Duration; 4]| {
            let mut quiet = quiet;
            super::allowed(limit, &mut quiet)
        };
        let (quick, slow) = ([MS / 10, MS / 10, MS / 5, MS / 5], [MS, MS, 2 * MS, 5 * MS]);
        assert_eq!(allowed(2 * MS, quick), 2 * MS / 5);
        assert_eq!(allowed(MS / 4, quick), MS / 4);
        assert_eq!(allowed(2 * MS, slow), 2 * MS);
    }

    #[test]
    fn a_server_that_is_slow_by_itself_does_not_stop_the_work() {
        let mut law = Law::new(2 * MS);
        (0..QUIET + 100 * WINDOW).for_each(|_| law.took(5 * MS));
        assert_eq!(law.duty, 1.0);
    }

    #[tokio::test]
    async fn without_a_limit_nothing_rests_and_nothing_is_done_in_small_parts() {
        let (free, bound) = (Pace::new(None, 0..3), Pace::new(Some(MS), 0..3));
        assert_eq!((free.duty(), free.lanes(), free.batch(128)), (1.0, LANES, 128));
        assert_eq!(
            (bound.duty(), bound.lanes(), bound.batch(128), bound.batch(1)),
            (FIRST, 1, 128 / PART, 1)
        );
    }
}
