//! Large answers on real servers: memory is bounded, and nothing of a value is lost. And how fast the engine is alone.

use std::time::Instant;

use fortia_common::boot::Service;
use fortia_common::topology::{Phase, Topology};
use fortia_rdb::keyspace::KeyText;
use fortia_rdb::migrate::cutover::Cutover;
use fortia_rdb::migrate::engine::{Copied, Engine};
use fortia_testredis::DataPlane;
use tokio::sync::watch;

async fn engine(plane: &mut DataPlane, to: u32) -> (Engine, Topology) {
    let topology = plane.retarget(to, Phase::Copying).await;
    let (_, receiver) = watch::channel(topology.clone());
    Cutover::new(&plane.boot(Service::Scheduler)).note(&topology).await.expect("notes");
    let target = topology.target.expect("a target");
    (Engine::new(&plane.boot(Service::Migrator), receiver, topology.serving, target), topology)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_values_that_are_too_large_together_arrives_whole() {
    let mut plane = DataPlane::start(1).await;
    for i in 0..40 {
        let value = format!("{i:05}").repeat(30_000 + 7000 * i);
        plane.shards[0].run::<()>(&["SET", &format!("v1:s:{i}"), &value]).await;
        plane.shards[0].run::<u64>(&["HSET", &format!("v1:c:{i}"), "a", &value, "b", "small"]).await;
    }
    let (engine, _) = engine(&mut plane, 3).await;
    let attempt = engine.attempt(0).await.expect("begins");
    let mut lane = engine.lane(0).await.expect("connects");
    let keys = lane.page(0, 1, 0, 1000).await.expect("answers").keys;
    assert_eq!(keys.len(), 80);
    lane.copy(&attempt, &keys, false).await.expect("copies");
    for i in 0..40 {
        let value = format!("{i:05}").repeat(30_000 + 7000 * i);
        for text in [format!("s:{i}"), format!("c:{i}")] {
            let key = KeyText::of_physical(format!("v1:{text}").as_bytes(), 1).expect("a key");
            let target = &plane.shards[key.shard(&fortia_common::topology::Layout {
                version: 2,
                shards: 3,
                placement: fortia_common::topology::Placement::Modulo,
            }) as usize];
            let ask = if text.starts_with('s') {
                vec!["GET".to_owned(), format!("v2:{text}")]
            } else {
                vec!["HGET".to_owned(), format!("v2:{text}"), "a".to_owned()]
            };
            let ask: Vec<&str> = ask.iter().map(String::as_str).collect();
            assert!(target.run::<String>(&ask).await == value, "{text}");
        }
    }
    let compared = lane.compare(&keys, false).await.expect("compares");
    assert_eq!((compared.equal, compared.suspects), (80, Vec::new()));
}

/// Lines `figure …` for whoever tunes the engine; the ratios that count are the migrator's benches.
#[ignore = "a bench"]
#[tokio::test(flavor = "multi_thread")]
async fn bench_engine_alone() {
    for (name, kind) in [("strings", "s"), ("slots", "c")] {
        let mut plane = DataPlane::start(1).await;
        let value = if kind == "s" {
            "redis.call('SET', 'v1:s:' .. i, string.rep('x', 64 + i * 7 % 1900))"
        } else {
            "redis.call('HSET', 'v1:c:' .. i, 't0', 7, 'd0', string.rep('x', 300), 't1', 8, 'd1', string.rep('y', 300))"
        };
        let fill = format!("for i = tonumber(ARGV[1]), ARGV[1] + 4999 do {value} end");
        for first in (0..200_000).step_by(5000) {
            plane.shards[0].run::<redis::Value>(&["EVAL", &fill, "0", &first.to_string()]).await;
        }
        let (engine, _) = engine(&mut plane, 2).await;
        let attempt = engine.attempt(0).await.expect("begins");
        let mut scanner = engine.lane(0).await.expect("connects");
        let begun = Instant::now();
        let (pages, taken) = tokio::sync::mpsc::channel(4);
        let taken = std::sync::Arc::new(tokio::sync::Mutex::new(taken));
        let mut workers = Vec::new();
        for _ in 0..3 {
            let (taken, engine) = (taken.clone(), engine.clone());
            workers.push(tokio::spawn(async move {
                let mut lane = engine.lane(0).await.expect("connects");
                let mut all = Copied::default();
                loop {
                    let page: Option<Vec<KeyText>> = taken.lock().await.recv().await;
                    let Some(page) = page else { return all };
                    for batch in page.chunks(128) {
                        let copied = lane.copy(&attempt, batch, false).await.expect("copies");
                        all.keys += copied.keys;
                        all.bytes += copied.bytes;
                    }
                }
            }));
        }
        let mut cursor = 0;
        loop {
            let page = scanner.page(0, 1, cursor, 512).await.expect("answers");
            pages.send(page.keys).await.expect("is taken");
            cursor = page.cursor;
            if cursor == 0 {
                break;
            }
        }
        drop(pages);
        let mut keys = 0;
        for worker in workers {
            keys += worker.await.expect("joins").keys;
        }
        let rate = keys as f64 / begun.elapsed().as_secs_f64();
        println!("figure rdb.engine_{name} {rate:.0} keys/s");
    }
}
