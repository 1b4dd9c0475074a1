//! The game server's process.

use fortia_common::boot::{Boot, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    fortia_game::run(Boot::from_env(Service::Game)?).await?;
    Ok(())
}
