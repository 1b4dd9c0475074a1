//! Jobs: the first chunks, carrying keys to the next version, unlinking an old one. Created once each. Pure.

use fortia_common::boot::Service;
use serde_json::{Value, json};

use super::pod::server;
use super::{Kind, Object};
use crate::controller::validate::{Plan, PodPlan};

/// The Job that makes the world.
pub fn worldgen(plan: &Plan) -> Object {
    let spec = json!({ "backoffLimit": 20 });
    job(plan, plan.names.of("worldgen"), Service::Worldgen, &plan.worldgen, spec, &[])
}

/// The Indexed Job that carries the keys of `from` on `shards` source shards to version `to`.
pub fn migrate(plan: &Plan, from: u64, to: u64, shards: u32) -> Object {
    let env = [("FORTIA_PHASE", "Copying".to_owned()), ("FORTIA_FROM", from.to_string())];
    let spec = indexed(plan, shards, 5);
    job(plan, plan.names.migrate(to), Service::Migrator, &plan.migrator, spec, &env)
}

/// The Indexed Job that unlinks `version` on shards 0 to `shards`-1.
pub fn collect(plan: &Plan, version: u64, shards: u32) -> Object {
    let env = [("FORTIA_PHASE", "Collecting".to_owned()), ("FORTIA_FROM", version.to_string())];
    let spec = indexed(plan, shards, 20);
    job(plan, plan.names.collect(version), Service::Migrator, &plan.migrator, spec, &env)
}

fn indexed(plan: &Plan, shards: u32, retries: i32) -> Value {
    json!({
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": plan.parallelism.min(i32::try_from(shards).unwrap_or(i32::MAX)),
        "backoffLimitPerIndex": retries,
        "maxFailedIndexes": 0,
    })
}

fn job(
    plan: &Plan,
    name: String,
    service: Service,
    pods: &PodPlan,
    mut spec: Value,
    env: &[(&str, String)],
) -> Object {
    let labels = plan.names.labels(service.as_str());
    let mut pod = server(plan, service, pods, &[]);
    pod["restartPolicy"] = json!("Never");
    let container = &mut pod["containers"][0];
    // A Job's pod is done or not; it takes no traffic.
    if let Some(container) = container.as_object_mut() {
        container.remove("readinessProbe");
        container.remove("livenessProbe");
    }
    if let Some(values) = container["env"].as_array_mut() {
        values.extend(env.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    }
    spec["template"] = json!({ "metadata": { "labels": labels }, "spec": pod });
    Object::new(plan, Kind::Job, name, labels, json!({ "spec": spec }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn the_migrate_job_has_one_index_a_source_shard() {
        let job = migrate(&example("{redisShards: 3, rebalancing: {parallelism: 8}}"), 4, 5, 2);
        assert_eq!(job.name, "midgard-v5-migrate");
        assert_eq!(job.body["spec"]["completions"], 2);
        assert_eq!(job.body["spec"]["parallelism"], 2);
        let env = job.body["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        assert!(env.contains(r#"{"name":"FORTIA_FROM","value":"4"}"#), "{env}");
    }
}
