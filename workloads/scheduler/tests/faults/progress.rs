//! How many faulted ticks were equal, per stage, from run to run of the same build. Knows no ticks.

use std::fmt;
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

/// Counts per stage: observe, edit, move, commit.
#[derive(Debug, Default)]
pub(crate) struct Progress([usize; 4]);

impl Progress {
    /// What earlier runs of this very program have reached.
    pub(crate) fn load() -> Progress {
        let text = std::fs::read_to_string(file()).unwrap_or_default();
        let mut words = text.split_whitespace();
        let same = words.next() == Some(&build());
        let counts: Vec<usize> = words.filter(|_| same).filter_map(|word| word.parse().ok()).collect();
        Progress(counts.try_into().unwrap_or_default())
    }

    /// As many of each stage.
    pub(crate) fn from(count: usize) -> Progress {
        Progress([count; 4])
    }

    /// What came after `first` of each stage.
    pub(crate) fn since(&self, first: usize) -> Progress {
        Progress(self.0.map(|count| count - first))
    }

    pub(crate) fn add(&mut self, more: &Progress) {
        self.0.iter_mut().zip(more.0).for_each(|(count, more)| *count += more);
    }

    pub(crate) fn save(&self) {
        let [observe, edit, shift, commit] = self.0;
        let text = format!("{} {observe} {edit} {shift} {commit}\n", build());
        std::fs::write(file(), text).expect("progress is written");
    }

    /// The stage whose turn it is and the number of its next fault; none when each has `wanted`.
    pub(crate) fn next(&self, wanted: usize) -> Option<(usize, usize)> {
        let (stage, count) = self.0.iter().copied().enumerate().min_by_key(|(_, count)| *count)?;
        (count < wanted).then_some((stage, count))
    }

    pub(crate) fn equal(&mut self, stage: usize) {
        self.0[stage] += 1;
    }

    pub(crate) fn least(&self) -> usize {
        self.0.into_iter().min().unwrap_or(0)
    }

    pub(crate) fn counts(&self) -> [usize; 4] {
        self.0
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [observe, edit, shift, commit] = self.0;
        write!(f, "equal: observe {observe} edit {edit} move {shift} commit {commit}")
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tick_faults")
}

/// Scheduler, ticker and rules are all part of this program.
fn build() -> String {
    let program = std::env::current_exe().and_then(std::fs::read).expect("this program");
    format!("{:016x}", xxh3_64(&program))
}
