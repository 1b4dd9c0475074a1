//! Uninstalling: after the worlds, the operator goes, and nothing of Fortia is left in the cluster.

use std::error::Error;

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

    let kinds = "clusterrole,clusterrolebinding,namespace,persistentvolume,crd,priorityclass,validatingwebhookconfiguration";
    let left = cluster.kubectl(&["get", kinds, "-A", "-o", "name"]).await?;
    let ours: Vec<&str> = left.lines().filter(|line| line.contains("fortia")).collect();
    assert!(ours.is_empty(), "still there: {ours:?}");
    Ok(())
}
