//! CatchingUp: carries what was written since, round after round, and goes on doing so until the flip. Knows when a
//! round is small; nothing of who writes.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use fortia_rdb::migrate::engine::{Attempt, Lane};

use crate::MigrateError;
use crate::pod::Pod;

/// Keys carried in one step.
const STEP: usize = 512;
/// A round of so few keys is small.
const SMALL: u64 = 128;
/// So is a round that took no longer.
const QUICK: Duration = Duration::from_millis(20);
/// Rest between two looks at few notes.
const REST: Duration = Duration::from_millis(20);

/// Rounds until one was small. Returns the lane that made them.
pub(crate) async fn rounds(pod: &Pod<'_>, attempt: &Attempt) -> Result<Lane, MigrateError> {
    let mut lane = pod.engine.lane(pod.job.index).await?;
    let mut last = u64::MAX;
    loop {
        let begun = Instant::now();
        let lag = pod.engine.lag(pod.job.index).await?;
        tell(pod, lag);
        pod.failpoints.pass("catching_up.read").await?;
        // Throttled only while the notes get fewer: readers must not keep it from ever catching up.
        let shrinks = lag < last;
        let mut carried = 0;
        while carried < lag {
            let step = Instant::now();
            let drained = lane.drain(attempt, pod.pace.batch(STEP)).await?;
            pod.report.change(|progress| progress.bytes += drained.bytes);
            tell(pod, drained.left);
            pod.failpoints.pass("catching_up.carried").await?;
            carried += drained.keys;
            if drained.keys == 0 {
                break;
            }
            if shrinks {
                pod.pace.rest(step.elapsed()).await;
            }
        }
        pod.failpoints.pass("catching_up.cleaned").await?;
        if carried <= SMALL || begun.elapsed() <= QUICK {
            return Ok(lane);
        }
        last = lag;
    }
}

/// Keeps the notes few. Never ends but with an error.
pub(crate) async fn draining(
    pod: &Pod<'_>,
    attempt: &Attempt,
    mut lane: Lane,
) -> Result<Infallible, MigrateError> {
    loop {
        let drained = lane.drain(attempt, pod.pace.batch(STEP)).await?;
        pod.report.change(|progress| progress.bytes += drained.bytes);
        tell(pod, drained.left);
        if drained.left <= SMALL {
            tokio::time::sleep(REST).await;
        }
    }
}

fn tell(pod: &Pod<'_>, lag: u64) {
    pod.report.change(|progress| progress.lag = Some(lag));
}
