//! Which chunks the last ticks changed, so that a subscriber can go on where it stopped. Knows no I/O.

use std::collections::{BTreeSet, VecDeque};

use fortia_vec::ChunkPos;

/// Ticks remembered.
const TICKS: usize = 1024;

/// The last committed ticks without a gap, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    ticks: VecDeque<(u64, Vec<ChunkPos>)>,
}

/// What became of the world since some tick.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// These chunks were changed by the ticks after it.
    Changed(BTreeSet<ChunkPos>),
    /// It is too long ago, or in the future: everything may have changed.
    Unknown,
}

impl History {
    /// Adds a committed tick. A gap makes everything before it forgotten; a tick that is known already is ignored.
    pub(crate) fn push(&mut self, tick: u64, changed: Vec<ChunkPos>) {
        match self.ticks.back() {
            Some((last, _)) if tick <= *last => return,
            Some((last, _)) if tick != last + 1 => self.ticks.clear(),
            _ => {}
        }
        self.ticks.push_back((tick, changed));
        if self.ticks.len() > TICKS {
            self.ticks.pop_front();
        }
    }

    /// The chunks changed after tick `after`, up to the newest known.
    pub(crate) fn since(&self, after: u64) -> Since {
        let known = match (self.ticks.front(), self.ticks.back()) {
            (Some((first, _)), Some((last, _))) => after.saturating_add(1) >= *first && after <= *last,
            _ => after == 0,
        };
        if !known {
            return Since::Unknown;
        }
        let later = self.ticks.iter().filter(|(tick, _)| *tick > after);
        Since::Changed(later.flat_map(|(_, changed)| changed.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: i32) -> ChunkPos {
        ChunkPos::new(x, 0)
    }

    fn history(ticks: std::ops::RangeInclusive<u64>) -> History {
        let mut history = History::default();
        for tick in ticks {
            history.push(tick, vec![at(tick as i32), at(0)]);
        }
        history
    }

    #[test]
    fn a_subscriber_gets_every_chunk_changed_since_its_last_tick_once() {
        let history = history(5..=8);
        assert_eq!(history.since(6), Since::Changed([at(0), at(7), at(8)].into()));
        assert_eq!(history.since(4), Since::Changed([at(0), at(5), at(6), at(7), at(8)].into()));
        assert_eq!(history.since(8), Since::Changed(BTreeSet::new()));
    }

    #[test]
    fn a_tick_too_old_or_in_the_future_is_unknown() {
        let history = history(5..=8);
        assert_eq!(history.since(3), Since::Unknown);
        assert_eq!(history.since(9), Since::Unknown);
        assert_eq!(History::default().since(0), Since::Changed(BTreeSet::new()));
        assert_eq!(History::default().since(1), Since::Unknown);
    }

    #[test]
    fn a_gap_makes_what_was_before_it_unknown() {
        let mut history = history(5..=8);
        history.push(10, vec![at(3)]);
        assert_eq!(history.since(8), Since::Unknown);
        assert_eq!(history.since(9), Since::Changed([at(3)].into()));
    }

    #[test]
    fn only_so_many_ticks_are_remembered() {
        let history = history(1..=TICKS as u64 + 5);
        assert_eq!(history.since(4), Since::Unknown);
        assert!(matches!(history.since(5), Since::Changed(_)));
    }
}
