//! Carries out what was decided on Redis servers, records and Jobs. Decides nothing.

use std::time::Instant;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::authority;
use super::decide::Decision;
use super::observe::{Observed, control_primary, holds};
use super::reconcile::Error;
use super::validate::Plan;
use super::{Context, apply, conditions, records};
use crate::build::names::{GROUP, GroupId, INSTANCE, REDIS_PORT, ROLE};
use crate::build::secrets::Passwords;
use crate::build::{Kind, config, jobs};
use crate::crd::status::{FortiaClusterStatus, GroupState};
use crate::failover::redis::FirstGuard;
use crate::failover::state::Role;
use crate::failover::step::Step;
use crate::rebalance::phase::{self as rebalance, SurplusState};

/// Annotation of worldgen's Job: how far the world is, for people.
const PROGRESS: &str = "fortia.dev/progress";

/// Carries out a decision, in the order in which one part needs the other: servers, rights, records, Jobs.
pub(super) async fn act(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    decision: &Decision,
) -> Result<(), Error> {
    let Some(passwords) = &seen.passwords else { return Ok(()) };
    for (group, step) in &decision.groups {
        act_on_group(context, plan, status, seen, passwords, *group, step).await?;
    }
    for (group, pod, versions) in &decision.rights {
        if let Some(target) = seen.targets.get(pod) {
            // Together with the rights, and so after an operator of another version began, and each minute: a server that
            // was admitted by it has its functions, and who gets rights may call ours.
            if context.redis.renew_library(target, passwords).await? {
                tracing::info!(cluster = plan.names.cluster, %group, pod, "function library renewed");
            }
            context.redis.give_rights(target, passwords, *group, versions).await?;
            // What they boot with follows the spec only when they boot. A server that does not answer is asked again.
            let nodes = seen.nodes.get(group).into_iter().flatten();
            for server in nodes.filter(|n| n.seen.is_some()).filter_map(|n| seen.targets.get(&n.pod)) {
                context.redis.sync(server, passwords, config::sync(plan, *group)).await?;
            }
            remember_rights(context, plan, seen, *group, pod, versions).await;
        }
    }
    label_pods(context, plan, status, seen).await?;
    write_records(context, status, seen, passwords, decision).await?;
    if decision.worldgen {
        apply::create(context, plan, &jobs::worldgen(plan)).await?;
    }
    tell_on_job(context, plan, seen).await?;
    act_on_rebalance(context, plan, status, seen, passwords, &decision.rebalance).await
}

/// Shows how far the world is on worldgen's Job: a Job's own status has no room for it.
async fn tell_on_job(context: &Context, plan: &Plan, seen: &Observed) -> Result<(), Error> {
    let name = plan.names.of("worldgen");
    let (Some(world), Some(job)) = (conditions::made(seen), seen.jobs.get(&name)) else { return Ok(()) };
    let bar = world.to_string();
    if job.annotations().get(PROGRESS) != Some(&bar) {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { PROGRESS: bar } } }));
        let jobs = context.api::<Job>(&plan.names.namespace);
        jobs.patch_metadata(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

async fn act_on_group(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    group: GroupId,
    step: &Step,
) -> Result<(), Error> {
    match step {
        Step::Admit { pod, first } => {
            let Some(target) = seen.targets.get(pod) else { return Ok(()) };
            let layout = status.layout.unwrap_or_default();
            let shard = matches!(group, GroupId::Shard(_));
            let guard = FirstGuard {
                uid: plan.uid.clone(),
                epoch: status.epoch,
                version: if shard { layout.version } else { 0 },
                frozen: matches!(group, GroupId::Shard(index) if index >= layout.shards),
            };
            context.redis.admit(target, passwords, group, first.then_some(&guard)).await?;
            tracing::info!(cluster = plan.names.cluster, %group, pod, first, "primary admitted");
        }
        Step::Attach(pods) => {
            let name = group.to_string();
            let Some(primary) = status.groups.iter().find(|g| g.name == name) else { return Ok(()) };
            let host = plan.names.host(group, &primary.primary);
            for target in pods.iter().filter_map(|pod| seen.targets.get(pod)) {
                context.redis.attach(target, passwords, (&host, REDIS_PORT)).await?;
                tracing::info!(cluster = plan.names.cluster, %group, pod = target.pod, "replica attached");
            }
        }
        _ => {}
    }
    Ok(())
}

async fn remember_rights(
    context: &Context,
    plan: &Plan,
    seen: &Observed,
    group: GroupId,
    pod: &str,
    versions: &[u64],
) {
    let nodes = seen.nodes.get(&group).map(Vec::as_slice).unwrap_or_default();
    let run = nodes.iter().find(|n| n.pod == pod).and_then(|n| n.seen.as_ref()).map(|s| s.run_id.clone());
    if let Some(run) = run {
        let mut memory = context.memory.lock().await;
        let rights = &mut memory.entry(plan.uid.clone()).or_default().rights;
        rights.gave(run, versions.to_vec(), Instant::now());
    }
}

/// Derives the role label of Redis pods, by which client Services find the primary.
async fn label_pods(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
) -> Result<(), Error> {
    for (group, nodes) in &seen.nodes {
        let name = group.to_string();
        let recorded = status.groups.iter().find(|g| g.name == name && g.state == GroupState::Admitted);
        for node in nodes {
            let Some(pod) = seen.pods.get(&node.pod).filter(|_| node.seen.is_some()) else { continue };
            let leads = recorded.is_some_and(|g| g.primary == node.pod)
                && node.seen.as_ref().is_some_and(|s| s.role == Role::Primary);
            let role = if leads { "primary" } else { "replica" };
            if pod.labels().get(ROLE).map(String::as_str) != Some(role) {
                let patch = json!({ "metadata": { "uid": pod.uid(), "labels": { ROLE: role } } });
                let api = context.api::<Pod>(&plan.names.namespace);
                match api.patch(&node.pod, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {}
                    other => {
                        other?;
                    }
                }
            }
        }
    }
    Ok(())
}

async fn control(
    context: &Context,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
) -> Result<Option<MultiplexedConnection>, Error> {
    match control_primary(status, seen) {
        Some(target) => Ok(Some(context.redis.connect(target, passwords).await?)),
        None => Ok(None),
    }
}

async fn write_records(
    context: &Context,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    decision: &Decision,
) -> Result<(), Error> {
    if decision.config.is_none() && decision.topology.is_none() {
        return Ok(());
    }
    let Some(open) = control(context, status, seen, passwords).await? else { return Ok(()) };
    if let Some((config, replaces)) = &decision.config {
        records::write_config(open.clone(), config, *replaces).await?;
    }
    if let Some((expected, topology)) = &decision.topology {
        records::write_topology(open, *expected, topology).await?;
        tracing::info!(epoch = topology.epoch, phase = ?topology.phase, "topology written");
    }
    Ok(())
}

async fn act_on_rebalance(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    step: &rebalance::Step,
) -> Result<(), Error> {
    let (from, to) = status.rebalance.as_ref().map(|r| (r.from, r.to)).unwrap_or_default();
    match step {
        rebalance::Step::Carry => {
            let open = control(context, status, seen, passwords).await?;
            records::clear_progress(open.ok_or(Error::Unreachable("the control database"))?, to.version)
                .await?;
            apply::create(context, plan, &jobs::migrate(plan, from.version, to.version, from.shards)).await
        }
        rebalance::Step::Collect { version, shards, lost } => {
            close_target(context, plan, status, seen, passwords, lost).await?;
            apply::create(context, plan, &jobs::collect(plan, *version, *shards, lost)).await
        }
        rebalance::Step::DeleteCarry => delete_job(context, plan, &plan.names.migrate(to.version)).await,
        rebalance::Step::DeleteCollect => {
            for version in [from.version, to.version] {
                delete_job(context, plan, &plan.names.collect(version)).await?;
            }
            Ok(())
        }
        rebalance::Step::Remove(group) => remove(context, plan, status, seen, passwords, *group).await,
        rebalance::Step::Finish(_) => match control(context, status, seen, passwords).await? {
            Some(open) => Ok(records::clear_rebalance(open).await?),
            None => Err(Error::Unreachable("the control database")),
        },
        _ => Ok(()),
    }
}

/// Closes the guards of shards that serve nothing any more: the scheduler froze them for their version or as a target,
/// opens serving shards only, and nothing is unlinked that a guard still names. Those that are lost have none.
async fn close_target(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    lost: &[u32],
) -> Result<(), Error> {
    let guard = FirstGuard {
        uid: plan.uid.clone(),
        epoch: status.epoch,
        version: status.layout.unwrap_or_default().version,
        frozen: true,
    };
    let is_lost = |group: &GroupId| matches!(group, GroupId::Shard(index) if lost.contains(index));
    for (group, primary) in authority::left_over(status).into_iter().filter(|(group, _)| !is_lost(group)) {
        let target = seen.targets.get(primary).ok_or(Error::Unreachable("a shard that is to be emptied"))?;
        context.redis.guard(target, passwords, group, &guard).await?;
        tracing::info!(cluster = plan.names.cluster, %group, epoch = guard.epoch, "guard closed");
    }
    Ok(())
}

async fn delete_job(context: &Context, plan: &Plan, name: &str) -> Result<(), Error> {
    // In the foreground: the Job is gone only when its pods are.
    apply::delete(context, plan, Kind::Job, name, &DeleteParams::foreground()).await
}

/// Removes a group: once more proven empty, then volumes, servers and what belongs to them.
async fn remove(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    group: GroupId,
) -> Result<(), Error> {
    let claims = context.api::<PersistentVolumeClaim>(&plan.names.namespace);
    let mine = ListParams::default().labels(&format!("{INSTANCE}={},{GROUP}={group}", plan.names.cluster));
    let found = claims.list(&mine).await?.items;
    match holds(context, plan, status, seen, passwords, group, &found).await {
        SurplusState::Empty => {}
        SurplusState::Holds(keys) => return Err(Error::NotEmpty { group: group.to_string(), keys }),
        SurplusState::Unreachable | SurplusState::Going => {
            return Err(Error::Unreachable("a surplus group"));
        }
    }
    tracing::info!(cluster = plan.names.cluster, %group, "surplus group is empty and removed");
    // Claims go first: they wait for their pods by themselves, and nothing is left if we die in between.
    for claim in found {
        let same = Preconditions { uid: claim.meta().uid.clone(), resource_version: None };
        match claims.delete(&claim.name_any(), &DeleteParams::default().preconditions(same)).await {
            Err(kube::Error::Api(e)) if e.code == 404 => {}
            other => {
                other?;
            }
        }
    }
    let gone = DeleteParams::background();
    apply::delete(context, plan, Kind::PodDisruptionBudget, &plan.names.of(group), &gone).await?;
    apply::delete(context, plan, Kind::Service, &plan.names.headless(group), &gone).await?;
    apply::delete(context, plan, Kind::StatefulSet, &plan.names.of(group), &gone).await
}
