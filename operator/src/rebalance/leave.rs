//! What comes after the flip, and what comes instead of it: Retaining, Collecting, Aborting. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::carry::tries;
use super::job::JobState;
use super::phase::{Observed, Spec, Step, SurplusState};
use crate::controller::annotations::ROLLBACK;
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::Layout;

/// How long the pause of a flip is waited for before the previous version goes.
const PAUSE_KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// How the word of a failed collect Job begins. It is repeated until a later one succeeds.
const COLLECT_FAILED: &str = "the collect Job failed";

/// Both versions are complete; the way back is open.
pub(super) fn retaining(spec: &Spec, seen: &Observed<'_>, now: &Rebalance, wanted: bool) -> Step {
    if let Some(told) = flip_told(seen, now) {
        return Step::Record(told);
    }
    if let Some(step) = roll_back(spec, seen, now) {
        return step;
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
        return Step::Wait("the scheduler tells how long writes stood still".into());
    }
    if let Some(wait) = not_followed(seen) {
        return wait;
    }
    Step::Record(Rebalance { phase: Phase::Collecting, message: None, ..now.clone() })
}

/// The way back, if somebody wants it: from what serves to what was kept, by the same pods, proof and flip.
fn roll_back(spec: &Spec, seen: &Observed<'_>, now: &Rebalance) -> Option<Step> {
    let wanted = spec.back_to == Some(now.from.version);
    let failed = now.failure.as_ref().filter(|failure| failure.reason.is_trouble());
    match (wanted, failed) {
        (false, None) => None,
        (false, Some(_)) => Some(Step::Record(Rebalance { failure: None, message: None, ..now.clone() })),
        // Nothing is collected while somebody wants it back.
        (true, Some(failed)) => Some(Step::Wait(format!(
            "the way back failed and both versions are kept: {}; remove the annotation {ROLLBACK} to go on, set it again to try again",
            failed.message
        ))),
        (true, None) => Some(match &seen.migrate {
            JobState::Absent if seen.in_sync => Step::Record(Rebalance {
                phase: Phase::CatchingUp,
                generation: spec.generation,
                from: now.to,
                to: now.from,
                rollback: true,
                accepted: true,
                opened: true,
                started_at: now.started_at.clone(),
                turned_at: now.turned_at.clone(),
                ..Rebalance::default()
            }),
            JobState::Absent => Step::Wait("the control database is told".into()),
            JobState::Going => Step::Wait("the migrate Job goes".into()),
            _ => Step::DeleteCarry,
        }),
    }
}

/// Until when the previous version is kept, once the topology has flipped.
pub fn retain_until(now: &Rebalance, retain: Duration) -> Option<Timestamp> {
    now.turned_at.as_ref().and_then(|at| at.0.checked_add(retain).ok())
}

/// What the scheduler told about its flip, when it is news.
fn flip_told(seen: &Observed<'_>, now: &Rebalance) -> Option<Rebalance> {
    let flip = seen.cutover.filter(|told| told.flipped && told.version == now.to.version)?;
    let cutover = tries(flip);
    now.last_pause_ms.is_none().then(|| Rebalance {
        held_tick: Some(flip.tick),
        last_pause_ms: cutover.pause_ms,
        cutover: Some(cutover),
        ..now.clone()
    })
}

/// Back to what serves: what was made of the target is removed.
pub(super) fn aborting(seen: &Observed<'_>, now: &Rebalance) -> Step {
    if !now.opened {
        // No server has ever heard of the target: there is nothing of it to unlink.
        return match now.collected {
            false => Step::Record(Rebalance { collected: true, ..now.clone() }),
            true => leave(seen, now),
        };
    }
    if !seen.in_sync {
        return Step::Wait("the control database is told".into());
    }
    if now.rollback {
        return keep_on(seen, now);
    }
    // Groups that only the target has were made only for an accepted plan.
    let shards = if now.accepted { now.to.shards } else { now.from.shards };
    match seen.migrate {
        JobState::Absent => collecting(seen, now, Layout { shards, ..now.to }),
        JobState::Going => Step::Wait("the migrate Job goes".into()),
        _ if now.collected => leave(seen, now),
        _ => Step::DeleteCarry,
    }
}

/// From a way back to the version that serves, which never stopped: both versions are kept as before. From and to change
/// places only now, when no flip can come any more: the servers have been told.
fn keep_on(seen: &Observed<'_>, now: &Rebalance) -> Step {
    match seen.migrate {
        JobState::Absent => Step::Record(Rebalance {
            phase: Phase::Retaining,
            rollback: false,
            from: now.to,
            to: now.from,
            cutover: None,
            proof: None,
            message: None,
            ..now.clone()
        }),
        JobState::Going => Step::Wait("the migrate Job goes".into()),
        _ => Step::DeleteCarry,
    }
}

/// Unlinks `old` and removes what only it needed.
pub(super) fn collecting(seen: &Observed<'_>, now: &Rebalance, old: Layout) -> Step {
    if let Some(told) = flip_told(seen, now).filter(|_| now.phase == Phase::Collecting) {
        return Step::Record(told);
    }
    if now.collected {
        return leave(seen, now);
    }
    if let Some(step) = lost(seen, now) {
        return step;
    }
    let failed = now.message.as_ref().filter(|message| message.starts_with(COLLECT_FAILED));
    let wait = |message: String| Step::Wait(failed.cloned().unwrap_or(message));
    match &seen.collect {
        JobState::Absent => {
            let lost = now.lost.clone();
            not_followed(seen).unwrap_or(Step::Collect { version: old.version, shards: old.shards, lost })
        }
        JobState::Going => wait("an earlier Job goes".into()),
        JobState::Running => wait(format!("keys of v{} are unlinked", old.version)),
        JobState::Complete => Step::Record(Rebalance { collected: true, message: None, ..now.clone() }),
        // Unlinking is repeated until it is done: nothing else can be done about it. People are told first.
        JobState::Failed(why) | JobState::Hopeless(_, why) => {
            let message = Some(format!("{COLLECT_FAILED} and is repeated: {why}"));
            if now.message == message {
                Step::DeleteCollect
            } else {
                Step::Record(Rebalance { message, ..now.clone() })
            }
        }
    }
}

/// Of a group that goes anyway and was lost with its volumes nothing is left to close or to unlink, and it will not come
/// back: without it, then. A Job that does not know so yet is replaced.
fn lost(seen: &Observed<'_>, now: &Rebalance) -> Option<Step> {
    let news: Vec<u32> = seen.lost.iter().filter(|shard| !now.lost.contains(shard)).copied().collect();
    if news.is_empty() {
        return None;
    }
    Some(match seen.collect {
        JobState::Complete => return None,
        JobState::Absent => {
            let mut lost = [now.lost.as_slice(), &news].concat();
            lost.sort_unstable();
            Step::Record(Rebalance { lost, message: None, ..now.clone() })
        }
        JobState::Going => Step::Wait("an earlier Job goes".into()),
        _ => Step::DeleteCollect,
    })
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
                message: format!(
                    "{} still holds {keys} world keys and is not removed: look at what they are, and unlink them",
                    surplus.group
                ),
            },
        };
    }
    match (&seen.migrate, &seen.collect) {
        (JobState::Absent, JobState::Absent) => Step::Finish(now.failure.clone()),
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
