//! The auth server's process.

use fortia_common::boot::{Boot, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    fortia_auth::run(Boot::from_env(Service::Auth)?).await?;
    Ok(())
}
