//! Keys written while their version is copied: every last value is carried, whoever drains and whenever it is cut over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::topology::{Phase, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::guard::State;
use fortia_rdb::migrate::cutover::{Cutover, MOST_NOTED};
use fortia_rdb::migrate::engine::{Attempt, Engine, Lane};
use fortia_rdb::world::{Changes, World};
use fortia_testredis::DataPlane;
use fortia_vec::RegionPos;
use tokio::sync::watch;

struct Scene {
    plane: DataPlane,
    world: World,
    topology: Topology,
    sender: watch::Sender<Topology>,
    engine: Engine,
    cutover: Cutover,
}

impl Scene {
    async fn begin(shards: u32, to: u32) -> Scene {
        let mut plane = DataPlane::start(shards).await;
        let topology = plane.retarget(to, Phase::Cutover).await;
        let (sender, receiver) = watch::channel(topology.clone());
        let cutover = Cutover::new(&plane.boot(Service::Scheduler));
        cutover.note(&topology).await.expect("notes");
        let target = topology.target.expect("a target");
        let engine = Engine::new(&plane.boot(Service::Migrator), receiver.clone(), topology.serving, target);
        let world = World::connect(&plane.boot(Service::Ticker), receiver);
        Scene { plane, world, topology, sender, engine, cutover }
    }

    async fn write(&self, tick: u64, ids: std::ops::Range<u64>) {
        let value = |id: u64| (id, Bytes::from(format!("{tick} {id}")));
        let changes = Changes { entities: ids.map(value).collect(), ..Changes::default() };
        self.world.commit_tick(1, tick, &changes, 0).await.expect("commits");
    }

    async fn lane(&self, source: u32) -> (Attempt, Lane) {
        let attempt = self.engine.attempt(source).await.expect("begins");
        (attempt, self.engine.lane(source).await.expect("connects"))
    }

    async fn copy(&self) {
        for source in 0..self.topology.serving.shards {
            let (attempt, mut lane) = self.lane(source).await;
            let mut cursor = 0;
            loop {
                let page = lane.page(source, 1, cursor, 100).await.expect("answers");
                lane.copy(&attempt, &page.keys, false).await.expect("copies");
                cursor = page.cursor;
                if cursor == 0 {
                    break;
                }
            }
        }
    }

    /// All entities of a version, wherever they are.
    async fn entities(&self, version: u64) -> HashMap<String, HashMap<String, String>> {
        let mut found = HashMap::new();
        for server in &self.plane.shards {
            let keys: Vec<String> = server.run(&["KEYS", &format!("v{version}:e:*")]).await;
            for key in keys {
                let value = server.run(&["HGETALL", &key]).await;
                let text = key.split_once(':').expect("a version").1.to_owned();
                assert_eq!(found.insert(text, value), None, "{key} is there once");
            }
        }
        found
    }

    fn flipped(&self) -> Topology {
        Topology {
            epoch: self.topology.epoch + 1,
            serving: self.topology.target.expect("a target"),
            target: None,
            previous: Some(self.topology.serving),
            phase: Some(Phase::Retaining),
            ..self.topology.clone()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_copying_is_drained_and_no_longer_noted() {
    let scene = Scene::begin(2, 3).await;
    scene.write(1, 0..500).await;
    scene.copy().await;
    // More than a server keeps in one piece and tells at once.
    scene.write(2, 100..2700).await;
    for source in 0..2 {
        let (attempt, mut lane) = scene.lane(source).await;
        let mut drained = lane.drain(&attempt, 200).await.expect("drains");
        assert!(drained.keys > 0 && drained.left > 0);
        while drained.left > 0 {
            drained = lane.drain(&attempt, 200).await.expect("drains");
        }
        assert_eq!(scene.engine.lag(source).await, Ok(0));
        assert_eq!(lane.drain(&attempt, 200).await.map(|drained| drained.keys), Ok(0));
    }
    assert_eq!(scene.entities(2).await, scene.entities(1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_written_again_before_its_note_is_taken_away_stays_noted() {
    let scene = Scene::begin(1, 2).await;
    scene.write(1, 0..1).await;
    let stamp: String = scene.plane.shards[0].run(&["HGET", "v1:dirty", "e:0"]).await;
    let (attempt, _lane) = scene.lane(0).await;
    scene.write(2, 0..1).await;
    let number = attempt.number.to_string();
    let clean =
        ["FCALL", "fortia_clean", "1", "fortia:guard", "test-cluster", "2", "2", "0", &number, "e:0", &stamp];
    assert_eq!(scene.plane.shards[0].run::<u64>(&clean).await, 0);
    assert_eq!(scene.engine.lag(0).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_over_under_writes_loses_nothing_and_pods_write_nothing_after_it() {
    let scene = Arc::new(Scene::begin(2, 3).await);
    scene.write(1, 0..500).await;
    scene.copy().await;
    let (attempt, mut lane) = scene.lane(0).await;
    assert_eq!(scene.cutover.lag(&scene.topology).await, Ok(500));
    for tick in 2..5 {
        scene.write(tick, 100..700).await;
    }
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("freezes");
    assert_eq!((frozen.lag(), frozen.runs().len()), (700, 2));
    assert!(matches!(scene.engine.attempt(0).await, Err(RdbError::Frozen { .. })));
    assert_eq!(scene.cutover.drain(&scene.topology, &frozen, false).await, Ok(700));
    assert!(matches!(lane.drain(&attempt, 100).await, Ok(drained) if drained.keys == 0));
    let all = lane.page(0, 1, 0, 1000).await.expect("answers").keys;
    assert!(matches!(lane.copy(&attempt, &all, false).await, Err(RdbError::Attempt { .. })));
    let before = scene.entities(1).await;
    scene.cutover.turn(&scene.topology, &scene.flipped(), 4, 0).await.expect("turns");
    scene.sender.send_replace(scene.flipped());
    assert_eq!(scene.entities(2).await, before);
    scene.write(5, 0..700).await;
    assert_eq!(scene.entities(1).await, before, "what served before is kept as it was");
    assert_eq!(
        scene.cutover.lag(&scene.flipped()).await,
        Ok(700),
        "and what is written is noted for the way back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_over_that_is_given_up_goes_on_noting_and_the_next_one_carries_all() {
    let scene = Scene::begin(2, 3).await;
    scene.write(1, 0..300).await;
    scene.copy().await;
    scene.cutover.lag(&scene.topology).await.expect("answers");
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("freezes");
    scene.cutover.drain(&scene.topology, &frozen, false).await.expect("drains");
    scene.cutover.note(&scene.topology).await.expect("goes back");
    scene.write(2, 50..400).await;
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("freezes");
    assert_eq!(scene.cutover.drain(&scene.topology, &frozen, false).await, Ok(350));
    assert_eq!(scene.entities(2).await, scene.entities(1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_drain_counts_only_when_a_replica_of_each_target_that_has_one_confirms_it() {
    let mut scene = Scene::begin(1, 2).await;
    scene.write(1, 0..50).await;
    // It is listed, and follows nobody.
    scene.topology.groups[1].replicas = vec!["127.0.0.1:1".into()];
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("freezes");
    let drained = scene.cutover.drain(&scene.topology, &frozen, false).await;
    assert!(matches!(drained, Err(RdbError::NotReplicated { wanted: 1, confirmed: 0, .. })), "{drained:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_can_be_told_that_it_is_over_or_nothing_could_ever_be_collected() {
    let scene = Scene::begin(1, 2).await;
    scene.plane.shards[0].run::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = Changes { entities: vec![(1, Bytes::from_static(b"one more"))], ..Changes::default() };
    assert!(scene.world.commit_tick(1, 1, &full, 0).await.is_err(), "the server is full");
    scene.cutover.open(&scene.topology).await.expect("the guard is set all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_come_in_a_cut_over_are_late_and_not_lost() {
    let scene = Arc::new(Scene::begin(2, 3).await);
    let stop = Arc::new(AtomicBool::new(false));
    let players: Vec<_> = (0..8)
        .map(|player| {
            let (world, stop) = (scene.world.clone(), stop.clone());
            tokio::spawn(async move {
                let mut pushed = 0;
                while !stop.load(Ordering::Relaxed) {
                    let region = RegionPos { x: player, y: pushed % 7 };
                    world.push_action(1, region, Bytes::from_static(b"go")).await.expect("is late at most");
                    pushed += 1;
                }
                pushed
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    scene.copy().await;
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("freezes");
    scene.cutover.drain(&scene.topology, &frozen, false).await.expect("drains");
    scene.cutover.turn(&scene.topology, &scene.flipped(), 0, 0).await.expect("turns");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    scene.sender.send_replace(scene.flipped());
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stop.store(true, Ordering::Relaxed);
    let mut pushed = 0;
    for player in players {
        pushed += player.await.expect("joins");
    }
    let mut listed = 0;
    for server in &scene.plane.shards {
        for key in server.run::<Vec<String>>(&["KEYS", "v2:actions:*"]).await {
            listed += server.run::<i32>(&["LLEN", &key]).await;
        }
    }
    assert_eq!(listed, pushed);
}

/// Notes so many keys that nobody has, past the guard, and has their stamps.
async fn notes(scene: &Scene, keys: std::ops::Range<u64>) {
    let keys: Vec<String> = keys.map(|id| format!("e:{id}")).collect();
    for some in keys.chunks(1000) {
        let fields = some.iter().flat_map(|key| [key.as_str(), "1"]);
        let set: Vec<&str> = ["HSET", "v1:dirty", "", "1"].into_iter().chain(fields).collect();
        scene.plane.shards[0].run::<()>(&set).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_more_notes_than_a_pause_can_carry_is_not_read_and_writes_go_on_after_it_was_let_go() {
    let scene = Scene::begin(1, 2).await;
    notes(&scene, 0..MOST_NOTED + 1).await;
    let refused = scene.cutover.freeze(&scene.topology).await.expect_err("too many");
    let wanted = RdbError::Behind { source_shard: 0, noted: MOST_NOTED + 1, most: MOST_NOTED };
    assert_eq!(refused, wanted);
    assert_eq!(scene.world.guard(0).await.expect("a guard").state, State::Frozen);
    scene.cutover.note(&scene.topology).await.expect("it is let go");
    scene.write(1, 0..1).await;
    assert_eq!(scene.cutover.lag(&scene.topology).await, Ok(MOST_NOTED + 1), "no note is lost");

    scene.plane.shards[0].run::<()>(&["HDEL", "v1:dirty", "e:7"]).await;
    let frozen = scene.cutover.freeze(&scene.topology).await.expect("few enough");
    assert_eq!(frozen.lag(), MOST_NOTED);
    assert_eq!(scene.cutover.drain(&scene.topology, &frozen, false).await, Ok(MOST_NOTED));
    assert_eq!(scene.entities(2).await, scene.entities(1).await);
}
