//! The way of log records to an OTLP receiver: a bounded queue and the task that empties it in batches. Knows
//! what is dropped and why; never blocks who logs.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::Severity;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, RetryPolicy, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::STOP_BOUND;

/// Records that wait at most; a server that logs while its receiver is away takes no more memory than these.
const QUEUE: usize = 2048;
const BATCH: usize = 256;
/// How long a batch is gathered.
const LINGER: Duration = Duration::from_millis(250);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A batch that is not taken for so long is given up: the receiver may refuse just this one.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Not known yet: records wait in the queue.
    Unknown,
    /// Nobody wants them.
    Nowhere,
    /// `http://host:port`.
    Address(String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) shipped: Counter<u64, AtomicU64>,
    pub(crate) dropped: Counter<u64, AtomicU64>,
}

/// The end of the queue that takes records from the process' log.
#[derive(Debug)]
pub(crate) struct Queue {
    records: mpsc::Sender<SdkLogRecord>,
    target: watch::Receiver<Target>,
    counts: Counts,
}

impl Queue {
    pub(crate) fn new(
        counts: Counts,
        target: watch::Receiver<Target>,
    ) -> (Queue, mpsc::Receiver<SdkLogRecord>) {
        let (records, receiver) = mpsc::channel(QUEUE);
        (Queue { records, target, counts }, receiver)
    }
}

impl LogProcessor for Queue {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        match self.records.try_reserve() {
            Ok(place) => place.send(record.clone()),
            Err(_) => {
                self.counts.dropped.inc();
            }
        }
    }

    fn event_enabled(&self, _: Severity, _: &str, _: Option<&str>) -> bool {
        *self.target.borrow() != Target::Nowhere
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The other end: ships batches until it is stopped.
pub(crate) struct Shipper {
    records: mpsc::Receiver<SdkLogRecord>,
    target: watch::Receiver<Target>,
    stop: CancellationToken,
    counts: Counts,
    resource: Resource,
    batch: Vec<SdkLogRecord>,
}

/// Why a target is shipped to no longer.
enum Ended {
    Target,
    Stopped,
}

impl Shipper {
    pub(crate) fn new(
        records: mpsc::Receiver<SdkLogRecord>,
        target: watch::Receiver<Target>,
        stop: CancellationToken,
        counts: Counts,
        resource: Resource,
    ) -> Shipper {
        Shipper { records, target, stop, counts, resource, batch: Vec::new() }
    }

    /// Ships until stopped, and then at most [`STOP_BOUND`] longer.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let bound = async {
            stop.cancelled().await;
            sleep(STOP_BOUND).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = bound => {}
        }
        self.records.close();
        self.counts.dropped.inc_by((self.batch.len() + self.records.len()) as u64);
    }

    async fn work(&mut self) {
        loop {
            let target = self.target.borrow_and_update().clone();
            let ended = match target {
                Target::Unknown => self.wait().await,
                Target::Nowhere => {
                    self.batch.clear();
                    while self.records.try_recv().is_ok() {}
                    self.wait().await
                }
                Target::Address(address) => match exporter(&address, &self.resource) {
                    Ok(exporter) => self.ship(&exporter, &address).await,
                    Err(error) => {
                        tracing::error!(address, %error, "log receiver's address is not one like http://host:4317");
                        self.wait().await
                    }
                },
            };
            if matches!(ended, Ended::Stopped) {
                return;
            }
        }
    }

    async fn wait(&mut self) -> Ended {
        tokio::select! {
            changed = self.target.changed() => changed.map_or(Ended::Stopped, |()| Ended::Target),
            () = self.stop.cancelled() => Ended::Stopped,
        }
    }

    async fn ship(&mut self, exporter: &LogExporter, address: &str) -> Ended {
        let mut pause = FIRST_PAUSE;
        let mut taken = Instant::now();
        loop {
            if self.batch.is_empty() {
                if let Some(ended) = self.gather().await {
                    return ended;
                }
                taken = Instant::now();
                continue;
            }
            let scope = InstrumentationScope::default();
            let batch: Vec<_> = self.batch.iter().map(|record| (record, &scope)).collect();
            let exported = tokio::select! {
                exported = exporter.export(LogBatch::new(&batch)) => exported,
                changed = self.target.changed() => return changed.map_or(Ended::Stopped, |()| Ended::Target),
            };
            match exported {
                Ok(()) => {
                    if pause > FIRST_PAUSE {
                        tracing::info!(address, "log receiver takes records again");
                    }
                    pause = FIRST_PAUSE;
                    self.counts.shipped.inc_by(self.batch.len() as u64);
                    self.batch.clear();
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tracing::warn!(address, %error, "log receiver takes no records; trying again");
                    }
                    if taken.elapsed() > GIVE_UP {
                        self.counts.dropped.inc_by(self.batch.len() as u64);
                        self.batch.clear();
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        changed = self.target.changed() => return changed.map_or(Ended::Stopped, |()| Ended::Target),
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Fills the batch: waits for a record, then a little for more.
    async fn gather(&mut self) -> Option<Ended> {
        if self.stop.is_cancelled() {
            self.records.close();
        }
        tokio::select! {
            biased;
            changed = self.target.changed() => return Some(changed.map_or(Ended::Stopped, |()| Ended::Target)),
            n = self.records.recv_many(&mut self.batch, BATCH) => if n == 0 { return Some(Ended::Stopped) },
            () = self.stop.cancelled(), if !self.stop.is_cancelled() => return None,
        }
        tokio::select! {
            () = sleep(LINGER) => {}
            () = self.stop.cancelled() => {}
        }
        while self.batch.len() < BATCH {
            match self.records.try_recv() {
                Ok(record) => self.batch.push(record),
                Err(_) => break,
            }
        }
        None
    }
}

fn exporter(address: &str, resource: &Resource) -> Result<LogExporter, ExporterBuildError> {
    let mut exporter = LogExporter::builder()
        .with_tonic()
        .with_endpoint(address)
        .with_timeout(EXPORT_TIMEOUT)
        // This module tries again itself, so that it can stop and change its target meanwhile.
        .with_retry_policy(RetryPolicy::default().with_max_retries(0))
        .build()?;
    exporter.set_resource(resource);
    Ok(exporter)
}
