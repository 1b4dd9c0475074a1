//! Bad FortiaClusters are refused by the API server, with a message that says what to do.

use std::error::Error;

use fortia_e2e::shared;

/// A spec, the field that must be named, and what the message must say to do.
const BAD: [(&str, &str, &str); 12] = [
    ("{redisShards: 0}", "redisShards", "between 1 and 64"),
    ("{redisShards: 65}", "redisShards", "between 1 and 64"),
    ("{redisShards: 1000}", "redisShards", "more than 64 has not been tried"),
    ("{}", "redisShards", "Required value"),
    ("{redisShards: 2, world: {tickPeriod: 1ms}}", "tickPeriod", "between 50ms and 1m, like 250ms or 1s"),
    ("{redisShards: 2, world: {radius: 0}}", "radius", "between 1 and 512"),
    ("{redisShards: 2, rebalancing: {retainPreviousVersion: 900h}}", "retainPreviousVersion", "at most 720h"),
    ("{redisShards: 2, redis: {storage: {size: big}}}", "redis.storage", "at least 32Mi, like 1Gi"),
    ("{redisShards: 2, logserver: {storage: {size: 1k}}}", "logserver.storage", "at least 32Mi, like 1Gi"),
    ("{redisShards: 2, ticker: {editStrategy: Pray}}", "editStrategy", "Queue"),
    ("{redisShards: 2, game: {address: over there}}", "game.address", "like https://play.example.org"),
    (
        "{redisShards: 2, logserver: {endpoint: collector}}",
        "logserver.endpoint",
        "like http://collector:4317",
    ),
];

#[tokio::test]
async fn a_bad_cluster_is_refused_and_the_field_named() -> Result<(), Box<dyn Error>> {
    let cluster = shared::cluster().await?;
    for (spec, field, what) in BAD {
        let manifest = format!(
            "apiVersion: fortia.dev/v1alpha1\nkind: FortiaCluster\nmetadata: {{name: bad}}\nspec: {spec}\n"
        );
        let refused = cluster.apply("default", &manifest).await.expect_err(spec).to_string();
        assert!(refused.contains(field) && refused.contains(what), "{spec}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn the_identity_of_a_world_cannot_be_changed() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    for patch in ["{\"spec\":{\"world\":{\"seed\":7}}}", "{\"spec\":{\"world\":{\"name\":\"asgard\"}}}"] {
        let arguments =
            ["patch", "-n", &world.namespace, "fortiacluster", &world.name, "--type=merge", "-p", patch];
        let refused = world.cluster.kubectl(&arguments).await.expect_err(patch).to_string();
        assert!(refused.contains("cannot be changed"), "{patch}: {refused}");
    }
    Ok(())
}
