//! The numbers of play: what everything costs, takes, reaches, hurts and carries. Data only; it knows no world.
//!
//! docs/rules.md tells the same to players; a test compares them.

use crate::block::Block;
use crate::entity::Kind;
use crate::goods::Goods;

/// What a player's camp holds when it is pitched.
pub const FIRST_STOCK: Goods = Goods::new(20, 20);
/// Handymen a player starts with.
pub const FIRST_HANDYMEN: usize = 2;
/// Blocks a unit reaches sideways to work, and at which it unloads.
pub const REACH: u32 = 2;
/// Blocks a unit reaches below its feet.
pub const REACH_DOWN: i32 = 2;
/// Blocks a unit reaches above its feet.
pub const REACH_UP: i32 = 3;
/// Blocks above its feet at which a unit fells a trunk from below.
pub const FELL_UP: i32 = 8;

/// Ticks the record of a dead fighter or a destroyed building is kept for its owner to see.
pub const REMEMBERED: u64 = 3600;

/// What one kind of entity is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindRules {
    /// The kind.
    pub kind: Kind,
    /// Health of a new one.
    pub health: u32,
    /// Pieces of wood and stone it carries at most.
    pub carries: u32,
    /// How it attacks, if it does.
    pub blow: Option<Blow>,
    /// Whether it can be attacked.
    pub attackable: bool,
    /// Ticks after its death at which it is back; without, it is gone for good.
    pub returns_after: Option<u64>,
    /// Names of the orders it takes.
    pub orders: &'static [&'static str],
}

/// One blow of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// Health it takes.
    pub damage: u32,
    /// Blocks it reaches, in any direction.
    pub range: u32,
    /// Ticks until the next one.
    pub rest: u64,
}

/// Something that is made from goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product<T> {
    /// What it is.
    pub what: T,
    /// What it costs.
    pub cost: Goods,
    /// Ticks until it is ready.
    pub ticks: u64,
}

/// Every kind of entity, in the order of [`Kind::ALL`].
pub const KINDS: [KindRules; 5] = [
    KindRules {
        kind: Kind::Handyman,
        health: 60,
        carries: 16,
        blow: None,
        attackable: true,
        returns_after: Some(20),
        orders: &["hold", "move", "chop", "mine", "build"],
    },
    KindRules {
        kind: Kind::Fighter,
        health: 100,
        carries: 0,
        blow: Some(Blow { damage: 20, range: 2, rest: 2 }),
        attackable: true,
        returns_after: None,
        orders: &["hold", "move", "attack"],
    },
    KindRules {
        kind: Kind::Camp,
        health: 1000,
        carries: 0,
        blow: None,
        attackable: false,
        returns_after: None,
        orders: &["hold"],
    },
    KindRules {
        kind: Kind::House,
        health: 200,
        carries: 0,
        blow: None,
        attackable: true,
        returns_after: None,
        orders: &["hold"],
    },
    KindRules {
        kind: Kind::Barracks,
        health: 300,
        carries: 0,
        blow: None,
        attackable: true,
        returns_after: None,
        orders: &["hold", "train"],
    },
];

/// What handymen build.
pub const BUILDINGS: [Product<Block>; 4] = [
    Product { what: Block::Planks, cost: Goods::new(1, 0), ticks: 0 },
    Product { what: Block::Wall, cost: Goods::new(0, 1), ticks: 0 },
    Product { what: Block::House, cost: Goods::new(6, 2), ticks: 10 },
    Product { what: Block::Barracks, cost: Goods::new(8, 6), ticks: 15 },
];

/// What barracks train.
pub const RECRUITS: [Product<Kind>; 1] = [Product { what: Kind::Fighter, cost: Goods::new(2, 2), ticks: 8 }];

/// What a unit gains by chopping or mining a block; all others give nothing.
pub const YIELDS: [(Block, Goods); 4] = [
    (Block::Wood, Goods::new(1, 0)),
    (Block::Planks, Goods::new(1, 0)),
    (Block::Stone, Goods::new(0, 1)),
    (Block::Wall, Goods::new(0, 1)),
];

/// What a kind is like.
pub const fn of(kind: Kind) -> &'static KindRules {
    &KINDS[kind as usize]
}

/// What building this block takes, if units can build it.
pub fn building(block: Block) -> Option<Product<Block>> {
    BUILDINGS.into_iter().find(|product| product.what == block)
}

/// What training this kind takes, if it can be trained.
pub fn recruit(kind: Kind) -> Option<Product<Kind>> {
    RECRUITS.into_iter().find(|product| product.what == kind)
}

/// What a unit gains by chopping or mining the block.
pub fn yields(block: Block) -> Goods {
    YIELDS.into_iter().find(|(of, _)| *of == block).map_or(Goods::NONE, |(_, goods)| goods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_rules() {
        for kind in Kind::ALL {
            assert_eq!(of(kind).kind, kind);
            assert!(of(kind).health > 0 && of(kind).orders.contains(&"hold"));
        }
    }

    #[test]
    fn nothing_is_made_from_thin_air() {
        assert!(BUILDINGS.iter().all(|product| product.cost.pieces() > 0));
        assert!(RECRUITS.iter().all(|product| product.cost.pieces() > 0));
    }

    #[test]
    fn what_is_torn_down_gives_no_more_than_it_cost() {
        for (block, goods) in YIELDS {
            let cost = building(block).map(|product| product.cost);
            assert!(cost.is_none_or(|cost| cost.minus(goods).is_some()), "{block:?}");
        }
    }

    #[test]
    fn a_player_can_build_barracks_and_train_from_the_first_stock() {
        let costs = [building(Block::Barracks).map(|p| p.cost), recruit(Kind::Fighter).map(|p| p.cost)];
        let all = costs.into_iter().flatten().fold(Goods::NONE, Goods::plus);
        assert!(FIRST_STOCK.minus(all).is_some());
    }
}
