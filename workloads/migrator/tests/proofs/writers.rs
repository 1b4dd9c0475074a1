//! Players' writes while a world is re-sharded: guarded calls that follow the topology, and remember what was answered.
//! Knows the function `fortia_write`; nothing of migrations.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_common::records::GUARD;
use fortia_common::topology::Topology;
use fortia_rdb::keyspace::shard_of;
use fortia_testredis::CLUSTER;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::contents::Contents;
use crate::data::{Dice, Shape, Value};

/// Writes acknowledged, what they left, and keys removed.
type Written = (u64, Contents, Vec<Vec<u8>>);

/// Writers of a world, each with keys of its own.
pub(crate) struct Writers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Written>>,
}

impl Writers {
    /// Starts so many writers over the hashes among keys `0..keys` of a shape, each writing every `every`.
    pub(crate) fn start(
        topology: &watch::Receiver<Topology>,
        shape: Shape,
        keys: u64,
        writers: u64,
        every: Duration,
    ) -> Writers {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        for id in 0..writers {
            let writer = Writer {
                topology: topology.clone(),
                connections: BTreeMap::new(),
                shape,
                range: (id, writers, keys),
                known: BTreeMap::new(),
                dice: Dice(id),
            };
            tasks.push(tokio::spawn(writer.write(stop.clone(), every)));
        }
        Writers { stop, tasks }
    }

    /// Ends the writers once their last write is answered, and makes `expected` what they left; returns how many writes
    /// were answered.
    pub(crate) async fn end(self, expected: &mut Contents) -> u64 {
        self.stop.cancel();
        let mut all = 0;
        for task in self.tasks {
            let (writes, left, gone) = task.await.expect("a writer does not fail");
            all += writes;
            gone.iter().for_each(|text| drop(expected.remove(text)));
            expected.extend(left);
        }
        all
    }
}

struct Writer {
    topology: watch::Receiver<Topology>,
    connections: BTreeMap<String, redis::aio::MultiplexedConnection>,
    shape: Shape,
    /// This writer, how many there are, and how many keys.
    range: (u64, u64, u64),
    known: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
    dice: Dice,
}

impl Writer {
    async fn write(mut self, stop: CancellationToken, every: Duration) -> (u64, Contents, Vec<Vec<u8>>) {
        let mut writes = 0;
        while !stop.is_cancelled() {
            let (id, writers, keys) = self.range;
            let n = self.dice.below(keys / writers) * writers + id;
            let text = match self.shape.value(n) {
                Value::Hash(_) => self.shape.text(n),
                _ => format!("w:{n}"),
            };
            if self.dice.below(10) == 0 {
                self.call(&text, &["DEL", "0"]).await;
                self.known.insert(text, BTreeMap::new());
            } else {
                let value = format!("{id}-{writes}");
                self.call(&text, &["HSET", "2", "w", &value]).await;
                let shape = self.shape;
                let fields = self.known.entry(text).or_insert_with_key(|text| match shape.value(n) {
                    Value::Hash(fields) if !text.starts_with("w:") => fields,
                    _ => BTreeMap::new(),
                });
                fields.insert(b"w".to_vec(), value.into_bytes());
            }
            writes += 1;
            tokio::time::sleep(every).await;
        }
        let (left, gone): (Vec<_>, Vec<_>) =
            self.known.into_iter().partition(|(_, fields)| !fields.is_empty());
        let left = left.into_iter().map(|(text, fields)| (text.into_bytes(), Value::Hash(fields)));
        (writes, left.collect(), gone.into_iter().map(|(text, _)| text.into_bytes()).collect())
    }

    /// Calls until the guards take it.
    async fn call(&mut self, text: &str, operation: &[&str]) {
        loop {
            let topology = self.topology.borrow().clone();
            let shard = shard_of(text.as_bytes(), &topology.serving);
            let address = topology.groups[shard as usize].primary.clone();
            let mut call = redis::cmd("FCALL");
            call.arg("fortia_write").arg(2).arg(GUARD).arg(format!("v{}:{text}", topology.serving.version));
            call.arg(CLUSTER).arg(topology.epoch).arg(0).arg(topology.serving.version).arg(operation);
            let connection = match self.connections.entry(address) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let client = redis::Client::open(format!("redis://{}", new.key())).expect("an address");
                    let connection = client.get_multiplexed_async_connection().await;
                    new.insert(connection.expect("the server takes connections"))
                }
            };
            match call.query_async::<redis::Value>(connection).await {
                Ok(_) => return,
                Err(error) if matches!(error.code(), Some("STALE" | "VERSION" | "FROZEN")) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{text}: {error}"),
            }
        }
    }
}
