//! Where a session's token is in HTTP: a bearer token or a cookie. Knows no accounts.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

/// Name of the session's cookie; the game server reads it too.
pub(crate) const SESSION_COOKIE: &str = "fortia-session";

/// The token a request carries: `Authorization: Bearer ..` or else the cookie.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token).filter(|token| !token.is_empty())
}

/// The value of Set-Cookie. Scripts cannot read it, and other sites' forms do not carry it. Whoever serves Fortia
/// over TLS adds `Secure` at the proxy.
pub(crate) fn cookie(token: &str, lifetime: Duration) -> String {
    format!("{SESSION_COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={}", lifetime.as_secs())
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
            token(&headers(&[(AUTHORIZATION, "bearer abc"), (COOKIE, "fortia-session=xyz")])),
            Some("abc")
        );
        assert_eq!(token(&headers(&[(COOKIE, "a=b; fortia-session=xyz; c=d")])), Some("xyz"));
        assert_eq!(token(&headers(&[(AUTHORIZATION, "Basic abc")])), None);
        assert_eq!(token(&headers(&[(COOKIE, "fortia-session=")])), None);
        assert_eq!(token(&headers(&[])), None);
    }

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        assert_eq!(
            cookie("abc", Duration::from_secs(60)),
            "fortia-session=abc; HttpOnly; SameSite=Lax; Path=/; Max-Age=60"
        );
    }
}
