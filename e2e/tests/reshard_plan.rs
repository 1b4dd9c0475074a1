//! What a re-sharding would do is told before it is done: by annotation, by a dry run, by a plan that waits for approval.

use std::error::Error;
use std::time::Duration;

use fortia_e2e::checker::serving;
use fortia_e2e::fortia::Fortia;
use fortia_e2e::{reshard, shared};
use serde_json::Value;

const SPEC: &str = "{redisShards: 1, world: {radius: 4, tickPeriod: 1s}, \
                    rebalancing: {retainPreviousVersion: 5s, requireApproval: true}}";
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_plan_is_shown_waits_for_approval_and_is_carried_out() -> Result<(), Box<dyn Error>> {
    let world = shared::own_world("plan", SPEC).await?;
    world.annotate("fortia.dev/plan=3").await?;
    let planned = |object: &Value| object["status"]["plan"]["to"]["shards"] == 3;
    let object = world.wait("a plan", PATIENCE, |_| {}, planned).await?;
    let plan = &object["status"]["plan"];
    assert!(plan["movedKeys"].as_u64() > Some(0), "{plan}");
    assert!(object["status"]["rebalance"].is_null(), "nothing is done: {}", object["status"]);
    dry_run(&world).await?;

    world.scale(2).await?;
    let waits = |object: &Value| !object["status"]["rebalance"]["plan"]["ticket"].is_null();
    let object = world.wait("a plan to approve", PATIENCE, |_| {}, waits).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.object().await?["status"]["rebalance"]["phase"], "Planned", "nobody approved it");
    let ticket = object["status"]["rebalance"]["plan"]["ticket"].as_str().unwrap_or_default();
    world.annotate(&format!("fortia.dev/approve={ticket}")).await?;
    let after = reshard::over(&world).await?;
    assert_eq!(serving(&after)?.shards, 2);
    shared::remove(&world.cluster, "plan").await?;
    Ok(())
}

/// `kubectl --dry-run=server` of another number does nothing, and tells what it would move.
async fn dry_run(world: &Fortia) -> Result<(), Box<dyn Error>> {
    let patch = r#"{"spec": {"redisShards": 2}}"#;
    let run = [
        "patch",
        "--type",
        "merge",
        "-n",
        &world.namespace,
        "fortiacluster",
        &world.name,
        "-p",
        patch,
        "--dry-run=server",
    ];
    let warnings = world.cluster.warnings(&run).await?;
    let told = |text: &str| warnings.iter().any(|warning| warning.contains(text));
    assert!(told("v1 to v2, 1 to 2 shards: about 50 % of "), "{warnings:?}");
    assert!(
        told(" keys move; the annotation fortia.dev/plan=2/Modulo shows all of the plan in status.plan"),
        "{warnings:?}"
    );
    assert_eq!(serving(&world.object().await?)?.shards, 1, "it is a dry run");
    Ok(())
}
