//! What every route gets: request id, span, log line, metrics, time and size limits, compression, problems for
//! what no handler answers. Knows no route.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tower_http::compression::CompressionLayer;
use tracing::Instrument;

use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::serve::Limits;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID: usize = 64;

/// Gives all routes of `router` what the module says. The router's own fallbacks are replaced by problems.
///
/// Compression leaves server-sent events alone, and the request timeout ends with the head of the answer, so that
/// events may go on for ever.
pub fn api(router: Router, limits: &Limits, metrics: &Metrics) -> Router {
    let around = Around { metrics: metrics.clone(), limits: limits.clone() };
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CompressionLayer::new().gzip(true))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(axum::middleware::from_fn_with_state(around, answer))
}

#[derive(Clone)]
struct Around {
    metrics: Metrics,
    limits: Limits,
}

pub(crate) async fn no_route(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

pub(crate) async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::with(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

async fn answer(State(around): State<Around>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let running = around.metrics.begin();
    let id = request_id(request.headers().get(REQUEST_ID));
    let method = request.method().clone();
    let route: Arc<str> =
        request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).into();

    // At the highest level, so that whatever is logged inside names the request under every filter.
    let span = tracing::error_span!("request", %method, %route, request_id = %id);
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let mut response = match tokio::time::timeout(around.limits.request_timeout, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            span.in_scope(|| tracing::error!("handler panicked"));
            Problem::internal().into_response()
        }
        Err(_elapsed) => late(&around.limits),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = named(problem, response, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    drop(running);
    let (status, took) = (response.status(), started.elapsed());
    around.metrics.answered(&method, &route, status.as_u16(), took);
    span.in_scope(|| log(method.is_safe(), status, took.as_millis() as u64));
    response
}

/// One line a request. Reads that went well are many and tell little: they are logged at debug.
fn log(safe: bool, status: StatusCode, ms: u64) {
    let status = status.as_u16();
    if status >= 500 {
        tracing::warn!(status, ms, "request failed");
    } else if status < 400 && safe {
        tracing::debug!(status, ms, "request answered");
    } else {
        tracing::info!(status, ms, "request answered");
    }
}

fn late(limits: &Limits) -> Response {
    let detail = format!("not answered within {} ms", limits.request_timeout.as_millis());
    Problem::unavailable(detail, std::time::Duration::from_secs(1)).into_response()
}

/// The same answer with the request's id as the problem's instance; headers set on the way are kept.
fn named(problem: Problem, response: Response, id: &str) -> Response {
    let headers = response.headers().clone();
    let mut named = problem.of_request(id).into_response();
    for (name, value) in &headers {
        if *name != CONTENT_LENGTH && !named.headers().contains_key(name) {
            named.headers_mut().insert(name, value.clone());
        }
    }
    named.headers_mut().remove(http::header::CONTENT_ENCODING);
    named
}

/// The caller's `x-request-id` if it is sane, else one made here.
fn request_id(given: Option<&HeaderValue>) -> Arc<str> {
    let sane = |id: &&str| {
        (1..=MAX_ID).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match given.and_then(|v| v.to_str().ok()).filter(sane) {
        Some(id) => id.into(),
        // Two fresh random states: unique enough to find a request, not a secret.
        None => format!("{:016x}{:016x}", fresh(), fresh()).into(),
    }
}

fn fresh() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let kept = HeaderValue::from_static("client-1.2_x");
        assert_eq!(&*request_id(Some(&kept)), "client-1.2_x");
        for bad in ["", "a b", "x\"y", &"a".repeat(65)] {
            let value = HeaderValue::from_str(bad).expect("header");
            let made = request_id(Some(&value));
            assert_ne!(&*made, bad);
            assert_eq!(made.len(), 32);
        }
        assert_ne!(request_id(None), request_id(None));
    }
}
