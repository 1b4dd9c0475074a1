//! The operator against something that speaks as an API server does: what it watches, and what it does when somebody touches
//! an object of its. What a real one makes of it, `e2e/tests/owned.rs` shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use fortia_common::failpoint::Failpoints;
use fortia_operator::build::secrets::Passwords;
use fortia_operator::controller::{Context, run};
use fortia_operator::metrics::Metrics;
use fortia_operator::settings::Settings;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Longer than a pass and its event take; unasked, an object is applied once a minute.
const MOMENT: Duration = Duration::from_secs(2);

/// Kind, plural and name of an object of each kind that passes know by events only.
const TOUCHED: [(&str, &str); 4] = [
    ("services", "midgard-game"),
    ("configmaps", "midgard-valkey"),
    ("secrets", "midgard-redis-acl"),
    ("poddisruptionbudgets", "midgard-shard-0"),
];

/// Objects by plural and name, who watches which plural, and what was applied.
#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    watchers: HashMap<String, Vec<UnboundedSender<String>>>,
    applied: Vec<(String, String)>,
}

impl Store {
    /// Stores an object as the API server would and tells those who watch.
    fn put(&mut self, plural: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!("worlds");
        let before = self.objects.insert((plural.into(), name.into()), object.clone());
        self.tell(plural, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    /// Somebody deletes an object.
    fn delete(&mut self, plural: &str, name: &str) {
        let mut object = self.objects.remove(&(plural.into(), name.into())).expect("it is there");
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(plural, "DELETED", &object);
    }

    fn tell(&mut self, plural: &str, what: &str, object: &Value) {
        let line = json!({ "type": what, "object": object }).to_string() + "\n";
        for watcher in self.watchers.get(plural).into_iter().flatten() {
            // Who is gone hears nothing.
            let _ = watcher.unbounded_send(line.clone());
        }
    }

    fn times_applied(&self, plural: &str, name: &str) -> usize {
        self.applied.iter().filter(|(p, n)| p == plural && n == name).count()
    }
}

type Shared = Arc<Mutex<Store>>;

async fn answer(State(store): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Value =
        serde_json::from_slice(&to_bytes(body, usize::MAX).await.expect("a body")).unwrap_or_default();
    let mut path = parts.uri.path().trim_start_matches("/api/v1/").to_owned();
    if let Some((_, rest)) = path.split_once("/v1alpha1/").or_else(|| path.split_once("/v1/")) {
        path = rest.to_owned();
    }
    let path = path.strip_prefix("namespaces/worlds/").unwrap_or(&path).to_owned();
    let (plural, name) =
        path.split_once('/').map_or((path.as_str(), ""), |(p, n)| (p, n.trim_end_matches("/status")));
    let mut store = store.lock().expect("the store");
    let key = (plural.to_owned(), name.to_owned());
    let answer = match (parts.method.as_str(), name) {
        ("GET", "") if parts.uri.query().is_some_and(|query| query.contains("watch=true")) => {
            let (watcher, lines) = unbounded();
            store.watchers.entry(plural.into()).or_default().push(watcher);
            return Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>)).into_response();
        }
        ("GET", "") => {
            let items: Vec<&Value> =
                store.objects.iter().filter(|(k, _)| k.0 == plural).map(|(_, o)| o).collect();
            let version = store.version.to_string();
            json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items })
        }
        ("GET", _) if store.objects.contains_key(&key) => store.objects[&key].clone(),
        ("PATCH", _) => {
            store.applied.push(key);
            store.put(plural, name, body)
        }
        ("PUT", _) => store.put(plural, name, body),
        ("POST", _) => body,
        _ => {
            let gone = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone" });
            return (axum::http::StatusCode::NOT_FOUND, axum::Json(gone)).into_response();
        }
    };
    axum::Json(answer).into_response()
}

/// The operator with one cluster, whose passwords exist already; its pods never come.
async fn operator() -> (Shared, CancellationToken) {
    let store = Shared::default();
    let passwords = Passwords::generate().expect("random");
    let data = passwords.iter().map(|(user, password)| (user.to_owned(), ByteString(password.into())));
    let secret = Secret { data: Some(data.collect()), ..Secret::default() };
    let cluster = json!({
        "apiVersion": "fortia.dev/v1alpha1", "kind": "FortiaCluster", "spec": { "redisShards": 1 },
        "metadata": { "uid": "uid-1", "generation": 1, "finalizers": ["fortia.dev/cleanup"] },
    });
    {
        let mut store = store.lock().expect("the store");
        store.put("secrets", "midgard-redis", serde_json::to_value(secret).expect("json"));
        store.put("fortiaclusters", "midgard", cluster);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let router = Router::new().fallback(answer).with_state(store.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = kube::Client::try_from(kube::Config::new(url.parse().expect("url"))).expect("a client");
    let metrics = Metrics::register(&mut fortia_rest::Registry::default());
    let settings = Settings::from(|_| None).expect("settings");
    let context = Context::new(client, settings, metrics, Failpoints::from_env().expect("none"));
    let stop = CancellationToken::new();
    tokio::spawn(run(Arc::new(context), stop.clone()));
    (store, stop)
}

/// Waits until it is so.
async fn becomes(what: &str, patience: Duration, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < patience, "{what}: not within {patience:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_somebody_touches_is_put_back_in_a_moment_and_what_the_operator_applies_begins_no_more_applying()
{
    let (store, stop) = operator().await;
    let times = |(plural, name): (&str, &str)| store.lock().expect("the store").times_applied(plural, name);
    for object in TOUCHED {
        becomes(object.1, Duration::from_secs(20), || times(object) > 0).await;
    }
    // Everything was applied, and every event of that has come.
    let all = || store.lock().expect("the store").applied.len();
    let mut before = 0;
    for _ in 0..10 {
        if before == all() {
            break;
        }
        before = all();
        tokio::time::sleep(MOMENT).await;
    }
    assert_eq!(before, all(), "it goes on applying what nobody touched");
    for object in TOUCHED {
        let (was, (plural, name)) = (times(object), object);
        assert_eq!(was, 1, "{plural}/{name}: its own apply was taken for somebody's");
        store.lock().expect("the store").delete(plural, name);
        becomes(&format!("{plural}/{name} is back"), MOMENT, || times(object) > was).await;
        let mut changed = store.lock().expect("the store").objects[&(plural.into(), name.into())].clone();
        changed["metadata"]["labels"]["team"] = json!("norns");
        store.lock().expect("the store").put(plural, name, changed);
        becomes(&format!("{plural}/{name} is as it was"), MOMENT, || times(object) > was + 1).await;
    }
    tokio::time::sleep(MOMENT).await;
    assert_eq!(all(), before + 2 * TOUCHED.len(), "once for each touch");
    stop.cancel();
}
