//! A timing wheel: who is to be woken in which tick. Knows ids and ticks, not what happens then.
//!
//! It is memory only: what is due is stored in the entities, and loading them fills the wheel. A tick looks at one slot,
//! so that those who wait cost nothing until their tick, but for one look a turn.

use std::collections::BTreeSet;

/// Slots of the wheel; most waits are shorter than one turn.
const SLOTS: u64 = 256;

/// Who is to be woken when.
#[derive(Debug, Clone)]
pub(super) struct Wheel {
    /// Ticks and ids; the slot is the tick modulo the number of slots.
    slots: Vec<BTreeSet<(u64, u64)>>,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { slots: vec![BTreeSet::new(); SLOTS as usize] }
    }
}

impl Wheel {
    /// Wakes `id` in `tick`. Waking it again in the same tick changes nothing.
    pub(super) fn set(&mut self, tick: u64, id: u64) {
        self.slots[(tick % SLOTS) as usize].insert((tick, id));
    }

    /// Those to be woken in this tick, ascending; call it once a tick. Some may have left or wait for something else.
    pub(super) fn take(&mut self, tick: u64) -> Vec<u64> {
        let slot = &mut self.slots[(tick % SLOTS) as usize];
        let later = slot.split_off(&(tick + 1, 0));
        let woken: BTreeSet<u64> = std::mem::replace(slot, later).into_iter().map(|(_, id)| id).collect();
        woken.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everybody_is_woken_once_in_their_tick(
            begin in 0u64..u64::MAX - 5000,
            waits in prop::collection::vec((0u64..2000, any::<u64>()), 0..60),
        ) {
            let mut wheel = Wheel::default();
            let mut wanted = BTreeMap::<u64, BTreeSet<u64>>::new();
            for (wait, id) in waits {
                wheel.set(begin + wait, id);
                wanted.entry(begin + wait).or_default().insert(id);
            }
            for tick in begin..begin + 2000 {
                let ids: Vec<u64> = wanted.remove(&tick).into_iter().flatten().collect();
                prop_assert_eq!(wheel.take(tick), ids);
            }
        }
    }
}
