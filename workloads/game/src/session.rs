//! Who asks: the account behind a bearer token or cookie. Remembers answers of the account database for seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use fortia_rdb::RdbError;
use fortia_rdb::accounts::Accounts;
use fortia_rest::Problem;
use fortia_rest::session::token;
use http::request::Parts;
use tokio::time::Instant;

use crate::app::App;
use crate::refusal;

/// How long an answer is believed: a session that was ended is refused at the latest after this.
const TRUST: Duration = Duration::from_secs(5);
/// Sessions remembered at once.
const SESSIONS: usize = 4096;

/// The name of the player who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Player(pub(crate) Arc<str>);

/// Checks sessions.
pub(crate) struct Sessions {
    accounts: Accounts,
    known: Mutex<HashMap<String, (Arc<str>, Instant)>>,
}

impl Sessions {
    /// Asks `accounts` what it does not know.
    pub(crate) fn new(accounts: Accounts) -> Sessions {
        Sessions { accounts, known: Mutex::default() }
    }

    /// The account name of a session, if there is one.
    async fn player(&self, token: &str) -> Result<Option<Arc<str>>, RdbError> {
        let now = Instant::now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        if let Some((name, until)) = known
            && now < until
        {
            return Ok(Some(name));
        }
        let Some(account) = self.accounts.session(token).await? else { return Ok(None) };
        let name: Arc<str> = account.name.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SESSIONS {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() < SESSIONS {
            known.insert(token.to_owned(), (name.clone(), now + TRUST));
        }
        Ok(Some(name))
    }
}

impl FromRequestParts<Arc<App>> for Player {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Player, Problem> {
        let refused = || {
            Problem::unauthorized("log in at the auth server's POST /login, then send its token or cookie")
        };
        let token = token(&parts.headers).ok_or_else(refused)?;
        match app.sessions.player(token).await {
            Ok(name) => name.map(Player).ok_or_else(refused),
            Err(error) => Err(refusal::of_accounts(&error)),
        }
    }
}
