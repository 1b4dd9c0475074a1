//! Reads the server-sent events of GET /update. Knows the stream's framing and the JSON in it.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;

use crate::api::Unit;
use crate::blocks::Blocks;

/// What changed in one tick in the area that is watched.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    /// The tick.
    pub tick: u64,
    /// Chunks that changed, whole.
    pub chunks: Vec<Blocks>,
    /// Units in them.
    pub entities: Vec<Unit>,
}

/// Why there is no next event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The stream ended or broke.
    #[error("the stream of events ended: {0}")]
    Ended(String),
    /// Nothing came in time.
    #[error("no event within {0:?}")]
    Silent(Duration),
    /// An event is not what it should be.
    #[error("event {0:?} cannot be read: {1}")]
    Shape(String, serde_json::Error),
}

/// An open stream of events.
pub struct Events {
    bytes: BoxStream<'static, Result<Vec<u8>, reqwest::Error>>,
    buffer: String,
}

impl Events {
    /// Events of an answer of GET /update.
    pub fn of(answer: reqwest::Response) -> Events {
        let bytes = answer.bytes_stream().map(|part| part.map(|bytes| bytes.to_vec())).boxed();
        Events { bytes, buffer: String::new() }
    }

    /// The next change, waiting up to `patience`.
    ///
    /// # Errors
    /// When none comes or it cannot be read.
    pub async fn next(&mut self, patience: Duration) -> Result<Change, EventError> {
        let next = async {
            loop {
                while let Some(end) = self.buffer.find("\n\n") {
                    let event: String = self.buffer.drain(..end + 2).collect();
                    if let Some(data) = data_of(&event) {
                        return serde_json::from_str(&data).map_err(|error| EventError::Shape(event, error));
                    }
                }
                match self.bytes.next().await {
                    Some(Ok(part)) => self.buffer.push_str(&String::from_utf8_lossy(&part)),
                    Some(Err(error)) => return Err(EventError::Ended(error.to_string())),
                    None => return Err(EventError::Ended("by the server".into())),
                }
            }
        };
        tokio::time::timeout(patience, next).await.map_err(|_| EventError::Silent(patience))?
    }
}

/// The data of a `tick` event; none for comments and other events.
fn data_of(event: &str) -> Option<String> {
    event.lines().find(|line| *line == "event: tick")?;
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    Some(lines.map(str::trim_start).collect::<Vec<_>>().join("\n"))
}
