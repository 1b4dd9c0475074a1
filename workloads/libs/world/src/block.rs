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
    /// Where a player started; it stays for ever.
    Camp = 11,
    /// A house; it goes when its entity does.
    House = 12,
    /// Barracks; they go when their entity does.
    Barracks = 13,
}

impl Block {
    /// All kinds, ascending.
    pub const ALL: [Block; 14] = [
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
        Block::Camp,
        Block::House,
        Block::Barracks,
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
            Block::Camp => "camp",
            Block::House => "house",
            Block::Barracks => "barracks",
        }
    }

    /// Whether it fills its place: units stand on it and cannot enter it.
    pub const fn is_solid(self) -> bool {
        !matches!(self, Block::Air | Block::Water | Block::Leaves)
    }

    /// Whether a unit can mine it.
    pub const fn is_minable(self) -> bool {
        !self.is_building() && !matches!(self, Block::Air | Block::Water | Block::Bedrock)
    }

    /// Whether it is the block of a building, which has an owner.
    pub const fn is_building(self) -> bool {
        matches!(self, Block::Camp | Block::House | Block::Barracks)
    }

    /// Whether a unit can build something in its place.
    pub const fn is_replaceable(self) -> bool {
        matches!(self, Block::Air | Block::Water | Block::Leaves)
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
        assert_eq!(Block::from_kind(14), None);
        assert_eq!(Block::from_kind(u32::MAX), None);
        assert_eq!(Block::from_name("cheese"), None);
    }
}
