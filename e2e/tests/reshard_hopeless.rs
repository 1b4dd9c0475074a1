//! A re-sharding that trying again does not help is given up at once, by the exit code of its pod, and says why.

use std::error::Error;
use std::time::Duration;

use fortia_e2e::checker::serving;
use fortia_e2e::fortia::{Fortia, condition};
use fortia_e2e::{reshard, shared};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SPEC: &str =
    "{redisShards: 1, world: {radius: 4, tickPeriod: 1s}, rebalancing: {retainPreviousVersion: 5s}}";
/// Enough for groups to come up and for one pod to end; twenty pods, one after the other, take an hour.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_value_no_world_has_gives_a_re_sharding_up_at_once_and_is_named_as_the_reason()
-> Result<(), Box<dyn Error>> {
    let world = shared::own_world("hopeless", SPEC).await?;
    let before = serving(&world.object().await?)?;
    told(&world, "ZADD v1:zz:1 1 member").await?;

    world.scale(2).await?;
    let is_told =
        |object: &Value| condition(object, "Degraded").is_some_and(|c| c["reason"] == "CorruptData");
    world.wait("the reason CorruptData", PATIENCE, |_| {}, is_told).await?;
    let after = reshard::over(&world).await?;
    assert_eq!(serving(&after)?, before);
    assert_eq!(after["status"]["failedRebalance"]["reason"], "CorruptData");
    let events = world.cluster.get(&["-n", "hopeless", "events"]).await?;
    let mut reasons = events["items"].as_array().into_iter().flatten().map(|event| &event["reason"]);
    assert!(reasons.any(|reason| reason == "CorruptData"), "{events}");
    let jobs = world.cluster.kubectl(&["get", "jobs", "-n", "hopeless", "-o", "name"]).await?;
    assert!(!jobs.contains("migrate"), "{jobs}");

    told(&world, "DEL v1:zz:1").await?;
    world.scale(1).await?;
    reshard::over(&world).await?;
    let seen = reshard::scale(&world, 2, || async { Ok(()) }).await?;
    assert_eq!(seen.difference, Default::default());
    shared::remove(&world.cluster, "hopeless").await?;
    Ok(())
}

/// Tells the first shard's primary a command, past the guard.
async fn told(world: &Fortia, command: &str) -> Result<(), Box<dyn Error>> {
    let pod = format!("{}-shard-0-0", world.name);
    let forward = world.cluster.forward(&world.pod_address(&pod, 6379).await?).await?;
    let password = world.secret(&format!("{}-redis", world.name), "operator").await?;
    let mut stream = TcpStream::connect(("127.0.0.1", forward.port())).await?;
    stream.write_all(format!("AUTH operator {password}\r\n{command}\r\nQUIT\r\n").as_bytes()).await?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await?;
    assert!(answers.starts_with("+OK\r\n:1\r\n"), "{command}: {answers}");
    Ok(())
}
