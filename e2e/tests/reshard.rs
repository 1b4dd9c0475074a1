//! Re-sharding a live world, 2 -> 3 -> 2, with 20 players and 4 viewers in it.
#![allow(clippy::print_stdout, reason = "figures")]

use std::error::Error;
use std::time::Duration;

use fortia_e2e::api::Api;
use fortia_e2e::crowd::{Players, Viewers};
use fortia_e2e::{logs, reshard, shared};

/// Two ticks after the flip the first values of the held tick are overwritten: a long period leaves time to compare.
const SPEC: &str =
    "{redisShards: 2, world: {radius: 8, tickPeriod: 3s}, rebalancing: {retainPreviousVersion: 5s}}";

#[tokio::test]
async fn a_live_world_goes_from_two_shards_to_three_and_back_and_nothing_is_lost()
-> Result<(), Box<dyn Error>> {
    let world = shared::own_world("reshard", SPEC).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let players = Players::start(&api, "hero", 20, Duration::from_millis(500)).await?;
    let viewers = Viewers::start(&api, 4, Duration::from_millis(50));
    tokio::time::sleep(Duration::from_secs(10)).await;

    let (mut lost, mut changed, mut pause) = (0, 0, Duration::ZERO);
    for shards in [3, 2] {
        let seen = reshard::scale(&world, shards, || async { Ok(()) }).await?;
        println!("{} -> {shards}: {seen:?}", seen.layouts.0.shards);
        assert_eq!(seen.layouts.1.version, seen.layouts.0.version + 1);
        assert_eq!(seen.layouts.1.shards, shards);
        assert!(seen.keys > 289 + 40, "only {} keys compared", seen.keys);
        lost += seen.difference.lost.len();
        changed += seen.difference.changed.len() + seen.difference.added.len();
        pause = pause.max(seen.pause);
        let left = reshard::collected(&world, seen.layouts.0).await?;
        assert_eq!(left, 0, "keys of v{} are left", seen.layouts.0.version);
    }
    let tick = api.info().await?.tick;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(api.info().await?.tick > tick, "the world stands still at tick {tick}");

    logs::of(&world.forward("logserver", 8080).await?, "migrator").await?;

    let views = viewers.stop().await;
    let deeds = players.stop().await;
    println!("{} reads, slowest {:?}; {deeds:?}", views.reads, views.slowest);
    println!("figure slice.failed_reads {} reads", views.failed);
    println!("figure slice.lost {lost} keys");
    println!("figure slice.changed {changed} keys");
    println!("figure slice.pause_s {:.2} s", pause.as_secs_f64());
    assert_eq!(views.failed, 0, "{:?}", views.last_failure);
    assert_eq!((lost, changed), (0, 0));
    assert_eq!(views.versions, [1, 2, 3]);
    assert!(deeds.orders > 0, "{deeds:?}");
    assert_eq!(deeds.failed, 0, "{deeds:?}");

    assert_eq!(world.restarted().await?, Vec::<String>::new());
    let groups = world.cluster.kubectl(&["get", "statefulset", "-n", "reshard", "-o", "name"]).await?;
    assert!(!groups.contains("shard-2"), "a surplus group stays:\n{groups}");
    shared::remove(&world.cluster, "reshard").await?;
    Ok(())
}
