//! Logs: what every server says is found in the logserver. The migrator's are looked for where a world is re-sharded.

use std::error::Error;

use fortia_e2e::{logs, shared};

const SERVERS: [&str; 7] = ["operator", "auth", "game", "scheduler", "ticker", "logserver", "worldgen"];

#[tokio::test]
async fn the_logs_of_every_server_are_found_in_the_logserver() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let logserver = world.forward("logserver", 8080).await?;
    for server in SERVERS {
        logs::of(&logserver, server).await?;
    }
    let bad = reqwest::get(format!("{}/logs?level=loud", logserver.url())).await?;
    assert_eq!(bad.status(), reqwest::StatusCode::BAD_REQUEST);
    assert!(bad.text().await?.contains("loud"));
    Ok(())
}
