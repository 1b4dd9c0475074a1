//! A Redis group: one builder for accounts, control and shards. Knows no roles: those are the operator's, at run time.

use serde_json::{Value, json};

use super::names::{GroupId, KIND, REDIS_PORT};
use super::pod::{container_security, place, pod_security, spread};
use super::secrets::PROBE;
use super::{Kind, Object, config};
use crate::controller::validate::Plan;
use crate::crd::spec::{Engine, Storage};

/// Headless Service, StatefulSet and disruption budget of a group.
pub(super) fn group(plan: &Plan, group: GroupId) -> Vec<Object> {
    vec![headless(plan, group), stateful_set(plan, group), budget(plan, group)]
}

fn headless(plan: &Plan, group: GroupId) -> Object {
    let rest = json!({ "spec": {
        "clusterIP": "None",
        // Servers and operator must find a server that is not yet ready: it becomes ready through them.
        "publishNotReadyAddresses": true,
        "selector": plan.names.group_selector(group),
        "ports": [{ "name": "redis", "port": REDIS_PORT }],
    } });
    Object::new(plan, Kind::Service, plan.names.headless(group), plan.names.group_labels(group), rest)
}

fn stateful_set(plan: &Plan, group: GroupId) -> Object {
    let labels = plan.names.group_labels(group);
    let rest = json!({ "spec": {
        "serviceName": plan.names.headless(group),
        "replicas": plan.redis.nodes,
        "podManagementPolicy": "Parallel",
        "selector": { "matchLabels": plan.names.group_selector(group) },
        "template": { "metadata": { "labels": labels }, "spec": pod(plan, group) },
        "volumeClaimTemplates": [claim(&plan.redis.storage, json!(plan.names.group_labels(group)))],
    } });
    Object::new(plan, Kind::StatefulSet, plan.names.of(group), labels, rest)
}

/// The claim for a pod's volume `data`.
pub(super) fn claim(storage: &Storage, labels: Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data", "labels": labels },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": storage.size } } },
    });
    if let Some(class) = &storage.class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

fn pod(plan: &Plan, group: GroupId) -> Value {
    let redis = &plan.redis;
    let (server, cli) = match redis.engine {
        Engine::Valkey => ("valkey-server", "valkey-cli"),
        Engine::Redis => ("redis-server", "redis-cli"),
    };
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(),
        "containers": [{
            "name": "valkey",
            "image": redis.pods.image,
            "imagePullPolicy": redis.pods.pull_policy.as_str(),
            "command": [server, "/etc/valkey/valkey.conf"],
            "workingDir": "/data",
            "ports": [{ "name": "redis", "containerPort": REDIS_PORT }],
            "resources": redis.pods.resources,
            "securityContext": container_security(),
            // Ready means: it has read its disk and answers. Whether it is admitted is another matter; to wait for
            // that would deadlock the first start.
            "readinessProbe": {
                "exec": { "command": [cli, "-e", "--no-auth-warning", "--user", PROBE, "--pass", PROBE, "ping"] }, "periodSeconds": 5, "timeoutSeconds": 5 },
            "livenessProbe": {
                "tcpSocket": { "port": "redis" }, "initialDelaySeconds": 20, "periodSeconds": 10, "failureThreshold": 6 },
            "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
                { "name": "config", "mountPath": "/etc/valkey/valkey.conf", "subPath": config::file(group), "readOnly": true },
                { "name": "acl", "mountPath": "/etc/valkey/acl", "readOnly": true },
            ],
        }],
        "volumes": [
            { "name": "config", "configMap": { "name": plan.names.valkey() } },
            { "name": "acl", "secret": {
                "secretName": plan.names.acl(),
                "items": [{ "key": format!("{}.acl", group.kind()), "path": "users.acl" }],
            } },
        ],
    });
    place(&mut spec, &redis.pods, spread(&plan.names.group_selector(group)));
    spec
}

fn budget(plan: &Plan, group: GroupId) -> Object {
    let rest = json!({ "spec": {
        "maxUnavailable": 1,
        "selector": { "matchLabels": plan.names.group_selector(group) },
    } });
    Object::new(plan, Kind::PodDisruptionBudget, plan.names.of(group), plan.names.group_labels(group), rest)
}

/// What selects the Redis pods of all shards, as the scale subresource wants it.
pub fn shard_selector(plan: &Plan) -> String {
    format!("{}={},{KIND}=shard", super::names::INSTANCE, plan.names.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn a_cold_start_does_not_wait_for_admission() {
        let pod = pod(&example("redisShards: 1"), GroupId::Control);
        assert_eq!(pod["containers"][0]["readinessProbe"]["exec"]["command"][7], "ping");
        let set = stateful_set(&example("redisShards: 1"), GroupId::Control);
        assert_eq!(set.body["spec"]["podManagementPolicy"], "Parallel");
        assert_eq!(pod["containers"][0]["volumeMounts"][1]["subPath"], "control-db.conf");
    }

    #[test]
    fn primary_and_replica_prefer_different_nodes() {
        let pod = pod(&example("redisShards: 1"), GroupId::Shard(0));
        let term = &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
        let labels = &term["podAffinityTerm"]["labelSelector"]["matchLabels"];
        assert_eq!(labels["fortia.dev/group"], "shard-0");
    }
}
