//! GET /logs. Knows HTTP and the filter, not how records are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use fortia_rest::{Json, Problem, Query, documented, events};
use futures::Stream;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::filter::{Asked, Filter};
use crate::folder::FolderError;
use crate::now;
use crate::record::Record;
use crate::store::{News, Store};

/// Queries at once: each holds one unpacked segment.
const QUERIES: usize = 4;
const QUEUE_FOR: Duration = Duration::from_secs(5);

/// What the routes work with.
struct Api {
    store: Arc<Store>,
    queries: Semaphore,
    stop: CancellationToken,
}

/// What the API's document says of it.
const ABOUT: &str = "Logs of all servers of a world, to search and to follow.";

/// The routes; what follows new records ends at `stop`.
pub(crate) fn router(store: Arc<Store>, stop: CancellationToken) -> Router {
    let api = Api { store, queries: Semaphore::new(QUERIES), stop };
    documented("Fortia logs", ABOUT, OpenApiRouter::new().routes(routes!(logs))).with_state(Arc::new(api))
}

/// The newest records that match, in order of time.
#[utoipa::path(get, path = "/logs", params(Asked), responses(
    (status = 200, description = "records, the newest last; as events `log` when following", body = Vec<Shown>),
    (status = 400, description = "a filter that cannot be read", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "too many queries at once", body = Problem, content_type = "application/problem+json"),
))]
async fn logs(State(api): State<Arc<Api>>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let bad = |e: crate::filter::FilterError| Problem::bad_request(e.to_string());
    let filter = asked.filter(now()).map_err(bad)?;
    let _place = api.place().await?;
    if asked.follow().map_err(bad)? {
        let wanted = filter.clone();
        let (found, news) = ask(&api, move |store| store.follow(&wanted)).await?;
        return Ok(events(follow(found, news, filter), api.stop.clone()));
    }
    let found = ask(&api, move |store| store.query(&filter)).await?;
    Ok(Json(found.iter().map(|record| record.json()).collect::<Vec<Value>>()).into_response())
}

/// A record as GET /logs shows it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what Record::json makes")]
struct Shown {
    /// RFC 3339, microseconds.
    time: String,
    /// trace, debug, info, warn, error or fatal.
    level: String,
    service: String,
    instance: String,
    target: String,
    message: String,
    #[schema(value_type = Object)]
    fields: Value,
    /// Trace id in hex, if there is one.
    trace: Option<String>,
}

impl Api {
    async fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        match tokio::time::timeout(QUEUE_FOR, self.queries.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Problem::unavailable("too many queries run", Duration::from_secs(1))),
        }
    }
}

async fn ask<T: Send + 'static>(
    api: &Api,
    question: impl FnOnce(&Store) -> Result<T, FolderError> + Send + 'static,
) -> Result<T, Problem> {
    let store = api.store.clone();
    match tokio::task::spawn_blocking(move || question(&store)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::error!(%error, "query failed");
            Err(Problem::internal())
        }
        Err(error) => {
            tracing::error!(%error, "query panicked");
            Err(Problem::internal())
        }
    }
}

fn follow(found: Vec<Arc<Record>>, news: Receiver<News>, filter: Filter) -> impl Stream<Item = Event> {
    let start = (VecDeque::from(found), news, filter);
    futures::stream::unfold(start, |(mut ready, mut news, filter)| async move {
        loop {
            if let Some(record) = ready.pop_front() {
                let event = Event::default().event("log").data(record.json().to_string());
                return Some((event, (ready, news, filter)));
            }
            match news.recv().await {
                Ok(batch) => ready.extend(batch.iter().filter(|r| filter.wants(r)).cloned()),
                Err(RecvError::Lagged(batches)) => {
                    let event = Event::default().event("missed").data(format!("{{\"batches\":{batches}}}"));
                    return Some((event, (ready, news, filter)));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    })
}
