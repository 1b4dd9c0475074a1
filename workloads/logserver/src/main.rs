//! The log server's process.

use fortia_common::boot::{Boot, Service};
use fortia_logserver::settings::Settings;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    fortia_logserver::run(Boot::from_env(Service::Logserver)?, Settings::from_env()?).await?;
    Ok(())
}
