//! Operator and scheduler played by hand: begins a re-sharding, runs its pods, flips it. Knows the order of the phases as
//! the operator goes through them.

use std::time::{Duration, Instant};

use fortia_common::boot::{Boot, Service};
use fortia_common::failpoint::Failpoints;
use fortia_common::records::Progress;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_migrator::{Job, MigrateError, Work, run};
use fortia_rdb::control::ControlDb;
use fortia_rdb::migrate::cutover::Cutover;
use fortia_testredis::DataPlane;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait for a migration of a test.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) type Pod = JoinHandle<Result<Progress, MigrateError>>;

/// One re-sharding.
pub(crate) struct Hand {
    pub(crate) plane: DataPlane,
    pub(crate) from: Layout,
    pub(crate) to: Layout,
    topology: watch::Sender<Topology>,
    control: ControlDb,
    cutover: Cutover,
}

impl Hand {
    /// A re-sharding is begun at once, under a guard that notes.
    pub(crate) async fn begin(plane: DataPlane, shards: u32) -> Hand {
        let serving = plane.topology().await.serving;
        Hand::begin_to(plane, Layout { version: serving.version + 1, shards, ..serving }).await
    }

    /// As [`Hand::begin`], to any layout.
    pub(crate) async fn begin_to(plane: DataPlane, to: Layout) -> Hand {
        let hand = Hand::ready(plane, to).await;
        hand.start().await
    }

    /// The target's servers are there; nothing else is done yet.
    pub(crate) async fn ready(mut plane: DataPlane, to: Layout) -> Hand {
        while plane.shards.len() < to.shards as usize {
            plane.add_shard().await;
        }
        let boot = plane.boot(Service::Scheduler);
        let topology = watch::Sender::new(plane.topology().await);
        let (cutover, control) = (Cutover::new(&boot), ControlDb::connect(&boot));
        let from = plane.topology().await.serving;
        Hand { plane, from, to, topology, control, cutover }
    }

    /// Goes to Copying: target in the topology, guards that note.
    pub(crate) async fn start(mut self) -> Hand {
        let begun = self.plane.retarget_to(self.to, Phase::Copying).await;
        self.topology.send_replace(begun.clone());
        self.cutover.note(&begun).await.expect("guards note");
        self
    }

    /// The topology as it changes.
    pub(crate) fn topology(&self) -> watch::Receiver<Topology> {
        self.topology.subscribe()
    }

    pub(crate) fn boot(&self) -> Boot {
        self.plane.boot(Service::Migrator)
    }

    /// Starts the pods, one a source, without a throttle.
    pub(crate) fn pods(&self, failpoints: &Failpoints) -> Vec<Pod> {
        let pod = |index| {
            let job = Job {
                work: Work::Copy,
                from: self.from.version,
                index,
                parallelism: self.from.shards,
                read_latency: None,
                lost: Vec::new(),
                patience: Duration::from_secs(5),
            };
            let (boot, failpoints) = (self.boot(), failpoints.clone());
            tokio::spawn(async move { run(&boot, &job, &failpoints, |_| ()).await })
        };
        (0..self.from.shards).map(pod).collect()
    }

    /// Waits until every pod has its proof, and returns their last words.
    pub(crate) async fn proven(&self, pods: &mut [Pod]) -> Vec<Progress> {
        let begun = Instant::now();
        loop {
            if let Some(ended) = pods.iter_mut().find(|pod| pod.is_finished()) {
                panic!("a pod ended before the flip: {:?}", ended.await);
            }
            let told = self.progress().await;
            if told.len() == pods.len() && told.iter().all(|progress| progress.done) {
                return told;
            }
            assert!(begun.elapsed() < PATIENCE, "the pods do not come to a proof: {told:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the pods have told so far.
    pub(crate) async fn progress(&self) -> Vec<Progress> {
        let mut told = Vec::new();
        for index in 0..self.from.shards {
            told.extend(self.control.progress(self.to.version, index).await.expect("the control database"));
        }
        told
    }

    /// Cuts over, as the scheduler does, and returns for how long nobody could write.
    pub(crate) async fn flip(&self) -> Duration {
        let mut cutting = self.plane.topology().await;
        (cutting.epoch, cutting.phase) = (cutting.epoch + 1, Some(Phase::Cutover));
        self.change(&cutting).await;
        self.cutover.note(&cutting).await.expect("guards note");
        while self.cutover.lag(&cutting).await.expect("a lag") > 256 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = Topology {
            epoch: cutting.epoch + 1,
            serving: self.to,
            target: None,
            phase: Some(Phase::Retaining),
            previous: Some(self.from),
            ..cutting.clone()
        };
        let began = Instant::now();
        let frozen = self.cutover.freeze(&cutting).await.expect("guards freeze");
        self.cutover.drain(&cutting, &frozen, false).await.expect("what is noted is carried");
        self.cutover.turn(&cutting, &after, 1, 0).await.expect("guards turn");
        self.plane.set_topology(&after).await;
        let pause = began.elapsed();
        self.topology.send_replace(after);
        pause
    }

    async fn change(&self, topology: &Topology) {
        self.plane.set_topology(topology).await;
        self.topology.send_replace(topology.clone());
    }

    /// Waits for the pods to end by themselves after the flip.
    pub(crate) async fn ended(&self, pods: Vec<Pod>) {
        for pod in pods {
            let ended = tokio::time::timeout(PATIENCE, pod).await.expect("the pod ends after the flip");
            ended.expect("the pod does not panic").expect("the pod ends well");
        }
    }
}
