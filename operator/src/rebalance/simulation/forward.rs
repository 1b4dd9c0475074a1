//! Ways to another layout, and from them back to what serves before the flip.

use std::time::Duration;

use fortia_common::ending::Ending;

use super::{MIB, Trouble, World};
use crate::crd::rebalance::{Phase, Reason};
use crate::crd::spec::Placement;
use crate::rebalance::job::JobState;
use crate::rebalance::phase::Step;

#[test]
fn two_shards_become_three_through_all_phases_while_the_world_is_written() {
    let mut world = World::new(2);
    world.want(3);
    world.run(60);
    world.assert_clean(3, 2);
    let all = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Aborting);
    assert_eq!(world.phases, all.collect::<Vec<_>>());
}

#[test]
fn three_shards_become_two_and_the_surplus_group_goes_only_when_empty() {
    let mut world = World::new(3);
    world.want(2);
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn another_placement_is_carried_as_well() {
    let mut world = World::new(2);
    world.spec.placement = Placement::Jump;
    world.run(60);
    world.assert_clean(2, 2);
    assert_eq!(world.layout().placement, Placement::Jump);
}

#[test]
fn progress_proof_and_pause_are_what_pods_and_scheduler_told() {
    let mut world = World::new(2);
    world.want(3);
    world.run_until(Phase::Verifying);
    let told = world.status.rebalance.clone().expect("runs");
    assert_eq!((told.total_keys, told.percent, told.lag, told.stayed), (Some(20), Some(100), Some(0), 6));
    world.run_until(Phase::Collecting);
    let told = world.status.rebalance.clone().expect("runs");
    let proof = told.proof.expect("proven");
    assert_eq!((proof.keys, proof.digest.as_str()), (20, "fffffffffffffffffffffffffffffffe"));
    assert_eq!((told.last_pause_ms, told.cutover.map(|c| c.tries)), (Some(250), Some(1)));
    assert!(told.held_tick.is_some());
}

#[test]
fn what_not_all_pods_have_told_is_not_known() {
    let mut world = World::new(2);
    world.want(3);
    world.run_until(Phase::Copying);
    let told = world.status.rebalance.clone().expect("runs");
    assert_eq!((told.total_keys, told.percent, told.eta_seconds, told.proof), (None, None, None, None));
}

#[test]
fn the_previous_version_is_kept_as_long_as_asked() {
    let mut world = World::new(1);
    world.spec.retain = Duration::from_secs(100);
    world.want(2);
    world.run(50);
    assert_eq!(world.phase(), Some(Phase::Retaining));
    assert!(world.keys[0].contains(&1));
    world.run(110);
    world.assert_clean(2, 2);
}

#[test]
fn nothing_is_unlinked_while_a_server_follows_the_old_topology() {
    let mut world = World::new(1);
    world.want(2);
    world.run_until(Phase::Retaining);
    for _ in 0..60 {
        world.server_epoch = 1;
        world.pass(false);
        world.now += 1;
    }
    assert_eq!(world.phase(), Some(Phase::Retaining));
    let last = world.steps.last();
    assert!(matches!(last, Some(Step::Wait(why)) if why.contains("game-0")), "{last:?}");
}

#[test]
fn setting_the_shards_back_aborts_at_every_moment_before_the_flip() {
    for rounds in 1..20 {
        let mut world = World::new(2);
        world.want(3);
        world.run(rounds);
        if world.topology.serving.version == 2 {
            continue;
        }
        world.want(2);
        world.run(60);
        let flipped_first = world.layout().version != 1;
        world.assert_clean(2, if flipped_first { 3 } else { 1 });
    }
}

#[test]
fn the_annotation_aborts_at_every_moment_before_the_flip_and_it_is_not_tried_again() {
    for rounds in 1..20 {
        let mut world = World::new(2);
        world.want(3);
        world.run(rounds);
        world.spec.aborts = Some(2);
        world.run(60);
        if world.layout().version == 2 {
            // The flip came first.
            world.assert_clean(3, 2);
            break;
        }
        world.assert_clean(2, 1);
        assert!(matches!(world.decide(), Step::Rest { reason: Reason::Aborted, .. }));
        // The spec alone is no reason while the annotation is there; both together are.
        world.want(4);
        world.run(20);
        world.assert_clean(2, 1);
        world.spec.aborts = None;
        world.run(60);
        world.assert_clean(4, 2);
    }
}

#[test]
fn what_was_aborted_is_not_begun_again_by_an_edit_of_something_else_also_when_it_waited_for_approval() {
    for (approval, rounds) in [(true, 10), (false, 5)] {
        let mut world = World::new(2);
        world.spec.require_approval = approval;
        world.want(3);
        world.run(rounds);
        world.spec.aborts = Some(2);
        world.run(60);
        world.spec.aborts = None;
        for edited in 0..3 {
            world.spec.retain = Duration::from_secs(20 + edited);
            world.spec.generation += 1;
            world.run(20);
            world.assert_clean(2, 1);
            assert!(matches!(world.decide(), Step::Rest { reason: Reason::Aborted, .. }), "{approval}");
        }
        // Set back and asked for anew.
        world.spec.require_approval = false;
        world.want(2);
        world.run(5);
        assert_eq!(world.status.failed_rebalance, None);
        world.want(3);
        world.run(60);
        world.assert_clean(3, 2);
    }
}

/// A world whose operator has told the scheduler to flip, and then sees that it is no longer wanted.
fn regretted_at_cutover() -> World {
    let mut world = World::new(2);
    world.want(3);
    while world.topology.phase != Some(Phase::Cutover.wire()) {
        world.pass(false);
        if world.topology.phase != Some(Phase::Cutover.wire()) {
            world.others(Trouble::default());
        }
    }
    world.want(2);
    world.pass(false);
    assert_eq!(world.phase(), Some(Phase::Aborting));
    world
}

#[test]
fn a_change_of_mind_at_cutover_aborts_if_it_is_told_before_the_flip() {
    let mut world = regretted_at_cutover();
    world.pass(false);
    world.run(60);
    world.assert_clean(2, 1);
}

#[test]
fn a_flip_before_the_change_of_mind_was_told_wins_and_the_way_back_is_another_re_sharding() {
    let mut world = regretted_at_cutover();
    world.others(Trouble::default());
    assert_eq!(world.topology.serving.version, 2);
    world.run(100);
    world.assert_clean(2, 3);
}

#[test]
fn asking_for_yet_another_number_aborts_and_plans_anew_from_what_serves_in_each_phase() {
    for phase in [Phase::Planned, Phase::Copying, Phase::CatchingUp, Phase::Verifying] {
        let mut world = World::new(2);
        world.want(4);
        world.run_until(phase);
        world.want(3);
        world.run(100);
        world.assert_clean(3, 2);
    }
}

#[test]
fn a_change_after_the_flip_goes_forward_not_back() {
    let mut world = World::new(2);
    world.spec.retain = Duration::from_secs(3600);
    world.want(3);
    world.run_until(Phase::Retaining);
    world.want(2);
    world.spec.retain = Duration::from_secs(1);
    world.run(100);
    world.assert_clean(2, 3);
}

/// A plan that is refused with this reason, and touches nothing until what is missing is there.
fn refused(mut world: World, reason: &str, mend: impl FnOnce(&mut World)) {
    world.want(3);
    world.run(10);
    let step = world.decide();
    assert!(matches!(&step, Step::Refuse { reason: why, .. } if *why == reason), "{step:?}");
    assert_eq!((world.topology.epoch, world.groups, world.content.len()), (1, 2, 1));
    mend(&mut world);
    world.run(60);
    world.assert_clean(3, 2);
}

#[test]
fn a_plan_that_does_not_fit_is_refused_before_anything_is_touched() {
    let mut world = World::new(2);
    world.used = 90 * MIB;
    refused(world, "InsufficientMemory", |world| world.used = MIB);
    let mut world = World::new(2);
    world.used = 40 * MIB;
    refused(world, "InsufficientDisk", |world| world.used = MIB);
}

#[test]
fn a_replica_that_does_not_follow_is_waited_for() {
    let mut world = World::new(2);
    world.apart = vec!["midgard-shard-1-1".into()];
    refused(world, "NotInSync", |world| world.apart.clear());
}

#[test]
fn leftovers_of_another_attempt_are_refused_until_somebody_lets_them_be_removed() {
    let mut world = World::new(2);
    world.leftovers = Some(7);
    world.keys[1].insert(2);
    refused(world, "Leftovers", |world| {
        world.spec.aborts = Some(2);
        world.run(30);
        world.assert_clean(2, 1);
        world.spec.aborts = None;
    });
}

#[test]
fn setting_the_shards_back_takes_a_refused_plan_away() {
    let mut world = World::new(2);
    world.used = 90 * MIB;
    world.want(1);
    world.run(10);
    world.want(2);
    world.run(10);
    world.assert_clean(2, 1);
}

#[test]
fn a_plan_waits_for_approval_of_exactly_its_ticket() {
    let mut world = World::new(1);
    world.spec.require_approval = true;
    world.want(2);
    for wrong in [None, Some("v2"), Some("v2-3-modulo-1"), Some("v2-2-modulo"), Some("v2-2-modulo-2")] {
        world.spec.approved = wrong.map(String::from);
        world.run(10);
        let runs = world.status.rebalance.as_ref().map(|r| (r.phase, r.accepted));
        assert_eq!(runs, Some((Phase::Planned, false)));
    }
    world.spec.approved = Some("v2-2-modulo-1".into());
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn an_approval_is_of_one_plan_and_not_of_the_next_of_its_like() {
    let mut world = World::new(2);
    world.spec.require_approval = true;
    world.spec.approved = Some("v2-3-modulo-1".into());
    world.want(3);
    world.run_until(Phase::Copying);
    world.want(2);
    world.run(60);
    world.assert_clean(2, 1);
    world.want(3);
    world.run(20);
    let waits = |world: &World, ticket: &str| {
        let runs = world.status.rebalance.clone().expect("planned");
        assert_eq!((runs.phase, runs.accepted), (Phase::Planned, false));
        assert_eq!(runs.plan.expect("a plan").ticket, ticket);
    };
    waits(&world, "v2-3-modulo-2");
    // One that was given up before it was accepted, set back, and wanted once more.
    world.spec.aborts = Some(2);
    world.run(10);
    (world.spec.aborts, world.spec.approved) = (None, Some("v2-3-modulo-2".into()));
    world.want(2);
    world.run(10);
    world.want(3);
    world.run(10);
    waits(&world, "v2-3-modulo-3");
    world.spec.approved = Some("v2-3-modulo-3".into());
    world.run(60);
    world.assert_clean(3, 2);
}

#[test]
fn a_failed_job_aborts_and_is_not_tried_again_until_the_spec_changes() {
    let mut world = World::new(2);
    world.want(3);
    for _ in 0..60 {
        world.pass(false);
        let job_fails = world.migrate == JobState::Running;
        world.others(Trouble { job_fails, ..Trouble::default() });
    }
    assert_eq!((world.layout().version, world.groups), (1, 2));
    assert!(matches!(world.decide(), Step::Refuse { reason: "RebalanceFailed", .. }));
    world.want(4);
    world.run(60);
    world.assert_clean(4, 2);
}

#[test]
fn an_ending_that_trying_again_does_not_mend_aborts_at_once_and_is_the_reason_people_see() {
    for (ending, told, word) in [
        (Ending::Different, "KeysDiffer", "still differ"),
        (Ending::Corrupt, "CorruptData", "cannot be understood"),
        (Ending::OutOfMemory, "ServerOutOfMemory", "limits.memory"),
    ] {
        for phase in [Phase::Copying, Phase::Verifying, Phase::Cutover] {
            let mut world = World::new(2);
            world.want(3);
            world.run_until(phase);
            world.migrate = JobState::Running;
            world.others(Trouble { ends: Some(ending), ..Trouble::default() });
            world.pass(false);
            assert_eq!(world.phase(), Some(Phase::Aborting), "{ending:?} in {phase:?}");
            world.run(60);
            if world.layout().version == 2 {
                // The scheduler was told to flip what was proven before, and did.
                assert_eq!(phase, Phase::Cutover);
                continue;
            }
            assert_eq!((world.layout().version, world.groups), (1, 2));
            let step = world.decide();
            assert!(
                matches!(&step, Step::Refuse { reason, message } if *reason == told && message.contains(word)),
                "{step:?}"
            );
            world.want(4);
            world.run(60);
            world.assert_clean(4, 2);
        }
    }
}

#[test]
fn pods_that_were_called_off_by_a_topology_of_before_are_no_failure_of_what_is_wanted() {
    let mut world = World::new(2);
    world.want(3);
    world.run_until(Phase::CatchingUp);
    world.others(Trouble { ends: Some(Ending::CalledOff), ..Trouble::default() });
    world.run(60);
    world.assert_clean(3, 2);
    assert!(!world.phases.contains(&Phase::Aborting));
}
