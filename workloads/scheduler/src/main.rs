//! The scheduler's process: environment, log, run.

use fortia_common::boot::{Boot, Service};
use fortia_common::failpoint::Failpoints;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let boot = Boot::from_env(Service::Scheduler)?;
    let failpoints = Failpoints::from_env()?;
    let log = fortia_log::init(&boot);
    let ran = fortia_scheduler::run_with(boot, &log, failpoints).await;
    if let Err(error) = &ran {
        tracing::error!(%error, "the scheduler ends");
    }
    log.stop().await;
    Ok(ran?)
}
