//! A server loses power: it comes back without what was appended to its file since the last fsync, of which there is one a
//! second. Knows what is lawfully lost with it: what this server acknowledged since that fsync, as the server of its
//! version, re-sharding or not, and no more. What it lacks is read from itself, so whatever it still has has to be there
//! in the end; a server that is only filled acknowledges nothing to players, and with it nothing may be lost at all,
//! since the source has it still. Right after a flip a server has keys that came to it last: written up to
//! [`CARRIED`] before, they may not be on its disk although they were on that of the server that acknowledged them.
#![allow(clippy::print_stdout, reason = "figures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fortia_common::topology::{Layout, Phase};
use fortia_rdb::keyspace::shard_of;

use crate::scene::Scene;

/// Longest time from the acknowledgement of a write to its arrival on a target, when the flip follows.
const CARRIED: Duration = Duration::from_secs(1);

/// How long it is down: less than a cut-over may last, so that it may come back in the middle of one.
const DOWN: Duration = Duration::from_millis(50);

/// Kills a server, cuts its file and starts it again. Returns what it lacks although it must not.
pub(crate) async fn cut(scene: &mut Scene, server: usize, n: u64) -> Vec<String> {
    let before = scene.plane.topology().await;
    let unsynced = Duration::from_millis([1000, 600, 1000, 300][n as usize % 4]);
    let cut = scene.journals[server].cut(&mut scene.plane.shards[server], unsynced, n % 3 * 11);
    tokio::time::sleep(DOWN).await;
    let killed = Instant::now();
    scene.plane.shards[server].restart();
    let after = scene.plane.topology().await;
    // A flip between the two looks was before the kill: for none is made with a server that is down.
    let has_just = before.serving != after.serving || before.phase == Some(Phase::Retaining);
    let flip = if has_just { Some(killed) } else { scene.last_flip() };
    let may_lack = |at: Instant| {
        let carried = flip.is_some_and(|flip| at <= flip) && at > cut.since - CARRIED;
        at > cut.since || carried
    };
    let (mut lost, mut forgiven) = (Vec::new(), 0);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for layout in [before.serving, after.serving] {
        for (name, value) in values_on(scene, server, &layout).await {
            found.entry(name).and_modify(|other| *other = value.min(*other)).or_insert(value);
        }
    }
    for (name, found) in found {
        match scene.players.forgive(&name, found, killed, may_lack) {
            Ok(values) => forgiven += values,
            Err(why) => lost.push(why),
        }
    }
    println!(
        "shard {server} lost {} bytes of its last {unsynced:?}, and with them {forgiven} acknowledged writes",
        cut.bytes
    );
    lost
}

/// The values of all players who in this layout belong on a server, as it has them; 0 if it has none.
async fn values_on(scene: &Scene, server: usize, layout: &Layout) -> Vec<(String, u64)> {
    let mut names = scene.players.names();
    names.retain(|name| shard_of(format!("u:{name}").as_bytes(), layout) as usize == server);
    if names.is_empty() {
        return Vec::new();
    }
    let mut ask = redis::pipe();
    for name in &names {
        ask.cmd("HGET").arg(format!("v{}:u:{name}", layout.version)).arg("joined");
    }
    let mut connection = scene.plane.shards[server].connect().await;
    let values: Vec<Option<u64>> = ask.query_async(&mut connection).await.expect("a server that is back");
    names.into_iter().zip(values.into_iter().map(Option::unwrap_or_default)).collect()
}
