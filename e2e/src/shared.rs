//! What the end-to-end tests stand on: one local cluster with the operator, and one world that all tests which do
//! no harm share. Tests that scale, kill or delete bring up a world of their own.

use std::path::Path;

use crate::cluster::{Cluster, ClusterError};
use crate::fortia::{self, Fortia, FortiaError};

/// Namespace of the world that the tests share.
const WORLD: &str = "shared";

/// The cluster of the tests, with the operator installed. `make e2e` has loaded the images.
///
/// # Errors
/// When it does not come up, or is not a local one.
pub async fn cluster() -> Result<Cluster, FortiaError> {
    if std::env::var("CLUSTER").is_ok_and(|value| value == "current") {
        // They delete namespaces, the operator and the definition: nothing for a cluster that somebody else uses.
        return Err(FortiaError::NotLocal);
    }
    let name = std::env::var("FORTIA_CLUSTER_NAME").unwrap_or_else(|_| "test".into());
    let cluster = Cluster::up(&name).await?;
    fortia::install_operator(&cluster, WORLD).await?;
    Ok(cluster)
}

/// The world of `fortiacluster.yaml`, Ready.
///
/// # Errors
/// When it does not become Ready.
pub async fn world() -> Result<Fortia, FortiaError> {
    let cluster = cluster().await?;
    let fortia = Fortia::apply_file(&cluster, WORLD, Path::new("fortiacluster.yaml")).await?;
    fortia.ready().await?;
    Ok(fortia)
}

/// A world of a test's own in the namespace `name`, Ready; made from nothing.
///
/// # Errors
/// When it does not become Ready.
pub async fn own_world(name: &str, spec: &str) -> Result<Fortia, FortiaError> {
    let cluster = cluster().await?;
    remove(&cluster, name).await?;
    let manifest = format!(
        "apiVersion: fortia.dev/v1alpha1\nkind: FortiaCluster\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    let fortia = Fortia::apply(&cluster, name, &manifest).await?;
    fortia.ready().await?;
    Ok(fortia)
}

/// Removes a namespace and all in it.
///
/// # Errors
/// When it does not go.
pub async fn remove(cluster: &Cluster, namespace: &str) -> Result<(), ClusterError> {
    let all = ["delete", "fortiacluster", "--all", "-n", namespace, "--ignore-not-found", "--timeout=120s"];
    cluster.kubectl(&all).await?;
    cluster
        .kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"])
        .await
        .map(drop)
}
