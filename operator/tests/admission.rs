//! The operator's commands and rights on real Redis servers that boot with what the builders made.
//!
//! Needs `valkey-server` or `redis-server` (7.0 or newer) in PATH, or its command line in FORTIA_TEST_REDIS.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fortia_common::records::GUARD;
use fortia_operator::build::names::{GroupId, Names};
use fortia_operator::build::secrets::Passwords;
use fortia_operator::build::{Object, objects};
use fortia_operator::controller::validate::{Plan, validate};
use fortia_operator::crd::spec::{FortiaCluster, FortiaClusterSpec};
use fortia_operator::crd::status::{Group, GroupState};
use fortia_operator::failover::redis::{FirstGuard, Redis, Target};
use fortia_operator::failover::state::{Node, Role};
use fortia_operator::failover::step::{Step, next};
use fortia_operator::settings::Settings;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult, cmd};

const SHARD: GroupId = GroupId::Shard(0);

/// A Redis server as a pod would run it, restartable on its volume.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    lives: u32,
}

impl Server {
    fn boot(cluster: &Cluster) -> Server {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().to_str().expect("path").to_owned();
        let port = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
        let acl = cluster.text("midgard-redis-acl", "/stringData/shard.acl");
        std::fs::write(folder.path().join("users.acl"), acl).expect("acl");
        let conf = cluster.text("midgard-valkey", "/data/valkey.conf");
        let conf = conf
            .replace("/etc/valkey/acl/users.acl", &format!("{path}/users.acl"))
            .replace("dir /data", &format!("dir {path}"))
            .replace("port 6379", &format!("port {port}"))
            .replace("bind * -::*", "bind 127.0.0.1");
        std::fs::write(folder.path().join("valkey.conf"), conf).expect("conf");
        let child = start(folder.path());
        await_port(port);
        Server { child, port, folder, lives: 1 }
    }

    fn crash_and_restart(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        self.child = start(self.folder.path());
        self.lives += 1;
        await_port(self.port);
    }

    fn target(&self, pod: &str) -> Target {
        // Another life of a pod has another uid.
        let uid = format!("{pod}-{}", self.lives);
        Target { pod: pod.into(), uid, ip: "127.0.0.1".into(), port: self.port }
    }

    async fn ask(&self, user: &str, password: &str, words: &[&str]) -> RedisResult<redis::Value> {
        let settings = RedisConnectionInfo::default().set_username(user).set_password(password);
        let info = ConnectionAddr::Tcp("127.0.0.1".into(), self.port).into_connection_info()?;
        let client = Client::open(info.set_redis_settings(settings))?;
        let mut open = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut open).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &Path) -> Child {
    let line = std::env::var("FORTIA_TEST_REDIS").ok().filter(|line| !line.is_empty());
    let candidates =
        line.map_or_else(|| vec!["valkey-server".to_owned(), "redis-server".to_owned()], |l| vec![l]);
    for candidate in &candidates {
        let mut words = candidate.split_whitespace();
        let program = words.next().expect("program");
        let spawned = Command::new(program)
            .args(words)
            .arg(folder.join("valkey.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(child) = spawned {
            return child;
        }
    }
    panic!("no Redis server: install the package valkey-server or redis-server, or set FORTIA_TEST_REDIS");
}

fn await_port(port: u16) {
    let since = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(since.elapsed() < Duration::from_secs(10), "the server does not listen");
        std::thread::yield_now();
    }
}

struct Cluster {
    plan: Plan,
    passwords: Passwords,
    objects: Vec<Object>,
}

impl Cluster {
    fn new() -> Cluster {
        let spec: FortiaClusterSpec = serde_yaml::from_str("redisShards: 1").expect("spec");
        let mut cluster = FortiaCluster::new("midgard", spec);
        cluster.metadata.namespace = Some("worlds".into());
        cluster.metadata.uid = Some("uid-1".into());
        let plan = validate(&cluster, &Settings::from(|_| None).expect("settings")).expect("plan");
        let passwords = Passwords::generate().expect("random");
        let objects = objects(&plan, &[SHARD], &passwords);
        Cluster { plan, passwords, objects }
    }

    fn text(&self, name: &str, pointer: &str) -> String {
        let object = self.objects.iter().find(|o| o.name == name).expect(name);
        object.body.pointer(pointer).and_then(|v| v.as_str()).expect(pointer).to_owned()
    }

    fn names(&self) -> &Names {
        &self.plan.names
    }

    fn guard(&self) -> FirstGuard {
        FirstGuard { uid: self.plan.uid.clone(), epoch: 1, version: 1, frozen: false }
    }

    fn admitted(&self, run_id: &str) -> Group {
        Group {
            name: SHARD.to_string(),
            primary: self.names().pod(SHARD, 0),
            run_id: Some(run_id.into()),
            state: GroupState::Admitted,
            ..Group::default()
        }
    }

    /// Writes a chunk as a ticker does.
    async fn write(&self, server: &Server, version: &str) -> RedisResult<redis::Value> {
        let key = format!("v{version}:c:0:0");
        let words = ["FCALL", "fortia_slots", "2", GUARD, &key, "uid-1", "1", "1", version, "1", "stone"];
        server.ask("ticker", self.passwords.of("ticker"), &words).await
    }
}

async fn wait_until_loaded(redis: &Redis, target: &Target, passwords: &Passwords) {
    let since = Instant::now();
    loop {
        match redis.see(target, passwords).await {
            Ok(seen) if !seen.loading => return,
            _ => assert!(since.elapsed() < Duration::from_secs(10), "the server does not load"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_boots_fenced_and_takes_no_writes_until_it_is_admitted() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    let seen = redis.see(&target, &cluster.passwords).await.expect("answers");
    assert_eq!((seen.role, seen.keys, seen.guard), (Role::Fenced, 0, None));
    cluster.write(&server, "1").await.expect_err("fenced");
    redis.admit(&target, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    cluster.write(&server, "1").await.expect_err("no rights yet");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    cluster.write(&server, "1").await.expect("admitted");
    let refused = cluster.write(&server, "2").await.expect_err("another version");
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
}

#[tokio::test]
async fn nobody_comes_in_without_a_password_and_a_probe_may_only_ping() {
    let cluster = Cluster::new();
    let server = Server::boot(&cluster);
    server.ask("probe", "any", &["PING"]).await.expect("probe");
    server.ask("probe", "any", &["GET", "x"]).await.expect_err("only ping");
    server.ask("default", "", &["PING"]).await.expect_err("default");
    server.ask("game", "wrong", &["PING"]).await.expect_err("wrong password");
}

/// A server replays transactions of its file with the rights of the default user: it must have them, or data is lost.
#[tokio::test]
async fn a_primary_that_crashed_comes_back_with_all_its_data_and_is_admitted_again() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let mut server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    redis.admit(&target, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    cluster.write(&server, "1").await.expect("written");
    let before = redis.see(&target, &cluster.passwords).await.expect("answers");
    server.crash_and_restart();
    let target = server.target("midgard-shard-0-0");
    wait_until_loaded(&redis, &target, &cluster.passwords).await;
    let after = redis.see(&target, &cluster.passwords).await.expect("answers");
    assert_eq!((&after.keys, &after.guard), (&before.keys, &before.guard));
    assert_eq!(after.role, Role::Fenced);
    let node = Node { pod: target.pod.clone(), uid: Some(target.uid.clone()), seen: Some(after) };
    let step = next(cluster.names(), "uid-1", SHARD, Some(&cluster.admitted(&before.run_id)), &[node]);
    assert_eq!(step, Step::Admit { pod: target.pod.clone(), first: false });
    redis.admit(&target, &cluster.passwords, SHARD, None).await.expect("admitted again");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    cluster.write(&server, "1").await.expect("written again");
}

/// An operator of another version admitted it; nobody restarts it.
#[tokio::test]
async fn a_running_primary_with_other_functions_is_given_this_operators_once() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    redis.admit(&target, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    let renew = || redis.renew_library(&target, &cluster.passwords);
    assert!(!renew().await.expect("looked"), "as admitted");
    let mut open = redis.connect(&target, &cluster.passwords).await.expect("connect");
    let older = "#!lua name=fortia\nredis.register_function('fortia_guard', function() return 0 end)";
    cmd("FUNCTION").arg(&["LOAD", "REPLACE", older]).query_async::<String>(&mut open).await.expect("loaded");
    cluster.write(&server, "1").await.expect_err("the older library cannot do it");
    assert!(renew().await.expect("renewed"));
    cluster.write(&server, "1").await.expect("written");
    assert!(!renew().await.expect("looked"), "once is enough");
    cmd("FUNCTION").arg(&["FLUSH", "SYNC"]).query_async::<()>(&mut open).await.expect("flushed");
    assert!(renew().await.expect("renewed"), "none is another one, too");
    cluster.write(&server, "1").await.expect("written");
}

#[tokio::test]
async fn a_replica_follows_its_primary_with_all_data() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let (primary, replica) = (Server::boot(&cluster), Server::boot(&cluster));
    let first = primary.target("midgard-shard-0-0");
    redis.admit(&first, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    redis.give_rights(&first, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    cluster.write(&primary, "1").await.expect("written");
    let second = replica.target("midgard-shard-0-1");
    redis.attach(&second, &cluster.passwords, ("127.0.0.1", primary.port)).await.expect("attached");
    let since = Instant::now();
    loop {
        let seen = redis.see(&second, &cluster.passwords).await;
        if seen.is_ok_and(|s| s.keys == 2 && matches!(s.role, Role::ReplicaOf { link_up: true, .. })) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "the replica does not catch up");
        tokio::task::yield_now().await;
    }
    cluster.write(&replica, "1").await.expect_err("a replica takes no writes");
}

#[tokio::test]
async fn a_given_up_target_is_taken_off_the_guard_frozen_or_opened_and_its_closed_tick_stays() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    let first = FirstGuard { frozen: true, ..cluster.guard() };
    redis.admit(&target, &cluster.passwords, SHARD, Some(&first)).await.expect("admitted");
    let mut open = redis.connect(&target, &cluster.passwords).await.expect("connect");
    // As the scheduler leaves it: frozen for version 2, or already opened for it.
    for [version, state, to] in [["1", "frozen", "2"], ["2", "open", "0"]] {
        let scheduler = ["uid-1", "shard-0", "0", "2", version, state, to, "41"];
        let words = ["fortia_guard", "1", GUARD];
        cmd("FCALL").arg(&words).arg(&scheduler).query_async::<()>(&mut open).await.expect("set");
        for _ in 0..2 {
            let closed = FirstGuard { epoch: 2, ..first.clone() };
            redis.guard(&target, &cluster.passwords, SHARD, &closed).await.expect("taken off");
            let fields = ["version", "state", "target", "closed", "epoch"];
            let guard: Vec<String> =
                cmd("HMGET").arg(GUARD).arg(&fields).query_async(&mut open).await.expect("guard");
            assert_eq!(guard, ["1", "frozen", "0", "41", "2"]);
        }
    }
    redis.guard(&target, &cluster.passwords, SHARD, &first).await.expect_err("an older epoch is refused");
}

/// What a re-sharding does on a shard, in the words of its functions.
#[tokio::test]
async fn migrator_and_scheduler_have_the_rights_that_carrying_takes_and_only_on_the_two_versions() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    redis.admit(&target, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1, 2]).await.expect("rights");
    let ask = |user: &'static str, words: &'static str| {
        let words: Vec<&str> = words.split(' ').collect();
        let password = cluster.passwords.of(user).to_owned();
        let server = &server;
        async move { server.ask(user, &password, &words).await }
    };
    let guard =
        |state: &str| format!("FCALL fortia_guard 1 fortia:guard uid-1 shard-0 0 2 1 {state} 2 0").leak();
    ask("scheduler", guard("copying")).await.expect("notes");
    let noted = ["FCALL", "fortia_slots", "2", GUARD, "v1:c:0:0", "uid-1", "2", "1", "1", "1", "stone"];
    server.ask("ticker", cluster.passwords.of("ticker"), &noted).await.expect("noted");
    let carrying = [
        "FCALL fortia_attempt 1 fortia:guard uid-1 2 2 0 0 pod",
        "FCALL fortia_fence 1 fortia:guard uid-1 2 2 0 1",
        "FCALL fortia_carry 1 fortia:guard uid-1 2 2 0 1 strings v2:e:1 x",
        "FCALL fortia_carry 1 fortia:guard uid-1 2 2 0 1 values hash v2:e:2 0 2 t0 1 +string v2:e:1 0 1 y \
         set v2:ue:a 0 1 1 list v2:actions:1:0:0 4102444800000 1 z gone v2:e:9 0 0",
        "FCALL fortia_stay 1 fortia:guard uid-1 2 2 0 1 1 c:0:0",
        "FCALL fortia_note 1 fortia:guard uid-1 2 2 e:5",
        "FCALL fortia_checkpoint 1 fortia:guard uid-1 2 2 0 1 {}",
        "HSCAN v1:dirty 0",
        "HGETALL v2:e:2",
        "PEXPIRETIME v2:actions:1:0:0",
        "INFO server",
        "SCAN 0 MATCH v2:* COUNT 10",
    ];
    for words in carrying {
        ask("migrator", words).await.unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    ask("scheduler", guard("frozen")).await.expect("freezes");
    let last = [
        "FCALL fortia_attempt 1 fortia:guard uid-1 2 2 0 1 cutover",
        "FCALL fortia_carry 1 fortia:guard uid-1 2 2 0 2 values hash v2:c:0:0 0 2 t0 1",
        "FCALL fortia_clean 1 fortia:guard uid-1 2 2 0 2 c:0:0 1",
        "INFO server",
    ];
    for words in last {
        ask("scheduler", words).await.unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    let turned = "FCALL fortia_guard 1 fortia:guard uid-1 shard-0 0 3 2 copying 1 5";
    ask("scheduler", turned).await.expect("turns");
    redis.give_rights(&target, &cluster.passwords, SHARD, &[2]).await.expect("rights");
    let refused = ask("migrator", "SET v1:e:1 x").await.expect_err("no longer writable");
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    ask("migrator", "FLUSHALL").await.expect_err("dangerous");
}

#[tokio::test]
async fn a_group_is_empty_only_when_a_scan_finds_no_world_key() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-shard-0-0");
    redis.admit(&target, &cluster.passwords, SHARD, Some(&cluster.guard())).await.expect("admitted");
    assert_eq!(redis.world_keys(&target, &cluster.passwords, None).await.expect("scan"), 0);
    redis.give_rights(&target, &cluster.passwords, SHARD, &[1]).await.expect("rights");
    cluster.write(&server, "1").await.expect("written");
    assert_eq!(redis.world_keys(&target, &cluster.passwords, None).await.expect("scan"), 1);
    for (version, keys) in [(1, 1), (2, 0)] {
        let found = redis.world_keys(&target, &cluster.passwords, Some(version)).await.expect("scan");
        assert_eq!(found, keys, "of version {version}");
    }
}

#[tokio::test]
async fn every_rule_of_every_service_is_understood_on_every_kind_of_group() {
    let (cluster, redis) = (Cluster::new(), Redis::default());
    let server = Server::boot(&cluster);
    let target = server.target("midgard-any-0");
    for group in GroupId::all(1) {
        redis.give_rights(&target, &cluster.passwords, group, &[1, 2]).await.expect("rules");
    }
    let mut open = redis.connect(&target, &cluster.passwords).await.expect("connect");
    let users: Vec<String> = cmd("ACL").arg("USERS").query_async(&mut open).await.expect("users");
    assert!(users.contains(&"migrator".to_owned()));
}
