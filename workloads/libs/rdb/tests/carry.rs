//! Values carried from one version to the next on real servers: nothing is lost, late pods write nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::topology::{Layout, Phase, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::keyspace::{KeyText, shard_of};
use fortia_rdb::migrate::engine::{Attempt, Checkpoint, Engine, Judged, Lane, Surplus};
use fortia_testredis::DataPlane;
use tokio::sync::watch;

/// A migration whose guards note, without a scheduler.
struct Scene {
    plane: DataPlane,
    topology: watch::Sender<Topology>,
    engine: Engine,
    from: Layout,
    to: Layout,
}

impl Scene {
    async fn begin(shards: u32, to: u32) -> Scene {
        let mut plane = DataPlane::with_servers(shards, &["--enable-debug-command", "yes"]).await;
        let topology = plane.retarget(to, Phase::Copying).await;
        let (from, to) = (topology.serving, topology.target.expect("a target"));
        let (sender, receiver) = watch::channel(topology);
        let engine = Engine::new(&plane.boot(Service::Migrator), receiver, from, to);
        let scene = Scene { plane, topology: sender, engine, from, to };
        for shard in 0..scene.plane.shards.len() as u32 {
            scene.guard(shard, 2, if shard < shards { "copying" } else { "frozen" }).await;
        }
        scene
    }

    async fn guard(&self, shard: u32, epoch: u64, state: &str) {
        let (group, index, epoch) = (format!("shard-{shard}"), shard.to_string(), epoch.to_string());
        let call = [
            "FCALL",
            "fortia_guard",
            "1",
            "fortia:guard",
            "test-cluster",
            &group,
            &index,
            &epoch,
            "1",
            state,
            "2",
            "",
        ];
        self.plane.shards[shard as usize].run::<()>(&call).await;
    }

    /// Writes a key of the serving version where it belongs: command and arguments behind the key.
    async fn put(&self, command: &str, text: &str, arguments: &[&str]) {
        let shard = shard_of(text.as_bytes(), &self.from) as usize;
        let key = format!("v1:{text}");
        let all: Vec<&str> = [command, &key].iter().chain(arguments).copied().collect();
        self.plane.shards[shard].run::<redis::Value>(&all).await;
    }

    /// Keys of every kind, some of them large.
    async fn populate(&self) {
        for i in 0..300 {
            let value = "x".repeat(i % 97);
            self.put("HSET", &format!("c:{i}:0"), &["t0", "1", "d0", &value, "t1", "2", "d1", ""]).await;
            self.put("SET", &format!("s:{i}"), &[&value]).await;
        }
        for i in 0..40 {
            self.put("SADD", &format!("ue:p{i}"), &["1", "2", &i.to_string()]).await;
            self.put("RPUSH", &format!("actions:7:{i}:0"), &["a", "b", "a"]).await;
            self.put("SET", &format!("x:{i}"), &["soon", "PX", "600000"]).await;
            // Mixed kinds in one class.
            self.put("SADD", &format!("s:mixed{i}"), &["a"]).await;
        }
        self.put("SET", "s:huge", &[&"abcdefgh".repeat(400_000)]).await;
        for i in 0..60 {
            let fields: Vec<String> = (0..100).flat_map(|n| [format!("f{i}:{n}"), "y".repeat(400)]).collect();
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            self.put("HSET", "h:huge", &fields).await;
        }
    }

    /// All keys of a version, with what they hold and when they expire, by shard.
    async fn contents(&self, layout: &Layout) -> BTreeMap<(usize, String), String> {
        let mut found = BTreeMap::new();
        for (shard, server) in self.plane.shards.iter().enumerate() {
            let prefix = format!("v{}:", layout.version);
            let names: Vec<String> = server.run(&["KEYS", &format!("{prefix}*")]).await;
            for name in names {
                let text = name.strip_prefix(&prefix).expect("of the version").to_owned();
                if ["dirty", "acting", "checkpoint"].contains(&text.as_str()) {
                    continue;
                }
                let digest: redis::Value = server.run(&["DEBUG", "DIGEST-VALUE", &name]).await;
                let expires: i64 = server.run(&["PEXPIRETIME", &name]).await;
                found.insert((shard, text), format!("{digest:?} {expires}"));
            }
        }
        found
    }

    /// What the target must have, from what the source has.
    async fn wanted(&self) -> BTreeMap<(usize, String), String> {
        let moved = |((_, text), value): ((usize, String), String)| {
            ((shard_of(text.as_bytes(), &self.to) as usize, text), value)
        };
        self.contents(&self.from).await.into_iter().map(moved).collect()
    }

    async fn lane(&self, source: u32) -> (Attempt, Lane) {
        let attempt = self.engine.attempt(source).await.expect("begins");
        (attempt, self.engine.lane(source).await.expect("connects"))
    }

    async fn pages(&self, lane: &mut Lane, shard: u32, version: u64) -> Vec<KeyText> {
        let (mut keys, mut cursor) = (Vec::new(), 0);
        loop {
            let page = lane.page(shard, version, cursor, 512).await.expect("answers");
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor == 0 {
                return keys;
            }
        }
    }

    async fn copy_all(&self) -> u64 {
        let mut bytes = 0;
        for source in 0..self.from.shards {
            let (attempt, mut lane) = self.lane(source).await;
            let expires = self.engine.life(source).await.expect("answers").expires;
            let keys = self.pages(&mut lane, source, 1).await;
            for batch in keys.chunks(128) {
                bytes += lane.copy(&attempt, batch, expires).await.expect("copies").bytes;
            }
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_where_it_belongs_whatever_its_kind_and_size() {
    for (from, to) in [(1, 2), (2, 3), (3, 2), (2, 2)] {
        let scene = Scene::begin(from, to).await;
        scene.populate().await;
        scene.copy_all().await;
        assert_eq!(scene.contents(&scene.to).await, scene.wanted().await, "{from} to {to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_again_replaces_what_was_copied_and_removes_what_is_gone() {
    let scene = Scene::begin(2, 3).await;
    scene.populate().await;
    let (attempt, mut lane) = scene.lane(0).await;
    let (other, mut other_lane) = scene.lane(1).await;
    let keys = [scene.pages(&mut lane, 0, 1).await, scene.pages(&mut other_lane, 1, 1).await];
    scene.copy_all().await;
    for i in 0..300 {
        scene.put("DEL", &format!("s:{i}"), &[]).await;
        scene.put("HDEL", &format!("c:{i}:0"), &["t1", "d1"]).await;
    }
    assert!(matches!(lane.copy(&attempt, &keys[0], true).await, Err(RdbError::Attempt { .. })));
    let again =
        [scene.engine.attempt(0).await.expect("begins"), scene.engine.attempt(1).await.expect("begins")];
    lane.copy(&again[0], &keys[0], true).await.expect("copies");
    assert_ne!(other, again[1]);
    other_lane.copy(&again[1], &keys[1], true).await.expect("copies");
    assert_eq!(scene.contents(&scene.to).await, scene.wanted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_replaced_writes_nothing_more() {
    let scene = Scene::begin(1, 2).await;
    scene.populate().await;
    let (old, mut lane) = scene.lane(0).await;
    let keys = scene.pages(&mut lane, 0, 1).await;
    let newer = scene.engine.attempt(0).await.expect("begins");
    assert_eq!(newer.number, old.number + 1);
    assert!(matches!(lane.copy(&old, &keys, true).await, Err(RdbError::Attempt { .. })));
    let at = Checkpoint {
        since: 2,
        run: "r".into(),
        cursor: u64::MAX,
        total: 1,
        keys: 2,
        bytes: 3,
        stayed: 4,
        copied: false,
    };
    assert!(matches!(scene.engine.set_checkpoint(&old, &at).await, Err(RdbError::Attempt { .. })));
    assert_eq!(scene.contents(&scene.to).await, BTreeMap::new());
    assert_eq!(scene.engine.checkpoint(0).await, Ok(None));
    scene.engine.set_checkpoint(&newer, &at).await.expect("records");
    assert_eq!(scene.engine.checkpoint(0).await, Ok(Some(at)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_is_waited_out_when_the_migration_is_the_same() {
    let scene = Scene::begin(1, 2).await;
    scene.populate().await;
    let (attempt, mut lane) = scene.lane(0).await;
    let keys = scene.pages(&mut lane, 0, 1).await;
    for shard in 0..2 {
        scene.guard(shard, 3, if shard == 0 { "copying" } else { "frozen" }).await;
    }
    let sender = scene.topology.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sender.send_modify(|topology| topology.epoch = 3);
    });
    lane.copy(&attempt, &keys, true).await.expect("copies under the newer epoch");
    assert_eq!(scene.contents(&scene.to).await, scene.wanted().await);
    scene.topology.send_modify(|topology| topology.target = None);
    assert!(matches!(lane.copy(&attempt, &keys, true).await, Err(RdbError::Topology { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_is_found_equal_and_every_planted_difference_is_found() {
    let scene = Scene::begin(2, 3).await;
    scene.populate().await;
    scene.copy_all().await;
    let wanted = scene.wanted().await.len() as u64;
    let mut equal = 0;
    for source in 0..2 {
        let (_, mut lane) = scene.lane(source).await;
        let keys = scene.pages(&mut lane, source, 1).await;
        for batch in keys.chunks(128) {
            let compared = lane.compare(batch, true).await.expect("compares");
            assert_eq!(compared.suspects, Vec::new());
            equal += compared.equal;
        }
    }
    assert_eq!(equal, wanted);
    let plants: [(&str, &[&str]); 7] = [
        ("c:1:0", &["HSET", "d0", "other"]),
        ("c:2:0", &["HSET", "more", "field"]),
        ("s:3", &["APPEND", "more"]),
        ("s:4", &["PEXPIRE", "60000"]),
        ("ue:p1", &["SADD", "99"]),
        ("actions:7:1:0", &["LSET", "0", "b"]),
        ("s:huge", &["SETRANGE", "1700000", "X"]),
    ];
    for (text, change) in plants {
        let shard = shard_of(text.as_bytes(), &scene.to) as usize;
        let key = format!("v2:{text}");
        let all: Vec<&str> = [change[0], &key].iter().chain(&change[1..]).copied().collect();
        scene.plane.shards[shard].run::<redis::Value>(&all).await;
    }
    let mut suspects = Vec::new();
    for source in 0..2 {
        let (_, mut lane) = scene.lane(source).await;
        let keys = scene.pages(&mut lane, source, 1).await;
        for batch in keys.chunks(128) {
            suspects.extend(lane.compare(batch, true).await.expect("compares").suspects);
        }
        let own = |key: &&KeyText| key.shard(&scene.from) == source;
        let own: Vec<KeyText> = suspects.iter().filter(own).cloned().collect();
        assert_eq!(lane.judge(&own).await, Ok(vec![Judged::Different; own.len()]), "{own:?}");
    }
    let mut suspects: Vec<String> = suspects.iter().map(ToString::to_string).collect();
    suspects.sort();
    let mut planted: Vec<&str> = plants.iter().map(|(text, _)| *text).collect();
    planted.sort_unstable();
    assert_eq!(suspects, planted);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_a_target_that_no_source_has_are_told_unless_they_are_noted() {
    let scene = Scene::begin(2, 3).await;
    scene.populate().await;
    scene.copy_all().await;
    let text = |text: &str| KeyText::of_physical(format!("v2:{text}").as_bytes(), 2).expect("a key");
    let (unknown, noted) = (text("s:900"), text("s:901"));
    for key in [&unknown, &noted] {
        let shard = key.shard(&scene.to) as usize;
        scene.plane.shards[shard].run::<redis::Value>(&["SET", &format!("v2:{key}"), "x"]).await;
    }
    let misplaced = text("s:902");
    let wrong = (misplaced.shard(&scene.to) + 1) % 3;
    scene.plane.shards[wrong as usize].run::<redis::Value>(&["SET", "v2:s:902", "x"]).await;
    scene.engine.note(noted.shard(&scene.from), std::slice::from_ref(&noted)).await.expect("notes");
    let (attempt, mut lane) = scene.lane(0).await;
    let mut surplus = Vec::new();
    for target in 0..3 {
        let keys = scene.pages(&mut lane, target, 2).await;
        surplus.extend(lane.surplus(target, keys, |_| true).await.expect("answers"));
    }
    surplus.sort_by_key(|one| matches!(one, Surplus::Misplaced(_)));
    assert_eq!(surplus, [Surplus::Unknown(unknown), Surplus::Misplaced(misplaced.clone())]);
    assert_eq!(lane.remove_misplaced(&attempt, wrong, &[misplaced]).await, Ok(1));
}
