//! The auth server as clients see it, on a real account database.

use std::time::{Duration, Instant};

use fortia_common::boot::Service;
use fortia_common::records;
use fortia_testredis::DataPlane;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

struct Auth {
    plane: DataPlane,
    url: String,
    admin: String,
    client: Client,
    running: JoinHandle<Result<(), fortia_auth::RunError>>,
}

impl Auth {
    async fn start() -> Auth {
        let plane = DataPlane::start(1).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let admin = format!("http://{}", admin_listener.local_addr().expect("address"));
        let mut boot = plane.boot(Service::Auth);
        boot.log = "warn".into();
        let running = tokio::spawn(fortia_auth::run_on(boot, listener, admin_listener));
        Auth { plane, url, admin, client: Client::new(), running }
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(format!("{}{path}", self.url)).json(&body).send().await.expect("an answer")
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).bearer_auth(token).send().await.expect("an answer")
    }

    async fn register(&self, name: &str, password: &str) -> Response {
        self.post("/register", json!({"name": name, "mail": "player@example.org", "password": password}))
            .await
    }

    async fn login(&self, name: &str, password: &str) -> Response {
        self.post("/login", json!({"name": name, "password": password})).await
    }
}

async fn problem(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.expect("json");
    assert_eq!(problem["status"], json!(status.as_u16()));
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test]
async fn a_player_registers_logs_in_is_known_and_logs_out() {
    let auth = Auth::start().await;
    let made = auth.register("thor", "mjolnir-123").await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let made: Value = made.json().await.expect("json");
    assert_eq!((&made["name"], &made["role"], &made["donor"]), (&json!("thor"), &json!(0), &json!(false)));

    let login = auth.login("thor", "mjolnir-123").await;
    assert_eq!(login.status(), StatusCode::OK);
    let cookie = login.headers()["set-cookie"].to_str().expect("text").to_owned();
    let session: Value = login.json().await.expect("json");
    let token = session["token"].as_str().expect("a token");
    assert!(
        cookie.starts_with(&format!("fortia-session={token}; HttpOnly; SameSite=Lax; Path=/;")),
        "{cookie}"
    );

    let me: Value = auth.get("/me", token).await.json().await.expect("json");
    assert_eq!(me, made);
    let by_cookie =
        auth.client.get(format!("{}/me", auth.url)).header("cookie", format!("a=b; fortia-session={token}"));
    assert_eq!(by_cookie.send().await.expect("an answer").status(), StatusCode::OK);

    let logout =
        auth.client.post(format!("{}/logout", auth.url)).bearer_auth(token).send().await.expect("an answer");
    assert_eq!(logout.status(), StatusCode::NO_CONTENT);
    assert!(logout.headers()["set-cookie"].to_str().expect("text").contains("Max-Age=0"));
    problem(auth.get("/me", token).await, StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_get_the_same_answer() {
    let auth = Auth::start().await;
    assert_eq!(auth.register("loki", "mischief-1").await.status(), StatusCode::CREATED);
    let wrong_password = problem(auth.login("loki", "mischief-2").await, StatusCode::UNAUTHORIZED).await;
    let wrong_name = problem(auth.login("nobody", "mischief-1").await, StatusCode::UNAUTHORIZED).await;
    let no_name = problem(auth.login("No Body", "x").await, StatusCode::UNAUTHORIZED).await;
    assert_eq!(wrong_password, "name or password is wrong");
    assert_eq!((wrong_name, no_name), (wrong_password.clone(), wrong_password));
}

#[tokio::test]
async fn a_name_is_registered_once() {
    let auth = Auth::start().await;
    let (one, other) =
        tokio::join!(auth.register("odin", "first-password"), auth.register("odin", "other-password"));
    let mut statuses = [one.status(), other.status()];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::CREATED, StatusCode::CONFLICT]);
    let detail = problem(auth.register("odin", "third-password").await, StatusCode::CONFLICT).await;
    assert_eq!(detail, "the name odin is taken: choose another");
}

#[tokio::test]
async fn values_that_make_no_account_are_refused_with_what_would() {
    let auth = Auth::start().await;
    let good = json!({"name": "freya", "mail": "freya@example.org", "password": "falcon-feathers"});
    for (field, value, says) in [
        ("name", json!("Freya"), "3 to 32 characters out of a-z"),
        ("mail", json!("freya"), "an address like"),
        ("password", json!("short"), "8 to 128 characters"),
        ("password", json!(12345678), "expected a string"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let detail = problem(auth.post("/register", body).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert!(detail.contains(field) && detail.contains(says), "{detail}");
    }
    let no_json =
        auth.client.post(format!("{}/register", auth.url)).header("content-type", "application/json");
    problem(no_json.body("{").send().await.expect("an answer"), StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn guessing_a_password_makes_one_wait() {
    let auth = Auth::start().await;
    assert_eq!(auth.register("baldur", "mistletoe-1").await.status(), StatusCode::CREATED);
    for _ in 0..10 {
        assert_eq!(auth.login("baldur", "mistletoe-2").await.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = auth.login("baldur", "mistletoe-1").await;
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    problem(refused, StatusCode::TOO_MANY_REQUESTS).await;
}

#[tokio::test]
async fn the_clusters_world_is_listed_with_its_address() {
    let auth = Auth::start().await;
    let begun = Instant::now();
    loop {
        let worlds: Value = auth.get("/worlds", "").await.json().await.expect("json");
        if worlds == json!({"worlds": [{"name": "test", "address": "127.0.0.1:0", "open": true}]}) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{worlds}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_api_describes_itself_and_the_admin_port_answers() {
    let auth = Auth::start().await;
    let document: Value = auth.get("/openapi.json", "").await.json().await.expect("json");
    for path in ["/register", "/login", "/logout", "/me", "/worlds"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let ready = auth.client.get(format!("{}/readyz", auth.admin)).send().await.expect("an answer");
    assert_eq!(ready.status(), StatusCode::OK);
    let metrics = auth.client.get(format!("{}/metrics", auth.admin)).send().await.expect("an answer");
    assert!(metrics.text().await.expect("text").contains("fortia_http_requests_total"));
}

#[tokio::test]
async fn a_drained_server_ends_and_is_no_longer_registered() {
    let auth = Auth::start().await;
    assert_eq!(auth.get("/worlds", "").await.status(), StatusCode::OK);
    let drain = json!({"id": "1", "service": "auth", "action": {"do": "drain"}}).to_string();
    // A server obeys commands given after it has begun to listen to them: give it until it does.
    let begun = Instant::now();
    while !auth.running.is_finished() {
        auth.plane.control_db.run::<String>(&["XADD", records::COMMANDS, "*", "json", &drain]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "the server does not end");
    }
    auth.running.await.expect("no panic").expect("an orderly end");
    let key = records::instance_key(Service::Auth, "auth-0");
    assert_eq!(auth.plane.control_db.run::<u64>(&["EXISTS", &key]).await, 0);
}
