//! Whether annotations that can be read fit what is going on: one that fits nothing does nothing, and is told. Pure.

use std::collections::BTreeMap;

use super::annotations::{ABORT, ACCEPT_LOSS, APPROVE, Asked, PLAN, ROLLBACK};
use super::validate::Plan;
use crate::crd::rebalance::{Phase, Reason, Rebalance};
use crate::crd::status::{FortiaClusterStatus, Layout};

/// What is ours among the annotations of a FortiaCluster.
const OURS: &str = "fortia.dev/";

/// An annotation that is ours by its name and that nobody reads.
pub(super) fn unknown(annotations: &BTreeMap<String, String>) -> Option<String> {
    let known = [APPROVE, ABORT, ROLLBACK, PLAN, ACCEPT_LOSS];
    let other = annotations.keys().find(|key| key.starts_with(OURS) && !known.contains(&key.as_str()))?;
    Some(format!("annotation {other} is not known: there are {}", known.join(", ")))
}

/// The first annotation that fits nothing in this status, and what would fit.
pub(super) fn misfit(plan: &Plan, status: &FortiaClusterStatus) -> Option<String> {
    let layout = status.layout?;
    let Asked { approved, aborts, back_to, plan: asked, .. } = &plan.asked;
    let running = status.rebalance.as_ref();
    let abort = aborts.and_then(|version| of_abort(version, layout, running));
    let rollback = || back_to.and_then(|version| of_rollback(version, layout, status));
    let approve = || approved.as_ref().and_then(|ticket| of_approval(plan, ticket, layout, running));
    let shown = || {
        let (shards, placement) = (*asked)?;
        let same = shards == layout.shards && placement.unwrap_or(plan.placement) == layout.placement;
        same.then(|| {
            format!("annotation {PLAN}={shards} asks for what serves: write another number of shards")
        })
    };
    abort.or_else(rollback).or_else(approve).or_else(shown)
}

fn of_abort(version: u64, layout: Layout, running: Option<&Rebalance>) -> Option<String> {
    let what = match running {
        // While the world has not flipped it is what is being made; later what must not begin.
        _ if version == layout.version + 1 => return None,
        Some(r) if r.rollback && r.phase.carries() => {
            format!("v{} is on its way back: removing {ROLLBACK} gives that up", r.to.version)
        }
        Some(r) if r.phase == Phase::Retaining && version == layout.version => {
            format!("v{version} serves already: {ROLLBACK}=v{} goes back", r.from.version)
        }
        Some(r) if r.to.version > layout.version => format!("{ABORT}=v{} gives up what runs", r.to.version),
        _ => format!(
            "v{} serves, and only {ABORT}=v{} would keep the next from beginning",
            layout.version,
            layout.version + 1
        ),
    };
    Some(format!("annotation {ABORT}=v{version} fits nothing: {what}"))
}

fn of_rollback(version: u64, layout: Layout, status: &FortiaClusterStatus) -> Option<String> {
    let rolled_back = status.failed_rebalance.as_ref().is_some_and(|f| f.reason == Reason::RolledBack);
    let what = match &status.rebalance {
        Some(r) if r.rollback && r.to.version == version => return None,
        Some(r) if r.phase == Phase::Retaining && r.from.version == version => return None,
        Some(r) if r.phase == Phase::Retaining => format!("{ROLLBACK}=v{} goes back", r.from.version),
        Some(r) if r.phase.carries() && !r.rollback => {
            format!("v{} serves; {ABORT}=v{} gives up what runs", layout.version, r.to.version)
        }
        // It has gone back; that it is still there keeps others from beginning, and says so when there is one.
        None if version == layout.version && rolled_back => return None,
        _ if version == layout.version => format!("v{version} serves"),
        _ => format!("v{version} is not kept, v{} serves", layout.version),
    };
    Some(format!("annotation {ROLLBACK}=v{version} fits nothing: {what}"))
}

fn of_approval(plan: &Plan, ticket: &str, layout: Layout, running: Option<&Rebalance>) -> Option<String> {
    let version = ticket.strip_prefix('v').and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
    let Some(version) = version else {
        return Some(format!("annotation {APPROVE}={ticket} is no ticket: status.rebalance.plan has it"));
    };
    let waits = running.filter(|r| r.phase == Phase::Planned && !r.accepted && plan.require_approval);
    match waits.and_then(|r| r.plan.as_ref()) {
        Some(planned) if planned.ticket == ticket => None,
        Some(planned) => Some(format!(
            "annotation {APPROVE}={ticket} is of another plan: {APPROVE}={} approves this one",
            planned.ticket
        )),
        // What was approved is done; or it is approved before it is asked for.
        None if version <= layout.version + 1 => None,
        None => Some(format!(
            "annotation {APPROVE}={ticket} fits nothing: the next version is v{}",
            layout.version + 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;
    use crate::crd::rebalance;
    use crate::crd::spec::Placement;

    fn layout(version: u64, shards: u32) -> Layout {
        Layout { version, shards, placement: Placement::Modulo }
    }

    /// v1 on two shards serves; v2 on three is being made, or serves already.
    fn status(phase: Option<Phase>) -> FortiaClusterStatus {
        let flipped = matches!(phase, Some(Phase::Retaining | Phase::Collecting));
        let shown = Some(rebalance::Plan { ticket: "v2-3-modulo".into(), ..rebalance::Plan::default() });
        let rebalance = phase.map(|phase| Rebalance {
            phase,
            from: layout(1, 2),
            to: layout(2, 3),
            accepted: phase != Phase::Planned,
            plan: shown,
            ..Rebalance::default()
        });
        let layout = Some(if flipped { layout(2, 3) } else { layout(1, 2) });
        FortiaClusterStatus { layout, rebalance, ..FortiaClusterStatus::default() }
    }

    fn told(phase: Option<Phase>, set: impl Fn(&mut Asked)) -> Option<String> {
        let mut plan = example("{redisShards: 2, rebalancing: {requireApproval: true}}");
        set(&mut plan.asked);
        misfit(&plan, &status(phase))
    }

    #[test]
    fn an_abort_of_what_is_not_made_says_what_could_be_aborted() {
        let abort = |version, phase| told(phase, |asked| asked.aborts = Some(version));
        let copying = abort(3, Some(Phase::Copying)).expect("told");
        assert!(
            copying.contains("abort=v3 fits nothing") && copying.contains("abort=v2 gives up"),
            "{copying}"
        );
        let kept = abort(2, Some(Phase::Retaining)).expect("told");
        assert!(kept.contains("rollback=v1 goes back"), "{kept}");
        assert!(abort(1, None).is_some_and(|told| told.contains("abort=v2 would keep")));
        for phase in [None, Some(Phase::Planned), Some(Phase::Cutover), Some(Phase::Aborting)] {
            assert_eq!(abort(2, phase), None, "{phase:?}");
        }
    }

    #[test]
    fn a_way_back_to_what_is_not_kept_says_what_is() {
        let back = |version, phase| told(phase, |asked| asked.back_to = Some(version));
        assert_eq!(back(1, Some(Phase::Retaining)), None);
        assert!(back(7, Some(Phase::Retaining)).is_some_and(|told| told.contains("rollback=v1 goes back")));
        assert!(back(1, Some(Phase::Copying)).is_some_and(|told| told.contains("abort=v2 gives up")));
        assert!(
            back(1, Some(Phase::Collecting)).is_some_and(|told| told.contains("v1 is not kept, v2 serves"))
        );
        assert!(back(1, None).is_some_and(|told| told.contains("v1 serves")));
    }

    #[test]
    fn an_approval_of_another_plan_says_the_ticket_of_this_one() {
        let approve = |ticket: &str, phase| told(phase, |asked| asked.approved = Some(ticket.into()));
        assert_eq!(approve("v2-3-modulo", Some(Phase::Planned)), None);
        let other = approve("v2-4-modulo", Some(Phase::Planned)).expect("told");
        assert!(other.contains("approve=v2-3-modulo approves this one"), "{other}");
        assert_eq!(approve("v2-4-modulo", Some(Phase::Copying)), None, "it was not needed");
        assert_eq!(approve("v1-2-modulo", None), None, "it is done");
        assert!(approve("yes", None).is_some_and(|told| told.contains("no ticket")));
        assert!(approve("v9-3-modulo", None).is_some_and(|told| told.contains("next version is v2")));
    }

    #[test]
    fn a_plan_of_what_serves_and_unknown_names_are_told() {
        assert!(told(None, |asked| asked.plan = Some((2, None))).is_some());
        assert_eq!(told(None, |asked| asked.plan = Some((2, Some(Placement::Jump)))), None);
        assert_eq!(told(None, |asked| asked.plan = Some((3, None))), None);
        let read = |name: &str| unknown(&BTreeMap::from([(name.to_owned(), String::new())]));
        assert!(read("fortia.dev/abbort").is_some_and(|told| told.contains("fortia.dev/abort")));
        assert_eq!((read(ABORT), read("kubectl.kubernetes.io/last-applied-configuration")), (None, None));
    }
}
