//! Ways back to a version that was kept.

use std::time::Duration;

use fortia_common::ending::Ending;

use super::{Trouble, World};
use crate::crd::rebalance::{Phase, Reason};
use crate::rebalance::job::JobState;
use crate::rebalance::phase::Step;

/// A world that went from two shards to three a while ago, and has been written since.
fn retaining() -> World {
    let mut world = World::new(2);
    world.spec.retain = Duration::from_secs(3600);
    world.want(3);
    world.run_until(Phase::Retaining);
    world.run(20);
    world
}

#[test]
fn a_rollback_goes_back_with_all_that_was_written_since_and_is_not_undone_again() {
    let mut world = retaining();
    let written = world.writes;
    world.spec.back_to = Some(1);
    world.run_until(Phase::CatchingUp);
    world.run(60);
    world.assert_clean(2, 1);
    assert!(world.writes > written);
    assert!(matches!(world.decide(), Step::Rest { reason: Reason::RolledBack, .. }));
    world.spec.retain = Duration::ZERO;
    world.want(4);
    world.run(60);
    world.assert_clean(2, 1);
    let left = world.decide();
    assert!(
        matches!(left, Step::Rest { reason: Reason::RolledBack, .. }),
        "it would be rolled back at once: {left:?}"
    );
    world.spec.back_to = None;
    world.run(60);
    world.assert_clean(4, 2);
}

#[test]
fn a_rollback_to_another_version_than_the_kept_one_does_nothing() {
    let mut world = retaining();
    world.spec.back_to = Some(7);
    world.run(20);
    assert_eq!((world.phase(), world.topology.serving.version), (Some(Phase::Retaining), 2));
}

#[test]
fn a_rollback_that_is_taken_back_leaves_both_versions_as_they_were_and_can_be_asked_for_again() {
    for rounds in 1..20 {
        let mut world = retaining();
        world.spec.back_to = Some(1);
        world.run(rounds);
        if world.topology.serving.version == 1 {
            break;
        }
        world.spec.back_to = None;
        world.run(10);
        if world.topology.serving.version == 2 {
            assert_eq!(world.phase(), Some(Phase::Retaining), "after {rounds} rounds");
            let r = world.status.rebalance.clone().expect("kept");
            assert_eq!((r.from.version, r.to.version, r.rollback, r.failure), (1, 2, false, None));
            assert!(world.keys[0].contains(&1) && r.turned_at.is_some());
            world.spec.back_to = Some(1);
        }
        world.run(60);
        world.assert_clean(2, 1);
    }
}

#[test]
fn a_flip_back_that_came_before_it_was_taken_back_wins() {
    let mut world = retaining();
    world.spec.back_to = Some(1);
    while world.topology.phase != Some(Phase::Cutover.wire()) {
        world.pass(false);
        if world.topology.phase != Some(Phase::Cutover.wire()) {
            world.others(Trouble::default());
        }
    }
    world.spec.back_to = None;
    world.pass(false);
    world.others(Trouble::default());
    assert_eq!(world.topology.serving.version, 1);
    world.run(60);
    world.assert_clean(2, 1);
}

#[test]
fn a_rollback_that_fails_keeps_both_versions_until_somebody_decides() {
    let mut world = retaining();
    world.spec.back_to = Some(1);
    world.run_until(Phase::CatchingUp);
    while world.phase() != Some(Phase::Retaining) {
        world.pass(false);
        let job_fails = world.migrate == JobState::Running;
        world.others(Trouble { job_fails, ..Trouble::default() });
        world.assert_whole();
    }
    world.spec.retain = Duration::ZERO;
    world.run(20);
    let failure = world.status.rebalance.as_ref().and_then(|r| r.failure.clone()).expect("told");
    assert_eq!((failure.reason, world.phase()), (Reason::RollbackFailed, Some(Phase::Retaining)));
    assert!(world.keys[0].contains(&1), "nothing is collected");
    world.spec.back_to = None;
    world.run(5);
    assert_eq!(world.status.rebalance.as_ref().and_then(|r| r.failure.clone()), None);
    world.run(60);
    world.assert_clean(3, 2);
}

#[test]
fn a_way_back_that_ends_hopelessly_keeps_both_versions_and_names_the_reason() {
    let mut world = retaining();
    world.spec.back_to = Some(1);
    world.run_until(Phase::CatchingUp);
    while world.phase() != Some(Phase::Retaining) {
        world.pass(false);
        let ends = (world.migrate == JobState::Running).then_some(Ending::Different);
        world.others(Trouble { ends, ..Trouble::default() });
        world.assert_whole();
    }
    world.spec.retain = Duration::ZERO;
    world.run(20);
    let failure = world.status.rebalance.as_ref().and_then(|r| r.failure.clone()).expect("told");
    assert_eq!((failure.reason, world.phase()), (Reason::KeysDiffer, Some(Phase::Retaining)));
    assert!(world.keys[0].contains(&1), "nothing is collected");
    world.spec.back_to = None;
    world.run(60);
    world.assert_clean(3, 2);
}

#[test]
fn whoever_wants_the_old_number_again_after_a_rollback_has_it() {
    let mut world = retaining();
    world.spec.back_to = Some(1);
    world.run(60);
    world.want(2);
    world.run(5);
    assert_eq!(world.decide(), Step::Idle);
    world.assert_clean(2, 1);
}
