//! What all pods have in common: how they are locked down, where they may run, what servers boot from. Pure.

use fortia_common::boot::{Service, var};
use fortia_common::failpoint;
use serde_json::{Value, json};

use super::names::{COMPONENT, INSTANCE, REDIS_PORT};
use crate::controller::validate::{Plan, PodPlan};

/// User and group of every process.
pub(super) const USER: i64 = 65532;

/// A pod's security context.
pub(super) fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" }
    })
}

/// A container's security context.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"] }
    })
}

/// Prefers nodes without a pod that `selector` matches.
pub(super) fn spread(selector: &Value) -> Value {
    json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": { "labelSelector": { "matchLabels": selector }, "topologyKey": "kubernetes.io/hostname" }
    }] } })
}

/// Fills in where pods may run.
pub(super) fn place(pod_spec: &mut Value, pods: &PodPlan, default_affinity: Value) {
    pod_spec["affinity"] = pods.affinity.as_ref().map_or(default_affinity, |affinity| json!(affinity));
    if !pods.node_selector.is_empty() {
        pod_spec["nodeSelector"] = json!(pods.node_selector);
    }
    if !pods.tolerations.is_empty() {
        pod_spec["tolerations"] = json!(pods.tolerations);
    }
}

/// The environment a server boots from.
pub(super) fn environment(plan: &Plan, service: Service) -> Vec<Value> {
    let control = format!("{}:{REDIS_PORT}", plan.names.of("control-db"));
    let mut all = vec![
        json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }),
        json!({ "name": var::INSTANCE, "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
        json!({ "name": var::CLUSTER, "value": plan.uid }),
        json!({ "name": var::CONTROL_DB, "value": control }),
        json!({ "name": var::PASSWORD, "valueFrom": { "secretKeyRef": {
            "name": plan.names.passwords(), "key": service.as_str() } } }),
        json!({ "name": var::ADVERTISE, "value": "$(POD_IP):8080" }),
    ];
    // The other services have no points.
    let armed =
        plan.failpoints.as_ref().filter(|_| matches!(service, Service::Migrator | Service::Scheduler));
    all.extend(armed.map(|points| json!({ "name": failpoint::VARIABLE, "value": points })));
    all
}

/// A pod with one of our servers. `ports`: name and number beside the admin port.
pub(super) fn server(plan: &Plan, service: Service, pods: &PodPlan, ports: &[(&str, u16)]) -> Value {
    let mut all = vec![json!({ "name": "admin", "containerPort": 9000 })];
    all.extend(ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port })));
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 20,
        "securityContext": pod_security(),
        "containers": [{
            "name": service.as_str(),
            "image": pods.image,
            "imagePullPolicy": pods.pull_policy.as_str(),
            "env": environment(plan, service),
            "ports": all,
            "resources": pods.resources,
            "securityContext": container_security(),
            "readinessProbe": {
                "httpGet": { "path": "/readyz", "port": "admin" }, "periodSeconds": 2, "timeoutSeconds": 2 },
            "livenessProbe": {
                "httpGet": { "path": "/livez", "port": "admin" },
                "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
        }],
    });
    place(&mut spec, pods, spread(&json!({ INSTANCE: plan.names.cluster, COMPONENT: service.as_str() })));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn points_the_operator_was_started_with_are_armed_in_migrators_and_schedulers_alone() {
        let armed = |plan: &Plan| {
            let has = |service: &Service| {
                let env = json!(environment(plan, *service)).to_string();
                env.contains(r#"{"name":"FORTIA_FAILPOINTS","value":"copying.done=exit@2"}"#)
            };
            Service::ALL.into_iter().filter(has).collect::<Vec<_>>()
        };
        let mut plan = example("{redisShards: 1}");
        assert!(armed(&plan).is_empty());
        plan.failpoints = Some("copying.done=exit@2".into());
        assert_eq!(armed(&plan), [Service::Migrator, Service::Scheduler]);
    }
}
