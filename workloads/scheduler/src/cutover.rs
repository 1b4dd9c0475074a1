//! What re-sharding asks of the scheduler between two ticks. Pure; knows the topology, what this leader knows of the
//! guards and how its last tries went; no guards, no I/O.
//!
//! Ticks go on in every phase; only a cut-over holds the next one. Every step may be repeated: a leader that dies
//! anywhere is followed by one that finds the same step again.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_common::records::Progress;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::migrate::cutover::MOST_NOTED;
use tokio::time::Instant;

/// Keys that are drained in a few milliseconds: with no more of them noted, the pause is short.
pub const SMALL_LAG: u64 = 256;
/// Ticks for which a lag may stay large before the next one waits for the pods.
pub const PATIENT_TICKS: u32 = 3;
/// Ticks after which a leader makes sure of the guards anew while keys are carried: few enough for pods that wait for a
/// guard, many enough to cost nothing.
const SURE: u64 = 16;
/// Wait after the first failed try; each further one doubles it.
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What this leader knows of the guards of the serving version. A new leader knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guards {
    /// Nothing is known: a leader before this one, or a failed tick, may have left them in any state.
    #[default]
    Unknown,
    /// They are open, and nothing is noted.
    Open,
    /// They are open, and what is written is noted for this version.
    Noting(u64),
    /// They may have a newer epoch than the topology: somebody began to turn them and did not end it.
    Ahead,
}

/// What to do before the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tick, when it is time.
    Run,
    /// Make sure that the serving version is written and noted.
    Note,
    /// Make sure that the serving version is written, and nothing noted.
    Open,
    /// Write the topology again under an epoch that fences whoever began to turn the guards.
    Bump,
    /// Ask how many keys are noted.
    Await,
    /// Freeze, drain, turn, flip: now.
    CutOver(Layout),
}

/// What a leader remembers of the cut-over it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// The version it is about; 0: none.
    pub version: u64,
    /// Failed tries.
    pub tries: u32,
    /// The next try is not made before.
    pub not_before: Option<Instant>,
    /// Keys noted, as asked since the last tick.
    pub lag: Option<u64>,
    /// Ticks committed while there were too many.
    pub ticks: u32,
    /// The next tick waits for the pods until then, at most.
    pub hold_until: Option<Instant>,
    /// Ticks go on although a group that only the target has does not answer; until then.
    pub unnoted_until: Option<Instant>,
}

impl Pending {
    /// Forgets what another topology has made worthless.
    pub fn follow(&mut self, topology: &Topology) {
        let version = topology.target.map_or(0, |target| target.version);
        if version != self.version {
            *self = Pending { version, ..Pending::default() };
        }
        if topology.phase != Some(Phase::Cutover) {
            (self.lag, self.ticks, self.hold_until) = (None, 0, None);
        }
    }

    /// A tick was committed; the next one is due at `due`. Once too many keys were noted for too long, it waits, but for no
    /// longer than `most`.
    pub fn ticked(&mut self, due: Instant, most: Duration) {
        if self.lag.take().is_some() {
            self.ticks += 1;
            self.hold_until = (self.ticks >= PATIENT_TICKS).then(|| due + most);
        }
    }

    /// A try has failed.
    pub fn failed(&mut self, now: Instant) {
        self.tries += 1;
        let wait = BACKOFF.saturating_mul(1 << (self.tries - 1).min(16)).min(LONGEST_BACKOFF);
        self.rest(now + wait);
    }

    /// Nothing was begun, for the pods have no proof that counts: they are asked again soon.
    pub fn put_off(&mut self, now: Instant) {
        self.rest(now + BACKOFF);
    }

    fn rest(&mut self, until: Instant) {
        (self.not_before, self.lag, self.ticks, self.hold_until) = (Some(until), None, 0, None);
    }

    /// Whether the lag is to be asked again soon.
    pub fn is_asked(&self) -> bool {
        self.lag.is_some()
    }
}

/// Whether so many noted keys of so many sources cannot be carried while these stand still: then nobody need be frozen to find
/// that out.
pub fn is_hopeless(lag: u64, sources: u32) -> bool {
    lag > MOST_NOTED.saturating_mul(u64::from(sources))
}

impl Guards {
    /// What is still known after a tick. A server that forgot its last second may have forgotten its guard, and no write of
    /// a tick ever asks a group that only the target has. In a cut-over nothing may come between.
    pub fn after_tick(self, topology: &Topology, tick: u64) -> Guards {
        let carries = topology.phase.is_some_and(|phase| phase.carries() && phase != Phase::Cutover);
        match self {
            Guards::Noting(_) if carries && tick.is_multiple_of(SURE) => Guards::Unknown,
            known => known,
        }
    }

    /// What is known under a newer topology.
    pub fn followed(self, old: &Topology, new: &Topology) -> Guards {
        match self {
            Guards::Ahead => Guards::Ahead,
            known if old.target == new.target && known != Guards::Unknown => known,
            // Whoever led before may be at this very cut-over, and turn the guards late.
            _ if new.phase == Some(Phase::Cutover) => Guards::Ahead,
            _ => Guards::Unknown,
        }
    }
}

/// The version for which the serving one is noted: the one being made, or the one before, while one can go back.
pub fn noted(topology: &Topology) -> Option<Layout> {
    if topology.phase.is_some_and(Phase::carries) { topology.target } else { topology.previous }
}

/// Decides what comes next.
pub fn step(topology: &Topology, guards: Guards, pending: &Pending, now: Instant) -> Step {
    match (guards, noted(topology)) {
        (Guards::Ahead, _) => Step::Bump,
        (Guards::Open, None) => Step::Run,
        (_, None) => Step::Open,
        (Guards::Noting(version), Some(other)) if version == other.version => {
            cut_over(topology, pending, now)
        }
        // A target that is not there keeps nobody from playing.
        (_, Some(_)) if pending.unnoted_until.is_some_and(|until| now < until) => Step::Run,
        (_, Some(_)) => Step::Note,
    }
}

fn cut_over(topology: &Topology, pending: &Pending, now: Instant) -> Step {
    let asked = topology.target.filter(|_| topology.phase == Some(Phase::Cutover));
    let Some(target) = asked.filter(|_| pending.not_before.is_none_or(|at| at <= now)) else {
        return Step::Run;
    };
    match (pending.lag, pending.hold_until) {
        (None, _) => Step::Await,
        (Some(lag), _) if lag <= SMALL_LAG => Step::CutOver(target),
        (Some(_), None) => Step::Run,
        (Some(_), Some(until)) if now < until => Step::Await,
        // It does not get smaller: whether the pause is long enough shows.
        (Some(_), Some(_)) => Step::CutOver(target),
    }
}

/// The topology after the flip to `target`: it serves. Forward, what served before is kept and goes on being noted
/// for; back, what was given up is collected.
pub fn flipped(topology: &Topology, target: Layout) -> Topology {
    let back = target.version < topology.serving.version;
    Topology {
        epoch: topology.epoch + 1,
        serving: target,
        target: None,
        previous: (!back).then_some(topology.serving),
        phase: Some(if back { Phase::Collecting } else { Phase::Retaining }),
        ..topology.clone()
    }
}

/// The same topology under an epoch newer than that of a flip somebody may still be at: their guards and their flip are
/// refused from then on.
pub fn bumped(topology: &Topology) -> Topology {
    Topology { epoch: topology.epoch + 2, ..topology.clone() }
}

/// Why a target is not proven to be equal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A pod has not proven its source.
    #[error("source {0} is not proven equal")]
    Source(u32),
    /// A pod has proven its source in a migration that was given up.
    #[error("source {0} was proven equal in an earlier migration")]
    Earlier(u32),
    /// A server has been started since: what it had in memory alone may be gone.
    #[error("shard {0} was started again since it was proven equal")]
    Restarted(u32),
}

/// Run ids of the servers, by shard, on which the pods made their proofs. Of each source what its pod told, and since which
/// epoch the source notes what is written.
///
/// # Errors
/// When one has not proven its source, or not in this migration.
pub fn proven(pods: &[(Option<Progress>, u64)]) -> Result<BTreeMap<u32, String>, Unproven> {
    let mut lives = BTreeMap::new();
    for (source, (progress, since)) in (0..).zip(pods) {
        let done = progress.as_ref().filter(|progress| progress.done).ok_or(Unproven::Source(source))?;
        if done.since != *since {
            return Err(Unproven::Earlier(source));
        }
        for (shard, life) in &done.lives {
            // Of two pods one made its proof before a start, and one after it.
            if lives.insert(*shard, life.clone()).is_some_and(|other| other != *life) {
                return Err(Unproven::Restarted(*shard));
            }
        }
    }
    Ok(lives)
}

/// Compares the servers as they run now with those the proofs were made on.
///
/// # Errors
/// When one has been started again.
pub fn same_lives(proven: &BTreeMap<u32, String>, now: &BTreeMap<u32, String>) -> Result<(), Unproven> {
    match now.iter().find(|(shard, life)| proven.get(*shard).is_some_and(|proven| proven != *life)) {
        Some((shard, _)) => Err(Unproven::Restarted(*shard)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "cutover_tests.rs"]
mod tests;
