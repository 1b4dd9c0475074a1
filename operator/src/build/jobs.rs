//! Jobs: the first chunks, carrying keys to the next version, unlinking an old one. Created once each. Pure.

use fortia_common::boot::Service;
use fortia_common::ending::Ending;
use serde_json::{Value, json};

use super::pod::server;
use super::{Kind, Object};
use crate::controller::validate::{Plan, PodPlan};

/// The Job that makes the world.
pub fn worldgen(plan: &Plan) -> Object {
    let spec = json!({ "backoffLimit": 20 });
    job(plan, plan.names.of("worldgen"), Service::Worldgen, &plan.worldgen, spec, &[])
}

/// The Indexed Job that carries the keys of `from` on `shards` source shards to version `to`. All its pods run at once:
/// each goes on carrying what is written to its source until the flip.
pub fn migrate(plan: &Plan, from: u64, to: u64, shards: u32) -> Object {
    // Back to a version that was kept: it has all but what was written since.
    let phase = if to < from { "CatchingUp" } else { "Copying" };
    let mut spec = indexed(shards, i32::try_from(shards).unwrap_or(i32::MAX));
    spec["podFailurePolicy"] = failure_policy();
    job(
        plan,
        plan.names.migrate(to),
        Service::Migrator,
        &plan.migrator,
        spec,
        &environment(plan, phase, from),
    )
}

/// The Indexed Job that unlinks `version` on shards 0 to `shards`-1; of those that are `lost` nothing is left.
pub fn collect(plan: &Plan, version: u64, shards: u32, lost: &[u32]) -> Object {
    let spec = indexed(shards, plan.parallelism);
    let mut env = environment(plan, "Collecting", version);
    if !lost.is_empty() {
        let shards: Vec<String> = lost.iter().map(u32::to_string).collect();
        env.push(("FORTIA_LOST", shards.join(",")));
    }
    job(plan, plan.names.collect(version), Service::Migrator, &plan.migrator, spec, &env)
}

/// What a migrator boots from beside what all servers do.
fn environment(plan: &Plan, phase: &str, from: u64) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("FORTIA_PHASE", phase.to_owned()),
        ("FORTIA_FROM", from.to_string()),
        ("FORTIA_PARALLELISM", plan.parallelism.to_string()),
    ];
    let latency = plan.read_latency.as_millis();
    if latency > 0 {
        env.push(("FORTIA_READ_LATENCY", latency.to_string()));
    }
    env
}

fn indexed(shards: u32, parallelism: i32) -> Value {
    json!({
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": parallelism.min(i32::try_from(shards).unwrap_or(i32::MAX)),
        "backoffLimitPerIndex": 20,
        "maxFailedIndexes": 0,
    })
}

/// What trying again does not mend fails the whole Job at once. A pod that is not wanted any more has not failed: the
/// operator takes the Job away. Nor has one that was evicted, as when its node is drained: a pod lives as long as the re-sharding.
fn failure_policy() -> Value {
    let rule = |action: &str, fails: bool| {
        let endings = Ending::ALL.into_iter().filter(|ending| ending.is_failure() == fails);
        let mut codes: Vec<u8> = endings.map(Ending::code).collect();
        // Kubernetes wants them in order.
        codes.sort_unstable();
        json!({ "action": action, "onExitCodes": {
            "containerName": Service::Migrator.as_str(), "operator": "In", "values": codes } })
    };
    let evicted =
        json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    // The first that fits counts.
    json!({ "rules": [evicted, rule("Ignore", false), rule("FailJob", true)] })
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

    fn env(job: &Object) -> String {
        job.body["spec"]["template"]["spec"]["containers"][0]["env"].to_string()
    }

    #[test]
    fn the_migrate_job_has_a_pod_for_each_source_shard_and_all_run_at_once() {
        let job = migrate(&example("{redisShards: 3, rebalancing: {parallelism: 1}}"), 4, 5, 2);
        assert_eq!(job.name, "midgard-v5-migrate");
        assert_eq!(
            (&job.body["spec"]["completions"], &job.body["spec"]["parallelism"]),
            (&json!(2), &json!(2))
        );
        for wanted in [
            r#"{"name":"FORTIA_PHASE","value":"Copying"}"#,
            r#"{"name":"FORTIA_FROM","value":"4"}"#,
            r#"{"name":"FORTIA_PARALLELISM","value":"1"}"#,
            r#"{"name":"FORTIA_READ_LATENCY","value":"2"}"#,
        ] {
            assert!(env(&job).contains(wanted), "{wanted} in {}", env(&job));
        }
    }

    #[test]
    fn a_migrator_pod_that_trying_again_does_not_help_fails_the_job_at_once() {
        let job = migrate(&example("{redisShards: 3}"), 4, 5, 2);
        let rules = job.body["spec"]["podFailurePolicy"]["rules"].clone();
        let rule = |action: &str, codes: &[u8]| {
            json!({ "action": action, "onExitCodes": {
                "containerName": "migrator", "operator": "In", "values": codes } })
        };
        let evicted = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
        assert_eq!(rules, json!([evicted, rule("Ignore", &[44]), rule("FailJob", &[41, 42, 43])]));
        let pod = &job.body["spec"]["template"]["spec"];
        assert_eq!(
            (&pod["restartPolicy"], &pod["containers"][0]["name"]),
            (&json!("Never"), &json!("migrator"))
        );
        // A Job that the API server would not know all of is refused by it.
        let whole: k8s_openapi::api::batch::v1::Job =
            serde_json::from_value(job.body.clone()).expect("a Job");
        let policy = whole.spec.and_then(|spec| spec.pod_failure_policy).expect("a policy");
        assert_eq!(policy.rules.len(), 3);
    }

    #[test]
    fn the_way_back_begins_by_catching_up() {
        let job = migrate(&example("{redisShards: 2, rebalancing: {readLatency: 0s}}"), 5, 4, 3);
        assert_eq!(job.name, "midgard-v4-migrate");
        assert!(env(&job).contains(r#"{"name":"FORTIA_PHASE","value":"CatchingUp"}"#), "{}", env(&job));
        assert!(!env(&job).contains("FORTIA_READ_LATENCY"), "{}", env(&job));
    }

    #[test]
    fn unlinking_is_done_by_as_many_pods_as_asked() {
        let plan = example("{redisShards: 8, rebalancing: {parallelism: 2}}");
        let job = collect(&plan, 4, 8, &[]);
        assert_eq!(
            (&job.body["spec"]["completions"], &job.body["spec"]["parallelism"]),
            (&json!(8), &json!(2))
        );
        assert!(!env(&job).contains("FORTIA_LOST"), "{}", env(&job));
        let job = collect(&plan, 4, 8, &[5, 7]);
        assert!(env(&job).contains(r#"{"name":"FORTIA_LOST","value":"5,7"}"#), "{}", env(&job));
    }
}
