//! A crowd: many players or viewers at once, started together, stopped together, their deeds added up.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError};
use crate::player::{Deeds, Player};
use crate::viewer::{Views, view};

/// Logins at once: each takes the auth server 19 MiB and a core for a moment.
const DOOR: usize = 4;

/// Players who play until the crowd is stopped.
#[derive(Debug)]
pub struct Players {
    stop: CancellationToken,
    tasks: JoinSet<Deeds>,
}

impl Players {
    /// Lets players `<prefix>-0` to `<prefix>-<count-1>` enter and play, each acting about once in `pause`.
    ///
    /// # Errors
    /// When one cannot enter.
    pub async fn start(api: &Api, prefix: &str, count: usize, pause: Duration) -> Result<Players, ApiError> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let names = (0..count).map(|i| (i, format!("{prefix}-{i}")));
        let mut entering = futures::stream::iter(names)
            .map(|(i, name)| async move { Player::enter(api.clone(), &name, i as u64).await })
            .buffer_unordered(DOOR);
        while let Some(player) = entering.next().await {
            tasks.spawn(player?.play(pause, stop.clone()));
        }
        Ok(Players { stop, tasks })
    }

    /// Ends them all; what they did.
    pub async fn stop(mut self) -> Deeds {
        self.stop.cancel();
        let mut all = Deeds::default();
        while let Some(Ok(deeds)) = self.tasks.join_next().await {
            all.add(deeds);
        }
        all
    }
}

/// Viewers who read until stopped.
#[derive(Debug)]
pub struct Viewers {
    stop: CancellationToken,
    tasks: FuturesUnordered<tokio::task::JoinHandle<Views>>,
}

impl Viewers {
    /// Starts `count` viewers, each waiting `pause` between two looks.
    pub fn start(api: &Api, count: usize, pause: Duration) -> Viewers {
        let stop = CancellationToken::new();
        let tasks = (0..count).map(|i| tokio::spawn(view(api.clone(), i, pause, stop.clone()))).collect();
        Viewers { stop, tasks }
    }

    /// Ends them all; what they saw.
    pub async fn stop(mut self) -> Views {
        self.stop.cancel();
        let mut all = Views::default();
        while let Some(ended) = self.tasks.next().await {
            all.add(ended.unwrap_or_else(|error| Views {
                failed: 1,
                last_failure: Some(error.to_string()),
                ..Views::default()
            }));
        }
        all
    }
}
