//! An address as people write it into the spec: parsed once into scheme, host, port and path. Knows no resource. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where something is reached by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Whether by TLS.
    pub(super) secure: bool,
    host: Host,
    /// None: the scheme's own.
    pub(super) port: Option<u16>,
    /// Empty, or begins with a slash and ends without one.
    pub(super) path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Address {
    /// Reads `https://play.example.org/midgard`, `http://192.0.2.7:8080`, `http://[2001:db8::7]:8080`.
    pub(super) fn parse(text: &str) -> Option<Address> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = authority_of(authority)?;
        Some(Address { secure, host, port, path: path_of(path)? })
    }
}

fn authority_of(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            (Host::Ip(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host_of(host)?, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0)?)
        }
        None if rest.is_empty() => None,
        _ => return None,
    };
    Some((host, port))
}

fn host_of(text: &str) -> Option<Host> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next()?;
    // What ends in a number is no name (RFC 1123), but then it must be an address.
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Host::Ip(IpAddr::V4(text.parse::<Ipv4Addr>().ok()?)));
    }
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| Host::Name(text.to_owned()))
}

fn path_of(text: &str) -> Option<String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let whole = path.is_empty() || path.split('/').skip(1).all(is_segment);
    whole.then(|| path.to_owned())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        Address::parse(text).map(|address| address.to_string())
    }

    #[test]
    fn an_address_has_a_scheme_a_host_and_perhaps_a_port_and_a_path() {
        for text in [
            "http://midgard-game.worlds.svc",
            "https://play.example.org/midgard",
            "http://localhost:8080",
            "http://192.0.2.7:8080",
            "https://[2001:db8::7]:8443",
            "http://[::1]",
        ] {
            assert_eq!(read(text).as_deref(), Some(text));
        }
        assert_eq!(read("https://play.example.org/").as_deref(), Some("https://play.example.org"));
    }

    #[test]
    fn what_nobody_can_reach_is_no_address() {
        for bad in [
            "",
            "anywhere you like",
            "play.example.org",
            "play.example.org:8080",
            "ftp://play.example.org",
            "http://",
            "http://:8080",
            "http://play example.org",
            "http://play..example.org",
            "http://-play.example.org",
            "http://thor@play.example.org",
            "http://300.1.2.3",
            "http://192.0.2:80",
            "http://2001:db8::7",
            "http://[2001:db8::g]",
            "http://play.example.org:",
            "http://play.example.org:0",
            "http://play.example.org:65536",
            "http://play.example.org:+80",
            "http://play.example.org//x",
            "http://play.example.org/?world=1",
            "http://play.example.org/a b",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
