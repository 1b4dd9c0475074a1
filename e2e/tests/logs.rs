//! Logs: what every server says is found in the logserver.

use std::error::Error;
use std::time::{Duration, Instant};

use fortia_e2e::shared;

const SERVERS: [&str; 6] = ["auth", "game", "scheduler", "ticker", "logserver", "worldgen"];

#[tokio::test]
async fn the_logs_of_every_server_are_found_in_the_logserver() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let logserver = world.forward("logserver", 8080).await?;
    for server in SERVERS {
        let url = format!("{}/logs?service={server}&limit=5", logserver.url());
        let begun = Instant::now();
        loop {
            let found = reqwest::get(&url).await?.error_for_status()?.text().await?;
            if found.contains(&format!("\"{server}\"")) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no log line of {server}: {found}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let bad = reqwest::get(format!("{}/logs?level=loud", logserver.url())).await?;
    assert_eq!(bad.status(), reqwest::StatusCode::BAD_REQUEST);
    assert!(bad.text().await?.contains("loud"));
    Ok(())
}
