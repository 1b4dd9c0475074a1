//! Where a walk shall end. Knows places and reach, not who walks or why.

use fortia_vec::{BlockPos, Distance};

use super::pillar::Pillar;

/// Where a walk shall end. Units with equal goals share a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// In this cell, or in the free one nearest above or below it.
    Cell(BlockPos),
    /// So near that the place is in reach.
    Reach {
        /// The place.
        at: BlockPos,
        /// Blocks between, sideways: the longer axis counts.
        sideways: u32,
        /// The lowest and the highest the place may lie above the feet, in blocks.
        above: (i32, i32),
        /// Whether the unit's own body must not be in the place.
        clear: bool,
    },
}

impl Goal {
    /// The place the goal is about.
    pub const fn at(self) -> BlockPos {
        match self {
            Goal::Cell(at) | Goal::Reach { at, .. } => at,
        }
    }

    /// Whether a unit with its feet there is where it shall be; for a cell, when that is free.
    pub fn holds(self, feet: BlockPos) -> bool {
        match self {
            Goal::Cell(at) => at == feet,
            Goal::Reach { at, clear: true, .. } if at == feet || at == feet.up() => false,
            Goal::Reach { at, sideways, above, .. } => {
                let between = at.chebyshev(BlockPos { z: at.z, ..feet });
                between <= sideways && (above.0..=above.1).contains(&at.z.saturating_sub(feet.z))
            }
        }
    }

    /// How far the goal's cells are from its place, sideways.
    pub(super) const fn sideways(self) -> u32 {
        match self {
            Goal::Cell(_) => 0,
            Goal::Reach { sideways, .. } => sideways,
        }
    }

    /// Places of the pillars in which the goal's cells are.
    pub(super) fn pillars(self) -> impl Iterator<Item = BlockPos> {
        let (at, side) = (self.at(), self.sideways() as i32);
        (-side..=side).flat_map(move |x| (-side..=side).map(move |y| at.offset(x, y, 0)))
    }

    /// Heights of the goal's cells in the pillar at a place.
    pub(super) fn heights(self, at: BlockPos, pillar: Pillar) -> Vec<i32> {
        match self {
            Goal::Cell(goal) => pillar.nearest(goal.z.clamp(0, 64)).into_iter().collect(),
            Goal::Reach { .. } => {
                (1..=64).filter(|z| pillar.is_free(*z) && self.holds(BlockPos { z: *z, ..at })).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_builds_into_himself() {
        let at = BlockPos::new(4, 4, 20);
        let goal = Goal::Reach { at, sideways: 2, above: (-2, 3), clear: true };
        assert!(!goal.holds(at) && !goal.holds(at.down()) && goal.holds(at.offset(1, -2, 2)));
        assert!(!goal.holds(at.offset(3, 0, 0)) && !goal.holds(at.offset(0, 1, 3)));
    }
}
