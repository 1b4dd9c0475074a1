//! Pure builders: from a plan and what status has decided to Kubernetes objects. No I/O, no clock.

pub mod acl;
pub mod config;
mod groups;
pub use groups::shard_selector;
pub mod jobs;
mod logserver;
pub mod names;
mod pod;
pub mod secrets;
mod servers;
mod services;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::controller::validate::Plan;
use names::GroupId;

/// Kinds of objects the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Secret.
    Secret,
    /// v1 ConfigMap.
    ConfigMap,
    /// v1 Service.
    Service,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// policy/v1 PodDisruptionBudget.
    PodDisruptionBudget,
    /// apps/v1 Deployment.
    Deployment,
    /// batch/v1 Job.
    Job,
}

impl Kind {
    /// The API it is reached by.
    pub fn resource(self) -> ApiResource {
        match self {
            Kind::Secret => ApiResource::erase::<Secret>(&()),
            Kind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Kind::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Kind::Deployment => ApiResource::erase::<Deployment>(&()),
            Kind::Job => ApiResource::erase::<Job>(&()),
        }
    }
}

/// An object to apply, complete but for its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, as JSON.
    pub body: Value,
}

impl Object {
    /// An object owned by the FortiaCluster; `rest` is everything but kind and metadata.
    fn new(
        plan: &Plan,
        kind: Kind,
        name: String,
        labels: std::collections::BTreeMap<String, String>,
        rest: Value,
    ) -> Object {
        let resource = kind.resource();
        let mut body = rest;
        body["apiVersion"] = json!(resource.api_version);
        body["kind"] = json!(resource.kind);
        body["metadata"] = json!({
            "name": name,
            "namespace": plan.names.namespace,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "fortia.dev/v1alpha1", "kind": "FortiaCluster", "name": plan.names.cluster,
                "uid": plan.uid, "controller": true, "blockOwnerDeletion": true,
            }],
        });
        Object { kind, name, body }
    }
}

/// Everything that runs all the time, in the order it is to be applied. `groups` are those status has decided on.
pub fn objects(plan: &Plan, groups: &[GroupId], passwords: &secrets::Passwords) -> Vec<Object> {
    let mut all = vec![secrets::acl(plan, passwords), config::valkey(plan)];
    all.extend(services::all(plan));
    for group in groups {
        all.extend(groups::group(plan, *group));
    }
    all.extend(servers::all(plan));
    all.extend(logserver::all(plan));
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::controller::validate::example;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    /// Fails when a field is unknown to Kubernetes: it would be lost on the way through the typed object.
    pub(crate) fn all_known<K: Serialize + DeserializeOwned>(object: &Object) {
        let typed: K = serde_json::from_value(object.body.clone()).expect("parses");
        assert_eq!(serde_json::to_value(&typed).expect("json"), object.body, "{}", object.name);
    }

    pub(crate) fn check(object: &Object) {
        match object.kind {
            Kind::Secret => all_known::<Secret>(object),
            Kind::ConfigMap => all_known::<ConfigMap>(object),
            Kind::Service => all_known::<Service>(object),
            Kind::StatefulSet => all_known::<StatefulSet>(object),
            Kind::PodDisruptionBudget => all_known::<PodDisruptionBudget>(object),
            Kind::Deployment => all_known::<Deployment>(object),
            Kind::Job => all_known::<Job>(object),
        }
    }

    fn built() -> (Plan, Vec<Object>) {
        let plan = example("redisShards: 2");
        let mut all = objects(&plan, &GroupId::all(2), &secrets::Passwords::generate().expect("random"));
        all.push(jobs::worldgen(&plan));
        all.push(jobs::migrate(&plan, 1, 2, 2));
        all.push(jobs::collect(&plan, 1, 2, &[]));
        (plan, all)
    }

    #[test]
    fn every_field_is_known_to_kubernetes() {
        built().1.iter().for_each(check);
    }

    #[test]
    fn every_object_is_owned_by_the_cluster_and_goes_with_it() {
        let (plan, all) = built();
        for object in all {
            assert_eq!(object.body["metadata"]["ownerReferences"][0]["uid"], plan.uid, "{}", object.name);
            assert_eq!(object.body["metadata"]["labels"]["app.kubernetes.io/instance"], "midgard");
        }
    }

    #[test]
    fn every_pod_is_locked_down() {
        let mut pods = 0;
        for object in built().1 {
            let Some(pod) = object.body.pointer("/spec/template/spec") else { continue };
            pods += 1;
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{}", object.name);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(pod["automountServiceAccountToken"], false);
            let container = &pod["containers"][0];
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{}", object.name);
        }
        assert_eq!(pods, 4 + 4 + 1 + 3);
    }

    #[test]
    fn every_server_and_redis_has_both_probes() {
        for object in built().1.iter().filter(|o| matches!(o.kind, Kind::StatefulSet | Kind::Deployment)) {
            let container = &object.body["spec"]["template"]["spec"]["containers"][0];
            assert!(container["readinessProbe"].is_object(), "{}", object.name);
            assert!(container["livenessProbe"].is_object(), "{}", object.name);
        }
    }

    #[test]
    fn no_password_is_in_any_object_but_its_secret() {
        let plan = example("redisShards: 1");
        let passwords = secrets::Passwords::generate().expect("random");
        for object in objects(&plan, &GroupId::all(1), &passwords) {
            let text = object.body.to_string();
            assert!(passwords.iter().all(|(_, password)| !text.contains(password)), "{}", object.name);
        }
    }
}
