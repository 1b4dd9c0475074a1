//! That /openapi.json tells the truth: what is answered is documented, and what is documented is answered.

mod support;

use std::collections::BTreeSet;

use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::block::Block;
use reqwest::RequestBuilder;
use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};
use support::{Game, column, unit};

const AT: ChunkPos = ChunkPos::new(1, -2);

/// Method, path, status.
type Answer = (String, String, String);

fn answer(method: &str, path: &str, status: impl ToString) -> Answer {
    (method.to_uppercase(), path.to_owned(), status.to_string())
}

fn documented(document: &Value) -> BTreeSet<Answer> {
    let mut all = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path") {
            let statuses = operation["responses"].as_object().expect("responses").keys();
            all.extend(statuses.map(|status| answer(method, path, status)));
        }
    }
    all
}

/// What the server counted: every answer it has given.
async fn answered(game: &Game) -> BTreeSet<Answer> {
    let metrics = game.client.get(format!("{}/metrics", game.admin_url)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let counted = metrics.lines().filter_map(|line| line.strip_prefix("fortia_http_requests_total{"));
    let label = |line: &str, name: &str| {
        let (_, value) = line.split_once(&format!("{name}=\"")).expect("a label");
        value.split('"').next().expect("a value").to_owned()
    };
    counted.map(|line| (label(line, "method"), label(line, "route"), label(line, "status"))).collect()
}

/// Sends requests of every kind that can be answered other than by a failing database.
async fn ask_everything(game: &Game) {
    let send = async |request: RequestBuilder| request.send().await.expect("an answer");
    for path in ["/", "/info", "/chunks?x=0&y=0", "/entities?x=0&y=0", "/update?x=0&y=0"] {
        send(game.get(path)).await;
    }
    for path in ["/chunks", "/chunks?x=0&y=0&hidden=perhaps", "/entities?x=0", "/update?x=0&y=0&after=soon"] {
        send(game.get(path)).await;
    }
    send(game.get("/chunks?x=0&y=0").header(ACCEPT, "text/html")).await;
    let tag = send(game.get("/chunks?x=0&y=0")).await.headers()[ETAG].clone();
    send(game.get("/chunks?x=0&y=0").header(IF_NONE_MATCH, tag)).await;

    for path in ["/register", "/enter", "/actions"] {
        send(game.post(path, "no-token")).await;
    }
    send(game.get("/units").bearer_auth("no-token")).await;
    let token = game.player("thor").await;
    for path in ["/enter", "/register", "/register", "/enter"] {
        send(game.post(path, &token)).await;
    }
    send(game.get("/units").bearer_auth(&token)).await;

    let ours = game.json_of("/units", &token).await["awaited"][0].as_str().expect("an id").to_owned();
    let orders = |unit: &str, count: usize| {
        let order = json!({"unit": unit, "order": {"kind": "hold"}});
        json!({"orders": vec![order; count]}).to_string()
    };
    let give = async |token: &str, kind: &str, body: String| {
        game.post("/actions", token).header(CONTENT_TYPE, kind).body(body).send().await.expect("an answer")
    };
    let json = "application/json";
    give(&token, json, orders(&ours, 1)).await;
    give(&token, json, orders("1", 1)).await;
    give(&token, json, orders(&ours, 0)).await;
    give(&token, json, "{".to_owned()).await;
    give(&token, json, " ".repeat((1 << 20) + 1)).await;
    give(&token, "text/plain", orders(&ours, 1)).await;
    let other = game.player("loki").await;
    let player = fortia_rdb::world::Player { joined_ms: 0, start: BlockPos { z: 1, ..AT.origin() } };
    game.world.create_player("loki", &player, &[8]).await.expect("created");
    game.commit(1, &[column(AT, Block::Stone, &[8])], &[unit(8, "loki", AT)]).await;
    game.until_tick(1).await;
    give(&other, json, orders("8", 1)).await;
    // Nothing is left to thor after these, wherever the last ones began.
    for count in [64, 64, 64, 64, 32, 16, 8, 4, 2, 1] {
        give(&token, json, orders("1", count)).await;
    }
    // Who has given too many orders cannot join either: that is an action, too.
    send(game.post("/register", &token)).await;
}

#[tokio::test]
async fn every_status_that_is_answered_is_documented_and_the_other_way_round() {
    let game = Game::with_period(1, 60_000).await;
    ask_everything(&game).await;
    let document = game.json("/openapi.json").await;
    let documented = documented(&document);
    let mut answered = answered(&game).await;
    // The document is not in itself.
    answered.remove(&answer("get", "/openapi.json", 200));
    let unsaid: Vec<_> = answered.difference(&documented).collect();
    assert!(unsaid.is_empty(), "answered, but not documented: {unsaid:?}");
    // Our faults and failing databases are not made here.
    let untrue = documented.difference(&answered).filter(|(_, _, status)| status != "500" && status != "503");
    assert_eq!(untrue.collect::<Vec<_>>(), Vec::<&Answer>::new(), "documented, but never answered");
}

#[tokio::test]
async fn what_needs_a_session_says_so_and_how_to_show_it() {
    let game = Game::start(1).await;
    let document = game.json("/openapi.json").await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path") {
            let refuses = operation["responses"]["401"].is_object();
            let asks = operation["security"] == json!([{"bearer": []}, {"cookie": []}]);
            assert_eq!(refuses, asks, "{method} {path}");
        }
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"]["scheme"], json!("bearer"));
    assert_eq!(schemes["cookie"]["name"], json!("fortia-session"));
}
