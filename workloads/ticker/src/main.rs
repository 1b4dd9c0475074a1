//! The ticker's process: environment, log, run.

use fortia_common::boot::{Boot, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let boot = Boot::from_env(Service::Ticker)?;
    let log = fortia_log::init(&boot);
    let ran = fortia_ticker::run(boot, &log).await;
    if let Err(error) = &ran {
        tracing::error!(%error, "the ticker ends");
    }
    log.stop().await;
    Ok(ran?)
}
