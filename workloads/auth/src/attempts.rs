//! Counts failed logins per name, so that guessing a password is slow. Knows no HTTP; time is handed in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failed logins of one name within [`WINDOW`] before it has to wait.
pub(crate) const FAILURES: u32 = 10;
/// How long failures count, from the first of them.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Names remembered at once; the oldest is forgotten for a new one.
const NAMES: usize = 10_000;

/// The failed logins of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    by_name: Mutex<HashMap<String, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Attempts {
    /// How long `name` has to wait before its next try; `None`: it may try now.
    pub(crate) fn wait(&self, name: &str, now: Instant) -> Option<Duration> {
        let names = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = names.get(name).filter(|f| f.count >= FAILURES)?;
        let passed = now.saturating_duration_since(failures.since);
        (passed < WINDOW).then(|| WINDOW - passed)
    }

    /// Counts a failed login of `name`.
    pub(crate) fn failed(&self, name: &str, now: Instant) {
        let mut names = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES && !names.contains_key(name) {
            make_room(&mut names, now);
        }
        let failures = names.entry(name.to_owned()).or_insert(Failures { count: 0, since: now });
        if now.saturating_duration_since(failures.since) >= WINDOW {
            *failures = Failures { count: 0, since: now };
        }
        failures.count = failures.count.saturating_add(1);
    }

    /// Forgets the failures of `name`, which has logged in.
    pub(crate) fn succeeded(&self, name: &str) {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

fn make_room(names: &mut HashMap<String, Failures>, now: Instant) {
    names.retain(|_, f| now.saturating_duration_since(f.since) < WINDOW);
    if names.len() >= NAMES
        && let Some(oldest) = names.iter().min_by_key(|(_, f)| f.since).map(|(name, _)| name.clone())
    {
        names.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_too_many_failures_a_name_waits_until_the_window_ends() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for _ in 0..FAILURES {
            assert_eq!(attempts.wait("bob", start), None);
            attempts.failed("bob", start);
        }
        assert_eq!(attempts.wait("bob", start + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(attempts.wait("eve", start), None, "others do not wait");
        assert_eq!(attempts.wait("bob", start + WINDOW), None);
        attempts.failed("bob", start + WINDOW);
        assert_eq!(attempts.wait("bob", start + WINDOW), None, "a new window counts from nothing");
    }

    #[test]
    fn a_login_that_succeeds_forgets_the_failures() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..FAILURES {
            attempts.failed("bob", now);
        }
        attempts.succeeded("bob");
        assert_eq!(attempts.wait("bob", now), None);
    }

    #[test]
    fn guessing_many_names_does_not_grow_the_memory_without_bound() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for name in 0..(NAMES + 100) {
            attempts.failed(&name.to_string(), now);
        }
        assert_eq!(attempts.by_name.lock().expect("lock").len(), NAMES);
    }
}
