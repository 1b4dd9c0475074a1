//! Edits as a territory sees them: what units see of them in the tick in which they are made, and what they cost.

use std::time::{Duration, Instant};

use fortia_proto::tick::v1::{Edit, Letter, letter};
use fortia_proto::world::v1::{Action, Command, action};
use fortia_vec::{BlockPos, CHUNK, ChunkPos, regions_of};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Kind};
use fortia_world::generate::Generator;
use fortia_world::order::Order;
use fortia_world::step::Territory;
use fortia_world::{HEIGHT, wire};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Chunks from -16 to 16: 1,089 of them.
const RADIUS: u32 = 16;
/// Edits of each chunk in a tick.
const EDITS: u64 = 16;
const TICKS: u64 = 200;
const RUNS: usize = 5;
/// The height at which units stand on a plain.
const GROUND: i32 = 10;
/// The unit on it.
const UNIT: u64 = 1;

/// A letter that asks for an edit of a block, by a unit that stands beside it.
fn edit(id: u64, at: BlockPos, expect: Block, put: Block) -> Letter {
    let edit = Edit {
        id,
        unit: id,
        from: Some(wire::block_pos(at)),
        at: Some(wire::block_pos(at)),
        expect: expect.kind(),
        put: put.kind(),
        ..Edit::default()
    };
    Letter { to: Some(wire::region_pos(at.region())), kind: Some(letter::Kind::Edit(edit)) }
}

/// A world of columns, in one territory.
fn territory(radius: u32, column: impl Fn(ChunkPos) -> Column) -> Territory {
    let mut territory = Territory::new(regions_of(radius), radius);
    ChunkPos::within(radius).for_each(|at| territory.load(column(at)));
    territory
}

/// A chunk of flat ground: who stands on it is at this height.
fn plain(at: ChunkPos) -> Column {
    let blocks = (0..i32::from(HEIGHT)).flat_map(|z| {
        std::iter::repeat_n(if z < GROUND { Block::Stone } else { Block::Air }, (CHUNK * CHUNK) as usize)
    });
    Column::from_blocks(at, &blocks.collect::<Vec<_>>()).expect("a column")
}

/// Runs a tick in which ann's unit gets an order, and others ask for edits. Returns where the unit is then.
fn tick(territory: &mut Territory, tick: u64, order: Option<Order>, edits: Vec<Letter>) -> BlockPos {
    let command =
        order.map(|order| Command { unit: UNIT, order: Some(order.to_proto()), ..Command::default() });
    let action = command.map(|command| Action {
        id: 1,
        player: "ann".into(),
        kind: Some(action::Kind::Command(command)),
    });
    let region = territory.entity(UNIT).expect("the unit").at.region();
    let mut letters = territory.observe(tick, &[(region, action.into_iter().collect())]).expect("observed");
    letters.extend(edits);
    let outcomes = territory.edit(tick, letters).expect("edited");
    let arrivals = territory.shift(tick, outcomes).expect("moved");
    territory.commit(tick, arrivals).expect("committed");
    territory.entity(UNIT).expect("the unit").at
}

/// A plain with ann's unit on it.
fn unit_on_a_plain(at: BlockPos) -> Territory {
    let column = |of: ChunkPos| {
        let mut column = plain(of);
        column.set_entity(UNIT, of == at.chunk());
        column
    };
    let mut territory = territory(1, column);
    territory.load_entity(Entity::new(Kind::Handyman, UNIT, "ann", at, at));
    territory
}

/// Edits that put a wall, three blocks high.
fn wall(at: BlockPos) -> Vec<Letter> {
    (0..3).map(|up| edit(9 + up, at.offset(0, 0, up as i32), Block::Air, Block::Stone)).collect()
}

#[test]
fn a_unit_that_searches_its_way_sees_no_block_that_was_put_in_the_same_tick() {
    let from = BlockPos::new(3, 4, GROUND);
    let mut territory = unit_on_a_plain(from);
    let order = Order::Move { to: from.offset(5, 0, 0) };
    // It goes straight on, and is lifted onto the wall that it ran into.
    let on_top = from.offset(1, 0, 3);
    assert_eq!(tick(&mut territory, 1, Some(order), wall(from.offset(1, 0, 0))), on_top);
    // Now it sees what stands there: in the next tick nobody walks into a wall.
    let next = tick(&mut territory, 2, None, Vec::new());
    assert_eq!((next.x, next.y), (on_top.x + 1, on_top.y));
}

#[test]
fn a_unit_on_its_way_learns_in_the_tick_after_that_its_goal_is_gone() {
    let from = BlockPos::new(3, 4, GROUND);
    let mut territory = unit_on_a_plain(from);
    let goal = from.offset(9, 0, -1);
    let next = tick(&mut territory, 1, Some(Order::Mine { at: goal }), Vec::new());
    assert_eq!(next, from.offset(1, 0, 0));
    let mined = vec![edit(9, goal, Block::Stone, Block::Air)];
    assert_eq!(tick(&mut territory, 2, None, mined), from.offset(2, 0, 0), "it still sees a block to mine");
    assert_eq!(tick(&mut territory, 3, None, Vec::new()), from.offset(2, 0, 0));
    let unit = territory.entity(UNIT).expect("the unit");
    assert_eq!((unit.order, unit.outcome.as_str()), (Order::Hold, "there is nothing to mine"));
}

#[test]
fn a_unit_sees_the_block_of_the_tick_before_however_often_it_changes() {
    let at = BlockPos::new(3, 4, GROUND);
    let mut territory = unit_on_a_plain(at.offset(1, 0, 0));
    let order = Order::Move { to: at.offset(-3, 0, 0) };
    // Both are done, since each finds what it expects: the unit still sees the air of the tick before.
    let edits = (0..3).flat_map(|up| {
        let at = at.offset(0, 0, up);
        [edit(1, at, Block::Air, Block::Dirt), edit(2, at, Block::Dirt, Block::Stone)]
    });
    assert_eq!(tick(&mut territory, 1, Some(order), edits.collect()), at.offset(0, 0, 3));
    let there = territory.column(at.chunk()).expect("a column").get(at.local().expect("a place"));
    assert_eq!(there, Block::Stone);
}

/// Edits of all chunks, some of which meet.
fn edits(territory: &Territory, tick: u64) -> Vec<Letter> {
    let mut letters = Vec::new();
    for (chunk, i) in ChunkPos::within(RADIUS).flat_map(|at| (0..EDITS).map(move |i| (at, i))) {
        let chance = |of: u64| {
            xxh3_64_with_seed(&[chunk.x as u64, chunk.y as u64, of].map(u64::to_le_bytes).concat(), 7)
        };
        let (id, place) = (chance(tick << 32 | i), chance(chance(tick << 32 | i) % (4 * EDITS)));
        let (x, y, z) = (place % 16, place / 16 % 16, 2 + place / 256 % 32);
        let at = chunk.origin().offset(x as i32 % CHUNK, y as i32 % CHUNK, z as i32);
        let there = territory.column(chunk).expect("a column").get(at.local().expect("a place"));
        let put = if there == Block::Stone { Block::Dirt } else { Block::Stone };
        letters.push(edit(id, at, there, put));
    }
    letters
}

#[test]
#[ignore = "a bench: cargo test -p fortia-world --test edits -- --ignored --nocapture bench_edit_stage"]
fn bench_edit_stage() {
    println!("a letter has {} bytes", size_of::<Letter>());
    let generator = Generator::new(7);
    let mut territory = territory(RADIUS, |at| generator.column(at));
    let mut tick = 0;
    let mut runs = [const { Vec::new() }; 5];
    for _ in 0..RUNS {
        let mut took = [Duration::ZERO; 4];
        let mut made = 0;
        for _ in 0..TICKS {
            tick += 1;
            let letters = edits(&territory, tick);
            made += letters.len();
            let mut began = Instant::now();
            let mut lap =
                |stage: usize| took[stage] += std::mem::replace(&mut began, Instant::now()).elapsed();
            assert!(territory.observe(tick, &[]).expect("observed").is_empty());
            lap(0);
            let outcomes = territory.edit(tick, letters).expect("edited");
            lap(1);
            assert!(territory.shift(tick, outcomes).expect("moved").is_empty());
            lap(2);
            drop(territory.commit(tick, Vec::new()).expect("committed"));
            lap(3);
        }
        let each = |took: Duration| took.as_secs_f64() * 1e6 / made as f64;
        let all = took.map(each);
        runs.iter_mut()
            .zip(all.into_iter().chain([all.iter().sum()]))
            .for_each(|(runs, took)| runs.push(took));
    }
    for (stage, mut runs) in ["observe", "edit", "move", "commit", "tick"].into_iter().zip(runs) {
        runs.sort_by(f64::total_cmp);
        let (low, middle, high) = (runs[0], runs[RUNS / 2], runs[RUNS - 1]);
        let name = if stage == "tick" { String::new() } else { format!("_{stage}") };
        println!(
            "figure world.edit_us_per_edit{name} {middle:.4} us (min {low:.4} max {high:.4}, {RUNS} runs, {TICKS} ticks of {EDITS} edits in each of 1,089 chunks)"
        );
    }
}
