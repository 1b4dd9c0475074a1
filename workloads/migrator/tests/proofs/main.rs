//! What a re-sharding promises, shown on real servers: every pair of layouts equal, every corruption found, and how fast
//! it is beside others. Operator and scheduler are played by hand.

mod contents;
mod data;
mod hand;
mod pairs;
mod peers;
mod plants;
mod speed;
mod writers;

/// Whether benches are asked to be short.
fn is_quick() -> bool {
    std::env::var("FORTIA_BENCH").is_ok_and(|value| value == "quick")
}
