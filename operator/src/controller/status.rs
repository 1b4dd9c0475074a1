//! What people see: phase, conditions, tick. Pure, but for writing it with the version that was read.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use super::Context;
use super::decide::Decision;
use super::observe::Observed;
use super::reconcile::Error;
use super::validate::{Invalid, Plan};
use crate::build;
use crate::build::names::GroupId;
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::spec::FortiaCluster;
use crate::crd::status::{FortiaClusterStatus, World};
use crate::failover::step::Step;
use crate::rebalance::job::JobState;
use crate::rebalance::{leave, phase as rebalance};

/// A status that differs only in what changes all the time is written at most this often.
const TICK: Duration = Duration::from_secs(5);

/// One condition before it is dated.
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

/// Completes the next status; `refused`: why not all that is wanted could be applied.
pub(super) fn complete(
    plan: &Plan,
    seen: &Observed,
    decision: &Decision,
    refused: Option<&Error>,
) -> FortiaClusterStatus {
    let mut next = decision.next.clone();
    let layout = next.layout.unwrap_or_default();
    next.observed_generation = plan.generation;
    next.shards = layout.shards;
    next.version = layout.version;
    next.selector = build::shard_selector(plan);
    next.tick = seen.records.as_ref().and_then(|records| records.tick).or(next.tick);
    next.world = made(seen).or(next.world);
    if let Some(world) = next.world.as_mut().filter(|_| next.world_ready) {
        // The last word about it may be older than its end.
        world.chunks = world.of;
    }
    next.retain_until = next
        .rebalance
        .as_ref()
        .filter(|r| r.phase == Phase::Retaining)
        .and_then(|r| leave::retain_until(r, plan.retain))
        .map(Time);
    let degraded = degraded(plan, seen, decision, refused);
    let ready = ready(plan, seen, decision, &degraded);
    let progressing = progressing(decision, &ready);
    next.phase = match &next.rebalance {
        Some(rebalance) => rebalance.phase.as_str().into(),
        None if ready.holds => "Running".into(),
        None => "Pending".into(),
    };
    for (name, verdict) in [("Ready", ready), ("Progressing", progressing), ("Degraded", degraded)] {
        set_condition(&mut next.conditions, name, verdict, plan.generation, seen.now);
    }
    next
}

fn degraded(plan: &Plan, seen: &Observed, decision: &Decision, refused: Option<&Error>) -> Verdict {
    let no = |reason, message: String| Verdict { holds: true, reason, message };
    // First of all: trouble of a group also shows in Ready, this does not.
    if let Some(error) = refused {
        return no("ApplyFailed", error.to_string());
    }
    for (_, step) in &decision.groups {
        if let Step::Degraded { reason, message } = step {
            return no(reason, message.clone());
        }
    }
    if let rebalance::Step::Refuse { reason, message } = &decision.rebalance {
        return no(reason, message.clone());
    }
    let failure = decision.next.rebalance.as_ref().and_then(|r| r.failure.as_ref());
    if let Some(failure) = failure.filter(|failure| failure.reason.is_trouble()) {
        return no(failure.reason.as_str(), failure.message.clone());
    }
    if let JobState::Failed(why) | JobState::Hopeless(_, why) =
        JobState::of(seen.jobs.get(&plan.names.of("worldgen")))
    {
        let message = format!("the world cannot be made: {why}; look at the Job's pods, then delete the Job");
        return no("WorldgenFailed", message);
    }
    if let Some(message) = &plan.asked.unread {
        return no("UnknownAnnotation", message.clone());
    }
    Verdict { holds: false, reason: "AsWanted", message: String::new() }
}

fn ready(plan: &Plan, seen: &Observed, decision: &Decision, degraded: &Verdict) -> Verdict {
    let no = |reason, message: String| Verdict { holds: false, reason, message };
    if let Some((_, step)) =
        decision.groups.iter().find(|(_, s)| !matches!(s, Step::Settled | Step::Attach(_)))
    {
        // While new shards come up for a re-sharding the old ones serve.
        let first_start = decision.next.rebalance.is_none();
        match step {
            Step::Degraded { reason, message } => return no(reason, message.clone()),
            Step::Wait(message) if first_start => return no("GroupsStarting", message.clone()),
            _ if first_start => return no("GroupsStarting", "Redis groups are being admitted".into()),
            _ => {}
        }
    }
    let Some(records) = seen.records.as_ref().filter(|_| !decision.groups.is_empty()) else {
        return no("GroupsStarting", "the control database is not up".into());
    };
    if records.topology.is_none() {
        return no("GroupsStarting", "the topology is not written yet".into());
    }
    if !decision.next.world_ready {
        return no("WorldStarting", generating(made(seen).or(decision.next.world)));
    }
    if let Some(message) = missing_servers(plan, seen) {
        return no("ServersStarting", message);
    }
    if plan.scheduler.replicas > 0 && (!records.led || records.tick.is_none()) {
        return no("TickStarting", "no scheduler leads yet".into());
    }
    // A re-sharding is no excuse: ticks go on in all its phases.
    if seen.stalled && plan.scheduler.replicas > 0 && plan.ticker.replicas > 0 {
        return no(
            "TickStalled",
            format!("tick {} was the last; the world stands still", records.tick.unwrap_or(0)),
        );
    }
    let message =
        if degraded.holds { degraded.message.clone() } else { "the world is served and ticks".into() };
    Verdict { holds: true, reason: "Serving", message }
}

/// How far the world is, for people.
pub(super) fn generating(world: Option<World>) -> String {
    world.map_or_else(|| "the world is being made".into(), |world| format!("generating the world: {world}"))
}

/// How far the world is by its worldgen.
pub(super) fn made(seen: &Observed) -> Option<World> {
    seen.records.as_ref().and_then(|records| records.world).map(World::from)
}

fn missing_servers(plan: &Plan, seen: &Observed) -> Option<String> {
    let wanted = [
        ("scheduler", plan.scheduler.replicas),
        ("ticker", plan.ticker.replicas),
        ("auth", plan.auth.replicas),
        ("game", plan.game.replicas),
    ];
    for (part, replicas) in wanted {
        let status = seen.deployments.get(&plan.names.of(part)).and_then(|d| d.status.as_ref());
        let available = status.and_then(|s| s.available_replicas).unwrap_or_default();
        if available < replicas {
            return Some(format!("{available} of {replicas} {part} servers are available"));
        }
    }
    let status = seen.sets.get(&plan.names.of("logserver")).and_then(|s| s.status.as_ref());
    let available = status.and_then(|s| s.ready_replicas).unwrap_or_default();
    (available < plan.logserver.replicas)
        .then(|| format!("{available} of {} log servers are available", plan.logserver.replicas))
}

fn progressing(decision: &Decision, ready: &Verdict) -> Verdict {
    match (&decision.next.rebalance, &decision.rebalance) {
        (Some(r), _) if r.phase != Phase::Retaining => {
            Verdict { holds: true, reason: r.phase.as_str(), message: told(r) }
        }
        _ if !ready.holds => Verdict { holds: true, reason: ready.reason, message: ready.message.clone() },
        (Some(r), _) => Verdict { holds: false, reason: r.phase.as_str(), message: told(r) },
        (None, rebalance::Step::Rest { reason, message }) => {
            Verdict { holds: false, reason: reason.as_str(), message: message.clone() }
        }
        (None, _) => Verdict { holds: false, reason: "AsWanted", message: String::new() },
    }
}

/// How far a re-sharding is; while keys are carried the bar says all.
fn told(r: &Rebalance) -> String {
    match &r.message {
        Some(message) if !r.phase.carries() => format!("{r}: {message}"),
        _ => r.to_string(),
    }
}

fn set_condition(all: &mut Vec<Condition>, name: &str, verdict: Verdict, generation: i64, now: Timestamp) {
    let status = if verdict.holds { "True" } else { "False" };
    let old = all.iter().position(|c| c.type_ == name).map(|at| all.remove(at));
    let since = old.filter(|c| c.status == status).map_or(Time(now), |c| c.last_transition_time);
    all.push(Condition {
        type_: name.into(),
        status: status.into(),
        reason: verdict.reason.into(),
        message: verdict.message,
        observed_generation: Some(generation),
        last_transition_time: since,
    });
}

/// The status of a FortiaCluster that cannot be followed.
pub(super) fn refused(cluster: &FortiaCluster, invalid: &Invalid, now: Timestamp) -> FortiaClusterStatus {
    let mut next = cluster.status.clone().unwrap_or_default();
    let generation = cluster.meta().generation.unwrap_or_default();
    next.observed_generation = generation;
    let verdict = |holds| Verdict { holds, reason: "InvalidSpec", message: invalid.to_string() };
    for (name, holds) in [("Ready", false), ("Progressing", false), ("Degraded", true)] {
        set_condition(&mut next.conditions, name, verdict(holds), generation, now);
    }
    next
}

/// Writes the status if it says something new. Fails with a conflict when someone else wrote in between.
pub(super) async fn write(
    context: &Context,
    cluster: &FortiaCluster,
    namespace: &str,
    next: FortiaClusterStatus,
) -> Result<bool, Error> {
    let old = cluster.status.clone().unwrap_or_default();
    context.metrics.of_cluster(namespace, &cluster.name_any(), &next);
    if old == next {
        return Ok(false);
    }
    let uid = cluster.uid().unwrap_or_default();
    let only_tick = is_only_news(&old, &next);
    if only_tick {
        let memory = context.memory.lock().await;
        if memory.get(&uid).and_then(|m| m.told).is_some_and(|told| told.elapsed() < TICK) {
            return Ok(false);
        }
    }
    let mut told = cluster.clone();
    told.status = Some(next.clone());
    context
        .api::<FortiaCluster>(namespace)
        .replace_status(&told.name_any(), &PostParams::default(), &told)
        .await?;
    context.memory.lock().await.entry(uid).or_default().told = Some(Instant::now());
    publish(context, cluster, &old, &next).await;
    Ok(!only_tick)
}

/// Whether nothing changed but what changes all the time: the tick, and how much the shards hold.
fn is_only_news(old: &FortiaClusterStatus, next: &FortiaClusterStatus) -> bool {
    let same_plan = old.plan.as_ref().map(|plan| &plan.ticket) == next.plan.as_ref().map(|plan| &plan.ticket);
    let plan = if same_plan { &old.plan } else { &next.plan };
    FortiaClusterStatus { tick: old.tick, load: old.load, plan: plan.clone(), ..next.clone() } == *old
        && old.load.is_some() == next.load.is_some()
}

/// Tells what changed as events; they may be lost.
async fn publish(
    context: &Context,
    cluster: &FortiaCluster,
    old: &FortiaClusterStatus,
    next: &FortiaClusterStatus,
) {
    let mut events = Vec::new();
    if old.phase != next.phase {
        let note = next
            .rebalance
            .as_ref()
            .map_or_else(|| format!("{} shards, v{}", next.shards, next.version), told);
        tracing::info!(cluster = cluster.name_any(), phase = next.phase, note, "phase changed");
        events.push((EventType::Normal, next.phase.clone(), note));
    }
    if let Some(late) = failed_try(old, next) {
        tracing::warn!(cluster = cluster.name_any(), late, "the topology was not flipped");
        events.push((EventType::Warning, "CutoverLate".into(), late));
    }
    if let Some(lost) = news_of_lost(old, next) {
        tracing::warn!(cluster = cluster.name_any(), lost, "groups that go are gone with their volumes");
        events.push((EventType::Warning, "GroupLost".into(), lost));
    }
    let reason = |s: &FortiaClusterStatus| {
        s.conditions.iter().find(|c| c.type_ == "Degraded" && c.status == "True").cloned()
    };
    if let Some(now) = reason(next).filter(|now| reason(old).is_none_or(|was| was.reason != now.reason)) {
        tracing::warn!(
            cluster = cluster.name_any(),
            reason = now.reason,
            message = now.message,
            "cluster degraded"
        );
        events.push((EventType::Warning, now.reason, now.message));
    }
    for (type_, reason, note) in events {
        let event = Event { type_, reason, note: Some(note), action: "Reconcile".into(), secondary: None };
        if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::debug!(%error, "event lost");
        }
    }
}

/// What people are told of a try to flip that failed since.
fn failed_try(old: &FortiaClusterStatus, next: &FortiaClusterStatus) -> Option<String> {
    let cutover = |s: &FortiaClusterStatus| s.rebalance.as_ref().and_then(|r| r.cutover.clone());
    let now = cutover(next)?;
    let why = now.why.filter(|_| cutover(old).is_none_or(|was| was.tries != now.tries))?;
    Some(format!("try {} to flip: {why}; writes go on, and it is tried again later", now.tries))
}

/// What people are told of groups that went with their volumes while they were to be cleaned.
fn news_of_lost(old: &FortiaClusterStatus, next: &FortiaClusterStatus) -> Option<String> {
    let known = old.rebalance.as_ref().map(|r| r.lost.as_slice()).unwrap_or_default();
    let now = next.rebalance.as_ref().map(|r| r.lost.as_slice()).unwrap_or_default();
    let news: Vec<String> = now
        .iter()
        .filter(|shard| !known.contains(shard))
        .map(|shard| GroupId::Shard(*shard).to_string())
        .collect();
    (!news.is_empty()).then(|| {
        format!(
            "{} came back without data, or its volume is gone: nothing of it is left to clean",
            news.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::rebalance::Cutover;
    use crate::crd::status::Load;

    #[test]
    fn people_see_how_far_the_world_is() {
        assert_eq!(generating(None), "the world is being made");
        let world = World { chunks: 120, of: 289 };
        assert_eq!(
            generating(Some(world)),
            "generating the world: 120 of 289 chunks, 41 % [########............]"
        );
    }

    #[test]
    fn each_failed_try_to_flip_is_told_once() {
        let status = |tries, why: Option<&str>| {
            let cutover = Some(Cutover { tries, why: why.map(String::from), pause_ms: None });
            let rebalance = Some(Rebalance { phase: Phase::Cutover, cutover, ..Rebalance::default() });
            FortiaClusterStatus { rebalance, ..FortiaClusterStatus::default() }
        };
        let none = FortiaClusterStatus::default();
        let told = failed_try(&none, &status(1, Some("late"))).expect("told");
        assert!(told.starts_with("try 1 to flip: late"), "{told}");
        assert_eq!(failed_try(&status(1, Some("late")), &status(1, Some("late"))), None);
        assert!(failed_try(&status(1, Some("late")), &status(2, Some("late"))).is_some());
        assert_eq!(failed_try(&status(2, Some("late")), &status(3, None)), None);
    }

    #[test]
    fn a_group_that_went_with_its_volume_is_told_once() {
        let status = |lost: &[u32]| {
            let rebalance = Some(Rebalance { lost: lost.to_vec(), ..Rebalance::default() });
            FortiaClusterStatus { rebalance, ..FortiaClusterStatus::default() }
        };
        let told = news_of_lost(&status(&[2]), &status(&[2, 4])).expect("told");
        assert!(told.starts_with("shard-4 came back without data"), "{told}");
        assert_eq!(news_of_lost(&status(&[2, 4]), &status(&[2, 4])), None);
        assert_eq!(news_of_lost(&status(&[2]), &FortiaClusterStatus::default()), None);
    }

    #[test]
    fn what_waits_is_told_beside_the_bar_and_while_keys_are_carried_the_bar_says_all() {
        let told = |phase| {
            let message = Some("approve".into());
            super::told(&Rebalance { phase, message, ..Rebalance::default() })
        };
        assert_eq!(told(Phase::Planned), "v0→v0, 0→0 shards  Planned: approve");
        assert_eq!(told(Phase::Copying), "v0→v0, 0→0 shards  Copying");
    }

    #[test]
    fn a_status_that_only_ticks_is_told_apart_from_news() {
        let old = FortiaClusterStatus { load: Some(Load::default()), ..FortiaClusterStatus::default() };
        let later =
            FortiaClusterStatus { tick: Some(7), load: Some(Load { keys: 1, bytes: 2 }), ..old.clone() };
        assert!(is_only_news(&old, &later));
        assert!(!is_only_news(&old, &FortiaClusterStatus { shards: 3, ..later }));
        assert!(!is_only_news(&FortiaClusterStatus::default(), &old));
    }
}
