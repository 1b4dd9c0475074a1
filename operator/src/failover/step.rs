//! What to do next with a Redis group: a pure function of what was decided and what is seen. An empty server is
//! never promoted over data, and nobody but the recorded primary is promoted at all.

use super::state::{Guard, Node, Role, Seen};
use crate::build::names::{GroupId, INSTANCE, Names};
use crate::crd::status;

/// So many keys more or less are what expires and what was written a moment ago.
const FEW_KEYS: u64 = 50;

/// The next step for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done yet.
    Wait(String),
    /// Decide on this pod as the first primary.
    Record(String),
    /// Make the recorded primary one; `first`: it may be empty.
    Admit {
        /// Its pod.
        pod: String,
        /// It has never been admitted.
        first: bool,
    },
    /// Remember that it is admitted, and which run of it.
    Confirm {
        /// Uid of its pod.
        uid: Option<String>,
        /// Its run.
        run_id: String,
    },
    /// Let these pods follow the primary.
    Attach(Vec<String>),
    /// All is as decided.
    Settled,
    /// A human is needed, or patience.
    Degraded {
        /// One word.
        reason: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Decides the next step for `group` of the cluster with this uid.
pub fn next(
    names: &Names,
    uid: &str,
    group: GroupId,
    authority: Option<&status::Group>,
    nodes: &[Node],
) -> Step {
    match authority {
        None => first_primary(names, group, nodes),
        Some(authority) => {
            let Some(node) = nodes.iter().find(|node| node.pod == authority.primary) else {
                return degraded(
                    "PrimaryDown",
                    format!("{}: the recorded primary {} is gone", group, authority.primary),
                );
            };
            let others: Vec<&Node> = nodes.iter().filter(|n| n.pod != authority.primary).collect();
            match (&node.seen, authority.state) {
                (None, status::GroupState::Admitting) => {
                    Step::Wait(format!("{group}: {} does not answer yet", node.pod))
                }
                (None, status::GroupState::Admitted) => degraded(
                    "PrimaryDown",
                    format!(
                        "{group}: primary {} does not answer; {} until it is back",
                        node.pod,
                        without(group)
                    ),
                ),
                (Some(seen), _) if seen.loading => {
                    Step::Wait(format!("{group}: {} reads its disk", node.pod))
                }
                (Some(seen), state) => with_primary(names, uid, group, authority, state, node, seen, &others),
            }
        }
    }
}

/// What goes on and what does not while a group is away.
const fn without(group: GroupId) -> &'static str {
    match group {
        GroupId::Auth => {
            "nobody can log in, register or begin to play, and orders of players whose session is not known are refused; the world ticks on"
        }
        GroupId::Control => "no tick is committed: the world is paused",
        GroupId::Shard(_) => {
            "where it serves, no tick is committed: the world is paused, and what is on it cannot be seen"
        }
    }
}

/// What to do with volumes that nobody knows: all of a cluster's, because those of one world belong together.
fn begin_anew(names: &Names) -> String {
    format!(
        "restore the status that belongs to it; or, to give that world up, `kubectl -n {0} delete fortiacluster {1}`, then \
         `kubectl -n {0} delete pvc -l {INSTANCE}={1}` (move the volumes away first if you want to keep them), then apply it again",
        names.namespace, names.cluster
    )
}

fn first_primary(names: &Names, group: GroupId, nodes: &[Node]) -> Step {
    for node in nodes {
        let Some(seen) = &node.seen else {
            return Step::Wait(format!("{group}: {} does not answer yet", node.pod));
        };
        if seen.loading {
            return Step::Wait(format!("{group}: {} reads its disk", node.pod));
        }
        if seen.keys > 0 {
            let whose = seen
                .guard
                .as_ref()
                .map_or("nobody's".into(), |g| format!("of cluster {}, {}", g.uid, g.group));
            return degraded(
                "UnknownData",
                format!(
                    "{group}: the volume of {} already holds data ({whose}): {}",
                    node.pod,
                    begin_anew(names)
                ),
            );
        }
    }
    match nodes.first() {
        Some(node) => Step::Record(node.pod.clone()),
        None => Step::Wait(format!("{group}: no pods yet")),
    }
}

#[expect(clippy::too_many_arguments, reason = "one decision over all that is known")]
fn with_primary(
    names: &Names,
    uid: &str,
    group: GroupId,
    authority: &status::Group,
    state: status::GroupState,
    node: &Node,
    seen: &Seen,
    others: &[&Node],
) -> Step {
    let first = state == status::GroupState::Admitting;
    match &seen.guard {
        Some(guard) if !is_ours(guard, uid, group) => {
            return degraded(
                "ForeignData",
                format!(
                    "{group}: {} holds data of cluster {}, {}; it is left alone",
                    node.pod, guard.uid, guard.group
                ),
            );
        }
        None if !first || seen.keys > 0 => {
            return degraded(
                "DataMissing",
                format!(
                    "{group}: {} came back without its data; restore its volume (nothing was overwritten)",
                    node.pod
                ),
            );
        }
        _ => {}
    }
    if let Some(ahead) = others.iter().find(|other| is_ahead(other, seen)) {
        return degraded(
            "DataBehind",
            format!("{group}: {} has older data than {}; both are left as they are", node.pod, ahead.pod),
        );
    }
    match (&seen.role, &seen.guard) {
        (Role::Primary, Some(_)) => {
            let known = authority.run_id.as_deref() == Some(seen.run_id.as_str());
            if known && !first { attach(names, uid, group, node, seen, others) } else { confirm(node, seen) }
        }
        (Role::ReplicaOf { host, .. }, _) => {
            degraded("RoleConflict", format!("{group}: recorded primary {} follows {host}", node.pod))
        }
        _ => Step::Admit { pod: node.pod.clone(), first },
    }
}

fn confirm(node: &Node, seen: &Seen) -> Step {
    Step::Confirm { uid: node.uid.clone(), run_id: seen.run_id.clone() }
}

fn attach(names: &Names, uid: &str, group: GroupId, primary: &Node, leads: &Seen, others: &[&Node]) -> Step {
    let host = names.host(group, &primary.pod);
    let mut pods = Vec::new();
    for other in others {
        let Some(seen) = &other.seen else { continue };
        if seen.loading || matches!(&seen.role, Role::ReplicaOf { host: of, .. } if *of == host) {
            continue;
        }
        let foreign = match &seen.guard {
            Some(guard) => !is_ours(guard, uid, group),
            None => seen.keys > 0,
        };
        if foreign || seen.role == Role::Primary {
            return degraded(
                "ForeignData",
                format!(
                    "{group}: {} holds data that is not of this group; it is not made a replica",
                    other.pod
                ),
            );
        }
        if !missed_a_re_sharding(seen, leads) && has_more(seen, leads) {
            return degraded(
                "DataBehind",
                format!(
                    "{group}: {} holds data that its primary {} lacks; it is not made a replica, which would wipe it: restore the primary from it, or remove its PersistentVolumeClaim",
                    other.pod, primary.pod
                ),
            );
        }
        pods.push(other.pod.clone());
    }
    if pods.is_empty() { Step::Settled } else { Step::Attach(pods) }
}

fn is_ours(guard: &Guard, uid: &str, group: GroupId) -> bool {
    guard.uid == uid && guard.group == group.to_string() && guard.index == group.index()
}

/// Whether `other` has data that a primary which came back lacks: by the guard, or by far more keys.
fn is_ahead(other: &Node, primary: &Seen) -> bool {
    // A live primary's replica is read a moment after it and may look newer.
    let (Some(seen), false) = (&other.seen, primary.role == Role::Primary) else { return false };
    has_more(seen, primary)
}

fn has_more(other: &Seen, primary: &Seen) -> bool {
    let newer = match (&other.guard, &primary.guard) {
        (Some(other), Some(own)) => other.watermark > own.watermark,
        (other, _) => other.is_some(),
    };
    newer || other.keys > primary.keys + (primary.keys / 10).max(FEW_KEYS)
}

/// Whether the server's topology is older than the primary's: it may still hold a version that was unlinked since,
/// so how many keys it has means nothing.
fn missed_a_re_sharding(other: &Seen, primary: &Seen) -> bool {
    matches!((&other.guard, &primary.guard), (Some(other), Some(own)) if other.watermark.epoch < own.watermark.epoch)
}

fn degraded(reason: &'static str, message: String) -> Step {
    Step::Degraded { reason, message }
}

#[cfg(test)]
mod tests {
    use super::super::state::Watermark;
    use super::*;
    use crate::crd::status::GroupState;

    const GROUP: GroupId = GroupId::Shard(0);

    fn names() -> Names {
        Names { cluster: "midgard".into(), namespace: "worlds".into() }
    }

    fn guard(tick_epoch: u64) -> Guard {
        let watermark = Watermark { epoch: 1, tick_epoch, ..Watermark::default() };
        Guard { uid: "u".into(), group: "shard-0".into(), index: 0, watermark }
    }

    fn node(ordinal: i32, seen: Option<Seen>) -> Node {
        Node { pod: names().pod(GROUP, ordinal), uid: Some(format!("pod-{ordinal}")), seen }
    }

    fn seen(role: Role, keys: u64, guard: Option<Guard>) -> Option<Seen> {
        Some(Seen {
            run_id: "run-1".into(),
            role,
            loading: false,
            keys,
            used_memory: 0,
            idle_memory: 0,
            file_size: 0,
            guard,
        })
    }

    fn authority(state: GroupState) -> status::Group {
        status::Group {
            name: "shard-0".into(),
            primary: "midgard-shard-0-0".into(),
            run_id: Some("run-1".into()),
            state,
            ..status::Group::default()
        }
    }

    fn decide(authority: Option<&status::Group>, nodes: &[Node]) -> Step {
        next(&names(), "u", GROUP, authority, nodes)
    }

    fn reason(step: Step) -> &'static str {
        match step {
            Step::Degraded { reason, .. } => reason,
            other => panic!("not degraded: {other:?}"),
        }
    }

    #[test]
    fn a_new_group_is_recorded_before_it_is_admitted() {
        let nodes = [node(0, seen(Role::Fenced, 0, None)), node(1, seen(Role::Fenced, 0, None))];
        assert_eq!(decide(None, &nodes), Step::Record("midgard-shard-0-0".into()));
        let recorded = authority(GroupState::Admitting);
        assert_eq!(
            decide(Some(&recorded), &nodes),
            Step::Admit { pod: "midgard-shard-0-0".into(), first: true }
        );
    }

    #[test]
    fn nobody_is_recorded_while_a_server_does_not_answer() {
        let nodes = [node(0, seen(Role::Fenced, 0, None)), node(1, None)];
        assert!(matches!(decide(None, &nodes), Step::Wait(_)));
    }

    #[test]
    fn an_empty_server_is_not_recorded_beside_one_with_data() {
        let nodes = [node(0, seen(Role::Fenced, 0, None)), node(1, seen(Role::Fenced, 9, Some(guard(1))))];
        assert_eq!(reason(decide(None, &nodes)), "UnknownData");
    }

    #[test]
    fn volumes_of_another_world_are_refused_with_all_that_is_to_be_done() {
        let Step::Degraded { message, .. } = decide(None, &[node(0, seen(Role::Fenced, 9, None))]) else {
            panic!("data of nobody")
        };
        let delete = message.find("kubectl -n worlds delete fortiacluster midgard");
        let claims = message.find("delete pvc -l app.kubernetes.io/instance=midgard");
        assert!(delete.is_some() && delete < claims && message.ends_with("then apply it again"), "{message}");
    }

    #[test]
    fn what_stands_still_without_a_primary_is_told_by_group() {
        let told = |group: GroupId| {
            let primary = names().pod(group, 0);
            let nodes = [Node { pod: primary.clone(), uid: None, seen: None }];
            let admitted = status::Group { primary, ..authority(GroupState::Admitted) };
            match next(&names(), "u", group, Some(&admitted), &nodes) {
                Step::Degraded { message, .. } => message,
                other => panic!("{other:?}"),
            }
        };
        assert!(told(GroupId::Auth).contains("the world ticks on"));
        assert!(told(GroupId::Control).contains("the world is paused"));
        assert!(told(GroupId::Shard(0)).contains("the world is paused"));
    }

    #[test]
    fn an_admitted_primary_is_confirmed_with_its_run() {
        let nodes = [node(0, seen(Role::Primary, 1, Some(guard(1))))];
        let step = decide(Some(&authority(GroupState::Admitting)), &nodes);
        assert_eq!(step, Step::Confirm { uid: Some("pod-0".into()), run_id: "run-1".into() });
    }

    #[test]
    fn a_primary_that_restarted_with_its_data_is_admitted_again() {
        let nodes = [node(0, seen(Role::Fenced, 5, Some(guard(1))))];
        let step = decide(Some(&authority(GroupState::Admitted)), &nodes);
        assert_eq!(step, Step::Admit { pod: "midgard-shard-0-0".into(), first: false });
    }

    #[test]
    fn a_primary_that_restarted_empty_is_never_admitted() {
        let replica = node(1, seen(Role::Fenced, 5, Some(guard(1))));
        let nodes = [node(0, seen(Role::Fenced, 0, None)), replica];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "DataMissing");
    }

    #[test]
    fn a_primary_that_restarted_behind_its_replica_is_not_admitted() {
        let nodes =
            [node(0, seen(Role::Fenced, 5, Some(guard(1)))), node(1, seen(Role::Fenced, 5, Some(guard(2))))];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "DataBehind");
    }

    #[test]
    fn a_primary_that_restarted_with_far_fewer_keys_than_its_replica_is_not_admitted() {
        let nodes = [
            node(0, seen(Role::Fenced, 5, Some(guard(1)))),
            node(1, seen(Role::Fenced, 500, Some(guard(1)))),
        ];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "DataBehind");
    }

    #[test]
    fn data_of_another_cluster_is_left_alone() {
        let foreign = Guard { uid: "other".into(), ..guard(1) };
        let nodes = [node(0, seen(Role::Fenced, 5, Some(foreign)))];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "ForeignData");
    }

    #[test]
    fn no_other_server_is_promoted_when_the_primary_is_down() {
        let nodes = [node(0, None), node(1, seen(Role::Fenced, 5, Some(guard(1))))];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "PrimaryDown");
    }

    #[test]
    fn a_fenced_server_becomes_a_replica_and_then_all_is_settled() {
        let primary = node(0, seen(Role::Primary, 5, Some(guard(1))));
        let admitted = authority(GroupState::Admitted);
        let step = decide(Some(&admitted), &[primary.clone(), node(1, seen(Role::Fenced, 0, None))]);
        assert_eq!(step, Step::Attach(vec!["midgard-shard-0-1".into()]));
        let host = names().host(GROUP, "midgard-shard-0-0");
        let replica = node(1, seen(Role::ReplicaOf { host, link_up: true }, 5, Some(guard(1))));
        assert_eq!(decide(Some(&admitted), &[primary, replica]), Step::Settled);
    }

    #[test]
    fn a_replica_that_answers_only_after_the_primary_was_admitted_is_not_wiped_if_it_has_more() {
        let admitted = authority(GroupState::Admitted);
        let primary = node(0, seen(Role::Primary, 5, Some(guard(7))));
        assert_eq!(decide(Some(&admitted), &[primary.clone(), node(1, None)]), Step::Settled);
        let newer = node(1, seen(Role::Fenced, 5, Some(guard(8))));
        assert_eq!(reason(decide(Some(&admitted), &[primary.clone(), newer])), "DataBehind");
        // The primary's ticks went on, but it had lost keys before.
        let fuller = node(1, seen(Role::Fenced, 500, Some(guard(6))));
        assert_eq!(reason(decide(Some(&admitted), &[primary.clone(), fuller])), "DataBehind");
        let elsewhere = Role::ReplicaOf { host: "elsewhere".into(), link_up: false };
        let follows = node(1, seen(elsewhere, 500, Some(guard(6))));
        assert_eq!(reason(decide(Some(&admitted), &[primary, follows])), "DataBehind");
    }

    #[test]
    fn a_primary_that_forgot_commits_is_older_whatever_was_raised_on_it_since() {
        let told =
            |parts, guard: Guard| Some(Guard { watermark: Watermark { parts, ..guard.watermark }, ..guard });
        let admitted = authority(GroupState::Admitted);
        let forgot = node(0, seen(Role::Primary, 5, told(40, guard(9))));
        let remembers = node(1, seen(Role::Fenced, 5, told(41, guard(8))));
        assert_eq!(reason(decide(Some(&admitted), &[forgot, remembers])), "DataBehind");
    }

    #[test]
    fn a_replica_that_was_away_while_a_version_was_unlinked_is_attached_with_its_many_old_keys() {
        let later = Guard { watermark: Watermark { epoch: 2, ..guard(9).watermark }, ..guard(9) };
        let nodes =
            [node(0, seen(Role::Primary, 5, Some(later))), node(1, seen(Role::Fenced, 500, Some(guard(8))))];
        let step = decide(Some(&authority(GroupState::Admitted)), &nodes);
        assert_eq!(step, Step::Attach(vec!["midgard-shard-0-1".into()]));
    }

    #[test]
    fn a_server_with_unknown_data_is_not_made_a_replica() {
        let nodes = [node(0, seen(Role::Primary, 5, Some(guard(1)))), node(1, seen(Role::Fenced, 7, None))];
        assert_eq!(reason(decide(Some(&authority(GroupState::Admitted)), &nodes)), "ForeignData");
    }
}
