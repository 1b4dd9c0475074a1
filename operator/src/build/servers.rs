//! Deployments of the servers without volumes. Pure.

use fortia_common::boot::Service;
use serde_json::json;

use super::pod::server;
use super::{Kind, Object};
use crate::controller::validate::{Plan, ServerPlan};

/// auth, game, scheduler, ticker.
pub(super) fn all(plan: &Plan) -> Vec<Object> {
    vec![
        deployment(plan, Service::Scheduler, &plan.scheduler, &[("grpc", 8080)]),
        deployment(plan, Service::Ticker, &plan.ticker, &[]),
        deployment(plan, Service::Auth, &plan.auth, &[("http", 8080)]),
        deployment(plan, Service::Game, &plan.game, &[("http", 8080)]),
    ]
}

fn deployment(plan: &Plan, service: Service, wanted: &ServerPlan, ports: &[(&str, u16)]) -> Object {
    let part = service.as_str();
    let labels = plan.names.labels(part);
    let rest = json!({ "spec": {
        "replicas": wanted.replicas,
        "revisionHistoryLimit": 2,
        "selector": { "matchLabels": plan.names.selector(part) },
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
        "template": { "metadata": { "labels": labels }, "spec": server(plan, service, &wanted.pods, ports) },
    } });
    Object::new(plan, Kind::Deployment, plan.names.of(part), labels, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn a_server_boots_from_its_own_password_and_the_clusters_uid() {
        let plan = example("redisShards: 1");
        let deployment = deployment(&plan, Service::Game, &plan.game, &[("http", 8080)]);
        let env =
            deployment.body["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("env");
        let find = |name: &str| env.iter().find(|e| e["name"] == name).expect(name);
        assert_eq!(find("FORTIA_CLUSTER")["value"], "uid-1");
        assert_eq!(find("FORTIA_CONTROL_DB")["value"], "midgard-control-db:6379");
        assert_eq!(find("FORTIA_PASSWORD")["valueFrom"]["secretKeyRef"]["key"], "game");
        let ip = env.iter().position(|e| e["name"] == "POD_IP").expect("ip");
        let advertise = env.iter().position(|e| e["name"] == "FORTIA_ADVERTISE").expect("advertise");
        assert!(ip < advertise, "a value can name only values before it");
    }
}
