//! Ready, Progressing, Degraded: what is true of a cluster and why, in words. Knows what was seen and decided. Pure.

use fortia_common::records::ForgottenRecord;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::annotations::ACCEPT_LOSS;
use super::decide::Decision;
use super::observe::Observed;
use super::reconcile::Error;
use super::validate::Plan;
use super::{fitting, health};
use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::World;
use crate::failover::step::Step;
use crate::rebalance::job::JobState;
use crate::rebalance::phase as rebalance;

/// One condition before it is dated.
pub(super) struct Verdict {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// All that is wrong: the reason is that of the first, the message has them all.
pub(super) fn degraded(
    plan: &Plan,
    seen: &Observed,
    decision: &Decision,
    refused: Option<&Error>,
) -> Verdict {
    let all = troubles(plan, seen, decision, refused);
    let Some((reason, _)) = all.first() else {
        return Verdict { holds: false, reason: "AsWanted", message: String::new() };
    };
    let messages: Vec<&str> = all.iter().map(|(_, message)| message.as_str()).collect();
    Verdict { holds: true, reason, message: messages.join("; ") }
}

/// What is wrong, what matters most first.
fn troubles(
    plan: &Plan,
    seen: &Observed,
    decision: &Decision,
    refused: Option<&Error>,
) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    // First of all: trouble of a group also shows in Ready, this does not.
    if let Some(error) = refused {
        all.push(("ApplyFailed", error.to_string()));
    }
    let group = decision.groups.iter().find_map(|(_, step)| match step {
        Step::Degraded { reason, message } => Some((*reason, message.clone())),
        _ => None,
    });
    all.extend(group);
    if let rebalance::Step::Refuse { reason, message } = &decision.rebalance {
        all.push((reason, message.clone()));
    }
    let failure = decision.next.rebalance.as_ref().and_then(|r| r.failure.as_ref());
    if let Some(failure) = failure.filter(|failure| failure.reason.is_trouble()) {
        all.push((failure.reason.as_str(), failure.message.clone()));
    }
    if let JobState::Failed(why) | JobState::Hopeless(_, why) =
        JobState::of(seen.jobs.get(&plan.names.of("worldgen")))
    {
        let message = format!("the world cannot be made: {why}; look at the Job's pods, then delete the Job");
        all.push(("WorldgenFailed", message));
    }
    let stuck = [health::stuck(&seen.pods), health::unended(&seen.pods, seen.now)];
    all.extend(stuck.into_iter().flatten().map(|message| ("PodsStuck", message)));
    // A re-sharding that waits for them has said so already.
    if all.iter().all(|(reason, _)| *reason != "NotInSync") {
        all.extend(health::told_apart(&seen.apart).map(|message| ("NotInSync", message)));
    }
    let unread = plan.asked.unread.clone().or_else(|| fitting::misfit(plan, &decision.next));
    all.extend(unread.map(|message| ("UnknownAnnotation", message)));
    all
}

pub(super) fn ready(plan: &Plan, seen: &Observed, decision: &Decision, degraded: &Verdict) -> Verdict {
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
    if let Some((reason, message)) = health::unserved(plan) {
        return no(reason, message);
    }
    if let Some(message) = missing_servers(plan, seen) {
        return no("ServersStarting", message);
    }
    if !records.led || records.tick.is_none() {
        return no("TickStarting", "no scheduler leads yet".into());
    }
    if let Some(forgotten) = &records.forgotten {
        return no("DataForgotten", told_forgotten(forgotten));
    }
    let but = if degraded.holds {
        format!("; Degraded tells what is wrong ({})", degraded.reason)
    } else {
        String::new()
    };
    // A re-sharding is no excuse: ticks go on in all its phases.
    if seen.stalled {
        let tick = records.tick.unwrap_or(0);
        return no("TickStalled", format!("tick {tick} was the last; the world stands still{but}"));
    }
    Verdict { holds: true, reason: "Serving", message: format!("the world is served and ticks{but}") }
}

/// Why no tick is begun, and what can be done.
fn told_forgotten(forgotten: &ForgottenRecord) -> String {
    let ForgottenRecord { tick, why } = forgotten;
    format!(
        "{why}; tick {tick} was the last, and the world stands still, so that what is left of it is not mixed with what is lost. \
         Bring the shard's data back (from its replica or its volume), or go on from what there is: \
         annotate with {ACCEPT_LOSS}={tick}"
    )
}

/// How far the world is, for people.
fn generating(world: Option<World>) -> String {
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

pub(super) fn progressing(decision: &Decision, ready: &Verdict) -> Verdict {
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
pub(super) fn told(r: &Rebalance) -> String {
    match &r.message {
        Some(message) if !r.phase.carries() => format!("{r}: {message}"),
        _ => r.to_string(),
    }
}

/// Dates a condition and puts it in the place of the one before.
pub(super) fn set(all: &mut Vec<Condition>, name: &str, verdict: Verdict, generation: i64, now: Timestamp) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::authority::topology;
    use crate::controller::decide::{decide, tests as cluster};
    use crate::controller::status::complete;
    use crate::controller::validate::example;
    use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};

    /// Status, reason and message of a condition of a running world with this spec.
    fn condition(kind: &str, spec: &str, change: impl FnOnce(&mut Plan, &mut Observed)) -> [String; 3] {
        let mut plan = example(spec);
        let recorded = cluster::running();
        let layout = recorded.layout.unwrap_or_default();
        let mut seen = cluster::seen(&recorded, Some(topology(&plan, &recorded, layout)));
        if let Some(records) = &mut seen.records {
            (records.led, records.tick) = (true, Some(7));
        }
        let up = "{status: {availableReplicas: 2, readyReplicas: 2, replicas: 2}}";
        for part in ["scheduler", "ticker", "auth", "game"] {
            let up: Deployment = serde_yaml::from_str(up).expect("deployment");
            seen.deployments.insert(plan.names.of(part), up);
        }
        let up: StatefulSet = serde_yaml::from_str(up).expect("set");
        seen.sets.insert(plan.names.of("logserver"), up);
        change(&mut plan, &mut seen);
        let decision = decide(&plan, &recorded, &seen);
        let next = complete(&plan, &seen, &decision, None);
        let found = next.conditions.into_iter().find(|c| c.type_ == kind).expect("condition");
        [found.status, found.reason, found.message]
    }

    fn words(found: &[String; 3]) -> [&str; 2] {
        [&found[0], &found[1]]
    }

    const SPEC: &str = "{redisShards: 2, redis: {replicas: 0}}";

    #[test]
    fn a_world_is_ready_only_while_it_ticks_and_is_served() {
        assert_eq!(words(&condition("Ready", SPEC, |_, _| ())), ["True", "Serving"]);
        let stands = condition("Ready", SPEC, |_, seen| seen.stalled = true);
        assert_eq!(words(&stands), ["False", "TickStalled"], "{stands:?}");
        let forgot = condition("Ready", SPEC, |_, seen| {
            let why = "shard 1 came back with 19 of 20 parts".into();
            let record = Some(ForgottenRecord { tick: 417, why });
            seen.records.iter_mut().for_each(|records| records.forgotten = record.clone());
        });
        assert_eq!(words(&forgot), ["False", "DataForgotten"]);
        assert!(forgot[2].ends_with("fortia.dev/accept-loss=417"), "{forgot:?}");
        for (part, reason) in [
            ("scheduler", "TickStalled"),
            ("ticker", "TickStalled"),
            ("game", "NoServers"),
            ("auth", "NoServers"),
        ] {
            let spec = format!("{{redisShards: 2, redis: {{replicas: 0}}, {part}: {{replicas: 0}}}}");
            let found = condition("Ready", &spec, |_, _| ());
            assert_eq!(words(&found), ["False", reason], "{part}: {found:?}");
        }
    }

    #[test]
    fn pods_and_replicas_that_are_not_up_degrade_the_cluster_by_name() {
        let away = condition("Degraded", SPEC, |_, seen| seen.apart = vec!["midgard-shard-0-1".into()]);
        assert_eq!(words(&away), ["True", "NotInSync"]);
        assert!(away[2].contains("midgard-shard-0-1"), "{away:?}");
        let stuck = |_: &mut Plan, seen: &mut Observed| {
            let pod = "{status: {containerStatuses: [{name: c, image: none, imageID: '', ready: false, \
                       restartCount: 0, state: {waiting: {reason: ErrImageNeverPull}}}]}}";
            seen.pods.insert("midgard-game-x".into(), serde_yaml::from_str(pod).expect("pod"));
        };
        let found = condition("Degraded", SPEC, stuck);
        assert_eq!(words(&found), ["True", "PodsStuck"]);
        assert!(found[2].contains("midgard-game-x (ErrImageNeverPull: none)"), "{found:?}");
        let unended = condition("Degraded", SPEC, |_, seen| {
            let pod = "{metadata: {deletionTimestamp: '1970-01-01T00:00:00Z', ownerReferences: [{apiVersion: v1, kind: \
                       Job, name: x, uid: x}]}, spec: {nodeName: gone, containers: []}}";
            seen.pods.insert("midgard-v2-migrate-0-x".into(), serde_yaml::from_str(pod).expect("pod"));
        });
        assert_eq!(words(&unended), ["True", "PodsStuck"]);
        assert!(unended[2].contains("midgard-v2-migrate-0-x (node gone)"), "{unended:?}");
        let ready = condition("Ready", SPEC, stuck);
        assert_eq!(ready[2], "the world is served and ticks; Degraded tells what is wrong (PodsStuck)");
    }

    #[test]
    fn an_annotation_that_fits_nothing_is_told_beside_what_else_is_wrong() {
        let found = condition("Degraded", SPEC, |plan, seen| {
            plan.asked.back_to = Some(7);
            seen.apart = vec!["midgard-shard-0-1".into()];
        });
        assert_eq!(words(&found), ["True", "NotInSync"]);
        assert!(found[2].contains("rollback=v7 fits nothing"), "{found:?}");
        let alone = condition("Degraded", SPEC, |plan, _| plan.asked.back_to = Some(7));
        assert_eq!(words(&alone), ["True", "UnknownAnnotation"]);
    }

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
    fn what_waits_is_told_beside_the_bar_and_while_keys_are_carried_the_bar_says_all() {
        let told = |phase| {
            let message = Some("approve".into());
            super::told(&Rebalance { phase, message, ..Rebalance::default() })
        };
        assert_eq!(told(Phase::Planned), "v0→v0, 0→0 shards  Planned: approve");
        assert_eq!(told(Phase::Copying), "v0→v0, 0→0 shards  Copying");
    }
}
