//! The reader's rule of two-slot values: which of two ticks' values a reader of a committed tick sees. Pure.

use bytes::Bytes;

/// One of the two slots: the value as the tick left it; an empty value says the thing is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The tick that wrote it.
    pub tick: u64,
    /// What it wrote.
    pub value: Bytes,
}

/// Both slots are newer than the reader's committed tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooNew;

/// The value as of tick `committed`: that of the newest slot not newer than it.
///
/// # Errors
/// [`TooNew`] when both slots are newer: then the value of that tick is overwritten and the reader's tick is old.
pub fn read(slots: [Option<Slot>; 2], committed: u64) -> Result<Option<Bytes>, TooNew> {
    let full = slots.iter().all(Option::is_some);
    let newest =
        slots.into_iter().flatten().filter(|slot| slot.tick <= committed).max_by_key(|slot| slot.tick);
    match newest {
        Some(slot) if slot.value.is_empty() => Ok(None),
        Some(slot) => Ok(Some(slot.value)),
        None if full => Err(TooNew),
        // Written once only, by a tick not committed yet (or never): as of `committed` it did not exist.
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `fortia_slots` does, as a model.
    fn write(slots: &mut [Option<Slot>; 2], tick: u64, value: Bytes) {
        let tick_of = |slot: &Option<Slot>| slot.as_ref().map(|s| s.tick);
        let same = slots.iter().position(|slot| tick_of(slot) == Some(tick));
        let older = usize::from(tick_of(&slots[1]) < tick_of(&slots[0]));
        slots[same.unwrap_or(older)] = Some(Slot { tick, value });
    }

    fn value(tick: u64) -> Bytes {
        Bytes::from(tick.to_string())
    }

    #[test]
    fn a_value_never_written_is_absent() {
        assert_eq!(read([None, None], 7), Ok(None));
    }

    #[test]
    fn a_value_first_written_after_the_committed_tick_is_absent() {
        assert_eq!(read([Some(Slot { tick: 8, value: value(8) }), None], 7), Ok(None));
    }

    #[test]
    fn an_empty_value_is_a_tombstone() {
        let slots = [Some(Slot { tick: 3, value: value(3) }), Some(Slot { tick: 4, value: Bytes::new() })];
        assert_eq!(read(slots.clone(), 4), Ok(None));
        assert_eq!(read(slots, 3), Ok(Some(value(3))));
    }

    proptest! {
        #[test]
        fn readers_of_the_committed_tick_see_the_last_value_up_to_it(
            ticks in proptest::collection::btree_set(1u64..200, 1..20),
            half_written: bool,
        ) {
            // Ticks commit in order; the one after the last committed may be half written.
            let ticks: Vec<u64> = ticks.into_iter().collect();
            let mut slots = [None, None];
            for (i, tick) in ticks.iter().enumerate() {
                write(&mut slots, *tick, value(*tick));
                write(&mut slots, *tick, value(*tick));
                let last = if half_written && i > 0 { ticks[i - 1] } else { *tick };
                prop_assert_eq!(read(slots.clone(), last), Ok(Some(value(last))));
            }
        }

        #[test]
        fn a_reader_two_changes_behind_is_told_and_never_shown_another_tick(
            ticks in proptest::collection::btree_set(2u64..200, 3..20),
        ) {
            let ticks: Vec<u64> = ticks.into_iter().collect();
            let mut slots = [None, None];
            ticks.iter().for_each(|tick| write(&mut slots, *tick, value(*tick)));
            prop_assert_eq!(read(slots, ticks[ticks.len() - 2] - 1), Err(TooNew));
        }
    }
}
