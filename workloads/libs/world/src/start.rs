//! Where players start and what their first units are called. Knows the seed's world, not what became of it.

use fortia_vec::{BlockPos, CHUNK, ChunkPos, LocalPos};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::HEIGHT;
use crate::block::Block;
use crate::chunk::Column;
use crate::generate::{Generator, landing};

/// Units a player starts with.
pub const UNITS: usize = crate::rules::FIRST_HANDYMEN;

/// Places tried at random before the middle of the world is searched.
const TRIES: u64 = 256;

/// How far from the middle, in chunks, that search goes: each chunk of it has to be made.
const SEARCHED: u32 = 16;

/// Where a player starts in a world of this radius (in chunks): on grass under open sky, spread evenly by name. In a
/// world with next to no grass it is any dry land near the middle, and without that the top of the column in the middle.
pub fn position(seed: u64, radius: u32, player: &str) -> BlockPos {
    let generator = Generator::new(seed);
    let name = xxh3_64_with_seed(player.as_bytes(), seed);
    let side = 2 * u64::from(radius.min((i32::MAX / CHUNK / 2) as u32)) + 1;
    let low = -((side / 2) as i32) * CHUNK;
    for attempt in 0..TRIES {
        let dice = xxh3_64_with_seed(&attempt.to_le_bytes(), name);
        let span = side * CHUNK as u64;
        let x = low + ((dice & 0xffff_ffff) % span) as i32;
        let y = low + ((dice >> 32) % span) as i32;
        let at = BlockPos::new(x, y, 0);
        let column = generator.column(at.chunk());
        if let Some((start, Block::Grass)) = spot(&column, at) {
            return start;
        }
    }
    let mut land = ChunkPos::within(radius.min(SEARCHED)).filter_map(|at| {
        let column = generator.column(at);
        places(at).find_map(|at| Some(spot(&column, at)?.0))
    });
    land.next().unwrap_or(BlockPos::new(0, 0, i32::from(HEIGHT)))
}

/// The cell above the ground there, if a unit can start on it, and the ground.
fn spot(column: &Column, at: BlockPos) -> Option<(BlockPos, Block)> {
    let local = at.local()?;
    let z = landing(column, local.x, local.y)?;
    Some((BlockPos { z: i32::from(z), ..at }, column.get(LocalPos { z: z - 1, ..local })))
}

/// The lowest blocks of a column.
fn places(at: ChunkPos) -> impl Iterator<Item = BlockPos> {
    (0..CHUNK).flat_map(move |x| (0..CHUNK).map(move |y| at.origin().offset(x, y, 0)))
}

/// The ids of a player's first `count` units; never 0.
pub fn unit_ids(player: &str, count: usize) -> Vec<u64> {
    // The number is hashed with the name: as a seed it collides for names of up to three letters.
    let id = |i: u64| xxh3_64(&[player.as_bytes(), &i.to_le_bytes()].concat());
    (0..count as u64).map(|i| id(i).max(1)).collect()
}

/// The id of a player's camp; never 0.
pub fn camp_id(player: &str) -> u64 {
    xxh3_64(&[player.as_bytes(), b"/camp"].concat()).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fortia_vec::LocalPos;
    use proptest::prelude::*;

    use super::*;
    use crate::block::Block;
    use crate::generate;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_player_starts_on_dry_land_inside_the_world(seed: u64, radius in 1u32..12, name in "[a-z]{1,12}") {
            let at = position(seed, radius, &name);
            prop_assert_eq!(at, position(seed, radius, &name));
            // Small worlds may be all sea; then the start is the sky above the middle.
            prop_assume!(at.z < i32::from(HEIGHT));
            prop_assert!(at.chunk().is_within(radius));
            let column = generate::column(seed, at.chunk());
            let block = |up: i32| at.offset(0, 0, up).local().map(|l: LocalPos| column.get(l)).unwrap();
            prop_assert!(block(-1).is_solid() && block(-1) != Block::Wood);
            prop_assert_eq!((block(0), block(1)), (Block::Air, Block::Air));
        }
    }

    #[test]
    fn players_are_spread_over_the_world() {
        let starts: Vec<_> = (0..60).map(|i| position(42, 8, &format!("player{i}"))).collect();
        assert!(starts.iter().all(|at| at.z < i32::from(HEIGHT)));
        let regions: BTreeSet<_> = starts.iter().map(|at| at.region()).collect();
        let places: BTreeSet<_> = starts.iter().collect();
        assert!(regions.len() >= 4 && places.len() > 55, "{regions:?}");
    }

    #[test]
    fn ids_differ_by_player_and_by_number() {
        let letters = || ('a'..='z').chain('0'..='9').map(String::from);
        let names = letters().chain(letters().flat_map(|a| letters().map(move |b| a.clone() + &b)));
        let ids: Vec<_> = names.flat_map(|name| unit_ids(&name, 3)).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert_eq!(unit_ids("ann", 2), unit_ids("ann", 3)[..2]);
    }
}
