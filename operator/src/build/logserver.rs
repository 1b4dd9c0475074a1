//! The log server: a StatefulSet with a volume. Pure.

use fortia_common::boot::Service;
use serde_json::json;

use super::groups::claim;
use super::pod::server;
use super::{Kind, Object};
use crate::controller::validate::Plan;

/// Headless Service and StatefulSet.
pub(super) fn all(plan: &Plan) -> Vec<Object> {
    let headless = plan.names.of("logserver-nodes");
    let labels = plan.names.labels("logserver");
    let selector = plan.names.selector("logserver");
    let service = json!({ "spec": {
        "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector,
        "ports": [{ "name": "http", "port": 8080 }],
    } });
    let mut pod = server(plan, Service::Logserver, &plan.logserver.pods, &[("otlp", 4317), ("http", 8080)]);
    let container = &mut pod["containers"][0];
    container["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    if let Some(env) = container["env"].as_array_mut() {
        env.push(json!({ "name": "FORTIA_DATA", "value": "/data" }));
    }
    let set = json!({ "spec": {
        "serviceName": headless,
        "replicas": plan.logserver.replicas,
        "podManagementPolicy": "Parallel",
        "selector": { "matchLabels": selector },
        "template": { "metadata": { "labels": labels }, "spec": pod },
        "volumeClaimTemplates": [claim(&plan.log_storage, json!(labels))],
    } });
    vec![
        Object::new(plan, Kind::Service, headless, labels.clone(), service),
        Object::new(plan, Kind::StatefulSet, plan.names.of("logserver"), labels, set),
    ]
}
