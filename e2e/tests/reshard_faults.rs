//! Re-sharding while what drives it is killed: a migrator pod and the operator, during the copy.
#![allow(clippy::print_stdout, reason = "figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::api::Api;
use fortia_e2e::crowd::Viewers;
use fortia_e2e::fortia::{Fortia, FortiaError, SYSTEM};
use fortia_e2e::{reshard, shared};

const SPEC: &str =
    "{redisShards: 2, world: {radius: 6, tickPeriod: 3s}, rebalancing: {retainPreviousVersion: 5s}}";

#[tokio::test]
async fn a_killed_migrator_and_a_killed_operator_change_nothing() -> Result<(), Box<dyn Error>> {
    let world = shared::own_world("faults", SPEC).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let viewers = Viewers::start(&api, 4, Duration::from_millis(50));

    let seen = reshard::scale(&world, 3, || kill_both(&world)).await?;
    println!("{seen:?}");
    assert!(seen.difference.lost.is_empty() && seen.difference.changed.is_empty(), "{:?}", seen.difference);
    assert!(seen.difference.added.is_empty(), "{:?}", seen.difference);
    assert_eq!(seen.layouts.1.version, seen.layouts.0.version + 1);
    assert_eq!(reshard::collected(&world, seen.layouts.0).await?, 0);

    let views = viewers.stop().await;
    assert_eq!(views.failed, 0, "{:?}", views.last_failure);
    shared::remove(&world.cluster, "faults").await?;
    Ok(())
}

/// Kills the first migrator pod that is seen, and the operator, both without a grace period.
async fn kill_both(world: &Fortia) -> Result<(), FortiaError> {
    let begun = Instant::now();
    loop {
        if let Some(pod) = world.pods("migrator").await?.first() {
            world
                .cluster
                .kubectl(&["delete", "pod", "-n", &world.namespace, pod, "--grace-period=0", "--force"])
                .await?;
            break;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            let status = world.object().await?["status"].to_string();
            return Err(FortiaError::Late { what: "a migrator pod".into(), seconds: 60, status });
        }
    }
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
    world.cluster.kubectl(&operator).await.map(drop)?;
    Ok(())
}
