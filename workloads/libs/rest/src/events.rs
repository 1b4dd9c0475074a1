//! Server-sent events that end when the server stops. Knows no event.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

/// An answer that sends `events` as they come, a comment every 15 s in between (so that dead clients are
/// noticed), and ends when `stop` is cancelled: a drain would wait for it otherwise.
pub fn events<S>(events: S, stop: CancellationToken) -> Response
where
    S: Stream<Item = Event> + Send + 'static,
{
    let stream = events.take_until(stop.cancelled_owned()).map(Ok::<_, Infallible>);
    let sse = Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)));
    let mut response = sse.into_response();
    // Proxies that know it hold nothing back.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
