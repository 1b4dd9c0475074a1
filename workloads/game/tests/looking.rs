//! What anyone sees of the world, on real shards.

mod support;

use fortia_proto::tick::v1::Committed;
use fortia_proto::world::v1 as pb;
use fortia_vec::{ChunkPos, LocalPos};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use prost::Message;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};
use support::{Game, column, problem, unit};

const AT: ChunkPos = ChunkPos::new(1, -2);

#[tokio::test]
async fn chunks_are_told_as_json_and_as_protobuf() {
    let game = Game::start(2).await;
    let answer = game.json("/chunks?x=1,0&y=-2,0").await;
    assert_eq!(answer["tick"], json!(0));
    assert_eq!(
        answer["chunks"][0],
        json!({"x": 1, "y": -2, "height": 64, "palette": ["stone", "air"], "runs": [0, 1, 1, 16383], "entities": []})
    );
    assert_eq!((&answer["chunks"][1]["x"], &answer["chunks"][1]["y"]), (&json!(0), &json!(0)));

    let answer = game
        .get("/chunks?x=1&y=-2")
        .header(ACCEPT, "application/x-protobuf")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");
    let chunks = pb::Chunks::decode(answer.bytes().await.expect("bytes")).expect("protobuf");
    assert_eq!(chunks.chunks.len(), 1);
    assert_eq!(Column::from_proto(&chunks.chunks[0]), Ok(column(AT, Block::Stone, &[])));
}

#[tokio::test]
async fn chunks_come_in_a_format_the_client_takes_or_not_at_all() {
    let game = Game::start(1).await;
    let chunks = |accept: &'static str| game.get("/chunks?x=1&y=-2").header(ACCEPT, accept).send();
    let refused = chunks("text/html").await.expect("an answer");
    let detail = problem(refused, StatusCode::NOT_ACCEPTABLE).await;
    assert!(detail.contains("application/json or application/x-protobuf"), "{detail}");
    let answer = chunks("application/x-protobuf;q=0.5, */*;q=0.1").await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");
}

#[tokio::test]
async fn info_says_read_only_soon_after_a_primary_falls_silent_and_live_when_it_is_back() {
    // With so long a period only the primary itself can tell.
    let game = Game::with_period(2, 60_000).await;
    game.until_mode("live").await;
    let silent = std::time::Instant::now();
    game.plane.shards[1].run::<()>(&["CLIENT", "PAUSE", "4000", "ALL"]).await;
    game.until_mode("read-only").await;
    let took = silent.elapsed();
    assert!(took < std::time::Duration::from_secs(3), "known only after {took:?}");
    game.until_mode("live").await;
    assert!(silent.elapsed() > std::time::Duration::from_secs(3), "it does not answer before");
}

#[tokio::test]
async fn info_says_read_only_soon_after_a_primary_dies() {
    let mut game = Game::with_period(2, 60_000).await;
    game.until_mode("live").await;
    let dead = std::time::Instant::now();
    game.plane.shards[1].kill();
    game.until_mode("read-only").await;
    let took = dead.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "known only after {took:?}");
}

#[tokio::test]
async fn a_chunk_one_knows_is_not_sent_again_until_it_changes() {
    let game = Game::start(2).await;
    let first = game.get("/chunks?x=1&y=-2").send().await.expect("an answer");
    let tag = first.headers()[ETAG].clone();
    let again = || game.get("/chunks?x=1&y=-2").header(IF_NONE_MATCH, tag.clone()).send();
    game.commit(1, &[column(ChunkPos::new(0, 0), Block::Sand, &[])], &[]).await;
    game.until_tick(1).await;
    let same = again().await.expect("an answer");
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        (&same.headers()[ETAG], &same.headers()["fortia-tick"]),
        (&tag, &"1".parse().expect("header"))
    );

    game.commit(2, &[column(AT, Block::Planks, &[])], &[]).await;
    game.until_tick(2).await;
    let changed = again().await.expect("an answer");
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()[ETAG], tag);
    let changed: Value = changed.json().await.expect("json");
    assert_eq!((&changed["tick"], &changed["chunks"][0]["palette"]), (&json!(2), &json!(["planks", "air"])));
}

#[tokio::test]
async fn chunks_beyond_the_world_are_left_out_and_queries_that_name_none_refused() {
    let game = Game::start(1).await;
    let answer = game.json("/chunks?x=5,0,-999999&y=0,0,5").await;
    assert_eq!(answer["chunks"].as_array().map(Vec::len), Some(1));
    assert_eq!(game.json("/chunks?x=5&y=0").await["chunks"], json!([]));
    let long = vec!["0"; 65].join(",");
    for query in ["", "x=0", "x=0,1&y=0", "x=a&y=0", &format!("x={long}&y={long}")] {
        let answer = game.get(&format!("/chunks?{query}")).send().await.expect("an answer");
        problem(answer, StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test]
async fn a_chunk_that_is_not_made_yet_is_left_out_until_it_is() {
    let game = Game::start(2).await;
    let far = ChunkPos::new(4, -3);
    assert_eq!(game.json("/chunks?x=4,0&y=-3,0").await["chunks"].as_array().map(Vec::len), Some(1));
    assert_eq!(game.json("/entities?x=4&y=-3").await["entities"], json!([]));
    game.commit(1, &[column(far, Block::Sand, &[])], &[]).await;
    game.until_tick(1).await;
    let answer = game.json("/chunks?x=4,0&y=-3,0").await;
    assert_eq!(
        (&answer["chunks"][0]["x"], &answer["chunks"][0]["palette"]),
        (&json!(4), &json!(["sand", "air"]))
    );
}

#[tokio::test]
async fn which_blocks_are_hidden_is_told_to_who_asks() {
    let game = Game::start(2).await;
    let at = ChunkPos::new(0, 0);
    let mut cube = Column::empty(at);
    for (x, y, z) in (4..7).flat_map(|x| (4..7).flat_map(move |y| (0..3).map(move |z| (x, y, z)))) {
        cube.set(LocalPos { x, y, z }, Block::Stone);
    }
    game.commit(1, &[cube], &[]).await;
    game.until_tick(1).await;
    assert_eq!(game.json("/chunks?x=0&y=0").await["chunks"][0]["hidden"], json!(null));
    // The middle of the cube, and the one below it on the floor of the world.
    let answer = game.json("/chunks?x=0&y=0&hidden=true").await;
    let middle = 5 * 16 + 5;
    assert_eq!(answer["chunks"][0]["hidden"], json!([middle, 1, 255, 1, 16384 - 256 - middle - 1]));
}

#[tokio::test]
async fn entities_are_told_with_ids_that_javascript_can_hold() {
    let game = Game::start(2).await;
    let thor = unit(u64::MAX - 1, "thor", AT);
    game.commit(1, &[column(AT, Block::Stone, &[thor.id])], std::slice::from_ref(&thor)).await;
    game.until_tick(1).await;
    let answer = game.json("/entities?x=1,0&y=-2,0").await;
    assert_eq!(answer["tick"], json!(1));
    assert_eq!(answer["entities"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["entities"][0]["id"], json!("18446744073709551614"));
    assert_eq!(answer["entities"][0]["at"], json!({"x": 16, "y": -32, "z": 1}));
    assert_eq!(game.json("/entities?x=0&y=0").await["entities"], json!([]));
}

#[tokio::test]
async fn info_tells_how_much_slower_than_wanted_the_last_ticks_came_and_a_cut_over_does_not_count() {
    let game = Game::start(1).await;
    let lease = game.control.lease("here", std::time::Duration::from_secs(60)).await.expect("lease");
    for tick in 1..=20 {
        let committed = Committed { tick, at: 1_000_000 + tick * 125, ..Committed::default() };
        game.control.commit(lease.epoch, &committed).await.expect("committed");
    }
    game.until_tick(20).await;
    let info = game.json("/info").await;
    assert_eq!((&info["tickPeriodMs"], &info["dilation"]), (&json!(50), &json!(2.5)));
    let mut topology = game.plane.topology().await;
    (topology.epoch, topology.serving.version) = (topology.epoch + 1, 2);
    game.plane.set_topology(&topology).await;
    let forgotten = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while !game.json("/info").await["dilation"].is_null() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    forgotten.await.expect("the pace begins anew");
}

#[tokio::test]
async fn info_and_the_map_and_the_description_are_there_for_everyone() {
    let game = Game::start(1).await;
    game.commit(1, &[], &[]).await;
    game.until_tick(1).await;
    assert_eq!(
        game.json("/info").await,
        json!({"world": "test", "radius": 2, "limit": 4, "size": 5, "height": 64, "seed": "42", "tick": 1, "tickPeriodMs": 50,
            "dilation": null, "mode": "live", "version": 1})
    );
    let map = game.get("/").send().await.expect("an answer");
    assert_eq!(map.headers()["content-type"], "text/html; charset=utf-8");
    let map = map.text().await.expect("text");
    assert!(map.contains("EventSource") && !map.contains("http://") && !map.contains("https://"));
    let document = game.json("/openapi.json").await;
    for path in ["/", "/info", "/chunks", "/entities", "/update", "/register", "/enter", "/units", "/actions"]
    {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let dilation = &document["components"]["schemas"]["Info"]["properties"]["dilation"];
    let told = dilation["description"].as_str().expect("a description");
    assert!(told.contains("null: not known yet") && told.contains("fewer than two ticks"), "{told}");
    assert!(dilation["type"].as_array().is_some_and(|types| types.contains(&json!("null"))), "{dilation}");
}
