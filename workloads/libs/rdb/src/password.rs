//! Passwords to argon2id hashes and back to yes or no: few at a time, on threads of their own. Knows no accounts.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::RdbError;

/// Longest wait for a turn.
const TURN: Duration = Duration::from_secs(2);

/// Hashes passwords, a bounded number at a time: each takes 19 MiB and a core for tens of milliseconds.
#[derive(Clone)]
pub(crate) struct Hasher {
    turns: Arc<Semaphore>,
    turn: Duration,
}

impl Hasher {
    /// As many at a time as there are cores, at most four.
    pub(crate) fn new() -> Hasher {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Hasher { turns: Arc::new(Semaphore::new(cores.min(4))), turn: TURN }
    }

    /// The password's hash as a PHC string, with a new salt.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, RdbError> {
        let password = password.to_owned();
        let hashed =
            self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|h| h.to_string()));
        hashed.await?.map_err(|error| RdbError::corrupt("a password", error))
    }

    /// Whether the password has this hash. Without a hash it takes as long and says no, so that nobody can tell
    /// from the time taken whether an account exists.
    pub(crate) async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool, RdbError> {
        let password = password.to_owned();
        let verified = self.run(move || match hash {
            Some(hash) => {
                let hash =
                    PasswordHash::new(&hash).map_err(|error| RdbError::corrupt("a password hash", error))?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            }
            None => {
                let hashed = Argon2::default().hash_password(password.as_bytes());
                hashed.map(|_| false).map_err(|error| RdbError::corrupt("a password", error))
            }
        });
        verified.await?
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RdbError> {
        let turn = tokio::time::timeout(self.turn, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(RdbError::Busy) };
        // The turn moves into the thread: a caller that goes away does not free it before the work ends.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|error| RdbError::corrupt("the password thread", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let hasher = Hasher::new();
        let hash = hasher.hash("correct horse").await.expect("hashes");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert_eq!(hasher.verify("correct horse", Some(hash.clone())).await, Ok(true));
        assert_eq!(hasher.verify("wrong horse", Some(hash)).await, Ok(false));
        assert_eq!(hasher.verify("correct horse", None).await, Ok(false));
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_told_to_come_later() {
        let hasher = Hasher { turns: Arc::new(Semaphore::new(1)), turn: Duration::from_millis(10) };
        let _taken = hasher.turns.clone().acquire_owned().await.expect("a turn");
        assert_eq!(hasher.hash("x").await, Err(RdbError::Busy));
    }
}
