//! The cookie that carries a session's token. Knows no accounts.

use std::time::Duration;

use fortia_rest::session::COOKIE_NAME;

/// The value of Set-Cookie. Scripts cannot read it, and other sites' forms do not carry it. Whoever serves Fortia
/// over TLS adds `Secure` at the proxy.
pub(crate) fn cookie(token: &str, lifetime: Duration) -> String {
    format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={}", lifetime.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        assert_eq!(
            cookie("abc", Duration::from_secs(60)),
            "fortia-session=abc; HttpOnly; SameSite=Lax; Path=/; Max-Age=60"
        );
    }
}
