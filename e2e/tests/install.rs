//! Installing: the operator by helm, a FortiaCluster by kubectl, and all of it is Ready.

use std::error::Error;

use fortia_e2e::{fortia, shared};

#[tokio::test]
async fn an_applied_cluster_becomes_ready_and_says_so_everywhere() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let object = world.object().await?;
    let status = &object["status"];
    assert_eq!(status["shards"], 2);
    assert_eq!(status["version"], 1);
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    for (kind, expected) in [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False")] {
        let condition = fortia::condition(&object, kind).ok_or(format!("no condition {kind}"))?;
        assert_eq!(condition["status"], expected, "{kind}: {condition}");
    }
    let scale = world
        .cluster
        .kubectl(&[
            "get",
            "--raw",
            &format!(
                "/apis/fortia.dev/v1alpha1/namespaces/{}/fortiaclusters/{}/scale",
                world.namespace, world.name
            ),
        ])
        .await?;
    let scale: serde_json::Value = serde_json::from_str(&scale)?;
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["replicas"], 2);
    let table = world.cluster.kubectl(&["get", "-n", &world.namespace, "fortiacluster"]).await?;
    for column in ["SHARDS", "VERSION", "PHASE", "TICK", "READY", "AGE"] {
        assert!(table.contains(column), "no column {column} in\n{table}");
    }
    Ok(())
}

#[tokio::test]
async fn every_pod_runs_without_privileges() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let pods = world.cluster.get(&["pods", "-n", &world.namespace]).await?;
    let pods = pods["items"].as_array().ok_or("no pods")?;
    assert!(pods.len() >= 14, "only {} pods", pods.len());
    for pod in pods {
        let name = &pod["metadata"]["name"];
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true, "{name}");
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
        }
    }
    Ok(())
}
