//! Bad FortiaClusters are refused by the API server, with a message that says what to do.

use std::error::Error;

use fortia_e2e::shared;

const BAD: [(&str, &str); 6] = [
    ("{redisShards: 0}", "redisShards"),
    ("{redisShards: 65}", "redisShards"),
    ("{}", "redisShards"),
    ("{redisShards: 2, world: {tickPeriod: soon}}", "tickPeriod"),
    ("{redisShards: 2, world: {tickPeriod: 1ms}}", "tickPeriod"),
    ("{redisShards: 2, ticker: {editStrategy: Pray}}", "editStrategy"),
];

#[tokio::test]
async fn a_bad_cluster_is_refused_and_the_field_named() -> Result<(), Box<dyn Error>> {
    let cluster = shared::cluster().await?;
    for (spec, field) in BAD {
        let manifest = format!(
            "apiVersion: fortia.dev/v1alpha1\nkind: FortiaCluster\nmetadata: {{name: bad}}\nspec: {spec}\n"
        );
        let refused = cluster.apply("default", &manifest).await.expect_err(spec).to_string();
        assert!(refused.contains(field), "{spec}: {refused}");
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
