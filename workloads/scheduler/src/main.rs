//! The scheduler's process: environment, log, run.

use fortia_common::boot::{Boot, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let boot = Boot::from_env(Service::Scheduler)?;
    let log = fortia_log::init(&boot);
    let ran = fortia_scheduler::run(boot, &log).await;
    if let Err(error) = &ran {
        tracing::error!(%error, "the scheduler ends");
    }
    log.stop().await;
    Ok(ran?)
}
