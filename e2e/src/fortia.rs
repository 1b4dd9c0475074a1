//! An installed Fortia: the operator by its chart, a FortiaCluster by its manifest, and what its status says.
//! Knows kubectl and helm through [`Cluster`]; nothing of Redis or of the REST API.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, Forward, Target, root};

/// Namespace of the operator.
pub const SYSTEM: &str = "fortia-system";
/// Patience for a FortiaCluster to become Ready on a busy two-core machine.
pub const READY: Duration = Duration::from_secs(180);

/// Why an installed Fortia is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FortiaError {
    /// The cluster did not do what was asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The tests were asked to run on a cluster they did not make.
    #[error("the end-to-end tests run on a local cluster of their own only: unset CLUSTER")]
    NotLocal,
    /// The manifest is not a FortiaCluster.
    #[error("manifest is not a FortiaCluster with a name: {0}")]
    Manifest(String),
    /// A pod's metrics could not be read.
    #[error("metrics of pod {0} cannot be read: {1}")]
    Metrics(String, String),
    /// Something did not come true in time.
    #[error("{what} did not come true within {seconds} s; last status: {status}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The status then.
        status: String,
    },
}

/// Installs or upgrades the operator from the repository's chart, with the locally built images. Its log goes to the
/// logserver of the world of `fortiacluster.yaml` in the namespace `world`.
///
/// # Errors
/// When helm or the roll-out fails.
pub async fn install_operator(cluster: &Cluster, world: &str) -> Result<(), FortiaError> {
    let chart = root().join("charts/fortia-operator");
    let values = root().join("e2e/values.yaml");
    let (chart, values) = (chart.to_string_lossy(), values.to_string_lossy());
    let logs = format!("logs=http://midgard-logserver.{world}.svc:4317");
    cluster
        .helm(&[
            "upgrade",
            "--install",
            "fortia-operator",
            &chart,
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--values",
            &values,
            "--set",
            &logs,
            "--wait",
            "--timeout",
            "120s",
        ])
        .await?;
    Ok(())
}

/// One FortiaCluster.
#[derive(Clone, Debug)]
pub struct Fortia {
    /// The Kubernetes it runs on.
    pub cluster: Cluster,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Loopback ways to the services players use.
#[derive(Debug)]
pub struct Gateway {
    /// To the auth Service.
    pub auth: Forward,
    /// To the game Service.
    pub game: Forward,
}

impl Fortia {
    /// Applies a FortiaCluster manifest into a namespace, which is made when absent.
    ///
    /// # Errors
    /// When the manifest is refused.
    pub async fn apply(cluster: &Cluster, namespace: &str, manifest: &str) -> Result<Fortia, FortiaError> {
        let parsed: Value =
            serde_yaml::from_str(manifest).map_err(|error| FortiaError::Manifest(error.to_string()))?;
        let name = parsed["metadata"]["name"]
            .as_str()
            .ok_or_else(|| FortiaError::Manifest("metadata.name is missing".into()))?;
        let space = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
        cluster.apply(namespace, &space).await?;
        cluster.apply(namespace, manifest).await?;
        Ok(Fortia { cluster: cluster.clone(), namespace: namespace.into(), name: name.into() })
    }

    /// The FortiaCluster `name` if it is there already: applying its file once more would undo what was edited since.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn find(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Fortia>, FortiaError> {
        let found = cluster
            .kubectl(&["get", "-n", namespace, "fortiacluster", name, "--ignore-not-found", "-o", "name"])
            .await?;
        let fortia = Fortia { cluster: cluster.clone(), namespace: namespace.into(), name: name.into() };
        Ok((!found.trim().is_empty()).then_some(fortia))
    }

    /// Reads a manifest from a file of the repository and applies it.
    ///
    /// # Errors
    /// When it cannot be read or is refused.
    pub async fn apply_file(cluster: &Cluster, namespace: &str, path: &Path) -> Result<Fortia, FortiaError> {
        let text = std::fs::read_to_string(root().join(path))
            .map_err(|error| FortiaError::Manifest(format!("{}: {error}", path.display())))?;
        Fortia::apply(cluster, namespace, &text).await
    }

    /// The FortiaCluster as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn object(&self) -> Result<Value, FortiaError> {
        Ok(self.cluster.get(&["-n", &self.namespace, "fortiacluster", &self.name]).await?)
    }

    /// Changes `spec.redisShards`, as `kubectl scale` does.
    ///
    /// # Errors
    /// When the change is refused.
    pub async fn scale(&self, shards: u32) -> Result<(), FortiaError> {
        let replicas = format!("--replicas={shards}");
        self.cluster
            .kubectl(&["scale", "-n", &self.namespace, "fortiacluster", &self.name, &replicas])
            .await?;
        Ok(())
    }

    /// Sets an annotation of the object, or takes it away: `key=value` or `key-`.
    ///
    /// # Errors
    /// When the change is refused.
    pub async fn annotate(&self, annotation: &str) -> Result<(), FortiaError> {
        let annotate =
            ["annotate", "--overwrite", "-n", &self.namespace, "fortiacluster", &self.name, annotation];
        self.cluster.kubectl(&annotate).await?;
        Ok(())
    }

    /// Merges this into the object, as `kubectl patch` does.
    ///
    /// # Errors
    /// When the change is refused.
    pub async fn patch(&self, merge: &str) -> Result<(), FortiaError> {
        let patch =
            ["patch", "--type", "merge", "-n", &self.namespace, "fortiacluster", &self.name, "-p", merge];
        self.cluster.kubectl(&patch).await?;
        Ok(())
    }

    /// Reads the object until `is` holds, showing each to `seen`.
    ///
    /// # Errors
    /// When `patience` is over; the error holds the last status.
    pub async fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut seen: impl FnMut(&Value),
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value, FortiaError> {
        let begun = Instant::now();
        loop {
            let object = self.object().await?;
            seen(&object);
            if is(&object) {
                return Ok(object);
            }
            if begun.elapsed() > patience {
                return Err(FortiaError::Late {
                    what: what.into(),
                    seconds: patience.as_secs(),
                    status: object["status"].to_string(),
                });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Waits until the condition Ready is true for the current generation.
    ///
    /// # Errors
    /// When it does not come true in [`READY`].
    pub async fn ready(&self) -> Result<Value, FortiaError> {
        self.wait("Ready", READY, |_| {}, is_ready).await
    }

    /// Makes auth and game reachable from this machine.
    ///
    /// # Errors
    /// When a forward does not come up.
    pub async fn gateway(&self) -> Result<Gateway, FortiaError> {
        let (auth, game) = tokio::try_join!(self.forward("auth", 80), self.forward("game", 80))?;
        Ok(Gateway { auth, game })
    }

    /// Makes a port of the Service `<name>-<service>` reachable from this machine.
    ///
    /// # Errors
    /// When the forward does not come up.
    pub async fn forward(&self, service: &str, port: u16) -> Result<Forward, FortiaError> {
        let target = Target::Service {
            namespace: self.namespace.clone(),
            name: format!("{}-{service}", self.name),
            port,
        };
        Ok(self.cluster.forward(&target).await?)
    }

    /// Address of a port of a running pod, inside the cluster.
    ///
    /// # Errors
    /// When the pod cannot be read or has no address yet.
    pub async fn pod_address(&self, pod: &str, port: u16) -> Result<Target, FortiaError> {
        let pod = self.cluster.get(&["-n", &self.namespace, "pod", pod]).await?;
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        Ok(Target::Address(format!("{ip}:{port}")))
    }

    /// Names of the running pods of a service, by its label.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self, component: &str) -> Result<Vec<String>, FortiaError> {
        let selector =
            format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.name);
        let list = self.cluster.get(&["-n", &self.namespace, "pods", "-l", &selector]).await?;
        let names = list["items"].as_array().into_iter().flatten();
        Ok(names.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Pods of the namespace whose containers ended and were started again, with what ended the last of them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn restarted(&self) -> Result<Vec<String>, FortiaError> {
        let list = self.cluster.get(&["-n", &self.namespace, "pods"]).await?;
        let mut restarted = Vec::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
                if container["restartCount"] != 0 {
                    restarted.push(format!("{}: {}", pod["metadata"]["name"], container["lastState"]));
                }
            }
        }
        Ok(restarted)
    }

    /// A value of a Secret in the namespace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn secret(&self, name: &str, key: &str) -> Result<String, FortiaError> {
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        Ok(self.cluster.kubectl(&["get", "secret", "-n", &self.namespace, name, "-o", &template]).await?)
    }
}

/// Whether the condition Ready is true and was judged for the current generation.
pub fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|ready| {
        ready["status"] == "True"
            && object["status"]["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// A condition of the object's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
