//! What a world's logserver has of a service. Knows its query, nothing of how logs get there.

use std::time::{Duration, Instant};

use crate::cluster::Forward;

/// Patience for a line to be shipped and stored.
const SHIPPED: Duration = Duration::from_secs(20);

/// Waits until the logserver has a line of this service; the lines it has.
///
/// # Errors
/// When it cannot be asked, or has none for 20 s.
pub async fn of(logserver: &Forward, service: &str) -> Result<String, Box<dyn std::error::Error>> {
    let url = format!("{}/logs?service={service}&limit=5", logserver.url());
    let begun = Instant::now();
    loop {
        let found = reqwest::get(&url).await?.error_for_status()?.text().await?;
        if found.contains(&format!("\"{service}\"")) {
            return Ok(found);
        }
        if begun.elapsed() > SHIPPED {
            return Err(format!("no log line of {service} within {SHIPPED:?}: {found}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
