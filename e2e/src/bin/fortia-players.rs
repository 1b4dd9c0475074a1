//! Players who live in a world through its public REST API, until SIGTERM or for a given time.
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::time::Duration;

use clap::Parser;
use fortia_e2e::api::Api;
use fortia_e2e::crowd::Players;
use tokio::signal::unix::{SignalKind, signal};

/// Plays Fortia through its public REST API.
#[derive(Parser)]
struct Arguments {
    /// Address of the auth server, like http://127.0.0.1:8081.
    #[arg(long)]
    auth: String,
    /// Address of the game server.
    #[arg(long)]
    game: String,
    /// How many players.
    #[arg(long, default_value_t = 20)]
    players: usize,
    /// Stop after this many seconds; without it, at SIGTERM.
    #[arg(long)]
    seconds: Option<u64>,
    /// Names begin with this.
    #[arg(long, default_value = "player")]
    prefix: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let api = Api::new(&arguments.auth, &arguments.game);
    let mut players =
        Players::start(&api, &arguments.prefix, arguments.players, Duration::from_secs(2)).await?;
    println!("{} players are in the world", arguments.players);
    let mut terminate = signal(SignalKind::terminate())?;
    let time = Duration::from_secs(arguments.seconds.unwrap_or(u64::MAX / 4));
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            Some(news) = players.news() => println!("{news}"),
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            () = &mut end => break,
        }
    }
    let deeds = players.stop().await;
    println!(
        "orders {}, put off {}, failed {}, logged in again {}",
        deeds.orders, deeds.put_off, deeds.failed, deeds.returns
    );
    if let Some(failure) = deeds.last_failure {
        println!("last failure: {failure}");
    }
    Ok(())
}
