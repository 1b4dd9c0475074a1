//! A little cluster in memory that obeys [`super::phase::next`]: every arrow, every crash between two effects.

use std::collections::BTreeSet;
use std::time::Duration;

use fortia_common::records::{Held, Progress};
use fortia_common::topology::{Phase as WirePhase, Topology};
use k8s_openapi::jiff::Timestamp;

use super::job::JobState;
use super::phase::{Observed, Spec, Step, Surplus, SurplusState, next};
use super::plan::Sizes;
use crate::build::names::GroupId;
use crate::crd::spec::Placement;
use crate::crd::status::{FailedRebalance, Layout, Phase, Rebalance};

const MIB: u64 = 1 << 20;

/// Everything outside the operator's head.
struct World {
    spec: Spec,
    layout: Layout,
    rebalance: Option<Rebalance>,
    failed: Option<FailedRebalance>,
    topology: Topology,
    /// Epoch by status.
    epoch: u64,
    held: Option<Held>,
    migrate: JobState,
    collect: JobState,
    progress: Vec<Progress>,
    /// Versions of which keys exist, by shard.
    keys: Vec<BTreeSet<u64>>,
    /// Groups that exist.
    groups: u32,
    server_epoch: u64,
    now: i64,
    used: u64,
    phases: Vec<Phase>,
    steps: Vec<Step>,
}

impl World {
    fn new(shards: u32) -> World {
        let layout = Layout { version: 1, shards, placement: Placement::Modulo };
        World {
            spec: Spec {
                shards,
                placement: Placement::Modulo,
                generation: 1,
                retain: Duration::from_secs(10),
                require_approval: false,
                approved: None,
            },
            layout,
            rebalance: None,
            failed: None,
            topology: Topology {
                epoch: 1,
                cluster: "u".into(),
                serving: layout.wire(),
                target: None,
                previous: None,
                phase: None,
                groups: Vec::new(),
                auth_db: String::new(),
            },
            epoch: 1,
            held: None,
            migrate: JobState::Absent,
            collect: JobState::Absent,
            progress: Vec::new(),
            keys: vec![BTreeSet::from([1]); shards as usize],
            groups: shards,
            server_epoch: 1,
            now: 1_000,
            used: MIB,
            phases: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn want(&mut self, shards: u32) {
        self.spec.shards = shards;
        self.spec.generation += 1;
    }

    /// What status says the topology should be.
    fn wanted(&self) -> Topology {
        let r = self.rebalance.as_ref().filter(|r| r.opened);
        Topology {
            epoch: self.epoch,
            serving: self.layout.wire(),
            target: r.filter(|r| (Phase::Copying..=Phase::Cutover).contains(&r.phase)).map(|r| r.to.wire()),
            phase: r.map(|r| match r.phase {
                Phase::CatchingUp | Phase::Verifying => WirePhase::Copying,
                phase => phase.wire(),
            }),
            ..self.topology.clone()
        }
    }

    fn surplus(&self) -> Vec<Surplus> {
        if !self.rebalance.as_ref().is_some_and(|rebalance| rebalance.collected) {
            return Vec::new();
        }
        (self.layout.shards..self.groups)
            .map(|index| {
                let held = self.keys[index as usize].len() as u64;
                let state = if held == 0 { SurplusState::Empty } else { SurplusState::Holds(held) };
                Surplus { group: GroupId::Shard(index), state }
            })
            .collect()
    }

    fn decide(&self) -> Step {
        let sizes =
            Sizes { shards: vec![(10, self.used); self.layout.shards as usize], max_memory: 100 * MIB };
        let behind = if self.server_epoch < self.topology.epoch { vec!["game-0".into()] } else { Vec::new() };
        let needed = self.rebalance.as_ref().filter(|r| r.accepted).map_or(0, |r| r.to.shards);
        next(
            &self.spec,
            &Observed {
                layout: self.layout,
                rebalance: self.rebalance.as_ref(),
                failed: self.failed.as_ref(),
                settled: self.groups >= needed,
                topology: Some(&self.topology),
                in_sync: self.topology == self.wanted(),
                behind,
                held: self.held.as_ref(),
                migrate: self.migrate.clone(),
                collect: self.collect.clone(),
                progress: &self.progress,
                sizes: Some(sizes),
                surplus: self.surplus(),
                now: Timestamp::from_second(self.now).expect("time"),
            },
        )
    }

    /// One pass. `dies_before_status`: the operator acts and dies before it records.
    fn pass(&mut self, dies_before_status: bool) {
        let step = self.decide();
        self.act(&step);
        // As the controller does: what is recorded is written if nobody wrote under that epoch before.
        let stored = self.topology.clone();
        if self.epoch > stored.epoch {
            self.topology = self.wanted();
        }
        if !dies_before_status {
            self.record(&step);
            self.epoch = self.epoch.max(stored.epoch);
            if self.wanted() != stored && self.epoch == stored.epoch {
                self.epoch += 1;
            }
        }
        self.steps.push(step);
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Carry => self.migrate = JobState::Running,
            Step::Collect { .. } => self.collect = JobState::Running,
            Step::DeleteCarry => self.migrate = JobState::Absent,
            Step::DeleteCollect => self.collect = JobState::Absent,
            Step::Remove(GroupId::Shard(index)) => {
                assert!(self.keys[*index as usize].is_empty(), "a group with keys was removed");
                assert!(*index >= self.layout.shards, "a serving group was removed");
                self.groups = self.groups.min(*index);
                self.keys.truncate(*index as usize);
            }
            Step::Finish(_) => {
                self.held = None;
                self.progress.clear();
            }
            _ => {}
        }
    }

    fn record(&mut self, step: &Step) {
        match step {
            Step::Record(r) => self.rebalance = Some(r.clone()),
            Step::Adopt(r) => {
                self.layout = r.to;
                self.rebalance = Some(r.clone());
            }
            Step::Finish(failed) => {
                self.rebalance = None;
                self.failed = failed.clone();
            }
            _ => {}
        }
        if let Some(r) = &self.rebalance
            && self.phases.last() != Some(&r.phase)
        {
            self.phases.push(r.phase);
        }
    }

    /// Servers, scheduler and Jobs do their part.
    fn others(&mut self, job_fails: bool) {
        if job_fails && self.collect == JobState::Running {
            self.collect = JobState::Failed("a shard does not answer".into());
        }
        self.now += 1;
        self.server_epoch = self.topology.epoch;
        if let Some(r) = self.rebalance.as_ref().filter(|r| r.accepted && !r.collected) {
            self.groups = self.groups.max(r.to.shards);
            self.keys.resize(self.groups as usize, BTreeSet::new());
        }
        match (self.topology.phase, self.topology.target) {
            (Some(WirePhase::Copying), Some(target)) if self.held.is_none() => {
                self.held = Some(Held { version: target.version, tick: 5, since: 0, pause_ms: None });
            }
            (Some(WirePhase::Cutover), Some(target)) => {
                self.topology.serving = target;
                self.topology.target = None;
                self.topology.phase = Some(WirePhase::Retaining);
                self.topology.epoch += 1;
                self.held = self.held.take().map(|held| Held { pause_ms: Some(250), ..held });
            }
            _ => {}
        }
        let Some(r) = self.rebalance.clone() else { return };
        if self.migrate == JobState::Running {
            if job_fails {
                self.migrate = JobState::Failed("index 0 failed".into());
            } else {
                (0..r.to.shards).for_each(|i| {
                    self.keys[i as usize].insert(r.to.version);
                });
                let phase = WirePhase::Verifying;
                let one = Progress { total_keys: Some(10), keys: 10, bytes: 5, verified: 10, done: true, ..Progress::new(phase) };
                self.progress = vec![one; r.from.shards as usize];
                // A Job is complete a while after its last pod has said that it is done.
                self.migrate = if self.now % 2 == 0 { JobState::Complete } else { JobState::Running };
            }
        }
        if self.collect == JobState::Running {
            let old = if r.phase == Phase::Aborting { r.to.version } else { r.from.version };
            self.keys.iter_mut().for_each(|keys| {
                keys.remove(&old);
            });
            self.collect = JobState::Complete;
        }
    }

    fn run(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.pass(false);
            self.others(false);
        }
    }

    fn assert_whole(&self) {
        let version = self.topology.serving.version;
        for index in 0..self.topology.serving.shards {
            assert!(self.keys[index as usize].contains(&version), "v{version} is not whole on shard-{index}");
        }
    }

    fn assert_clean(&self, shards: u32, version: u64) {
        assert_eq!(self.decide(), Step::Idle);
        assert_eq!((self.layout.shards, self.layout.version, self.groups), (shards, version, shards));
        assert!(self.keys.iter().all(|keys| *keys == BTreeSet::from([version])), "{:?}", self.keys);
        assert_eq!((&self.migrate, &self.collect), (&JobState::Absent, &JobState::Absent));
        assert_eq!(self.topology.serving.version, version);
        assert_eq!((self.topology.target, self.topology.phase), (None, None));
    }
}

#[test]
fn two_shards_become_three_through_all_phases() {
    let mut world = World::new(2);
    world.want(3);
    world.run(60);
    world.assert_clean(3, 2);
    use Phase::{Collecting, Copying, Cutover, Planned, Retaining};
    assert_eq!(world.phases, [Planned, Copying, Cutover, Retaining, Collecting]);
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
    assert_eq!(world.layout.placement, Placement::Jump);
}

#[test]
fn the_previous_version_is_kept_as_long_as_asked() {
    let mut world = World::new(1);
    world.spec.retain = Duration::from_secs(100);
    world.want(2);
    world.run(40);
    assert_eq!(world.rebalance.as_ref().map(|r| r.phase), Some(Phase::Retaining));
    assert!(world.keys[0].contains(&1));
    world.run(100);
    world.assert_clean(2, 2);
}

#[test]
fn the_pause_of_the_flip_is_remembered() {
    let mut world = World::new(1);
    world.want(2);
    while world.rebalance.as_ref().is_none_or(|r| r.phase != Phase::Collecting) {
        world.run(1);
    }
    assert_eq!(world.rebalance.as_ref().and_then(|r| r.last_pause_ms), Some(250));
}

#[test]
fn nothing_is_unlinked_while_a_server_follows_the_old_topology() {
    let mut world = World::new(1);
    world.want(2);
    while world.rebalance.as_ref().is_none_or(|r| r.phase != Phase::Retaining) {
        world.run(1);
    }
    for _ in 0..60 {
        world.server_epoch = 1;
        world.pass(false);
        world.now += 1;
    }
    assert_eq!(world.rebalance.as_ref().map(|r| r.phase), Some(Phase::Retaining));
    assert!(
        matches!(world.steps.last(), Some(Step::Wait(why)) if why.contains("game-0")),
        "{:?}",
        world.steps.last()
    );
}

#[test]
fn setting_the_shards_back_aborts_at_every_moment_before_cutover() {
    for rounds in 1..8 {
        let mut world = World::new(2);
        world.want(3);
        world.run(rounds);
        if world.rebalance.as_ref().is_none_or(|r| r.phase >= Phase::Cutover) {
            continue;
        }
        world.want(2);
        world.run(60);
        world.assert_clean(2, 1);
    }
}

/// A world whose operator has told the scheduler to flip, and then sees that it is no longer wanted.
fn regretted_at_cutover() -> World {
    let mut world = World::new(2);
    world.want(3);
    while world.topology.phase != Some(WirePhase::Cutover) {
        world.pass(false);
        if world.topology.phase != Some(WirePhase::Cutover) {
            world.others(false);
        }
    }
    world.want(2);
    world.pass(false);
    assert_eq!(world.rebalance.as_ref().map(|r| r.phase), Some(Phase::Aborting));
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
    world.others(false);
    assert_eq!(world.topology.serving.version, 2);
    world.run(100);
    world.assert_clean(2, 3);
}

#[test]
fn a_failed_collect_job_is_told_until_a_later_one_succeeds() {
    let mut world = World::new(1);
    world.want(2);
    while world.collect != JobState::Running {
        world.pass(false);
        if world.collect != JobState::Running {
            world.others(false);
        }
    }
    world.others(true);
    world.pass(false);
    let told = world.rebalance.as_ref().and_then(|r| r.message.clone()).expect("told");
    assert!(told.contains("a shard does not answer"), "{told}");
    while world.collect != JobState::Running {
        world.pass(false);
    }
    assert_eq!(world.decide(), Step::Wait(told));
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn asking_for_yet_another_number_aborts_and_plans_anew_from_what_serves() {
    let mut world = World::new(2);
    world.want(4);
    world.run(4);
    assert!(world.rebalance.as_ref().is_some_and(|r| r.phase < Phase::Cutover));
    world.want(3);
    world.run(100);
    world.assert_clean(3, 2);
    assert!(world.phases.contains(&Phase::Aborting));
}

#[test]
fn a_change_after_the_flip_goes_forward_not_back() {
    let mut world = World::new(2);
    world.spec.retain = Duration::from_secs(3600);
    world.want(3);
    while world.rebalance.as_ref().is_none_or(|r| r.phase != Phase::Retaining) {
        world.run(1);
    }
    world.want(2);
    world.spec.retain = Duration::from_secs(1);
    world.run(100);
    world.assert_clean(2, 3);
}

#[test]
fn a_failed_job_aborts_and_is_not_tried_again_until_the_spec_changes() {
    let mut world = World::new(2);
    world.want(3);
    for _ in 0..60 {
        world.pass(false);
        let carries = world.migrate == JobState::Running;
        world.others(carries);
    }
    assert_eq!((world.layout.version, world.groups), (1, 2));
    assert!(matches!(world.decide(), Step::Refuse { reason: "RebalanceFailed", .. }));
    world.want(4);
    world.run(60);
    world.assert_clean(4, 2);
}

#[test]
fn a_plan_that_does_not_fit_is_refused_before_anything_is_touched() {
    let mut world = World::new(2);
    world.used = 90 * MIB;
    world.want(1);
    world.run(10);
    assert!(matches!(world.decide(), Step::Refuse { reason: "InsufficientMemory", .. }));
    assert_eq!((world.topology.epoch, world.groups), (1, 2));
    world.want(2);
    world.run(10);
    world.assert_clean(2, 1);
}

#[test]
fn a_plan_waits_for_approval_of_exactly_its_version() {
    let mut world = World::new(1);
    world.spec.require_approval = true;
    world.spec.approved = Some("v1".into());
    world.want(2);
    world.run(10);
    assert_eq!(world.rebalance.as_ref().map(|r| (r.phase, r.accepted)), Some((Phase::Planned, false)));
    world.spec.approved = Some("v2".into());
    world.run(60);
    world.assert_clean(2, 2);
}

#[test]
fn a_job_that_vanished_is_created_again() {
    let mut world = World::new(1);
    world.want(2);
    while world.migrate != JobState::Running {
        world.pass(false);
        world.server_epoch = world.topology.epoch;
        if world.migrate != JobState::Running {
            world.others(false);
        }
    }
    world.migrate = JobState::Absent;
    world.run(60);
    world.assert_clean(2, 2);
}

/// Any mix of crashes, slow servers, failing Jobs and changes of mind ends clean, and what serves is always whole.
#[test]
fn whatever_crashes_whenever_the_serving_version_is_whole_and_the_end_is_clean() {
    for seed in 0..400u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut chance = |of: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % of == 0
        };
        let mut world = World::new(1 + (seed % 3) as u32);
        for round in 0..120 {
            if chance(25) {
                world.want(1 + ((seed + round) % 4) as u32);
            }
            world.pass(chance(4));
            if !chance(3) {
                world.others(chance(12));
            }
            world.assert_whole();
        }
        let shards = 1 + (seed % 4) as u32;
        world.want(shards);
        world.run(150);
        let version = world.layout.version;
        world.assert_clean(shards, version);
    }
}
