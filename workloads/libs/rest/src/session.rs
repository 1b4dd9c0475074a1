//! Where a session's token is in HTTP: a bearer token or a cookie. Knows no accounts.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

/// Name of the session's cookie.
pub const COOKIE_NAME: &str = "fortia-session";

/// The token a request carries: `Authorization: Bearer ..` or else the cookie.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token).filter(|token| !token.is_empty())
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
}
