//! Tests of the decision.

use super::*;
use crate::controller::authority::{left_over, surplus};
use crate::controller::records::Records;
use crate::controller::rights::Given;
use crate::controller::validate::example;
use crate::crd::rebalance::Rebalance;
use crate::crd::spec::Placement;
use crate::failover::state::{Guard, Node, Seen, Watermark};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

const TWO: Layout = Layout { version: 1, shards: 2, placement: Placement::Modulo };
const THREE: Layout = Layout { version: 2, shards: 3, placement: Placement::Modulo };

/// A running cluster of two shards and one server a group.
pub(in crate::controller) fn running() -> FortiaClusterStatus {
    let group = |group: GroupId| Group {
        name: group.to_string(),
        primary: format!("midgard-{group}-0"),
        run_id: Some(format!("run-{group}")),
        state: GroupState::Admitted,
        ..Group::default()
    };
    FortiaClusterStatus {
        layout: Some(TWO),
        epoch: 7,
        world_ready: true,
        groups: GroupId::all(2).into_iter().map(group).collect(),
        ..FortiaClusterStatus::default()
    }
}

pub(in crate::controller) fn carrying(phase: Phase) -> FortiaClusterStatus {
    let rebalance =
        Rebalance { phase, from: TWO, to: THREE, accepted: true, opened: true, ..Rebalance::default() };
    FortiaClusterStatus { rebalance: Some(rebalance), ..running() }
}

/// What is seen of it when all is well; `stored`: the control database's topology.
pub(in crate::controller) fn seen(status: &FortiaClusterStatus, stored: Option<Topology>) -> Observed {
    let node = |group: GroupId| Node {
        pod: format!("midgard-{group}-0"),
        uid: Some("pod".into()),
        seen: Some(Seen {
            run_id: format!("run-{group}"),
            role: Role::Primary,
            loading: false,
            keys: 5,
            used_memory: 1,
            idle_memory: 0,
            file_size: 0,
            guard: Some(Guard {
                uid: "uid-1".into(),
                group: group.to_string(),
                index: group.index(),
                watermark: Watermark { parts: 1, epoch: 1, tick_epoch: 1, closed: 1 },
            }),
        }),
    };
    let rights = GroupId::all(4).into_iter().map(|g| (format!("run-{g}"), writable(status)));
    Observed {
        sets: BTreeMap::new(),
        deployments: BTreeMap::new(),
        jobs: BTreeMap::new(),
        pods: BTreeMap::new(),
        passwords: None,
        nodes: groups(status).into_iter().map(|group| (group, vec![node(group)])).collect(),
        targets: BTreeMap::new(),
        records: Some(Records { topology: stored, ..Records::default() }),
        surplus: Vec::new(),
        volumes: BTreeMap::new(),
        leftovers: Some(0),
        lost: Vec::new(),
        rights: Given { versions: rights.collect(), ..Given::default() },
        stalled: false,
        apart: Vec::new(),
        now: Timestamp::from_second(1_000).expect("time"),
    }
}

pub(in crate::controller) fn plan(shards: u32) -> Plan {
    example(&format!("{{redisShards: {shards}, redis: {{replicas: 0}}}}"))
}

/// The topology after the scheduler's flip.
fn flipped(plan: &Plan) -> Topology {
    let shown = topology(plan, &carrying(Phase::Cutover), TWO);
    Topology {
        epoch: 8,
        serving: THREE.wire(),
        target: None,
        previous: Some(TWO.wire()),
        phase: Some(Phase::Retaining.wire()),
        ..shown
    }
}

#[test]
fn a_new_cluster_records_its_layout_before_anything_exists() {
    let status = FortiaClusterStatus::default();
    assert_eq!(groups(&status), Vec::new());
    let decision = decide(&plan(2), &status, &seen(&status, None));
    assert_eq!((decision.next.layout, decision.next.epoch), (Some(TWO), 1));
}

#[test]
fn the_first_topology_waits_until_every_group_is_admitted() {
    let status = running();
    let mut seen = seen(&status, None);
    let decision = decide(&plan(2), &status, &seen);
    assert_eq!(decision.topology.map(|(expected, t)| (expected, t.epoch, t.groups.len())), Some((0, 7, 2)));
    seen.nodes.insert(GroupId::Shard(1), Vec::new());
    assert!(decide(&plan(2), &status, &seen).topology.is_none());
}

#[test]
fn a_topology_as_recorded_is_not_written_again() {
    let status = running();
    let stored = topology(&plan(2), &status, TWO);
    let decision = decide(&plan(2), &status, &seen(&status, Some(stored)));
    assert!(decision.topology.is_none());
    assert_eq!(decision.next.epoch, 7);
}

#[test]
fn a_phase_that_servers_must_know_is_recorded_under_a_new_epoch_and_written_in_a_later_pass() {
    let mut status = carrying(Phase::Planned);
    let stored = topology(&plan(3), &running(), TWO);
    if let Some(rebalance) = &mut status.rebalance {
        rebalance.opened = false;
    }
    let mut all = seen(&status, Some(stored));
    status.groups.push(Group { primary: "midgard-shard-2-0".into(), ..status.groups[2].clone() });
    if let Some(group) = status.groups.last_mut() {
        (group.name, group.run_id) = ("shard-2".into(), Some("run-shard-2".into()));
    }
    all.rights = seen(&status, None).rights;
    let decision = decide(&plan(3), &status, &all);
    assert_eq!(decision.next.rebalance.as_ref().map(|r| r.phase), Some(Phase::Copying));
    assert_eq!(decision.next.epoch, 8);
    assert!(decision.topology.is_none(), "nothing acts on what is not recorded yet");
    let later = decide(&plan(3), &decision.next, &all);
    let (expected, written) = later.topology.expect("written");
    assert_eq!((expected, written.epoch, written.target), (7, 8, Some(THREE.wire())));
}

#[test]
fn what_replaces_a_cut_over_has_another_epoch_than_a_late_turn_of_the_guards() {
    let status = carrying(Phase::Cutover);
    let stored = topology(&plan(3), &status, TWO);
    let late = flipped(&plan(3)).epoch;
    let decision = decide(&plan(2), &status, &seen(&status, Some(stored.clone())));
    assert_eq!(decision.next.rebalance.as_ref().map(|r| r.phase), Some(Phase::Aborting));
    assert!(decision.next.epoch > late, "{} and {late}", decision.next.epoch);
    let (expected, written) =
        decide(&plan(2), &decision.next, &seen(&status, Some(stored))).topology.expect("told");
    assert_eq!((expected, written.epoch), (7, decision.next.epoch));
}

#[test]
fn the_schedulers_flip_is_followed() {
    let status = carrying(Phase::Cutover);
    let decision = decide(&plan(3), &status, &seen(&status, Some(flipped(&plan(3)))));
    assert_eq!(decision.next.layout, Some(THREE));
    assert_eq!(decision.next.rebalance.as_ref().map(|r| r.phase), Some(Phase::Retaining));
    assert_eq!(decision.next.epoch, 8);
}

#[test]
fn what_the_scheduler_writes_at_its_flip_is_what_status_says_afterwards() {
    let status = carrying(Phase::Cutover);
    let decision = decide(&plan(3), &status, &seen(&status, Some(flipped(&plan(3)))));
    assert_eq!(topology(&plan(3), &decision.next, THREE), flipped(&plan(3)));
}

#[test]
fn the_way_back_is_open_while_the_previous_version_is_kept_and_stays_open_when_it_is_not_gone() {
    let back = |phase, rollback| {
        let (from, to) = if rollback { (THREE, TWO) } else { (TWO, THREE) };
        let rebalance =
            Rebalance { phase, from, to, rollback, accepted: true, opened: true, ..Rebalance::default() };
        let status = FortiaClusterStatus { layout: Some(THREE), rebalance: Some(rebalance), ..running() };
        let topology = topology(&plan(3), &status, THREE);
        (topology.phase.map(Phase::from), topology.target, topology.previous, topology.groups.len())
    };
    let kept = (Some(Phase::Retaining), None, Some(TWO.wire()), 3);
    assert_eq!(back(Phase::Retaining, false), kept);
    assert_eq!(back(Phase::CatchingUp, true), (Some(Phase::Copying), Some(TWO.wire()), None, 3));
    assert_eq!(back(Phase::Aborting, true), kept, "a way back that is given up");
    assert_eq!(back(Phase::Collecting, false).2, None);
}

#[test]
fn leftovers_are_removed_where_they_can_be_and_no_group_is_shown_that_does_not_exist() {
    let mut status = carrying(Phase::Aborting);
    if let Some(rebalance) = &mut status.rebalance {
        rebalance.accepted = false;
    }
    assert_eq!((groups(&status).len(), topology(&plan(3), &status, TWO).groups.len()), (4, 2));
    assert_eq!(writable(&status), [1, 2], "unlinking takes rights");
}

#[test]
fn a_plan_is_shown_for_the_asking_and_nothing_is_done() {
    let status = running();
    let mut plan = plan(2);
    plan.asked.plan = Some((5, Some(Placement::Jump)));
    let stored = topology(&plan, &status, TWO);
    let decision = decide(&plan, &status, &seen(&status, Some(stored)));
    let shown = decision.next.plan.expect("shown");
    assert_eq!((shown.ticket.as_str(), shown.keys), ("v2-5-jump-1", 8));
    assert_eq!((decision.rebalance, decision.next.rebalance), (rebalance::Step::Idle, None));
    assert_eq!((decision.next.moves.len(), decision.next.load.map(|l| l.keys)), (64, Some(8)));
    // To the same number with the other placement.
    assert_eq!(decision.next.moves[1], 0);
    assert!(decision.next.moves_placed_anew[1].abs_diff(50) < 2);
}

#[test]
fn keys_of_the_version_that_is_only_kept_are_not_counted_and_while_keys_are_carried_nothing_new_is_told() {
    let load = |phase, layout| {
        let mut status = FortiaClusterStatus { layout: Some(layout), ..carrying(phase) };
        if let Some(rebalance) = &mut status.rebalance {
            (rebalance.to.shards, rebalance.total_keys) = (2, Some(3));
        }
        let seen = seen(&status, None);
        decide(&plan(3), &status, &seen).next.load.map(|load| load.keys)
    };
    // Four keys on each of the two shards, three of which are of the version that is kept.
    assert_eq!(load(Phase::Retaining, Layout { version: 2, shards: 2, ..THREE }), Some(5));
    assert_eq!(load(Phase::Copying, TWO), None);
}

#[test]
fn a_flip_that_came_before_the_abort_was_told_wins() {
    let mut status = carrying(Phase::Aborting);
    status.epoch = 9;
    let decision = decide(&plan(2), &status, &seen(&status, Some(flipped(&plan(2)))));
    assert_eq!(decision.next.layout, Some(THREE));
    assert!(decision.topology.is_none(), "the flip is not overwritten");
}

#[test]
fn the_target_version_may_be_written_while_it_is_made_and_the_old_one_no_longer_afterwards() {
    assert_eq!(writable(&carrying(Phase::Copying)), [1, 2]);
    let done = FortiaClusterStatus { layout: Some(THREE), ..running() };
    assert_eq!(writable(&done), [2]);
    let mut seen = seen(&done, None);
    seen.rights.versions.insert("run-shard-0".into(), vec![1, 2]);
    let decision = decide(&plan(3), &done, &seen);
    assert!(decision.rights.contains(&(GroupId::Shard(0), "midgard-shard-0-0".into(), vec![2])));
}

#[test]
fn rights_of_a_while_ago_are_given_again_and_nobody_waits_for_that() {
    let status = running();
    let mut seen = seen(&status, None);
    assert!(decide(&plan(2), &status, &seen).rights.is_empty());
    seen.rights.old.insert("run-shard-1".into());
    let decision = decide(&plan(2), &status, &seen);
    assert_eq!(decision.rights, [(GroupId::Shard(1), "midgard-shard-1-0".into(), vec![1])]);
    assert!(decision.topology.is_some(), "all is settled");
}

#[test]
fn guards_of_shards_that_serve_nothing_are_closed_before_keys_go_and_never_those_of_serving_shards() {
    let with_target = |phase| {
        let mut status = carrying(phase);
        let third =
            Group { name: "shard-2".into(), primary: "midgard-shard-2-0".into(), ..status.groups[2].clone() };
        status.groups.push(third);
        status
    };
    let aborting = with_target(Phase::Aborting);
    assert_eq!(left_over(&aborting), [(GroupId::Shard(2), "midgard-shard-2-0")]);
    assert_eq!(left_over(&with_target(Phase::Collecting)), [(GroupId::Shard(2), "midgard-shard-2-0")]);
    assert!(left_over(&with_target(Phase::Retaining)).is_empty(), "it may be gone back to");
    assert!(left_over(&carrying(Phase::Aborting)).is_empty(), "a group that was never recorded");
}

#[test]
fn only_shards_beyond_the_layout_are_ever_surplus() {
    let mut status = carrying(Phase::Aborting);
    if let Some(rebalance) = &mut status.rebalance {
        rebalance.collected = true;
    }
    let sets =
        ["midgard-shard-2", "midgard-shard-1", "midgard-control-db", "midgard-logserver", "other-shard-9"];
    let sets = sets.map(String::from);
    assert_eq!(surplus(&status, sets.iter(), &plan(2).names), [GroupId::Shard(2)]);
}
