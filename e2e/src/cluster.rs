//! The Kubernetes the tests and the demo run on: the local one of `fortia-cluster`, or the current kubectl
//! context. Knows how to run kubectl and helm and how to reach a Service; nothing of Fortia.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A command or the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program could not be started.
    #[error("cannot run {program}: {source}; run `make build` first")]
    Start {
        /// What was to be run.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The answer of a program is not what it should be.
    #[error("`{command}` printed something unexpected: {source}")]
    Unexpected {
        /// The command line.
        command: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A forward did not begin to listen.
    #[error("no connection to {target} within {seconds} s")]
    Forward {
        /// The Service.
        target: String,
        /// How long was waited.
        seconds: u64,
    },
}

/// Where the cluster comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made on this machine by `fortia-cluster`, under this name.
    Local(String),
    /// The current context of kubectl (`CLUSTER=current`).
    Current,
}

/// A Kubernetes to work on.
#[derive(Clone, Debug)]
pub struct Cluster {
    source: Source,
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

impl Cluster {
    /// Brings up the local cluster `name` (a running one is kept), or takes the current context when the
    /// environment has `CLUSTER=current`.
    ///
    /// # Errors
    /// When the cluster does not come up.
    pub async fn up(name: &str) -> Result<Cluster, ClusterError> {
        if std::env::var("CLUSTER").is_ok_and(|value| value == "current") {
            return Ok(Cluster { source: Source::Current, program: "kubectl".into(), kubeconfig: None });
        }
        let program = root().join("build/fortia-cluster");
        run(Command::new(&program).args(["up", "--name", name])).await?;
        let path = run(Command::new(&program).args(["kubeconfig", "--name", name])).await?;
        let kubeconfig = Some(PathBuf::from(path.trim()));
        Ok(Cluster { source: Source::Local(name.into()), program, kubeconfig })
    }

    /// The local cluster `name` if it is up, or the current context: nothing is started.
    pub async fn running(name: &str) -> Option<Cluster> {
        if std::env::var("CLUSTER").is_ok_and(|value| value == "current") {
            return Cluster::up(name).await.ok();
        }
        let program = root().join("build/fortia-cluster");
        // A kubeconfig alone may be left of a machine that was restarted.
        run(Command::new(&program).args(["status", "--name", name])).await.ok()?;
        let path = run(Command::new(&program).args(["kubeconfig", "--name", name])).await.ok()?;
        let kubeconfig = Some(PathBuf::from(path.trim()));
        Some(Cluster { source: Source::Local(name.into()), program, kubeconfig })
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The kubeconfig file of a local cluster.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Ends a local cluster and removes every trace of it.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn down(name: &str) -> Result<(), ClusterError> {
        run(Command::new(root().join("build/fortia-cluster")).args(["down", "--name", name])).await.map(drop)
    }

    /// Imports the images of a tar into a local cluster; the current context is expected to have them.
    ///
    /// # Errors
    /// When the import fails.
    pub async fn load(&self, tar: &Path) -> Result<(), ClusterError> {
        match &self.source {
            Source::Local(name) => {
                run(Command::new(&self.program).args(["load", "--name", name]).arg(tar)).await.map(drop)
            }
            Source::Current => Ok(()),
        }
    }

    /// Runs kubectl and gives what it printed.
    ///
    /// # Errors
    /// When it fails; the error holds what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, ClusterError> {
        run(self.tool("kubectl").args(arguments)).await
    }

    /// Runs kubectl and gives the warnings that the API server sent with its answer.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub async fn warnings(&self, arguments: &[&str]) -> Result<Vec<String>, ClusterError> {
        let (_, told) = output(self.tool("kubectl").args(arguments), "").await?;
        Ok(told.lines().filter_map(|line| line.strip_prefix("Warning: ")).map(str::to_owned).collect())
    }

    /// `kubectl get ... -o json`.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub async fn get(&self, arguments: &[&str]) -> Result<serde_json::Value, ClusterError> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        let text = self.kubectl(&all).await?;
        serde_json::from_str(&text)
            .map_err(|source| ClusterError::Unexpected { command: all.join(" "), source })
    }

    /// `kubectl apply` of a manifest.
    ///
    /// # Errors
    /// When it is refused; the error holds the server's message.
    pub async fn apply(&self, namespace: &str, manifest: &str) -> Result<String, ClusterError> {
        let mut command = self.tool("kubectl");
        command.args(["apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-"]);
        run_with_input(&mut command, manifest).await
    }

    /// Runs helm and gives what it printed.
    ///
    /// # Errors
    /// When it fails; the error holds what it printed.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String, ClusterError> {
        run(self.tool("helm").args(arguments)).await
    }

    /// Makes a Service or address reachable on the loopback of this machine, as long as the forward lives.
    ///
    /// # Errors
    /// When no connection is had within half a minute.
    pub async fn forward(&self, target: &Target) -> Result<Forward, ClusterError> {
        self.forward_at(target, 0).await
    }

    /// As [`Cluster::forward`], at the port `wanted` if it is free.
    ///
    /// # Errors
    /// As [`Cluster::forward`].
    pub async fn forward_at(&self, target: &Target, wanted: u16) -> Result<Forward, ClusterError> {
        let port = free_port(wanted);
        let mut command = match (&self.source, target) {
            (Source::Local(name), Target::Service { namespace, name: service, port: inside }) => {
                let mut command = Command::new(&self.program);
                command.args([
                    "forward",
                    "--name",
                    name,
                    &format!("{port}:svc/{namespace}/{service}:{inside}"),
                ]);
                command
            }
            (Source::Local(name), Target::Address(address)) => {
                let mut command = Command::new(&self.program);
                command.args(["forward", "--name", name, &format!("{port}:{address}")]);
                command
            }
            (Source::Current, Target::Service { namespace, name, port: inside }) => {
                let mut command = self.tool("kubectl");
                command.args([
                    "port-forward",
                    "-n",
                    namespace,
                    &format!("svc/{name}"),
                    &format!("{port}:{inside}"),
                ]);
                command
            }
            (Source::Current, Target::Address(address)) => {
                return Err(ClusterError::Failed {
                    command: format!("forward {address}"),
                    output: "pod addresses can be reached on a local cluster only".into(),
                });
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| ClusterError::Start { program: "forward".into(), source })?;
        let forward = Forward { port, child: Some(child) };
        forward.wait(target).await?;
        Ok(forward)
    }

    fn tool(&self, name: &str) -> Command {
        match &self.source {
            Source::Local(cluster) => {
                let mut command = Command::new(&self.program);
                command.arg(name).env("FORTIA_CLUSTER_NAME", cluster);
                if let Some(path) = &self.kubeconfig {
                    command.env("KUBECONFIG", path);
                }
                command
            }
            Source::Current => Command::new(name),
        }
    }
}

/// What a forward leads to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A port of a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The Service's port.
        port: u16,
    },
    /// `ip:port` inside the cluster.
    Address(String),
}

/// A running forward; ends when dropped.
#[derive(Debug)]
pub struct Forward {
    port: u16,
    /// None once detached.
    child: Option<Child>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Only fails when it has ended already.
            let _ = child.start_kill();
        }
    }
}

impl Forward {
    /// The port on this machine's loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base address for HTTP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lets the forward live on after this process; its pid.
    pub fn detach(mut self) -> Option<u32> {
        self.child.take().and_then(|child| child.id())
    }

    async fn wait(&self, target: &Target) -> Result<(), ClusterError> {
        let patience = Duration::from_secs(30);
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(ClusterError::Forward { target: format!("{target:?}"), seconds: patience.as_secs() })
    }
}

fn free_port(wanted: u16) -> u16 {
    let listen = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|l| l.local_addr());
    listen(wanted).or_else(|_| listen(0)).map_or(wanted, |address| address.port())
}

async fn run(command: &mut Command) -> Result<String, ClusterError> {
    run_with_input(command, "").await
}

async fn run_with_input(command: &mut Command, input: &str) -> Result<String, ClusterError> {
    Ok(output(command, input).await?.0)
}

/// What a program that ends well printed, and what it said beside.
async fn output(command: &mut Command, input: &str) -> Result<(String, String), ClusterError> {
    let line = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ClusterError::Start { program: line.clone(), source })?;
    let failed = |output: String| ClusterError::Failed { command: line.clone(), output };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(|e| failed(e.to_string()))?;
    }
    let output = child.wait_with_output().await.map_err(|e| failed(e.to_string()))?;
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if output.status.success() {
        return Ok((stdout, stderr));
    }
    Err(failed(format!("{stdout}{stderr}")))
}
