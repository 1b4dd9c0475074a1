//! What players do, down to the lists that tickers read.

mod support;

use fortia_common::topology::{Layout, Phase, Placement};
use fortia_proto::world::v1 as pb;
use fortia_rdb::keyspace::WorldKey;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use fortia_world::block::Block;
use fortia_world::entity::{Due, Entity, Event, Kind};
use fortia_world::goods::Goods;
use fortia_world::start;
use prost::Message;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Game, column, problem, unit};

const AT: ChunkPos = ChunkPos::new(1, -2);

/// The actions queued for a tick in a region, as tickers find them.
async fn queued(game: &Game, tick: u64, region: RegionPos) -> Vec<pb::Action> {
    let layout = Layout { version: 1, shards: game.plane.shards.len() as u32, placement: Placement::Modulo };
    let key = WorldKey::Actions { tick, region };
    let shard = &game.plane.shards[key.shard(&layout) as usize];
    let list: Vec<Vec<u8>> = shard.run(&["LRANGE", &key.physical(1), "0", "-1"]).await;
    list.iter().map(|bytes| pb::Action::decode(&bytes[..]).expect("an action")).collect()
}

/// A player with one unit in the world.
async fn settled(game: &Game, name: &str, id: u64) -> String {
    let token = game.player(name).await;
    let player = fortia_rdb::world::Player { joined_ms: 0, start: BlockPos { z: 1, ..AT.origin() } };
    game.world.create_player(name, &player, &[id]).await.expect("created");
    token
}

#[tokio::test]
async fn joining_queues_the_first_units_and_joining_again_changes_nothing() {
    let game = Game::start(2).await;
    let token = game.player("thor").await;
    problem(game.post("/enter", &token).send().await.expect("an answer"), StatusCode::CONFLICT).await;

    let joined = game.post("/register", &token).send().await.expect("an answer");
    assert_eq!(joined.status(), StatusCode::CREATED);
    let joined: Value = joined.json().await.expect("json");
    assert_eq!((&joined["player"], &joined["tick"]), (&json!("thor"), &json!(1)));
    let units: Vec<u64> = joined["units"]
        .as_array()
        .expect("units")
        .iter()
        .map(|u| u.as_str().expect("text").parse().expect("an id"))
        .collect();
    assert_eq!(units.len(), start::UNITS);
    let place = |axis: &str| joined["start"][axis].as_i64().expect("a number") as i32;
    let at = BlockPos::new(place("x"), place("y"), place("z"));
    let queue = queued(&game, 1, at.region()).await;
    let [pb::Action { player, kind: Some(pb::action::Kind::Spawn(spawn)), .. }] = &queue[..] else {
        panic!("{queue:?}")
    };
    assert_eq!((player.as_str(), spawn.owner.as_str()), ("thor", "thor"));
    let (mut spawned, mut told) = (spawn.units.clone(), units.clone());
    spawned.sort_unstable();
    told.sort_unstable();
    assert_eq!(spawned, told);

    let entered: Value =
        game.post("/enter", &token).send().await.expect("an answer").json().await.expect("json");
    assert_eq!(
        (&entered["units"], entered["awaited"].as_array().map(Vec::len)),
        (&json!([]), Some(units.len()))
    );

    let mut bodies: Vec<_> =
        units.iter().map(|id| Entity::new(Kind::Handyman, *id, "thor", at, at)).collect();
    bodies.push(Entity::new(Kind::Camp, start::camp_id("thor"), "thor", at, at));
    game.commit(1, &[column(at.chunk(), Block::Stone, &units)], &bodies).await;
    game.until_tick(1).await;
    let again = game.post("/register", &token).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::OK);
    let again: Value = again.json().await.expect("json");
    assert_eq!((&again["start"], &again["tick"]), (&joined["start"], &Value::Null));
    assert!(queued(&game, 2, at.region()).await.is_empty());
    let entered: Value =
        game.post("/enter", &token).send().await.expect("an answer").json().await.expect("json");
    assert_eq!((entered["units"].as_array().map(Vec::len), &entered["tick"]), (Some(units.len()), &json!(1)));
}

#[tokio::test]
async fn orders_are_queued_for_the_next_tick_where_the_unit_stands() {
    let game = Game::start(2).await;
    let token = settled(&game, "thor", 7).await;
    game.commit(1, &[column(AT, Block::Stone, &[7])], &[unit(7, "thor", AT)]).await;
    game.until_tick(1).await;
    let orders = json!({"orders": [
        {"unit": "7", "order": {"kind": "mine", "at": {"x": 16, "y": -32, "z": 0}}},
        {"unit": "7", "order": {"kind": "hold"}},
    ]});
    let answer = game.post("/actions", &token).json(&orders).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.json::<Value>().await.expect("json"), json!({"tick": 2}));

    let queue = queued(&game, 2, AT.region()).await;
    assert!(queue.is_sorted_by(|a, b| a.id < b.id), "{queue:?}");
    let orders: Vec<_> = queue
        .iter()
        .map(|action| match &action.kind {
            Some(pb::action::Kind::Command(command)) => {
                // It is found even if it has walked far when the order runs.
                assert_eq!((command.at, command.seen), (Some(pb::BlockPos { x: 16, y: -32, z: 1 }), 1));
                (action.player.as_str(), command.unit, command.order)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let order = |kind| Some(pb::Order { kind: Some(kind) });
    let at = Some(pb::BlockPos { x: 16, y: -32, z: 0 });
    assert_eq!(
        orders,
        [
            ("thor", 7, order(pb::order::Kind::Mine(pb::Mine { at }))),
            ("thor", 7, order(pb::order::Kind::Hold(pb::Hold {}))),
        ]
    );

    // A tick that has begun takes no more orders: they run in the next.
    game.world
        .take_actions(1, 2, &fortia_vec::regions_of(support::RADIUS), Default::default())
        .await
        .expect("taken");
    let orders = json!({"orders": [{"unit": "7", "order": {"kind": "hold"}}]});
    let answer = game.post("/actions", &token).json(&orders).send().await.expect("an answer");
    assert_eq!(answer.json::<Value>().await.expect("json"), json!({"tick": 3}));
}

#[tokio::test]
async fn who_gives_too_many_orders_waits_and_takes_no_place_from_others() {
    let game = Game::with_period(1, 60_000).await;
    let (thor, loki) = (settled(&game, "thor", 7).await, settled(&game, "loki", 8).await);
    let units = [unit(7, "thor", AT), unit(8, "loki", AT)];
    game.commit(1, &[column(AT, Block::Stone, &[7, 8])], &units).await;
    game.until_tick(1).await;
    let give = async |token: &str, unit: &str, count: usize| {
        let order = json!({"unit": unit, "order": {"kind": "hold"}});
        let orders = json!({"orders": vec![order; count]});
        game.post("/actions", token).json(&orders).send().await.expect("an answer")
    };
    for _ in 0..4 {
        assert_eq!(give(&thor, "7", 64).await.status(), StatusCode::ACCEPTED);
    }
    let refused = give(&thor, "7", 32).await;
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((20..=30).contains(&wait), "half a tick's orders take half a period, not {wait} s");
    let detail = problem(refused, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(detail.contains("at most 64 a tick, or 256 at once"), "{detail}");
    assert_eq!(give(&loki, "8", 64).await.status(), StatusCode::ACCEPTED);
    assert_eq!(queued(&game, 2, AT.region()).await.len(), 256 + 64, "nothing of what was refused");
}

#[tokio::test]
async fn orders_one_may_not_give_are_refused_with_the_reason() {
    let game = Game::start(1).await;
    let token = settled(&game, "thor", 7).await;
    settled(&game, "loki", 8).await;
    let give = async |token: &str, unit: &str, order: Value| {
        let orders = json!({"orders": [{"unit": unit, "order": order}]});
        game.post("/actions", token).json(&orders).send().await.expect("an answer")
    };
    let hold = json!({"kind": "hold"});
    problem(give("no-token", "7", hold.clone()).await, StatusCode::UNAUTHORIZED).await;
    let detail = problem(give(&token, "8", hold.clone()).await, StatusCode::FORBIDDEN).await;
    assert!(detail.contains("unit 8 is not yours"), "{detail}");
    let detail = problem(give(&token, "7", hold).await, StatusCode::CONFLICT).await;
    assert!(detail.contains("not in the world yet"), "{detail}");
    for (kind, lacks) in
        [("attack", "target"), ("train", "recruit"), ("build", "at"), ("dance", "one of hold")]
    {
        let detail =
            problem(give(&token, "7", json!({"kind": kind})).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert!(detail.contains(kind) && detail.contains(lacks), "{detail}");
    }
    let outside = json!({"kind": "move", "to": {"x": 80, "y": 0, "z": 1}});
    let detail = problem(give(&token, "7", outside).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(detail.starts_with("80,0,1 is outside the world"), "{detail}");
}

/// Sets the guards of all shards, for a re-sharding from version 1 to 2.
async fn set_guards(game: &Game, epoch: u64, state: &str) {
    for (i, shard) in game.plane.shards.iter().enumerate() {
        let (group, index, epoch) = (format!("shard-{i}"), i.to_string(), epoch.to_string());
        let function = ["FCALL", "fortia_guard", "1", "fortia:guard", fortia_testredis::CLUSTER];
        let setting = [&group, &index, &epoch, "1", state, "2", ""];
        shard.run::<()>(&[&function[..], &setting[..]].concat()).await;
    }
}

#[tokio::test]
async fn who_gives_an_order_in_the_moment_of_a_cut_over_waits_and_sees_no_error() {
    let mut game = Game::start(2).await;
    let token = settled(&game, "thor", 7).await;
    game.commit(1, &[column(AT, Block::Stone, &[7])], &[unit(7, "thor", AT)]).await;
    game.until_tick(1).await;
    let topology = game.plane.retarget(2, Phase::Cutover).await;
    set_guards(&game, topology.epoch, "frozen").await;
    let orders = json!({"orders": [{"unit": "7", "order": {"kind": "hold"}}]});
    let give = game.post("/actions", &token).json(&orders).send();
    let thaw = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        set_guards(&game, topology.epoch, "copying").await;
    };
    let (answer, ()) = tokio::join!(give, thaw);
    assert_eq!(answer.expect("an answer").status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_frozen_world_takes_no_orders_but_is_seen() {
    let mut game = Game::start(2).await;
    let token = settled(&game, "thor", 7).await;
    game.commit(1, &[column(AT, Block::Stone, &[7])], &[unit(7, "thor", AT)]).await;
    game.until_tick(1).await;
    let topology = game.plane.retarget(2, Phase::Cutover).await;
    set_guards(&game, topology.epoch, "frozen").await;
    let orders = json!({"orders": [{"unit": "7", "order": {"kind": "hold"}}]});
    let refused = game.post("/actions", &token).json(&orders).send().await.expect("an answer");
    assert_eq!(refused.headers()["retry-after"], "1");
    let detail = problem(refused, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(detail.contains("mode is paused"), "{detail}");
    let newcomer = game.player("loki").await;
    let refused = game.post("/register", &newcomer).send().await.expect("an answer");
    problem(refused, StatusCode::SERVICE_UNAVAILABLE).await;

    assert_eq!(game.json("/chunks?x=1&y=-2").await["chunks"][0]["palette"], json!(["stone", "air"]));
    assert_eq!(game.json("/entities?x=1&y=-2").await["entities"][0]["id"], json!("7"));
    game.until_mode("paused").await;
}

/// Thor's fighter 7 and camp 9, and Loki's handyman 8, who is dead, and his house 10.
async fn feud(game: &Game) -> (String, Vec<Entity>) {
    let token = settled(game, "thor", 7).await;
    settled(game, "loki", 8).await;
    let at = BlockPos { z: 1, ..AT.origin() };
    let entity = |kind, id, owner| Entity::new(kind, id, owner, at, at);
    let mut all = vec![
        entity(Kind::Fighter, 7, "thor"),
        entity(Kind::Handyman, 8, "loki"),
        entity(Kind::Camp, 9, "thor"),
        entity(Kind::House, 10, "loki"),
    ];
    all[1].health = 0;
    all[1].due = Some(Due { event: Event::Revived, tick: 30 });
    all[2].goods = Goods::new(5, 6);
    (token, all)
}

#[tokio::test]
async fn an_attack_is_queued_with_the_place_where_the_target_is_seen() {
    let game = Game::start(2).await;
    let (token, all) = feud(&game).await;
    game.commit(1, &[column(AT, Block::Stone, &[7, 8, 9, 10])], &all).await;
    game.until_tick(1).await;
    let attack = async |target: &str| {
        let order = json!({"kind": "attack", "target": target});
        let orders = json!({"orders": [{"unit": "7", "order": order}]});
        game.post("/actions", &token).json(&orders).send().await.expect("an answer")
    };
    assert_eq!(attack("10").await.status(), StatusCode::ACCEPTED);
    let queue = queued(&game, 2, AT.region()).await;
    let [pb::Action { kind: Some(pb::action::Kind::Command(command)), .. }] = &queue[..] else {
        panic!("{queue:?}")
    };
    let at = Some(pb::BlockPos { x: 16, y: -32, z: 1 });
    let order = pb::order::Kind::Attack(pb::Attack { target: 10, at, seen: 1 });
    assert_eq!(command.order, Some(pb::Order { kind: Some(order) }));

    for (target, status, why) in [
        ("8", StatusCode::CONFLICT, "there is no 8 to attack"),
        ("11", StatusCode::CONFLICT, "there is no 11 to attack"),
        ("9", StatusCode::UNPROCESSABLE_ENTITY, "9 is your own"),
    ] {
        let detail = problem(attack(target).await, status).await;
        assert!(detail.starts_with(why), "{detail}");
    }
}

#[tokio::test]
async fn a_unit_that_takes_no_such_order_says_so_before_it_is_queued() {
    let game = Game::start(1).await;
    let (thor, all) = feud(&game).await;
    let loki = game.login("loki").await;
    game.commit(1, &[column(AT, Block::Stone, &[7, 8, 9, 10])], &all).await;
    game.until_tick(1).await;
    let give = async |token: &str, unit: &str, order: Value| {
        let orders = json!({"orders": [{"unit": unit, "order": order}]});
        game.post("/actions", token).json(&orders).send().await.expect("an answer")
    };
    let chop = json!({"kind": "chop", "at": {"x": 1, "y": 1, "z": 1}});
    let detail = problem(give(&thor, "7", chop).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(detail, "unit 7: a fighter cannot chop: it takes hold, move, attack");
    let detail = problem(give(&loki, "8", json!({"kind": "hold"})).await, StatusCode::CONFLICT).await;
    assert_eq!(detail, "unit 8: this handyman is dead until tick 30");
    assert!(queued(&game, 2, AT.region()).await.is_empty());
}

#[tokio::test]
async fn a_player_sees_its_stock_units_buildings_and_fallen_and_forgets_these_when_it_enters() {
    let game = Game::start(2).await;
    let (token, mut all) = feud(&game).await;
    all[3] = Entity::new(Kind::Fighter, 11, "thor", all[0].at, all[0].at);
    all[3].health = 0;
    all[3].outcome = "killed by loki".into();
    let born = [9, 11, 12].map(|id| ("thor".to_owned(), id)).to_vec();
    game.commit_born(1, &[column(AT, Block::Stone, &[7, 8, 9])], &all, born).await;
    game.until_tick(1).await;
    let units = async || {
        let answer = game.get("/units").bearer_auth(&token).send().await.expect("an answer");
        answer.json::<Value>().await.expect("json")
    };
    let ids = |list: &Value| -> Vec<String> {
        let all = list.as_array().expect("a list").iter();
        all.map(|it| it["id"].as_str().or(it.as_str()).expect("an id").to_owned()).collect()
    };
    let seen = units().await;
    assert_eq!((&seen["tick"], &seen["stock"]), (&json!(1), &json!({"wood": 5, "stone": 6})));
    let lists = ["units", "buildings", "fallen", "awaited"].map(|list| ids(&seen[list]));
    assert_eq!(lists, [vec!["7".to_owned()], vec!["9".into()], vec!["11".into()], vec!["12".into()]]);
    assert_eq!(seen["fallen"][0]["outcome"], json!("killed by loki"));

    let entered: Value =
        game.post("/enter", &token).send().await.expect("an answer").json().await.expect("json");
    assert_eq!((ids(&entered["fallen"]), &entered["player"]), (vec!["11".to_owned()], &json!("thor")));
    assert_eq!(ids(&units().await["fallen"]), Vec::<String>::new());
    problem(game.get("/units").send().await.expect("an answer"), StatusCode::UNAUTHORIZED).await;
}
