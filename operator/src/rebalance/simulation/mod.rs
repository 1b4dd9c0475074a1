//! A little cluster in memory that obeys [`super::phase::next`]: topology, scheduler, Jobs, and a world that is written
//! all the time. Every write is remembered; what serves must always hold all of them.

mod back;
mod faults;
mod forward;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fortia_common::records::{CutoverRecord, Progress, Proof};
use fortia_common::topology::{Phase as WirePhase, Topology};
use k8s_openapi::jiff::Timestamp;

use super::job::JobState;
use super::phase::{Observed, Spec, Step, Surplus, SurplusState, next};
use super::plan::{Shard, Sizes};
use crate::build::names::GroupId;
use crate::controller::authority;
use crate::controller::validate::{Plan, example};
use crate::crd::rebalance::Phase;
use crate::crd::spec::Placement;
use crate::crd::status::{FortiaClusterStatus, Layout};

const MIB: u64 = 1 << 20;

/// What goes wrong around the operator in one round.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// The Job that runs gives up.
    job_fails: bool,
    /// The scheduler's try to flip takes too long.
    late: bool,
    /// A source came back: what was proven is proven no more.
    unproven: bool,
}

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
    now: i64,
    used: u64,
    phases: Vec<Phase>,
    steps: Vec<Step>,
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
                rate: None,
                surplus: self.surplus(),
                now: Timestamp::from_second(self.now).expect("time"),
            },
        )
    }

    /// One pass. `dies_before_status`: the operator acts and dies before it records.
    fn pass(&mut self, dies_before_status: bool) {
        let step = self.decide();
        let acted = self.act(&step);
        // As the controller does: what is recorded is written if nobody wrote under that epoch before.
        let stored = self.topology.clone();
        if !self.blind && self.status.epoch > stored.epoch {
            self.topology = self.wanted();
        }
        if !dies_before_status && acted {
            self.record(&step);
            if !self.blind {
                self.status.epoch = self.status.epoch.max(stored.epoch);
                if self.wanted() != stored && self.status.epoch == stored.epoch {
                    self.status.epoch += 1;
                }
            }
        }
        self.steps.push(step);
    }

    /// Acts on a step; whether it could.
    fn act(&mut self, step: &Step) -> bool {
        match step {
            Step::Carry => {
                (self.migrate, self.worked) = (JobState::Running, 0);
                self.progress.clear();
            }
            Step::Collect { version, .. } => {
                assert_ne!(Some(*version), self.notes.0, "v{version} is unlinked while it is made or kept");
                self.collect = JobState::Running;
            }
            Step::DeleteCarry => self.migrate = JobState::Absent,
            Step::DeleteCollect => self.collect = JobState::Absent,
            Step::Remove(GroupId::Shard(index)) => {
                assert!(self.keys[*index as usize].is_empty(), "a group with keys was removed");
                assert!(*index >= self.layout().shards, "a serving group was removed");
                self.groups = self.groups.min(*index);
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
            Step::Record(r) => self.status.rebalance = Some(r.clone()),
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

    /// Players, servers, scheduler and Jobs do their part.
    fn others(&mut self, trouble: Trouble) {
        self.now += 1;
        self.server_epoch = self.topology.epoch;
        if let Some(r) = self.status.rebalance.as_ref().filter(|r| r.accepted && !r.collected) {
            self.groups = self.groups.max(r.to.shards);
            self.keys.resize(self.groups as usize, BTreeSet::new());
        }
        self.schedule(trouble);
        self.carry(trouble);
        self.unlink(trouble);
    }

    /// The scheduler notes for whatever is made or kept, and lets the world be written in every phase.
    fn schedule(&mut self, trouble: Trouble) {
        let carries = self.topology.phase.is_some_and(WirePhase::carries);
        let noted = if carries { self.topology.target } else { self.topology.previous };
        if self.notes.0 != noted.map(|layout| layout.version) {
            self.notes = (noted.map(|layout| layout.version), BTreeSet::new());
        }
        self.writes += 1;
        let serving = self.topology.serving.version;
        self.content.get_mut(&serving).expect("what serves").insert(self.writes);
        if self.notes.0.is_some() {
            self.notes.1.insert(self.writes);
        }
        if self.topology.phase == Some(WirePhase::Cutover) {
            self.try_to_flip(trouble);
        }
    }

    fn try_to_flip(&mut self, trouble: Trouble) {
        let (from, Some(to)) = (self.topology.serving, self.topology.target) else { return };
        let proven = self.progress.len() == from.shards as usize && self.progress.iter().all(|p| p.done);
        let before = self.cutover.take().filter(|told| told.version == to.version);
        let tries = before.map_or(1, |told| told.tries + 1);
        let flipped = proven && !trouble.late;
        let why = (!flipped).then(|| "late".to_owned());
        let tick = self.writes;
        self.cutover =
            Some(CutoverRecord { version: to.version, tick, tries, pause_us: 249_001, flipped, why, at: 0 });
        if !flipped {
            return;
        }
        let drained = std::mem::take(&mut self.notes.1);
        self.content.entry(to.version).or_default().extend(drained);
        assert_eq!(self.content[&from.version], self.content[&to.version], "a flip that loses something");
        let back = to.version < from.version;
        self.topology.epoch += 1;
        self.topology.serving = to;
        self.topology.target = None;
        self.topology.phase = Some(if back { WirePhase::Collecting } else { WirePhase::Retaining });
        self.topology.previous = (!back).then_some(from);
        self.notes = ((!back).then_some(from.version), BTreeSet::new());
    }

    fn carry(&mut self, trouble: Trouble) {
        let Some(r) = self.status.rebalance.clone().filter(|_| self.migrate == JobState::Running) else {
            return;
        };
        if self.topology.serving == r.to.wire() {
            self.migrate = JobState::Complete;
            return;
        }
        if trouble.job_fails {
            self.migrate = JobState::Failed("index 0 failed".into());
            return;
        }
        if self.topology.target != Some(r.to.wire()) {
            return;
        }
        (0..r.to.shards).for_each(|i| {
            self.keys[i as usize].insert(r.to.version);
        });
        // A way back has only what was noted; a way there has all.
        let carried = match r.rollback {
            true => self.notes.1.clone(),
            false => self.content[&r.from.version].clone(),
        };
        self.content.entry(r.to.version).or_default().extend(carried);
        self.notes.1.clear();
        self.worked = if trouble.unproven { 2 } else { self.worked + 1 };
        let phase = [WirePhase::Copying, WirePhase::CatchingUp, WirePhase::Verifying];
        let one = Progress {
            total_keys: Some(10),
            keys: if self.worked == 1 { 5 } else { 10 },
            stayed: 3,
            bytes: 5,
            verified: 10,
            lag: Some(0),
            proof: Some(Proof { keys: 10, digest: format!("{:032x}", u128::MAX) }),
            done: self.worked > 3,
            ..Progress::new(phase.get(self.worked as usize - 1).copied().unwrap_or(WirePhase::Cutover))
        };
        self.progress = vec![one; r.from.shards as usize];
    }

    fn unlink(&mut self, trouble: Trouble) {
        let Some(r) = self.status.rebalance.clone().filter(|_| self.collect == JobState::Running) else {
            return;
        };
        if trouble.job_fails {
            self.collect = JobState::Failed("a shard does not answer".into());
            return;
        }
        let old = if r.phase == Phase::Aborting { r.to.version } else { r.from.version };
        assert_ne!(old, self.topology.serving.version, "what serves is unlinked");
        self.keys.iter_mut().for_each(|keys| {
            keys.remove(&old);
        });
        self.content.remove(&old);
        self.leftovers = Some(0);
        self.collect = JobState::Complete;
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
