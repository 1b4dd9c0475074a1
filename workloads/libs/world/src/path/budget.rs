//! Who may search for a way in this tick, and how much. Knows players, units and numbers; knows no land.
//!
//! It remembers nothing from tick to tick: turns rotate by the tick's number, so that a territory that was thrown away and
//! loaded anew hands out the same turns.

use std::collections::{BTreeMap, BTreeSet};

/// Cells that the units of one region look at in one tick, about: who has not begun by then waits for the next tick.
pub const CELLS: u64 = 1 << 20;

/// The units that want a way, in the order of their turns: always one of the player whose searches cost least so far.
#[derive(Debug, Clone)]
pub struct Turns {
    left: u64,
    /// By player, in this tick's order: units still to come, last first.
    units: Vec<Vec<u64>>,
    /// Players with units to come: what they spent, then their place in the order.
    players: BTreeSet<(u64, usize)>,
}

/// One unit's turn.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// The unit.
    pub unit: u64,
    player: usize,
    spent: u64,
}

impl Turns {
    /// The turns of a tick for units (owner, id), with so many cells to spend.
    pub fn new<'a>(units: impl IntoIterator<Item = (&'a str, u64)>, cells: u64, tick: u64) -> Turns {
        let mut by_player = BTreeMap::<&str, Vec<u64>>::new();
        for (owner, id) in units {
            by_player.entry(owner).or_default().push(id);
        }
        let count = by_player.len().max(1) as u64;
        let mut units: Vec<Vec<u64>> = by_player.into_values().collect();
        let first = (tick % count) as usize % units.len().max(1);
        units.rotate_left(first);
        for units in &mut units {
            units.sort_unstable();
            let first = tick / count % units.len().max(1) as u64;
            units.rotate_left(first as usize);
            units.reverse();
        }
        let players = (0..units.len()).map(|player| (0, player)).collect();
        Turns { left: cells, units, players }
    }

    /// The next unit, while there is something left to spend. Its cost must be told with [`Turns::spend`].
    pub fn next_turn(&mut self) -> Option<Turn> {
        if self.left == 0 {
            return None;
        }
        let (spent, player) = self.players.pop_first()?;
        let unit = self.units[player].pop()?;
        Some(Turn { unit, player, spent })
    }

    /// Takes the cells a turn's search looked at from what is left; the last search may take more than that.
    pub fn spend(&mut self, turn: Turn, cells: u64) {
        self.left = self.left.saturating_sub(cells);
        if !self.units[turn.player].is_empty() {
            self.players.insert((turn.spent + cells, turn.player));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who gets a turn in a tick when each search costs what `cost` says.
    fn served(units: &[(&'static str, u64)], cells: u64, tick: u64, cost: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut turns = Turns::new(units.iter().copied(), cells, tick);
        let mut served = Vec::new();
        while let Some(turn) = turns.next_turn() {
            served.push(turn.unit);
            let cells = cost(turn.unit);
            turns.spend(turn, cells);
        }
        served
    }

    #[test]
    fn all_units_get_a_turn_when_there_is_enough_for_all() {
        let units = [("ann", 3), ("ann", 1), ("bob", 2)];
        for tick in 0..7 {
            let mut served = served(&units, 100, tick, |_| 1);
            served.sort_unstable();
            assert_eq!(served, [1, 2, 3]);
        }
        assert_eq!(served(&[], 100, 5, |_| 1), [0; 0]);
    }

    #[test]
    fn a_player_with_a_thousand_units_takes_no_more_than_one_with_ten() {
        let units: Vec<_> =
            (0..1000).map(|id| ("ann", id)).chain((1000..1010).map(|id| ("bob", id))).collect();
        for tick in 0..9 {
            let served = served(&units, 20, tick, |_| 1);
            assert_eq!(served.len(), 20);
            assert_eq!(served.iter().filter(|id| **id >= 1000).count(), 10);
        }
    }

    #[test]
    fn dear_searches_are_paid_by_who_orders_them() {
        let units: Vec<_> = (0..100).map(|id| ("ann", id)).chain((100..200).map(|id| ("bob", id))).collect();
        let served = served(&units, 100, 3, |id| if id < 100 { 10 } else { 1 });
        let dear = served.iter().filter(|id| **id < 100).count();
        assert!((5..=6).contains(&dear) && served.len() - dear >= 40, "{served:?}");
    }

    #[test]
    fn who_waits_gets_a_turn_soon_whatever_others_want() {
        let units: Vec<_> = (0..7)
            .flat_map(|p| (0..9).map(move |i| (["a", "b", "c", "d", "e", "f", "g"][p], i * 7 + p as u64)))
            .collect();
        for (_, unit) in &units {
            let turn = (0..7 * 9).find(|tick| served(&units, 1, 100 + tick, |_| 1) == [*unit]);
            assert!(turn.is_some(), "{unit} starves");
        }
    }
}
