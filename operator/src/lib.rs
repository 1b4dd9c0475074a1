//! The operator: brings up, looks after and re-shards FortiaClusters.

pub mod build;
pub mod controller;
pub mod crd;
pub mod failover;
pub mod metrics;
pub mod rebalance;
pub mod settings;

use std::sync::Arc;

use anyhow::Context as _;
use fortia_common::boot::{Boot, Service};
use fortia_common::failpoint::Failpoints;
use fortia_rest::{Admin, Readiness};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use controller::lease::Leadership;
use settings::Settings;

/// Runs the operator until SIGTERM, or until it loses leadership: then it ends, to be started anew.
///
/// # Errors
/// When Kubernetes cannot be configured or the admin port cannot be opened.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let log = fortia_log::init(&boot(&settings));
    log.ship_to(settings.logs.as_deref());
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    let client = kube::Client::try_default().await.context("kubernetes is not configured")?;
    let mut registry = Registry::default();
    let metrics = metrics::Metrics::register(&mut registry);
    let listener =
        tokio::net::TcpListener::bind(settings.admin).await.context("the admin port cannot be opened")?;
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(Admin::new(registry, Readiness::needs(&[])).serve(listener, admin_stop.clone()));
    let leadership = Leadership::new(client.clone(), &settings.namespace, &settings.identity);
    if leadership.acquire(&stop).await {
        metrics.leading.set(1);
        let ended = CancellationToken::new();
        let failpoints = Failpoints::from_env()?;
        let context = Arc::new(controller::Context::new(client, settings, metrics.clone(), failpoints));
        let work = controller::run(context, ended.clone());
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => tracing::error!("the controller ended by itself"),
            // Leadership lost: nothing may be done any more, so the work is dropped where it stands.
            () = leadership.keep(&ended) => {}
            () = stop.cancelled() => {
                ended.cancel();
                let bound = std::time::Duration::from_secs(10);
                if tokio::time::timeout(bound, work).await.is_err() {
                    tracing::warn!("a pass did not end in time");
                }
                leadership.give_back().await;
            }
        }
        metrics.leading.set(0);
    }
    tracing::info!("operator stopped");
    admin_stop.cancel();
    let _ = admin.await;
    log.stop().await;
    Ok(())
}

/// The operator logs like a server, but boots from no control database: it serves many.
fn boot(settings: &Settings) -> Boot {
    Boot {
        service: Service::Operator,
        instance: settings.identity.clone(),
        cluster: String::new(),
        control_db: String::new(),
        password: String::new(),
        listen: settings.admin,
        admin: settings.admin,
        advertise: settings.admin.to_string(),
        log: settings.log.clone(),
    }
}

async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be handled");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
}
