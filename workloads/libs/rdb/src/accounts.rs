//! Accounts, their sessions, and the list of worlds, in the account database. Knows nothing of the world's shards.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fortia_common::boot::Boot;
use fortia_common::topology::Topology;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::RdbError;
use crate::connection::{Login, RESPONSE, Server, Wanted, value};
use crate::password::Hasher;

/// How long a session lasts from its login.
pub const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Names of all worlds.
const WORLDS: &str = "worlds";

/// The account database. Clones share their connection.
#[derive(Clone)]
pub struct Accounts {
    login: Login,
    topology: watch::Receiver<Topology>,
    server: Arc<Mutex<Option<Arc<Server>>>>,
    hasher: Hasher,
    session: Duration,
}

/// An account, without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its unique name.
    pub name: String,
    /// Its mail address.
    pub mail: String,
    /// 0 (player) to 4 (administrator).
    pub role: u8,
    /// Whether they gave.
    pub donor: bool,
    /// Unix time in ms of its making.
    pub created_ms: u64,
}

/// What a client shows to be known again. Not stored: the database has its digest only.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A world that can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedWorld {
    /// Its name.
    pub name: String,
    /// Where its game is reached.
    pub address: String,
    /// Whether players may enter.
    pub open: bool,
}

impl Token {
    fn new() -> Result<Token, RdbError> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| RdbError::corrupt("the random source", error))?;
        Ok(Token(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The token's text, to give to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Accounts {
    /// The account database of the topology, as it changes. Connects to nothing before it is asked.
    pub fn connect(boot: &Boot, topology: watch::Receiver<Topology>) -> Accounts {
        Accounts {
            login: Login::of(boot),
            topology,
            server: Arc::default(),
            hasher: Hasher::new(),
            session: SESSION,
        }
    }

    /// With sessions that last this long.
    pub fn with_session(mut self, session: Duration) -> Accounts {
        self.session = session;
        self
    }

    fn server(&self) -> Arc<Server> {
        let address = self.topology.borrow().auth_db.clone();
        let mut known = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(server) if server.address() == address => server.clone(),
            _ => {
                let wanted = Wanted { address, login: self.login.clone(), group: "auth-db".into(), index: 0 };
                known.insert(Server::new(wanted, RESPONSE)).clone()
            }
        }
    }

    /// Makes an account. `name` must be without `:`; the caller decides what else names and mails may be.
    ///
    /// # Errors
    /// `AccountExists` when the name is taken, `Busy` when too many passwords are being hashed; otherwise when the
    /// account database does not answer.
    pub async fn register(&self, name: &str, mail: &str, password: &str) -> Result<Account, RdbError> {
        let hash = self.hasher.hash(password).await?;
        let account = Account {
            name: name.to_owned(),
            mail: mail.to_owned(),
            role: 0,
            donor: false,
            created_ms: now_ms(),
        };
        // All fields appear under the name at once, or, where the name is taken, not at all.
        let (making, key) = (format!("u:{name}:new"), user_key(name));
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("DEL").arg(&making);
        pipe.cmd("HSET").arg(&making).arg("name").arg(name).arg("mail").arg(mail).arg("hash").arg(hash);
        pipe.arg("worlds")
            .arg("")
            .arg("role")
            .arg(0)
            .arg("donor")
            .arg(0)
            .arg("created")
            .arg(account.created_ms);
        pipe.cmd("RENAMENX").arg(&making).arg(key);
        pipe.cmd("DEL").arg(&making);
        let server = self.server();
        let renamed = server.ask(&pipe).await?.into_iter().nth(2).unwrap_or_default();
        match value::<bool>(server.address(), renamed)? {
            true => Ok(account),
            false => Err(RdbError::AccountExists { name: name.to_owned() }),
        }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// `WrongLogin` for a wrong name or password (it does not say which), `Busy` when too many passwords are being
    /// checked; otherwise when the account database does not answer.
    pub async fn login(&self, name: &str, password: &str) -> Result<Token, RdbError> {
        let mut command = redis::cmd("HGET");
        command.arg(user_key(name)).arg("hash");
        let hash: Option<String> = self.server().get(command).await?;
        if !self.hasher.verify(password, hash).await? {
            return Err(RdbError::WrongLogin);
        }
        let token = Token::new()?;
        let mut command = redis::cmd("SET");
        command.arg(token_key(&token.0)).arg(name).arg("PX").arg(self.session.as_millis() as u64);
        self.server().one::<()>(command).await?;
        Ok(token)
    }

    /// The account of an open session; none when there is no such session (any more).
    ///
    /// # Errors
    /// When the account database does not answer or the account cannot be understood.
    pub async fn session(&self, token: &str) -> Result<Option<Account>, RdbError> {
        let mut command = redis::cmd("GET");
        command.arg(token_key(token));
        let server = self.server();
        let Some(name) = server.get::<Option<String>>(command).await? else { return Ok(None) };
        let mut command = redis::cmd("HGETALL");
        command.arg(user_key(&name));
        let fields: HashMap<String, String> = server.get(command).await?;
        if fields.is_empty() { Ok(None) } else { account(name, &fields).map(Some) }
    }

    /// Ends a session; one that is not open is left as it is.
    ///
    /// # Errors
    /// When the account database does not answer.
    pub async fn logout(&self, token: &str) -> Result<(), RdbError> {
        let mut command = redis::cmd("DEL");
        command.arg(token_key(token));
        self.server().one(command).await
    }

    /// All worlds, by name.
    ///
    /// # Errors
    /// When the account database does not answer or an entry cannot be understood.
    pub async fn worlds(&self) -> Result<Vec<ListedWorld>, RdbError> {
        let server = self.server();
        let mut command = redis::cmd("SMEMBERS");
        command.arg(WORLDS);
        let mut names: Vec<String> = server.get(command).await?;
        names.sort_unstable();
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.cmd("HMGET").arg(world_key(name)).arg("address").arg("open");
        }
        let mut worlds = Vec::with_capacity(names.len());
        for (name, answer) in names.into_iter().zip(server.read(&pipe).await?) {
            let (address, open): (Option<String>, Option<String>) = value(server.address(), answer)?;
            let address = address.ok_or_else(|| RdbError::corrupt(world_key(&name), "it has no address"))?;
            worlds.push(ListedWorld { name, address, open: open.as_deref() == Some("1") });
        }
        Ok(worlds)
    }

    /// Enters a world into the list, or changes its entry.
    ///
    /// # Errors
    /// When the account database does not answer.
    pub async fn put_world(&self, world: &ListedWorld) -> Result<(), RdbError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("HSET").arg(world_key(&world.name)).arg("address").arg(&world.address);
        pipe.arg("open").arg(u8::from(world.open));
        pipe.cmd("SADD").arg(WORLDS).arg(&world.name);
        self.server().ask(&pipe).await.map(drop)
    }
}

fn account(name: String, fields: &HashMap<String, String>) -> Result<Account, RdbError> {
    let key = user_key(&name);
    let text = |field: &str| {
        let found = fields.get(field).cloned();
        found.ok_or_else(|| RdbError::corrupt(key.clone(), format!("field {field} is missing")))
    };
    let corrupt = |field| RdbError::corrupt(key.clone(), format!("field {field} is no number"));
    let role = text("role")?.parse().map_err(|_| corrupt("role"))?;
    let created_ms = text("created")?.parse().map_err(|_| corrupt("created"))?;
    Ok(Account { mail: text("mail")?, role, donor: text("donor")? == "1", created_ms, name })
}

fn user_key(name: &str) -> String {
    format!("u:{name}")
}

fn world_key(name: &str) -> String {
    format!("world:{name}")
}

fn token_key(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    digest.iter().fold(String::from("t:"), |key, byte| key + &format!("{byte:02x}"))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
