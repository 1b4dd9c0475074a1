//! Watches FortiaClusters and what they own, and reconciles them one pass at a time while this process leads.

mod act;
mod address;
pub mod annotations;
mod apply;
pub(crate) mod authority;
mod cleanup;
mod conditions;
mod decide;
mod events;
mod fitting;
mod health;
pub mod lease;
mod news;
mod observe;
mod owned;
mod reconcile;
mod records;
mod resharding;
mod rights;
mod status;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fortia_common::failpoint::Failpoints;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::build::Kind;
use crate::build::names::MANAGED;
use crate::crd::spec::FortiaCluster;
use crate::failover::redis::Redis;
use crate::metrics::Metrics;
use crate::settings::Settings;
use owned::{Applied, Touched, cluster_of, noted};
use rights::Rights;

/// Owner of the fields the operator applies.
pub(crate) const MANAGER: &str = "fortia-operator";

/// What all passes share.
pub struct Context {
    client: Client,
    settings: Settings,
    redis: Redis,
    recorder: Recorder,
    metrics: Metrics,
    failpoints: Failpoints,
    memory: Mutex<HashMap<String, Memory>>,
    touched: Touched,
}

/// What is remembered of a cluster to save work. Never an authority: all of it may be lost at any time.
#[derive(Default)]
struct Memory {
    /// Each object as last applied.
    applied: HashMap<(Kind, String), Applied>,
    /// Rights given to servers.
    rights: Rights,
    /// When status was last written.
    told: Option<Instant>,
    /// Keys of a version that were found on the serving shards before it was made, and when.
    leftovers: Option<(u64, u64, Instant)>,
    /// The last tick that was new, and when it was seen.
    ticked: Option<(u64, Instant)>,
    /// Since when replicas have been missed, by pod.
    apart: HashMap<String, Instant>,
}

impl Context {
    /// For a process that has become the leader.
    pub fn new(client: Client, settings: Settings, metrics: Metrics, failpoints: Failpoints) -> Context {
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(settings.identity.clone()) };
        Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            redis: Redis::default(),
            metrics,
            failpoints,
            memory: Mutex::default(),
            touched: Touched::default(),
        }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn watched<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.settings.watch_namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// Reconciles until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let ours = watcher::Config::default().labels(MANAGED);
    Controller::new(context.watched::<FortiaCluster>(), watcher::Config::default())
        .with_config(Config::default().concurrency(4))
        .owns(context.watched::<StatefulSet>(), ours.clone())
        .owns(context.watched::<Deployment>(), ours.clone())
        .owns(context.watched::<Job>(), ours.clone())
        // Passes look at those above live. Of these they know only what events tell.
        .watches(context.watched(), ours.clone(), noted::<Service>(context.clone(), Kind::Service))
        .watches(context.watched(), ours.clone(), noted::<ConfigMap>(context.clone(), Kind::ConfigMap))
        .watches(context.watched(), ours.clone(), noted::<Secret>(context.clone(), Kind::Secret))
        .watches(
            context.watched(),
            ours.clone(),
            noted::<PodDisruptionBudget>(context.clone(), Kind::PodDisruptionBudget),
        )
        .watches(context.watched(), ours, |pod: Pod| cluster_of(&pod))
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile::reconcile, reconcile::failed, context)
        .for_each(|_| std::future::ready(()))
        .await;
}
