//! `make demo` and `make demo-down`: a living world on a local Kubernetes, step by step, and no trace of it after.
#![allow(clippy::print_stdout, reason = "a command line program")]

use clap::{Parser, Subcommand};
use fortia_e2e::demo;

/// Brings the demo up, takes it down, or measures it.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cluster, operator, world and players; running it twice is fine.
    Up,
    /// Ends all of it.
    Down,
    /// Ends the players and measures what the idle world takes.
    Idle,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut say = |line: String| println!("{line}");
    match Arguments::parse().what {
        What::Up => demo::up(&mut say).await?,
        What::Down => demo::down(&mut say).await?,
        What::Idle => demo::idle(&mut say).await?,
    }
    Ok(())
}
