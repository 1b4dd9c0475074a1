//! Whether the world's shards are there and take writes: their primaries are asked all the time, so that it is known
//! before anybody's order fails. Knows no HTTP.

use std::time::Duration;

use fortia_common::topology::{Layout, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::guard::{Guard, State};
use fortia_rdb::world::World;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time between two questions.
const BEAT: Duration = Duration::from_millis(500);
/// A primary that has not answered after this does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the primaries of all shards say together: the worst that one of them says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pulse {
    /// All take writes.
    Open,
    /// All answer, and some are frozen by a re-sharding for longer than a cut-over takes.
    Frozen,
    /// All answer, and some serve another version than this server knows of: it has not heard of a cut-over.
    Elsewhere,
    /// Some do not answer.
    Silent,
}

/// Asks the shards of the topology until `stop`, at once when it changes, and tells `pulse` when the answer is another.
/// A cut-over freezes them for a moment, and its topology comes a moment later, which is worth no word: they count as frozen
/// or elsewhere once two answers in a row say so.
pub(crate) async fn follow(
    world: World,
    mut topology: watch::Receiver<Topology>,
    pulse: watch::Sender<Pulse>,
    stop: CancellationToken,
) {
    let beats = async {
        let mut last = Pulse::Open;
        loop {
            let serving = topology.borrow_and_update().serving;
            let said = ask(&world, &serving).await;
            let now = settled(*pulse.borrow(), last, said);
            last = said;
            let was = pulse.send_replace(now);
            if was != now {
                tracing::info!(?was, ?now, "the shards' state changed");
            }
            if let Ok(Err(_gone)) = timeout(BEAT, topology.changed()).await {
                return;
            }
        }
    };
    stop.run_until_cancelled(beats).await;
}

/// What is to be told, by what was told, what was said before, and what is said now.
fn settled(told: Pulse, before: Pulse, said: Pulse) -> Pulse {
    match said {
        Pulse::Frozen | Pulse::Elsewhere if before != said => told,
        said => said,
    }
}

async fn ask(world: &World, serving: &Layout) -> Pulse {
    let guards = (0..serving.shards).map(async |shard| timeout(PATIENCE, world.guard(shard)).await.ok());
    let said = join_all(guards).await.into_iter().map(|answer| of(answer, serving.version));
    said.max().unwrap_or(Pulse::Open)
}

/// What one shard says to who takes this version for the one that serves; none is no answer in time.
fn of(answer: Option<Result<Guard, RdbError>>, version: u64) -> Pulse {
    match answer {
        Some(Ok(guard)) if guard.version != version => Pulse::Elsewhere,
        Some(Ok(Guard { state: State::Frozen, .. })) => Pulse::Frozen,
        Some(Ok(_)) => Pulse::Open,
        Some(Err(error)) => {
            tracing::debug!(%error, "a shard does not answer");
            Pulse::Silent
        }
        None => Pulse::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_frozen_for_a_moment_only_are_open_all_the_time() {
        let told = |all: &[Pulse]| {
            let (mut told, mut before) = (Pulse::Open, Pulse::Open);
            for said in all {
                (told, before) = (settled(told, before, *said), *said);
            }
            told
        };
        assert_eq!(told(&[Pulse::Frozen]), Pulse::Open);
        assert_eq!(told(&[Pulse::Frozen, Pulse::Open, Pulse::Frozen]), Pulse::Open);
        assert_eq!(told(&[Pulse::Frozen, Pulse::Frozen]), Pulse::Frozen);
        assert_eq!(told(&[Pulse::Silent, Pulse::Frozen]), Pulse::Silent);
        assert_eq!(told(&[Pulse::Frozen, Pulse::Elsewhere, Pulse::Open]), Pulse::Open);
        assert_eq!(told(&[Pulse::Elsewhere, Pulse::Elsewhere]), Pulse::Elsewhere);
        assert_eq!(told(&[Pulse::Frozen, Pulse::Frozen, Pulse::Open]), Pulse::Open);
    }
}
