//! Orders for the units of the test's players: enough for every tick to move, mine, build and fight across regions.
//! Knows the reference world; what it asks for depends on nothing else but the tick's number.

use fortia_proto::world::v1::{self as world, Action, Command, Spawn, action};
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::entity::Entity;
use fortia_world::order::Order;
use fortia_world::{start, wire};

use crate::reference::Reference;

/// Who plays.
pub(crate) const PLAYERS: [&str; 6] = ["ann", "bob", "cat", "dan", "eve", "fay"];
/// Half the side of the square units are sent about in, in blocks: the corner of four regions is its middle.
const SQUARE: i32 = 24;

/// Numbers by chance, the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn around(&mut self, reach: i32) -> i32 {
        self.throw(2 * reach as u64 + 1) as i32 - reach
    }
}

/// What the players do when they join: one spawn each, near the corner of four regions.
pub(crate) fn join(reference: &Reference) -> Vec<(RegionPos, Action)> {
    let mut dice = Dice(1);
    let spawn = |player: &&str| {
        let at = (0..1000).find_map(|_| ground(reference, dice.around(SQUARE), dice.around(SQUARE)));
        let at = at.unwrap_or_else(|| start::position(42, 4, player));
        let units = start::unit_ids(player, 2);
        let spawn = Spawn { owner: (*player).into(), at: Some(wire::block_pos(at)), units };
        (at.region(), Action { id: 1, player: (*player).into(), kind: Some(action::Kind::Spawn(spawn)) })
    };
    PLAYERS.iter().map(spawn).collect()
}

/// Two orders after a tick.
pub(crate) fn orders(reference: &Reference) -> Vec<(RegionPos, Action)> {
    let units = reference.units();
    let mut dice = Dice(reference.tick * 7919);
    let mut actions = Vec::new();
    for number in 0..2 {
        if units.is_empty() {
            break;
        }
        let unit = &units[dice.throw(units.len() as u64) as usize];
        let order = order(reference, &units, unit, &mut dice);
        let command = Command {
            unit: unit.id,
            order: Some(order.to_proto()),
            at: Some(wire::block_pos(unit.at)),
            seen: reference.tick,
        };
        let kind = Some(action::Kind::Command(command));
        let id = reference.tick * 8 + number;
        actions.push((unit.at.region(), world::Action { id, player: unit.owner.clone(), kind }));
    }
    actions
}

fn order(reference: &Reference, units: &[Entity], unit: &Entity, dice: &mut Dice) -> Order {
    let (x, y, z) = (dice.around(3), dice.around(3), dice.around(1));
    let near = unit.at.offset(x, y, z);
    match dice.throw(10) {
        0..=3 => {
            let to = ground(reference, dice.around(SQUARE), dice.around(SQUARE)).unwrap_or(near);
            Order::Move { to }
        }
        4..=5 => Order::Mine { at: unit.at.offset(x, y, -1) },
        6 => Order::Chop { at: near },
        7..=8 => Order::Build { at: near, block: if x % 2 == 0 { Block::Wall } else { Block::Planks } },
        _ => {
            let other = &units[dice.throw(units.len() as u64) as usize];
            Order::Attack { target: other.id, at: other.at, seen: reference.tick }
        }
    }
}

/// The cell above the ground there, on dry land.
fn ground(reference: &Reference, x: i32, y: i32) -> Option<BlockPos> {
    let block = |at: BlockPos| Some(reference.column(at.chunk())?.get(at.local()?));
    let top = (1..i32::from(HEIGHT))
        .rev()
        .map(|z| BlockPos::new(x, y, z))
        .find(|at| block(at.down()).is_some_and(|below| below.is_solid() && below != Block::Wood))?;
    let free = [top, top.up()].into_iter().all(|at| block(at) == Some(Block::Air));
    free.then_some(top)
}
