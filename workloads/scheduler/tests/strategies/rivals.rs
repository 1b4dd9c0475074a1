//! What the tick is measured against: the same edits without any coordination, and with optimistic transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fortia_testredis::TestServer;
use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::chunk::Column;
use redis::aio::MultiplexedConnection;

use crate::cluster;
use crate::load::{Shape, by_chunk, mix, other};

/// Chunks written in one go, as a ticker does.
const BATCH: usize = 256;

/// Edits a second without coordination: on each core a loop that decodes each chunk it has edits for, applies them,
/// encodes it and writes it to the shards, pipelined. Chunks are divided among the loops, so that no two want the same.
/// Nothing is read: a loop has the bytes it wrote last.
pub(crate) async fn ideal(shape: Shape, shards: &[TestServer], time: Duration, cores: usize) -> f64 {
    let made = tokio::task::spawn_blocking(move || cluster::chunks(shape.active).collect::<BTreeMap<_, _>>());
    let all = made.await.expect("chunks are made");
    let done = Arc::new(AtomicU64::new(0));
    let mut loops = Vec::new();
    for mine in shared(shape.counts(), cores) {
        let mut connections = Vec::new();
        for shard in shards {
            connections.push(shard.connect().await);
        }
        let stored = mine.iter().map(|(at, _)| all[at].to_vec()).collect();
        loops.push(Loop { shape, mine, stored, connections, done: done.clone() });
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
    /// Its chunks, and how many edits each gets in a tick.
    mine: Vec<(ChunkPos, u32)>,
    /// Of each chunk the bytes it wrote last.
    stored: Vec<Vec<u8>>,
    connections: Vec<MultiplexedConnection>,
    /// Edits of all loops.
    done: Arc<AtomicU64>,
}

impl Loop {
    /// Goes on for so long; returns the seconds it took.
    async fn run(mut self, time: Duration) -> f64 {
        let begun = Instant::now();
        for tick in 1.. {
            for (mine, stored) in self.mine.chunks(BATCH).zip(self.stored.chunks_mut(BATCH)) {
                let mut pipes = vec![redis::pipe(); self.connections.len()];
                let mut edits = 0;
                for ((at, count), bytes) in mine.iter().zip(stored) {
                    let mut column = Column::decode(bytes).expect("a column");
                    for wanted in self.shape.of_chunk(tick, *at, *count) {
                        apply(&mut column, wanted.at);
                        edits += 1;
                    }
                    *bytes = column.encode();
                    let shard = mix(at.x as u64, at.y as u64) as usize % pipes.len();
                    pipes[shard].cmd("SET").arg(key(*at)).arg(bytes.as_slice()).ignore();
                }
                let connections = &mut self.connections;
                for (pipe, connection) in pipes.iter().zip(connections).filter(|(pipe, _)| !pipe.is_empty()) {
                    pipe.query_async::<()>(connection).await.expect("writes");
                }
                self.done.fetch_add(edits, Ordering::Relaxed);
                if begun.elapsed() > time {
                    return begun.elapsed().as_secs_f64();
                }
            }
        }
        unreachable!("ticks do not end")
    }
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
