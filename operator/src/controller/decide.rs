//! From plan, status and what was seen to actions and the next status. Pure. Actions rest on the status that was
//! read; what is decided now goes to the next status only, and is acted on in a later pass.

use fortia_common::records::Config;
use fortia_common::topology::Topology;

use super::authority::{groups, is_news, raised, topology, writable};
use super::observe::Observed;
use super::resharding;
use super::validate::Plan;
use crate::build::names::GroupId;
use crate::crd::rebalance::Phase;
use crate::crd::status::{FortiaClusterStatus, Group, GroupState, Layout};
use crate::failover::state::Role;
use crate::failover::step as failover;
use crate::rebalance::job::JobState;
use crate::rebalance::phase as rebalance;

/// What a pass does and records.
pub(super) struct Decision {
    /// Steps by group.
    pub(super) groups: Vec<(GroupId, failover::Step)>,
    /// Admitted primaries whose services lack the rights of now: group, pod, writable versions.
    pub(super) rights: Vec<(GroupId, String, Vec<u64>)>,
    /// Topology to write, if the stored one has this epoch.
    pub(super) topology: Option<(u64, Topology)>,
    /// Configuration to write; whether it replaces one.
    pub(super) config: Option<(Config, bool)>,
    /// Whether the Job that makes the world is to be created.
    pub(super) worldgen: bool,
    /// Step of the re-sharding.
    pub(super) rebalance: rebalance::Step,
    /// Phase of the re-sharding that ran before it.
    pub(super) was: Option<Phase>,
    /// What is recorded: groups, layout, epoch, re-sharding, world.
    pub(super) next: FortiaClusterStatus,
}

/// Decides.
pub(super) fn decide(plan: &Plan, status: &FortiaClusterStatus, seen: &Observed) -> Decision {
    let mut next = status.clone();
    let Some(layout) = status.layout else { return first_layout(plan, next) };
    let groups = group_steps(plan, status, seen, &mut next);
    let (rights, missing) = due_rights(status, seen, &groups);
    let settled = !missing && groups.iter().all(|(_, step)| is_up(step));
    let stored = seen.records.as_ref().and_then(|records| records.topology.as_ref());
    let wanted = topology(plan, status, layout);
    let in_sync = stored == Some(&wanted);
    let job = plan.names.of("worldgen");
    let made = JobState::of(seen.jobs.get(&job));
    next.world_ready |= made == JobState::Complete;
    let rebalance = resharding::step(plan, status, seen, layout, settled && status.world_ready, in_sync);
    resharding::record(&rebalance, stored, seen.now, &mut next);
    resharding::forecast(plan, status, seen, &mut next);
    follow_epoch(plan, stored, &mut next);
    let answers = seen.records.is_some();
    // The first topology waits for all groups; later ones are news that must not wait for a broken shard.
    let older = status.epoch > stored.map_or(0, |t| t.epoch) && !stored.is_some_and(|t| is_news(status, t));
    let write = answers && (settled || stored.is_some()) && !in_sync && older;
    let config = seen.records.as_ref().and_then(|records| {
        (records.config.as_ref() != Some(&plan.config))
            .then(|| (plan.config.clone(), records.config.is_some()))
    });
    Decision {
        groups,
        rights,
        topology: write.then(|| (stored.map_or(0, |t| t.epoch), wanted)),
        config,
        worldgen: in_sync && !status.world_ready && made == JobState::Absent,
        rebalance,
        was: status.rebalance.as_ref().map(|r| r.phase),
        next,
    }
}

/// The first decision of all: what layout a new cluster has.
fn first_layout(plan: &Plan, mut next: FortiaClusterStatus) -> Decision {
    next.layout = Some(Layout { version: 1, shards: plan.shards, placement: plan.placement });
    next.epoch = 1;
    Decision {
        groups: Vec::new(),
        rights: Vec::new(),
        topology: None,
        config: None,
        worldgen: false,
        rebalance: rebalance::Step::Idle,
        was: None,
        next,
    }
}

fn is_up(step: &failover::Step) -> bool {
    matches!(step, failover::Step::Settled | failover::Step::Attach(_))
}

fn group_steps(
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    next: &mut FortiaClusterStatus,
) -> Vec<(GroupId, failover::Step)> {
    let mut steps = Vec::new();
    for group in groups(status) {
        let name = group.to_string();
        let authority = status.groups.iter().find(|g| g.name == name);
        let nodes = seen.nodes.get(&group).map(Vec::as_slice).unwrap_or_default();
        let step = failover::next(&plan.names, &plan.uid, group, authority, nodes);
        if let failover::Step::Record(pod) = &step {
            next.groups.push(Group { name: name.clone(), primary: pod.clone(), ..Group::default() });
        }
        if let Some(record) = next.groups.iter_mut().find(|g| g.name == name) {
            if let failover::Step::Confirm { uid, run_id } = &step {
                record.state = GroupState::Admitted;
                record.primary_uid.clone_from(uid);
                record.run_id = Some(run_id.clone());
            }
            record.message = match &step {
                failover::Step::Wait(message) | failover::Step::Degraded { message, .. } => {
                    Some(message.clone())
                }
                _ => None,
            };
        }
        steps.push((group, step));
    }
    steps
}

/// Rights to be given, and whether a server lacks them, as far as is remembered.
fn due_rights(
    status: &FortiaClusterStatus,
    seen: &Observed,
    groups: &[(GroupId, failover::Step)],
) -> (Vec<(GroupId, String, Vec<u64>)>, bool) {
    let versions = writable(status);
    let (mut due, mut missing) = (Vec::new(), false);
    for (group, _) in groups.iter().filter(|(_, step)| is_up(step)) {
        let name = group.to_string();
        let Some(primary) = status.groups.iter().find(|g| g.name == name) else { continue };
        let node = seen.nodes.get(group).and_then(|nodes| nodes.iter().find(|n| n.pod == primary.primary));
        let Some(server) = node.and_then(|n| n.seen.as_ref()).filter(|s| s.role == Role::Primary) else {
            continue;
        };
        let lacks = seen.rights.versions.get(&server.run_id) != Some(&versions);
        missing |= lacks;
        if lacks || seen.rights.old.contains(&server.run_id) {
            due.push((*group, primary.primary.clone(), versions.clone()));
        }
    }
    (due, missing)
}

/// Raises the epoch when what is stored differs from what the next status says.
fn follow_epoch(plan: &Plan, stored: Option<&Topology>, next: &mut FortiaClusterStatus) {
    let (Some(stored), Some(layout)) = (stored, next.layout) else { return };
    next.epoch = next.epoch.max(stored.epoch);
    let wanted = topology(plan, next, layout);
    if wanted != *stored && next.epoch == stored.epoch {
        next.epoch = raised(stored);
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
pub(super) mod tests;
