//! Wood and stone, as units carry and players hold them. Knows how goods add up, not what anything costs.

/// Wood and stone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goods {
    /// Pieces of wood.
    pub wood: u32,
    /// Pieces of stone.
    pub stone: u32,
}

impl Goods {
    /// Nothing.
    pub const NONE: Goods = Goods { wood: 0, stone: 0 };

    /// So many pieces of wood and of stone.
    pub const fn new(wood: u32, stone: u32) -> Goods {
        Goods { wood, stone }
    }

    /// Both together; it stops at the largest number.
    pub const fn plus(self, other: Goods) -> Goods {
        Goods { wood: self.wood.saturating_add(other.wood), stone: self.stone.saturating_add(other.stone) }
    }

    /// What is left after `cost`, or `None` when there is too little.
    pub fn minus(self, cost: Goods) -> Option<Goods> {
        Some(Goods { wood: self.wood.checked_sub(cost.wood)?, stone: self.stone.checked_sub(cost.stone)? })
    }

    /// What is missing for `cost`; nothing when there is enough.
    pub const fn lacks(self, cost: Goods) -> Goods {
        Goods { wood: cost.wood.saturating_sub(self.wood), stone: cost.stone.saturating_sub(self.stone) }
    }

    /// Pieces altogether.
    pub const fn pieces(self) -> u32 {
        self.wood.saturating_add(self.stone)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn who_is_given_what_he_lacks_can_pay(wood in 0u32..99, stone in 0u32..99, w in 0u32..99, s in 0u32..99) {
            let (has, cost) = (Goods::new(wood, stone), Goods::new(w, s));
            let lacks = has.lacks(cost);
            prop_assert_eq!(lacks == Goods::NONE, has.minus(cost).is_some());
            prop_assert!(has.plus(lacks).minus(cost).is_some());
        }
    }
}
