//! Re-sharding while what drives it is killed: a migrator pod, the operator and the scheduler.
#![allow(clippy::print_stdout, reason = "figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::api::Api;
use fortia_e2e::checker::Difference;
use fortia_e2e::crowd::{Players, Viewers};
use fortia_e2e::fortia::{Fortia, FortiaError, SYSTEM};
use fortia_e2e::{reshard, shared};

/// The migrator gets a hundredth of a core, so that there is a copy to be killed in.
const SPEC: &str = "{redisShards: 2, world: {radius: 8, tickPeriod: 2s}, rebalancing: {retainPreviousVersion: 5s}, \
                    jobs: {migrator: {resources: {requests: {cpu: 10m}, limits: {cpu: 10m, memory: 128Mi}}}}}";

#[tokio::test]
async fn a_killed_migrator_a_killed_operator_and_a_killed_scheduler_change_nothing()
-> Result<(), Box<dyn Error>> {
    let world = shared::own_world("faults", SPEC).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let players = Players::start(&api, "hero", 20, Duration::from_millis(500)).await?;
    let viewers = Viewers::start(&api, 4, Duration::from_millis(50));

    let seen = reshard::scale(&world, 3, || kill_all(&world)).await?;
    println!("{seen:?}");
    assert!(seen.keys > 289 + 40, "only {} keys compared", seen.keys);
    assert_eq!(seen.difference, Difference::default());
    assert_eq!(seen.layouts.1.version, seen.layouts.0.version + 1);
    assert_eq!(reshard::collected(&world, seen.layouts.0).await?, 0);

    let views = viewers.stop().await;
    let deeds = players.stop().await;
    assert_eq!(views.failed, 0, "{:?}", views.last_failure);
    assert_eq!(deeds.failed, 0, "{deeds:?}");
    shared::remove(&world.cluster, "faults").await?;
    Ok(())
}

/// Kills a migrator pod that runs, then the operator, then the scheduler, all without a grace period, and makes sure that
/// keys were still being carried when the first two died.
async fn kill_all(world: &Fortia) -> Result<(), FortiaError> {
    let pod = running_migrator(world).await?;
    world
        .cluster
        .kubectl(&["delete", "pod", "-n", &world.namespace, &pod, "--grace-period=0", "--force"])
        .await?;
    carrying(world, &format!("migrator pod {pod} was killed")).await?;
    let operator = [
        "delete",
        "pod",
        "-n",
        SYSTEM,
        "-l",
        "app.kubernetes.io/name=fortia-operator",
        "--grace-period=0",
        "--force",
    ];
    world.cluster.kubectl(&operator).await?;
    carrying(world, "the operator was killed").await?;
    let selector = format!("app.kubernetes.io/instance={},app.kubernetes.io/component=scheduler", world.name);
    let kill = ["delete", "pod", "-n", &world.namespace, "-l", &selector, "--grace-period=0", "--force"];
    world.cluster.kubectl(&kill).await?;
    Ok(())
}

async fn running_migrator(world: &Fortia) -> Result<String, FortiaError> {
    let begun = Instant::now();
    loop {
        let selector =
            format!("app.kubernetes.io/instance={},app.kubernetes.io/component=migrator", world.name);
        let pods = world.cluster.get(&["-n", &world.namespace, "pods", "-l", &selector]).await?;
        let running =
            pods["items"].as_array().into_iter().flatten().find(|pod| pod["status"]["phase"] == "Running");
        if let Some(name) = running.and_then(|pod| pod["metadata"]["name"].as_str()) {
            return Ok(name.to_owned());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            let status = world.object().await?["status"].to_string();
            return Err(FortiaError::Late { what: "a running migrator pod".into(), seconds: 60, status });
        }
    }
}

/// An error unless the world is still in a phase in which the migrator works.
async fn carrying(world: &Fortia, what: &str) -> Result<(), FortiaError> {
    let object = world.object().await?;
    let phase = object["status"]["rebalance"]["phase"].as_str().unwrap_or_default();
    if ["Copying", "CatchingUp", "Verifying"].contains(&phase) {
        return Ok(());
    }
    let status = object["status"].to_string();
    Err(FortiaError::Late { what: format!("{what} while keys are carried"), seconds: 0, status })
}
