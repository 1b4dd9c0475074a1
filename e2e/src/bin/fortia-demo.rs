//! `make demo`, `make demo-reshard` and `make demo-down`: a living world on a local Kubernetes, step by step, re-sharded
//! while it is played, and no trace of it after.
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::io::IsTerminal;

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
    /// Re-shards the world while it is played, with a bar that shows how far it is.
    Reshard {
        /// How many shards it is to have.
        shards: u32,
    },
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
        What::Reshard { shards } => {
            let mut drawn = false;
            let mut redraw = |line: String| {
                // On a terminal the line before is drawn over.
                let over = if drawn && std::io::stdout().is_terminal() { "\x1b[1A\x1b[2K" } else { "" };
                println!("{over}{line}");
                drawn = true;
            };
            demo::reshard(shards, &mut say, &mut redraw).await?;
        }
        What::Down => demo::down(&mut say).await?,
        What::Idle => demo::idle(&mut say).await?,
    }
    Ok(())
}
