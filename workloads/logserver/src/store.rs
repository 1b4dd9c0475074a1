//! The store of records: one segment being written, many sealed ones. What was appended is in the operating
//! system's hands when `append` returns, and on the disk after the next `tick`. Knows no network. Blocking.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::filter::Filter;
use crate::folder::{Folder, FolderError};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::retention::{Kept, Retention};
use crate::segment::{self, Header};

/// The segment being written is sealed at this size, in bytes before compression.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// It is sealed when its first record has been there for so long.
const SEGMENT_AGE: Duration = Duration::from_secs(3600);
/// Batches a follower may be behind before it misses some.
const NEWS: usize = 256;

/// A batch of records as followers get it.
pub type News = Arc<Vec<Arc<Record>>>;

/// All records. Share it in an `Arc`; its functions block on the disk.
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    retention: Retention,
    metrics: Metrics,
    news: broadcast::Sender<News>,
    segments: Mutex<Segments>,
}

#[derive(Debug)]
struct Segments {
    writing: Writing,
    sealed: BTreeMap<u64, Sealed>,
}

#[derive(Debug)]
struct Sealed {
    header: Arc<Header>,
    bytes: u64,
}

#[derive(Debug)]
struct Writing {
    id: u64,
    file: File,
    records: Vec<Arc<Record>>,
    bytes: u64,
    begun: u64,
    synced: bool,
}

/// Wanted records that are in memory, and the segments to look at for more.
struct Snapshot {
    found: Vec<Arc<Record>>,
    segments: Vec<(u64, Arc<Header>)>,
}

impl Store {
    /// Opens the store in `path`; frames torn by a crash are cut off and counted. `now` is Unix nanoseconds.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(path: &Path, retention: Retention, metrics: Metrics, now: u64) -> Result<Store, FolderError> {
        let folder = Folder::lock(path)?;
        let mut found = folder.find()?;
        metrics.damaged.inc_by(found.damaged);
        let next = found.sealed.iter().map(|(id, ..)| id + 1).max().unwrap_or(1);
        let last = found.open.pop().unwrap_or(next);
        let mut sealed: BTreeMap<u64, Sealed> = BTreeMap::new();
        for (id, header, bytes) in found.sealed {
            sealed.insert(id, Sealed { header: Arc::new(header), bytes });
        }
        for id in found.open {
            let writing = Writing::open(&folder, id, &metrics, now)?;
            if writing.records.is_empty() {
                folder.discard(id)?;
            } else {
                sealed.insert(id, writing.seal(&folder, now)?);
            }
        }
        let writing = Writing::open(&folder, last, &metrics, now)?;
        let segments = Segments { writing, sealed };
        metrics.stored(&segments.bytes_and_count());
        let (news, _) = broadcast::channel(NEWS);
        Ok(Store { folder, retention, metrics, news, segments: Mutex::new(segments) })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// When it cannot be written: then none of it is stored.
    pub fn append(&self, records: Vec<Record>, now: u64) -> Result<(), FolderError> {
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len() as u64;
        let mut segments = self.segments();
        let batch = segments.writing.append(records, now).inspect_err(|_| {
            self.metrics.rejected.inc_by(count);
        })?;
        self.metrics.received.inc_by(count);
        // Nobody may be following.
        let _ = self.news.send(batch);
        if segments.writing.bytes >= SEGMENT_BYTES {
            self.seal(&mut segments, now);
        }
        self.metrics.stored(&segments.bytes_and_count());
        Ok(())
    }

    /// The newest wanted records, in order of time.
    ///
    /// # Errors
    /// When a segment cannot be read. Damaged segments are left out and counted.
    pub fn query(&self, filter: &Filter) -> Result<Vec<Arc<Record>>, FolderError> {
        let snapshot = self.segments().snapshot(filter);
        self.complete(snapshot, filter)
    }

    /// As [`Store::query`], and from there on every batch, without a gap.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub fn follow(
        &self,
        filter: &Filter,
    ) -> Result<(Vec<Arc<Record>>, broadcast::Receiver<News>), FolderError> {
        let (snapshot, news) = {
            let segments = self.segments();
            (segments.snapshot(filter), self.news.subscribe())
        };
        Ok((self.complete(snapshot, filter)?, news))
    }

    /// What is to be done now and then, each second at best: brings what was written to the disk, seals an old
    /// segment, removes expired ones.
    ///
    /// # Errors
    /// When the segment being written cannot be brought to the disk.
    pub fn tick(&self, now: u64) -> Result<(), FolderError> {
        let mut segments = self.segments();
        let age = now.saturating_sub(segments.writing.begun);
        if !segments.writing.records.is_empty() && u128::from(age) >= SEGMENT_AGE.as_nanos() {
            self.seal(&mut segments, now);
        }
        self.expire(&mut segments, now);
        self.metrics.stored(&segments.bytes_and_count());
        segments.writing.sync()
    }

    /// Seals the segment being written. A failure is logged and tried again with the next batch: what is in the
    /// segment stays there.
    fn seal(&self, segments: &mut Segments, now: u64) {
        let id = segments.writing.id;
        let fresh = match Writing::open(&self.folder, id + 1, &self.metrics, now) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(segment = id, %error, "no new segment can be begun");
                return;
            }
        };
        match segments.writing.seal(&self.folder, now) {
            Ok(sealed) => {
                segments.sealed.insert(id, sealed);
                segments.writing = fresh;
                self.expire(segments, now);
            }
            Err(error) => tracing::error!(segment = id, %error, "segment cannot be sealed"),
        }
    }

    fn expire(&self, segments: &mut Segments, now: u64) {
        let kept =
            segments.sealed.iter().map(|(id, s)| Kept { id: *id, sealed: s.header.sealed, bytes: s.bytes });
        for id in self.retention.expired(&kept.collect::<Vec<_>>(), segments.writing.bytes, now) {
            match self.folder.remove(id) {
                Ok(()) => {
                    segments.sealed.remove(&id);
                    tracing::info!(segment = id, "segment expired");
                }
                Err(error) => tracing::error!(segment = id, %error, "expired segment stays"),
            }
        }
    }

    /// Looks at segments from the latest on, until no other can hold newer records than those found.
    fn complete(&self, snapshot: Snapshot, filter: &Filter) -> Result<Vec<Arc<Record>>, FolderError> {
        let Snapshot { mut found, segments } = snapshot;
        for (id, header) in segments {
            let enough = found.len() >= filter.limit;
            if enough && found.first().is_some_and(|oldest| header.last < oldest.time) {
                break;
            }
            let Some(bytes) = self.folder.read(id)? else { continue };
            match segment::open(&bytes) {
                Ok(records) => {
                    let wanted = records.into_iter().filter(|r| filter.wants(r)).map(Arc::new);
                    // Segments come latest first; equal times keep the order in which they were received.
                    found.splice(0..0, wanted);
                    newest(&mut found, filter.limit);
                }
                Err(error) => {
                    self.metrics.damaged.inc();
                    tracing::error!(segment = id, %error, "segment is left out");
                }
            }
        }
        Ok(found)
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        // Every change is complete before the next begins; a panic elsewhere leaves nothing half done.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segments {
    fn snapshot(&self, filter: &Filter) -> Snapshot {
        let mut found: Vec<_> = self.writing.records.iter().filter(|r| filter.wants(r)).cloned().collect();
        newest(&mut found, filter.limit);
        let may = self.sealed.iter().filter(|(_, s)| filter.may_be_in(&s.header));
        let mut segments: Vec<_> = may.map(|(id, s)| (*id, s.header.clone())).collect();
        segments.sort_by_key(|(id, header)| std::cmp::Reverse((header.last, *id)));
        Snapshot { found, segments }
    }

    fn bytes_and_count(&self) -> (u64, usize) {
        (self.writing.bytes + self.sealed.values().map(|s| s.bytes).sum::<u64>(), self.sealed.len() + 1)
    }
}

/// Sorts by time and leaves the newest `limit`.
fn newest(records: &mut Vec<Arc<Record>>, limit: usize) {
    records.sort_by_key(|r| r.time);
    records.drain(..records.len().saturating_sub(limit));
}

impl Writing {
    fn open(folder: &Folder, id: u64, metrics: &Metrics, now: u64) -> Result<Writing, FolderError> {
        let (file, bytes) = folder.open(id)?;
        let (records, whole) = segment::read_frames(&bytes);
        if whole < bytes.len() {
            let torn = (bytes.len() - whole) as u64;
            tracing::warn!(segment = id, torn, "bytes of a torn write are cut off");
            metrics.torn.inc_by(torn);
            file.set_len(whole as u64).map_err(|e| FolderError::File("cut", id.to_string().into(), e))?;
        }
        let records = records.into_iter().map(Arc::new).collect();
        Ok(Writing { id, file, records, bytes: whole as u64, begun: now, synced: true })
    }

    fn append(&mut self, records: Vec<Record>, now: u64) -> Result<News, FolderError> {
        let mut frames = Vec::new();
        records.iter().for_each(|record| segment::write_frame(record, &mut frames));
        if let Err(error) = self.file.write_all(&frames) {
            // Half a frame in the middle would hide all that follow.
            if let Err(error) = self.file.set_len(self.bytes) {
                tracing::error!(segment = self.id, %error, "a failed write cannot be cut off");
            }
            return Err(FolderError::File("append to segment", self.id.to_string().into(), error));
        }
        if self.records.is_empty() {
            self.begun = now;
        }
        let batch: Vec<_> = records.into_iter().map(Arc::new).collect();
        self.records.extend(batch.iter().cloned());
        self.bytes += frames.len() as u64;
        self.synced = false;
        Ok(Arc::new(batch))
    }

    fn seal(&self, folder: &Folder, now: u64) -> Result<Sealed, FolderError> {
        let mut frames = Vec::with_capacity(self.bytes as usize);
        self.records.iter().for_each(|record| segment::write_frame(record, &mut frames));
        let header = segment::header(self.records.iter().map(Arc::as_ref));
        let (header, bytes) = segment::seal(header, &frames, now).map_err(|e| {
            FolderError::File("compress", self.id.to_string().into(), std::io::Error::other(e))
        })?;
        folder.seal(self.id, &bytes)?;
        Ok(Sealed { header: Arc::new(header), bytes: bytes.len() as u64 })
    }

    fn sync(&mut self) -> Result<(), FolderError> {
        if !self.synced {
            self.file
                .sync_data()
                .map_err(|e| FolderError::File("sync segment", self.id.to_string().into(), e))?;
            self.synced = true;
        }
        Ok(())
    }
}
