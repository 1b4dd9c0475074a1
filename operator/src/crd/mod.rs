//! The FortiaCluster resource: what people write (`spec`) and what the operator answers (`status`).

mod defaults;
pub mod rebalance;
mod schema;
pub mod spec;
pub mod status;

use kube::CustomResourceExt;

/// Where the schema of the spec is in the definition.
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

/// The CustomResourceDefinition as YAML, as committed in `crds/fortiacluster.yaml`.
///
/// # Errors
/// When the definition cannot be written as YAML: a fault of the program.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    // Through JSON, so that integers and absent fields look as the API server wants them.
    let mut crd = serde_json::to_value(spec::FortiaCluster::crd())
        .map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
    if let Some(spec) = crd.pointer_mut(SPEC) {
        defaults::tell(spec);
    }
    let header = "# Generated from operator/src/crd by `make crds`. Do not edit.\n";
    Ok(format!("{header}{}", serde_yaml::to_string(&crd)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_definition_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/fortiacluster.yaml");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == yaml().expect("yaml"),
            "crds/fortiacluster.yaml is out of date: run `make crds`"
        );
    }

    #[test]
    fn the_example_at_the_root_is_a_fortiacluster_with_two_shards() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fortiacluster.yaml");
        let text = std::fs::read_to_string(path).expect("example");
        let example: spec::FortiaCluster = serde_yaml::from_str(&text).expect("parses");
        assert_eq!(example.spec.redis_shards, 2);
        assert_eq!(example.spec.world.name.as_deref(), Some("midgard"));
    }

    #[test]
    fn shards_alone_are_a_complete_spec() {
        let spec: spec::FortiaClusterSpec = serde_yaml::from_str("redisShards: 1").expect("parses");
        assert_eq!(spec.world.tick_period, "1s");
        assert_eq!(spec.ticker.replicas, 2);
        assert_eq!(spec.redis.replicas, 1);
    }

    fn in_one_line(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Descriptions of fields without fields of their own, by path. Parts of foreign lists are Kubernetes' own.
    fn told(schema: &serde_json::Value, path: &str, found: &mut Vec<(String, String)>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["properties"].is_object() {
                told(field, &path, found);
            } else {
                found.push((path, field["description"].as_str().unwrap_or_default().to_owned()));
            }
        }
    }

    #[test]
    fn every_field_of_the_spec_says_what_it_is_by_default() {
        let crd: serde_json::Value = serde_yaml::from_str(&yaml().expect("yaml")).expect("parses");
        let mut fields = Vec::new();
        told(crd.pointer(SPEC).expect("spec"), "spec", &mut fields);
        assert!(fields.len() > 60, "{}", fields.len());
        let silent: Vec<_> = fields.iter().filter(|(_, text)| !text.contains("efault")).collect();
        assert!(silent.iter().all(|(path, _)| path == "spec.redisShards"), "{silent:?}");
        let of = |path: &str| &fields.iter().find(|(field, _)| field == path).expect("a field").1;
        assert!(of("spec.ticker.replicas").ends_with("Default: 2."), "{}", of("spec.ticker.replicas"));
        assert!(of("spec.world.tickPeriod").ends_with("Default: 1s."));
        assert!(of("spec.rebalancing.requireApproval").ends_with("Default: false."));
    }

    #[test]
    fn the_resources_of_a_pod_are_by_default_what_its_description_says() {
        let plan = crate::controller::validate::example("redisShards: 1");
        let crd = serde_json::to_value(spec::FortiaCluster::crd()).expect("json");
        let described = crd.pointer(&format!("{SPEC}/properties/game/properties/resources/description"));
        let described = in_one_line(described.and_then(|text| text.as_str()).expect("described"));
        for (pods, words) in [
            (&plan.game.pods, "requests of 20m CPU and 32Mi memory"),
            (&plan.redis.pods, "Redis: 20m and 64Mi"),
            (&plan.migrator, "migrator: 50m and 64Mi"),
        ] {
            assert!(described.contains(words), "{described}");
            let requests = pods.resources.requests.clone().expect("requests");
            assert!(
                ["cpu", "memory"].iter().all(|of| words.contains(&requests[*of].0)),
                "{words}: {requests:?}"
            );
            let limits = pods.resources.limits.clone().expect("limits");
            assert!(
                limits["memory"].0 == "512Mi" && described.contains("limit of 512Mi memory"),
                "{limits:?}"
            );
        }
    }

    #[test]
    fn what_is_planned_and_what_is_carried_say_which_bytes_they_are() {
        let crd = serde_json::to_value(spec::FortiaCluster::crd()).expect("json");
        let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
        let told = |path: &str| {
            let text = crd.pointer(&format!("{status}/{path}/description")).and_then(|text| text.as_str());
            in_one_line(text.unwrap_or_else(|| panic!("no {path}")))
        };
        for plan in ["plan", "rebalance/properties/plan"] {
            let memory = told(&format!("{plan}/properties/movedMemory"));
            assert!(memory.contains("memory of servers") && memory.contains("`rebalance.bytes`"), "{memory}");
        }
        let bytes = told("rebalance/properties/bytes");
        assert!(bytes.contains("Value bytes") && bytes.contains("`plan.movedMemory`"), "{bytes}");
    }

    #[test]
    fn every_rule_says_what_to_do() {
        fn rules(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    for rule in
                        map.get("x-kubernetes-validations").and_then(|v| v.as_array()).into_iter().flatten()
                    {
                        found.push(rule["message"].as_str().unwrap_or_default().to_owned());
                    }
                    map.values().for_each(|v| rules(v, found));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|v| rules(v, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        rules(&serde_json::to_value(spec::FortiaCluster::crd()).expect("json"), &mut found);
        assert!(found.len() >= 8, "{found:?}");
        assert!(found.iter().all(|message| message.len() > 20), "{found:?}");
    }
}
