//! One Redis server: a connection made on demand, whose identity is checked before anything is asked, with every
//! wait bounded. Knows addresses, logins and guards' identity fields; knows no keys of the world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fortia_common::boot::Boot;
use fortia_common::records;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, FromRedisValue, IntoConnectionInfo, Pipeline, RedisConnectionInfo, Value,
};
use tokio::sync::Mutex;

use crate::RdbError;

/// Longest time until a connection stands and has told who it is.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for an answer to ordinary requests.
pub(crate) const RESPONSE: Duration = Duration::from_secs(3);
/// How long a server that did not answer is not tried again.
const REST: Duration = Duration::from_millis(500);

/// With what a service logs in everywhere, and the cluster it belongs to.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) cluster: String,
}

impl Login {
    pub(crate) fn of(boot: &Boot) -> Login {
        Login {
            user: boot.service.as_str().to_owned(),
            password: boot.password.clone(),
            cluster: boot.cluster.clone(),
        }
    }
}

/// Which server is wanted, and how.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) address: String,
    pub(crate) login: Login,
    pub(crate) group: String,
    pub(crate) index: u32,
}

impl Wanted {
    fn client(&self) -> Result<redis::Client, RdbError> {
        let unusable = |reason: String| RdbError::Unreachable { address: self.address.clone(), reason };
        let (host, port) =
            self.address.rsplit_once(':').ok_or_else(|| unusable("address is not host:port".into()))?;
        let port: u16 = port.parse().map_err(|_| unusable("port is not a number".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut settings = RedisConnectionInfo::default();
        if !self.login.password.is_empty() {
            settings = settings.set_username(&self.login.user).set_password(&self.login.password);
        }
        let info = (host, port).into_connection_info().map_err(|e| unusable(e.to_string()))?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_tcp_settings(tcp).set_redis_settings(settings.set_skip_set_lib_name());
        redis::Client::open(info).map_err(|e| unusable(e.to_string()))
    }

    /// A connection to the server, once its guard says it is the one wanted.
    ///
    /// # Errors
    /// `Foreign` when it is another's or has no guard, `Unreachable` or `Fenced` when it does not answer.
    pub(crate) async fn connect(
        &self,
        response: Option<Duration>,
    ) -> Result<MultiplexedConnection, RdbError> {
        let client = self.client()?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(response);
        let connected = async {
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| failure(&self.address, &error))?;
            self.check(&mut connection).await?;
            Ok(connection)
        };
        tokio::time::timeout(CONNECT, connected).await.unwrap_or_else(|_| Err(self.silent(CONNECT)))
    }

    /// A connection that only listens to channels.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, RdbError> {
        let client = self.client()?;
        let subscribed = async {
            let mut listener = client.get_async_pubsub().await?;
            listener.subscribe(channel).await?;
            Ok(listener)
        };
        match tokio::time::timeout(CONNECT, subscribed).await {
            Ok(result) => result.map_err(|error| failure(&self.address, &error)),
            Err(_) => Err(self.silent(CONNECT)),
        }
    }

    async fn check(&self, connection: &mut MultiplexedConnection) -> Result<(), RdbError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(records::GUARD).arg("uid").arg("group").arg("index");
        let mut answers = ask(connection, &self.address, &pipe).await?;
        let found: Vec<Option<String>> = value(&self.address, answers.pop().unwrap_or_default())?;
        let wanted = [self.login.cluster.clone(), self.group.clone(), self.index.to_string()];
        if found.iter().map(Option::as_ref).eq(wanted.iter().map(Some)) {
            return Ok(());
        }
        let found = match found.into_iter().collect::<Option<Vec<String>>>() {
            Some(guard) => format!("its guard is of {}", guard.join(" ")),
            None => "it has no guard".into(),
        };
        Err(RdbError::Foreign { address: self.address.clone(), expected: wanted.join(" "), found })
    }

    pub(crate) fn silent(&self, after: Duration) -> RdbError {
        RdbError::Unreachable { address: self.address.clone(), reason: format!("no answer within {after:?}") }
    }
}

/// A server that is connected to when first asked, and again after the connection broke.
pub(crate) struct Server {
    wanted: Wanted,
    response: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<(u64, MultiplexedConnection)>,
    made: u64,
    failed: Option<(Instant, RdbError)>,
}

impl Server {
    pub(crate) fn new(wanted: Wanted, response: Duration) -> Arc<Server> {
        Arc::new(Server { wanted, response, state: Mutex::default() })
    }

    pub(crate) fn address(&self) -> &str {
        &self.wanted.address
    }

    /// Sends the commands in one go; one answer each. The first refusal fails the whole.
    pub(crate) async fn ask(&self, pipe: &Pipeline) -> Result<Vec<Value>, RdbError> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        let (made, mut connection) = self.connection().await?;
        let answers = ask(&mut connection, self.address(), pipe).await;
        if let Err(RdbError::Unreachable { .. }) = answers {
            self.drop_connection(made).await;
        }
        answers
    }

    /// Holds on to the connection.
    pub(crate) async fn line(self: &Arc<Server>) -> Result<Line, RdbError> {
        let (made, connection) = self.connection().await?;
        Ok(Line { server: self.clone(), made, connection })
    }

    /// As [`Server::ask`], for reads: a connection that broke while idle is replaced without a word.
    pub(crate) async fn read(&self, pipe: &Pipeline) -> Result<Vec<Value>, RdbError> {
        let fresh = self.state.lock().await.live.is_none();
        match self.ask(pipe).await {
            Err(RdbError::Unreachable { reason, .. }) if !fresh && !reason.contains(TIMED_OUT) => {
                self.ask(pipe).await
            }
            answers => answers,
        }
    }

    /// How much a replica has of the stream of writes it follows or followed, in bytes.
    pub(crate) async fn offset(&self) -> Result<u64, RdbError> {
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let info: String = self.get(command).await?;
        let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")?.parse().ok());
        offset.ok_or_else(|| RdbError::corrupt("INFO replication", "it has no offset"))
    }

    /// Sends one command.
    pub(crate) async fn one<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, RdbError> {
        let mut pipe = redis::pipe();
        pipe.add_command(command);
        let answer = self.ask(&pipe).await?.pop().unwrap_or_default();
        value(self.address(), answer)
    }

    /// Sends one command that only reads.
    pub(crate) async fn get<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, RdbError> {
        let mut pipe = redis::pipe();
        pipe.add_command(command);
        let answer = self.read(&pipe).await?.pop().unwrap_or_default();
        value(self.address(), answer)
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RdbError> {
        let mut state = self.state.lock().await;
        if let Some((made, connection)) = &state.live {
            return Ok((*made, connection.clone()));
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < REST
        {
            return Err(error.clone());
        }
        match self.wanted.connect(Some(self.response)).await {
            Ok(connection) => {
                state.made += 1;
                state.failed = None;
                state.live = Some((state.made, connection.clone()));
                Ok((state.made, connection))
            }
            Err(error) => {
                // Many wait for this connection: they must not each wait for a dead server in turn.
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn drop_connection(&self, made: u64) {
        let mut state = self.state.lock().await;
        state.live.take_if(|(live, _)| *live == made);
    }
}

/// A connection held on to: all that is asked on it reaches one process, in order. Once broken it stays broken.
pub(crate) struct Line {
    server: Arc<Server>,
    made: u64,
    connection: MultiplexedConnection,
}

impl Line {
    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }

    /// As [`Server::ask`], on this connection.
    pub(crate) async fn ask(&mut self, pipe: &Pipeline) -> Result<Vec<Value>, RdbError> {
        let answers = ask(&mut self.connection, self.server.address(), pipe).await;
        if let Err(RdbError::Unreachable { .. }) = answers {
            self.server.drop_connection(self.made).await;
        }
        answers
    }
}

const TIMED_OUT: &str = "timed out";

/// Sends a pipeline on a connection; the first refusal among the answers fails the whole.
pub(crate) async fn ask(
    connection: &mut MultiplexedConnection,
    address: &str,
    pipe: &Pipeline,
) -> Result<Vec<Value>, RdbError> {
    let (offset, count) = if pipe.is_transaction() { (pipe.len() + 1, 1) } else { (0, pipe.len()) };
    let mut answers = connection
        .req_packed_commands(pipe, offset, count)
        .await
        .map_err(|error| failure(address, &error))?;
    if pipe.is_transaction() {
        answers = match answers.pop() {
            Some(Value::Array(answers)) => answers,
            other => return Err(unexpected(address, format!("{other:?} as answer to EXEC"))),
        };
    }
    let refused = answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    match refused {
        Some(error) => Err(RdbError::refusal(address, error.code(), error.details().unwrap_or_default())),
        None => Ok(answers),
    }
}

/// An answer as a Rust value.
pub(crate) fn value<T: FromRedisValue>(address: &str, answer: Value) -> Result<T, RdbError> {
    redis::from_redis_value(answer).map_err(|error| unexpected(address, error.to_string()))
}

fn unexpected(address: &str, reason: String) -> RdbError {
    RdbError::Refused { address: address.to_owned(), reason: format!("unexpected answer: {reason}") }
}

fn failure(address: &str, error: &redis::RedisError) -> RdbError {
    if let (Some(code), false) = (error.code(), error.is_io_error()) {
        return RdbError::refusal(address, code, error.detail().unwrap_or_default());
    }
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return RdbError::Fenced { address: address.to_owned(), reason: error.to_string() };
    }
    let reason = if error.is_timeout() { TIMED_OUT.to_owned() } else { error.to_string() };
    RdbError::Unreachable { address: address.to_owned(), reason }
}
