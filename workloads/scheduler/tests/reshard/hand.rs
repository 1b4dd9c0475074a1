//! The operator played by hand: moves the topology from phase to phase by what pods and scheduler tell, as the operator's
//! `next` does, and keeps the Job's pods running. Knows no Kubernetes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fortia_common::boot::{Boot, Service};
use fortia_common::control::Control;
use fortia_common::records::{self, GUARD};
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_migrator::{Job, Work};
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_testredis::{CLUSTER, DataPlane};
use tokio::task::JoinHandle;

use crate::pods::Pods;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The operator; ends when dropped.
pub(crate) struct Hand {
    pub(crate) pods: Pods,
    pub(crate) control: ControlDb,
    pub(crate) boot: Boot,
    stopped: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Hand {
    /// Begins to operate; `read_latency` throttles the pods.
    pub(crate) fn start(plane: &DataPlane, read_latency: Option<Duration>) -> Hand {
        let boot = plane.boot(Service::Migrator);
        let (pods, control) = (Pods::default(), ControlDb::connect(&plane.boot(Service::Operator)));
        let stopped = Arc::new(AtomicBool::new(false));
        let operator = Operator {
            pods: pods.clone(),
            control: control.clone(),
            boot: boot.clone(),
            read_latency,
            versions: Mutex::default(),
        };
        let paused = Arc::clone(&stopped);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if !paused.load(Ordering::Relaxed) {
                    // What fails is looked at again.
                    let _ = operator.look().await;
                }
            }
        });
        Hand { pods, control, boot, stopped, task }
    }

    /// Stops the operator, or lets it go on.
    pub(crate) fn stop(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    /// Changes the topology, again and again until nobody was faster.
    pub(crate) async fn change(&self, change: impl Fn(&mut Topology)) -> Topology {
        loop {
            if let Ok(Some(old)) = self.control.topology().await {
                let mut new = old.clone();
                change(&mut new);
                new.epoch = raised(&old);
                if self.control.flip(None, old.epoch, &new).await.is_ok() {
                    return new;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next epoch; while a cut-over is asked for the one after, since under the next the guards are turned.
fn raised(topology: &Topology) -> u64 {
    topology.epoch + if topology.phase == Some(Phase::Cutover) { 2 } else { 1 }
}

struct Operator {
    pods: Pods,
    control: ControlDb,
    boot: Boot,
    read_latency: Option<Duration>,
    /// Those of the re-sharding that was seen last.
    versions: Mutex<[u64; 2]>,
}

impl Operator {
    async fn look(&self) -> Result<(), RdbError> {
        let Some(topology) = self.control.topology().await? else { return Ok(()) };
        match (topology.phase, topology.target) {
            (Some(phase), Some(target)) if phase.carries() => self.carry(topology, phase, target).await,
            // The pods of the flip end by themselves.
            (Some(Phase::Retaining), None) => {
                if let Some(from) = topology.previous {
                    self.pods.keep(&self.boot, &self.job(self.begun(&topology), from.version), 0);
                }
                Ok(())
            }
            (Some(Phase::Collecting | Phase::Aborting), _) => self.collect(topology).await,
            _ => {
                self.pods.clear();
                Ok(())
            }
        }
    }

    /// A rollback begins with what was noted since.
    fn begun(&self, topology: &Topology) -> Work {
        match topology.target {
            Some(target) if target.version < topology.serving.version => Work::CatchUp,
            _ => Work::Copy,
        }
    }

    async fn carry(&self, topology: Topology, phase: Phase, target: Layout) -> Result<(), RdbError> {
        *self.versions.lock().unwrap_or_else(PoisonError::into_inner) =
            [topology.serving.version, target.version];
        let sources = topology.serving.shards;
        let job = self.job(self.begun(&topology), topology.serving.version);
        self.pods.keep(&self.boot, &job, sources);
        let mut done = true;
        for index in 0..sources {
            let progress = self.control.progress(target.version, index).await?;
            done &= progress.is_some_and(|progress| progress.done);
        }
        let next = match (phase, done) {
            (Phase::Cutover, false) => Phase::Verifying,
            (Phase::Copying | Phase::CatchingUp | Phase::Verifying, true) => Phase::Cutover,
            _ => return Ok(()),
        };
        let (old, epoch) = (topology.epoch, raised(&topology));
        let new = Topology { epoch, phase: Some(next), ..topology };
        self.control.flip(None, old, &new).await
    }

    /// The version that does not serve goes from every server.
    async fn collect(&self, topology: Topology) -> Result<(), RdbError> {
        let versions = *self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let version = versions.into_iter().find(|version| *version != topology.serving.version).unwrap_or(0);
        for (index, group) in topology.groups.iter().enumerate().skip(topology.serving.shards as usize) {
            self.close(&topology, index, &group.primary).await?;
        }
        let groups = topology.groups.len() as u32;
        if self.pods.keep(&self.boot, &self.job(Work::Collect, version), groups) {
            let new =
                Topology { epoch: topology.epoch + 1, phase: None, target: None, previous: None, ..topology };
            self.forget(&versions, groups).await;
            self.control.flip(None, new.epoch - 1, &new).await?;
            self.pods.clear();
        }
        Ok(())
    }

    /// What pods have told goes with the re-sharding: the next may have the same version.
    async fn forget(&self, versions: &[u64; 2], pods: u32) {
        let mut delete = redis::cmd("DEL");
        for version in versions {
            for index in 0..pods {
                delete.arg(records::progress_key(*version, index));
            }
        }
        let client = redis::Client::open(format!("redis://{}", self.boot.control_db)).expect("an address");
        if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
            let _ = delete.query_async::<u64>(&mut connection).await;
        }
    }

    /// A group that serves no more is frozen for the serving version, without a target.
    async fn close(&self, topology: &Topology, index: usize, address: &str) -> Result<(), RdbError> {
        let mut guard = redis::cmd("FCALL");
        guard.arg("fortia_guard").arg(1).arg(GUARD).arg(CLUSTER).arg(&topology.groups[index].name).arg(index);
        guard.arg(topology.epoch).arg(topology.serving.version).arg("frozen").arg(0).arg("");
        let client = redis::Client::open(format!("redis://{address}")).expect("an address");
        // Not answered: looked at again.
        if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
            let _ = guard.query_async::<redis::Value>(&mut connection).await;
        }
        Ok(())
    }

    fn job(&self, work: Work, from: u64) -> Job {
        Job {
            work,
            from,
            index: 0,
            parallelism: 8,
            read_latency: self.read_latency,
            lost: Vec::new(),
            patience: Duration::from_secs(10),
        }
    }
}
