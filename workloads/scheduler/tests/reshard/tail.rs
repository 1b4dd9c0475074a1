//! A server loses power: it comes back without what was appended to its file since the last fsync, of which there is one a
//! second. Knows what is lawfully lost with it: what this server acknowledged since that fsync, as the server of its
//! version, re-sharding or not, and no more. What it lacks is read from itself, so whatever it still has has to be there
//! in the end; a server that is only filled acknowledges nothing to players, and with it nothing may be lost at all,
//! since the source has it still. Right after a flip it is the server of keys that came to it last: written up to
//! [`CARRIED`] before, they may not be on its disk although they were on that of the server that acknowledged them.
#![allow(clippy::print_stdout, reason = "figures")]

use std::time::{Duration, Instant};

use fortia_common::topology::{Layout, Phase};
use fortia_rdb::keyspace::shard_of;

use crate::scene::Scene;

/// Longest time from the acknowledgement of a write to its arrival on a target, when the flip follows.
const CARRIED: Duration = Duration::from_secs(1);

/// Kills a server, cuts its file and starts it again. Returns what it lacks although it must not.
pub(crate) async fn cut(scene: &mut Scene, server: usize, n: u64, down: Duration) -> Vec<String> {
    let before = scene.plane.topology().await;
    // All that is not on disk, or a part of it, which ends in the middle of a command or between two.
    let left = [0, 50, 0, 90][n as usize / 3 % 4];
    let cut = scene.journals[server].cut(&mut scene.plane.shards[server], left).await;
    tokio::time::sleep(down).await;
    let killed = Instant::now();
    scene.plane.shards[server].restart();
    let after = scene.plane.topology().await;
    // A flip between the two looks was before the kill: for none is made with a server that is down.
    let phases = [Some(Phase::Retaining), Some(Phase::Collecting)];
    let just_flipped = before.serving != after.serving || phases.contains(&before.phase);
    let since = if just_flipped { cut.since - CARRIED } else { cut.since };
    let (mut lost, mut forgiven) = (Vec::new(), 0);
    for name in scene.players.names() {
        let mut found = None;
        for layout in [before.serving, after.serving] {
            if let Some(value) = value_on(scene, server, &name, &layout).await {
                found = Some(found.map_or(value, |other: u64| other.min(value)));
            }
        }
        let Some(found) = found else { continue };
        match scene.players.forgive(&name, found, since, killed) {
            Ok(values) => forgiven += values,
            Err(why) => lost.push(why),
        }
    }
    println!(
        "shard {server} lost {} bytes of its last {:?}, and with them {forgiven} acknowledged writes",
        cut.bytes,
        killed - down - cut.since
    );
    lost
}

/// A player's value on a server, 0 if there is none; none when in this layout it belongs on another.
async fn value_on(scene: &Scene, server: usize, name: &str, layout: &Layout) -> Option<u64> {
    let text = format!("u:{name}");
    if shard_of(text.as_bytes(), layout) as usize != server {
        return None;
    }
    let key = format!("v{}:{text}", layout.version);
    let value: Option<u64> = scene.plane.shards[server].run(&["HGET", &key, "joined"]).await;
    Some(value.unwrap_or_default())
}
