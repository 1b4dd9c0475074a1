//! The public REST API as a player's program sees it. Knows routes and JSON shapes; nothing of the cluster.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::blocks::Blocks;

/// Why a request did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer, or one that could not be read.
    #[error("{route}: no answer: {source}")]
    Transport {
        /// Method and path.
        route: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The server refused; the problem details say why.
    #[error("{route}: {status}: {detail}")]
    Refused {
        /// Method and path.
        route: String,
        /// HTTP status.
        status: StatusCode,
        /// `detail` of the problem.
        detail: String,
    },
}

impl ApiError {
    /// The HTTP status, when the server answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ApiError::Refused { status, .. } => Some(*status),
            ApiError::Transport { .. } => None,
        }
    }
}

/// A block's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// East.
    pub x: i32,
    /// North.
    pub y: i32,
    /// Up.
    pub z: i32,
}

impl Place {
    /// The chunk column it is in.
    pub fn chunk(self) -> (i32, i32) {
        (self.x.div_euclid(16), self.y.div_euclid(16))
    }
}

/// A unit or building as GET /entities and GET /units show it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Unit {
    /// Its id; a string, because JavaScript's numbers are too small.
    pub id: String,
    /// `handyman`, `fighter`, `camp`, `house` or `barracks`.
    pub kind: String,
    /// The player who commands it.
    pub owner: String,
    /// Where it stands.
    pub at: Place,
    /// Health left.
    pub health: u32,
    /// What it does.
    pub doing: String,
    /// Its order.
    pub order: Value,
    /// Why its last order ended.
    pub outcome: String,
}

impl Unit {
    /// Whether it could be given an order now.
    pub fn is_idle(&self) -> bool {
        self.doing == "hold"
    }
}

/// What a player has, as GET /units shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Holdings {
    /// The tick after which it was so.
    pub tick: u64,
    /// Goods in the stock.
    pub stock: Stock,
    /// Handymen and fighters.
    pub units: Vec<Unit>,
    /// The camp, houses and barracks.
    pub buildings: Vec<Unit>,
}

/// Goods of a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Stock {
    /// Pieces of wood.
    pub wood: u32,
    /// Pieces of stone.
    pub stone: u32,
}

/// The world as GET /info shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Info {
    /// Chunks from -radius to radius exist from the beginning.
    pub radius: i32,
    /// Chunks from -limit to limit are made when somebody comes near.
    pub limit: i32,
    /// The committed tick.
    pub tick: u64,
    /// `live`, `paused` or `read-only`.
    pub mode: String,
    /// Database version that is served.
    pub version: u64,
}

/// Addresses of a world and the session of one player, or none.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    auth: String,
    game: String,
    token: Option<String>,
}

impl Api {
    /// A client without a session; addresses like `http://127.0.0.1:8080`.
    ///
    /// # Panics
    /// Never in practice: the client has no TLS to set up.
    pub fn new(auth: &str, game: &str) -> Api {
        let http = Client::builder().timeout(Duration::from_secs(10)).build().unwrap_or_default();
        Api { http, auth: auth.into(), game: game.into(), token: None }
    }

    /// Registers an account.
    ///
    /// # Errors
    /// 409 when the name is taken.
    pub async fn register(&self, name: &str, password: &str) -> Result<Value, ApiError> {
        let body = json!({"name": name, "mail": format!("{name}@example.org"), "password": password});
        self.json(self.auth(Method::POST, "/register").json(&body), "POST /register").await
    }

    /// Logs in; the client carries the session from now on.
    ///
    /// # Errors
    /// 401 when name or password is wrong.
    pub async fn login(&mut self, name: &str, password: &str) -> Result<(), ApiError> {
        let body = json!({"name": name, "password": password});
        let answer: Value = self.json(self.auth(Method::POST, "/login").json(&body), "POST /login").await?;
        self.token = answer["token"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Ends the session at the server; the client keeps its token.
    ///
    /// # Errors
    /// 401 without a session.
    pub async fn logout(&self) -> Result<(), ApiError> {
        self.send(self.auth(Method::POST, "/logout"), "POST /logout").await.map(drop)
    }

    /// The account of the session.
    ///
    /// # Errors
    /// 401 without a session.
    pub async fn me(&self) -> Result<Value, ApiError> {
        self.json(self.auth(Method::GET, "/me"), "GET /me").await
    }

    /// The worlds there are.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn worlds(&self) -> Result<Value, ApiError> {
        self.json(self.auth(Method::GET, "/worlds"), "GET /worlds").await
    }

    /// The world.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn info(&self) -> Result<Info, ApiError> {
        self.json(self.game(Method::GET, "/info"), "GET /info").await
    }

    /// Joins the world.
    ///
    /// # Errors
    /// 503 while the world takes no writes.
    pub async fn join(&self) -> Result<Value, ApiError> {
        self.json(self.game(Method::POST, "/register"), "POST /register").await
    }

    /// Opens a play session.
    ///
    /// # Errors
    /// 401 without a session.
    pub async fn enter(&self) -> Result<Value, ApiError> {
        self.json(self.game(Method::POST, "/enter"), "POST /enter").await
    }

    /// What the player of the session has.
    ///
    /// # Errors
    /// 401 without a session.
    pub async fn units(&self) -> Result<Holdings, ApiError> {
        self.json(self.game(Method::GET, "/units"), "GET /units").await
    }

    /// The chunks asked for, in that order; those beyond the world are left out.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn chunks(&self, at: &[(i32, i32)]) -> Result<Vec<Blocks>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            chunks: Vec<Blocks>,
        }
        let answer: Answer = self.json(self.area("/chunks", at), "GET /chunks").await?;
        Ok(answer.chunks)
    }

    /// The units in the chunks asked for.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn entities(&self, at: &[(i32, i32)]) -> Result<Vec<Unit>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            entities: Vec<Unit>,
        }
        let answer: Answer = self.json(self.area("/entities", at), "GET /entities").await?;
        Ok(answer.entities)
    }

    /// Gives one unit an order; the tick it runs in.
    ///
    /// # Errors
    /// 403 for somebody else's unit, 409 for one that takes none now, 422 for a bad order, 503 while the world takes no
    /// writes.
    pub async fn order(&self, unit: &str, order: Value) -> Result<u64, ApiError> {
        let body = json!({"orders": [{"unit": unit, "order": order}]});
        let answer: Value =
            self.json(self.game(Method::POST, "/actions").json(&body), "POST /actions").await?;
        Ok(answer["tick"].as_u64().unwrap_or(0))
    }

    /// Opens GET /update for an area; the answer is a stream of server-sent events.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn update(&self, at: &[(i32, i32)]) -> Result<reqwest::Response, ApiError> {
        // A stream has no end to wait for.
        let request = self.area("/update", at).timeout(Duration::from_secs(3600));
        self.send(request, "GET /update").await
    }

    fn auth(&self, method: Method, path: &str) -> RequestBuilder {
        self.with_session(self.http.request(method, format!("{}{path}", self.auth)))
    }

    fn game(&self, method: Method, path: &str) -> RequestBuilder {
        self.with_session(self.http.request(method, format!("{}{path}", self.game)))
    }

    fn with_session(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn area(&self, path: &str, at: &[(i32, i32)]) -> RequestBuilder {
        let list =
            |of: fn(&(i32, i32)) -> i32| at.iter().map(|c| of(c).to_string()).collect::<Vec<_>>().join(",");
        self.game(Method::GET, path).query(&[("x", list(|c| c.0)), ("y", list(|c| c.1))])
    }

    async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        request: RequestBuilder,
        route: &str,
    ) -> Result<T, ApiError> {
        let answer = self.send(request, route).await?;
        answer.json().await.map_err(|source| ApiError::Transport { route: route.into(), source })
    }

    async fn send(&self, request: RequestBuilder, route: &str) -> Result<reqwest::Response, ApiError> {
        let transport = |source| ApiError::Transport { route: route.into(), source };
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no problem details").to_owned();
        Err(ApiError::Refused { route: route.into(), status, detail })
    }
}
