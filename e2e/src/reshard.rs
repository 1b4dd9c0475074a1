//! One re-sharding of a live world, watched: from the edit of `redisShards` until the old version is served no more,
//! with every stored key compared across the flip. Knows the status' words.

use std::time::Duration;

use fortia_common::topology::Layout;
use serde_json::Value;

use crate::checker::{CheckError, Checker, Difference, serving};
use crate::fortia::{Fortia, FortiaError};

/// Patience for one phase on a busy two-core machine.
const PHASE: Duration = Duration::from_secs(180);

/// What one re-sharding was seen to do.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What was served before, and after.
    pub layouts: (Layout, Layout),
    /// Keys compared.
    pub keys: usize,
    /// How the world after the flip differed, as of the last tick before it.
    pub difference: Difference,
    /// How long writes stood still, as the status says.
    pub pause: Duration,
    /// The last tick before the flip.
    pub tick: u64,
    /// Phases seen, in order.
    pub phases: Vec<String>,
}

/// Scales the world and watches until the new version serves. `during` is called once, in the phase Copying.
///
/// # Errors
/// When a phase does not come, or the stored world cannot be read.
pub async fn scale<F: Future<Output = Result<(), FortiaError>>>(
    fortia: &Fortia,
    shards: u32,
    during: impl FnOnce() -> F,
) -> Result<Seen, CheckError> {
    let before = serving(&fortia.object().await?)?;
    let mut phases = Vec::new();
    fortia.scale(shards).await?;
    let begun = |object: &Value| {
        // A small world may be copied between two looks.
        object["status"]["rebalance"]["opened"] == true || flipped(object, before)
    };
    fortia.wait("Copying", PHASE, |o| note(&mut phases, o), begun).await?;
    let checker = Checker::connect(fortia, before.shards.max(shards)).await?;
    let watch = async {
        let tick = checker.flip(before, PHASE).await?;
        let after = Layout { version: before.version + 1, shards, ..before };
        // The new one first: the world goes on, and two ticks later its values are overwritten. The old one stays.
        let new = checker.contents(after, tick).await?;
        Ok::<_, CheckError>((tick, checker.contents(before, tick).await?, new))
    };
    let ((tick, old, new), ()) = tokio::try_join!(watch, async { Ok(during().await?) })?;
    let told = |object: &Value| flipped(object, before) && pause(object).is_some();
    let object = fortia.wait("a measured pause", PHASE, |o| note(&mut phases, o), told).await?;
    let held = object["status"]["rebalance"]["heldTick"].as_u64();
    if held != Some(tick) {
        return Err(CheckError::Status("heldTick as the guards had it", object["status"].to_string()));
    }
    Ok(Seen {
        layouts: (before, serving(&object)?),
        keys: old.len(),
        difference: old.difference(&new),
        pause: pause(&object).unwrap_or_default(),
        tick,
        phases,
    })
}

/// Waits until no re-sharding runs any more.
///
/// # Errors
/// When it does not end.
pub async fn over(fortia: &Fortia) -> Result<Value, FortiaError> {
    let is_over =
        |object: &Value| object["status"]["rebalance"]["phase"].is_null() && crate::fortia::is_ready(object);
    fortia.wait("the end of the re-sharding", PHASE, |_| {}, is_over).await
}

/// Waits for a phase.
///
/// # Errors
/// When it does not come.
pub async fn phase(fortia: &Fortia, phase: &str) -> Result<Value, FortiaError> {
    fortia.wait(phase, PHASE, |_| {}, |object| object["status"]["rebalance"]["phase"] == phase).await
}

/// Waits until the re-sharding is over and no key of the old version is left on the groups that stay.
///
/// # Errors
/// When it does not end.
pub async fn collected(fortia: &Fortia, old: Layout) -> Result<u64, CheckError> {
    let object = over(fortia).await?;
    let shards = serving(&object)?.shards.min(old.shards);
    Checker::connect(fortia, shards).await?.count(Layout { shards, ..old }).await
}

fn note(phases: &mut Vec<String>, object: &Value) {
    let phase = object["status"]["rebalance"]["phase"].as_str().unwrap_or_default();
    if !phase.is_empty() && phases.last().is_none_or(|last| last != phase) {
        phases.push(phase.into());
    }
}

fn flipped(object: &Value, before: Layout) -> bool {
    serving(object).is_ok_and(|layout| layout.version > before.version)
}

fn pause(object: &Value) -> Option<Duration> {
    object["status"]["rebalance"]["lastPauseMs"].as_u64().map(Duration::from_millis)
}
