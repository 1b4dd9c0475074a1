//! The Services clients use. Pure.

use serde_json::{Value, json};

use super::names::{GroupId, REDIS_PORT, ROLE};
use super::{Kind, Object};
use crate::controller::validate::Plan;

/// Services of the databases' primaries, of players' servers, scheduler and log server.
pub(super) fn all(plan: &Plan) -> Vec<Object> {
    vec![
        primary(plan, GroupId::Control),
        primary(plan, GroupId::Auth),
        of(plan, "auth", json!([{ "name": "http", "port": 80, "targetPort": "http" }])),
        of(plan, "game", json!([{ "name": "http", "port": 80, "targetPort": "http" }])),
        of(plan, "scheduler", json!([{ "name": "grpc", "port": 8080, "targetPort": "grpc" }])),
        of(
            plan,
            "logserver",
            json!([
                { "name": "otlp", "port": 4317, "targetPort": "otlp" },
                { "name": "http", "port": 8080, "targetPort": "http" },
            ]),
        ),
    ]
}

fn of(plan: &Plan, part: &str, ports: Value) -> Object {
    let rest = json!({ "spec": { "selector": plan.names.selector(part), "ports": ports } });
    Object::new(plan, Kind::Service, plan.names.of(part), plan.names.labels(part), rest)
}

fn primary(plan: &Plan, group: GroupId) -> Object {
    let mut selector = plan.names.group_selector(group);
    selector[ROLE] = json!("primary");
    let rest = json!({ "spec": {
        "selector": selector,
        "publishNotReadyAddresses": true,
        "ports": [{ "name": "redis", "port": REDIS_PORT }],
    } });
    Object::new(plan, Kind::Service, plan.names.of(group), plan.names.group_labels(group), rest)
}
