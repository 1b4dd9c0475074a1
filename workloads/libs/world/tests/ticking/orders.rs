//! What players see of their orders.

use crate::cluster::{Cluster, command, spawn};
use fortia_vec::{BlockPos, Distance, RegionPos};
use fortia_world::block::Block;
use fortia_world::entity::Kind;
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::{rules, start};

const SEED: u64 = 42;
const RADIUS: u32 = 3;

/// A world with Ann and her two units.
fn world() -> (Cluster, [u64; 2]) {
    let mut cluster = Cluster::new(SEED, RADIUS, |_| 0);
    cluster.tick(&[spawn("ann", start::position(SEED, RADIUS, "ann"))]);
    cluster.check();
    let units = start::unit_ids("ann", 2);
    (cluster, [units[0], units[1]])
}

/// A player's stock.
fn stock(cluster: &Cluster, player: &str) -> Goods {
    cluster.unit(start::camp_id(player)).goods
}

/// The place nearest to the unit that has what is looked for.
fn nearest(cluster: &Cluster, unit: u64, wanted: impl Fn(&Cluster, BlockPos) -> bool) -> BlockPos {
    let from = cluster.unit(unit).at;
    let side = (RADIUS as i32) * 16;
    let all = (-side..side).flat_map(|x| (-side..side).map(move |y| (x, y)));
    let mut columns: Vec<_> = all.map(|(x, y)| BlockPos::new(x, y, from.z)).collect();
    columns.sort_by_key(|at| (at.manhattan(from), *at));
    let cells = columns.into_iter().take(900).flat_map(|at| (10..50).map(move |z| BlockPos { z, ..at }));
    cells.into_iter().find(|at| wanted(cluster, *at)).expect("the test's world has no such place near")
}

/// Whether the block is ground under open sky.
fn ground(cluster: &Cluster, at: BlockPos) -> bool {
    let air = |up| cluster.block(at.offset(0, 0, up)) == Block::Air;
    let earth = |block: Block| block.is_solid() && block != Block::Wood && !block.is_building();
    earth(cluster.block(at)) && (1..20).all(air)
}

#[test]
fn a_player_starts_with_a_camp_and_two_handymen_on_cells_of_their_own() {
    let (cluster, units) = world();
    let [one, other] = units.map(|id| cluster.unit(id));
    assert_eq!((one.owner.as_str(), other.owner.as_str()), ("ann", "ann"));
    assert_ne!(one.at, other.at);
    assert!(one.at.chebyshev(start::position(SEED, RADIUS, "ann")) <= 3);
    assert_eq!((one.goods, stock(&cluster, "ann")), (Goods::NONE, rules::FIRST_STOCK));
    let camp = cluster.unit(start::camp_id("ann"));
    assert_eq!((camp.kind, camp.owner.as_str(), cluster.block(camp.at)), (Kind::Camp, "ann", Block::Camp));
    assert_eq!((one.camp, other.home), (camp.at, camp.at));
    let mut born: Vec<u64> = cluster.written.born.iter().map(|(_, id)| *id).collect();
    let mut all = vec![one.id, other.id, camp.id];
    born.sort_unstable();
    all.sort_unstable();
    assert_eq!(born, all);
}

#[test]
fn a_repeated_spawn_changes_nothing_however_far_the_units_have_walked() {
    let (mut cluster, units) = world();
    let from = start::position(SEED, RADIUS, "ann");
    for unit in units {
        let far = |c: &Cluster, at: BlockPos| at.x.abs_diff(from.x) > 18 && ground(c, at.down());
        let to = nearest(&cluster, unit, far);
        cluster.order(unit, Order::Move { to });
        assert_eq!(cluster.finish(unit).at, to);
    }
    let before = cluster.entities.clone();
    cluster.tick(&[spawn("ann", start::position(SEED, RADIUS, "ann"))]);
    assert_eq!(cluster.entities, before);
    assert!(cluster.written.columns.is_empty() && cluster.written.changed.is_empty());
}

#[test]
fn move_gets_there_one_step_a_tick() {
    let (mut cluster, [unit, _]) = world();
    let from = cluster.unit(unit).at;
    let far = |c: &Cluster, at: BlockPos| at.manhattan(from) > 12 && ground(c, at.down());
    let to = nearest(&cluster, unit, far);
    cluster.order(unit, Order::Move { to });
    let mut last = from;
    while cluster.unit(unit).order != Order::Hold {
        let at = cluster.unit(unit).at;
        assert!(last.x.abs_diff(at.x) + last.y.abs_diff(at.y) <= 1);
        last = at;
        cluster.tick(&[]);
        cluster.check();
    }
    let unit = cluster.unit(unit);
    assert_eq!((unit.at, unit.outcome.as_str()), (to, "done"));
}

#[test]
fn a_move_into_a_hill_ends_on_top_of_it() {
    let (mut cluster, [unit, _]) = world();
    let from = cluster.unit(unit).at;
    let to = nearest(&cluster, unit, |c, at| at.manhattan(from) > 4 && ground(c, at));
    cluster.order(unit, Order::Move { to });
    assert_eq!(cluster.finish(unit).at, to.up());
}

#[test]
fn a_move_out_of_the_world_is_refused_with_a_reason() {
    let (mut cluster, [unit, _]) = world();
    let at = cluster.unit(unit).at;
    for x in [16 * 40, i32::MAX, i32::MIN] {
        cluster.order(unit, Order::Move { to: BlockPos { x, ..at } });
        let unit = cluster.finish(unit);
        assert_eq!((unit.at, unit.outcome.as_str()), (at, "outside the world"));
    }
}

#[test]
fn a_unit_in_a_pit_says_that_there_is_no_way_out() {
    let (mut cluster, [unit, _]) = world();
    let start = cluster.unit(unit).at;
    while cluster.unit(unit).at.z > start.z - 3 {
        let at = cluster.unit(unit).at.down();
        cluster.order(unit, Order::Mine { at });
    }
    let pit = cluster.unit(unit).at;
    let far = |c: &Cluster, at: BlockPos| at.manhattan(start) > 10 && ground(c, at.down());
    let to = nearest(&cluster, unit, far);
    cluster.order(unit, Order::Move { to });
    let unit = cluster.finish(unit);
    assert_eq!((unit.at, unit.outcome.as_str()), (pit, "no way there"));
}

#[test]
fn chop_walks_to_the_tree_and_fells_the_trunk() {
    let (mut cluster, [unit, _]) = world();
    let trunk = |c: &Cluster, at: BlockPos| c.block(at) == Block::Wood && c.block(at.down()) == Block::Grass;
    let foot = nearest(&cluster, unit, trunk);
    let height = (0..9).take_while(|z| cluster.block(foot.offset(0, 0, *z)) == Block::Wood).count();
    cluster.order(unit, Order::Chop { at: foot });
    let unit = cluster.finish(unit);
    assert_eq!(unit.outcome, "done");
    assert_eq!(unit.goods, Goods::new(height as u32, 0));
    assert!((0..height as i32).all(|z| cluster.block(foot.offset(0, 0, z)) == Block::Air));
}

#[test]
fn chopping_what_is_no_wood_ends_with_a_reason_and_changes_nothing() {
    let (mut cluster, [unit, _]) = world();
    let before = cluster.chunks.clone();
    let at = nearest(&cluster, unit, ground);
    cluster.order(unit, Order::Chop { at });
    assert_eq!(cluster.finish(unit).outcome, "there is no wood");
    assert_eq!(cluster.chunks, before);
}

#[test]
fn mine_takes_the_block_in_the_same_tick_when_it_is_in_reach() {
    let (mut cluster, [unit, _]) = world();
    let from = cluster.unit(unit).at;
    let at = nearest(&cluster, unit, |c, at| at.x != from.x && ground(c, at) && at.chebyshev(from) <= 2);
    cluster.order(unit, Order::Mine { at });
    assert_eq!(cluster.block(at), Block::Air);
    assert_eq!(cluster.unit(unit).outcome, "done");
    assert!(cluster.written.changed.contains(&at.chunk()));
}

#[test]
fn a_unit_digs_down_to_bedrock_and_no_further() {
    let (mut cluster, [unit, _]) = world();
    for _ in 0..70 {
        // Full hands would end it sooner.
        cluster.hand(unit, Goods::NONE);
        let at = cluster.unit(unit).at;
        cluster.order(unit, Order::Mine { at: at.down() });
        let now = cluster.finish(unit);
        if at.z == 1 {
            assert_eq!((now.at, now.outcome.as_str()), (at, "bedrock cannot be mined"));
            return;
        }
        assert!(now.at.z < at.z, "{now:?}");
    }
    panic!("bedrock was never reached");
}

#[test]
fn a_unit_whose_hands_are_full_gathers_no_more() {
    let (mut cluster, [unit, _]) = world();
    let carries = rules::of(Kind::Handyman).carries;
    cluster.hand(unit, Goods::new(carries - 1, 0));
    let trunk = |c: &Cluster, at: BlockPos| c.block(at) == Block::Wood && c.block(at.up()) == Block::Wood;
    let foot = nearest(&cluster, unit, trunk);
    cluster.order(unit, Order::Chop { at: foot });
    let unit = cluster.finish(unit);
    assert_eq!(unit.goods.wood, carries);
    assert!(unit.outcome.starts_with("its hands are full"), "{}", unit.outcome);
    assert_eq!((cluster.block(foot), cluster.block(foot.up())), (Block::Air, Block::Wood));
}

#[test]
fn an_action_that_names_a_region_far_away_reaches_the_unit() {
    const FAR: u32 = 12;
    let mut cluster = Cluster::new(SEED, FAR, |region| region);
    let at = start::position(SEED, FAR, "ann");
    cluster.tick(&[spawn("ann", at)]);
    let unit = start::unit_ids("ann", 1)[0];
    let here = cluster.unit(unit).at.region();
    let far = fortia_vec::regions_of(FAR).into_iter().find(|region| region.chebyshev(here) > 1);
    let down = cluster.unit(unit).at.down();
    let mine = command(1, "ann", unit, Order::Mine { at: down });
    cluster.tick(&[(far.expect("the world has sixteen regions"), vec![mine])]);
    cluster.tick(&[]);
    assert_eq!((cluster.unit(unit).outcome.as_str(), cluster.block(down)), ("done", Block::Air));
}

#[test]
fn nobody_is_walled_in_by_a_building() {
    let (mut cluster, [one, other]) = world();
    let at = cluster.unit(other).at;
    cluster.order(one, Order::Build { at, block: Block::Wall });
    assert_eq!(cluster.finish(one).outcome, "someone stands there");
    assert_eq!(cluster.block(at), Block::Air);
    assert_eq!(cluster.unit(one).goods.plus(stock(&cluster, "ann")), rules::FIRST_STOCK);
}

#[test]
fn of_two_units_at_one_block_one_gets_it_and_the_other_is_told() {
    let (mut cluster, [one, other]) = world();
    let (a, b) = (cluster.unit(one).at, cluster.unit(other).at);
    let at = nearest(&cluster, one, |c, at| {
        ground(c, at) && at.chebyshev(a) <= 2 && at.chebyshev(b) <= 2 && at != a.down() && at != b.down()
    });
    let mine = Order::Mine { at };
    let both = vec![command(1, "ann", one, mine), command(2, "ann", other, mine)];
    cluster.tick(&[(a.region(), both)]);
    let mut outcomes = [one, other].map(|id| cluster.unit(id).outcome);
    outcomes.sort();
    assert_eq!(outcomes, ["done", "someone was faster"]);
}

#[test]
fn a_strangers_command_has_no_effect() {
    let (mut cluster, [unit, _]) = world();
    let at = cluster.unit(unit).at;
    let before = (cluster.chunks.clone(), cluster.entities.clone());
    let theirs = Order::Mine { at: at.down() };
    for region in at.region().neighbours().into_iter().chain([at.region()]) {
        cluster.tick(&[(region, vec![command(1, "mallory", unit, theirs), command(2, "", unit, theirs)])]);
    }
    let as_ann = start::unit_ids("eve", 2);
    let spawn = fortia_proto::world::v1::Spawn {
        owner: "ann".into(),
        at: Some(fortia_world::wire::block_pos(at)),
        units: as_ann,
    };
    let kind = Some(fortia_proto::world::v1::action::Kind::Spawn(spawn));
    let forged = fortia_proto::world::v1::Action { id: 1, player: "mallory".into(), kind };
    cluster.tick(&[(at.region(), vec![forged])]);
    assert_eq!((cluster.chunks, cluster.entities), before);
}

#[test]
fn a_command_sent_to_a_neighbour_region_reaches_the_unit() {
    let (mut cluster, [unit, _]) = world();
    let at = cluster.unit(unit).at;
    let mine = command(1, "ann", unit, Order::Mine { at: at.down() });
    cluster.tick(&[(beside(&cluster, unit), vec![mine])]);
    assert_eq!(cluster.finish(unit).outcome, "done");
    assert_eq!(cluster.block(at.down()), Block::Air);
}

#[test]
fn of_two_commands_in_one_tick_the_later_counts_however_they_arrive() {
    let (mut cluster, [unit, _]) = world();
    let at = cluster.unit(unit).at;
    let mine = command(1, "ann", unit, Order::Mine { at: at.down() });
    let hold = command(2, "ann", unit, Order::Hold);
    cluster.tick(&[(at.region(), vec![hold, mine])]);
    assert_eq!(cluster.unit(unit).order, Order::Hold);
    assert_ne!(cluster.block(at.down()), Block::Air);
}

#[test]
fn an_idle_world_writes_nothing() {
    let (mut cluster, _) = world();
    for _ in 0..3 {
        cluster.tick(&[]);
        assert_eq!(cluster.written, Default::default());
    }
}

/// A region beside the unit's.
fn beside(cluster: &Cluster, unit: u64) -> RegionPos {
    let here = cluster.unit(unit).at.region();
    here.neighbours().into_iter().find(|region| region.is_within(RADIUS)).expect("the world has four regions")
}

#[test]
fn a_strangers_command_from_afar_does_not_disturb_work() {
    let (mut cluster, [unit, _]) = world();
    let at = cluster.unit(unit).at;
    let mine = command(1, "ann", unit, Order::Mine { at: at.down() });
    let theirs = command(2, "mallory", unit, Order::Move { to: at.offset(9, 0, 0) });
    cluster.tick(&[(at.region(), vec![mine]), (beside(&cluster, unit), vec![theirs])]);
    let unit = cluster.unit(unit);
    assert_eq!((unit.order, unit.outcome.as_str()), (Order::Hold, "done"));
}

#[test]
fn who_is_called_away_at_work_keeps_what_was_mined_and_goes() {
    let (mut cluster, [unit, _]) = world();
    while cluster.unit(unit).goods == Goods::NONE {
        let at = cluster.unit(unit).at;
        let away = Order::Move { to: at.offset(9, 0, 0) };
        let mine = command(1, "ann", unit, Order::Mine { at: at.down() });
        let called = command(2, "ann", unit, away);
        cluster.tick(&[(at.region(), vec![mine]), (beside(&cluster, unit), vec![called])]);
        assert_eq!(cluster.block(at.down()), Block::Air);
        assert_eq!(cluster.unit(unit).order, away);
    }
}
