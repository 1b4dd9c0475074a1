//! The operator's program: `run` (default) or `crd`.

use std::io::Write;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("crd") => {
            let yaml = fortia_operator::crd::yaml().context("the definition cannot be written")?;
            std::io::stdout().write_all(yaml.as_bytes())?;
            Ok(())
        }
        None | Some("run") => {
            let settings = fortia_operator::settings::Settings::from_env()?;
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(fortia_operator::run(settings))
                .context("the operator cannot go on")
        }
        Some(other) => bail!("unknown command {other}: use run or crd"),
    }
}
