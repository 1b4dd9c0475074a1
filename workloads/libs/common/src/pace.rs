//! How fast ticks really come, from the times at which they were committed. Pure; knows no clock and no database.

use std::collections::VecDeque;
use std::time::Duration;

/// Ticks that are looked at.
const TICKS: usize = 17;

/// The times of the last committed ticks.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Unix ms.
    committed: VecDeque<u64>,
}

impl Pace {
    /// Takes in a tick committed at this Unix time in ms.
    pub fn committed(&mut self, at: u64) {
        self.committed.push_back(at);
        if self.committed.len() > TICKS {
            self.committed.pop_front();
        }
    }

    /// The mean time between two of the last 17 ticks, in ms; none before there are two.
    pub fn period_ms(&self) -> Option<f64> {
        let (first, last) = (self.committed.front()?, self.committed.back()?);
        let between = self.committed.len() - 1;
        // A clock that was set back says nothing.
        (between > 0).then(|| last.saturating_sub(*first) as f64 / between as f64)
    }

    /// How many times as long as wanted ticks take, over the last 17: 1 is on time, 2 is a world at half its speed.
    /// None before there are two ticks.
    pub fn dilation(&self, wanted: Duration) -> Option<f64> {
        let wanted = wanted.as_secs_f64() * 1000.0;
        self.period_ms().filter(|_| wanted > 0.0).map(|real| real / wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(times: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::default();
        times.into_iter().for_each(|at| pace.committed(at));
        pace
    }

    #[test]
    fn dilation_is_the_real_period_of_the_last_ticks_by_the_wanted_one() {
        let wanted = Duration::from_millis(50);
        assert_eq!(pace([]).dilation(wanted), None);
        assert_eq!(pace([1000]).dilation(wanted), None);
        assert_eq!(pace((0..40).map(|tick| 1000 + tick * 50)).dilation(wanted), Some(1.0));
        assert_eq!(pace((0..40).map(|tick| 1000 + tick * 125)).dilation(wanted), Some(2.5));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let slow = (0..20).map(|tick| tick * 1000);
        let then_on_time = (0..17).map(|tick| 50_000 + tick * 50);
        assert_eq!(pace(slow.chain(then_on_time)).period_ms(), Some(50.0));
    }
}
