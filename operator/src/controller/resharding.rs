//! From status and what was seen to the question what a re-sharding does next, and from the answer to status. Pure.

use fortia_common::topology::Topology;
use k8s_openapi::jiff::Timestamp;

use super::authority::primary_of;
use super::observe::Observed;
use super::records;
use super::validate::Plan;
use crate::build::names::GroupId;
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::{FortiaClusterStatus, Layout};
use crate::failover::state::{Role, Seen};
use crate::rebalance::job::JobState;
use crate::rebalance::phase::{self, Spec, Step};
use crate::rebalance::plan::{self, Shard, Sizes};

/// Most shards there can be, as in the spec.
const MOST: u32 = 64;

/// The next step.
pub(super) fn step(
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    layout: Layout,
    settled: bool,
    in_sync: bool,
) -> Step {
    let spec = Spec {
        shards: plan.shards,
        placement: plan.placement,
        generation: plan.generation,
        retain: plan.retain,
        require_approval: plan.require_approval,
        approved: plan.asked.approved.clone(),
        aborts: plan.asked.aborts,
        back_to: plan.asked.back_to,
    };
    let records = seen.records.as_ref();
    let stored = records.and_then(|r| r.topology.as_ref());
    let job = |name: String| JobState::of(seen.jobs.get(&name));
    let collected = status.rebalance.as_ref().map(|r| if r.phase == Phase::Aborting { r.to } else { r.from });
    let observed = phase::Observed {
        layout,
        rebalance: status.rebalance.as_ref(),
        plans: status.plans,
        failed: status.failed_rebalance.as_ref(),
        settled,
        topology: stored,
        in_sync,
        behind: records
            .map_or_else(Vec::new, |r| records::behind(&r.instances, stored.map_or(0, |t| t.epoch))),
        cutover: records.and_then(|r| r.cutover.as_ref()),
        migrate: status
            .rebalance
            .as_ref()
            .map_or(JobState::Absent, |r| job(plan.names.migrate(r.to.version))),
        collect: collected.map_or(JobState::Absent, |old| job(plan.names.collect(old.version))),
        progress: records.map(|r| r.progress.as_slice()).unwrap_or_default(),
        sizes: sizes(plan, status, seen, layout),
        apart: apart(plan, status, seen, layout),
        leftovers: seen.leftovers,
        lost: seen.lost.clone(),
        rate: status.last_rate,
        surplus: seen.surplus.clone(),
        now: seen.now,
    };
    phase::next(&spec, &observed)
}

/// What the serving primaries hold; none when one does not answer.
fn sizes(plan: &Plan, status: &FortiaClusterStatus, seen: &Observed, layout: Layout) -> Option<Sizes> {
    let shards = (0..layout.shards).map(|index| {
        let group = GroupId::Shard(index);
        let primary = primary_of(plan, status, group);
        let server = seen.nodes.get(&group)?.iter().find(|n| n.pod == primary)?.seen.as_ref()?;
        let volume = seen.volumes.get(&primary).copied().unwrap_or_default();
        Some(Shard {
            // The guard is not carried.
            keys: server.keys.saturating_sub(1),
            memory: server.used_memory,
            data: server.used_memory.saturating_sub(server.idle_memory),
            file: server.file_size,
            volume,
        })
    });
    Some(Sizes {
        shards: shards.collect::<Option<_>>()?,
        max_memory: plan.redis.max_memory,
        volume: plan.redis.volume,
    })
}

/// Replicas of serving shards that do not follow the recorded primary.
fn apart(plan: &Plan, status: &FortiaClusterStatus, seen: &Observed, layout: Layout) -> Vec<String> {
    let follows = |server: &Seen| matches!(server.role, Role::ReplicaOf { link_up: true, .. });
    let mut apart = Vec::new();
    for group in (0..layout.shards).map(GroupId::Shard) {
        let primary = primary_of(plan, status, group);
        let nodes = seen.nodes.get(&group).map(Vec::as_slice).unwrap_or_default();
        let replicas = nodes.iter().filter(|node| node.pod != primary);
        apart.extend(replicas.filter(|n| !n.seen.as_ref().is_some_and(follows)).map(|n| n.pod.clone()));
    }
    apart
}

/// What people are told beforehand: what the shards hold, what any number of shards would move, and the plan asked about.
pub(super) fn forecast(
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    next: &mut FortiaClusterStatus,
) {
    let Some(layout) = next.layout else { return };
    if next.moves.is_empty() || next.moves_placed_anew.is_empty() || status.layout != next.layout {
        next.moves = plan::moves(layout, layout.placement, MOST);
        next.moves_placed_anew = plan::moves(layout, layout.placement.other(), MOST);
    }
    next.plan = next.plan.take().filter(|_| plan.asked.plan.is_some());
    let Some(sizes) = sizes(plan, status, seen, layout) else { return };
    // Where two versions are and one of them is whole, the other is left out; where it comes or goes, what was known is.
    let Some(sizes) = serving(sizes, status, layout) else { return };
    next.load = Some(sizes.load());
    next.plan = plan.asked.plan.map(|(shards, placement)| {
        let placement = placement.unwrap_or(plan.placement);
        let to = Layout { version: layout.version + 1, shards, placement };
        sizes.plan(layout, to, status.plans + 1, status.last_rate)
    });
}

/// What the shards hold of the version that serves; none while it is not known how much another one takes.
fn serving(mut sizes: Sizes, status: &FortiaClusterStatus, layout: Layout) -> Option<Sizes> {
    let Some(r) = status.rebalance.as_ref().filter(|r| r.phase != Phase::Planned) else { return Some(sizes) };
    let whole = r.phase == Phase::Retaining || (r.rollback && r.phase.carries());
    let kept = if r.to == layout { r.from } else { r.to };
    let keys = r
        .proof
        .as_ref()
        .map(|proof| proof.keys)
        .or(r.total_keys.filter(|_| !r.rollback))
        .filter(|_| whole)?;
    for (shard, index) in sizes.shards.iter_mut().zip(0..kept.shards) {
        let share =
            keys / u64::from(kept.shards) + u64::from(u64::from(index) < keys % u64::from(kept.shards));
        *shard = shard.without(share);
    }
    Some(sizes)
}

/// Keys a second, when all of them are copied.
fn rate(old: Option<&Rebalance>, new: &Rebalance, now: Timestamp) -> Option<u64> {
    let copied = old.is_some_and(|old| old.phase == Phase::Copying)
        && (Phase::CatchingUp..=Phase::Cutover).contains(&new.phase);
    let since = new.copying_since.as_ref().filter(|_| copied)?;
    let seconds = now.duration_since(since.0).as_secs_f64();
    // What is copied within a moment says nothing of a speed.
    (seconds >= 2.0).then(|| (new.keys as f64 / seconds) as u64).filter(|rate| *rate > 0)
}

/// Puts a step into the next status.
pub(super) fn record(step: &Step, stored: Option<&Topology>, now: Timestamp, next: &mut FortiaClusterStatus) {
    match step {
        Step::Record(rebalance) => {
            next.last_pause_ms = rebalance.last_pause_ms.or(next.last_pause_ms);
            next.last_rate = rate(next.rebalance.as_ref(), rebalance, now).or(next.last_rate);
            next.plans = next.plans.max(rebalance.number);
            next.rebalance = Some(rebalance.clone());
        }
        Step::Adopt(rebalance) => {
            next.layout = Some(rebalance.to);
            next.epoch = next.epoch.max(stored.map_or(0, |t| t.epoch));
            next.rebalance = Some(rebalance.clone());
        }
        Step::Finish(failed) => {
            next.rebalance = None;
            let shards = next.layout.map_or(0, |layout| layout.shards);
            next.groups
                .retain(|g| !matches!(GroupId::parse(&g.name), Some(GroupId::Shard(i)) if i >= shards));
            next.failed_rebalance.clone_from(failed);
        }
        Step::Wait(message) | Step::Refuse { message, .. } => {
            if let Some(rebalance) = &mut next.rebalance {
                rebalance.message = Some(message.clone());
            }
        }
        _ => {}
    }
}
