//! Which records a caller wants: raw query to typed filter, and the filter's judgement. Knows no storage.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::age::{AgeError, moment};
use crate::record::{Level, Record};
use crate::segment::Header;

const LIMIT: usize = 200;
/// Most records one answer holds.
pub const MAX_LIMIT: usize = 10_000;

/// The query string of GET /logs.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Name of the service; several with commas. Default: all.
    pub service: Option<String>,
    /// Lowest level: trace, debug, info, warn, error or fatal. Default: all.
    pub level: Option<String>,
    /// From this moment on: RFC 3339, or how long ago (30s, 5m, 2h, 7d).
    pub since: Option<String>,
    /// Before this moment; written as since.
    pub until: Option<String>,
    /// Text in the message, the target or a field's value, whatever the case; or a trace id.
    pub q: Option<String>,
    /// At most so many records, the newest ones. Default 200, at most 10000.
    pub limit: Option<String>,
    /// true: the answer goes on with new records, as server-sent events. Default false.
    pub follow: Option<String>,
}

/// Why a query makes no filter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// No such level.
    #[error("level {0:?} does not exist: use trace, debug, info, warn, error or fatal")]
    Level(String),
    /// A moment that cannot be read.
    #[error("{0}: {1}")]
    Moment(&'static str, AgeError),
    /// Nothing can be in the range.
    #[error("since is not before until")]
    Range,
    /// A limit that is none.
    #[error("limit {0:?} is not a number from 1 to {MAX_LIMIT}")]
    Limit(String),
    /// Neither true nor false.
    #[error("follow {0:?} is neither true nor false")]
    Follow(String),
    /// Following what is over.
    #[error("follow=true has no end: leave until out")]
    FollowUntil,
}

/// Which records are wanted, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Names of services; empty: all.
    pub services: Vec<String>,
    /// Lowest level.
    pub level: Level,
    /// Unix nanoseconds, inclusive.
    pub since: u64,
    /// Unix nanoseconds, exclusive.
    pub until: u64,
    /// Lower-case text to be found; empty: any.
    pub text: String,
    /// How many of the newest.
    pub limit: usize,
}

impl Asked {
    /// The filter asked for at `now` (Unix nanoseconds).
    ///
    /// # Errors
    /// When a value cannot be read; the message is for the caller.
    pub fn filter(&self, now: u64) -> Result<Filter, FilterError> {
        let level = match self.level.as_deref() {
            None | Some("") => Level::Trace,
            Some(name) => Level::ALL
                .into_iter()
                .find(|l| l.as_str().eq_ignore_ascii_case(name))
                .ok_or_else(|| FilterError::Level(name.to_owned()))?,
        };
        let at = |name, text: &Option<String>, default| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(text) => moment(text, now).map_err(|e| FilterError::Moment(name, e)),
        };
        let since = at("since", &self.since, 0)?;
        let until = at("until", &self.until, u64::MAX)?;
        if since >= until {
            return Err(FilterError::Range);
        }
        if until != u64::MAX && self.follow()? {
            return Err(FilterError::FollowUntil);
        }
        let limit = match self.limit.as_deref() {
            None | Some("") => LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=MAX_LIMIT).contains(n))
                .ok_or_else(|| FilterError::Limit(text.to_owned()))?,
        };
        let names = self.service.as_deref().unwrap_or_default().split(',').map(str::trim);
        Ok(Filter {
            services: names.filter(|n| !n.is_empty()).map(str::to_owned).collect(),
            level,
            since,
            until,
            text: self.q.as_deref().unwrap_or_default().to_lowercase(),
            limit,
        })
    }

    /// Whether new records are wanted as they come.
    ///
    /// # Errors
    /// When the value is neither true nor false.
    pub fn follow(&self) -> Result<bool, FilterError> {
        match self.follow.as_deref() {
            None | Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(FilterError::Follow(other.to_owned())),
        }
    }
}

impl Filter {
    /// Whether this record is wanted.
    pub fn wants(&self, record: &Record) -> bool {
        (self.since..self.until).contains(&record.time)
            && record.level() >= self.level
            && (self.services.is_empty() || self.services.contains(&record.service))
            && (self.text.is_empty() || record.holds(&self.text))
    }

    /// Whether a segment may hold wanted records.
    pub fn may_be_in(&self, header: &Header) -> bool {
        header.first < self.until
            && header.last >= self.since
            && Level::of(header.highest) >= self.level
            && (self.services.is_empty() || self.services.iter().any(|s| header.services.contains(s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;
    use crate::segment::header;

    fn asked(set: impl FnOnce(&mut Asked)) -> Asked {
        let mut asked = Asked::default();
        set(&mut asked);
        asked
    }

    #[test]
    fn level_is_the_lowest_and_since_is_inclusive() {
        let record = sample(1_000, "game", Level::Warn, "tick LATE");
        let wants = |set: fn(&mut Asked)| asked(set).filter(2_000).expect("filter").wants(&record);
        assert!(wants(|_| ()));
        assert!(wants(|a| a.level = Some("INFO".into())));
        assert!(!wants(|a| a.level = Some("error".into())));
        assert!(wants(|a| a.service = Some("auth, game".into())));
        assert!(!wants(|a| a.service = Some("auth".into())));
        assert!(wants(|a| a.q = Some("Late".into())));
        assert!(wants(|a| a.since = Some("1970-01-01T00:00:00.000001Z".into())));
        assert!(!wants(|a| a.until = Some("1970-01-01T00:00:00.000001Z".into())));
    }

    #[test]
    fn a_segment_is_opened_only_when_it_may_hold_what_is_wanted() {
        let records = [sample(10, "game", Level::Info, "a"), sample(20, "auth", Level::Warn, "b")];
        let header = header(records.iter());
        let may = |set: fn(&mut Asked)| asked(set).filter(30).expect("filter").may_be_in(&header);
        assert!(may(|_| ()));
        assert!(!may(|a| a.level = Some("error".into())));
        assert!(!may(|a| a.service = Some("ticker".into())));
        assert!(!may(|a| a.since = Some("1970-01-01T00:00:01Z".into())));
    }

    #[test]
    fn a_bad_query_is_told_what_would_be_right() {
        let error = |set: fn(&mut Asked)| asked(set).filter(30).expect_err("refused").to_string();
        assert_eq!(
            error(|a| a.level = Some("loud".into())),
            "level \"loud\" does not exist: use trace, debug, info, warn, error or fatal"
        );
        assert!(error(|a| a.since = Some("soon".into())).starts_with("since: \"soon\" is not a moment"));
        assert_eq!(error(|a| a.limit = Some("0".into())), "limit \"0\" is not a number from 1 to 10000");
        assert_eq!(error(|a| a.until = Some("1970-01-01T00:00:00Z".into())), "since is not before until");
        let both = asked(|a| (a.follow, a.until) = (Some("true".into()), Some("1ms".into())));
        assert_eq!(both.filter(u64::MAX), Err(FilterError::FollowUntil));
    }
}
