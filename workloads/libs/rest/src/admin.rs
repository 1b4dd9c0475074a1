//! The admin port: /livez, /readyz, /metrics. Knows conditions by name, not what they mean.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{no_method, no_route};
use crate::problem::Problem;
use crate::process::Process;
use crate::serve::{Limits, serve};

/// Named conditions; the server is ready when all of them are true. Cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Needs these conditions; none is true yet.
    pub fn needs(conditions: &[&'static str]) -> Readiness {
        Readiness(Arc::new(watch::Sender::new(conditions.iter().map(|name| (*name, false)).collect())))
    }

    /// Says whether a condition holds now. A name that was not known is needed from now on.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.0.send_if_modified(|all| {
            let changed = all.insert(condition, holds) != Some(holds);
            if changed {
                tracing::info!(condition, holds, "readiness changed");
            }
            changed
        });
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().values().all(|holds| *holds)
    }

    /// Waits until all conditions hold.
    pub async fn ready(&self) {
        // The sender lives as long as self, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|all| all.values().all(|holds| *holds)).await;
    }
}

/// What the admin port serves.
#[derive(Debug)]
pub struct Admin {
    registry: Registry,
    readiness: Readiness,
}

impl Admin {
    /// Serves this registry, to which metrics of the process are added, and this readiness.
    pub fn new(mut registry: Registry, readiness: Readiness) -> Admin {
        registry.register_collector(Box::new(Process));
        Admin { registry, readiness }
    }

    /// The routes, for a server of the caller's own or a test.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .with_state(Arc::new(self))
    }

    /// Serves until `stop`; readiness is false from then on. Give it a token that is cancelled last, so that
    /// probes are answered while work is finished.
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let limits = Limits { connections: 64, ..Limits::default() };
        serve(listener, self.router(), limits, stop).await
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let conditions = admin.readiness.0.borrow().clone();
    let ready = conditions.values().all(|holds| *holds);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({"ready": ready, "conditions": conditions}))).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            Problem::internal().into_response()
        }
    }
}
