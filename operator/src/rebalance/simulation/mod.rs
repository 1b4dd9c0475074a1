//! A little cluster in memory that obeys [`super::phase::next`]: topology, scheduler, Jobs, and a world that is written
//! all the time. Every write is remembered; what serves must always hold all of them.

mod around;
mod back;
mod faults;
mod forward;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::time::Duration;

use fortia_common::failpoint::{Action, Failed, Failpoints};
use fortia_common::records::{CutoverRecord, Progress};
use fortia_common::topology::Topology;
use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;

use around::Trouble;

use super::job::JobState;
use super::order::act_then_record;
use super::phase::{Observed, Spec, Step, Surplus, SurplusState, next};
use super::plan::{Shard, Sizes};
use crate::build::names::GroupId;
use crate::controller::authority;
use crate::controller::validate::{Plan, example};
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::spec::Placement;
use crate::crd::status::{FortiaClusterStatus, Layout};

const MIB: u64 = 1 << 20;

/// Everything outside the operator's head.
struct World {
    plan: Plan,
    spec: Spec,
    status: FortiaClusterStatus,
    topology: Topology,
    cutover: Option<CutoverRecord>,
    migrate: JobState,
    collect: JobState,
    /// Rounds for which the carrying pods have worked.
    worked: u32,
    progress: Vec<Progress>,
    /// Versions of which keys exist, by shard.
    keys: Vec<BTreeSet<u64>>,
    /// Writes that each version holds.
    content: BTreeMap<u64, BTreeSet<u64>>,
    /// Writes noted for a version that is made or kept.
    notes: (Option<u64>, BTreeSet<u64>),
    writes: u64,
    /// Groups that exist.
    groups: u32,
    server_epoch: u64,
    /// The control database does not answer.
    blind: bool,
    apart: Vec<String>,
    leftovers: Option<u64>,
    /// Groups whose volumes are gone, and those of them that the Job which collects knows of.
    lost: BTreeSet<u32>,
    lost_told: Vec<u32>,
    now: i64,
    used: u64,
    phases: Vec<Phase>,
    steps: Vec<Step>,
    /// Where operators die, and how many have.
    failpoints: Failpoints,
    deaths: u32,
}

impl World {
    fn new(shards: u32) -> World {
        let plan = example(&format!("{{redisShards: {shards}, redis: {{replicas: 0}}}}"));
        let layout = Layout { version: 1, shards, placement: Placement::Modulo };
        let status = FortiaClusterStatus { layout: Some(layout), epoch: 1, ..FortiaClusterStatus::default() };
        World {
            spec: Spec {
                shards,
                placement: Placement::Modulo,
                generation: 1,
                retain: Duration::from_secs(10),
                require_approval: false,
                approved: None,
                aborts: None,
                back_to: None,
            },
            topology: authority::topology(&plan, &status, layout),
            plan,
            status,
            cutover: None,
            migrate: JobState::Absent,
            collect: JobState::Absent,
            worked: 0,
            progress: Vec::new(),
            keys: vec![BTreeSet::from([1]); shards as usize],
            content: BTreeMap::from([(1, BTreeSet::new())]),
            notes: (None, BTreeSet::new()),
            writes: 0,
            groups: shards,
            server_epoch: 1,
            blind: false,
            apart: Vec::new(),
            leftovers: Some(0),
            lost: BTreeSet::new(),
            lost_told: Vec::new(),
            now: 1_000,
            used: MIB,
            phases: Vec::new(),
            steps: Vec::new(),
            failpoints: Failpoints::default(),
            deaths: 0,
        }
    }

    fn want(&mut self, shards: u32) {
        self.spec.shards = shards;
        self.spec.generation += 1;
    }

    fn layout(&self) -> Layout {
        self.status.layout.expect("a layout")
    }

    fn phase(&self) -> Option<Phase> {
        self.status.rebalance.as_ref().map(|r| r.phase)
    }

    /// What status says the topology should be.
    fn wanted(&self) -> Topology {
        authority::topology(&self.plan, &self.status, self.layout())
    }

    fn surplus(&self) -> Vec<Surplus> {
        if !authority::leaving(&self.status) {
            return Vec::new();
        }
        (self.layout().shards..self.groups)
            .map(|index| {
                let held = self.keys[index as usize].len() as u64;
                let state = if held == 0 { SurplusState::Empty } else { SurplusState::Holds(held) };
                Surplus { group: GroupId::Shard(index), state }
            })
            .collect()
    }

    /// Groups that go and are to be cleaned before.
    fn left_over(&self) -> impl Iterator<Item = u32> {
        let cleans = |r: &Rebalance| matches!(r.phase, Phase::Aborting | Phase::Collecting) && !r.collected;
        let cleans = self.status.rebalance.as_ref().is_some_and(cleans);
        (self.layout().shards..self.groups).filter(move |_| cleans)
    }

    /// The servers of a group come back without anything.
    fn lose(&mut self, index: u32) {
        self.lost.insert(index);
        self.keys[index as usize].clear();
    }

    fn decide(&self) -> Step {
        let shard = Shard { keys: 10, memory: self.used, data: self.used, file: self.used, volume: 0 };
        let shards = vec![shard; self.layout().shards as usize];
        let sizes = Sizes { shards, max_memory: 100 * MIB, volume: 100 * MIB };
        let behind = if self.server_epoch < self.topology.epoch { vec!["game-0".into()] } else { Vec::new() };
        let needed = self.status.rebalance.as_ref().filter(|r| r.accepted).map_or(0, |r| r.to.shards);
        let told = !self.blind;
        next(
            &self.spec,
            &Observed {
                layout: self.layout(),
                rebalance: self.status.rebalance.as_ref(),
                plans: self.status.plans,
                failed: self.status.failed_rebalance.as_ref(),
                settled: self.groups >= needed,
                topology: told.then_some(&self.topology),
                in_sync: told && self.topology == self.wanted(),
                behind,
                cutover: self.cutover.as_ref().filter(|_| told),
                migrate: self.migrate.clone(),
                collect: self.collect.clone(),
                progress: if told { &self.progress } else { &[] },
                sizes: Some(sizes),
                apart: self.apart.clone(),
                leftovers: self.leftovers,
                lost: self.left_over().filter(|index| self.lost.contains(index)).collect(),
                rate: None,
                surplus: self.surplus(),
                now: Timestamp::from_second(self.now).expect("time"),
            },
        )
    }

    /// One pass, in the controller's order. `dies_before_status`: the operator acts and dies before it records.
    fn pass(&mut self, dies_before_status: bool) {
        let (step, points) = (self.decide(), self.failpoints.clone());
        if dies_before_status {
            points.arm("rebalance.acted", Action::Fail).expect("a point");
        }
        let world = RefCell::new(&mut *self);
        let act = async { world.borrow_mut().act_and_tell(&step) };
        let record = |acted| {
            world.borrow_mut().record_and_raise(&step, acted);
            ready(Ok::<_, Failed>(()))
        };
        let pass = act_then_record(Some(&points), act, record).now_or_never().expect("nothing to wait for");
        self.deaths += u32::from(pass.is_err());
        if dies_before_status {
            points.disarm("rebalance.acted");
        }
        self.steps.push(step);
    }

    /// Acts on a step, and writes what is recorded as the controller does: if nobody wrote under that epoch before. Whether it
    /// could, and the topology of before.
    fn act_and_tell(&mut self, step: &Step) -> (bool, Topology) {
        let (acted, stored) = (self.act(step), self.topology.clone());
        let older = self.status.epoch > stored.epoch && !authority::is_news(&self.status, &stored);
        if !self.blind && older {
            self.topology = self.wanted();
        }
        (acted, stored)
    }

    fn record_and_raise(&mut self, step: &Step, (acted, stored): (bool, Topology)) {
        if !acted {
            return;
        }
        self.record(step);
        if !self.blind {
            self.status.epoch = self.status.epoch.max(stored.epoch);
            if self.wanted() != stored && self.status.epoch == stored.epoch {
                self.status.epoch = authority::raised(&stored);
            }
        }
    }

    /// Acts on a step; whether it could.
    fn act(&mut self, step: &Step) -> bool {
        match step {
            Step::Carry => {
                (self.migrate, self.worked) = (JobState::Running, 0);
                self.progress.clear();
            }
            Step::Collect { version, lost, .. } => {
                assert_ne!(Some(*version), self.notes.0, "v{version} is unlinked while it is made or kept");
                // The guards of groups that go are closed first; those that are lost take no word.
                if self.left_over().any(|index| self.lost.contains(&index) && !lost.contains(&index)) {
                    return false;
                }
                self.lost_told.clone_from(lost);
                self.collect = JobState::Running;
            }
            Step::DeleteCarry => self.migrate = JobState::Absent,
            Step::DeleteCollect => self.collect = JobState::Absent,
            Step::Remove(GroupId::Shard(index)) => {
                assert!(self.keys[*index as usize].is_empty(), "a group with keys was removed");
                assert!(*index >= self.layout().shards, "a serving group was removed");
                self.groups = self.groups.min(*index);
                self.lost.remove(index);
                self.keys.truncate(*index as usize);
            }
            Step::Finish(_) if self.blind => return false,
            Step::Finish(_) => {
                self.cutover = None;
                self.progress.clear();
            }
            _ => {}
        }
        true
    }

    fn record(&mut self, step: &Step) {
        match step {
            Step::Record(r) => {
                self.status.plans = self.status.plans.max(r.number);
                self.status.rebalance = Some(r.clone());
            }
            Step::Adopt(r) => {
                self.status.layout = Some(r.to);
                self.status.rebalance = Some(r.clone());
            }
            Step::Finish(failed) => {
                self.status.rebalance = None;
                self.status.failed_rebalance = failed.clone();
            }
            _ => {}
        }
        if let Some(phase) = self.phase().filter(|phase| self.phases.last() != Some(phase)) {
            self.phases.push(phase);
        }
    }

    fn run(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.pass(false);
            self.others(Trouble::default());
            self.assert_whole();
        }
    }

    fn run_until(&mut self, phase: Phase) {
        for _ in 0..100 {
            if self.phase() == Some(phase) {
                return;
            }
            self.run(1);
        }
        panic!("{phase:?} does not come: {:?}", self.steps.last());
    }

    /// What serves is on all its shards and holds every write.
    fn assert_whole(&self) {
        let version = self.topology.serving.version;
        for index in 0..self.topology.serving.shards {
            assert!(self.keys[index as usize].contains(&version), "v{version} is not whole on shard-{index}");
        }
        assert_eq!(self.content[&version].len() as u64, self.writes, "writes are lost in v{version}");
    }

    fn assert_clean(&self, shards: u32, version: u64) {
        let step = self.decide();
        assert!(matches!(step, Step::Idle | Step::Rest { .. }), "{step:?}");
        assert_eq!((self.layout().shards, self.layout().version, self.groups), (shards, version, shards));
        assert!(self.keys.iter().all(|keys| *keys == BTreeSet::from([version])), "{:?}", self.keys);
        assert_eq!((&self.migrate, &self.collect), (&JobState::Absent, &JobState::Absent));
        assert_eq!((self.topology.serving.version, self.notes.0), (version, None));
        let topology = &self.topology;
        assert_eq!((topology.target, topology.previous, topology.phase), (None, None, None));
    }
}
