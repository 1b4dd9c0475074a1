//! How others carry keys: `valkey-cli --cluster import`, MIGRATE COPY, and the ceiling that valkey-benchmark shows. Knows
//! Valkey's own programs; nothing of ours.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fortia_testredis::TestServer;

use crate::data::{Shape, put};
use crate::speed::DURABLE;

/// A program of Valkey, beside the server that the tests run.
fn program(name: &str) -> Command {
    let server = std::env::var("FORTIA_TEST_REDIS").unwrap_or_default();
    let beside: PathBuf = Path::new(server.trim()).with_file_name(name);
    let found = [beside, concat_root(name)].into_iter().find(|path| path.is_file());
    Command::new(found.unwrap_or_else(|| name.into()))
}

fn concat_root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build").join(name)
}

fn port(server: &TestServer) -> String {
    server.address().rsplit(':').next().unwrap_or_default().to_owned()
}

/// Keys a second of `valkey-cli --cluster import --cluster-copy`.
pub(crate) async fn import(shape: Shape, keys: usize) -> f64 {
    let source = TestServer::start_with(DURABLE).await;
    put(&source, "v1:", shape, &(0..keys as u64).collect::<Vec<_>>()).await;
    let bus = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let bus = bus.port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-config-file", "nodes"];
    let target = TestServer::start_with(&[DURABLE, &cluster].concat()).await;
    target.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    while !target.run::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut command = program("valkey-cli");
    command.args(["--cluster", "import", &target.address(), "--cluster-copy", "--cluster-from"]);
    command.arg(source.address()).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(move || command.status()).await.expect("a thread");
    let took = begun.elapsed();
    assert!(ended.expect("valkey-cli starts").success(), "the import fails");
    assert_eq!(target.run::<usize>(&["DBSIZE"]).await, keys, "every key is imported");
    keys as f64 / took.as_secs_f64()
}

/// Keys a second of MIGRATE COPY with so many keys a call.
pub(crate) async fn migrate(shape: Shape, keys: usize, call: usize) -> f64 {
    let (source, target) = (TestServer::start_with(DURABLE).await, TestServer::start_with(DURABLE).await);
    let numbers: Vec<u64> = (0..keys as u64).collect();
    put(&source, "v1:", shape, &numbers).await;
    let names: Vec<String> = numbers.iter().map(|n| format!("v1:{}", shape.text(*n))).collect();
    let mut connection = source.connect().await;
    let begun = Instant::now();
    for part in names.chunks(call) {
        let mut command = redis::cmd("MIGRATE");
        command
            .arg("127.0.0.1")
            .arg(port(&target))
            .arg("")
            .arg(0)
            .arg(60_000)
            .arg("COPY")
            .arg("KEYS")
            .arg(part);
        command.query_async::<()>(&mut connection).await.expect("keys migrate");
    }
    let took = begun.elapsed();
    assert_eq!(target.run::<usize>(&["DBSIZE"]).await, keys, "every key is migrated");
    keys as f64 / took.as_secs_f64()
}

/// Keys a second of reading all with GET and then writing all with SET, as fast as valkey-benchmark does either:
/// 1 / (1/G + 1/S).
pub(crate) async fn ceiling(size: usize, keys: usize) -> f64 {
    let server = TestServer::start_with(DURABLE).await;
    let run = |what: &'static str| {
        let mut command = program("valkey-benchmark");
        command.args(["-p", &port(&server), "-P", "64", "-r", &keys.to_string(), "-n", &keys.to_string()]);
        command.args(["-d", &size.to_string(), "-t", what, "--csv"]).stdin(Stdio::null());
        async move {
            let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread");
            let text = String::from_utf8(output.expect("valkey-benchmark starts").stdout).expect("text");
            let line = text.lines().last().unwrap_or_default();
            let rate = line.split(',').nth(1).and_then(|rate| rate.trim_matches('"').parse::<f64>().ok());
            rate.unwrap_or_else(|| panic!("valkey-benchmark says {text}"))
        }
    };
    // The first fills, so that GET finds values.
    run("set").await;
    let (get, set) = (run("get").await, run("set").await);
    1.0 / (1.0 / get + 1.0 / set)
}
