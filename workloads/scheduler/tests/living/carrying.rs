//! A re-sharding played by hand: the operator's phases, and the migrator's pods as tasks that are started again when they
//! end badly. For tests only.

use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::CutoverRecord;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_migrator::{Job, Work};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// The pods of a Job; they end with this.
pub(crate) struct Pods(Vec<JoinHandle<()>>);

impl Drop for Pods {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Cluster {
    /// Goes on to a phase, as the operator does.
    pub(crate) async fn phase(&self, phase: Phase) -> Topology {
        self.change(|topology| topology.phase = Some(phase)).await
    }

    /// Writes another topology under the next epoch, whoever else writes one.
    pub(crate) async fn change(&self, change: impl Fn(&mut Topology)) -> Topology {
        loop {
            let old = self.plane.topology().await;
            let mut new = old.clone();
            change(&mut new);
            // As the operator does: under the next epoch a cut-over turns the guards.
            new.epoch = old.epoch + if old.phase == Some(Phase::Cutover) { 2 } else { 1 };
            if self.control.flip(None, old.epoch, &new).await.is_ok() {
                return new;
            }
        }
    }

    /// Begins to carry the world from the serving layout to the target.
    pub(crate) async fn pods(&self, work: Work) -> Pods {
        let from = self.plane.topology().await.serving;
        let pods = (0..from.shards).map(|source| {
            let boot = self.plane.boot_as(Service::Migrator, &format!("pod-{source}"));
            tokio::spawn(async move {
                let job = Job::new(work, from.version, source);
                while fortia_migrator::run(&boot, &job, &Failpoints::default(), |_| ()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        });
        Pods(pods.collect())
    }

    /// Waits until every source is proven equal in the target.
    pub(crate) async fn proven(&self) {
        let topology = self.plane.topology().await;
        let (from, to) = (topology.serving, topology.target.expect("a target"));
        let done = async |c: &Cluster| {
            for source in 0..from.shards {
                let told = c.control.progress(to.version, source).await.expect("progress");
                if told.is_none_or(|told| !told.done) {
                    return false;
                }
            }
            true
        };
        self.wait_until("the proof", done).await;
    }

    /// Carries the world to so many shards until it may be cut over.
    pub(crate) async fn carried(&mut self, shards: u32) -> (Layout, Pods) {
        let topology = self.plane.retarget(shards, Phase::Copying).await;
        let pods = self.pods(Work::Copy).await;
        self.proven().await;
        (topology.target.expect("a target"), pods)
    }

    /// Waits until this layout serves and what the cut-over came to is told.
    pub(crate) async fn flipped(&self, to: Layout) -> CutoverRecord {
        let serves = async |c: &Cluster| c.plane.topology().await.serving == to;
        self.wait_until("the flip", serves).await;
        let told = async |c: &Cluster| c.tried().await.is_some_and(|t| t.flipped && t.version == to.version);
        self.wait_until("word of the flip", told).await;
        self.tried().await.expect("told")
    }

    /// What the last try to cut over came to.
    pub(crate) async fn tried(&self) -> Option<CutoverRecord> {
        self.control.cutover().await.expect("a record")
    }
}
