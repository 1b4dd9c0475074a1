//! The chunks a request names: `x=0,1&y=0,1` is chunk 0,0 and chunk 1,1. Knows no HTTP server and no storage.

use std::collections::BTreeSet;

use fortia_vec::ChunkPos;

/// Chunks one request may read.
pub(crate) const READ_LIMIT: usize = 64;
/// Chunks one subscriber may watch.
pub(crate) const WATCH_LIMIT: usize = 1024;

/// Why a query names no area.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AreaError {
    /// A list is absent or empty.
    #[error("`{0}` is missing: name chunks like ?x=0,1&y=0,1, which are the chunks 0,0 and 1,1")]
    Missing(&'static str),
    /// An entry is not a whole number.
    #[error("`{0}` has {1:?}, which is not a whole number: write chunk coordinates with commas between them")]
    NotANumber(&'static str, String),
    /// The lists differ in length.
    #[error("`x` has {0} entries and `y` has {1}: both must name the same number of chunks")]
    Lengths(usize, usize),
    /// More chunks than allowed.
    #[error("{0} chunks are too many: ask for at most {1} at once")]
    TooMany(usize, usize),
}

/// Parses the lists `x` and `y` into at most `limit` chunks, in the order asked, each once.
///
/// # Errors
/// When the lists are not equally long lists of whole numbers, or name more than `limit` chunks.
pub(crate) fn parse(x: Option<&str>, y: Option<&str>, limit: usize) -> Result<Vec<ChunkPos>, AreaError> {
    let (x, y) = (numbers("x", x, limit)?, numbers("y", y, limit)?);
    if x.len() != y.len() {
        return Err(AreaError::Lengths(x.len(), y.len()));
    }
    let mut seen = BTreeSet::new();
    let chunks = x.into_iter().zip(y).map(|(x, y)| ChunkPos::new(x, y));
    Ok(chunks.filter(|at| seen.insert(*at)).collect())
}

fn numbers(name: &'static str, text: Option<&str>, limit: usize) -> Result<Vec<i32>, AreaError> {
    let text = text.map(str::trim).filter(|t| !t.is_empty()).ok_or(AreaError::Missing(name))?;
    let count = text.split(',').count();
    if count > limit {
        return Err(AreaError::TooMany(count, limit));
    }
    let number = |part: &str| {
        part.trim().parse().map_err(|_| AreaError::NotANumber(name, part.chars().take(32).collect()))
    };
    text.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lists_name_chunks_pair_by_pair_in_the_order_asked() {
        let area = parse(Some("1,0,-3"), Some("5,0, 7"), 64).expect("an area");
        assert_eq!(area, [ChunkPos::new(1, 5), ChunkPos::new(0, 0), ChunkPos::new(-3, 7)]);
    }

    #[test]
    fn a_chunk_asked_for_twice_is_named_once() {
        let area = parse(Some("1,0,1"), Some("2,0,2"), 64).expect("an area");
        assert_eq!(area, [ChunkPos::new(1, 2), ChunkPos::new(0, 0)]);
    }

    #[test]
    fn a_query_that_names_no_area_is_refused_with_the_reason() {
        assert_eq!(parse(None, Some("0"), 64), Err(AreaError::Missing("x")));
        assert_eq!(parse(Some("0"), Some(" "), 64), Err(AreaError::Missing("y")));
        assert_eq!(parse(Some("0,1"), Some("0"), 64), Err(AreaError::Lengths(2, 1)));
        assert_eq!(parse(Some("0,"), Some("0,1"), 64), Err(AreaError::NotANumber("x", String::new())));
        assert_eq!(parse(Some("3e9"), Some("0"), 64), Err(AreaError::NotANumber("x", "3e9".into())));
        assert_eq!(parse(Some("0,1,2"), Some("0,1,2"), 2), Err(AreaError::TooMany(3, 2)));
    }
}
