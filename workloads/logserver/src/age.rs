//! Lengths of time, moments and sizes as people write them: `5m`, RFC 3339, `512Mi`. Knows no clock.

use std::time::Duration;

use jiff::Timestamp;

/// Why a text is not what it should be; the message says what would be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgeError {
    /// Not a length of time.
    #[error("{0:?} is not a length of time: write one like 30s, 5m, 2h or 7d")]
    Length(String),
    /// Not a moment.
    #[error("{0:?} is not a moment: write RFC 3339 (2026-01-31T12:00:00Z) or how long ago (5m)")]
    Moment(String),
    /// Not a size.
    #[error("{0:?} is not a size in bytes: write one like 1048576, 512Mi or 2Gi")]
    Size(String),
}

/// Reads a length of time: a whole number and one of ms, s, m, h, d, w.
///
/// # Errors
/// When it is not one.
pub fn length(text: &str) -> Result<Duration, AgeError> {
    let wrong = || AgeError::Length(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads a moment, absolute or as long before `now`; both in Unix nanoseconds.
///
/// # Errors
/// When it is neither.
pub fn moment(text: &str, now: u64) -> Result<u64, AgeError> {
    if let Ok(ago) = length(text) {
        return Ok(now.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
    }
    let at: Timestamp = text.parse().map_err(|_| AgeError::Moment(text.to_owned()))?;
    Ok(u64::try_from(at.as_nanosecond()).unwrap_or(0))
}

/// Reads a size in bytes, with Ki, Mi, Gi or nothing behind it.
///
/// # Errors
/// When it is not one.
pub fn size(text: &str) -> Result<u64, AgeError> {
    let wrong = || AgeError::Size(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_are_read_as_people_write_them() {
        assert_eq!(length("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(length("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(size("512Mi"), Ok(512 << 20));
        assert_eq!(size("7"), Ok(7));
        for wrong in ["", "5", "m", "-5m", "5 m", "99999999999999999999d", "18446744073709551615w"] {
            assert_eq!(length(wrong), Err(AgeError::Length(wrong.into())));
        }
        for wrong in ["", "Mi", "5M", "99999999999Gi0"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_absolute_or_before_now() {
        assert_eq!(moment("1s", 5_000_000_000), Ok(4_000_000_000));
        assert_eq!(moment("1970-01-01T00:00:02.5Z", 0), Ok(2_500_000_000));
        assert_eq!(moment("1970-01-01T01:00:02+01:00", 0), Ok(2_000_000_000));
        assert_eq!(moment("yesterday", 0), Err(AgeError::Moment("yesterday".into())));
    }
}
