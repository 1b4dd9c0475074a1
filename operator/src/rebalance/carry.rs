//! The phases in which keys are carried, there or back: Copying to Cutover. Pure; the world goes on in all of them.

use std::time::Duration;

use fortia_common::ending::Ending;
use fortia_common::records::{CutoverRecord, Progress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::job::JobState;
use super::phase::{Observed, Spec, Step, abort, aborted_by_annotation};
use crate::crd::rebalance::{Cutover, FailedRebalance, Phase, Proof, Reason, Rebalance};

/// A speed measured for less is none.
const MEASURED: Duration = Duration::from_secs(2);

/// Copying, CatchingUp, Verifying.
pub(super) fn carrying(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    if let Some(step) = given_up(spec, now, wanted).or_else(|| unknown(seen)) {
        return step;
    }
    match &seen.migrate {
        JobState::Absent if seen.in_sync => Step::Carry,
        JobState::Absent => Step::Wait("the control database is told".into()),
        JobState::Going => Step::Wait("an earlier Job goes".into()),
        // Pods say that all is carried and proven, and go on carrying what is written until the flip ends them.
        JobState::Running | JobState::Complete if all_done(now, seen.progress) => {
            let told = with_progress(now, seen.progress, seen.now);
            Step::Record(Rebalance { phase: Phase::Cutover, eta_seconds: None, message: None, ..told })
        }
        JobState::Running => {
            let told = with_progress(now, seen.progress, seen.now);
            if told == *now { Step::Wait("keys are carried".into()) } else { Step::Record(told) }
        }
        // Pods end well only after a flip. There was none: others must do their work.
        // Nor is one called off that is wanted: its pods went by a topology that is no more.
        JobState::Complete | JobState::Hopeless(Ending::CalledOff, _) => Step::DeleteCarry,
        JobState::Failed(why) => failed(spec, now, None, why),
        JobState::Hopeless(ending, why) => failed(spec, now, Some(*ending), why),
    }
}

/// Cutover.
pub(super) fn cutting_over(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    if let Some(step) = given_up(spec, now, wanted).or_else(|| unknown(seen)) {
        return step;
    }
    match &seen.migrate {
        JobState::Failed(why) => failed(spec, now, None, why),
        JobState::Hopeless(ending, why) if ending.is_failure() => failed(spec, now, Some(*ending), why),
        // A server that came back is proven anew; nobody flips before.
        JobState::Running | JobState::Complete if all_done(now, seen.progress) => {
            let mut told = with_progress(now, seen.progress, seen.now);
            told.phase = Phase::Cutover;
            told.cutover = seen.cutover.filter(|r| r.version == now.to.version).map(tries).or(told.cutover);
            if told == *now {
                Step::Wait("the scheduler flips the topology".into())
            } else {
                Step::Record(told)
            }
        }
        _ => Step::Record(Rebalance { phase: Phase::Verifying, message: None, ..now.clone() }),
    }
}

/// What to do when it is not wanted any more.
fn given_up(spec: &Spec, now: &Rebalance, wanted: bool) -> Option<Step> {
    if now.rollback {
        return (spec.back_to != Some(now.to.version)).then(|| abort(now, None));
    }
    if spec.aborts == Some(now.to.version) {
        return Some(abort(now, Some(aborted_by_annotation(spec, now))));
    }
    (!wanted).then(|| abort(now, None))
}

/// Without the control database nobody knows what pods have done.
fn unknown(seen: &Observed<'_>) -> Option<Step> {
    seen.topology.is_none().then(|| Step::Wait("the control database does not answer".into()))
}

/// The Job gave up. Where one ending alone decided it, that is the reason people see.
fn failed(spec: &Spec, now: &Rebalance, ending: Option<Ending>, why: &str) -> Step {
    let (reason, means) = match ending {
        Some(Ending::Different) => (
            Reason::KeysDiffer,
            ": source and target still differ after what differed was carried again; the log of its pod names keys",
        ),
        Some(Ending::Corrupt) => {
            (Reason::CorruptData, ": a value or record cannot be understood; the log of its pod names it")
        }
        Some(Ending::OutOfMemory) => (
            Reason::ServerOutOfMemory,
            ": a Redis server is full; raise redis.resources.limits.memory, the log of its pod names the server",
        ),
        Some(Ending::CalledOff) | None if now.rollback => (Reason::RollbackFailed, ""),
        Some(Ending::CalledOff) | None => (Reason::RebalanceFailed, ""),
    };
    let message = format!("the migrate Job failed{means}: {why}");
    let (shards, placement) = (now.to.shards, now.to.placement);
    abort(now, Some(FailedRebalance { generation: spec.generation, shards, placement, reason, message }))
}

/// Whether every source shard is carried and proven, by the word of its pod.
fn all_done(now: &Rebalance, progress: &[Progress]) -> bool {
    progress.len() == now.from.shards as usize && progress.iter().all(|p| p.done)
}

/// What the carrying pods have told, as one. What not all of them have told is not known.
fn with_progress(now: &Rebalance, progress: &[Progress], at: Timestamp) -> Rebalance {
    let mut told = now.clone();
    let all = progress.len() == now.from.shards as usize;
    let sum = |part: fn(&Progress) -> u64| progress.iter().map(part).sum::<u64>();
    let known =
        |part: fn(&Progress) -> Option<u64>| progress.iter().map(part).sum::<Option<u64>>().filter(|_| all);
    told.total_keys = known(|p| p.total_keys);
    told.lag = known(|p| p.lag);
    told.keys = sum(|p| p.keys);
    told.stayed = sum(|p| p.stayed);
    told.bytes = sum(|p| p.bytes);
    told.verified = sum(|p| p.verified);
    told.proof = proof(progress).filter(|_| all);
    told.percent = told.total_keys.map(|total| match total {
        0 => 100,
        total => u32::try_from(told.keys.min(total) * 100 / total).unwrap_or(100),
    });
    // Pods that have not spoken yet are at the beginning; a phase is never left backwards by a pod that restarts.
    if let Some(slowest) = progress.iter().map(|p| Phase::from(p.phase)).min().filter(|_| all) {
        told.phase = slowest.clamp(Phase::Copying, Phase::Verifying).max(now.phase);
    }
    told.copying_since = told.copying_since.or_else(|| (told.keys > 0).then_some(Time(at)));
    told.eta_seconds = eta(&told, at);
    told
}

/// Seconds until all is copied, at the speed until now.
fn eta(told: &Rebalance, at: Timestamp) -> Option<u64> {
    if told.phase != Phase::Copying {
        return None;
    }
    let (total, since) = (told.total_keys?, told.copying_since.as_ref()?);
    let since = Duration::try_from(at.duration_since(since.0)).ok().filter(|since| *since >= MEASURED)?;
    let seconds = total.saturating_sub(told.keys) as f64 * since.as_secs_f64() / told.keys.max(1) as f64;
    Some(seconds.ceil() as u64)
}

/// Proofs add up: the digest of all keys is the sum of their digests.
fn proof(progress: &[Progress]) -> Option<Proof> {
    let (mut keys, mut digest) = (0, 0u128);
    for pod in progress {
        let one = pod.proof.as_ref()?;
        keys += one.keys;
        digest = digest.wrapping_add(u128::from_str_radix(&one.digest, 16).ok()?);
    }
    Some(Proof { keys, digest: format!("{digest:032x}") })
}

/// The scheduler's record for people.
pub(super) fn tries(told: &CutoverRecord) -> Cutover {
    Cutover {
        tries: told.tries,
        why: told.why.clone().filter(|_| !told.flipped),
        pause_ms: Some(told.pause_us.div_ceil(1000)),
    }
}
