//! Serves the description of an API made by utoipa. Knows no route but `/openapi.json`.

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use utoipa_axum::router::OpenApiRouter;

/// The router of `described` with `/openapi.json`: the routes' OpenAPI document under `title`.
pub fn documented<S>(title: &str, described: OpenApiRouter<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let (router, mut document) = described.split_for_parts();
    document.info.title = title.to_owned();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.license = None;
    document.info.contact = None;
    // A document made of strings and maps with string keys always serialises.
    let text = bytes::Bytes::from(document.to_json().unwrap_or_default());
    router.route("/openapi.json", get(|| async move { ([(CONTENT_TYPE, "application/json")], text) }))
}
