//! What to do next in a re-sharding: a pure function of what is wanted, what was recorded and what is seen.
//! Everything it decides is recorded in status before anything acts on it.

use std::time::Duration;

use fortia_common::records::{CutoverRecord, Progress};
use fortia_common::topology::Topology;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::job::JobState;
use super::plan::{self, Sizes};
use super::{carry, leave};
use crate::build::names::GroupId;
use crate::controller::annotations::{ABORT, APPROVE, ROLLBACK};
use crate::crd::rebalance::{FailedRebalance, Phase, Reason, Rebalance};
use crate::crd::spec::Placement;
use crate::crd::status::Layout;

/// When something that somebody has stopped is tried again.
const AGAIN: &str = "it is not tried again until the annotation is gone and redisShards or sharding.placement changes; to try the same again, set them back first";

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
    /// What was approved, like `v2-3-modulo-1`.
    pub approved: Option<String>,
    /// The version that is not to be made.
    pub aborts: Option<u64>,
    /// The version to go back to.
    pub back_to: Option<u64>,
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
    /// Re-shardings that were planned so far, by status.
    pub plans: u64,
    /// The last that was given up, by status.
    pub failed: Option<&'a FailedRebalance>,
    /// The world exists; every group that should exist is admitted, with the rights of now.
    pub settled: bool,
    /// The control database's topology; none when it does not answer.
    pub topology: Option<&'a Topology>,
    /// The control database carries what status says.
    pub in_sync: bool,
    /// Servers that do not yet follow the topology of now.
    pub behind: Vec<String>,
    /// The scheduler's last try to flip.
    pub cutover: Option<&'a CutoverRecord>,
    /// The Job that carries to `to`.
    pub migrate: JobState,
    /// The Job that collects.
    pub collect: JobState,
    /// Progress of the carrying pods.
    pub progress: &'a [Progress],
    /// What the serving shards hold; none: not all answer.
    pub sizes: Option<Sizes>,
    /// Replicas of serving shards that do not follow their primary.
    pub apart: Vec<String>,
    /// Keys of the target's version that are on the serving shards before it was ever opened; none: not looked yet.
    pub leftovers: Option<u64>,
    /// Shards that only the layout that goes has, and that are seen to be lost with their volumes.
    pub lost: Vec<u32>,
    /// Keys a second that the last re-sharding copied.
    pub rate: Option<u64>,
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
    /// It is not, and by somebody's wish it stays so.
    Rest {
        /// Whose.
        reason: Reason,
        /// Why, and how to go on.
        message: String,
    },
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
        /// Those of them of which nothing is left.
        lost: Vec<u32>,
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
    if seen.layout == now.from && flipped {
        return adopt(seen, now);
    }
    match now.phase {
        Phase::Planned => planned(spec, seen, now, wanted),
        Phase::Copying | Phase::CatchingUp | Phase::Verifying => carry::carrying(spec, seen, now, wanted),
        // A flip that comes before the abort is written wins: the epoch decides, and it is adopted above.
        Phase::Cutover => carry::cutting_over(spec, seen, now, wanted),
        Phase::Retaining => leave::retaining(spec, seen, now, wanted),
        Phase::Collecting => leave::collecting(seen, now, now.from),
        Phase::Aborting => leave::aborting(seen, now),
    }
}

fn begin(spec: &Spec, seen: &Observed<'_>) -> Step {
    if spec.shards == seen.layout.shards && spec.placement == seen.layout.placement {
        // Nobody wants any more what was given up: whoever asks for it now asks anew.
        let ask_anew = seen.failed.is_some() && seen.in_sync;
        return if ask_anew { Step::Finish(None) } else { Step::Idle };
    }
    if let Some(failed) = seen.failed.filter(|failed| stays_given_up(spec, failed)) {
        let message = failed.message.clone();
        return match failed.reason {
            reason if reason.is_trouble() => Step::Refuse { reason: reason.as_str(), message },
            reason => Step::Rest { reason, message },
        };
    }
    let to = Layout { version: seen.layout.version + 1, shards: spec.shards, placement: spec.placement };
    if spec.aborts == Some(to.version) {
        let message = format!("the annotation {ABORT}=v{} keeps it from beginning: remove it", to.version);
        return Step::Rest { reason: Reason::Aborted, message };
    }
    if spec.back_to == Some(seen.layout.version) {
        // It would be rolled back as soon as it is done.
        let message =
            format!("the annotation {ROLLBACK}=v{} keeps it from beginning: remove it", seen.layout.version);
        return Step::Rest { reason: Reason::RolledBack, message };
    }
    let Some(sizes) = seen.sizes.as_ref().filter(|_| seen.settled && seen.in_sync) else {
        return Step::Wait("the cluster must be up before it is re-sharded".into());
    };
    let number = seen.plans + 1;
    Step::Record(Rebalance {
        phase: Phase::Planned,
        generation: spec.generation,
        number,
        from: seen.layout,
        to,
        plan: Some(sizes.plan(seen.layout, to, number, seen.rate)),
        started_at: Some(Time(seen.now)),
        ..Rebalance::default()
    })
}

/// Whether what was given up is still what is wanted. After trouble any edit of the spec may mend it; what somebody has
/// stopped is begun again only by who asks for another layout, not by an edit of something else.
fn stays_given_up(spec: &Spec, failed: &FailedRebalance) -> bool {
    // Versions before did not record the layout.
    if failed.reason.is_trouble() || failed.shards == 0 {
        return failed.generation == spec.generation;
    }
    failed.shards == spec.shards && failed.placement == spec.placement
}

fn planned(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    let aborted = spec.aborts == Some(now.to.version);
    match (now.accepted, aborted, wanted) {
        (false, true, _) if seen.leftovers != Some(0) => {
            // What another attempt left is removed as if this one had made it. Who asked for that stopped nothing.
            let failure = seen.leftovers.is_none().then(|| aborted_by_annotation(spec, now));
            return Step::Record(Rebalance {
                phase: Phase::Aborting,
                opened: true,
                message: None,
                failure,
                ..now.clone()
            });
        }
        (false, true, _) => return Step::Finish(Some(aborted_by_annotation(spec, now))),
        (false, _, false) => return Step::Finish(None),
        (true, true, _) => return abort(now, Some(aborted_by_annotation(spec, now))),
        (true, _, false) => return abort(now, None),
        (false, false, true) => return accept(spec, seen, now),
        (true, false, true) => {}
    }
    if !seen.settled || !seen.in_sync {
        return Step::Wait("the target's groups come up".into());
    }
    Step::Record(Rebalance { phase: Phase::Copying, opened: true, message: None, ..now.clone() })
}

/// Whether the plan may be carried out. Until it may, nothing is touched.
fn accept(spec: &Spec, seen: &Observed<'_>, now: &Rebalance) -> Step {
    let Some(sizes) = &seen.sizes else { return Step::Wait("not all shards answer".into()) };
    let plan = sizes.plan(now.from, now.to, now.number, seen.rate);
    if let Err(refused) = plan::fits(&plan) {
        return Step::Refuse { reason: refused.reason, message: refused.message };
    }
    if !seen.apart.is_empty() {
        let message = format!(
            "{} replicas do not follow their primary: {}; it begins when they do",
            seen.apart.len(),
            seen.apart.join(", ")
        );
        return Step::Refuse { reason: "NotInSync", message };
    }
    let version = now.to.version;
    match seen.leftovers {
        None => return Step::Wait(format!("the shards are looked through for keys of v{version}")),
        Some(0) => {}
        Some(keys) => {
            let message = format!(
                "{keys} keys of v{version} are left of another attempt: the annotation {ABORT}=v{version} removes them"
            );
            return Step::Refuse { reason: "Leftovers", message };
        }
    }
    if spec.require_approval && spec.approved.as_ref() != Some(&plan.ticket) {
        // As planned: the numbers of now are others at every look.
        let shown = now.plan.as_ref().unwrap_or(&plan);
        return Step::Wait(format!(
            "about {} of {} keys move to {} shards: approve with the annotation {APPROVE}={}",
            shown.moved_keys, shown.keys, now.to.shards, plan.ticket
        ));
    }
    Step::Record(Rebalance { accepted: true, plan: Some(plan), message: None, ..now.clone() })
}

/// The scheduler flipped: what status says follows.
fn adopt(seen: &Observed<'_>, now: &Rebalance) -> Step {
    let back = now.rollback.then(|| FailedRebalance {
        generation: now.generation,
        shards: now.from.shards,
        placement: now.from.placement,
        reason: Reason::RolledBack,
        message: format!("rolled back from v{} to v{}: {AGAIN}", now.from.version, now.to.version),
    });
    let flip = seen.cutover.filter(|told| told.flipped && told.version == now.to.version);
    Step::Adopt(Rebalance {
        phase: if now.rollback { Phase::Collecting } else { Phase::Retaining },
        held_tick: flip.map(|told| told.tick),
        turned_at: Some(Time(seen.now)),
        keys: now.total_keys.unwrap_or(now.keys).max(now.keys),
        percent: Some(100),
        lag: None,
        eta_seconds: None,
        message: None,
        failure: back,
        ..now.clone()
    })
}

/// Somebody said that it is not to go on.
pub(super) fn aborted_by_annotation(spec: &Spec, now: &Rebalance) -> FailedRebalance {
    FailedRebalance {
        generation: spec.generation,
        shards: now.to.shards,
        placement: now.to.placement,
        reason: Reason::Aborted,
        message: format!("aborted by the annotation {ABORT}=v{}: {AGAIN}", now.to.version),
    }
}

pub(super) fn abort(now: &Rebalance, failure: Option<FailedRebalance>) -> Step {
    Step::Record(Rebalance {
        phase: Phase::Aborting,
        message: failure.as_ref().map(|failure| failure.message.clone()),
        failure,
        lag: None,
        eta_seconds: None,
        ..now.clone()
    })
}
