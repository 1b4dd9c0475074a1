//! Copying: every key of the source to where the new layout has it, in pages that several lanes carry at once. Knows
//! what has been carried without a gap, so that another pod can go on from there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fortia_rdb::keyspace::KeyText;
use fortia_rdb::migrate::engine::{Attempt, Checkpoint, Lane};
use futures::future::try_join_all;

use crate::MigrateError;
use crate::pages::{self, Pages, Scan};
use crate::pod::Pod;

/// Time between two checkpoints.
const EVERY: Duration = Duration::from_secs(1);
/// Keys in one batch at most.
const BATCH: usize = 128;

struct Copying<'a> {
    pod: &'a Pod<'a>,
    attempt: &'a Attempt,
    expires: bool,
    since: u64,
    run: String,
    frontier: Mutex<Frontier>,
}

/// Copies all that is not copied yet.
pub(crate) async fn run(pod: &Pod<'_>, attempt: &Attempt) -> Result<(), MigrateError> {
    let since = pod.engine.guard(pod.job.index).await?.since;
    let life = pod.engine.life(pod.job.index).await?;
    let found = pod.engine.checkpoint(pod.job.index).await?;
    let found = found.filter(|found| found.since == since && (found.copied || found.run == life.run));
    let frontier = found.as_ref().map(Frontier::after).unwrap_or_default();
    frontier.tell(pod);
    if let Some(found) = &found {
        tracing::info!(
            index = pod.job.index,
            keys = found.keys,
            copied = found.copied,
            "going on where copying was"
        );
        if found.total > 0 {
            pod.report.change(|progress| progress.total_keys = Some(found.total));
        }
        if found.copied {
            return Ok(());
        }
    }
    let cursor = frontier.cursor;
    // Keys that get an expiry later are noted, and draining always asks.
    let copying =
        Copying { pod, attempt, expires: life.expires, since, run: life.run, frontier: Mutex::new(frontier) };
    let (sender, pages) = Pages::new();
    let (shard, version) = (pod.job.index, pod.from.version);
    let scan = pages::scan(pod, Scan { shard, version, cursor, point: Some("copying.page_read") }, sender);
    let lanes = try_join_all((0..pod.pace.lanes()).map(|_| copying.lane(&pages)));
    tokio::select! {
        done = async { tokio::try_join!(scan, lanes) } => drop(done?),
        never = copying.recording() => match never? {},
    }
    copying.record(true).await?;
    Ok(pod.failpoints.pass("copying.done").await?)
}

impl Copying<'_> {
    async fn lane(&self, pages: &Pages) -> Result<(), MigrateError> {
        let mut lane = self.pod.engine.lane(self.pod.job.index).await?;
        while let Some(mut page) = pages.next().await {
            let mut done = Done { cursor: page.cursor, ..Done::default() };
            let most = self.pod.pace.batch(BATCH);
            let batches = self.pod.sizes().batches(&mut page.keys, most);
            for batch in batches {
                self.carry(&mut lane, &page.keys[batch], &mut done).await?;
            }
            let mut frontier = self.frontier.lock().unwrap_or_else(PoisonError::into_inner);
            frontier.add(page.number, done);
            frontier.tell(self.pod);
        }
        Ok(())
    }

    async fn carry(&self, lane: &mut Lane, batch: &[KeyText], done: &mut Done) -> Result<(), MigrateError> {
        let begun = Instant::now();
        let copied = lane.copy(self.attempt, batch, self.expires).await?;
        if copied.misplaced > 0 {
            // Left over from somewhere: nobody reads it, and copied it would overwrite the true one.
            tracing::warn!(
                keys = copied.misplaced,
                index = self.pod.job.index,
                "keys do not belong on this shard"
            );
        }
        if let Some(key) = batch.first() {
            let moved = copied.keys.saturating_sub(copied.stayed);
            self.pod.sizes().seen(key.class(), moved, copied.bytes);
        }
        done.keys += copied.keys;
        done.stayed += copied.stayed;
        done.bytes += copied.bytes;
        self.pod.failpoints.pass("copying.batch_carried").await?;
        self.pod.pace.rest(begun.elapsed()).await;
        Ok(())
    }

    async fn recording(&self) -> Result<Infallible, MigrateError> {
        loop {
            tokio::time::sleep(EVERY).await;
            self.record(false).await?;
            self.pod.failpoints.pass("copying.checkpointed").await?;
        }
    }

    async fn record(&self, copied: bool) -> Result<(), MigrateError> {
        let checkpoint = {
            let frontier = self.frontier.lock().unwrap_or_else(PoisonError::into_inner);
            Checkpoint {
                since: self.since,
                run: self.run.clone(),
                cursor: frontier.cursor,
                total: self.pod.report.progress().total_keys.unwrap_or(0),
                keys: frontier.sum.keys,
                bytes: frontier.sum.bytes,
                stayed: frontier.sum.stayed,
                copied,
            }
        };
        if !copied && checkpoint.cursor == 0 {
            return Ok(());
        }
        Ok(self.pod.engine.set_checkpoint(self.attempt, &checkpoint).await?)
    }
}

/// What a page had, or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    /// Where the scan goes on behind it.
    cursor: u64,
    keys: u64,
    stayed: u64,
    bytes: u64,
}

/// Pages are done out of order; only those behind which nothing is missing count.
#[derive(Debug, Default)]
struct Frontier {
    next: u64,
    cursor: u64,
    sum: Done,
    ahead: BTreeMap<u64, Done>,
}

impl Frontier {
    fn after(checkpoint: &Checkpoint) -> Frontier {
        let Checkpoint { cursor, keys, bytes, stayed, .. } = *checkpoint;
        Frontier { cursor, sum: Done { cursor, keys, stayed, bytes }, ..Frontier::default() }
    }

    fn add(&mut self, number: u64, done: Done) {
        self.ahead.insert(number, done);
        while let Some(done) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.cursor = done.cursor;
            self.sum.keys += done.keys;
            self.sum.stayed += done.stayed;
            self.sum.bytes += done.bytes;
        }
    }

    fn tell(&self, pod: &Pod<'_>) {
        pod.report.change(|progress| {
            progress.keys = self.sum.keys;
            progress.stayed = self.sum.stayed;
            progress.bytes = self.sum.bytes;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cursor: u64) -> Done {
        Done { cursor, keys: 10, stayed: 4, bytes: 600 }
    }

    #[test]
    fn a_page_counts_once_all_before_it_are_done() {
        let mut frontier = Frontier::default();
        frontier.add(1, page(20));
        frontier.add(2, page(30));
        assert_eq!((frontier.cursor, frontier.sum.keys), (0, 0));
        frontier.add(0, page(10));
        assert_eq!(
            (frontier.cursor, frontier.sum.keys, frontier.sum.stayed, frontier.sum.bytes),
            (30, 30, 12, 1800)
        );
        frontier.add(4, page(50));
        assert_eq!(frontier.cursor, 30);
    }
}
