//! Ways over the land of one region: what a plan and a field promise, and what is remembered of them.

// What a test stands on may end it: nothing here reads outside input.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::land::{Ground, RADIUS};
use fortia_vec::{BlockPos, ChunkPos, Distance, LocalPos, RegionPos};
use fortia_world::HEIGHT;
use fortia_world::block::Block;
use fortia_world::path::area::Area;
use fortia_world::path::goal::Goal;
use proptest::prelude::*;

/// What it costs to get from a place to every other.
fn costs(area: &Area, from: BlockPos) -> BTreeMap<BlockPos, u32> {
    let mut costs = BTreeMap::from([(from, 0)]);
    let mut open = BinaryHeap::from([(Reverse(0), from)]);
    while let Some((Reverse(cost), at)) = open.pop() {
        if costs[&at] < cost {
            continue;
        }
        for (next, price) in area.neighbours(at) {
            let known = costs.get(&next).copied().unwrap_or(u32::MAX);
            if cost + price < known {
                costs.insert(next, cost + price);
                open.push((Reverse(cost + price), next));
            }
        }
    }
    costs
}

/// What a way costs; it must be one.
fn gone(area: &Area, from: BlockPos, way: &[BlockPos]) -> u32 {
    let mut at = from;
    let step = |next: &BlockPos| {
        let found = area.neighbours(at).into_iter().find(|(to, _)| to == next);
        at = *next;
        found.unwrap_or_else(|| panic!("no step to {next}")).1
    };
    way.iter().map(step).sum()
}

/// The end of a way, which may be where it begins.
fn end(from: BlockPos, way: &[BlockPos]) -> BlockPos {
    way.last().copied().unwrap_or(from)
}

/// The way along the goal's field, as a unit of a crowd goes it.
fn follow(area: &mut Area, ground: &Ground, goal: Goal, from: BlockPos) -> Vec<BlockPos> {
    let field = area.field(goal, false, 1, &mut ground.land());
    let whole = area.field(goal, true, 1, &mut ground.land());
    let cut_off: Vec<_> = area.follow(&whole, from).unwrap().collect();
    match area.follow(&field, from) {
        Some(steps) => {
            assert_eq!(steps.collect::<Vec<_>>(), cut_off, "both fields lead who can get there the same way");
            cut_off
        }
        None => cut_off,
    }
}

/// Everything a way may be asked for: from where, to where.
fn journey() -> impl Strategy<Value = (u64, (i32, i32), (i32, i32))> {
    (0u64..60, (0..128, 0..128), (-16..144, -16..144))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_gets_there_if_anything_does_and_hardly_longer((seed, from, to) in journey()) {
        let ground = Ground::new(seed);
        let (from, to) = (ground.top(from.0, from.1), ground.top(to.0, to.1));
        let mut area = ground.area();
        let costs = costs(&area, from);
        let plan = area.plan(from, Goal::Cell(to), usize::MAX, &mut ground.land());
        let cost = gone(&area, from, &plan.steps);
        match costs.get(&to) {
            Some(shortest) => {
                prop_assert_eq!(end(from, &plan.steps), to);
                prop_assert!(cost <= shortest * 3 / 2 + 16, "{} instead of {}", cost, shortest);
            }
            None => {
                let nearest = costs.keys().map(|at| at.manhattan(to)).min().unwrap();
                prop_assert_eq!(end(from, &plan.steps).manhattan(to), nearest);
            }
        }
    }

    #[test]
    fn a_field_leads_everybody_there_by_the_cheapest_way((seed, at, to) in journey(), deep in 2..30) {
        let ground = Ground::new(seed);
        let to = ground.top(to.0, to.1);
        let goals = [Goal::Cell(to), Goal::Cell(BlockPos { z: deep, ..to })];
        let mut area = ground.area();
        for from in [ground.top(at.0, at.1), ground.top(at.1, at.0), ground.bottom(at.0, at.1)] {
            let costs = costs(&area, from);
            for goal in goals {
                let way = follow(&mut area, &ground, goal, from);
                let target = ground.nearest(goal.at());
                let (cost, end) = (gone(&area, from, &way), end(from, &way));
                match costs.get(&target) {
                    Some(cheapest) => prop_assert_eq!((end, cost), (target, *cheapest)),
                    None => {
                        let nearest = costs.iter().map(|(at, cost)| (at.manhattan(goal.at()), *cost)).min();
                        prop_assert_eq!(Some((end.manhattan(goal.at()), cost)), nearest);
                    }
                }
            }
        }
    }

    #[test]
    fn a_goal_out_of_sight_is_approached(
        (seed, from, _) in journey(), far in (prop_oneof![-170..-20, 160..190], -170..190), swap: bool,
    ) {
        let far = if swap { (far.1, far.0) } else { far };
        let ground = Ground::new(seed);
        let from = ground.top(from.0, from.1);
        let goal = Goal::Cell(BlockPos::new(far.0, far.1, 30));
        let mut area = ground.area();
        let costs = costs(&area, from);
        let plan = area.plan(from, goal, usize::MAX, &mut ground.land());
        let way = follow(&mut area, &ground, goal, from);
        let edge = |at: &BlockPos| [at.x, at.y].iter().any(|v| *v == -16 || *v == 143);
        let whole = |at: BlockPos, cost: u32| u64::from(cost) + at.manhattan(goal.at());
        let exits = costs.iter().filter(|(at, _)| edge(at));
        if let Some(best) = exits.map(|(at, cost)| whole(*at, *cost)).min() {
            prop_assert_eq!(whole(end(from, &way), gone(&area, from, &way)), best);
            let planned = whole(end(from, &plan.steps), gone(&area, from, &plan.steps));
            prop_assert!((best..=best * 3 / 2 + 16).contains(&planned), "{} instead of {}", planned, best);
        }
    }

    #[test]
    fn land_that_was_remembered_is_walked_on_like_land_seen_anew(
        (seed, from, to) in journey(),
        edits in prop::collection::vec((0..128i32, 0..128i32, -4..3i32, 0..3u8), 1..12),
        far in any::<bool>(),
    ) {
        let mut ground = Ground::new(seed);
        let from = ground.top(from.0, from.1);
        let to = if far { BlockPos::new(500, -90, 30) } else { ground.top(to.0, to.1) };
        let mut kept = ground.area();
        for (i, (x, y, z, kind)) in edits.into_iter().enumerate() {
            // Half of the edits are on the way.
            let way = kept.plan(from, Goal::Cell(to), usize::MAX, &mut ground.land()).steps;
            let on_way = way.get(x as usize * way.len() / 128).filter(|_| i % 2 == 0).copied();
            let at = on_way.unwrap_or_else(|| ground.top(x, y)).offset(0, 0, z);
            let block = [Block::Air, Block::Wall, Block::Water][usize::from(kind)];
            ground.put(at, block);
            kept.stale(at.chunk());
            let mut anew = Area::new(RegionPos::new(0, 0), RADIUS);
            let goal = Goal::Cell(to);
            prop_assert_eq!(
                kept.plan(from, goal, 40, &mut ground.land()), anew.plan(from, goal, 40, &mut ground.land())
            );
            for cut_off in [false, true] {
                let one = kept.field(goal, cut_off, i as u64, &mut ground.land());
                prop_assert_eq!(one, anew.field(goal, cut_off, 7, &mut ground.land()));
            }
            prop_assert_eq!(kept.size(&mut ground.land()), anew.size(&mut ground.land()));
        }
    }
}

#[test]
fn digging_where_nobody_walks_keeps_the_field() {
    let mut ground = Ground::new(3);
    let goal = Goal::Cell(ground.top(60, 60));
    let mut area = ground.area();
    let before = area.field(goal, false, 1, &mut ground.land());
    let deep =
        (0..16).flat_map(|x| (0..16).map(move |y| (x, y))).find_map(|(x, y)| ground.solid(x, y)).unwrap();
    ground.put(deep, Block::Air);
    area.stale(deep.chunk());
    let after = area.field(goal, false, 2, &mut ground.land());
    assert!(std::sync::Arc::ptr_eq(&before, &after));
    let top = ground.top(61, 60);
    ground.put(top, Block::Wall);
    area.stale(top.chunk());
    let after = area.field(goal, false, 3, &mut ground.land());
    assert!(!std::sync::Arc::ptr_eq(&before, &after));
}

#[test]
fn a_unit_walks_into_a_chunk_as_soon_as_it_is_made() {
    let mut ground = Ground::new(3);
    let (from, to) = (ground.top(3, 8), ground.top(40, 8));
    let hole: Vec<_> = (-1..9).map(|y| ground.lift(ChunkPos::new(1, y))).collect();
    let mut area = ground.area();
    let plan =
        |area: &mut Area, ground: &Ground| area.plan(from, Goal::Cell(to), usize::MAX, &mut ground.land());
    let before = plan(&mut area, &ground);
    assert!(before.steps.iter().all(|at| at.x < 16));
    hole.into_iter().for_each(|column| ground.lay(column));
    let mut anew = ground.area();
    assert_eq!(plan(&mut area, &ground), plan(&mut anew, &ground));
    assert_ne!(plan(&mut area, &ground), before);
}

#[test]
fn who_stands_at_work_has_nowhere_to_go() {
    let ground = Ground::new(3);
    let from = ground.top(20, 20);
    let goal = Goal::Reach { at: from.offset(1, 1, 0), sideways: 2, above: (-2, 3), clear: false };
    assert!(ground.area().plan(from, goal, 9, &mut ground.land()).steps.is_empty());
    let far = Goal::Reach { at: from.offset(30, 9, 0), sideways: 2, above: (-9, 9), clear: false };
    let way = ground.area().plan(from, far, usize::MAX, &mut ground.land()).steps;
    assert!(far.holds(*way.last().unwrap()) && !far.holds(way[way.len() - 2]), "{way:?}");
    assert_eq!(LocalPos::new(0, 0, HEIGHT).unwrap().z, 64);
}
