//! The operator: brings up, looks after and re-shards FortiaClusters.

pub mod crd;
pub mod settings;

/// Runs the operator.
///
/// # Errors
/// None yet.
pub async fn run(_settings: settings::Settings) -> anyhow::Result<()> {
    Ok(())
}
