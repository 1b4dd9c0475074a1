//! Re-sharding a live world, 2 -> 3 -> 5 -> 2, with 50 players and 4 viewers in it; then a way back, and one called off.
#![allow(clippy::print_stdout, reason = "figures")]

use std::error::Error;
use std::time::Duration;

use fortia_e2e::api::Api;
use fortia_e2e::checker::serving;
use fortia_e2e::crowd::{Players, Viewers};
use fortia_e2e::fortia::Fortia;
use fortia_e2e::pulse::Pulse;
use fortia_e2e::{logs, reshard, shared};

const SPEC: &str =
    "{redisShards: 2, world: {radius: 8, tickPeriod: 1s}, rebalancing: {retainPreviousVersion: 5s}}";
/// Longest time without a tick on a busy machine; a world that is held for a copy stands still for longer.
const BREATH: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_live_world_goes_from_two_shards_to_three_to_five_and_back_and_nothing_is_lost()
-> Result<(), Box<dyn Error>> {
    let world = shared::own_world("reshard", SPEC).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let players = Players::start(&api, "hero", 50, Duration::from_millis(1000)).await?;
    let viewers = Viewers::start(&api, 4, Duration::from_millis(100));
    tokio::time::sleep(Duration::from_secs(10)).await;

    let (mut lost, mut changed, mut pause, mut breath) = (0, 0, Duration::ZERO, Duration::ZERO);
    for shards in [3, 5, 2] {
        let pulse = Pulse::start(&api);
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
        let ticks = pulse.stop().await;
        println!("{ticks:?}");
        assert!(ticks.seen.0 < seen.tick && seen.tick < ticks.seen.1, "ticks before and after: {ticks:?}");
        breath = breath.max(ticks.longest);
    }
    goes_back(&world, &api).await?;
    is_called_off(&world).await?;
    logs::of(&world.forward("logserver", 8080).await?, "migrator").await?;

    let views = viewers.stop().await;
    let deeds = players.stop().await;
    println!("{} reads, slowest {:?}; {deeds:?}", views.reads, views.slowest);
    println!("figure slice.failed_reads {} reads", views.failed);
    println!("figure slice.failed_orders {} orders", deeds.failed);
    println!("figure slice.lost {lost} keys");
    println!("figure slice.changed {changed} keys");
    println!("figure slice.pause_ms {} ms", pause.as_millis());
    println!("figure slice.longest_tick_s {:.1} s", breath.as_secs_f64());
    assert_eq!(views.failed, 0, "{:?}", views.last_failure);
    assert_eq!((lost, changed), (0, 0));
    assert!(breath < BREATH, "the world stood still for {breath:?}");
    assert!(deeds.orders > 0, "{deeds:?}");
    assert_eq!(deeds.failed, 0, "{deeds:?}");

    assert_eq!(world.restarted().await?, Vec::<String>::new());
    let groups = world.cluster.kubectl(&["get", "statefulset", "-n", "reshard", "-o", "name"]).await?;
    assert!(!groups.contains("shard-2"), "a surplus group stays:\n{groups}");
    shared::remove(&world.cluster, "reshard").await?;
    Ok(())
}

/// To three shards, and back to the version that was kept, with what players ordered in between.
async fn goes_back(world: &Fortia, api: &Api) -> Result<(), Box<dyn Error>> {
    world.patch(r#"{"spec": {"rebalancing": {"retainPreviousVersion": "10m"}}}"#).await?;
    let seen = reshard::scale(world, 3, || async { Ok(()) }).await?;
    assert_eq!(seen.difference, Default::default());
    let flipped = api.info().await?.tick;
    while api.info().await?.tick < flipped + 5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.annotate(&format!("fortia.dev/rollback=v{}", seen.layouts.0.version)).await?;
    let back = reshard::over(world).await?;
    assert_eq!(serving(&back)?, seen.layouts.0, "{}", back["status"]);
    let tick = api.info().await?.tick;
    assert!(tick >= flipped + 5, "ticks since the flip are gone: {tick}");
    // The spec still asks for three: it is not tried again before it changes.
    world.annotate("fortia.dev/rollback-").await?;
    world.scale(2).await?;
    reshard::over(world).await?;
    Ok(())
}

/// To three shards, and to two again before the flip.
async fn is_called_off(world: &Fortia) -> Result<(), Box<dyn Error>> {
    let before = serving(&world.object().await?)?;
    // Nobody approves it, so that it is edited in time.
    world.patch(r#"{"spec": {"rebalancing": {"requireApproval": true}}}"#).await?;
    world.scale(3).await?;
    reshard::phase(world, "Planned").await?;
    world.scale(2).await?;
    let after = reshard::over(world).await?;
    assert_eq!(serving(&after)?, before);
    Ok(())
}
