//! The migrator's program: one pod of the Job that carries keys of one source shard, or unlinks an old version.

use std::process::ExitCode;

use fortia_common::boot::{Boot, Service};
use fortia_common::failpoint::Failpoints;
use fortia_migrator::{Job, MigrateError, run};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let boot = Boot::from_env(Service::Migrator)?;
    let job = Job::from_env()?;
    let failpoints = Failpoints::from_env()?;
    let log = fortia_log::init(&boot);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Dropping the work is safe at any point: every step can be done again.
    let code = tokio::select! {
        done = run(&boot, &job, &failpoints, |config| log.ship_to(config.logs.as_deref())) => match done {
            Ok(progress) => {
                tracing::info!(index = job.index, keys = progress.keys, bytes = progress.bytes, "migrator done");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&job, &error),
        },
        _ = term.recv() => stopped(&job),
        _ = int.recv() => stopped(&job),
    };
    log.stop().await;
    Ok(code)
}

/// By the exit code Kubernetes knows whether another pod may be luckier, and the operator what to tell people.
fn failed(job: &Job, error: &MigrateError) -> ExitCode {
    let ending = error.ending();
    if ending.is_none_or(|ending| ending.is_failure()) {
        tracing::error!(index = job.index, from = job.from, ?ending, %error, "migrator failed");
    } else {
        tracing::info!(index = job.index, from = job.from, reason = %error, "migrator is not wanted any more");
    }
    ending.map_or(ExitCode::FAILURE, |ending| ExitCode::from(ending.code()))
}

fn stopped(job: &Job) -> ExitCode {
    tracing::warn!(index = job.index, "migrator told to stop before it was done");
    ExitCode::FAILURE
}
