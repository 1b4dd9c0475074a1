//! A game server on a real data plane, and a hand that does what worldgen, tickers and scheduler do.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fortia_common::boot::Service;
use fortia_common::records::{self, Config};
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::Committed;
use fortia_rdb::accounts::Accounts;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::{Changes, Info, World};
use fortia_testredis::DataPlane;
use fortia_vec::{BlockPos, ChunkPos};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Kind};
use fortia_world::wire;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Radius of the test world, in chunks.
pub(crate) const RADIUS: u32 = 2;
/// How far it may grow, as [`DataPlane`] configures it.
pub(crate) const LIMIT: u32 = 4;

pub(crate) struct Game {
    pub(crate) plane: DataPlane,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) control: ControlDb,
    pub(crate) topology: watch::Sender<Topology>,
    accounts: Accounts,
}

impl Game {
    /// A game server over so many shards, with a world of air and one block of stone in each chunk.
    pub(crate) async fn start(shards: u32) -> Game {
        Game::with_period(shards, 50).await
    }

    /// As [`Game::start`], with a tick wanted every so many milliseconds.
    pub(crate) async fn with_period(shards: u32, tick_period_ms: u64) -> Game {
        let plane = DataPlane::start(shards).await;
        let config: String = plane.control_db.run(&["GET", records::CONFIG]).await;
        let mut config: Config = serde_json::from_str(&config).expect("a configuration");
        config.world.tick_period_ms = tick_period_ms;
        plane.set_config(&config).await;
        let (topology, known) = watch::channel(plane.topology().await);
        let world = World::connect(&plane.boot(Service::Ticker), known.clone());
        let columns: Vec<_> = ChunkPos::within(RADIUS)
            .map(|at| (at, Bytes::from(column(at, Block::Stone, &[]).encode())))
            .collect();
        world.write_chunks(&columns).await.expect("chunks written");
        let info = Info { seed: 42, radius: RADIUS, limit: LIMIT, created_ms: 0, tick_period_ms };
        world.write_info(&info).await.expect("info written");

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let admin = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let admin_url = format!("http://{}", admin.local_addr().expect("address"));
        let mut boot = plane.boot(Service::Game);
        boot.log = "warn".into();
        tokio::spawn(fortia_game::run_on(boot, listener, admin));
        let control = ControlDb::connect(&plane.boot(Service::Scheduler));
        let accounts = Accounts::connect(&plane.boot(Service::Auth), known);
        Game { plane, url, admin_url, client: Client::new(), world, control, topology, accounts }
    }

    /// A token of a new account.
    pub(crate) async fn player(&self, name: &str) -> String {
        self.accounts.register(name, "player@example.org", "a-good-password").await.expect("registered");
        self.login(name).await
    }

    /// Another token of an account.
    pub(crate) async fn login(&self, name: &str) -> String {
        self.accounts.login(name, "a-good-password").await.expect("logged in").as_str().to_owned()
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str, token: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth(token)
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.expect("json")
    }

    /// As [`Game::json`], with a session.
    pub(crate) async fn json_of(&self, path: &str, token: &str) -> Value {
        let answer = self.get(path).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.expect("json")
    }

    /// Commits a tick that changed these chunks and entities.
    pub(crate) async fn commit(&self, tick: u64, columns: &[Column], entities: &[Entity]) {
        self.commit_born(tick, columns, entities, Vec::new()).await;
    }

    /// Commits a tick in which some entities are new.
    pub(crate) async fn commit_born(
        &self,
        tick: u64,
        columns: &[Column],
        entities: &[Entity],
        born: Vec<(String, u64)>,
    ) {
        let changes = Changes {
            chunks: columns.iter().map(|column| (column.at(), column.encode().into())).collect(),
            entities: entities.iter().map(|entity| (entity.id, entity.encode().into())).collect(),
            born,
            ..Changes::default()
        };
        self.world.commit_tick(1, tick, &changes, 0).await.expect("committed to the shards");
        let lease = self.control.lease("here", Duration::from_secs(60)).await.expect("lease");
        let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("time").as_millis() as u64;
        let changed = columns.iter().map(|column| wire::chunk_pos(column.at())).collect();
        self.control
            .commit(lease.epoch, &Committed { tick, at, changed, ..Committed::default() })
            .await
            .expect("committed");
    }

    /// Waits until GET /info tells this mode.
    pub(crate) async fn until_mode(&self, mode: &str) {
        let told = tokio::time::timeout(Duration::from_secs(10), async {
            while self.json("/info").await["mode"] != mode {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        told.await.expect("the mode is told");
    }

    /// Waits until the game server knows a tick.
    pub(crate) async fn until_tick(&self, tick: u64) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while self.json("/info").await["tick"].as_u64() < Some(tick) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the game server follows the ticks");
    }
}

/// A column of air with one block at its lowest corner, and entities.
pub(crate) fn column(at: ChunkPos, block: Block, entities: &[u64]) -> Column {
    let mut column = Column::empty(at);
    column.set(at.origin().local().expect("local"), block);
    for id in entities {
        column.set_entity(*id, true);
    }
    column
}

/// A unit that stands at the lowest corner of a chunk.
pub(crate) fn unit(id: u64, owner: &str, at: ChunkPos) -> Entity {
    Entity::new(Kind::Handyman, id, owner, BlockPos { z: 1, ..at.origin() }, at.origin())
}

/// The detail of a problem with this status.
pub(crate) async fn problem(response: Response, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    let problem: Value = response.json().await.expect("json");
    problem["detail"].as_str().expect("a detail").to_owned()
}

/// The events of GET /update, one after the other.
pub(crate) struct Events {
    response: Response,
    text: String,
}

/// An event as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Events {
    pub(crate) async fn open(request: RequestBuilder) -> Events {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }

    pub(crate) async fn next(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(10), self.read()).await.expect("an event in time")
    }

    async fn read(&mut self) -> Event {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start_matches(':').trim_start().to_owned())
                };
                if let (Some(kind), Some(id), Some(data)) = (field("event"), field("id"), field("data")) {
                    return Event { kind, id, data: serde_json::from_str(&data).expect("json") };
                }
            }
            let bytes = self.response.chunk().await.expect("the stream goes on").expect("the stream goes on");
            self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }
}
