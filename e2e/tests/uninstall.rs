//! Uninstalling: after the worlds, the operator goes, and nothing of Fortia is left in the cluster.

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::cluster::Cluster;
use fortia_e2e::fortia::SYSTEM;
use fortia_e2e::shared;

#[tokio::test]
async fn uninstalling_leaves_nothing_of_fortia() -> Result<(), Box<dyn Error>> {
    let cluster = shared::cluster().await?;
    for namespace in ["shared", "reshard", "faults", "kept", "gone"] {
        shared::remove(&cluster, namespace).await?;
    }
    cluster.helm(&["uninstall", "fortia-operator", "--namespace", SYSTEM, "--wait"]).await?;
    // The definition is kept by design: deleting it would delete every world.
    let kept = cluster.kubectl(&["get", "crd", "fortiaclusters.fortia.dev", "-o", "name"]).await?;
    assert!(kept.contains("fortiaclusters.fortia.dev"));
    cluster.kubectl(&["delete", "crd", "fortiaclusters.fortia.dev", "--timeout=60s"]).await?;
    cluster.kubectl(&["delete", "namespace", SYSTEM, "--timeout=60s"]).await?;

    volumes_go(&cluster).await?;
    let kinds = "clusterrole,clusterrolebinding,namespace,crd,priorityclass,validatingwebhookconfiguration";
    let left = cluster.kubectl(&["get", kinds, "-A", "-o", "name"]).await?;
    let ours: Vec<&str> = left.lines().filter(|line| line.contains("fortia")).collect();
    assert!(ours.is_empty(), "still there: {ours:?}");
    Ok(())
}

/// The tests' cluster has no volumes but Fortia's; the provisioner removes them a moment after their claims.
async fn volumes_go(cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        let left = cluster.kubectl(&["get", "persistentvolume", "-o", "name"]).await?;
        if left.trim().is_empty() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("volumes are left:\n{left}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
