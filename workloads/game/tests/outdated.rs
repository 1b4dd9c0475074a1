//! A game server that hears nothing from the control database any more: what it shows is the world or nothing.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fortia_common::records::GUARD;
use fortia_rdb::world::Player;
use fortia_testredis::CLUSTER;
use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::block::Block;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{Game, column, unit};

/// A chunk beyond the first radius: none there is an answer like any other.
const FAR: ChunkPos = ChunkPos::new(4, -3);
const THOR: u64 = 7;

/// Turns the guards of all shards, as a cut-over that the server does not hear of.
async fn turn(game: &Game, epoch: &str, version: &str, state: &str, target: &str) {
    for (index, shard) in game.plane.shards.iter().enumerate() {
        let (group, index) = (format!("shard-{index}"), index.to_string());
        let guard = ["FCALL", "fortia_guard", "1", GUARD, CLUSTER, &group, &index];
        let turned = [&guard[..], &[epoch, version, state, target, ""][..]].concat();
        shard.run::<()>(&turned).await;
    }
}

/// Carries version 1 to version 2 on each shard, whose number stays.
async fn carry(game: &Game) {
    for shard in &game.plane.shards {
        for key in shard.run::<Vec<String>>(&["KEYS", "v1:*"]).await {
            shard.run::<()>(&["COPY", &key, &key.replacen("v1:", "v2:", 1)]).await;
        }
    }
}

async fn collect(game: &Game) {
    for shard in &game.plane.shards {
        let keys: Vec<String> = shard.run(&["KEYS", "v1:*"]).await;
        let unlink: Vec<&str> = std::iter::once("UNLINK").chain(keys.iter().map(String::as_str)).collect();
        assert!(shard.run::<u64>(&unlink).await > 0);
    }
}

/// What is looked at over and over: what there is, what lacks of it, and how often it was seen.
struct Sight {
    url: String,
    token: String,
    is_there: fn(&Value) -> bool,
    seen: Arc<AtomicU64>,
}

/// Looks until it is refused, for the reason that there is; panics when something is shown that is not the world.
async fn look(client: Client, sight: Sight) {
    let begun = Instant::now();
    loop {
        let answer = client.get(&sight.url).bearer_auth(&sight.token).send().await.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("json");
        if status == StatusCode::OK {
            assert!((sight.is_there)(&body), "{}: {body}", sight.url);
            sight.seen.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{}: {body}", sight.url);
            assert_eq!(body["type"], json!("/problems/lost-track"), "{}: {body}", sight.url);
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{} is never refused", sight.url);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A world with a unit in a far chunk, and who owns it.
async fn inhabited() -> (Game, String) {
    let game = Game::start(2).await;
    let thor = unit(THOR, "thor", FAR);
    game.commit(1, &[column(FAR, Block::Sand, &[THOR])], std::slice::from_ref(&thor)).await;
    let player = Player { joined_ms: 0, start: BlockPos { z: 1, ..FAR.origin() } };
    game.world.create_player("thor", &player, &[THOR]).await.expect("created");
    let token = game.player("thor").await;
    game.until_tick(1).await;
    (game, token)
}

fn sights(game: &Game, token: &str) -> Vec<Sight> {
    let sight = |path: &str, is_there: fn(&Value) -> bool| Sight {
        url: format!("{}{path}", game.url),
        token: token.to_owned(),
        is_there,
        seen: Arc::default(),
    };
    vec![
        sight("/chunks?x=4&y=-3", |body| body["chunks"].as_array().is_some_and(|all| all.len() == 1)),
        sight("/entities?x=4&y=-3", |body| body["entities"][0]["id"] == json!("7")),
        sight("/units", |body| body["units"][0]["id"] == json!("7")),
    ]
}

async fn readyz(game: &Game) -> Value {
    let answer = game.client.get(format!("{}/readyz", game.admin_url)).send().await.expect("an answer");
    answer.json().await.expect("json")
}

async fn until_ready(game: &Game, ready: bool) {
    let begun = Instant::now();
    while readyz(game).await["ready"] != json!(ready) {
        assert!(begun.elapsed() < Duration::from_secs(15), "{}", readyz(game).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_missed_a_cut_over_refuses_to_show_anything_rather_than_a_world_that_was_collected() {
    let (game, token) = inhabited().await;
    let sights = sights(&game, &token);
    let seen: Vec<_> = sights.iter().map(|sight| Arc::clone(&sight.seen)).collect();
    let looking: Vec<_> =
        sights.into_iter().map(|sight| tokio::spawn(look(game.client.clone(), sight))).collect();
    while seen.iter().any(|seen| seen.load(Ordering::Relaxed) < 10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    game.plane.control_db.stop();
    carry(&game).await;
    turn(&game, "2", "2", "copying", "1").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    turn(&game, "3", "2", "open", "0").await;
    collect(&game).await;
    for look in looking {
        look.await.expect("nothing but the world is shown");
    }
    game.until_mode("read-only").await;
    until_ready(&game, false).await;
    assert_eq!(readyz(&game).await["conditions"]["registered"], json!(false));

    game.plane.control_db.cont();
    let mut topology = game.plane.topology().await;
    (topology.epoch, topology.serving.version) = (3, 2);
    game.plane.set_topology(&topology).await;
    until_ready(&game, true).await;
    let begun = Instant::now();
    while game.get("/chunks?x=4&y=-3").send().await.expect("an answer").status() != StatusCode::OK {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not find the world again");
    }
    assert_eq!(game.json("/entities?x=4&y=-3").await["entities"][0]["id"], json!("7"));
}

#[tokio::test]
async fn while_the_control_database_is_away_the_world_is_shown_as_long_as_the_shards_say_that_it_is_there() {
    let (game, _token) = inhabited().await;
    until_ready(&game, true).await;
    game.plane.control_db.stop();
    until_ready(&game, false).await;
    assert_eq!(game.json("/entities?x=4&y=-3").await["entities"][0]["id"], json!("7"));
    game.plane.control_db.cont();
    until_ready(&game, true).await;
}
