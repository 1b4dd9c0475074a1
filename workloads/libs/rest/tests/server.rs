//! What clients see of a served API, over real TCP.

use std::time::{Duration, Instant};

use axum::Router;
use axum::response::sse::Event;
use axum::routing::{get, post};
use fortia_rest::{Admin, Json, Limits, Metrics, Problem, Query, Readiness, Registry};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize)]
struct Axe {
    sharp: bool,
}

struct Served {
    url: String,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    registry: Registry,
}

async fn serve(limits: Limits) -> Served {
    let stop = CancellationToken::new();
    let ends = stop.clone();
    let router = Router::new()
        .route("/axes", post(|Json(axe): Json<Axe>| async { Json(axe) }).get(|| async { "x".repeat(4096) }))
        .route("/axes/{id}", get(|| async { "an axe" }))
        .route("/page", get(|Query(axe): Query<Axe>| async { Json(axe) }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("as the test wants")
                }
            }),
        )
        .route("/conflict", get(|| async { Err::<(), _>(Problem::conflict("taken")) }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_millis(400)).await }))
        .route(
            "/events",
            get(move || async move {
                let ticks = tokio::time::interval(Duration::from_millis(50));
                let events = futures::stream::unfold((ticks, 0), |(mut ticks, n)| async move {
                    ticks.tick().await;
                    Some((Event::default().data(n.to_string()), (ticks, n + 1)))
                });
                fortia_rest::events(events, ends)
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let router = fortia_rest::api(router, &limits, &metrics);
    let server = tokio::spawn(fortia_rest::serve(listener, router, limits, stop.clone()));
    Served { url, stop, server, registry }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.trim_start_matches("http://")).await.expect("connect")
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

async fn problem(response: reqwest::Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Value = response.json().await.expect("json");
    assert_eq!(problem["status"], status);
    problem
}

/// Reads until the server ends the connection.
async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the connection is still open after 5 s");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_its_head_too_slowly_is_cut_off() {
    let served = serve(Limits { header_timeout: Duration::from_millis(300), ..Limits::default() }).await;
    for start in ["", "GET /axes HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = served.connect().await;
        stream.write_all(start.as_bytes()).await.expect("write");
        let begun = Instant::now();
        to_the_end(&mut stream).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "cut after {:?}", begun.elapsed());
    }
    assert!(reqwest::get(served.at("/axes")).await.expect("answer").status().is_success());
}

#[tokio::test]
async fn one_client_more_than_the_limit_waits_until_another_leaves() {
    let served = serve(Limits { connections: 1, ..Limits::default() }).await;
    let first = served.connect().await;
    let mut second = served.connect().await;
    second.write_all(b"GET /axes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("write");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "answered while the only place was taken");
    drop(first);
    assert!(to_the_end(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let limits = Limits { stall_timeout: Duration::from_millis(300), connections: 1, ..Limits::default() };
    let served = serve(limits).await;
    let mut deaf = served.connect().await;
    // More answers than socket buffers hold.
    let pipelined = "GET /axes HTTP/1.1\r\nhost: x\r\n\r\n".repeat(5000);
    let writing = tokio::time::timeout(Duration::from_millis(500), deaf.write_all(pipelined.as_bytes()));
    let _ = writing.await;
    let answered = tokio::time::timeout(Duration::from_secs(5), reqwest::get(served.at("/axes"))).await;
    assert!(
        answered.expect("the deaf client still has the only place").expect("answer").status().is_success()
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413_problem() {
    let served = serve(Limits { body_bytes: 1000, ..Limits::default() }).await;
    let body = json!({"sharp": true, "note": "x".repeat(2000)});
    let response = reqwest::Client::new().post(served.at("/axes")).json(&body).send().await.expect("answer");
    assert_eq!(problem(response).await["title"], "Payload Too Large");
}

#[tokio::test]
async fn what_no_handler_takes_is_a_problem() {
    let served = serve(Limits::default()).await;
    let client = reqwest::Client::new();
    let get = async |path: &str| problem(client.get(served.at(path)).send().await.expect("answer")).await;
    assert_eq!(get("/nothing").await["detail"], "there is nothing at /nothing");
    assert_eq!(get("/page?sharp=perhaps").await["status"], 400);
    assert_eq!(get("/panic").await["status"], 500);
    assert_eq!(get("/conflict").await["detail"], "taken");
    let deleted = client.delete(served.at("/axes")).send().await.expect("answer");
    assert_eq!(deleted.headers()["allow"], "POST,GET,HEAD");
    assert_eq!(problem(deleted).await["status"], 405);
    let wrong = client.post(served.at("/axes")).json(&json!({"sharp": 3})).send().await.expect("answer");
    assert_eq!(problem(wrong).await["status"], 422);
}

#[tokio::test]
async fn the_request_id_is_echoed_and_is_the_problems_instance() {
    let served = serve(Limits::default()).await;
    let request = reqwest::Client::new().get(served.at("/nothing")).header("x-request-id", "mine-7");
    let response = request.send().await.expect("answer");
    assert_eq!(response.headers()["x-request-id"], "mine-7");
    assert_eq!(problem(response).await["instance"], "mine-7");
    let response = reqwest::get(served.at("/axes")).await.expect("answer");
    assert_eq!(response.headers()["x-request-id"].len(), 32);
}

#[tokio::test]
async fn a_stop_lets_a_running_request_finish_and_takes_no_new_one() {
    let served = serve(Limits::default()).await;
    let running = tokio::spawn(reqwest::get(served.at("/slow")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.stop.cancel();
    assert!(running.await.expect("task").expect("answer").status().is_success());
    served.server.await.expect("task").expect("served");
    assert!(reqwest::get(&served.url).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_the_drain() {
    let served = serve(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let running = tokio::spawn(reqwest::get(served.at("/slow")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.stop.cancel();
    let begun = Instant::now();
    served.server.await.expect("task").expect("served");
    assert!(begun.elapsed() < Duration::from_millis(250), "drained for {:?}", begun.elapsed());
    assert!(running.await.expect("task").is_err());
}

#[tokio::test]
async fn a_late_answer_is_a_problem_but_events_go_on_and_end_with_the_server() {
    let limits = Limits { request_timeout: Duration::from_millis(200), ..Limits::default() };
    let served = serve(limits).await;
    let late = reqwest::get(served.at("/slow")).await.expect("answer");
    assert_eq!(problem(late).await["status"], 503);

    let request = reqwest::Client::new().get(served.at("/events")).header("accept-encoding", "gzip");
    let response = request.send().await.expect("answer");
    assert!(!response.headers().contains_key("content-encoding"));
    let mut bytes = response.bytes_stream();
    let begun = Instant::now();
    let first = bytes.next().await.expect("event").expect("bytes");
    assert!(first.starts_with(b"data: 0"));
    assert!(begun.elapsed() < Duration::from_millis(150), "the first event was held back");
    while begun.elapsed() < Duration::from_millis(500) {
        bytes.next().await.expect("events go on beyond the timeout").expect("bytes");
    }
    served.stop.cancel();
    while let Some(rest) = bytes.next().await {
        rest.expect("the stream ends in order");
    }
    served.server.await.expect("task").expect("served");
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_accepts_it() {
    let served = serve(Limits::default()).await;
    let request = reqwest::Client::new().get(served.at("/axes")).header("accept-encoding", "gzip");
    let response = request.send().await.expect("answer");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.bytes().await.expect("body").len() < 200);
}

#[tokio::test]
async fn the_admin_port_tells_readiness_and_metrics() {
    let served = serve(Limits::default()).await;
    reqwest::get(served.at("/axes/7")).await.expect("answer");
    let readiness = Readiness::needs(&["world", "database"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let admin = Admin::new(served.registry, readiness.clone());
    tokio::spawn(admin.serve(listener, served.stop));

    readiness.set("world", true);
    let response = reqwest::get(format!("{url}/readyz")).await.expect("answer");
    assert_eq!(response.status(), 503);
    let told: Value = response.json().await.expect("json");
    assert_eq!(told, json!({"ready": false, "conditions": {"database": false, "world": true}}));
    readiness.set("database", true);
    readiness.ready().await;
    assert_eq!(reqwest::get(format!("{url}/readyz")).await.expect("answer").status(), 200);
    assert_eq!(reqwest::get(format!("{url}/livez")).await.expect("answer").status(), 200);

    let metrics = reqwest::get(format!("{url}/metrics")).await.expect("answer").text().await.expect("text");
    for line in [
        "fortia_http_requests_total{method=\"GET\",route=\"/axes/{id}\",status=\"200\"} 1",
        "fortia_http_request_duration_seconds_count{route=\"/axes/{id}\"} 1",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
