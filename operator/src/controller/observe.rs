//! Looks at everything a decision needs: owned objects, Redis servers, records of the control database. Read only.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::records::{self, Records};
use super::rights::Given;
use super::validate::{Plan, bytes};
use super::{Context, authority, health};
use crate::build::names::{GROUP, GroupId, INSTANCE, REDIS_PORT};
use crate::build::secrets::Passwords;
use crate::controller::reconcile::Error;
use crate::crd::status::{FortiaClusterStatus, GroupState};
use crate::failover::redis::Target;
use crate::failover::state::{Node, Role};
use crate::rebalance::phase::{Surplus, SurplusState};

/// How long a scan for keys of a version is good.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// All that was seen in one pass.
pub(super) struct Observed {
    pub(super) sets: BTreeMap<String, StatefulSet>,
    pub(super) deployments: BTreeMap<String, Deployment>,
    pub(super) jobs: BTreeMap<String, Job>,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) passwords: Option<Passwords>,
    pub(super) nodes: BTreeMap<GroupId, Vec<Node>>,
    pub(super) targets: BTreeMap<String, Target>,
    pub(super) records: Option<Records>,
    pub(super) surplus: Vec<Surplus>,
    /// Sizes of the shards' volumes in bytes, by pod; looked at before a plan is accepted.
    pub(super) volumes: BTreeMap<String, u64>,
    /// Keys of the planned version on the serving shards; looked at before a plan is accepted.
    pub(super) leftovers: Option<u64>,
    /// Shards that only the layout that goes has, lost with their volumes; looked at while that layout is cleaned away.
    pub(super) lost: Vec<u32>,
    /// Rights given to servers.
    pub(super) rights: Given,
    /// Whether the tick stood still for long.
    pub(super) stalled: bool,
    /// Replicas of serving groups that have not followed their primary for long.
    pub(super) apart: Vec<String>,
    pub(super) now: Timestamp,
}

/// Looks at a cluster.
pub(super) async fn observe(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
) -> Result<Observed, Error> {
    let namespace = &plan.names.namespace;
    let passwords = passwords(context, plan).await?;
    let (sets, deployments, jobs, pods) = tokio::try_join!(
        all::<StatefulSet>(context, plan),
        all::<Deployment>(context, plan),
        all::<Job>(context, plan),
        all::<Pod>(context, plan),
    )?;
    let targets: BTreeMap<String, Target> =
        pods.iter().filter_map(|(name, pod)| Some((name.clone(), target(pod)?))).collect();
    let mut seen = Observed {
        sets,
        deployments,
        jobs,
        pods,
        passwords,
        nodes: BTreeMap::new(),
        targets,
        records: None,
        surplus: Vec::new(),
        volumes: BTreeMap::new(),
        leftovers: None,
        lost: Vec::new(),
        rights: Given::default(),
        stalled: false,
        apart: Vec::new(),
        now: Timestamp::now(),
    };
    let Some(passwords) = seen.passwords.clone() else { return Ok(seen) };
    seen.nodes = nodes(context, plan, status, &seen.targets, &passwords).await;
    if let Some(target) = control_primary(status, &seen) {
        match context.redis.connect(target, &passwords).await {
            Ok(open) => match records::read(open, status).await {
                Ok(records) => seen.records = Some(records),
                Err(error) => {
                    tracing::warn!(cluster = plan.names.cluster, %error, "the control database cannot be read");
                    context.redis.forget(target).await;
                }
            },
            Err(error) => {
                tracing::warn!(cluster = plan.names.cluster, %error, "the control database is out of reach")
            }
        }
    }
    if authority::leaving(status) {
        seen.surplus = surplus(context, plan, status, &seen, &passwords, namespace).await?;
    }
    if !authority::left_over(status).is_empty() {
        seen.lost = lost(context, plan, status, &seen).await?;
    }
    if let Some(planned) = authority::planned(status) {
        seen.volumes = volumes(context, plan).await?;
        seen.leftovers = leftovers(context, plan, status, &seen, &passwords, planned).await;
    }
    remembered(context, plan, status, &mut seen).await;
    Ok(seen)
}

async fn all<K>(context: &Context, plan: &Plan) -> Result<BTreeMap<String, K>, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mine = ListParams::default().labels(&format!("{INSTANCE}={}", plan.names.cluster));
    let list = context.api::<K>(&plan.names.namespace).list(&mine).await?;
    Ok(list.into_iter().map(|object| (object.name_any(), object)).collect())
}

async fn passwords(context: &Context, plan: &Plan) -> Result<Option<Passwords>, Error> {
    let api = context.api::<Secret>(&plan.names.namespace);
    let Some(secret) = api.get_opt(&plan.names.passwords()).await? else { return Ok(None) };
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let name = plan.names.passwords();
    Passwords::parse(&data).map(Some).map_err(|user| Error::Password { secret: name, user })
}

/// A pod that runs a Redis server one can try to reach.
fn target(pod: &Pod) -> Option<Target> {
    pod.labels().get(GROUP)?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let running = status.phase.as_deref() == Some("Running");
    let ip = status.pod_ip.clone().filter(|ip| running && !ip.is_empty())?;
    Some(Target { pod: pod.name_any(), uid: pod.uid()?, ip, port: REDIS_PORT })
}

async fn nodes(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    targets: &BTreeMap<String, Target>,
    passwords: &Passwords,
) -> BTreeMap<GroupId, Vec<Node>> {
    let looks = authority::groups(status).into_iter().map(|group| async move {
        let nodes = (0..plan.redis.nodes).map(|ordinal| async move {
            let pod = plan.names.pod(group, ordinal);
            let Some(target) = targets.get(&pod) else { return Node { pod, uid: None, seen: None } };
            let seen = context.redis.see(target, passwords).await;
            if let Err(error) = &seen {
                tracing::debug!(%error, "redis server does not answer");
            }
            Node { pod, uid: Some(target.uid.clone()), seen: seen.ok() }
        });
        (group, join_all(nodes).await)
    });
    join_all(looks).await.into_iter().collect()
}

/// The control database's primary, if it is the recorded one and has been admitted in this run.
pub(super) fn control_primary<'a>(status: &FortiaClusterStatus, seen: &'a Observed) -> Option<&'a Target> {
    let group = status.groups.iter().find(|g| g.name == GroupId::Control.to_string())?;
    let node = seen.nodes.get(&GroupId::Control)?.iter().find(|n| n.pod == group.primary)?;
    let server = node.seen.as_ref()?;
    let admitted =
        group.state == GroupState::Admitted && server.role == Role::Primary && server.guard.is_some();
    admitted.then(|| seen.targets.get(&node.pod)).flatten()
}

/// Groups that are to leave and have not left, each looked at live.
async fn surplus(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    namespace: &str,
) -> Result<Vec<Surplus>, Error> {
    let mut surplus = Vec::new();
    for group in authority::surplus(status, seen.sets.keys(), &plan.names) {
        let claims =
            ListParams::default().labels(&format!("{INSTANCE}={},{GROUP}={group}", plan.names.cluster));
        let claims = context.api::<PersistentVolumeClaim>(namespace).list(&claims).await?.items;
        let set =
            seen.sets.get(&plan.names.of(group)).filter(|set| set.metadata.deletion_timestamp.is_none());
        let pods = seen.pods.values().any(|pod| pod.labels().get(GROUP) == Some(&group.to_string()));
        if set.is_none() && claims.is_empty() && !pods {
            continue;
        }
        let state = match set {
            None => SurplusState::Going,
            Some(_) => holds(context, plan, status, seen, passwords, group, &claims).await,
        };
        surplus.push(Surplus { group, state });
    }
    Ok(surplus)
}

/// Shards that only the layout that goes has, and of which nothing is left.
async fn lost(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
) -> Result<Vec<u32>, kube::Error> {
    let claims = all::<PersistentVolumeClaim>(context, plan).await?;
    let mut lost = Vec::new();
    for (group, primary) in authority::left_over(status) {
        let node = seen.nodes.get(&group).and_then(|nodes| nodes.iter().find(|node| node.pod == primary));
        let claim = claims.get(&format!("data-{primary}"));
        if let (GroupId::Shard(index), true) = (group, is_lost(node, claim)) {
            lost.push(index);
        }
    }
    Ok(lost)
}

/// Whether an admitted server has lost its volume: it came back without a key and without its guard, which was on disk
/// before it was called admitted; or it cannot come back, and Kubernetes says that its volume is gone. One that merely
/// does not answer is waited for.
fn is_lost(node: Option<&Node>, claim: Option<&PersistentVolumeClaim>) -> bool {
    match node.and_then(|node| node.seen.as_ref()) {
        Some(seen) => !seen.loading && seen.keys == 0 && seen.guard.is_none(),
        None => claim.is_some_and(is_gone),
    }
}

/// Whether a claim's volume does not exist any more, and all that was on it neither.
fn is_gone(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost")
}

/// How large each pod's volume is by now: it may have grown since it was made.
async fn volumes(context: &Context, plan: &Plan) -> Result<BTreeMap<String, u64>, kube::Error> {
    let claims = all::<PersistentVolumeClaim>(context, plan).await?;
    let size = |claim: &PersistentVolumeClaim| {
        let size = claim.status.as_ref()?.capacity.as_ref()?.get("storage")?;
        bytes("redis.storage.size", size).ok()
    };
    let pods = claims.iter().filter_map(|(name, claim)| Some((name.strip_prefix("data-")?, size(claim)?)));
    Ok(pods.map(|(pod, size)| (pod.to_owned(), size)).collect())
}

/// Keys of a version on the serving shards; none when one does not answer. Looked at once in a while: it takes a scan.
async fn leftovers(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    version: u64,
) -> Option<u64> {
    let known = context.memory.lock().await.get(&plan.uid).and_then(|memory| memory.leftovers);
    if let Some((of, keys, at)) = known
        && of == version
        && at.elapsed() < LOOK_AGAIN
    {
        return Some(keys);
    }
    let mut found = 0;
    for group in (0..status.layout?.shards).map(GroupId::Shard) {
        let target = seen.targets.get(&authority::primary_of(plan, status, group))?;
        match context.redis.world_keys(target, passwords, Some(version)).await {
            Ok(keys) => found += keys,
            Err(error) => {
                tracing::warn!(cluster = plan.names.cluster, %group, %error, "a shard cannot be looked through");
                context.redis.forget(target).await;
                return None;
            }
        }
    }
    let mut memory = context.memory.lock().await;
    memory.entry(plan.uid.clone()).or_default().leftovers = Some((version, found, std::time::Instant::now()));
    Some(found)
}

/// What a surplus group holds: its recorded primary or, if none was ever recorded, any of its servers.
pub(super) async fn holds(
    context: &Context,
    plan: &Plan,
    status: &FortiaClusterStatus,
    seen: &Observed,
    passwords: &Passwords,
    group: GroupId,
    claims: &[PersistentVolumeClaim],
) -> SurplusState {
    let name = group.to_string();
    let pods = match status.groups.iter().find(|g| g.name == name) {
        Some(recorded) => vec![recorded.primary.as_str()],
        None => unrecorded(&name, &seen.pods, claims),
    };
    let mut found = 0;
    for pod in pods {
        let Some(target) = seen.targets.get(pod) else {
            let claim = claims.iter().find(|claim| claim.name_any() == format!("data-{pod}"));
            if claim.is_some_and(is_gone) {
                continue;
            }
            return SurplusState::Unreachable;
        };
        match context.redis.world_keys(target, passwords, None).await {
            Ok(keys) => found += keys,
            Err(error) => {
                tracing::warn!(cluster = plan.names.cluster, %group, %error, "a surplus group does not answer");
                context.redis.forget(target).await;
                return SurplusState::Unreachable;
            }
        }
    }
    if found == 0 { SurplusState::Empty } else { SurplusState::Holds(found) }
}

/// Pods of a group without a record that must be asked: its volumes may have been filled by someone else. A pod that
/// waits for a place and whose volume was never made holds nothing and cannot answer.
fn unrecorded<'a>(
    group: &str,
    pods: &'a BTreeMap<String, Pod>,
    claims: &[PersistentVolumeClaim],
) -> Vec<&'a str> {
    let bound = |pod: &str| {
        let claim = claims.iter().find(|claim| claim.name_any() == format!("data-{pod}"));
        claim.and_then(|c| c.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase != "Pending")
    };
    let waits = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending");
    pods.iter()
        .filter(|(_, pod)| pod.labels().get(GROUP).is_some_and(|of| of == group))
        .filter(|(name, pod)| !waits(pod) || bound(name))
        .map(|(name, _)| name.as_str())
        .collect()
}

async fn remembered(context: &Context, plan: &Plan, status: &FortiaClusterStatus, seen: &mut Observed) {
    let mut memory = context.memory.lock().await;
    let memory = memory.entry(plan.uid.clone()).or_default();
    let now = std::time::Instant::now();
    seen.rights = memory.rights.known(now);
    seen.apart = health::lasting(&mut memory.apart, health::apart(plan, status, &seen.nodes), now);
    if let Some(tick) = seen.records.as_ref().and_then(|records| records.tick) {
        let patience = health::patience(plan.config.world.tick_period_ms);
        seen.stalled = health::stalled(memory.ticked, status, tick, now, patience);
        memory.ticked = memory.ticked.filter(|(last, _)| *last == tick).or(Some((tick, now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::state::{Guard, Seen};

    fn pod(name: &str, group: &str, phase: &str) -> (String, Pod) {
        let text = format!(
            "{{metadata: {{name: {name}, labels: {{{GROUP}: {group}}}}}, status: {{phase: {phase}}}}}"
        );
        (name.into(), serde_yaml::from_str(&text).expect("pod"))
    }

    fn claim(pod: &str, phase: &str) -> PersistentVolumeClaim {
        let text = format!("{{metadata: {{name: data-{pod}}}, status: {{phase: {phase}}}}}");
        serde_yaml::from_str(&text).expect("claim")
    }

    #[test]
    fn every_server_of_a_group_without_a_record_is_asked_before_its_volumes_go() {
        let pods = [pod("s-2-0", "shard-2", "Running"), pod("s-2-1", "shard-2", "Running")];
        let pods = BTreeMap::from_iter(pods.into_iter().chain([pod("s-1-0", "shard-1", "Running")]));
        assert_eq!(unrecorded("shard-2", &pods, &[]), ["s-2-0", "s-2-1"]);
        assert!(unrecorded("shard-3", &pods, &[]).is_empty());
    }

    #[test]
    fn a_server_is_lost_when_it_is_empty_or_its_volume_is_gone_and_not_when_it_is_silent() {
        let node = |keys, guard, loading| Node {
            pod: "s-2-0".into(),
            uid: None,
            seen: Some(Seen {
                run_id: "run".into(),
                role: Role::Fenced,
                loading,
                keys,
                used_memory: 0,
                idle_memory: 0,
                file_size: 0,
                guard,
            }),
        };
        let (bound, gone) = (claim("s-2-0", "Bound"), claim("s-2-0", "Lost"));
        assert!(is_lost(Some(&node(0, None, false)), Some(&bound)));
        assert!(!is_lost(Some(&node(0, None, true)), Some(&bound)), "it reads its disk");
        assert!(!is_lost(Some(&node(7, None, false)), Some(&bound)), "somebody's data");
        assert!(!is_lost(Some(&node(1, Some(Guard::default()), false)), Some(&gone)), "it is there");
        let silent = Node { seen: None, ..node(0, None, false) };
        assert!(!is_lost(Some(&silent), Some(&bound)));
        assert!(!is_lost(Some(&silent), None), "the claim may only not be seen");
        assert!(is_lost(Some(&silent), Some(&gone)));
    }

    #[test]
    fn a_pod_that_found_no_place_is_not_waited_for_unless_its_volume_exists() {
        let pods = BTreeMap::from([pod("s-2-0", "shard-2", "Pending")]);
        assert!(unrecorded("shard-2", &pods, &[claim("s-2-0", "Pending")]).is_empty());
        assert_eq!(unrecorded("shard-2", &pods, &[claim("s-2-0", "Bound")]), ["s-2-0"]);
    }
}
