//! Tells people what changed between two statuses: as events, which may be lost, and in the log.

use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use super::conditions::told;
use super::{Context, events};
use crate::build::names::GroupId;
use crate::crd::spec::FortiaCluster;
use crate::crd::status::FortiaClusterStatus;

/// Tells what changed as events; they may be lost.
pub(super) async fn publish(
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
    use crate::crd::rebalance::{Cutover, Phase, Rebalance};

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
}
