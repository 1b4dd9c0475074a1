//! A hand on the world's pulse: looks at the tick without rest and keeps the longest time in which it did not change.
//! Knows the public REST API only.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What the ticks were like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    /// The first tick seen, and the last.
    pub seen: (u64, u64),
    /// Longest time in which the tick did not change.
    pub longest: Duration,
}

/// A look at the ticks that goes on until stopped.
#[derive(Debug)]
pub struct Pulse {
    stop: CancellationToken,
    task: JoinHandle<Ticks>,
}

impl Pulse {
    /// Begins to look.
    pub fn start(api: &Api) -> Pulse {
        let (api, stop) = (api.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut ticks, mut since) = (Ticks::default(), Instant::now());
            while !stopped.is_cancelled() {
                // A look that fails is a look at a world that stands still.
                if let Ok(info) = api.info().await
                    && info.tick > ticks.seen.1
                {
                    let first = if ticks.seen.0 == 0 { info.tick } else { ticks.seen.0 };
                    if ticks.seen.0 > 0 {
                        ticks.longest = ticks.longest.max(since.elapsed());
                    }
                    (ticks.seen, since) = ((first, info.tick), Instant::now());
                }
                tokio::time::sleep(LOOK).await;
            }
            Ticks { longest: ticks.longest.max(since.elapsed()), ..ticks }
        });
        Pulse { stop, task }
    }

    /// Ends the look.
    pub async fn stop(self) -> Ticks {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}
