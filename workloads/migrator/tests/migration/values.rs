//! Values of every kind and size arrive as they are.

use fortia_common::topology::Placement;
use fortia_rdb::keyspace::WorldKey;

use crate::hand::{Hand, layouts};
use crate::writer::populated;

/// Runs a command on a key, where the serving layout has it.
async fn on(hand: &Hand, key: &WorldKey, command: &str, arguments: &[&str]) {
    let serving = hand.topology().serving;
    let name = key.physical(serving.version);
    let whole = [&[command, &name], arguments].concat();
    hand.plane.shards[key.shard(&serving) as usize].run::<redis::Value>(&whole).await;
}

fn player(name: &str) -> WorldKey {
    WorldKey::Player(name.to_owned())
}

#[tokio::test]
async fn big_values_arrive_whole() {
    let mut hand = populated(2, Placement::Modulo).await;
    for i in 0..4 {
        let big = "x".repeat(3_000_000 + i);
        on(&hand, &player(&format!("string{i}")), "SET", &[&big]).await;
        on(&hand, &player(&format!("mixed{i}")), "HSET", &["small", "1", "big", &big]).await;
        let many: Vec<String> =
            (0..60_000).map(|n| format!("{n} of {i}, and some more to be read in pieces")).collect();
        for some in many.chunks(6_000) {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            on(&hand, &player(&format!("hash{i}")), "HSET", &some).await;
            on(&hand, &player(&format!("set{i}")), "SADD", &some).await;
            on(&hand, &player(&format!("list{i}")), "RPUSH", &some).await;
        }
    }
    hand.begin(3).await;
    let pods = hand.pods();
    hand.finish(pods).await;
}

#[tokio::test]
async fn a_key_that_expires_goes_on_expiring_at_the_same_time() {
    let mut hand = populated(2, Placement::Modulo).await;
    let at = "4000000000123";
    let keys: Vec<WorldKey> = (0..8).map(|i| player(&format!("guest{i}"))).collect();
    for (i, key) in keys.iter().enumerate() {
        match i % 4 {
            0 => on(&hand, key, "SET", &["value"]).await,
            1 => on(&hand, key, "HSET", &["field", "value"]).await,
            2 => on(&hand, key, "SADD", &["member"]).await,
            _ => on(&hand, key, "RPUSH", &["one", "two"]).await,
        }
        on(&hand, key, "PEXPIREAT", &[at]).await;
    }
    let (_, to) = layouts(&hand.begin(3).await);
    hand.finish(hand.pods()).await;
    for key in keys {
        let name = key.physical(to.version);
        let shard = &hand.plane.shards[key.shard(&to) as usize];
        assert_eq!(shard.run::<String>(&["PEXPIRETIME", &name]).await, at, "{key}");
    }
}
