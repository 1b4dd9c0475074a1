//! One re-sharding of a live world, watched: from the edit of `redisShards` until the old version is served no more,
//! with every stored key compared across the flip. Knows the status' words.

use std::time::{Duration, Instant};

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
    /// How the world after the flip differed, as of the tick that was held.
    pub difference: Difference,
    /// How long writes stood still, as the status says.
    pub pause: Duration,
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
    fortia.wait("Copying", PHASE, |o| note(&mut phases, o), |o| reached(o, "Copying")).await?;
    during().await?;
    let checker = Checker::connect(fortia, before.shards.max(shards)).await?;
    let flipped = |object: &Value| serving(object).is_ok_and(|layout| layout.version > before.version);
    let object = wait_quickly(fortia, &mut phases, flipped).await?;
    let after = serving(&object)?;
    let tick = object["status"]["rebalance"]["heldTick"].as_u64();
    let tick = tick.ok_or_else(|| CheckError::Status("rebalance.heldTick", object["status"].to_string()))?;
    let (old, new) = tokio::try_join!(checker.contents(before, tick), checker.contents(after, tick))?;
    let object =
        fortia.wait("a measured pause", PHASE, |o| note(&mut phases, o), |o| pause(o).is_some()).await?;
    Ok(Seen {
        layouts: (before, after),
        keys: old.len(),
        difference: old.difference(&new),
        pause: pause(&object).unwrap_or_default(),
        phases,
    })
}

/// Waits until the re-sharding is over and no key of the old version is left on the groups that stay.
///
/// # Errors
/// When it does not end.
pub async fn collected(fortia: &Fortia, old: Layout) -> Result<u64, CheckError> {
    let object = fortia
        .wait(
            "collected",
            PHASE,
            |_| {},
            |o| o["status"]["rebalance"]["phase"].is_null() && crate::fortia::is_ready(o),
        )
        .await?;
    let shards = serving(&object)?.shards.min(old.shards);
    Checker::connect(fortia, shards).await?.count(Layout { shards, ..old }).await
}

/// The world goes on while this looks: two ticks after the flip its first values are overwritten.
async fn wait_quickly(
    fortia: &Fortia,
    phases: &mut Vec<String>,
    is: impl Fn(&Value) -> bool,
) -> Result<Value, FortiaError> {
    let begun = Instant::now();
    loop {
        let object = fortia.object().await?;
        note(phases, &object);
        if is(&object) {
            return Ok(object);
        }
        if begun.elapsed() > PHASE {
            let status = object["status"].to_string();
            return Err(FortiaError::Late { what: "the flip".into(), seconds: PHASE.as_secs(), status });
        }
    }
}

fn note(phases: &mut Vec<String>, object: &Value) {
    let phase = object["status"]["rebalance"]["phase"].as_str().unwrap_or_default();
    if !phase.is_empty() && phases.last().is_none_or(|last| last != phase) {
        phases.push(phase.into());
    }
}

fn reached(object: &Value, phase: &str) -> bool {
    object["status"]["rebalance"]["phase"] == phase
}

fn pause(object: &Value) -> Option<Duration> {
    object["status"]["rebalance"]["lastPauseMs"].as_u64().map(Duration::from_millis)
}
