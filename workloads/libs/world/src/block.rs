//! The kinds of blocks and what each is like. Knows nothing of where blocks are.

/// One kind of block. The number is what is stored and sent; it never changes its meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Block {
    /// Nothing.
    #[default]
    Air = 0,
    /// Rock; mining it gives stone.
    Stone = 1,
    /// Earth.
    Dirt = 2,
    /// Earth that grows.
    Grass = 3,
    /// Sand of shores and sea beds.
    Sand = 4,
    /// Still water; units swim in it, and would rather not.
    Water = 5,
    /// The trunk of a tree; chopping it gives wood.
    Wood = 6,
    /// The crown of a tree; units walk through it.
    Leaves = 7,
    /// Built from wood.
    Planks = 8,
    /// Built from stone.
    Wall = 9,
    /// The floor of the world; nobody can mine it.
    Bedrock = 10,
}

impl Block {
    /// All kinds, ascending.
    pub const ALL: [Block; 11] = [
        Block::Air,
        Block::Stone,
        Block::Dirt,
        Block::Grass,
        Block::Sand,
        Block::Water,
        Block::Wood,
        Block::Leaves,
        Block::Planks,
        Block::Wall,
        Block::Bedrock,
    ];

    /// The kind with this number, if there is one.
    pub fn from_kind(kind: u32) -> Option<Block> {
        Block::ALL.get(usize::try_from(kind).ok()?).copied()
    }

    /// The number that is stored and sent.
    pub const fn kind(self) -> u32 {
        self as u32
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Block> {
        Block::ALL.into_iter().find(|block| block.name() == name)
    }

    /// The lower-case name clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Block::Air => "air",
            Block::Stone => "stone",
            Block::Dirt => "dirt",
            Block::Grass => "grass",
            Block::Sand => "sand",
            Block::Water => "water",
            Block::Wood => "wood",
            Block::Leaves => "leaves",
            Block::Planks => "planks",
            Block::Wall => "wall",
            Block::Bedrock => "bedrock",
        }
    }

    /// Whether it fills its place: units stand on it and cannot enter it.
    pub const fn is_solid(self) -> bool {
        !matches!(self, Block::Air | Block::Water | Block::Leaves)
    }

    /// Whether a unit can mine it.
    pub const fn is_minable(self) -> bool {
        !matches!(self, Block::Air | Block::Water | Block::Bedrock)
    }

    /// Whether a unit can build something in its place.
    pub const fn is_replaceable(self) -> bool {
        matches!(self, Block::Air | Block::Water | Block::Leaves)
    }

    /// What a unit spends to build it, or `None` when it cannot be built.
    pub const fn cost(self) -> Option<Goods> {
        match self {
            Block::Planks => Some(Goods { wood: 1, stone: 0 }),
            Block::Wall => Some(Goods { wood: 0, stone: 1 }),
            _ => None,
        }
    }

    /// What a unit gains by mining or chopping it.
    pub const fn yields(self) -> Goods {
        match self {
            Block::Wood | Block::Planks => Goods { wood: 1, stone: 0 },
            Block::Stone | Block::Wall => Goods { wood: 0, stone: 1 },
            _ => Goods { wood: 0, stone: 0 },
        }
    }
}

/// What units carry, gain and spend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goods {
    /// Pieces of wood.
    pub wood: u32,
    /// Pieces of stone.
    pub stone: u32,
}

impl Goods {
    /// Both together; it stops at the largest number.
    pub const fn plus(self, other: Goods) -> Goods {
        Goods { wood: self.wood.saturating_add(other.wood), stone: self.stone.saturating_add(other.stone) }
    }

    /// What is left after `cost`, or `None` when there is too little.
    pub fn minus(self, cost: Goods) -> Option<Goods> {
        Some(Goods { wood: self.wood.checked_sub(cost.wood)?, stone: self.stone.checked_sub(cost.stone)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number_and_by_its_name() {
        for block in Block::ALL {
            assert_eq!(Block::from_kind(block.kind()), Some(block));
            assert_eq!(Block::from_name(block.name()), Some(block));
        }
        assert_eq!(Block::from_kind(11), None);
        assert_eq!(Block::from_kind(u32::MAX), None);
        assert_eq!(Block::from_name("cheese"), None);
    }

    #[test]
    fn nothing_can_be_built_from_thin_air() {
        let free = Block::ALL.into_iter().filter(|b| b.cost() == Some(Goods::default()));
        assert_eq!(free.count(), 0);
    }
}
