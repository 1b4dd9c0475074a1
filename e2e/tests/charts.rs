//! The Helm charts as people install them: what they render, and which values they refuse. Needs helm, but no cluster.

use std::path::Path;
use std::process::Command;

use fortia_e2e::cluster::root;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Any Kubernetes that the charts accept; it only decides what helm renders for.
const KUBERNETES: &str = "1.34.0";

/// Runs helm in the repository: the one of fortia-cluster, or the machine's own.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let own = root().join("build/fortia-cluster");
    let mut command = if own.exists() { Command::new(own) } else { Command::new("helm") };
    if command.get_program() != "helm" {
        command.arg("helm");
    }
    let output = command
        .args(arguments)
        .args(["--kube-version", KUBERNETES])
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("no helm ({error}): run `make cluster`, or install helm"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

fn render(chart: &str, set: &[&str]) -> Result<Vec<Value>, String> {
    let chart = format!("charts/{chart}");
    let mut arguments = vec!["template", "midgard", &chart, "--namespace", "fortia-system"];
    set.iter().for_each(|value| arguments.extend(["--set", value]));
    let text = helm(&arguments)?;
    let objects = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).map_err(|error| format!("{error} in\n{text}")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn operator(set: &[&str]) -> Vec<Value> {
    render("fortia-operator", set).expect("the chart renders")
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn generated_type() -> Value {
    whole(yaml(&root().join("crds/fortiacluster.yaml")))
}

/// Numbers like 1.0 as 1: helm writes them so.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 => json!(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, whole(value))).collect(),
        other => other,
    }
}

fn env(deployment: &Value, name: &str) -> Value {
    let variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("env");
    variables.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("no {name}"))["value"].clone()
}

#[test]
fn both_charts_pass_helms_own_lint() {
    helm(&["lint", "--strict", "charts/fortia-operator", "charts/fortia-cluster"]).expect("lint");
}

#[test]
fn the_operator_runs_without_any_privilege() {
    let objects = operator(&[]);
    let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().expect("containers") {
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert!(container["resources"]["limits"]["memory"].is_string(), "memory has a limit");
    }
}

#[test]
fn the_type_is_the_generated_one_and_stays_on_uninstall() {
    let objects = operator(&[]);
    let mut rendered = whole(one(&objects, "CustomResourceDefinition").clone());
    let annotations = rendered["metadata"]["annotations"].as_object_mut().expect("annotations");
    assert_eq!(annotations.remove("helm.sh/resource-policy"), Some(json!("keep")));
    if annotations.is_empty() {
        rendered["metadata"].as_object_mut().expect("metadata").remove("annotations");
    }
    assert!(rendered == generated_type(), "the chart's copy of the type is out of date: run `make crds`");
}

#[test]
fn a_cluster_that_has_the_type_already_can_keep_its_own() {
    let objects = operator(&["crds.install=false"]);
    assert!(of_kind(&objects, "CustomResourceDefinition").is_empty());
}

#[test]
fn an_operator_of_one_namespace_has_rights_in_no_other() {
    let objects = operator(&["watchNamespace=midgard"]);
    assert!(of_kind(&objects, "ClusterRole").is_empty());
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let spaces: Vec<_> =
        of_kind(&objects, "Role").iter().map(|r| r["metadata"]["namespace"].clone()).collect();
    assert_eq!(spaces, [json!("midgard"), json!("fortia-system")]);
    assert_eq!(env(one(&objects, "Deployment"), "FORTIA_WATCH_NAMESPACE"), "midgard");
}

#[test]
fn no_right_is_a_wildcard() {
    let objects = operator(&[]);
    for role in of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role")) {
        for rule in role["rules"].as_array().expect("rules") {
            let words =
                ["apiGroups", "resources", "verbs"].map(|part| rule[part].as_array().expect("list").clone());
            assert!(words.concat().iter().all(|word| word != "*"), "{rule}");
        }
    }
}

#[test]
fn the_account_that_gets_the_rights_is_the_one_the_pod_runs_as() {
    for set in [&[][..], &["serviceAccount.name=thor"], &["watchNamespace=midgard"]] {
        let objects = operator(set);
        let account = &one(&objects, "ServiceAccount")["metadata"]["name"];
        assert_eq!(&one(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"], account);
        let bindings = [of_kind(&objects, "ClusterRoleBinding"), of_kind(&objects, "RoleBinding")].concat();
        assert_eq!(bindings.len(), 2);
        for binding in bindings {
            assert_eq!(&binding["subjects"][0]["name"], account);
            assert_eq!(binding["subjects"][0]["namespace"], "fortia-system");
            let role = of_kind(&objects, binding["roleRef"]["kind"].as_str().expect("kind"));
            assert!(role.iter().any(|role| role["metadata"]["name"] == binding["roleRef"]["name"]));
        }
    }
}

#[test]
fn services_and_deployments_select_the_pods_they_make() {
    let objects = operator(&["podLabels.team=norns"]);
    let deployment = one(&objects, "Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["team"], "norns");
    let selectors =
        [&deployment["spec"]["selector"]["matchLabels"], &one(&objects, "Service")["spec"]["selector"]];
    for selector in selectors {
        assert!(selector.as_object().expect("selector").iter().all(|(key, value)| &labels[key] == value));
    }
}

#[test]
fn images_come_from_the_public_place_unless_told_otherwise() {
    let objects = operator(&[]);
    let deployment = one(&objects, "Deployment");
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(image.as_str().expect("image").starts_with("ghcr.io/fortia/fortia-operator:"), "{image}");
    assert_eq!(env(deployment, "FORTIA_IMAGE_REPOSITORY"), "ghcr.io/fortia");

    let objects = operator(&[
        "image.repository=localhost/fortia-operator",
        "image.tag=dev",
        "workloads.repository=localhost",
        "workloads.tag=dev",
        "workloads.valkeyImage=localhost/fortia-valkey:dev",
    ]);
    let deployment = one(&objects, "Deployment");
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "localhost/fortia-operator:dev");
    assert_eq!(env(deployment, "FORTIA_IMAGE_REPOSITORY"), "localhost");
    assert_eq!(env(deployment, "FORTIA_IMAGE_TAG"), "dev");
    assert_eq!(env(deployment, "FORTIA_VALKEY_IMAGE"), "localhost/fortia-valkey:dev");
}

#[test]
fn the_readme_names_every_value_of_the_operator() {
    let chart = root().join("charts/fortia-operator");
    let readme = std::fs::read_to_string(chart.join("README.md")).expect("README");
    let values = yaml(&chart.join("values.yaml"));
    let unnamed =
        |name: &&String| !readme.contains(&format!("`{name}`")) && !readme.contains(&format!("`{name}."));
    let missing: Vec<_> = values.as_object().expect("values").keys().filter(unnamed).collect();
    assert!(missing.is_empty(), "charts/fortia-operator/README.md lacks {missing:?}");
}

#[test]
fn bad_values_of_the_operator_are_refused_by_name() {
    for (set, named) in [
        ("replica=2", "replica"),
        ("replicas=-1", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("watchNamespace=Not_A_Namespace", "watchNamespace"),
        ("workloads.repository=localhost/", "repository"),
    ] {
        let error = render("fortia-operator", &[set]).expect_err(set);
        assert!(error.contains(named), "{set}: {error}");
    }
}

#[test]
fn the_cluster_chart_makes_the_world_of_the_example() {
    let objects = render("fortia-cluster", &[]).expect("the chart renders");
    let world = one(&objects, "FortiaCluster");
    assert_eq!(world["metadata"]["name"], "midgard");
    let mut example = yaml(&root().join("fortiacluster.yaml"))["spec"].clone();
    example["world"].as_object_mut().expect("world").remove("name"); // the release's name is the default
    example["deletionPolicy"] = json!("Retain");
    assert_eq!(world["spec"], example);
}

#[test]
fn a_long_seed_stays_a_whole_number() {
    let objects = render("fortia-cluster", &["world.seed=9007199254740991"]).expect("the chart renders");
    assert_eq!(one(&objects, "FortiaCluster")["spec"]["world"]["seed"], 9_007_199_254_740_991_u64);
}

#[test]
fn bad_values_of_a_cluster_are_refused_by_name_before_any_cluster_sees_them() {
    for (set, named) in [
        ("redisShards=0", "redisShards"),
        ("redisShards=two", "redisShards"),
        ("redisShard=3", "redisShard"),
        ("world.radius=0", "radius"),
        ("world.tickPeriod=fast", "tickPeriod"),
        ("redis.replicas=6", "replicas"),
        ("game.address=play.example.org", "address"),
        ("logserver.endpoint=http://collector", "endpoint"),
        ("deletionPolicy=Maybe", "deletionPolicy"),
    ] {
        let error = render("fortia-cluster", &[set]).expect_err(set);
        assert!(error.contains(named), "{set}: {error}");
    }
}

/// With `WRITE=1` in the environment it writes the file instead (`make crds`).
#[test]
fn the_cluster_charts_schema_follows_the_type() {
    let spec = &generated_type()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut schema = json_schema(spec);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["$comment"] = json!("Generated from crds/fortiacluster.yaml by `make crds`. Do not edit.");
    schema["properties"]["global"] = json!({ "type": "object" });
    let path = root().join("charts/fortia-cluster/values.schema.json");
    let text = serde_json::to_string_pretty(&schema).expect("json") + "\n";
    if std::env::var_os("WRITE").is_some() {
        std::fs::write(&path, &text).expect("write");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "charts/fortia-cluster/values.schema.json is out of date: run `make crds`");
}

/// A Kubernetes schema as JSON schema. Unknown fields are refused, and simple bounds among the CEL rules become bounds.
fn json_schema(node: &Value) -> Value {
    let mut out = Map::new();
    let text = |key| node.get(key).and_then(Value::as_str);
    for key in [
        "description",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "required",
    ] {
        if let Some(value) = node.get(key) {
            out.insert(key.into(), value.clone());
        }
    }
    if node["x-kubernetes-int-or-string"] == true {
        out.insert("type".into(), json!(["number", "string"]));
    } else if let Some(kind) = text("type") {
        out.insert("type".into(), if node["nullable"] == true { json!([kind, "null"]) } else { json!(kind) });
    }
    if let Some(properties) = node["properties"].as_object() {
        let converted = properties.iter().map(|(name, schema)| (name.clone(), json_schema(schema)));
        out.insert("properties".into(), Value::Object(converted.collect()));
        out.insert(
            "additionalProperties".into(),
            json!(node["x-kubernetes-preserve-unknown-fields"] == true),
        );
    } else if node["additionalProperties"].is_object() {
        out.insert("additionalProperties".into(), json_schema(&node["additionalProperties"]));
    }
    if node["items"].is_object() {
        out.insert("items".into(), json_schema(&node["items"]));
    }
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        for part in rule["rule"].as_str().unwrap_or_default().split(" && ") {
            let bound = |sign| part.strip_prefix(sign).and_then(|number: &str| number.parse::<i64>().ok());
            if let Some(number) = bound("self >= ") {
                out.insert("minimum".into(), json!(number));
            } else if let Some(number) = bound("self <= ") {
                out.insert("maximum".into(), json!(number));
            }
        }
    }
    Value::Object(out)
}
