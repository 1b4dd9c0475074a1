//! Which segments go: too old, or too many bytes. Knows sizes and times, no files.

use std::time::Duration;

/// A sealed segment as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number; higher is newer.
    pub id: u64,
    /// When it was sealed, Unix nanoseconds by this server's clock (records may carry other clocks).
    pub sealed: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long after it was sealed a segment goes.
    pub max_age: Duration,
    /// How many bytes all segments may take, the one being written included.
    pub max_bytes: u64,
}

impl Retention {
    /// Numbers of the segments to remove at `now`, oldest first; `writing` bytes are in the segment being written.
    pub fn expired(&self, kept: &[Kept], writing: u64, now: u64) -> Vec<u64> {
        let mut kept = kept.to_vec();
        kept.sort_by_key(|k| k.id);
        let mut bytes = writing + kept.iter().map(|k| k.bytes).sum::<u64>();
        let oldest = now.saturating_sub(u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX));
        let goes = |k: &&Kept| {
            let goes = k.sealed < oldest || bytes > self.max_bytes;
            if goes {
                bytes -= k.bytes;
            }
            goes
        };
        kept.iter().filter(goes).map(|k| k.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn kept() -> Vec<Kept> {
        [(3, 30), (1, 10), (2, 20)].map(|(id, s)| Kept { id, sealed: s * SECOND, bytes: 100 }).to_vec()
    }

    fn expired(max_age: u64, max_bytes: u64, writing: u64) -> Vec<u64> {
        let retention = Retention { max_age: Duration::from_secs(max_age), max_bytes };
        retention.expired(&kept(), writing, 40 * SECOND)
    }

    #[test]
    fn what_is_too_old_goes() {
        assert_eq!(expired(100, 1000, 0), [0; 0]);
        assert_eq!(expired(15, 1000, 0), [1, 2]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        assert_eq!(expired(100, 300, 0), [0; 0]);
        assert_eq!(expired(100, 299, 0), [1]);
        assert_eq!(expired(100, 300, 150), [1, 2]);
        assert_eq!(expired(100, 0, 0), [1, 2, 3]);
    }
}
