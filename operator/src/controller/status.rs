//! What people see: phase, conditions, tick. Pure, but for writing it with the version that was read.

use std::time::{Duration, Instant};

use fortia_common::records::ForgottenRecord;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use super::Context;
use super::annotations::ACCEPT_LOSS;
use super::decide::Decision;
use super::observe::Observed;
use super::reconcile::Error;
use super::validate::{Invalid, Plan};
use super::{events, fitting, health};
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

/// All that is wrong: the reason is that of the first, the message has them all.
fn degraded(plan: &Plan, seen: &Observed, decision: &Decision, refused: Option<&Error>) -> Verdict {
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
    all.extend(health::stuck(&seen.pods).map(|message| ("PodsStuck", message)));
    // A re-sharding that waits for them has said so already.
    if all.iter().all(|(reason, _)| *reason != "NotInSync") {
        all.extend(health::told_apart(&seen.apart).map(|message| ("NotInSync", message)));
    }
    let unread = plan.asked.unread.clone().or_else(|| fitting::misfit(plan, &decision.next));
    all.extend(unread.map(|message| ("UnknownAnnotation", message)));
    all
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
    for between in events::passed(old, next) {
        events.push((EventType::Normal, between.phase.as_str().to_owned(), told(&between)));
    }
    if old.phase != next.phase {
        let note = next
            .rebalance
            .as_ref()
            .map_or_else(|| format!("{} shards, v{}: {}", next.shards, next.version, word(next)), told);
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
    if let Some(now) = reason(next).filter(|now| {
        reason(old).is_none_or(|was| was.reason != now.reason || events::differs(&was.message, &now.message))
    }) {
        tracing::warn!(
            cluster = cluster.name_any(),
            reason = now.reason,
            message = now.message,
            "cluster degraded"
        );
        events.push((EventType::Warning, now.reason, now.message));
    }
    for (type_, reason, note) in events {
        let (action, note) = (events::action(&note), Some(events::note(&note)));
        let event = Event { type_, reason, note, action, secondary: None };
        if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::debug!(%error, "event lost");
        }
    }
}

/// What Ready says.
fn word(status: &FortiaClusterStatus) -> &str {
    status.conditions.iter().find(|c| c.type_ == "Ready").map_or("", |c| c.message.as_str())
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
    use crate::controller::authority::topology;
    use crate::controller::decide::{decide, tests as cluster};
    use crate::controller::validate::example;
    use crate::crd::rebalance::Cutover;
    use crate::crd::status::Load;
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
