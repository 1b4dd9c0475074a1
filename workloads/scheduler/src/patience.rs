//! How long a stage may take before the tickers that have not answered lose their regions. Pure; knows durations, no
//! clock and no tickers.
//!
//! There is nothing to set: a deadline that is too short would stop a world whose stages are long, so it follows what
//! stages take and doubles whenever the tick fails.

use std::collections::VecDeque;
use std::time::Duration;

/// Shortest deadline: a busy host may keep a process from running for this long.
const LEAST: Duration = Duration::from_millis(250);
/// Longest deadline, and the longest while regions are loaded: a world is as large as it is, and who is told to begin again
/// begins with nothing.
const MOST: Duration = Duration::from_secs(60);
const MOST_LOADING: Duration = Duration::from_secs(1200);
/// How many periods a stage may take.
const PERIODS: u32 = 5;
/// How many times as long as the longest stage of the last ticks a stage may take.
const LONGEST: u32 = 8;
/// How many times as long a stage may take in which tickers load their regions.
const LOADING: u32 = 6;
/// Stages that are remembered: those of 16 ticks.
const STAGES: usize = 64;

/// What is known of the last stages.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    took: VecDeque<Duration>,
}

impl Patience {
    /// Takes in how long a stage took that was answered by all. Stages in which regions were loaded count as what they
    /// would have been without.
    pub(crate) fn answered(&mut self, took: Duration, loads: bool) {
        self.took.push_back(if loads { took / LOADING } else { took });
        if self.took.len() > STAGES {
            self.took.pop_front();
        }
    }

    /// The deadline of the next stage, after so many runs of its tick have failed.
    pub(crate) fn deadline(&self, period: Duration, loads: bool, failures: u32) -> Duration {
        let longest = self.took.iter().max().copied().unwrap_or_default();
        let usual = LEAST.max(period * PERIODS).max(longest * LONGEST) * if loads { LOADING } else { 1 };
        // The first time somebody died, most likely; from the second on it may have been the deadline.
        let most = if loads { MOST_LOADING } else { MOST };
        usual.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_deadline_is_five_periods_and_six_times_that_while_regions_are_loaded() {
        let patience = Patience::default();
        assert_eq!(patience.deadline(1000 * MS, false, 0), 5000 * MS);
        assert_eq!(patience.deadline(1000 * MS, true, 0), 30_000 * MS);
        assert_eq!(patience.deadline(MS, false, 0), LEAST);
    }

    #[test]
    fn a_world_whose_stages_are_long_is_given_the_time_they_take() {
        let mut patience = Patience::default();
        patience.answered(200 * MS, false);
        assert_eq!(patience.deadline(50 * MS, false, 0), 1600 * MS);
        (0..STAGES).for_each(|_| patience.answered(MS, false));
        assert_eq!(
            patience.deadline(50 * MS, false, 0),
            250 * MS,
            "it is forgotten when they are short again"
        );
        patience.answered(600 * MS, true);
        assert_eq!(patience.deadline(50 * MS, false, 0), 800 * MS);
    }

    #[test]
    fn a_tick_that_fails_again_and_again_is_given_more_time_up_to_a_minute_and_more_while_it_loads() {
        let patience = Patience::default();
        let deadlines: Vec<_> =
            (0..4).map(|failures| patience.deadline(100 * MS, false, failures) / 500).collect();
        assert_eq!(deadlines, [MS, MS, 2 * MS, 4 * MS]);
        assert_eq!(patience.deadline(1000 * MS, false, 40), MOST);
        assert_eq!(patience.deadline(1000 * MS, true, 40), MOST_LOADING);
    }
}
