//! What to do next in a re-sharding: a pure function of what is wanted, what was recorded and what is seen.
//! Everything it decides is recorded in status before anything acts on it.

use std::time::Duration;

use fortia_common::records::{Held, Progress};
use fortia_common::topology::Topology;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::job::JobState;
use super::plan::Sizes;
use crate::build::names::GroupId;
use crate::crd::spec::Placement;
use crate::crd::status::{FailedRebalance, Layout, Phase, Rebalance};

/// How long the pause of a flip is waited for before the previous version goes.
const PAUSE_KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// How the word of a failed collect Job begins. It is repeated until a later one succeeds.
const COLLECT_FAILED: &str = "the collect Job failed";

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Shards.
    pub shards: u32,
    /// Placement.
    pub placement: Placement,
    /// Generation of the FortiaCluster's spec.
    pub generation: i64,
    /// How long the previous version is kept.
    pub retain: Duration,
    /// Whether to wait for approval.
    pub require_approval: bool,
    /// What was approved, like `v2`.
    pub approved: Option<String>,
}

/// A group that the layout does not need any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surplus {
    /// Which.
    pub group: GroupId,
    /// What it holds.
    pub state: SurplusState,
}

/// What a surplus group holds, seen live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurplusState {
    /// World keys of any version.
    Holds(u64),
    /// Proven to hold no world key.
    Empty,
    /// It does not answer.
    Unreachable,
    /// It is being removed.
    Going,
}

/// What is seen.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The layout that serves, by status.
    pub layout: Layout,
    /// The re-sharding that runs, by status.
    pub rebalance: Option<&'a Rebalance>,
    /// The last that failed, by status.
    pub failed: Option<&'a FailedRebalance>,
    /// The world exists; every group that should exist is admitted, with the rights of now.
    pub settled: bool,
    /// The control database's topology.
    pub topology: Option<&'a Topology>,
    /// The control database carries what status says.
    pub in_sync: bool,
    /// Servers that do not yet follow the topology of now.
    pub behind: Vec<String>,
    /// The scheduler's word that it holds.
    pub held: Option<&'a Held>,
    /// The Job that carries.
    pub migrate: JobState,
    /// The Job that collects.
    pub collect: JobState,
    /// Progress of the carrying pods.
    pub progress: &'a [Progress],
    /// What the serving shards hold; none: not all answer.
    pub sizes: Option<Sizes>,
    /// Groups that can go and are not gone.
    pub surplus: Vec<Surplus>,
    /// The time.
    pub now: Timestamp,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The layout is as wanted.
    Idle,
    /// Nothing to do until something happens.
    Wait(String),
    /// It cannot go on by itself.
    Refuse {
        /// One word.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
    /// Record this state of the re-sharding.
    Record(Rebalance),
    /// The scheduler flipped: record the target as the layout, and this state.
    Adopt(Rebalance),
    /// Create the Job that carries.
    Carry,
    /// Create the Job that unlinks a version on shards 0 to `shards`-1.
    Collect {
        /// The version.
        version: u64,
        /// How many shards.
        shards: u32,
    },
    /// Delete the Job that carries.
    DeleteCarry,
    /// Delete the Job that collects.
    DeleteCollect,
    /// Remove a group that is proven empty.
    Remove(GroupId),
    /// Forget the re-sharding and its records.
    Finish(Option<FailedRebalance>),
}

/// Decides the next step.
pub fn next(spec: &Spec, seen: &Observed<'_>) -> Step {
    let Some(now) = seen.rebalance else { return begin(spec, seen) };
    let wanted = spec.shards == now.to.shards && spec.placement == now.to.placement;
    let flipped = seen.topology.is_some_and(|topology| topology.serving == now.to.wire());
    let before_flip = seen.layout == now.from;
    if before_flip && flipped {
        return Step::Adopt(Rebalance {
            phase: Phase::Retaining,
            held_tick: seen.held.filter(|held| held.version == now.to.version).map(|held| held.tick),
            turned_at: Some(Time(seen.now)),
            keys: now.total_keys.max(now.keys),
            percent: 100,
            message: None,
            failure: None,
            ..now.clone()
        });
    }
    match now.phase {
        Phase::Planned => planned(spec, seen, now, wanted),
        Phase::Copying | Phase::CatchingUp | Phase::Verifying => carrying(seen, now, wanted),
        // A flip that comes before the abort is written wins: the epoch decides, and it is adopted above.
        Phase::Cutover if !wanted => abort(now, None),
        Phase::Cutover => Step::Wait("the scheduler flips the topology".into()),
        Phase::Retaining => retaining(spec, seen, now, wanted),
        Phase::Collecting => collecting(seen, now, now.from),
        Phase::Aborting => aborting(seen, now),
    }
}

fn begin(spec: &Spec, seen: &Observed<'_>) -> Step {
    if spec.shards == seen.layout.shards && spec.placement == seen.layout.placement {
        return Step::Idle;
    }
    if let Some(failed) = seen.failed.filter(|failed| failed.generation == spec.generation) {
        return Step::Refuse { reason: "RebalanceFailed", message: failed.message.clone() };
    }
    let Some(sizes) = seen.sizes.as_ref().filter(|_| seen.settled && seen.in_sync) else {
        return Step::Wait("the cluster must be up before it is re-sharded".into());
    };
    Step::Record(Rebalance {
        phase: Phase::Planned,
        generation: spec.generation,
        from: seen.layout,
        to: Layout { version: seen.layout.version + 1, shards: spec.shards, placement: spec.placement },
        total_keys: sizes.keys(),
        total_bytes: sizes.bytes(),
        started_at: Some(Time(seen.now)),
        ..Rebalance::default()
    })
}

fn planned(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    if !wanted {
        return if now.accepted { abort(now, None) } else { Step::Finish(None) };
    }
    if !now.accepted {
        let Some(sizes) = &seen.sizes else { return Step::Wait("not all shards answer".into()) };
        if let Err(message) = sizes.fits(now.to.shards) {
            return Step::Refuse { reason: "InsufficientMemory", message };
        }
        let ticket = format!("v{}", now.to.version);
        if spec.require_approval && spec.approved.as_deref() != Some(ticket.as_str()) {
            return Step::Wait(format!(
                "{} keys to {} shards: approve with the annotation {}={ticket}",
                now.total_keys,
                now.to.shards,
                crate::controller::validate::APPROVE
            ));
        }
        return Step::Record(Rebalance { accepted: true, ..now.clone() });
    }
    if !seen.settled || !seen.in_sync {
        return Step::Wait("the target's groups come up".into());
    }
    Step::Record(Rebalance { phase: Phase::Copying, opened: true, message: None, ..now.clone() })
}

fn carrying(seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    if !wanted {
        return abort(now, None);
    }
    match &seen.migrate {
        JobState::Absent => match seen.held {
            Some(held) if held.version == now.to.version && seen.in_sync => Step::Carry,
            _ => Step::Wait("the scheduler holds the tick".into()),
        },
        JobState::Going => Step::Wait("an earlier Job goes".into()),
        // A pod says that all is carried and verified before it ends: the tick is held, so no moment is lost.
        JobState::Running if !all_done(now, seen.progress) => {
            let told = with_progress(now, seen.progress);
            if told == *now { Step::Wait("keys are carried".into()) } else { Step::Record(told) }
        }
        JobState::Running | JobState::Complete => {
            let told = with_progress(now, seen.progress);
            Step::Record(Rebalance { phase: Phase::Cutover, percent: 100, message: None, ..told })
        }
        JobState::Failed(why) => abort(now, Some(format!("the migrate Job failed: {why}"))),
    }
}

/// Whether every source shard is carried and verified, by the word of its pod.
fn all_done(now: &Rebalance, progress: &[Progress]) -> bool {
    progress.len() == now.from.shards as usize && progress.iter().all(|p| p.done)
}

/// What the carrying pods have told, as one.
fn with_progress(now: &Rebalance, progress: &[Progress]) -> Rebalance {
    let mut told = now.clone();
    let sum = |part: fn(&Progress) -> u64| progress.iter().map(part).sum::<u64>();
    if let Some(total) = Some(sum(|p| p.total_keys)).filter(|_| progress.len() == now.from.shards as usize) {
        told.total_keys = total;
    }
    told.keys = sum(|p| p.keys);
    told.bytes = sum(|p| p.bytes);
    told.verified = sum(|p| p.verified);
    told.percent = match told.total_keys {
        0 => 0,
        total => u32::try_from((told.keys.min(total) * 100) / total).unwrap_or(100),
    };
    let slowest = progress.iter().map(|p| Phase::from(p.phase)).min();
    // Pods that have not spoken yet are at the beginning; a phase is never left backwards by a pod that restarts.
    if progress.len() == now.from.shards as usize {
        told.phase = slowest.unwrap_or(Phase::Copying).clamp(Phase::Copying, Phase::Verifying).max(now.phase);
    }
    told
}

fn retaining(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    let held = seen.held.filter(|held| held.version == now.to.version);
    if let (None, Some(pause)) = (now.last_pause_ms, held.and_then(|held| held.pause_ms)) {
        return Step::Record(Rebalance { last_pause_ms: Some(pause), ..now.clone() });
    }
    let since = now
        .turned_at
        .as_ref()
        .map_or(Duration::ZERO, |at| Duration::try_from(seen.now.duration_since(at.0)).unwrap_or_default());
    // Someone who wants yet another layout no longer wants the way back.
    if wanted && since < spec.retain {
        let until = retain_until(now, spec.retain).map_or_else(String::new, |at| at.to_string());
        return Step::Wait(format!("v{} is kept until {until}", now.from.version));
    }
    if now.last_pause_ms.is_none() && since < PAUSE_KNOWN_WITHIN {
        return Step::Wait("the tick goes on".into());
    }
    if let Some(wait) = not_followed(seen) {
        return wait;
    }
    Step::Record(Rebalance { phase: Phase::Collecting, message: None, ..now.clone() })
}

/// Until when the previous version is kept, once the topology has flipped.
pub fn retain_until(now: &Rebalance, retain: Duration) -> Option<Timestamp> {
    now.turned_at.as_ref().and_then(|at| at.0.checked_add(retain).ok())
}

fn aborting(seen: &Observed<'_>, now: &Rebalance) -> Step {
    if !now.opened {
        // No server has ever heard of the target: there is nothing of it to unlink.
        return match now.collected {
            false => Step::Record(Rebalance { collected: true, ..now.clone() }),
            true => leave(seen, now),
        };
    }
    if let Some(wait) = not_followed(seen) {
        return wait;
    }
    match seen.migrate {
        JobState::Absent => collecting(seen, now, now.to),
        JobState::Going => Step::Wait("the migrate Job goes".into()),
        _ if now.collected => leave(seen, now),
        _ => Step::DeleteCarry,
    }
}

/// Unlinks `old` and removes what only it needed.
fn collecting(seen: &Observed<'_>, now: &Rebalance, old: Layout) -> Step {
    if now.collected {
        return leave(seen, now);
    }
    let failed = now.message.as_ref().filter(|message| message.starts_with(COLLECT_FAILED));
    let wait = |message: String| Step::Wait(failed.cloned().unwrap_or(message));
    match &seen.collect {
        JobState::Absent if seen.in_sync => Step::Collect { version: old.version, shards: old.shards },
        JobState::Absent => Step::Wait("the control database is told".into()),
        JobState::Going => wait("an earlier Job goes".into()),
        JobState::Running => wait(format!("keys of v{} are unlinked", old.version)),
        JobState::Complete => Step::Record(Rebalance { collected: true, message: None, ..now.clone() }),
        // Unlinking is repeated until it is done: nothing else can be done about it. People are told first.
        JobState::Failed(why) => {
            let message = Some(format!("{COLLECT_FAILED} and is repeated: {why}"));
            if now.message == message {
                Step::DeleteCollect
            } else {
                Step::Record(Rebalance { message, ..now.clone() })
            }
        }
    }
}

fn leave(seen: &Observed<'_>, now: &Rebalance) -> Step {
    if let Some(wait) = not_followed(seen) {
        return wait;
    }
    if let Some(surplus) = seen.surplus.first() {
        return match surplus.state {
            SurplusState::Empty => Step::Remove(surplus.group),
            SurplusState::Going => Step::Wait(format!("{} goes", surplus.group)),
            SurplusState::Unreachable => {
                Step::Wait(format!("{} must answer to be proven empty", surplus.group))
            }
            SurplusState::Holds(keys) => Step::Refuse {
                reason: "SurplusNotEmpty",
                message: format!("{} still holds {keys} world keys; it is not removed", surplus.group),
            },
        };
    }
    match (&seen.migrate, &seen.collect) {
        (JobState::Absent, JobState::Absent) => Step::Finish(
            now.failure
                .as_ref()
                .map(|message| FailedRebalance { generation: now.generation, message: message.clone() }),
        ),
        (JobState::Going, _) | (JobState::Absent, JobState::Going) => Step::Wait("its Jobs go".into()),
        (JobState::Absent, _) => Step::DeleteCollect,
        _ => Step::DeleteCarry,
    }
}

fn not_followed(seen: &Observed<'_>) -> Option<Step> {
    if !seen.in_sync {
        return Some(Step::Wait("the control database is told".into()));
    }
    (!seen.behind.is_empty())
        .then(|| Step::Wait(format!("servers must follow the new topology: {}", seen.behind.join(", "))))
}

fn abort(now: &Rebalance, failure: Option<String>) -> Step {
    Step::Record(Rebalance { phase: Phase::Aborting, message: failure.clone(), failure, ..now.clone() })
}
