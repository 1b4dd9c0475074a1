//! How many orders a player may give: so many a tick, and some more at once. Knows no clock and no HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::order;

/// Orders a player may give in each period of the tick, in the long run.
pub(crate) const PER_PERIOD: u32 = 64;
/// Orders a player who gave none for a while may give at once. A region takes 4096 actions a tick from all.
pub(crate) const AT_ONCE: u32 = 256;
/// A period beyond this counts as this: nobody is told to wait for weeks.
const LONGEST: Duration = Duration::from_secs(60);
/// Players looked through for those who may be forgotten, at least.
const FORGET_FROM: usize = 1024;

// Any request that is allowed at all must be possible after some wait.
const _: () = assert!(order::LIMIT <= AT_ONCE as usize);

/// What is left to each player: a bucket of [`AT_ONCE`] that [`PER_PERIOD`] flow into.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// When a player's bucket will be full again; who is not here has a full one.
    full: HashMap<Arc<str>, Instant>,
    /// So many players are remembered before those with full buckets are forgotten.
    forget_at: usize,
}

impl Default for Allowances {
    fn default() -> Self {
        Allowances { full: HashMap::new(), forget_at: FORGET_FROM }
    }
}

impl Allowances {
    /// Takes `orders` off what `player` may give at `now`, when a tick is wanted every `period`.
    ///
    /// # Errors
    /// How long to wait until so many are allowed; nothing is taken then.
    pub(crate) fn take(
        &mut self,
        player: &Arc<str>,
        orders: u32,
        period: Duration,
        now: Instant,
    ) -> Result<(), Duration> {
        let time_of = |orders: u32| period.min(LONGEST) * orders / PER_PERIOD;
        let full = self.full.get(player).copied().unwrap_or(now).max(now) + time_of(orders);
        let wait = full.saturating_duration_since(now + time_of(AT_ONCE));
        if !wait.is_zero() {
            return Err(wait);
        }
        if self.full.len() >= self.forget_at {
            self.full.retain(|_, full| *full > now);
            self.forget_at = (self.full.len() * 2).max(FORGET_FROM);
        }
        self.full.insert(player.clone(), full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn drained(player: &Arc<str>, now: Instant) -> Allowances {
        let mut all = Allowances::default();
        assert_eq!(all.take(player, AT_ONCE, PERIOD, now), Ok(()));
        all
    }

    #[test]
    fn a_player_who_gave_all_at_once_waits_as_long_as_the_next_orders_take_to_come_back() {
        let (ann, now): (Arc<str>, _) = ("ann".into(), Instant::now());
        let mut all = drained(&ann, now);
        assert_eq!(all.take(&ann, 64, PERIOD, now), Err(PERIOD));
        assert_eq!(all.take(&ann, 16, PERIOD, now), Err(PERIOD / 4));
        assert_eq!(all.take(&ann, 64, PERIOD, now + PERIOD), Ok(()));
        assert_eq!(all.take(&ann, 1, PERIOD, now + PERIOD), Err(PERIOD / 64));
    }

    #[test]
    fn in_the_long_run_a_player_gives_no_more_than_a_ticks_share() {
        let (ann, begin): (Arc<str>, _) = ("ann".into(), Instant::now());
        let mut all = Allowances::default();
        let tries = (0..100_000).map(|ms| begin + Duration::from_millis(ms));
        let given = tries.filter(|now| all.take(&ann, 1, PERIOD, *now).is_ok()).count();
        let most = (AT_ONCE + 100 * PER_PERIOD) as usize;
        assert!((most - 2..=most).contains(&given), "{given}");
    }

    #[test]
    fn one_player_takes_nothing_from_another() {
        let (ann, eve, now): (Arc<str>, Arc<str>, _) = ("ann".into(), "eve".into(), Instant::now());
        let mut all = drained(&eve, now);
        assert_eq!(all.take(&ann, AT_ONCE, PERIOD, now), Ok(()));
    }

    #[test]
    fn who_gave_no_orders_for_a_while_is_forgotten() {
        let mut all = Allowances::default();
        let mut now = Instant::now();
        for i in 0..100_000 {
            now += Duration::from_millis(1);
            assert_eq!(all.take(&format!("player{i}").into(), 1, PERIOD, now), Ok(()));
        }
        assert!(all.full.len() <= FORGET_FROM, "{}", all.full.len());
    }
}
