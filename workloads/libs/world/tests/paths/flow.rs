//! What ways cost: one field for a crowd, and one far plan, against A* by the crate `pathfinding` over the same steps.

// A bench prints its figures; nothing here reads outside input.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::land::{Ground, RADIUS};
use fortia_vec::{BlockPos, RegionPos};
use fortia_world::path::area::Area;
use fortia_world::path::goal::Goal;

const UNITS: usize = 10_000;
/// Units whose A* is measured; the time is scaled to all.
const SAMPLE: usize = 100;
const RUNS: usize = 7;
const TRIES: usize = 3;
const PLANS: usize = 200;
/// Steps a unit keeps of a plan.
const STEPS: usize = 16;

/// Numbers that look random and are the same in every run.
fn dice(n: usize) -> usize {
    let mut x = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 33) as usize
}

/// A* by the crate, over the steps of the area: the way and what it costs.
fn astar(area: &Area, from: BlockPos, to: BlockPos) -> Option<(Vec<BlockPos>, u32)> {
    let rest = |at: &BlockPos| at.x.abs_diff(to.x) + at.y.abs_diff(to.y);
    pathfinding::prelude::astar(&from, |at| area.neighbours(*at), rest, |at| *at == to)
}

/// Least, middle and largest of some values.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A goal anywhere in the region, and units all over it that can get there.
fn crowd(ground: &Ground, run: usize) -> (BlockPos, Vec<BlockPos>) {
    let mut area = ground.area();
    let goal = ground.top((dice(2 * run) % 128) as i32, (dice(2 * run + 1) % 128) as i32);
    let field = area.field(Goal::Cell(goal), false, 0, &mut ground.land());
    let places = (100..).map(|i| ground.top((dice(2 * i) % 128) as i32, (dice(2 * i + 1) % 128) as i32));
    let gets_there = |from: &BlockPos| area.follow(&field, *from).is_some();
    (goal, places.filter(gets_there).take(UNITS).collect())
}

#[test]
#[ignore = "a bench"]
fn bench_path_flow() {
    // Figures stand at the beginning of a line; the test's name was printed before.
    println!();
    let (mut ratios, mut flows, mut fields, mut singles) = (vec![], vec![], vec![], vec![]);
    for run in 0..RUNS {
        // Another world in each run, none chosen for the outcome.
        let ground = Ground::new(1 + run as u64);
        let (goal, units) = crowd(&ground, run);
        // The land is known to both sides, as after a walk to another goal. Then all of it: the field, and every unit's way
        // to its end.
        let sample: Vec<BlockPos> = (0..SAMPLE).map(|i| units[i * UNITS / SAMPLE]).collect();
        // The least of some tries on either side: what else the machine does is none of their cost.
        let (mut flow, mut made, mut single) = (Duration::MAX, Duration::MAX, Duration::MAX);
        for attempt in 0..TRIES {
            let mut area = ground.area();
            area.field(Goal::Cell(units[attempt]), false, 0, &mut ground.land());
            let began = Instant::now();
            let field = area.field(Goal::Cell(goal), false, 0, &mut ground.land());
            made = made.min(began.elapsed());
            let steps: usize =
                units.iter().map(|from| area.follow(&field, *from).unwrap().map(black_box).count()).sum();
            flow = flow.min(began.elapsed());
            let began = Instant::now();
            let longer: usize =
                sample.iter().map(|from| black_box(astar(&area, *from, goal)).unwrap().0.len()).sum();
            single = single.min(began.elapsed() * (UNITS / SAMPLE) as u32);
            assert!(steps > UNITS && longer > SAMPLE);
        }
        ratios.push(single.as_secs_f64() / flow.as_secs_f64());
        flows.push(micros(flow) / 1e3);
        fields.push(micros(made) / 1e3);
        singles.push(micros(single) / 1e3);
    }
    let (low, middle, high) = spread(ratios);
    println!(
        "figure path.flow_vs_astar {middle:.0} x (min {low:.0} max {high:.0}, {RUNS} runs, a world and a goal each)"
    );
    let (low, middle, high) = spread(flows);
    println!("  one field and {UNITS} whole ways along it: {middle:.1} ms (min {low:.1} max {high:.1})");
    let (low, middle, high) = spread(fields);
    println!("  of which the field: {middle:.1} ms (min {low:.1} max {high:.1})");
    let (low, middle, high) = spread(singles);
    println!(
        "  A* for each of {UNITS} units: {middle:.0} ms (min {low:.0} max {high:.0}), measured on {SAMPLE} and scaled"
    );
    plans();
}

/// Far plans on land that was walked on before, as in a tick, and on land never seen.
fn plans() {
    let (mut warm, mut cold, mut single, mut longer, mut ratio) = (vec![], vec![], vec![], vec![], vec![]);
    for run in 0..RUNS {
        let ground = Ground::new(1 + run as u64);
        let ends = ends(&ground);
        let mut area = Area::new(RegionPos::new(0, 0), RADIUS);
        let mut plan = |(from, to): &(BlockPos, BlockPos), limit| {
            black_box(area.plan(*from, Goal::Cell(*to), limit, &mut ground.raw())).steps.len()
        };
        let began = Instant::now();
        let first: usize = ends.iter().map(|ends| plan(ends, STEPS)).sum();
        cold.push(micros(began.elapsed()) / PLANS as f64);
        let began = Instant::now();
        let second: usize = ends.iter().map(|ends| plan(ends, STEPS)).sum();
        warm.push(micros(began.elapsed()) / PLANS as f64);
        assert_eq!((first, second), (PLANS * STEPS, PLANS * STEPS));
        let sample = &ends[..PLANS / 10];
        let ours: usize = sample.iter().map(|ends| plan(ends, usize::MAX)).sum();
        let known = ground.area();
        let began = Instant::now();
        let ways = sample.iter().map(|(from, to)| black_box(astar(&known, *from, *to)).unwrap().0.len() - 1);
        let theirs: usize = ways.sum();
        single.push(micros(began.elapsed()) / sample.len() as f64);
        longer.push(ours as f64 / theirs as f64);
        ratio.push(single[run] / warm[run]);
    }
    let (low, middle, high) = spread(warm);
    println!(
        "figure path.plan_us {middle:.1} us (min {low:.1} max {high:.1}, {RUNS} worlds, {PLANS} far plans each, land known)"
    );
    let (low, middle, high) = spread(cold);
    println!("  land unknown at the first plan: {middle:.1} us a plan (min {low:.1} max {high:.1})");
    let (low, middle, high) = spread(single);
    println!("  A* by pathfinding: {middle:.1} us (min {low:.1} max {high:.1}), whole ways");
    let (low, middle, high) = spread(ratio);
    println!(
        "  ratio {middle:.0} x (min {low:.0} max {high:.0}); plans have {:.2} times as many steps",
        spread(longer).1
    );
}

/// Places on opposite sides of the region, from one of which a way leads to the other.
fn ends(ground: &Ground) -> Vec<(BlockPos, BlockPos)> {
    let mut area = ground.area();
    let pairs = (0..).map(|i| {
        let v = |n: usize| dice(4 * i + n);
        let from = ground.top((v(0) % 32) as i32, (v(1) % 128) as i32);
        (from, ground.top((96 + v(2) % 32) as i32, (v(3) % 128) as i32))
    });
    let leads = |(from, to): &(BlockPos, BlockPos)| {
        area.plan(*from, Goal::Cell(*to), usize::MAX, &mut ground.land()).steps.last() == Some(to)
    };
    pairs.filter(leads).take(PLANS).collect()
}
