//! A crowd: many players or viewers at once, started together, stopped together, their deeds added up.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError};
use crate::player::{Deeds, Player};
use crate::viewer::{Views, view};

/// Logins at once: each takes the auth server 19 MiB and a core for a moment.
const DOOR: usize = 4;

/// Players who play until the crowd is stopped.
#[derive(Debug)]
pub struct Players {
    stop: CancellationToken,
    tasks: JoinSet<Deeds>,
    news: UnboundedReceiver<String>,
}

impl Players {
    /// Lets players `<prefix>-0` to `<prefix>-<count-1>` enter and play, each acting about once in `pause`.
    ///
    /// # Errors
    /// When one cannot enter.
    pub async fn start(api: &Api, prefix: &str, count: usize, pause: Duration) -> Result<Players, ApiError> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (tell, news) = unbounded_channel();
        let names = (0..count).map(|i| (i, format!("{prefix}-{i}")));
        let mut entering = futures::stream::iter(names)
            .map(|(i, name)| async move { Player::enter(api.clone(), &name, i as u64).await })
            .buffer_unordered(DOOR);
        while let Some(player) = entering.next().await {
            tasks.spawn(player?.play(pause, stop.clone(), tell.clone()));
        }
        Ok(Players { stop, tasks, news })
    }

    /// The next line about somebody who had to come in anew; none any more once all have ended.
    pub async fn news(&mut self) -> Option<String> {
        self.news.recv().await
    }

    /// Ends them all; what they did.
    pub async fn stop(mut self) -> Deeds {
        self.stop.cancel();
        let mut all = Deeds::default();
        while let Some(Ok(deeds)) = self.tasks.join_next().await {
            all.add(deeds);
        }
        all
    }
}

/// Viewers who read until stopped.
#[derive(Debug)]
pub struct Viewers {
    stop: CancellationToken,
    tasks: FuturesUnordered<tokio::task::JoinHandle<Views>>,
}

impl Viewers {
    /// Starts `count` viewers, each waiting `pause` between two looks.
    pub fn start(api: &Api, count: usize, pause: Duration) -> Viewers {
        let stop = CancellationToken::new();
        let tasks = (0..count).map(|i| tokio::spawn(view(api.clone(), i, pause, stop.clone()))).collect();
        Viewers { stop, tasks }
    }

    /// Ends them all; what they saw.
    pub async fn stop(mut self) -> Views {
        self.stop.cancel();
        let mut all = Views::default();
        while let Some(ended) = self.tasks.next().await {
            all.add(ended.unwrap_or_else(|error| Views {
                failed: 1,
                last_failure: Some(error.to_string()),
                ..Views::default()
            }));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Who is known to a world: what players see of its being another one.
    #[derive(Default)]
    struct World {
        accounts: HashSet<String>,
        sessions: HashSet<String>,
        logins: usize,
    }

    impl World {
        fn answer(&mut self, line: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
            let known = token.is_some_and(|token| self.sessions.contains(token));
            match line {
                "POST /auth/register" => {
                    let name = body["name"].as_str().expect("a name");
                    (if self.accounts.insert(name.into()) { 201 } else { 409 }, json!({}))
                }
                "POST /auth/login" => {
                    self.logins += 1;
                    self.sessions.insert(format!("token-{}", self.logins));
                    (200, json!({"token": format!("token-{}", self.logins)}))
                }
                "GET /game/info" => {
                    (200, json!({"radius": 8, "limit": 32, "tick": 1, "mode": "live", "version": 1}))
                }
                _ if !known => (401, json!({"detail": "log in first"})),
                "GET /game/units" => {
                    let stock = json!({"wood": 0, "stone": 0});
                    (200, json!({"tick": 1, "stock": stock, "units": [], "buildings": []}))
                }
                _ => (200, json!({"start": {"x": 0, "y": 0, "z": 0}})),
            }
        }
    }

    async fn serve(world: Arc<Mutex<World>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, world.clone()));
            }
        });
        url
    }

    async fn answer(mut stream: TcpStream, world: Arc<Mutex<World>>) -> std::io::Result<()> {
        let mut text = String::new();
        let (head, body) = loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await?;
            text.push_str(&String::from_utf8_lossy(&part[..read]));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let header = |name: &str| {
                head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
            };
            let length = header("content-length: ").map_or(0, |length| length.parse().expect("a length"));
            if body.len() >= length {
                break (head.to_owned(), body.to_owned());
            }
        };
        let line = head.split(" HTTP").next().unwrap_or_default();
        let token = head.lines().find_map(|line| line.split_once(": Bearer ")).map(|(_, token)| token);
        let body = serde_json::from_str(&body).unwrap_or_default();
        let (status, answer) = world.lock().expect("the world").answer(line, token, &body);
        let answer = answer.to_string();
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await
    }

    #[tokio::test]
    async fn players_notice_that_the_world_is_another_one_say_so_and_play_on_in_it() {
        let world = Arc::new(Mutex::new(World::default()));
        let url = serve(world.clone()).await;
        let api = Api::new(&format!("{url}/auth"), &format!("{url}/game"));
        let mut players = Players::start(&api, "p", 2, Duration::from_millis(10)).await.expect("they enter");
        let mut told = async |what: &str| {
            for _ in 0..2 {
                let news = tokio::time::timeout(Duration::from_secs(10), players.news()).await;
                let news = news.expect("they notice").expect("a line");
                assert!(news.contains(what), "{news}");
            }
        };
        world.lock().expect("the world").sessions.clear();
        told("had ended: logged in again").await;
        let logins = world.lock().expect("the world").logins;
        *world.lock().expect("the world") = World { logins, ..World::default() };
        told("the world was replaced by a new one").await;
        assert_eq!(world.lock().expect("the world").accounts.len(), 2);
        let deeds = players.stop().await;
        assert_eq!((deeds.returns, deeds.failed), (4, 0), "{deeds:?}");
    }
}
