//! The last stage of generation, and of every look at a chunk: which blocks nobody can see. Knows chunks, no seed.
//!
//! The flags are computed, not stored: that takes some microseconds, while stored ones would have to be kept right by
//! every edit, also in the chunk next door, which another ticker may own.

use crate::block::Block;
use crate::chunk::{Column, Lines};

const SIDE: usize = 16;

/// Which blocks of a column are hidden: solid, with something solid on every side. `around` are the columns to the
/// west, east, south and north; one that is not known counts as open. Below the world nobody looks up.
pub fn hidden(column: &Column, around: [Option<&Column>; 4]) -> Lines {
    let solid = column.which(Block::is_solid);
    let [west, east, south, north] =
        around.map(|side| side.map_or([0; SIDE * SIDE], |column| column.which(Block::is_solid)));
    std::array::from_fn(|here| {
        let (x, y) = (here % SIDE, here / SIDE);
        let sides = [
            if x > 0 { solid[here - 1] } else { west[here + SIDE - 1] },
            if x < SIDE - 1 { solid[here + 1] } else { east[here + 1 - SIDE] },
            if y > 0 { solid[here - SIDE] } else { south[here + SIDE * (SIDE - 1)] },
            if y < SIDE - 1 { solid[here + SIDE] } else { north[here - SIDE * (SIDE - 1)] },
        ];
        let (above, below) = (solid[here] >> 1, solid[here] << 1 | 1);
        sides.into_iter().fold(solid[here] & above & below, |hidden, side| hidden & side)
    })
}

#[cfg(test)]
mod tests {
    use fortia_vec::{BlockPos, ChunkPos};

    use super::*;
    use crate::HEIGHT;
    use crate::generate::Generator;

    #[test]
    fn a_block_is_hidden_when_no_face_of_it_is_open() {
        let generator = Generator::new(5);
        let at = ChunkPos::new(2, -1);
        let near: Vec<Column> =
            generator.columns(&[(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)].map(|(x, y)| at.offset(x, y)));
        let flags = hidden(&near[0], [Some(&near[1]), Some(&near[2]), Some(&near[3]), Some(&near[4])]);
        let solid = |block: BlockPos| {
            let column = near.iter().find(|column| column.at() == block.chunk()).unwrap();
            block.z < 0 || block.local().is_some_and(|local| column.get(local).is_solid())
        };
        let mut count = 0;
        for (here, line) in flags.into_iter().enumerate() {
            for z in 0..i32::from(HEIGHT) {
                let block = at.origin().offset(here as i32 % 16, here as i32 / 16, z);
                let sides = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)];
                let closed = sides.into_iter().all(|(x, y, z)| solid(block.offset(x, y, z)));
                assert_eq!(line >> z & 1 == 1, solid(block) && closed, "{block}");
                count += line >> z & 1;
            }
        }
        assert!(count > 1000, "{count} hidden blocks: the test shows nothing");
    }

    #[test]
    fn what_an_unknown_neighbour_might_show_is_not_hidden() {
        let full =
            Column::from_blocks(ChunkPos::default(), &vec![Block::Stone; crate::chunk::VOLUME]).unwrap();
        let flags = hidden(&full, [None; 4]);
        assert_eq!((flags[0], flags[17]), (0, u64::MAX >> 1));
        assert_eq!(hidden(&full, [Some(&full); 4]), [u64::MAX >> 1; 256]);
    }
}
