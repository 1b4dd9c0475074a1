//! How Fortia's servers speak HTTP: a server with real timeouts and limits, problems (RFC 9457), request ids,
//! metrics, and the admin port. Knows nothing of what is served.
//!
//! ```no_run
//! # use fortia_rest::{Admin, Limits, Metrics, Readiness, Registry};
//! # async fn run(router: axum::Router, stop: tokio_util::sync::CancellationToken) -> std::io::Result<()> {
//! let mut registry = Registry::default();
//! let metrics = Metrics::register(&mut registry);
//! let readiness = Readiness::needs(&["database"]);
//! let limits = Limits::default();
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
//! let admin = tokio::net::TcpListener::bind("0.0.0.0:9000").await?;
//! readiness.set("database", true);
//! tokio::try_join!(
//!     fortia_rest::serve(listener, fortia_rest::api(router, &limits, &metrics), limits, stop.clone()),
//!     Admin::new(registry, readiness).serve(admin, stop),
//! )?;
//! # Ok(())
//! # }
//! ```

mod admin;
mod api;
mod events;
mod extract;
mod metrics;
mod openapi;
mod problem;
mod process;
mod serve;
pub mod session;
mod stall;

pub use admin::{Admin, Readiness};
pub use api::api;
pub use events::events;
pub use extract::{Json, Query};
pub use metrics::Metrics;
pub use openapi::documented;
pub use problem::Problem;
pub use prometheus_client::registry::Registry;
pub use serve::{Limits, serve};
