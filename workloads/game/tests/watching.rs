//! What subscribers are told, tick by tick, and across a flip of the topology.

mod support;

use std::time::{Duration, Instant};

use fortia_common::topology::Layout;
use fortia_proto::tick::v1::Committed;
use fortia_vec::ChunkPos;
use fortia_world::block::Block;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Event, Events, Game, column, problem, unit};

const HERE: ChunkPos = ChunkPos::new(0, 0);
const THERE: ChunkPos = ChunkPos::new(1, -2);

fn palettes(event: &Event) -> Vec<&Value> {
    event.data["chunks"].as_array().expect("chunks").iter().map(|chunk| &chunk["palette"][0]).collect()
}

#[tokio::test]
async fn a_subscriber_is_told_what_a_tick_changed_where_it_watches() {
    let game = Game::start(2).await;
    let mut events = Events::open(game.get("/update?x=0&y=0")).await;
    let first = events.next().await;
    assert_eq!((first.kind.as_str(), first.id.as_str()), ("tick", "0"));
    assert_eq!(first.data, json!({"tick": 0, "chunks": [], "entities": []}));

    let chunks = [column(HERE, Block::Planks, &[7]), column(THERE, Block::Wall, &[])];
    game.commit(1, &chunks, &[unit(7, "thor", HERE)]).await;
    let second = events.next().await;
    assert_eq!((second.kind.as_str(), second.id.as_str()), ("tick", "1"));
    assert_eq!(palettes(&second), [&json!("planks")]);
    assert_eq!(second.data["entities"][0]["id"], json!("7"));

    game.commit(2, &[column(THERE, Block::Sand, &[])], &[]).await;
    let third = events.next().await;
    assert_eq!(third.data, json!({"tick": 2, "chunks": [], "entities": []}));
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_stopped() {
    let game = Game::start(2).await;
    for (tick, at, block) in [(1, HERE, Block::Sand), (2, HERE, Block::Dirt), (3, THERE, Block::Wall)] {
        game.commit(tick, &[column(at, block, &[])], &[]).await;
    }
    game.until_tick(3).await;
    let resume =
        |after: &'static str| Events::open(game.get("/update?x=0,1&y=0,-2").header("last-event-id", after));
    let mut from_1 = resume("1").await;
    let missed = from_1.next().await;
    assert_eq!((missed.kind.as_str(), missed.id.as_str()), ("tick", "3"));
    assert_eq!(palettes(&missed), [&json!("dirt"), &json!("wall")]);
    let missed = resume("2").await.next().await;
    assert_eq!((palettes(&missed), missed.data["tick"].clone()), (vec![&json!("wall")], json!(3)));
    let mut by_query = Events::open(game.get("/update?x=0&y=0&after=0")).await;
    assert_eq!(palettes(&by_query.next().await), [&json!("dirt")]);

    game.commit(4, &[column(HERE, Block::Grass, &[])], &[]).await;
    assert_eq!(palettes(&from_1.next().await), [&json!("grass")]);
}

#[tokio::test]
async fn a_subscriber_that_was_away_too_long_is_told_to_read_everything_and_goes_on() {
    let game = Game::start(1).await;
    // What is left of a world whose older ticks are no longer kept.
    game.plane.control_db.run::<()>(&["SET", fortia_common::records::COMMITTED, "700"]).await;
    game.commit(701, &[column(HERE, Block::Sand, &[])], &[]).await;
    game.until_tick(701).await;
    let mut events = Events::open(game.get("/update?x=0&y=0").header("last-event-id", "12")).await;
    let reset = events.next().await;
    assert_eq!(reset, Event { kind: "reset".into(), id: "701".into(), data: json!({"tick": 701}) });
    game.commit(702, &[column(HERE, Block::Dirt, &[])], &[]).await;
    let next = events.next().await;
    assert_eq!((next.id.as_str(), palettes(&next)), ("702", vec![&json!("dirt")]));
}

#[tokio::test]
async fn ticks_are_known_while_a_shard_keeps_their_news_waiting_and_then_all_is_told() {
    let game = Game::start(1).await;
    let mut events = Events::open(game.get("/update?x=0&y=0")).await;
    events.next().await;
    game.commit(1, &[column(HERE, Block::Planks, &[])], &[]).await;
    assert_eq!(palettes(&events.next().await), [&json!("planks")]);
    let lease = game.control.lease("here", Duration::from_secs(60)).await.expect("lease");
    let silent = Instant::now();
    game.plane.shards[0].run::<()>(&["CLIENT", "PAUSE", "4000", "ALL"]).await;
    for tick in 2..=5 {
        let changed = vec![fortia_world::wire::chunk_pos(HERE)];
        let committed = Committed { tick, at: 1_000_000 + tick, changed, ..Committed::default() };
        game.control.commit(lease.epoch, &committed).await.expect("committed");
    }
    game.until_tick(5).await;
    assert!(silent.elapsed() < Duration::from_secs(2), "the tick is known after {:?}", silent.elapsed());
    let mut last = String::from("1");
    while last != "5" {
        let event = events.next().await;
        assert_eq!(palettes(&event), [&json!("planks")]);
        last = event.id;
    }
    assert!(silent.elapsed() > Duration::from_secs(3), "the shard did not answer before");
}

#[tokio::test]
async fn a_subscription_that_names_no_area_or_tick_is_refused() {
    let game = Game::start(1).await;
    for query in ["/update", "/update?x=0&y=0,1", "/update?x=0&y=0&after=soon"] {
        problem(game.get(query).send().await.expect("an answer"), StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test]
async fn no_reader_ever_sees_the_old_version_after_the_flip() {
    let game = Game::start(1).await;
    game.commit(1, &[column(HERE, Block::Stone, &[])], &[]).await;
    game.until_tick(1).await;
    let reader = {
        let (client, url) = (game.client.clone(), format!("{}/chunks?x=0&y=0", game.url));
        tokio::spawn(async move {
            loop {
                let answer = client.get(&url).send().await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK);
                let answer: Value = answer.json().await.expect("json");
                let (tick, block) = (answer["tick"].as_u64(), &answer["chunks"][0]["palette"][0]);
                let expected = if tick < Some(2) { "stone" } else { "wall" };
                assert_eq!(*block, json!(expected), "at tick {tick:?}");
                if tick == Some(4) {
                    return;
                }
            }
        })
    };
    // The same keys under the next version, as a migration leaves them, then the flip and ticks at once.
    let shard = &game.plane.shards[0];
    let keys: Vec<String> = shard.run(&["KEYS", "v1:*"]).await;
    for key in &keys {
        shard.run::<()>(&["COPY", key, &key.replacen("v1:", "v2:", 1)]).await;
    }
    let mut topology = game.plane.topology().await;
    topology.epoch += 1;
    topology.serving = Layout { version: 2, ..topology.serving };
    let (cluster, epoch) = (fortia_testredis::CLUSTER, topology.epoch.to_string());
    let open =
        ["FCALL", "fortia_guard", "1", "fortia:guard", cluster, "shard-0", "0", &epoch, "2", "open", "0", ""];
    shard.run::<()>(&open).await;
    // Written without a word on the channel, as when that is lost: servers find it when they look next.
    let json = serde_json::to_string(&topology).expect("json");
    game.plane.control_db.run::<()>(&["SET", fortia_common::records::TOPOLOGY, &json]).await;
    game.topology.send_replace(topology);
    for tick in 2..=4 {
        game.commit(tick, &[column(HERE, Block::Wall, &[])], &[]).await;
    }
    tokio::time::timeout(Duration::from_secs(20), reader)
        .await
        .expect("the reader gets there")
        .expect("no failed read");
    assert_eq!(game.json("/info").await["version"], json!(2));
}
