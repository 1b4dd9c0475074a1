//! A shard that comes back without its last commits: no tick goes on from what it has, until somebody accepts the loss.

use fortia_common::records::{Config, FORGOTTEN, ForgottenRecord};
use fortia_proto::world::v1::{self as world, Action, Spawn, action};
use fortia_world::start;

use crate::cluster::{Cluster, RADIUS, SEED, config};

/// Lets players join: their units are new in chunks of both shards.
async fn joined(cluster: &Cluster, players: &[&str]) {
    for (id, player) in (1..).zip(players) {
        let at = start::position(SEED, RADIUS, player);
        let spawn = Spawn {
            owner: (*player).into(),
            at: Some(world::BlockPos { x: at.x, y: at.y, z: at.z }),
            units: start::unit_ids(player, 3),
        };
        let kind = Some(action::Kind::Spawn(spawn));
        cluster.act(at.region(), &Action { id, player: (*player).into(), kind }).await;
    }
    cluster.ticks(3).await;
}

async fn forgotten(cluster: &Cluster) -> Option<ForgottenRecord> {
    let json: Option<String> = cluster.plane.control_db.run(&["GET", FORGOTTEN]).await;
    json.map(|json| serde_json::from_str(&json).expect("a record"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_its_last_commits_stops_the_world_until_the_loss_is_accepted() {
    let mut cluster = Cluster::living(2).await;
    joined(&cluster, &["ann", "bob"]).await;
    // What was on its disk when the power went.
    let old = cluster.plane.shards[0].replica(&[]).await;
    old.run::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    joined(&cluster, &["cid", "dot", "eve", "fay"]).await;
    cluster.plane.shards[0] = old;
    let mut topology = cluster.plane.topology().await;
    (topology.epoch, topology.groups) = (topology.epoch + 1, cluster.plane.groups());
    cluster.plane.set_topology(&topology).await;

    cluster.wait_until("the loss to be told", async |c| forgotten(c).await.is_some()).await;
    let (told, stands) = (forgotten(&cluster).await.expect("told"), cluster.committed().await);
    assert_eq!(told.tick, stands);
    assert!(told.why.starts_with("shard 0 came back with "), "{}", told.why);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(cluster.committed().await, stands, "nothing is made from a part of the world");
    assert!(cluster.chunks().await.iter().all(Option::is_some), "but it can be seen");
    // Another leader finds the same.
    cluster.kill("scheduler-0").await;
    cluster.spawn(fortia_common::boot::Service::Scheduler, "scheduler-1");
    cluster.wait_until("the next leader to refuse", async |c| c.abandoned("scheduler-1") > 0.0).await;
    assert_eq!(cluster.committed().await, stands);

    // The loss of another tick is not this one.
    cluster.reconfigure(&Config { accepted_loss: Some(stands - 1), ..config(SEED) }).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(cluster.committed().await, stands);
    cluster.reconfigure(&Config { accepted_loss: Some(stands), ..config(SEED) }).await;
    cluster.ticks(5).await;
    assert_eq!(forgotten(&cluster).await, None);
    joined(&cluster, &["gus"]).await;
}
