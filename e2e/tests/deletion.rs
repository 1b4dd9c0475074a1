//! Deleting a FortiaCluster: nothing stays but the volumes, or nothing at all.

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::cluster::Cluster;
use fortia_e2e::shared;

const KINDS: &str =
    "statefulset,deployment,job,pod,service,secret,configmap,poddisruptionbudget,fortiacluster";

#[tokio::test]
async fn deleting_a_cluster_leaves_its_volumes_and_nothing_else() -> Result<(), Box<dyn Error>> {
    let world =
        shared::own_world("kept", "{redisShards: 1, world: {radius: 2}, deletionPolicy: Retain}").await?;
    let volumes = count(&world.cluster, "kept", "pvc").await?;
    assert!(volumes >= 6, "{volumes} volumes");
    delete(&world.cluster, "kept").await?;
    assert_eq!(count(&world.cluster, "kept", "pvc").await?, volumes);
    shared::remove(&world.cluster, "kept").await?;
    Ok(())
}

#[tokio::test]
async fn deleting_with_the_policy_delete_leaves_not_even_volumes() -> Result<(), Box<dyn Error>> {
    let world =
        shared::own_world("gone", "{redisShards: 1, world: {radius: 2}, deletionPolicy: Delete}").await?;
    delete(&world.cluster, "gone").await?;
    nothing_left(&world.cluster, "gone", "pvc").await?;
    shared::remove(&world.cluster, "gone").await?;
    Ok(())
}

async fn delete(cluster: &Cluster, name: &str) -> Result<(), Box<dyn Error>> {
    cluster.kubectl(&["delete", "fortiacluster", name, "-n", name, "--timeout=120s"]).await?;
    nothing_left(cluster, name, KINDS).await
}

/// Owned objects go a moment after their owner: the garbage collector is given half a minute.
async fn nothing_left(cluster: &Cluster, namespace: &str, kinds: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        let left = cluster.kubectl(&["get", kinds, "-n", namespace, "-o", "name"]).await?;
        let left: Vec<&str> = left.lines().filter(|line| *line != "configmap/kube-root-ca.crt").collect();
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("still there: {left:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn count(cluster: &Cluster, namespace: &str, kind: &str) -> Result<usize, Box<dyn Error>> {
    Ok(cluster.kubectl(&["get", kind, "-n", namespace, "-o", "name"]).await?.lines().count())
}
