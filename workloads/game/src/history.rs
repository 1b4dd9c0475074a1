//! Which tick changed a chunk last, so that a subscriber can go on where it stopped. Knows no I/O.

use std::collections::HashMap;

use fortia_vec::ChunkPos;

/// Chunks remembered. A bucket of the table is 17 bytes, and it never has more than 2^18 of them: 4.5 MB at most.
const CHUNKS: usize = 100_000;

/// The last tick that changed each chunk, for all ticks after some tick and without a gap.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What changed up to this tick is not known.
    begin: u64,
    /// The newest tick taken in.
    newest: Option<u64>,
    last: HashMap<ChunkPos, u64>,
}

/// What became of some chunks since some tick.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// These were changed by the ticks after it, in the order asked.
    Changed(Vec<ChunkPos>),
    /// It is too long ago, or in the future: all may have changed.
    Unknown,
}

impl History {
    /// Adds a committed tick. A gap makes everything before it forgotten; a tick that is known already is ignored.
    pub(crate) fn push(&mut self, tick: u64, changed: &[ChunkPos]) {
        if self.newest.is_some_and(|newest| tick <= newest) {
            return;
        }
        if self.newest.is_none_or(|newest| tick != newest + 1) {
            self.last.clear();
            self.begin = tick.saturating_sub(1);
        }
        self.newest = Some(tick);
        if changed.len() > CHUNKS {
            self.last.clear();
            self.begin = tick;
            return;
        }
        self.make_room(changed.len());
        self.last.extend(changed.iter().map(|at| (*at, tick)));
    }

    /// Which of the chunks `of` were changed after tick `after`, up to the newest known. Costs one look per chunk of
    /// `of`, however many ticks there were.
    pub(crate) fn since<'a>(&self, after: u64, of: impl IntoIterator<Item = &'a ChunkPos>) -> Since {
        if after < self.begin || after > self.newest.unwrap_or_default() {
            return Since::Unknown;
        }
        let is_later = |at: &&ChunkPos| self.last.get(*at).is_some_and(|tick| *tick > after);
        Since::Changed(of.into_iter().filter(is_later).copied().collect())
    }

    /// Forgets the oldest ticks, whole ones, when there is no room for `more` chunks. Half of the room is made free at
    /// once, so that this is rare.
    fn make_room(&mut self, more: usize) {
        if self.last.len() + more <= CHUNKS {
            return;
        }
        let kept = (CHUNKS / 2).min(CHUNKS - more);
        let mut ticks: Vec<u64> = self.last.values().copied().collect();
        if kept < ticks.len() {
            // Of the ticks from the newest on, the first that no longer fits: it goes, with all before it.
            let (_, first_gone, _) = ticks.select_nth_unstable_by(kept, |a, b| b.cmp(a));
            self.begin = self.begin.max(*first_gone);
        }
        let begin = self.begin;
        self.last.retain(|_, tick| *tick > begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: u64) -> ChunkPos {
        ChunkPos::new(x as i32, 0)
    }

    /// Every tick changes the chunk of its number, and chunk 0.
    fn history(ticks: std::ops::RangeInclusive<u64>) -> History {
        let mut history = History::default();
        for tick in ticks {
            history.push(tick, &[at(tick), at(0)]);
        }
        history
    }

    fn changed(chunks: &[u64]) -> Since {
        Since::Changed(chunks.iter().map(|x| at(*x)).collect())
    }

    #[test]
    fn a_subscriber_gets_every_chunk_it_watches_that_changed_since_its_last_tick_once() {
        let history = history(5..=8);
        let watched: Vec<ChunkPos> = [0, 5, 6, 8, 9].map(at).into();
        assert_eq!(history.since(6, &watched), changed(&[0, 8]));
        assert_eq!(history.since(4, &watched), changed(&[0, 5, 6, 8]));
        assert_eq!(history.since(8, &watched), changed(&[]));
    }

    #[test]
    fn a_tick_too_old_or_in_the_future_is_unknown() {
        let history = history(5..=8);
        assert_eq!(history.since(3, &[at(0)]), Since::Unknown);
        assert_eq!(history.since(9, &[at(0)]), Since::Unknown);
        assert_eq!(History::default().since(0, &[at(0)]), changed(&[]));
        assert_eq!(History::default().since(1, &[at(0)]), Since::Unknown);
    }

    #[test]
    fn a_gap_makes_what_was_before_it_unknown_and_a_known_tick_changes_nothing() {
        let mut history = history(5..=8);
        history.push(7, &[at(3)]);
        assert_eq!(history.since(4, &[at(3)]), changed(&[]));
        history.push(10, &[at(3)]);
        assert_eq!(history.since(8, &[at(3)]), Since::Unknown);
        assert_eq!(history.since(9, &[at(3)]), changed(&[3]));
    }

    #[test]
    fn a_world_that_changes_in_few_places_is_remembered_however_many_ticks_there_were() {
        let mut history = History::default();
        for tick in 1..=100_000 {
            history.push(tick, &[at(tick % 8)]);
        }
        assert_eq!(history.since(0, &[at(1), at(9)]), changed(&[1]));
        assert_eq!(history.since(99_999, &[at(1), at(0)]), changed(&[0]));
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_unknown_never_unchanged() {
        let mut history = History::default();
        let per_tick = 1000;
        for tick in 1..=1000 {
            let chunks: Vec<ChunkPos> = (0..per_tick).map(|i| at(tick * per_tick + i)).collect();
            history.push(tick, &chunks);
            assert!(history.last.len() <= CHUNKS && history.last.capacity() <= 1 << 18);
        }
        let known = |after: u64| history.since(after, &[at((after + 1) * per_tick)]);
        let oldest = (0..1000).find(|after| known(*after) != Since::Unknown).expect("some are known");
        assert!((900..=950).contains(&oldest), "{oldest}");
        for after in oldest..1000 {
            assert_eq!(known(after), changed(&[(after + 1) * per_tick]));
        }
    }

    #[test]
    fn a_tick_that_changes_more_than_can_be_remembered_begins_anew() {
        let mut history = history(1..=3);
        let all: Vec<ChunkPos> = (0..=CHUNKS as u64).map(at).collect();
        history.push(4, &all);
        assert_eq!(history.since(3, &[at(1)]), Since::Unknown);
        history.push(5, &[at(1)]);
        assert_eq!(history.since(4, &[at(1), at(2)]), changed(&[1]));
    }
}
