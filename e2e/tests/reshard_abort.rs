//! A re-sharding that is given up while keys are copied: nothing of it is left, and it can be made later.

use std::error::Error;
use std::time::Duration;

use fortia_common::topology::Layout;
use fortia_e2e::api::Api;
use fortia_e2e::checker::{Checker, Difference, serving};
use fortia_e2e::crowd::{Players, Viewers};
use fortia_e2e::fortia::{Fortia, condition};
use fortia_e2e::{reshard, shared};
use serde_json::Value;

/// The migrator gets a hundredth of a core, so that there is a copy to be given up.
const SPEC: &str = "{redisShards: 2, world: {radius: 8, tickPeriod: 1s}, rebalancing: {retainPreviousVersion: 5s}, \
                    jobs: {migrator: {resources: {requests: {cpu: 10m}, limits: {cpu: 10m, memory: 128Mi}}}}}";
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_re_sharding_that_is_aborted_while_keys_are_copied_leaves_nothing_and_can_be_made_later()
-> Result<(), Box<dyn Error>> {
    let world = shared::own_world("abort", SPEC).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let players = Players::start(&api, "hero", 10, Duration::from_millis(500)).await?;
    let viewers = Viewers::start(&api, 2, Duration::from_millis(100));
    let before = serving(&world.object().await?)?;

    world.scale(3).await?;
    copies(&world).await?;
    let target = Layout { version: before.version + 1, ..before };
    world.annotate(&format!("fortia.dev/abort=v{}", target.version)).await?;
    let after = reshard::over(&world).await?;
    assert_eq!(serving(&after)?, before, "the flip was faster: {}", after["status"]);
    assert_eq!(after["status"]["failedRebalance"]["reason"], "Aborted");
    assert_eq!(condition(&after, "Progressing").map(|c| &c["reason"]), Some(&Value::from("Aborted")));
    assert_eq!(Checker::connect(&world, 2).await?.count(target).await?, 0, "keys of the target are left");
    let groups = world.cluster.kubectl(&["get", "statefulset", "-n", "abort", "-o", "name"]).await?;
    assert!(!groups.contains("shard-2"), "the target's group stays:\n{groups}");

    // It is not tried again by itself, though the spec still asks for it.
    world.annotate("fortia.dev/abort-").await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.object().await?["status"]["rebalance"].is_null());
    world.scale(2).await?;
    reshard::over(&world).await?;
    let seen = reshard::scale(&world, 3, || async { Ok(()) }).await?;
    assert_eq!(seen.difference, Difference::default());
    assert_eq!(reshard::collected(&world, before).await?, 0);

    let views = viewers.stop().await;
    let deeds = players.stop().await;
    assert_eq!(views.failed, 0, "{:?}", views.last_failure);
    assert_eq!(deeds.failed, 0, "{deeds:?}");
    shared::remove(&world.cluster, "abort").await?;
    Ok(())
}

/// Waits until keys of the target exist; a small world may be copied between two looks.
async fn copies(world: &Fortia) -> Result<(), Box<dyn Error>> {
    let copies = |object: &Value| {
        let now = &object["status"]["rebalance"];
        match now["phase"].as_str() {
            Some("Copying") => now["keys"].as_u64() > Some(0),
            Some("CatchingUp" | "Verifying") => true,
            _ => false,
        }
    };
    world.wait("keys that are copied", PATIENCE, |_| {}, copies).await?;
    Ok(())
}
