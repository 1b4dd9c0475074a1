//! Whoever is around the operator in the simulation: players, servers, the scheduler, Jobs, and what goes wrong with them.

use std::collections::BTreeSet;

use fortia_common::ending::Ending;
use fortia_common::records::{CutoverRecord, Progress, Proof};
use fortia_common::topology::Phase as WirePhase;

use super::World;
use crate::crd::rebalance::Phase;
use crate::rebalance::job::JobState;

/// What goes wrong around the operator in one round.
#[derive(Clone, Copy, Default)]
pub(super) struct Trouble {
    /// The Job that runs gives up.
    pub(super) job_fails: bool,
    /// A pod of the Job that carries ends in a way that fails the Job at once.
    pub(super) ends: Option<Ending>,
    /// The scheduler's try to flip takes too long.
    pub(super) late: bool,
    /// A source came back: what was proven is proven no more.
    pub(super) unproven: bool,
}

impl World {
    /// Players, servers, scheduler and Jobs do their part.
    pub(super) fn others(&mut self, trouble: Trouble) {
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
        if let Some(ending) = trouble.ends {
            self.migrate = JobState::Hopeless(ending, format!("exit code {}", ending.code()));
            return;
        }
        if self.topology.target != Some(r.to.wire()) {
            return;
        }
        (0..r.to.shards).filter(|i| !self.lost.contains(i)).for_each(|i| {
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
        if self.left_over().any(|index| self.lost.contains(&index) && !self.lost_told.contains(&index)) {
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
}
