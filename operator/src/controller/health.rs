//! Whether what should run does: pods that cannot start or do not end, replicas that do not follow, a tick that stands still. Knows
//! what was seen, not what is done about it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use super::authority::primary_of;
use super::validate::Plan;
use crate::build::names::GroupId;
use crate::crd::status::FortiaClusterStatus;
use crate::failover::state::{Node, Role};

/// A replica that restarts is away for a moment; only what lasts longer is told.
const AWAY: Duration = Duration::from_secs(15);
/// A pod that has not ended so long after it had to does not end by itself.
const OVERDUE: Duration = Duration::from_secs(60);
/// So many pods are named.
const NAMED: usize = 3;
/// A container that ended so often and is not ready crashes in a loop, also in the moments in which it runs.
const CRASHES: i32 = 3;

/// How long the same tick may be seen: three periods, two looks of the operator, and a moment for whoever restarts.
pub(super) fn patience(period_ms: u64) -> Duration {
    Duration::from_millis(period_ms * 3) + Duration::from_secs(10)
}

/// Whether the tick stands still. `known`: a tick and when it was first seen, if any was; `was`: what status said of it
/// before, by which an operator that has just begun goes until it has looked for long enough itself.
pub(super) fn stalled(
    known: Option<(u64, Instant)>,
    was: &FortiaClusterStatus,
    tick: u64,
    now: Instant,
    patience: Duration,
) -> bool {
    let told = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "Ready" && c.reason == "TickStalled"
    };
    match known {
        Some((last, _)) if last != tick => false,
        Some((_, since)) if now.duration_since(since) > patience => true,
        _ => was.tick == Some(tick) && was.conditions.iter().any(|c| told(&c)),
    }
}

/// Why nothing ticks the world or serves it, when that is what the spec asks for: a reason and a message.
pub(super) fn unserved(plan: &Plan) -> Option<(&'static str, String)> {
    let parts = [
        ("scheduler", plan.scheduler.replicas, "TickStalled", "the world stands still"),
        ("ticker", plan.ticker.replicas, "TickStalled", "the world stands still"),
        ("auth", plan.auth.replicas, "NoServers", "nobody can log in"),
        ("game", plan.game.replicas, "NoServers", "nobody can look at the world or play"),
    ];
    let (part, _, reason, what) = parts.into_iter().find(|(_, replicas, ..)| *replicas == 0)?;
    Some((reason, format!("spec.{part}.replicas is 0: {what} until it is 1 or more")))
}

/// Replicas of serving groups that are not up or do not follow the recorded primary.
pub(super) fn apart(
    plan: &Plan,
    status: &FortiaClusterStatus,
    nodes: &BTreeMap<GroupId, Vec<Node>>,
) -> Vec<String> {
    let follows = |node: &Node| {
        node.seen.as_ref().is_some_and(|s| matches!(s.role, Role::ReplicaOf { link_up: true, .. }))
    };
    let groups = GroupId::all(status.layout.map_or(0, |layout| layout.shards));
    let replicas = groups.into_iter().flat_map(|group| {
        let primary = primary_of(plan, status, group);
        nodes.get(&group).into_iter().flatten().filter(move |node| node.pod != primary)
    });
    replicas.filter(|node| !follows(node)).map(|node| node.pod.clone()).collect()
}

/// Those of them that have been away for long; `since` remembers when each was first missed.
pub(super) fn lasting(since: &mut HashMap<String, Instant>, apart: Vec<String>, now: Instant) -> Vec<String> {
    since.retain(|pod, _| apart.contains(pod));
    let mut long = Vec::new();
    for pod in apart {
        if now.duration_since(*since.entry(pod.clone()).or_insert(now)) >= AWAY {
            long.push(pod);
        }
    }
    long
}

/// What people are told of replicas that are away.
pub(super) fn told_apart(apart: &[String]) -> Option<String> {
    (!apart.is_empty()).then(|| {
        format!(
            "replicas are not up or do not follow their primary: {}; ticks wait for those of shards until they are back",
            named(apart)
        )
    })
}

/// Pods that will not start without somebody's help: a message with their names and why.
pub(super) fn stuck(pods: &BTreeMap<String, Pod>) -> Option<String> {
    let here = pods.iter().filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
    let stuck: Vec<String> = here.filter_map(|(name, pod)| Some(format!("{name} ({})", why(pod)?))).collect();
    (!stuck.is_empty()).then(|| {
        format!(
            "pods cannot start: {}; `kubectl describe pod` and `kubectl logs --previous` of them tell more",
            named(&stuck)
        )
    })
}

/// Pods that should have ended a while ago and have not: a message with their names and nodes. Only those whose place nobody
/// takes before they have: a Deployment's are replaced.
pub(super) fn unended(pods: &BTreeMap<String, Pod>, now: Timestamp) -> Option<String> {
    let waited_for = |pod: &Pod| {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        owners.any(|owner| ["Job", "StatefulSet"].contains(&owner.kind.as_str()))
    };
    let overdue = |pod: &Pod| {
        // It has the time for its end in it already.
        let end = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second());
        end.is_some_and(|end| now.as_second() - end > OVERDUE.as_secs() as i64)
    };
    let late = pods.iter().filter(|(_, pod)| overdue(pod) && waited_for(pod));
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let late: Vec<String> = late.map(|(name, pod)| format!("{name} (node {})", node(pod))).collect();
    (!late.is_empty()).then(|| {
        format!(
            "pods do not end, as when their node is dead, and nobody takes their place before: {}; bring the node back \
             or, when it is gone for good, `kubectl delete node` it",
            named(&late)
        )
    })
}

fn named(all: &[String]) -> String {
    let more = all.len().saturating_sub(NAMED);
    let first = all[..all.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

/// Why a pod cannot start. The words are Kubernetes' own and stay the same from look to look: they become an event.
fn why(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().find_map(of_container)
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let said = || waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or("no message");
    match reason {
        // The two take turns, and what the registry says differs.
        "ErrImagePull" | "ImagePullBackOff" => Some(format!("ImagePullBackOff: {}", container.image)),
        "InvalidImageName" | "ErrImageNeverPull" => Some(format!("{reason}: {}", container.image)),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(format!("{reason}: {}", said()))
        }
        _ if reason == "CrashLoopBackOff" || (!container.ready && container.restart_count >= CRASHES) => {
            let states = [container.last_state.as_ref(), container.state.as_ref()];
            let last = states.into_iter().flatten().find_map(|state| state.terminated.as_ref())?;
            let word = last.reason.as_deref().filter(|word| *word != "Error").unwrap_or("it ended");
            Some(format!("CrashLoopBackOff: {word} with exit code {}", last.exit_code))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;
    use crate::crd::spec::Placement;
    use crate::crd::status::Layout;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    fn pod(name: &str, container: &str) -> (String, Pod) {
        let text = format!(
            "{{metadata: {{name: {name}}}, status: {{containerStatuses: [{{name: c, image: 'my:image', \
             imageID: '', ready: false, restartCount: 4, {container}}}]}}}}"
        );
        (name.into(), serde_yaml::from_str(&text).expect("pod"))
    }

    fn waiting(name: &str, reason: &str) -> (String, Pod) {
        let last = "lastState: {terminated: {exitCode: 3, reason: Error}}";
        pod(name, &format!("state: {{waiting: {{reason: {reason}, message: said}}}}, {last}"))
    }

    #[test]
    fn a_pod_that_cannot_start_is_named_with_the_word_kubernetes_has_for_it() {
        for (reason, told) in [
            ("InvalidImageName", "game-x (InvalidImageName: my:image)"),
            ("ErrImageNeverPull", "game-x (ErrImageNeverPull: my:image)"),
            ("ErrImagePull", "game-x (ImagePullBackOff: my:image)"),
            ("ImagePullBackOff", "game-x (ImagePullBackOff: my:image)"),
            ("CreateContainerConfigError", "game-x (CreateContainerConfigError: said)"),
            ("CrashLoopBackOff", "game-x (CrashLoopBackOff: it ended with exit code 3)"),
        ] {
            let message = stuck(&BTreeMap::from([waiting("game-x", reason)])).expect("stuck");
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn a_pod_that_crashes_is_told_the_same_way_while_it_runs_for_a_moment() {
        let last = "lastState: {terminated: {exitCode: 3, reason: Error}}";
        let runs = pod("a", &format!("state: {{running: {{}}}}, {last}"));
        assert_eq!(
            stuck(&BTreeMap::from([runs])),
            stuck(&BTreeMap::from([waiting("a", "CrashLoopBackOff")]))
        );
        let starts = pod("a", "state: {waiting: {reason: ContainerCreating}}");
        assert_eq!(stuck(&BTreeMap::from([starts])), None);
    }

    #[test]
    fn of_many_pods_that_cannot_start_three_are_named_and_the_rest_counted() {
        let all = BTreeMap::from(["a", "b", "c", "d", "e"].map(|name| waiting(name, "InvalidImageName")));
        let message = stuck(&all).expect("stuck");
        assert!(
            message.contains("c (") && !message.contains("d (") && message.contains("and 2 more"),
            "{message}"
        );
    }

    #[test]
    fn a_pod_that_does_not_end_is_told_with_its_node_where_somebody_waits_for_it() {
        let pod = |owner: &str, end: &str| {
            let text = format!(
                "{{metadata: {{deletionTimestamp: '{end}', ownerReferences: [{{apiVersion: v1, kind: {owner}, name: x, \
                 uid: x}}]}}, spec: {{nodeName: worker-2, containers: []}}}}"
            );
            serde_yaml::from_str::<Pod>(&text).expect("pod")
        };
        let told = |owner: &str, end: &str| {
            let pods = BTreeMap::from([("midgard-v2-migrate-0-x".to_owned(), pod(owner, end))]);
            unended(&pods, "2026-01-01T00:02:00Z".parse().expect("time"))
        };
        for owner in ["Job", "StatefulSet"] {
            let message = told(owner, "2026-01-01T00:00:59Z").expect("told");
            assert!(message.contains("midgard-v2-migrate-0-x (node worker-2)"), "{message}");
            assert!(message.ends_with("`kubectl delete node` it"), "{message}");
        }
        assert_eq!(told("Job", "2026-01-01T00:01:30Z"), None, "it may still end");
        assert_eq!(told("ReplicaSet", "2026-01-01T00:00:00Z"), None, "it has been replaced");
        assert_eq!(unended(&BTreeMap::from([waiting("a", "x")]), Timestamp::now()), None);
    }

    #[test]
    fn a_part_that_is_scaled_to_zero_keeps_the_world_from_being_served() {
        let told =
            |spec: &str| unserved(&example(spec)).map(|(reason, message)| (reason, message.contains("is 0")));
        assert_eq!(told("redisShards: 1"), None);
        assert_eq!(told("{redisShards: 1, logserver: {replicas: 0}}"), None, "logs stay where they are");
        for (part, reason) in [
            ("scheduler", "TickStalled"),
            ("ticker", "TickStalled"),
            ("auth", "NoServers"),
            ("game", "NoServers"),
        ] {
            let spec = format!("{{redisShards: 1, {part}: {{replicas: 0}}}}");
            assert_eq!(told(&spec), Some((reason, true)), "{part}");
        }
    }

    #[test]
    fn a_tick_that_is_the_same_for_long_stands_still_and_a_new_operator_believes_what_was_told() {
        let (begun, patience) = (Instant::now(), patience(1_000));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut was = FortiaClusterStatus { tick: Some(7), ..FortiaClusterStatus::default() };
        assert!(!stalled(Some((7, begun)), &was, 7, at(13), patience));
        assert!(stalled(Some((7, begun)), &was, 7, at(14), patience));
        assert!(!stalled(Some((7, begun)), &was, 8, at(14), patience));
        assert!(!stalled(None, &was, 7, begun, patience));
        was.conditions.push(Condition {
            type_: "Ready".into(),
            status: "False".into(),
            reason: "TickStalled".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::from_second(0).expect("time")),
        });
        assert!(stalled(None, &was, 7, begun, patience));
        assert!(!stalled(None, &was, 8, begun, patience));
    }

    #[test]
    fn a_replica_that_is_away_is_named_once_that_lasts() {
        let plan = example("redisShards: 1");
        let layout = Some(Layout { version: 1, shards: 1, placement: Placement::Modulo });
        let status = FortiaClusterStatus { layout, ..FortiaClusterStatus::default() };
        let node = |pod: &str| Node { pod: pod.into(), uid: None, seen: None };
        let nodes =
            |group: &str| vec![node(&format!("midgard-{group}-0")), node(&format!("midgard-{group}-1"))];
        let seen = BTreeMap::from([
            (GroupId::Shard(0), nodes("shard-0")),
            (GroupId::Control, nodes("control-db")),
            (GroupId::Shard(1), nodes("shard-1")),
        ]);
        let away = apart(&plan, &status, &seen);
        assert_eq!(
            away,
            ["midgard-control-db-1", "midgard-shard-0-1"],
            "no primary, no shard that serves nothing"
        );
        let (mut since, begun) = (HashMap::new(), Instant::now());
        let mut after = |apart: &[String], seconds| {
            lasting(&mut since, apart.to_vec(), begun + Duration::from_secs(seconds))
        };
        assert_eq!(after(&away, 0), [""; 0]);
        assert_eq!(after(&away, 14), [""; 0]);
        assert_eq!(after(&away[..1], 15), away[..1]);
        assert_eq!(after(&away, 16), away[..1], "the other was back in between");
        let message = told_apart(&away).expect("told");
        assert!(message.contains("midgard-control-db-1, midgard-shard-0-1"), "{message}");
    }
}
