//! Pages of a scan on their way from the one who scans to the lanes that work on them. Knows their order, not the work.

use std::collections::BTreeMap;
use std::ops::Range;

use fortia_rdb::keyspace::KeyText;
use tokio::sync::{Mutex, mpsc};

use crate::MigrateError;
use crate::pod::Pod;

/// Pages read ahead of the lanes.
const AHEAD: usize = 4;
/// Value bytes a batch should have at most.
const BATCH_BYTES: u64 = 256 << 10;
/// Keys in the first batch of a class of which nothing is known.
const FIRST: usize = 8;
/// Keys in any batch of a class of which no value went through here.
const UNKNOWN: usize = 128;

/// One page.
pub(crate) struct Page {
    /// Counted from 0.
    pub(crate) number: u64,
    /// Where the scan goes on behind it; 0: it is the last.
    pub(crate) cursor: u64,
    pub(crate) keys: Vec<KeyText>,
}

/// Where lanes get their pages.
pub(crate) struct Pages(Mutex<mpsc::Receiver<Page>>);

impl Pages {
    /// An empty row of pages, and where a scan puts them.
    pub(crate) fn new() -> (mpsc::Sender<Page>, Pages) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        (sender, Pages(Mutex::new(receiver)))
    }

    /// The next page; none when the scan is complete.
    pub(crate) async fn next(&self) -> Option<Page> {
        self.0.lock().await.recv().await
    }
}

/// What is scanned.
#[derive(Clone, Copy)]
pub(crate) struct Scan {
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) cursor: u64,
    /// Passed after every page.
    pub(crate) point: Option<&'static str>,
}

/// Scans to the end. About how many keys there are is told on the way, if nobody knows.
pub(crate) async fn scan(pod: &Pod<'_>, scan: Scan, pages: mpsc::Sender<Page>) -> Result<(), MigrateError> {
    let mut lane = pod.engine.lane(pod.job.index).await?;
    let mut cursor = scan.cursor;
    let mut total = Total::from(scan.cursor);
    let unknown = pod.report.progress().total_keys.is_none();
    let estimates = unknown && (scan.shard, scan.version) == (pod.job.index, pod.from.version);
    for number in 0.. {
        let page = lane.page(scan.shard, scan.version, cursor, pod.pace.names()).await?;
        if let Some(point) = scan.point {
            pod.failpoints.pass(point).await?;
        }
        cursor = page.cursor;
        if estimates {
            let keys = total.seen(page.keys.len() as u64, cursor);
            pod.report.change(|progress| progress.total_keys = Some(keys));
        }
        // The lanes ended: with an error, which says more than this one could.
        if pages.send(Page { number, cursor, keys: page.keys }).await.is_err() || cursor == 0 {
            break;
        }
    }
    Ok(())
}

/// About how many keys there are, by how much of the server's table the keys seen so far were spread over: a scan counts
/// its cursor up from the highest bit of the table's size. Good for a display; nothing else may depend on it.
struct Total {
    begun: f64,
    keys: u64,
}

impl Total {
    fn from(cursor: u64) -> Total {
        Total { begun: behind(cursor), keys: 0 }
    }

    /// Takes in a page of a scan that goes on at `cursor`.
    fn seen(&mut self, keys: u64, cursor: u64) -> u64 {
        self.keys += keys;
        let end = if cursor == 0 { 1.0 } else { behind(cursor) };
        let share = end - self.begun;
        if share > 0.0 { (self.keys as f64 / share).round() as u64 } else { self.keys }
    }
}

/// The share of a table that lies behind a cursor.
fn behind(cursor: u64) -> f64 {
    cursor.reverse_bits() as f64 / 2f64.powi(64)
}

/// How large values of each class of keys are, learned from batches: what a batch may take without filling memory.
#[derive(Default)]
pub(crate) struct Sizes(BTreeMap<Vec<u8>, Size>);

#[derive(Clone, Copy)]
struct Size {
    /// Mean bytes of a value; none before one went through here.
    mean: Option<u64>,
    /// Grows from batch to batch, so that a class of large values is met with a small one.
    most: usize,
}

impl Sizes {
    /// Sorts the keys of a page into batches of one class each, of at most `most`: where they are.
    pub(crate) fn batches(&self, keys: &mut [KeyText], most: usize) -> Vec<Range<usize>> {
        keys.sort_unstable_by(|a, b| a.class().cmp(b.class()));
        let (mut batches, mut from) = (Vec::new(), 0);
        for class in keys.chunk_by(|a, b| a.class() == b.class()) {
            let end = from + class.len();
            let keys = class.first().map_or(most, |key| self.keys(key.class(), most));
            while from < end {
                let to = (from + keys).min(end);
                batches.push(from..to);
                from = to;
            }
        }
        batches
    }

    fn keys(&self, class: &[u8], most: usize) -> usize {
        let Some(size) = self.0.get(class) else { return FIRST.min(most) };
        let fit = size.mean.map_or(UNKNOWN, |mean| (BATCH_BYTES / mean.max(1)) as usize);
        size.most.min(fit).clamp(1, most)
    }

    /// Takes in that `keys` values of a class had so many bytes; no values: they stayed where they are.
    pub(crate) fn seen(&mut self, class: &[u8], keys: u64, bytes: u64) {
        let known = self.0.get(class).copied().unwrap_or(Size { mean: None, most: FIRST });
        let mean = match (bytes.checked_div(keys), known.mean) {
            (Some(now), Some(mean)) => Some((3 * mean + now) / 4),
            (now, mean) => now.or(mean),
        };
        self.0.insert(class.to_vec(), Size { mean, most: (2 * known.most).min(1 << 20) });
    }
}

#[cfg(test)]
mod tests {
    use fortia_rdb::keyspace::WorldKey;
    use fortia_vec::ChunkPos;

    use super::*;

    fn keys(entities: u64, chunks: i32) -> Vec<KeyText> {
        let chunks = (0..chunks).map(|x| WorldKey::Chunk(ChunkPos { x, y: 0 }));
        let all = (0..entities).map(WorldKey::Entity).chain(chunks);
        all.map(|key| KeyText::from(&key)).collect()
    }

    fn lengths(sizes: &Sizes, mut keys: Vec<KeyText>) -> Vec<usize> {
        sizes.batches(&mut keys, 128).iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn about_how_many_keys_there_are_is_known_from_where_the_scan_is() {
        // A table of eight places with a key each: cursors as the server gives them.
        let mut total = Total::from(0);
        let told: Vec<u64> = [4, 2, 6, 1, 5, 3, 7, 0].into_iter().map(|next| total.seen(1, next)).collect();
        assert_eq!(told, [8; 8]);
        let mut rest = Total::from(1);
        assert_eq!((rest.seen(2, 3), rest.seen(2, 0)), (8, 8));
        assert_eq!(Total::from(0).seen(5, 0), 5);
    }

    #[test]
    fn batches_are_of_one_class_and_grow_as_long_as_their_values_are_small() {
        let mut sizes = Sizes::default();
        assert_eq!(lengths(&sizes, keys(10, 9)), [8, 1, 8, 2]);
        for _ in 0..6 {
            sizes.seen(b"e", 8, 8 * 100);
            sizes.seen(b"c", 8, 8 * 16_384);
        }
        assert_eq!(lengths(&sizes, keys(300, 20)), [16, 4, 128, 128, 44]);
    }

    #[test]
    fn one_large_value_fills_a_batch_and_keys_that_stay_fill_none() {
        let mut sizes = Sizes::default();
        for _ in 0..6 {
            sizes.seen(b"c", 1, 10 << 20);
            sizes.seen(b"e", 0, 0);
        }
        assert_eq!(lengths(&sizes, keys(128, 2)), [1, 1, 128]);
    }
}
