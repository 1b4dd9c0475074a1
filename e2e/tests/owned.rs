//! What somebody deletes or changes of a world's objects is put back at once, not when the operator comes by.

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::fortia::Fortia;
use fortia_e2e::shared;

/// A moment, on a busy machine. Unasked, the operator applies an object once a minute.
const SOON: Duration = Duration::from_secs(5);

async fn field(world: &Fortia, object: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let path = format!("jsonpath={{{path}}}");
    let arguments = ["get", "-n", &world.namespace, object, "--ignore-not-found", "-o", &path];
    Ok(world.cluster.kubectl(&arguments).await?)
}

/// Waits until the field is as wanted.
async fn becomes(
    world: &Fortia,
    object: &str,
    path: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Box<dyn Error>> {
    let since = Instant::now();
    loop {
        let found = field(world, object, path).await?;
        if wanted(&found) {
            return Ok(());
        }
        assert!(since.elapsed() < SOON, "{object}: {path} is {found:?} after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_object_that_somebody_deletes_is_back_in_a_moment() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    for object in [
        "service/midgard-game",
        "configmap/midgard-valkey",
        "secret/midgard-redis-acl",
        "poddisruptionbudget/midgard-shard-0",
    ] {
        let was = field(&world, object, ".metadata.uid").await?;
        assert!(!was.is_empty(), "there is no {object}");
        world.cluster.kubectl(&["delete", "-n", &world.namespace, object]).await?;
        becomes(&world, object, ".metadata.uid", |uid| !uid.is_empty() && uid != was).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_object_that_somebody_changes_is_as_it_was_in_a_moment() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let object = "service/midgard-game";
    let was = field(&world, object, ".spec.selector").await?;
    let nobody = r#"{"spec":{"selector":{"app.kubernetes.io/component":"nobody"}}}"#;
    world.cluster.kubectl(&["patch", "-n", &world.namespace, object, "--type=merge", "-p", nobody]).await?;
    becomes(&world, object, ".spec.selector", |selector| selector == was).await
}
