//! All cells of one chunk in which a unit can be, numbered. Knows the blocks of that chunk and nothing around it.

use fortia_vec::CHUNK;

use super::pillar::Pillar;
use crate::block::Block;
use crate::chunk::Column;

/// Pillars along each side of a chunk, and in all of it.
pub(super) const WIDTH: usize = CHUNK as usize;
pub(super) const PILLARS: usize = WIDTH * WIDTH;

/// The cells of one chunk. Equal surfaces are walked on alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// x fastest, then y.
    pillars: Vec<Pillar>,
    /// Number of the first cell of each pillar.
    first: Vec<u16>,
    /// Pillar and height of each cell, by its number: by pillar, then ascending.
    cells: Vec<(u8, u8)>,
}

impl Surface {
    /// The surface of a column.
    pub fn of(column: &Column) -> Surface {
        let (solid, water) = (column.which(Block::is_solid), column.which(|block| block == Block::Water));
        let pillars: Vec<Pillar> = solid.into_iter().zip(water).map(|(s, w)| Pillar::new(s, w)).collect();
        let mut first = Vec::with_capacity(PILLARS);
        let mut cells = Vec::with_capacity(2 * PILLARS);
        for (at, pillar) in pillars.iter().enumerate() {
            first.push(cells.len() as u16);
            cells.extend(pillar.cells().map(|z| (at as u8, z as u8)));
        }
        Surface { pillars, first, cells }
    }

    /// How many cells there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    #[inline]
    pub(super) fn pillar(&self, at: u8) -> Pillar {
        self.pillars[usize::from(at)]
    }

    /// Pillar and height of a cell.
    #[inline]
    pub(super) fn spot(&self, cell: u16) -> (u8, i32) {
        let (pillar, z) = self.cells[usize::from(cell)];
        (pillar, i32::from(z))
    }

    /// The number of a cell that is free.
    #[inline]
    pub(super) fn number(&self, pillar: u8, z: i32) -> u16 {
        self.first[usize::from(pillar)] + self.pillar(pillar).cells_below(z) as u16
    }

    /// The numbers of all cells of a pillar, ascending.
    pub(super) fn cells_of(&self, pillar: u8) -> std::ops::Range<u16> {
        let first = self.first[usize::from(pillar)];
        first..first + self.pillar(pillar).cells().count() as u16
    }
}

#[cfg(test)]
mod tests {
    use fortia_vec::{ChunkPos, LocalPos};

    use super::*;
    use crate::generate;

    #[test]
    fn every_cell_has_its_own_number() {
        for at in ChunkPos::within(2) {
            let surface = Surface::of(&generate::column(5, at));
            assert!(surface.len() >= PILLARS);
            for cell in 0..surface.len() as u16 {
                let (pillar, z) = surface.spot(cell);
                assert_eq!(surface.number(pillar, z), cell);
                assert!(surface.cells_of(pillar).contains(&cell));
            }
        }
    }

    #[test]
    fn planks_in_place_of_stone_and_ore_in_the_deep_change_nothing() {
        let mut column = generate::column(5, ChunkPos::default());
        let (top, _) = column.surface(3, 3).expect("ground");
        let before = Surface::of(&column);
        column.set(LocalPos { x: 3, y: 3, z: top }, Block::Planks);
        assert_eq!(Surface::of(&column), before);
        column.set(LocalPos { x: 3, y: 3, z: top }, Block::Air);
        assert_ne!(Surface::of(&column), before);
    }
}
