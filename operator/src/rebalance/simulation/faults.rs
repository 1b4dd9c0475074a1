//! Whoever dies or fails, and whenever.

use fortia_common::ending::Ending;
use fortia_common::failpoint::Action;

use super::{Trouble, World};
use crate::crd::rebalance::Phase;
use crate::rebalance::job::JobState;
use crate::rebalance::phase::Step;

#[test]
fn a_try_to_flip_that_is_late_is_told_and_repeated() {
    let mut world = World::new(1);
    world.want(2);
    world.run_until(Phase::Cutover);
    for _ in 0..3 {
        world.pass(false);
        world.others(Trouble { late: true, ..Trouble::default() });
        world.assert_whole();
    }
    world.pass(false);
    let cutover = world.status.rebalance.as_ref().and_then(|r| r.cutover.clone()).expect("told");
    assert!(cutover.tries >= 2 && cutover.why.as_deref() == Some("late"), "{cutover:?}");
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn what_is_no_longer_proven_is_verified_again_before_a_flip() {
    let mut world = World::new(1);
    world.want(2);
    world.run_until(Phase::Cutover);
    world.others(Trouble { unproven: true, late: true, ..Trouble::default() });
    world.pass(false);
    assert_eq!(world.phase(), Some(Phase::Verifying));
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn without_the_control_database_nothing_is_concluded() {
    for phase in [Phase::Copying, Phase::Verifying, Phase::Cutover] {
        let mut world = World::new(1);
        world.want(2);
        world.run_until(phase);
        world.blind = true;
        for _ in 0..10 {
            world.pass(false);
        }
        assert_eq!(world.phase(), Some(phase), "{:?}", world.steps.last());
        world.blind = false;
        world.run(60);
        world.assert_clean(2, 2);
    }
}

#[test]
fn a_job_that_vanished_is_created_again() {
    for phase in [Phase::Copying, Phase::Verifying, Phase::Cutover] {
        let mut world = World::new(1);
        world.want(2);
        world.run_until(phase);
        world.migrate = JobState::Absent;
        world.pass(false);
        world.run(60);
        world.assert_clean(2, 2);
    }
}

#[test]
fn a_job_that_ended_before_the_flip_is_created_again() {
    let mut world = World::new(1);
    world.want(2);
    world.run_until(Phase::CatchingUp);
    world.migrate = JobState::Complete;
    world.pass(false);
    assert_eq!(world.steps.last(), Some(&Step::DeleteCarry));
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn a_failed_collect_job_is_told_until_a_later_one_succeeds() {
    let mut world = World::new(1);
    world.want(2);
    while world.collect != JobState::Running {
        world.pass(false);
        if world.collect != JobState::Running {
            world.others(Trouble::default());
        }
    }
    world.others(Trouble { job_fails: true, ..Trouble::default() });
    world.pass(false);
    let told = world.status.rebalance.as_ref().and_then(|r| r.message.clone()).expect("told");
    assert!(told.contains("a shard does not answer"), "{told}");
    while world.collect != JobState::Running {
        world.pass(false);
    }
    assert_eq!(world.decide(), Step::Wait(told));
    world.run(60);
    world.assert_clean(2, 2);
}

/// A world whose third group goes, and is lost with its volume when `when` holds; whether it ever was.
fn loses(mut world: World, when: impl Fn(&World) -> bool, end: (u32, u64)) {
    let mut lost = false;
    for _ in 0..100 {
        for half in 0..2 {
            if !lost && when(&world) {
                world.lose(2);
                lost = true;
            }
            if half == 0 {
                world.pass(false);
            } else {
                world.others(Trouble::default());
            }
        }
        world.assert_whole();
    }
    assert!(lost, "it never came so far");
    world.assert_clean(end.0, end.1);
}

#[test]
fn a_group_that_goes_and_is_lost_with_its_volume_keeps_nobody_from_going_on() {
    let when: [fn(&World) -> bool; 3] = [
        |world| world.collect == JobState::Absent,
        |world| world.collect == JobState::Running,
        |world| world.collect == JobState::Complete,
    ];
    for when in when {
        let in_phase = |phase| move |world: &World| world.phase() == Some(phase) && when(world);
        // That of a target that is given up.
        let mut aborted = World::new(2);
        aborted.want(3);
        aborted.run_until(Phase::Verifying);
        aborted.want(2);
        loses(aborted, in_phase(Phase::Aborting), (2, 1));
        // That of a layout that is left.
        let mut left = World::new(3);
        left.want(2);
        left.run_until(Phase::Retaining);
        loses(left, in_phase(Phase::Collecting), (2, 2));
    }
}

#[test]
fn an_operator_that_dies_at_any_step_is_followed_by_one_that_ends_the_same() {
    for death in 0..40 {
        for back in [false, true] {
            let mut world = World::new(2);
            world.want(3);
            for round in 0..120 {
                if back && world.phase() == Some(Phase::Retaining) {
                    world.spec.back_to = Some(1);
                }
                // Thrice in a row, for those who do what was left and die again.
                world.pass((death..death + 3).contains(&round));
                world.others(Trouble::default());
                world.assert_whole();
            }
            if back { world.assert_clean(2, 1) } else { world.assert_clean(3, 2) }
        }
    }
}

#[test]
fn an_operator_that_dies_at_a_named_point_is_followed_by_one_that_ends_the_same() {
    for point in ["rebalance.acted", "rebalance.recorded"] {
        for at in 1..=30 {
            let mut world = World::new(2);
            world.failpoints.arm_at(point, Action::Fail, at).expect("a point");
            world.want(3);
            world.run(120);
            world.assert_clean(3, 2);
            assert_eq!(world.deaths, 1, "{point} is passed {at} times");
        }
    }
}

/// Any mix of crashes, slow servers, failing Jobs, late flips and changes of mind ends clean, and what serves always
/// holds every write.
#[test]
fn whatever_happens_whenever_no_write_is_lost_and_the_end_is_clean() {
    for seed in 0..600u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut chance = |of: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % of == 0
        };
        let mut world = World::new(1 + (seed % 3) as u32);
        for round in 0..160 {
            if chance(40) {
                world.want(1 + ((seed + round) % 4) as u32);
            }
            if chance(25) {
                let wanted = world.spec.back_to.is_none();
                let kept = world.topology.previous.map(|layout| layout.version);
                world.spec.back_to = kept.filter(|_| wanted);
            }
            if chance(40) {
                let stops = world.spec.aborts.is_none();
                world.spec.aborts = stops.then_some(world.layout().version + 1);
            }
            if chance(60) {
                world.migrate = JobState::Absent;
            }
            world.blind = chance(15);
            world.pass(chance(4));
            if !chance(3) {
                let (job_fails, late, unproven) = (chance(20), chance(3), chance(15));
                let ends = Ending::ALL.into_iter().find(|_| chance(80));
                world.others(Trouble { job_fails, ends, late, unproven });
            }
            world.assert_whole();
        }
        world.blind = false;
        (world.spec.aborts, world.spec.back_to) = (None, None);
        // A Job that has failed is believed before the spec changes.
        world.run(1);
        // What somebody has stopped is asked for anew by asking for what serves in between.
        world.want(world.layout().shards);
        world.run(150);
        let shards = 1 + (seed % 4) as u32;
        world.want(shards);
        world.run(150);
        let version = world.layout().version;
        world.assert_clean(shards, version);
    }
}
