//! Who asks: the account behind a bearer token or cookie. Remembers answers of the account database for seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use fortia_rdb::RdbError;
use fortia_rdb::accounts::Accounts;
use fortia_rest::Problem;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use tokio::time::Instant;

use crate::app::App;
use crate::refusal;

/// The session's cookie, as auth sets it.
const SESSION_COOKIE: &str = "fortia-session";
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

/// The token a request carries: `Authorization: Bearer ..` or else the cookie.
fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("header"))).collect()
    }

    #[test]
    fn the_token_is_taken_from_the_bearer_or_else_from_the_cookie() {
        assert_eq!(
            token(&headers(&[(AUTHORIZATION, "Bearer abc"), (COOKIE, "fortia-session=xyz")])),
            Some("abc")
        );
        assert_eq!(token(&headers(&[(COOKIE, "a=b; fortia-session=xyz; c=d")])), Some("xyz"));
        assert_eq!(token(&headers(&[(AUTHORIZATION, "Basic abc")])), None);
        assert_eq!(token(&headers(&[(COOKIE, "fortia-session=")])), None);
        assert_eq!(token(&headers(&[])), None);
    }
}
