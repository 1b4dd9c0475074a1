//! What people see: phase, conditions, tick. Pure, but for writing it with the version that was read.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};

use super::conditions::{self, Verdict};
use super::decide::Decision;
use super::observe::Observed;
use super::reconcile::Error;
use super::validate::{Invalid, Plan};
use super::{Context, news};
use crate::build;
use crate::crd::rebalance::Phase;
use crate::crd::spec::FortiaCluster;
use crate::crd::status::FortiaClusterStatus;
use crate::rebalance::leave;

/// A status that differs only in what changes all the time is written at most this often.
const TICK: Duration = Duration::from_secs(5);

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
    next.world = conditions::made(seen).or(next.world);
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
    let degraded = conditions::degraded(plan, seen, decision, refused);
    let ready = conditions::ready(plan, seen, decision, &degraded);
    let progressing = conditions::progressing(decision, &ready);
    next.phase = match &next.rebalance {
        Some(rebalance) => rebalance.phase.as_str().into(),
        None if ready.holds => "Running".into(),
        None => "Pending".into(),
    };
    for (name, verdict) in [("Ready", ready), ("Progressing", progressing), ("Degraded", degraded)] {
        conditions::set(&mut next.conditions, name, verdict, plan.generation, seen.now);
    }
    next
}

/// The status of a FortiaCluster that cannot be followed.
pub(super) fn refused(cluster: &FortiaCluster, invalid: &Invalid, now: Timestamp) -> FortiaClusterStatus {
    let mut next = cluster.status.clone().unwrap_or_default();
    let generation = cluster.meta().generation.unwrap_or_default();
    next.observed_generation = generation;
    let verdict = |holds| Verdict { holds, reason: "InvalidSpec", message: invalid.to_string() };
    for (name, holds) in [("Ready", false), ("Progressing", false), ("Degraded", true)] {
        conditions::set(&mut next.conditions, name, verdict(holds), generation, now);
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
    news::publish(context, cluster, &old, &next).await;
    Ok(!only_tick)
}

/// Whether nothing changed but what changes all the time: the tick, and how much the shards hold.
fn is_only_news(old: &FortiaClusterStatus, next: &FortiaClusterStatus) -> bool {
    let same_plan = old.plan.as_ref().map(|plan| &plan.ticket) == next.plan.as_ref().map(|plan| &plan.ticket);
    let plan = if same_plan { &old.plan } else { &next.plan };
    FortiaClusterStatus { tick: old.tick, load: old.load, plan: plan.clone(), ..next.clone() } == *old
        && old.load.is_some() == next.load.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::status::Load;

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
