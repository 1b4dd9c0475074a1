//! Plays operator and scheduler: topologies, guards, pods and the flip. Knows what guards are set to in every phase.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fortia_common::boot::Service;
use fortia_common::failpoint::Failpoints;
use fortia_common::records::{GUARD, Progress};
use fortia_common::topology::{Layout, Phase, Placement, Topology};
use fortia_migrator::{Job, MigrateError, Work, run};
use fortia_rdb::control::ControlDb;
use fortia_rdb::keyspace::KeyText;
use fortia_rdb::migrate::Migration;
use fortia_rdb::world::World;
use fortia_testredis::{CLUSTER, DataPlane};
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait of a pod, and of a test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The type of a value and its parts.
pub(crate) type Value = (String, Vec<Vec<u8>>);

pub(crate) type Ended = JoinHandle<Result<Progress, MigrateError>>;

pub(crate) struct Hand {
    pub(crate) plane: DataPlane,
    sender: watch::Sender<Topology>,
}

pub(crate) fn job(work: Work, from: u64, index: u32) -> Job {
    Job { patience: PATIENCE, ..Job::new(work, from, index) }
}

impl Hand {
    pub(crate) async fn start(shards: u32, placement: Placement) -> Hand {
        Hand::over(DataPlane::with(shards, placement).await).await
    }

    pub(crate) async fn over(plane: DataPlane) -> Hand {
        let (sender, _) = watch::channel(plane.topology().await);
        Hand { plane, sender }
    }

    pub(crate) fn topology(&self) -> Topology {
        self.sender.borrow().clone()
    }

    /// The world as the game and the tickers see it.
    pub(crate) fn world(&self) -> World {
        World::connect(&self.plane.boot(Service::Game), self.sender.subscribe())
    }

    async fn publish(&self, topology: Topology) {
        self.plane.set_topology(&topology).await;
        self.sender.send_replace(topology);
    }

    /// Begins a re-sharding to so many shards: topology and guards as in Copying.
    pub(crate) async fn begin(&mut self, shards: u32) -> Topology {
        self.forget().await;
        let topology = self.plane.retarget(shards, Phase::Copying).await;
        self.sender.send_replace(topology.clone());
        self.note(&topology).await;
        topology
    }

    /// Begins to go back to the layout that is kept.
    pub(crate) async fn go_back(&mut self) -> Topology {
        let mut topology = self.topology();
        topology.epoch += 1;
        topology.target = topology.previous.take();
        topology.phase = Some(Phase::Copying);
        self.forget().await;
        self.publish(topology.clone()).await;
        self.note(&topology).await;
        topology
    }

    /// Removes what pods told of an earlier re-sharding.
    async fn forget(&self) {
        let told: Vec<String> = self.plane.control_db.run(&["KEYS", "fortia:rebalance:*"]).await;
        let all: Vec<&str> = std::iter::once("DEL").chain(told.iter().map(String::as_str)).collect();
        if all.len() > 1 {
            self.plane.control_db.run::<u64>(&all).await;
        }
    }

    /// Writes the same topology under a newer epoch.
    pub(crate) async fn bump(&self) -> Topology {
        let topology = Topology { epoch: self.topology().epoch + 1, ..self.topology() };
        self.publish(topology.clone()).await;
        topology
    }

    pub(crate) async fn note(&self, topology: &Topology) {
        let (from, to) = layouts(topology);
        for shard in 0..from.shards.max(to.shards) {
            let state = if shard < from.shards { "copying" } else { "frozen" };
            self.guard(shard, topology.epoch, (from.version, state, to.version)).await;
        }
    }

    async fn freeze(&self, topology: &Topology) {
        let (from, to) = layouts(topology);
        for shard in 0..from.shards {
            self.guard(shard, topology.epoch, (from.version, "frozen", to.version)).await;
        }
    }

    /// Back to the serving version, as on an abort; the guards of other groups are closed.
    pub(crate) async fn abort(&self) -> Topology {
        let mut topology = self.topology();
        topology.epoch += 1;
        topology.target = None;
        topology.phase = Some(Phase::Aborting);
        self.publish(topology.clone()).await;
        let from = topology.serving;
        for shard in 0..self.plane.shards.len() as u32 {
            let state = if shard < from.shards { "open" } else { "frozen" };
            self.guard(shard, topology.epoch, (from.version, state, 0)).await;
        }
        topology
    }

    /// Flips as the scheduler does, but that pods drain the last bit: freeze, wait, compare, turn, swap.
    pub(crate) async fn flip(&self) -> Topology {
        let topology = self.topology();
        let (from, to) = layouts(&topology);
        self.freeze(&topology).await;
        for shard in 0..from.shards {
            let dirty = format!("v{}:dirty", from.version);
            let shard = &self.plane.shards[shard as usize];
            wait("the notes to be drained", async || shard.run::<u64>(&["HLEN", &dirty]).await <= 1).await;
        }
        assert_eq!(contents(&self.plane, &to).await, contents(&self.plane, &from).await);
        self.turn(&topology).await
    }

    async fn turn(&self, topology: &Topology) -> Topology {
        let (from, to) = layouts(topology);
        let forward = to.version > from.version;
        let epoch = topology.epoch + 1;
        for shard in 0..from.shards.max(to.shards) {
            let setting = match (shard < to.shards, forward) {
                (true, true) => (to.version, "copying", from.version),
                (true, false) => (to.version, "open", 0),
                (false, _) => (from.version, "frozen", 0),
            };
            self.guard(shard, epoch, setting).await;
        }
        let flipped = Topology {
            epoch,
            serving: to,
            target: None,
            previous: forward.then_some(from),
            phase: Some(if forward { Phase::Retaining } else { Phase::Collecting }),
            ..topology.clone()
        };
        self.publish(flipped.clone()).await;
        flipped
    }

    /// Lets go of the layout that is kept.
    pub(crate) async fn collect(&self) -> Topology {
        let mut topology = self.topology();
        topology.epoch += 1;
        topology.previous = None;
        topology.phase = Some(Phase::Collecting);
        self.publish(topology.clone()).await;
        for shard in 0..topology.serving.shards {
            self.open(shard, &topology).await;
        }
        topology
    }

    pub(crate) async fn open(&self, shard: u32, topology: &Topology) {
        self.guard(shard, topology.epoch, (topology.serving.version, "open", 0)).await;
    }

    async fn guard(&self, shard: u32, epoch: u64, to: (u64, &str, u64)) {
        let (version, state, target) = (to.0.to_string(), to.1, to.2.to_string());
        let (group, index, epoch) = (format!("shard-{shard}"), shard.to_string(), epoch.to_string());
        let call = ["FCALL", "fortia_guard", "1", GUARD, CLUSTER, &group, &index, &epoch];
        let call = [&call[..], &[&version, state, &target, ""]].concat();
        self.plane.shards[shard as usize].run::<()>(&call).await;
    }

    /// A pod, on its own.
    pub(crate) fn pod(&self, job: Job, failpoints: &Failpoints) -> Ended {
        let (boot, failpoints) = (self.plane.boot(Service::Migrator), failpoints.clone());
        tokio::spawn(async move { run(&boot, &job, &failpoints, |_| ()).await })
    }

    /// One pod on each source.
    pub(crate) fn pods(&self) -> Vec<Ended> {
        let topology = self.topology();
        let (from, to) = layouts(&topology);
        let work = if to.version > from.version { Work::Copy } else { Work::CatchUp };
        (0..from.shards)
            .map(|index| self.pod(job(work, from.version, index), &Failpoints::default()))
            .collect()
    }

    pub(crate) async fn progress(&self, index: u32) -> Option<Progress> {
        let control = ControlDb::connect(&self.plane.boot(Service::Operator));
        let to = layouts(&self.topology()).1;
        control.progress(to.version, index).await.expect("answers")
    }

    /// Waits until every source is proven, and tells how far they are.
    pub(crate) async fn proven(&self) -> Vec<Progress> {
        let mut proven = Vec::new();
        for index in 0..self.topology().serving.shards {
            let done = async || self.progress(index).await.is_some_and(|told| told.done);
            wait("a source to be proven", done).await;
            proven.push(self.progress(index).await.expect("told"));
        }
        proven
    }

    /// Waits for the proofs, flips, and waits for the pods to end well.
    pub(crate) async fn finish(&self, pods: Vec<Ended>) -> Topology {
        self.proven().await;
        let flipped = self.flip().await;
        for pod in pods {
            ended(pod).await.expect("ends well");
        }
        flipped
    }

    pub(crate) async fn serving(&self) -> BTreeMap<KeyText, Value> {
        contents(&self.plane, &self.topology().serving).await
    }
}

pub(crate) fn layouts(topology: &Topology) -> (Layout, Layout) {
    (topology.serving, topology.target.expect("a target"))
}

/// What a pod that ends ended with.
pub(crate) async fn ended(pod: Ended) -> Result<Progress, MigrateError> {
    tokio::time::timeout(PATIENCE, pod).await.expect("the pod ends").expect("no panic")
}

pub(crate) async fn wait(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every key of a layout with what it holds, from every server there is; and no key where it does not belong.
pub(crate) async fn contents(plane: &DataPlane, layout: &Layout) -> BTreeMap<KeyText, Value> {
    let topology = Topology { serving: *layout, ..plane.topology().await };
    let migration = Migration::new(&plane.boot(Service::Migrator), topology);
    let mut all = BTreeMap::new();
    for (shard, server) in (0..).zip(&plane.shards) {
        let (mut connection, mut cursor) = (server.connect().await, 0);
        loop {
            let step = migration.scan(shard, layout.version, cursor).await.expect("scans");
            for key in step.keys {
                assert_eq!(key.shard(layout), shard, "{key} is misplaced");
                let value = value(&mut connection, &key.physical(layout.version)).await;
                // None: it expired, or was removed, since the scan.
                all.extend(value.map(|value| (key, value)));
            }
            cursor = step.cursor;
            if cursor == 0 {
                break;
            }
        }
    }
    all
}

/// What a key holds, read by plain commands: its type, and its parts in an order of their own where they have none.
async fn value(connection: &mut MultiplexedConnection, key: &[u8]) -> Option<Value> {
    let mut ask = async |command: &[&str]| {
        let mut asked = redis::cmd(command[0]);
        asked.arg(key).arg(&command[1..]);
        asked.query_async::<redis::Value>(connection).await.expect("the server answers")
    };
    let kind: String = redis::from_redis_value(ask(&["TYPE"]).await).expect("a type");
    let read: &[&str] = match kind.as_str() {
        "none" => return None,
        "string" => &["GET"],
        "hash" => &["HGETALL"],
        "set" => &["SMEMBERS"],
        "list" => &["LRANGE", "0", "-1"],
        other => panic!("{} is a {other}", String::from_utf8_lossy(key)),
    };
    let answer = ask(read).await;
    let mut parts: Vec<Vec<u8>> = match kind.as_str() {
        "string" => {
            redis::from_redis_value::<Option<Vec<u8>>>(answer).expect("a string").into_iter().collect()
        }
        "hash" => {
            let pairs: BTreeMap<Vec<u8>, Vec<u8>> = redis::from_redis_value(answer).expect("a hash");
            pairs.into_iter().flat_map(|(field, value)| [field, value]).collect()
        }
        _ => redis::from_redis_value(answer).expect("members"),
    };
    if kind == "set" {
        parts.sort_unstable();
    }
    // Redis has no empty values but strings: it is gone since its type was asked.
    (!parts.is_empty()).then_some((kind, parts))
}
