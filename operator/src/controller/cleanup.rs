//! The end of a FortiaCluster: what owner references do not take along, by its deletion policy.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::Context;
use super::reconcile::Error;
use crate::build::names::{INSTANCE, MANAGED};
use crate::crd::spec::{DeletionPolicy, FortiaCluster};

/// Keeps a FortiaCluster until its volumes are dealt with.
pub(super) const FINALIZER: &str = "fortia.dev/cleanup";

/// Puts the finalizer on; true when it was missing.
pub(super) async fn hold(context: &Context, cluster: &FortiaCluster, namespace: &str) -> Result<bool, Error> {
    if cluster.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(false);
    }
    let mut finalizers = cluster.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    patch(context, cluster, namespace, &finalizers).await?;
    Ok(true)
}

/// Deletes the volumes if the policy says so, then lets the FortiaCluster go; the rest goes with its owner.
pub(super) async fn clean_up(
    context: &Context,
    cluster: &FortiaCluster,
    namespace: &str,
) -> Result<(), Error> {
    if !cluster.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(());
    }
    let name = cluster.name_any();
    if cluster.spec.deletion_policy == DeletionPolicy::Delete {
        let claims = context.api::<PersistentVolumeClaim>(namespace);
        let mine = ListParams::default().labels(&format!("{INSTANCE}={name},{MANAGED}"));
        for claim in claims.list(&mine).await? {
            let same = Preconditions { uid: claim.meta().uid.clone(), resource_version: None };
            match claims.delete(&claim.name_any(), &DeleteParams::default().preconditions(same)).await {
                Err(kube::Error::Api(error)) if error.code == 404 => {}
                other => {
                    other?;
                }
            }
        }
    }
    let rest: Vec<String> = cluster.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
    patch(context, cluster, namespace, &rest).await?;
    if let Some(uid) = cluster.uid() {
        context.memory.lock().await.remove(&uid);
    }
    context.metrics.forget(namespace, &name);
    tracing::info!(cluster = name, policy = ?cluster.spec.deletion_policy, "cluster deleted");
    Ok(())
}

async fn patch(
    context: &Context,
    cluster: &FortiaCluster,
    namespace: &str,
    finalizers: &[String],
) -> Result<(), Error> {
    // With the version that was read: another's finalizer is never lost.
    let patch = json!({ "metadata": {
        "resourceVersion": cluster.resource_version(), "finalizers": finalizers } });
    let api = context.api::<FortiaCluster>(namespace);
    api.patch(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}
