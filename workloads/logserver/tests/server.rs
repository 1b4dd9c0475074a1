//! From a program's log to GET /logs, over real connections.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fortia_common::boot::{Boot, Service, var};
use fortia_common::records;
use fortia_logserver::Receiver;
use fortia_logserver::settings::Settings;
use fortia_rest::Registry;
use futures::StreamExt;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use serde_json::Value;
use tempfile::TempDir;
use tonic::codec::CompressionEncoding;
use tracing::subscriber::set_default;

fn boot(service: Service, filter: &str) -> Boot {
    Boot::from(service, |name| {
        let value = match name {
            var::INSTANCE => "game-0",
            var::CLUSTER => "test",
            var::CONTROL_DB => "127.0.0.1:1",
            var::LISTEN | var::ADMIN => "127.0.0.1:0",
            var::LOG => filter,
            _ => return None,
        };
        Some(value.to_owned())
    })
    .expect("boots")
}

async fn start(folder: &TempDir) -> Receiver {
    let data = folder.path().to_str().expect("path").to_owned();
    let settings = Settings::from(|name| match name {
        "FORTIA_DATA" => Some(data.clone()),
        "FORTIA_OTLP_LISTEN" => Some("127.0.0.1:0".into()),
        _ => None,
    });
    let boot = boot(Service::Logserver, "info");
    Receiver::start(&boot, &settings.expect("settings"), &mut Registry::default()).await.expect("starts")
}

async fn get(http: SocketAddr, query: &str) -> Vec<Value> {
    let response = reqwest::get(format!("http://{http}/logs?{query}")).await.expect("answer");
    assert!(response.status().is_success(), "{}", response.text().await.expect("text"));
    response.json().await.expect("json")
}

/// Asks until there are `count` records: what a program logs arrives when its batch is sent.
async fn eventually(http: SocketAddr, query: &str, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let found = get(http, query).await;
        if found.len() >= count || begun.elapsed() > Duration::from_secs(10) {
            assert_eq!(found.len(), count, "{query}: {found:?}");
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn messages(found: &[Value]) -> Vec<&str> {
    found.iter().filter_map(|record| record["message"].as_str()).collect()
}

async fn send(otlp: SocketAddr, texts: &[&str]) {
    let records = texts.iter().map(|text| LogRecord {
        severity_number: 9,
        body: Some(AnyValue { value: Some(Any::StringValue((*text).to_owned())) }),
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: records.collect(), ..ScopeLogs::default() }];
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }],
    };
    let client = LogsServiceClient::connect(format!("http://{otlp}")).await.expect("connect");
    client.send_compressed(CompressionEncoding::Gzip).export(request).await.expect("acknowledged");
}

#[tokio::test]
async fn what_a_program_logs_is_found_by_service_level_time_and_text() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(&folder).await;
    let (log, subscriber) = fortia_log::with_subscriber(&boot(Service::Game, "info"));
    {
        let _here = set_default(subscriber);
        // Before the address is known: these wait.
        tracing::debug!("not logged");
        tracing::info!("booted");
        log.ship_to(Some(&format!("http://{}", server.otlp)));
        let request = tracing::info_span!("request", request_id = "r-1");
        request.in_scope(|| tracing::warn!(tick = 7, error = %std::fmt::Error, "tick was LATE"));
    }
    let found = eventually(server.http, "service=game", 2).await;
    assert_eq!(messages(&found), ["booted", "tick was LATE"]);
    let late = &found[1];
    assert_eq!((late["level"].as_str(), late["instance"].as_str()), (Some("warn"), Some("game-0")));
    assert_eq!(late["fields"]["tick"], 7);
    assert_eq!(late["fields"]["request_id"], "r-1");
    assert!(late["fields"]["error"].as_str().is_some_and(|e| e.contains("error")));
    assert_eq!(messages(&get(server.http, "level=warn").await), ["tick was LATE"]);
    assert_eq!(messages(&get(server.http, "q=late&since=1m").await), ["tick was LATE"]);
    assert_eq!(messages(&get(server.http, "q=R-1").await), ["tick was LATE"]);
    assert_eq!(messages(&get(server.http, "limit=1").await), ["tick was LATE"]);
    for nothing in ["service=auth", "until=1m", "q=early", "level=error"] {
        assert_eq!(get(server.http, nothing).await.len(), 0, "{nothing}");
    }
    assert_eq!(log.dropped(), 0);
    log.stop().await;
    server.stop().await.expect("stops");
}

#[tokio::test]
async fn a_program_that_logs_everything_does_not_ship_its_own_shipping() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(&folder).await;
    // The shipping task runs on this thread too, so that all it logs would be shipped.
    let (log, subscriber) = fortia_log::with_subscriber(&boot(Service::Ticker, "trace"));
    let _here = set_default(subscriber);
    log.ship_to(Some(&format!("http://{}", server.otlp)));
    tracing::info!(target: "mine", "one");
    eventually(server.http, "service=ticker&q=one", 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let found = get(server.http, "service=ticker&limit=10000").await;
    let stack =
        |r: &&Value| r["target"].as_str().is_some_and(|t| t.starts_with("h2") || t.starts_with("hyper"));
    assert_eq!(found.iter().filter(stack).count(), 0);
    log.stop().await;
}

#[tokio::test]
async fn a_stop_ships_what_is_left_and_a_restarted_server_has_it() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(&folder).await;
    let (log, subscriber) = fortia_log::with_subscriber(&boot(Service::Game, "info"));
    log.ship_to(Some(&format!("http://{}", server.otlp)));
    {
        let _here = set_default(subscriber);
        (0..500).for_each(|i| tracing::info!(i, "last words"));
    }
    log.stop().await;
    server.stop().await.expect("stops");
    let server = start(&folder).await;
    let found = get(server.http, "service=game&limit=1000").await;
    assert_eq!(found.len(), 500);
    assert_eq!(found[499]["fields"]["i"], 499);
}

#[tokio::test]
async fn following_gives_what_is_there_and_then_what_comes() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(&folder).await;
    send(server.otlp, &["one", "other"]).await;
    let url = format!("http://{}/logs?follow=true&q=o", server.http);
    let mut events = reqwest::get(url).await.expect("answer").bytes_stream();
    let mut text = String::new();
    for (expected, then) in [("one", Some("two")), ("other", None), ("two", Some("no"))] {
        while !text.contains(&format!("\"message\":\"{expected}\"")) {
            let next = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
            text += &String::from_utf8_lossy(&next.expect("an event").expect("more").expect("bytes"));
        }
        if let Some(then) = then {
            send(server.otlp, &["unwanted", then]).await;
        }
    }
    assert!(text.starts_with("event: log\ndata: {"));
    assert!(!text.contains("unwanted"));
    // A follower does not hold up the end.
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.expect("in time").expect("stops");
}

#[tokio::test]
async fn a_bad_filter_is_a_problem_and_the_api_is_described() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(&folder).await;
    for (query, detail) in [
        ("level=loud", "level \"loud\" does not exist"),
        ("since=soon", "since: \"soon\" is not a moment"),
        ("limit=0", "limit \"0\" is not a number"),
        ("colour=red", "unknown field `colour`"),
        ("follow=maybe", "follow \"maybe\" is neither"),
    ] {
        let response = reqwest::get(format!("http://{}/logs?{query}", server.http)).await.expect("answer");
        assert_eq!(response.status(), 400, "{query}");
        let problem: Value = response.json().await.expect("json");
        assert!(problem["detail"].as_str().expect("detail").contains(detail), "{problem}");
    }
    let api = reqwest::get(format!("http://{}/openapi.json", server.http)).await.expect("answer");
    let api: Value = api.json().await.expect("json");
    let parameters = api["paths"]["/logs"]["get"]["parameters"].as_array().expect("parameters");
    assert_eq!(parameters.len(), 7);
    assert!(api["components"]["schemas"]["Problem"].is_object());
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Kill sends SIGKILL; the process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

async fn spawn(data: &Path, control_db: &str, otlp: SocketAddr, http: SocketAddr) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_fortia-logserver"))
        .env(var::INSTANCE, "logserver-0")
        .env(var::CLUSTER, fortia_testredis::CLUSTER)
        .env(var::CONTROL_DB, control_db)
        .env(var::LISTEN, http.to_string())
        .env(var::ADMIN, "127.0.0.1:0")
        .env("FORTIA_OTLP_LISTEN", otlp.to_string())
        .env("FORTIA_DATA", data)
        .spawn()
        .expect("spawned");
    let process = Process(child);
    let begun = Instant::now();
    while reqwest::get(format!("http://{http}/logs")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the log server does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process
}

#[tokio::test]
async fn a_killed_server_has_every_acknowledged_record_and_its_own_logs() {
    let folder = tempfile::tempdir().expect("folder");
    let (otlp, http) = (free(), free());
    let process = spawn(folder.path(), "127.0.0.1:1", otlp, http).await;
    let own = eventually(http, "service=logserver&q=control+database+does+not+answer", 1).await;
    assert_eq!(own[0]["level"], "warn");
    for i in 0..50 {
        send(otlp, &[&format!("acknowledged {i}")]).await;
    }
    drop(process);
    let (otlp, http) = (free(), free());
    let _process = spawn(folder.path(), "127.0.0.1:1", otlp, http).await;
    let found = get(http, "q=acknowledged&limit=100").await;
    assert_eq!(found.len(), 50);
    assert_eq!(found[49]["message"], "acknowledged 49");
}

#[tokio::test]
async fn it_registers_obeys_commands_and_ends_in_order_when_drained() {
    let plane = fortia_testredis::DataPlane::start(1).await;
    let folder = tempfile::tempdir().expect("folder");
    let (otlp, http) = (free(), free());
    let mut process = spawn(folder.path(), &plane.control_db.address(), otlp, http).await;
    eventually(http, "q=server+booted", 1).await;

    let command = async |id: &str, action: &str| {
        let json = format!("{{\"id\":\"{id}\",\"service\":\"logserver\",\"action\":{action}}}");
        plane.control_db.run::<String>(&["XADD", records::COMMANDS, "*", "json", &json]).await;
    };
    let begun = Instant::now();
    loop {
        // It may not listen yet: what was sent before is not for it.
        command("louder", "{\"do\":\"log-level\",\"filter\":\"debug\"}").await;
        let acks: Vec<(String, Vec<String>)> =
            plane.control_db.run(&["XRANGE", records::ACKS, "-", "+"]).await;
        if let Some((_, fields)) = acks.first() {
            let ack: Value = serde_json::from_str(&fields[1]).expect("json");
            assert_eq!((&ack["id"], &ack["error"]), (&"louder".into(), &Value::Null));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no acknowledgement");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Reads are logged at debug.
    eventually(http, "level=debug&q=request+answered&limit=1", 1).await;

    let registered: Vec<String> = plane.control_db.run(&["KEYS", records::INSTANCE_PATTERN]).await;
    assert_eq!(registered, ["fortia:instance:logserver:logserver-0"]);
    command("end", "{\"do\":\"drain\"}").await;
    let ended = tokio::task::spawn_blocking(move || process.0.wait().expect("waited")).await.expect("ended");
    assert!(ended.success());
    let registered: Vec<String> = plane.control_db.run(&["KEYS", records::INSTANCE_PATTERN]).await;
    assert_eq!(registered, [""; 0]);
}
