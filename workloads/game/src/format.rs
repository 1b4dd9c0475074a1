//! In which format a client gets chunks, by its Accept (RFC 9110, 12.5.1). Knows no chunk.

use http::HeaderMap;
use http::header::ACCEPT;

/// The media type of protobuf.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";
/// The media type of JSON.
const JSON: &str = "application/json";

/// A format of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`; what one gets who does not say.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// How much a media type is wanted: in thousandths, and how exactly that was said.
type Wanted = (u32, u8);

/// The format these headers want; of two wanted alike the one that is named more exactly, or else JSON. None when
/// they accept neither.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Format> {
    let lists: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if lists.iter().all(|list| list.trim().is_empty()) {
        return Some(Format::Json);
    }
    let (json, protobuf) = (how_much(&lists, JSON), how_much(&lists, PROTOBUF));
    match (json, protobuf) {
        ((0, _), (0, _)) => None,
        _ if protobuf > json => Some(Format::Protobuf),
        _ => Some(Format::Json),
    }
}

/// The most exact range that a media type is in says how much it is wanted.
fn how_much(lists: &[&str], media_type: &str) -> Wanted {
    let ranges = lists.iter().flat_map(|list| list.split(','));
    let said = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let exactness = match parts.next()? {
            range if range.eq_ignore_ascii_case(media_type) => 3,
            range if range.eq_ignore_ascii_case("application/*") => 2,
            "*/*" => 1,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        Some((exactness, weight.map_or(1000, thousandths)))
    });
    said.max().map_or((0, 0), |(exactness, weight)| (weight, exactness))
}

/// A weight that is none counts as 1.
fn thousandths(weight: &str) -> u32 {
    weight.trim().parse::<f32>().map_or(1000, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Option<Format> {
        wanted(&HeaderMap::from_iter([(ACCEPT, accept.parse().expect("header"))]))
    }

    #[test]
    fn who_does_not_say_gets_json() {
        assert_eq!(wanted(&HeaderMap::new()), Some(Format::Json));
        for accept in ["", "*/*", "application/*", "text/html,application/xml;q=0.9,*/*;q=0.8"] {
            assert_eq!(of(accept), Some(Format::Json), "{accept}");
        }
    }

    #[test]
    fn the_format_that_is_wanted_more_is_sent() {
        for accept in [
            "application/x-protobuf",
            "text/html, Application/X-Protobuf;q=0.9",
            "*/*, application/x-protobuf",
            "application/json;q=0.5, application/x-protobuf",
            "application/x-protobuf;q=0.2, application/json;q=0",
        ] {
            assert_eq!(of(accept), Some(Format::Protobuf), "{accept}");
        }
        for accept in [
            "application/json",
            "application/json; charset=utf-8, application/x-protobuf;q=0.5",
            "application/json, application/x-protobuf",
            "application/*, application/x-protobuf;q=0",
        ] {
            assert_eq!(of(accept), Some(Format::Json), "{accept}");
        }
    }

    #[test]
    fn who_takes_neither_gets_none() {
        for accept in ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "application/jsonx"] {
            assert_eq!(of(accept), None, "{accept}");
        }
    }
}
