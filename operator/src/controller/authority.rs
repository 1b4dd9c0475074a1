//! What follows from status alone: which groups exist, which versions may be written, what the topology says. Pure.

use std::collections::BTreeSet;

use fortia_common::topology::{Group as WireGroup, Topology};

use super::validate::Plan;
use crate::build::names::{GroupId, Names};
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::{FortiaClusterStatus, Group, GroupState, Layout};

/// Groups that exist by status: those of the layout, and those of the target once its plan is accepted.
pub(super) fn groups(status: &FortiaClusterStatus) -> Vec<GroupId> {
    let Some(layout) = status.layout else { return Vec::new() };
    let also = match &status.rebalance {
        Some(r) if r.accepted && !r.collected => r.from.shards.max(r.to.shards),
        _ => 0,
    };
    GroupId::all(layout.shards.max(also))
}

/// Admitted shards that only the layout has whose keys are unlinked, and their primaries.
pub(super) fn left_over(status: &FortiaClusterStatus) -> Vec<(GroupId, &str)> {
    let (Some(layout), Some(r)) = (status.layout, &status.rebalance) else { return Vec::new() };
    if !matches!(r.phase, Phase::Aborting | Phase::Collecting) {
        return Vec::new();
    }
    let only =
        |group: &Group| matches!(GroupId::parse(&group.name), Some(GroupId::Shard(i)) if i >= layout.shards);
    let admitted = status.groups.iter().filter(|g| g.state == GroupState::Admitted && only(g));
    admitted.filter_map(|g| Some((GroupId::parse(&g.name)?, g.primary.as_str()))).collect()
}

/// Whether groups may be leaving.
pub(crate) fn leaving(status: &FortiaClusterStatus) -> bool {
    status.rebalance.as_ref().is_some_and(|r| r.collected)
}

/// The version of a re-sharding that is planned and not yet begun.
pub(super) fn planned(status: &FortiaClusterStatus) -> Option<u64> {
    let planned = |r: &&Rebalance| r.phase == Phase::Planned && !r.accepted;
    status.rebalance.as_ref().filter(planned).map(|r| r.to.version)
}

/// Shards that are recorded or exist but belong to no layout any more.
pub(super) fn surplus<'a>(
    status: &FortiaClusterStatus,
    sets: impl Iterator<Item = &'a String>,
    names: &Names,
) -> Vec<GroupId> {
    let staying: BTreeSet<GroupId> = groups(status).into_iter().collect();
    let recorded = status.groups.iter().filter_map(|g| GroupId::parse(&g.name));
    let prefix = names.of("");
    let existing = sets.filter_map(|set| GroupId::parse(set.strip_prefix(prefix.as_str())?));
    let all: BTreeSet<GroupId> = recorded.chain(existing).collect();
    all.into_iter().filter(|group| matches!(group, GroupId::Shard(_)) && !staying.contains(group)).collect()
}

/// Versions that may be written by those who may write at all; the guard decides which of them at any moment.
pub(super) fn writable(status: &FortiaClusterStatus) -> Vec<u64> {
    let mut versions: Vec<u64> = status.layout.iter().map(|layout| layout.version).collect();
    if let Some(r) = status.rebalance.as_ref().filter(|r| r.accepted || r.opened) {
        versions.extend([r.from.version, r.to.version]);
    }
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// The topology record that says what status says.
pub(crate) fn topology(plan: &Plan, status: &FortiaClusterStatus, layout: Layout) -> Topology {
    let opened = status.rebalance.as_ref().filter(|r| r.opened);
    let shown = |r: &&Rebalance| r.phase.carries();
    // A way back that is given up ends where it began: the version it came from serves, the other is kept.
    let stays = |r: &Rebalance| r.rollback && r.phase == Phase::Aborting;
    let made = opened.filter(|r| r.accepted && !r.collected);
    let shards = made.map_or(layout.shards, |r| r.from.shards.max(r.to.shards));
    Topology {
        epoch: status.epoch,
        cluster: plan.uid.clone(),
        serving: layout.wire(),
        target: opened.filter(shown).map(|r| r.to.wire()),
        previous: opened.and_then(|r| match r.phase {
            Phase::Retaining => Some(r.from.wire()),
            _ => stays(r).then(|| r.to.wire()),
        }),
        phase: opened.map(|r| match r.phase {
            // To the servers carrying is one phase: each change of this record is a new epoch.
            Phase::CatchingUp | Phase::Verifying => Phase::Copying.wire(),
            _ if stays(r) => Phase::Retaining.wire(),
            phase => phase.wire(),
        }),
        groups: (0..shards).map(|index| wire_group(plan, status, GroupId::Shard(index))).collect(),
        auth_db: plan.names.address(GroupId::Auth, &primary_of(plan, status, GroupId::Auth)),
    }
}

/// Whether this topology is a flip that status does not know yet. It is adopted, never overwritten by what was decided
/// before it.
pub(crate) fn is_news(status: &FortiaClusterStatus, stored: &Topology) -> bool {
    let flips = |r: &Rebalance| status.layout == Some(r.from) && stored.serving == r.to.wire();
    status.rebalance.as_ref().is_some_and(flips)
}

/// The epoch for a topology that replaces this one. Not the next while a cut-over is asked for: under that the scheduler
/// turns the guards, perhaps late, and it must be nobody else's.
pub(crate) fn raised(stored: &Topology) -> u64 {
    let cuts_over = stored.phase.map(Phase::from) == Some(Phase::Cutover);
    stored.epoch + if cuts_over { 2 } else { 1 }
}

pub(super) fn primary_of(plan: &Plan, status: &FortiaClusterStatus, group: GroupId) -> String {
    let name = group.to_string();
    let recorded = status.groups.iter().find(|g| g.name == name);
    recorded.map_or_else(|| plan.names.pod(group, 0), |g| g.primary.clone())
}

fn wire_group(plan: &Plan, status: &FortiaClusterStatus, group: GroupId) -> WireGroup {
    let primary = primary_of(plan, status, group);
    let pods = (0..plan.redis.nodes).map(|ordinal| plan.names.pod(group, ordinal));
    WireGroup {
        name: group.to_string(),
        replicas: pods.filter(|pod| *pod != primary).map(|pod| plan.names.address(group, &pod)).collect(),
        primary: plan.names.address(group, &primary),
    }
}
