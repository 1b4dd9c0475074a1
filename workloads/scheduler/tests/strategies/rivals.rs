//! What the tick is measured against: the same edits without any coordination, and with optimistic transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fortia_testredis::TestServer;
use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::chunk::Column;
use redis::aio::MultiplexedConnection;

use crate::cluster;
use crate::load::{Shape, by_chunk, mix, other};

/// Chunks written in one go, as a ticker does.
const BATCH: usize = 256;

/// Where a loop without coordination has its chunks from one tick to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keeps {
    /// As bytes: it decodes each chunk before it edits it, as whoever takes it from a database.
    Bytes,
    /// As blocks: it only ever encodes.
    Blocks,
}

/// Edits a second without coordination: on each core a loop that applies the edits of each chunk, encodes it and writes it
/// to the shards, pipelined; while a batch is written, the next is made. Chunks are divided among the loops, so that no two
/// want the same. Nothing is ever read.
pub(crate) async fn ideal(
    shape: Shape,
    shards: &[TestServer],
    time: Duration,
    cores: usize,
    keeps: Keeps,
) -> f64 {
    let made = tokio::task::spawn_blocking(move || cluster::chunks(shape.active).collect::<BTreeMap<_, _>>());
    let all = made.await.expect("chunks are made");
    let done = Arc::new(AtomicU64::new(0));
    let mut loops = Vec::new();
    for mine in shared(shape.counts(), cores) {
        let mut connections = Vec::new();
        for shard in shards {
            connections.push(shard.connect().await);
        }
        let bytes = mine.iter().map(|(at, _)| all[at].clone()).collect();
        let columns = mine.iter().map(|(at, _)| Column::decode(&all[at]).expect("a column")).collect();
        loops.push(Loop { shape, keeps, mine, bytes, columns, connections, done: done.clone() });
    }
    let loops: Vec<_> = loops.into_iter().map(|one| tokio::spawn(one.run(time))).collect();
    let mut seconds = 0f64;
    for thread in loops {
        seconds = seconds.max(thread.await.expect("the loop runs"));
    }
    done.load(Ordering::Relaxed) as f64 / seconds
}

/// One of the loops without coordination.
struct Loop {
    shape: Shape,
    keeps: Keeps,
    /// Its chunks, and how many edits each gets in a tick.
    mine: Vec<(ChunkPos, u32)>,
    /// Of each chunk what it wrote last, in both forms.
    bytes: Vec<Bytes>,
    columns: Vec<Column>,
    connections: Vec<MultiplexedConnection>,
    /// Edits of all loops.
    done: Arc<AtomicU64>,
}

impl Loop {
    /// Goes on for so long; returns the seconds it took.
    async fn run(mut self, time: Duration) -> f64 {
        let begun = Instant::now();
        let mut writing = tokio::spawn(async {});
        for tick in 1.. {
            for first in (0..self.mine.len()).step_by(BATCH) {
                let last = self.mine.len().min(first + BATCH);
                let pipes =
                    (first..last).fold(vec![redis::pipe(); self.connections.len()], |mut pipes, i| {
                        let at = self.mine[i].0;
                        let shard = mix(at.x as u64, at.y as u64) as usize % pipes.len();
                        self.edit(tick, i);
                        pipes[shard].cmd("SET").arg(key(at)).arg(self.bytes[i].as_ref()).ignore();
                        pipes
                    });
                writing.await.expect("writes");
                writing = tokio::spawn(write(pipes, self.connections.clone()));
                let edits = self.mine[first..last].iter().map(|(_, count)| u64::from(*count)).sum();
                self.done.fetch_add(edits, Ordering::Relaxed);
                if begun.elapsed() > time {
                    writing.await.expect("writes");
                    return begun.elapsed().as_secs_f64();
                }
            }
        }
        unreachable!("ticks do not end")
    }

    fn edit(&mut self, tick: u64, i: usize) {
        let (at, count) = self.mine[i];
        if self.keeps == Keeps::Bytes {
            self.columns[i] = Column::decode(&self.bytes[i]).expect("a column");
        }
        for wanted in self.shape.of_chunk(tick, at, count) {
            apply(&mut self.columns[i], wanted.at);
        }
        self.bytes[i] = self.columns[i].encode().into();
    }
}

/// Writes to all shards at once.
async fn write(pipes: Vec<redis::Pipeline>, connections: Vec<MultiplexedConnection>) {
    let writes = pipes.into_iter().zip(connections).filter(|(pipe, _)| !pipe.is_empty());
    let writes =
        writes.map(|(pipe, mut connection)| async move { pipe.query_async::<()>(&mut connection).await });
    futures::future::try_join_all(writes).await.expect("writes");
}

/// Chunks for each loop, so that each has as many edits and chunks as another: the largest first, always to who has
/// least.
fn shared(mut counts: Vec<(ChunkPos, u32)>, cores: usize) -> Vec<Vec<(ChunkPos, u32)>> {
    counts.sort_by_key(|(at, count)| (std::cmp::Reverse(*count), *at));
    let mut shares = vec![(0u64, Vec::new()); cores];
    for (at, count) in counts {
        let share = shares.iter_mut().min_by_key(|(sum, _)| *sum).expect("a core");
        // A chunk costs about as much as so many edits.
        share.0 += u64::from(count) + 100;
        share.1.push((at, count));
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

fn apply(column: &mut Column, at: BlockPos) {
    let local = at.local().expect("in the world");
    let put = other(column.get(local));
    column.set(local, put);
}

fn key(at: ChunkPos) -> String {
    format!("bench:{}:{}", at.x, at.y)
}

/// Edits a second, and tries that lost, with one optimistic transaction an edit: watch and get the chunk, decode, apply,
/// encode, set it if nobody else has. So many clients, each with a connection of its own.
pub(crate) async fn watch(shape: Shape, shards: &[TestServer], time: Duration, clients: u32) -> (f64, f64) {
    let edits: Vec<BlockPos> = by_chunk(&shape, 1).into_values().flatten().collect();
    // In no order of places: as units ask.
    let mut edits: Vec<(u64, BlockPos)> =
        edits.into_iter().enumerate().map(|(i, at)| (mix(7, i as u64), at)).collect();
    edits.sort_unstable_by_key(|(chance, _)| *chance);
    let edits: Arc<Vec<BlockPos>> = Arc::new(edits.into_iter().map(|(_, at)| at).collect());
    write_all(shape, shards).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for client in 0..clients as usize {
        let mut connections = Vec::new();
        for shard in shards {
            connections.push(shard.connect().await);
        }
        let (edits, stop, done, lost) = (edits.clone(), stop.clone(), done.clone(), lost.clone());
        tasks.push(tokio::spawn(async move {
            for at in edits.iter().skip(client).step_by(clients as usize).cycle() {
                let shard = mix(at.chunk().x as u64, at.chunk().y as u64) as usize % connections.len();
                while !transact(&mut connections[shard], *at).await {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }));
    }
    tokio::time::sleep(time).await;
    let (done, lost) = (done.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("the client runs");
    }
    (done as f64 / time.as_secs_f64(), lost as f64 / done.max(1) as f64)
}

async fn write_all(shape: Shape, shards: &[TestServer]) {
    let made = tokio::task::spawn_blocking(move || cluster::chunks(shape.active).collect::<Vec<_>>());
    let all = made.await.expect("chunks are made");
    for (i, shard) in shards.iter().enumerate() {
        let mut connection = shard.connect().await;
        let here = |at: &ChunkPos| mix(at.x as u64, at.y as u64) as usize % shards.len() == i;
        for batch in all.chunks(BATCH) {
            let mut pipe = redis::pipe();
            for (at, bytes) in batch.iter().filter(|(at, _)| here(at)) {
                pipe.cmd("SET").arg(key(*at)).arg(bytes.as_ref()).ignore();
            }
            if !pipe.is_empty() {
                pipe.query_async::<()>(&mut connection).await.expect("writes");
            }
        }
    }
}

/// One try; false when somebody else was faster.
async fn transact(connection: &mut MultiplexedConnection, at: BlockPos) -> bool {
    let key = key(at.chunk());
    let mut read = redis::pipe();
    read.cmd("WATCH").arg(&key).ignore().cmd("GET").arg(&key);
    let (bytes,): (Vec<u8>,) = read.query_async(connection).await.expect("reads");
    let mut column = Column::decode(&bytes).expect("a column");
    apply(&mut column, at);
    let mut write = redis::pipe();
    write.atomic().cmd("SET").arg(&key).arg(column.encode()).ignore();
    let written: Option<()> = write.query_async(connection).await.expect("writes");
    written.is_some()
}
