//! All cells of an area in one piece, numbered from end to end, for searches that look at every one. Knows no goal.

use fortia_vec::CHUNK;

use super::area::{Area, CHUNKS, Cell, SIDE};
use super::pillar::Pillar;

/// Pillars along each side of a grid: those of the area, and one of rock on either side.
const WIDE: usize = SIDE * CHUNK as usize + 2;
/// From a pillar to the four beside it, in the grid.
const BESIDE: [usize; 4] = [WIDE, 1, WIDE.wrapping_neg(), 1usize.wrapping_neg()];

/// Where a cell is: its pillar, and blocks from the corner of the area.
#[derive(Debug, Clone, Copy)]
struct Spot {
    pillar: u32,
    place: (u8, u8, u8),
}

/// The cells of an area that was read.
#[derive(Debug)]
pub(super) struct Grid {
    /// Every pillar with the number of its first cell.
    pillars: Vec<(Pillar, u32)>,
    cells: Vec<Spot>,
    /// Number of the first cell of each chunk.
    pub(super) first: Vec<u32>,
}

impl Grid {
    pub(super) fn of(area: &Area) -> Grid {
        let mut pillars = vec![(Pillar::ROCK, 0); WIDE * WIDE];
        let mut cells = Vec::with_capacity(2 * WIDE * WIDE);
        let mut first = Vec::with_capacity(CHUNKS);
        for chunk in 0..CHUNKS {
            first.push(cells.len() as u32);
            let Some(surface) = area.surface(chunk as u8) else { continue };
            let side = CHUNK as usize;
            for at in 0..side * side {
                let (x, y) = (chunk / SIDE * side + at % side, chunk % SIDE * side + at / side);
                let (number, pillar) = ((x + 1) * WIDE + y + 1, surface.pillar(at as u8));
                pillars[number] = (pillar, cells.len() as u32);
                let spot = |z| Spot { pillar: number as u32, place: (x as u8, y as u8, z as u8) };
                cells.extend(pillar.cells().map(spot));
            }
        }
        Grid { pillars, cells, first }
    }

    /// How many cells there are.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn number(&self, cell: Cell) -> u32 {
        self.first[usize::from(cell.chunk)] + u32::from(cell.number)
    }

    /// Where a cell is, in blocks from the corner of the area.
    pub(super) fn place(&self, number: u32) -> (u8, u8, u8) {
        self.cells[number as usize].place
    }

    /// Calls `each` with every cell from which one step leads to this one, and what the step costs.
    pub(super) fn steps_back(&self, to: u32, mut each: impl FnMut(u32, u32)) {
        let Spot { pillar, place } = self.cells[to as usize];
        let (at, z) = (pillar as usize, i32::from(place.2));
        let (here, first) = self.pillars[at];
        let price = here.price(z);
        for side in BESIDE {
            let (there, first) = self.pillars[at.wrapping_add(side)];
            for from in here.steps_back(z, there) {
                each(first + there.cells_below(from), price);
            }
        }
        for from in here.rise_back(z) {
            each(first + here.cells_below(from), price);
        }
    }
}
