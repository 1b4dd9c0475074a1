//! GET /update: server-sent events of what changed in the area one watches, tick by tick, resumable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use fortia_rest::{Problem, Query};
use fortia_vec::ChunkPos;
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use crate::app::App;
use crate::area;
use crate::feed::{Feed, Watch};
use crate::history::Since;
use crate::metrics::Counted;
use crate::news::News;
use crate::read::Reader;

/// Subscribers one server takes; each holds a connection, and reads must get some too.
const SUBSCRIBERS: i64 = 512;
/// Tries to read what a subscriber missed before it is told to read everything itself.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Query of GET /update.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UpdateQuery {
    /// Chunk x coordinates to watch, with commas between them: `0,1`.
    x: Option<String>,
    /// Chunk y coordinates, as many: `0,0`.
    y: Option<String>,
    /// Last tick known (as of GET /chunks); the header Last-Event-ID, which browsers send by themselves, wins.
    after: Option<String>,
}

/// What changed in the area one watches, as events.
///
/// The first event says from where it goes on: `tick` with everything that changed since `after` or Last-Event-ID, or
/// `reset` with data `{"tick": n}` when that is too long ago: read all chunks and entities again, events go on after n.
/// Then one event `tick` a tick: id is the tick, data is `{"tick": n, "chunks": [..], "entities": [..]}` with each
/// changed chunk whole and all entities that stand in it; an entity that was in such a chunk and is not listed has left
/// it. Ticks that follow each other fast may come as one event.
#[utoipa::path(get, path = "/update", params(UpdateQuery), responses(
    (status = 200, description = "Events `tick` and `reset`", content_type = "text/event-stream", body = String),
    (status = 400, description = "The query names no area or no tick", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many subscribers", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<UpdateQuery>,
) -> Result<Response, Problem> {
    let chunks = area::parse(query.x.as_deref(), query.y.as_deref(), area::WATCH_LIMIT)
        .map_err(|e| Problem::bad_request(e.to_string()))?;
    let after = last_tick(&headers, query.after.as_deref())?;
    let counted = app.metrics.subscriber(SUBSCRIBERS).ok_or_else(|| {
        Problem::unavailable("this server has too many subscribers: try again", Duration::from_secs(2))
    })?;
    let limit = app.config.borrow().world.limit;
    let watch = app.feed.watch(chunks.into_iter().filter(|at| at.is_within(limit)).collect());
    let last = after.unwrap_or_else(|| app.feed.newest().tick);
    let subscriber = Subscriber {
        feed: app.feed.clone(),
        reader: app.reader.clone(),
        watch,
        last,
        behind: true,
        _counted: counted,
    };
    let events = futures::stream::unfold(subscriber, async |mut subscriber| {
        let event = subscriber.next().await?;
        Some((event, subscriber))
    });
    Ok(fortia_rest::events(events, app.stop.clone()))
}

/// The last tick a client knows, if it says so.
fn last_tick(headers: &HeaderMap, after: Option<&str>) -> Result<Option<u64>, Problem> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = header.filter(|text| !text.is_empty()).or(after) else { return Ok(None) };
    let tick = text.trim().parse();
    tick.map(Some)
        .map_err(|_| Problem::bad_request("Last-Event-ID and `after` are the number of a tick, like 120"))
}

struct Subscriber {
    feed: Feed,
    reader: Reader,
    watch: Watch,
    /// Everything up to this tick has been sent.
    last: u64,
    /// Whether something may have been missed since.
    behind: bool,
    _counted: Counted,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::take(&mut self.behind) {
                return Some(self.catch_up().await);
            }
            match self.watch.news.recv().await {
                Ok(news) if news.tick <= self.last => {}
                Ok(news) => {
                    self.last = news.tick;
                    return Some(tick_event(&news, self.watch.chunks()));
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What was missed since `last`, as one event.
    async fn catch_up(&mut self) -> Event {
        let _turn = self.feed.turn().await;
        for _ in 0..TRIES {
            let (tick, since) = self.feed.since(self.last, self.watch.chunks());
            let Since::Changed(missed) = since else { break };
            match self.reader.area_at(tick, &missed).await {
                Ok(area) => {
                    self.last = tick;
                    return tick_event(&News::of(tick, &area), self.watch.chunks());
                }
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::error!(tick, %error, "what a subscriber missed cannot be read");
                    break;
                }
            }
        }
        self.last = self.feed.newest().tick;
        Event::default().event("reset").id(self.last.to_string()).data(format!("{{\"tick\":{}}}", self.last))
    }
}

fn tick_event(news: &News, area: &BTreeSet<ChunkPos>) -> Event {
    Event::default().event("tick").id(news.tick.to_string()).data(news.data(area))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browsers_last_event_wins_over_the_query() {
        let mut headers = HeaderMap::new();
        assert_eq!(last_tick(&headers, None), Ok(None));
        assert_eq!(last_tick(&headers, Some("7")), Ok(Some(7)));
        headers.insert("last-event-id", "9".parse().expect("header"));
        assert_eq!(last_tick(&headers, Some("7")), Ok(Some(9)));
        headers.insert("last-event-id", "nine".parse().expect("header"));
        assert_eq!(last_tick(&headers, Some("7")).expect_err("no tick").status, 400);
    }
}
