//! How Fortia's programs log: text on a terminal, JSON otherwise, and OTLP to a log receiver once its address is
//! known. Knows nothing of what is logged.

mod ship;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::records::Config;
use fortia_common::server::SetLogFilter;
use opentelemetry::KeyValue;
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use prometheus_client::registry::Registry as Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use ship::{Counts, Queue, Shipper, Target};

/// How long [`Log::stop`] tries to ship what is buffered.
pub const STOP_BOUND: Duration = Duration::from_secs(2);

const DEFAULT_FILTER: &str = "info";

/// The process' log: where it is shipped and what passes its filter.
pub struct Log {
    set_filter: SetLogFilter,
    target: Arc<watch::Sender<Target>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    counts: Counts,
}

/// Starts logging for the whole process, by the filter in `boot`; a filter that cannot be read is told in the
/// log, and `info` is taken. Records are buffered, up to a bound, until [`Log::ship_to`] says where they go.
///
/// If the process logs already (tests), what is logged goes there, and only the returned handle is new.
///
/// # Panics
/// Outside a tokio runtime.
pub fn init(boot: &Boot) -> Log {
    let (log, subscriber) = with_subscriber(boot);
    let refused = EnvFilter::builder().parse(&boot.log).err();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("this process logs already");
    }
    if let Some(error) = refused {
        tracing::error!(filter = boot.log, %error, "log filter cannot be read; logging at {DEFAULT_FILTER}");
    }
    log
}

/// What [`init`] installs, for callers that install it themselves.
///
/// # Panics
/// Outside a tokio runtime.
pub fn with_subscriber(boot: &Boot) -> (Log, impl Subscriber + Send + Sync + use<>) {
    let filter = EnvFilter::builder().parse(&boot.log).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let (filter, handle) = reload::Layer::new(filter);
    let set_filter: SetLogFilter = Arc::new(move |text| {
        let filter = EnvFilter::builder().parse(text).map_err(|e| format!("log filter {text:?}: {e}"))?;
        handle.reload(filter).map_err(|e| e.to_string())
    });

    let counts = Counts::default();
    let target = Arc::new(watch::Sender::new(Target::Unknown));
    let stop = CancellationToken::new();
    let (queue, records) = Queue::new(counts.clone(), target.subscribe());
    let shipper = Shipper::new(records, target.subscribe(), stop.clone(), counts.clone(), resource(boot));
    let task = tokio::spawn(shipper.run());

    let provider = SdkLoggerProvider::builder().with_log_processor(queue).build();
    let shipping = OpenTelemetryTracingBridge::builder(&provider)
        .with_tracing_span_attributes(TracingSpanAttributes::all())
        .build()
        .with_filter(filter_fn(|metadata| !feeds_back(metadata.target())));
    let subscriber = Registry::default().with(filter).with(printing()).with(shipping);
    (Log { set_filter, target, stop, task, counts }, subscriber)
}

impl Log {
    /// Where records are shipped from now on: `http://host:port` of an OTLP/gRPC receiver; none: nowhere.
    pub fn ship_to(&self, address: Option<&str>) {
        set_target(&self.target, address);
    }

    /// Ships to where the configuration says, as it changes.
    pub fn follow(&self, mut config: watch::Receiver<Config>) {
        let target = self.target.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            loop {
                set_target(&target, config.borrow_and_update().logs.as_deref());
                tokio::select! {
                    changed = config.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    /// Changes the filter of what is logged.
    pub fn set_filter(&self) -> SetLogFilter {
        self.set_filter.clone()
    }

    /// Records that were not shipped because the buffer was full or the receiver could not be reached for long.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.get()
    }

    /// Registers `fortia_log_shipped` and `fortia_log_dropped`.
    pub fn register(&self, metrics: &mut Metrics) {
        let metrics = metrics.sub_registry_with_prefix("fortia_log");
        metrics.register("shipped", "Log records taken by the receiver", self.counts.shipped.clone());
        metrics.register("dropped", "Log records that were not shipped", self.counts.dropped.clone());
    }

    /// Ships what is buffered, for [`STOP_BOUND`] at most; the rest is counted as dropped.
    pub async fn stop(self) {
        self.stop.cancel();
        // The task bounds itself; a panic in it has been printed.
        let _ = self.task.await;
    }
}

fn set_target(target: &watch::Sender<Target>, address: Option<&str>) {
    let new = address.map_or(Target::Nowhere, |a| Target::Address(a.to_owned()));
    target.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            *old = new;
        }
        changed
    });
}

fn resource(boot: &Boot) -> Resource {
    Resource::builder_empty()
        .with_service_name(boot.service.as_str())
        .with_attribute(KeyValue::new("service.instance.id", boot.instance.clone()))
        .with_attribute(KeyValue::new("fortia.cluster", boot.cluster.clone()))
        .build()
}

fn printing<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    if std::io::stdout().is_terminal() {
        fmt::layer().with_target(false).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    }
}

/// Whether records of this target come from the stack that ships records: each would cause the next.
fn feeds_back(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    matches!(root, "tonic" | "h2" | "hyper" | "hyper_util" | "tower") || root.starts_with("opentelemetry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipping_stack_does_not_ship_its_own_records() {
        assert!(feeds_back("h2::proto::connection"));
        assert!(feeds_back("opentelemetry_sdk"));
        assert!(!feeds_back("fortia_game::update"));
        assert!(!feeds_back("towering"));
    }
}
