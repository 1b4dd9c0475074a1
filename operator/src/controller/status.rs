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
use crate::crd::spec::FortiaCluster;
use crate::crd::status::{FortiaClusterStatus, Phase, World};
use crate::failover::step::Step;
use crate::rebalance::job::JobState;
use crate::rebalance::phase as rebalance;

/// A status that differs only in its tick is written at most this often.
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
        .and_then(|r| rebalance::retain_until(r, plan.retain))
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
    if let Some(message) = decision.next.rebalance.as_ref().and_then(|r| r.failure.clone()) {
        return no("RebalanceFailed", message);
    }
    if let JobState::Failed(why) = JobState::of(seen.jobs.get(&plan.names.of("worldgen"))) {
        let message = format!("the world cannot be made: {why}; look at the Job's pods, then delete the Job");
        return no("WorldgenFailed", message);
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
    let held = decision.next.rebalance.as_ref().is_some_and(|r| r.phase < Phase::Retaining && r.opened);
    if seen.stalled && !held && plan.scheduler.replicas > 0 && plan.ticker.replicas > 0 {
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
    match &decision.next.rebalance {
        Some(r) if r.phase != Phase::Retaining => Verdict {
            holds: true,
            reason: r.phase.as_str(),
            message: r.message.clone().unwrap_or_else(|| format!("v{} to v{}", r.from.version, r.to.version)),
        },
        _ if !ready.holds => Verdict { holds: true, reason: ready.reason, message: ready.message.clone() },
        _ => Verdict { holds: false, reason: "AsWanted", message: String::new() },
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
    let only_tick = FortiaClusterStatus { tick: old.tick, ..next.clone() } == old;
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

/// Tells what changed as events; they may be lost.
async fn publish(
    context: &Context,
    cluster: &FortiaCluster,
    old: &FortiaClusterStatus,
    next: &FortiaClusterStatus,
) {
    let mut events = Vec::new();
    if old.phase != next.phase {
        let note = next.rebalance.as_ref().map_or_else(
            || format!("{} shards, v{}", next.shards, next.version),
            |r| {
                format!(
                    "v{} on {} shards to v{} on {}",
                    r.from.version, r.from.shards, r.to.version, r.to.shards
                )
            },
        );
        tracing::info!(cluster = cluster.name_any(), phase = next.phase, note, "phase changed");
        events.push((EventType::Normal, next.phase.clone(), note));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_how_far_the_world_is() {
        assert_eq!(generating(None), "the world is being made");
        let world = World { chunks: 120, of: 289 };
        assert_eq!(
            generating(Some(world)),
            "generating the world: 120 of 289 chunks, 41 % [########............]"
        );
    }
}
