//! Logging while the receiver of logs is away.

use std::time::{Duration, Instant};

use fortia_common::boot::{Boot, Service, var};

fn boot(filter: &str) -> Boot {
    Boot::from(Service::Game, |name| match name {
        var::INSTANCE | var::CLUSTER => Some("test".into()),
        var::CONTROL_DB => Some("127.0.0.1:1".into()),
        var::LOG => Some(filter.into()),
        _ => None,
    })
    .expect("boots")
}

/// An address on loopback that accepts connections and never says a word.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    (listener, address)
}

/// Logs this many records at an address that takes none, then stops.
async fn log_many(address: Option<&str>, records: u64) -> u64 {
    let (log, subscriber) = fortia_log::with_subscriber(&boot("info"));
    log.ship_to(address);
    let begun = Instant::now();
    {
        let _here = tracing::subscriber::set_default(subscriber);
        for i in 0..records {
            tracing::info!(i, "many");
            if i % 500 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "logging took {:?}", begun.elapsed());
    let mut metrics = prometheus_client::registry::Registry::default();
    log.register(&mut metrics);
    let stopping = Instant::now();
    log.stop().await;
    assert!(stopping.elapsed() < fortia_log::STOP_BOUND + Duration::from_secs(1));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics).expect("metrics");
    let line = text.lines().find(|l| l.starts_with("fortia_log_dropped_total")).expect("counter");
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("number")
}

#[tokio::test]
async fn a_receiver_that_is_down_costs_neither_time_nor_memory_and_drops_are_counted() {
    // The warning that the receiver takes no records is itself a record.
    let dropped = log_many(Some("http://127.0.0.1:1"), 10_000).await;
    assert!((10_000..=10_002).contains(&dropped), "{dropped} dropped");
}

#[tokio::test]
async fn a_receiver_that_says_nothing_blocks_nobody() {
    let (_listener, address) = silent();
    let dropped = log_many(Some(&address), 10_000).await;
    assert!((10_000..=10_002).contains(&dropped), "{dropped} dropped");
}

#[tokio::test]
async fn where_nobody_wants_records_none_is_kept_or_counted() {
    assert_eq!(log_many(None, 10_000).await, 0);
}

#[tokio::test]
async fn the_filter_can_be_changed_and_a_bad_one_is_refused() {
    let (log, subscriber) = fortia_log::with_subscriber(&boot("warn"));
    let _here = tracing::subscriber::set_default(subscriber);
    assert!(!tracing::enabled!(tracing::Level::INFO));
    log.set_filter()("info,h2=off").expect("changed");
    assert!(tracing::enabled!(tracing::Level::INFO));
    let error = log.set_filter()("loud=very").expect_err("refused");
    assert!(error.starts_with("log filter \"loud=very\""), "{error}");
    assert!(tracing::enabled!(tracing::Level::INFO));
}
