//! A viewer: reads the world without rest and counts every read that fails or shows less than the whole world.
//! Knows the public REST API only.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// What one viewer, or several added up, has seen.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Reads made.
    pub reads: u64,
    /// Reads that were refused, not answered, or showed an empty or partial world.
    pub failed: u64,
    /// What the last failed read said.
    pub last_failure: Option<String>,
    /// The slowest read.
    pub slowest: Duration,
    /// Database versions seen, ascending.
    pub versions: Vec<u64>,
}

impl Views {
    /// Adds what another viewer has seen.
    pub fn add(&mut self, other: Views) {
        self.reads += other.reads;
        self.failed += other.failed;
        self.last_failure = other.last_failure.or(self.last_failure.take());
        self.slowest = self.slowest.max(other.slowest);
        self.versions.extend(other.versions);
        self.versions.sort_unstable();
        self.versions.dedup();
    }
}

/// Reads chunks, entities and info in turn until told to stop, never faster than one read in `pause`.
pub async fn view(api: Api, number: usize, pause: Duration, stop: CancellationToken) -> Views {
    let mut views = Views::default();
    let radius = loop {
        match api.info().await {
            Ok(info) => break info.radius,
            Err(error) => views.failed(error.to_string()),
        }
        if stop.is_cancelled() {
            return views;
        }
    };
    let side = usize::try_from(2 * radius + 1).unwrap_or(1);
    let mut next = number * 37;
    while !stop.is_cancelled() {
        let at: Vec<(i32, i32)> = (next..next + 16).map(|i| place(i, side, radius)).collect();
        next += 16;
        let begun = Instant::now();
        let seen = look(&api, &at).await;
        views.reads += 3;
        views.slowest = views.slowest.max(begun.elapsed());
        match seen {
            Ok(version) if !views.versions.contains(&version) => views.versions.push(version),
            Ok(_) => {}
            Err(why) => views.failed(why),
        }
        tokio::time::sleep(pause).await;
    }
    views
}

fn place(i: usize, side: usize, radius: i32) -> (i32, i32) {
    let along = |n: usize| i32::try_from(n % side).unwrap_or(0) - radius;
    (along(i), along(i / side))
}

async fn look(api: &Api, at: &[(i32, i32)]) -> Result<u64, String> {
    let chunks = api.chunks(at).await.map_err(|error| error.to_string())?;
    if chunks.len() != at.len() {
        return Err(format!("GET /chunks showed {} of {} chunks", chunks.len(), at.len()));
    }
    api.entities(at).await.map_err(|error| error.to_string())?;
    Ok(api.info().await.map_err(|error| error.to_string())?.version)
}

impl Views {
    fn failed(&mut self, why: String) {
        self.failed += 1;
        self.last_failure = Some(why);
    }
}
