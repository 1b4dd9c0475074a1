//! Live re-shardings: schedulers, tickers and migrator processes on real Redis servers, players who write and read all
//! the time, and the operator played by hand. Whatever dies, no acknowledged write is lost and the world gets on.

mod faults;
mod hand;
mod live;
mod players;
mod pods;
mod process;
mod scene;
mod tail;

/// A number from the environment.
fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether benches are asked to be short.
fn is_quick() -> bool {
    std::env::var("FORTIA_BENCH").is_ok_and(|value| value == "quick")
}
