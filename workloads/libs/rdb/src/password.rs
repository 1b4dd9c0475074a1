//! Passwords to argon2id hashes and back to yes or no: few at a time, on threads of their own. Knows no accounts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{self, Error};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{Semaphore, oneshot};

use crate::RdbError;

/// Longest wait for a turn.
const TURN: Duration = Duration::from_secs(2);

/// What a thread is to do, with the memory it has for it.
type Work = Box<dyn FnOnce(&mut Memory) + Send>;

/// Hashes passwords, a bounded number at a time: each takes 19 MiB and a core for tens of milliseconds.
///
/// The threads are always the same few, and each keeps its memory: malloc keeps what was freed by thread, so asking it
/// for 19 MiB on whichever thread of a large pool happens to be idle has come to 500 MiB.
#[derive(Clone)]
pub(crate) struct Hasher {
    threads: mpsc::Sender<Work>,
    turns: Arc<Semaphore>,
    turn: Duration,
}

impl Hasher {
    /// As many at a time as there are cores, at most four.
    pub(crate) fn new() -> Hasher {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Hasher::with(cores.min(4), TURN)
    }

    fn with(count: usize, turn: Duration) -> Hasher {
        let (threads, work) = mpsc::channel::<Work>();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..count {
            let work = work.clone();
            // They end with the last Hasher.
            std::thread::spawn(move || {
                let mut memory = Memory(Vec::new());
                while next(&work, &mut memory) {}
            });
        }
        Hasher { threads, turns: Arc::new(Semaphore::new(count)), turn }
    }

    /// The password's hash as a PHC string, with a new salt.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, RdbError> {
        let password = password.to_owned();
        let hashed = self.run(move |memory| memory.hash(password.as_bytes())).await?;
        hashed.map(|hash| hash.to_string()).map_err(|error| RdbError::corrupt("a password", error))
    }

    /// Whether the password has this hash. Without a hash it takes as long and says no, so that nobody can tell
    /// from the time taken whether an account exists.
    pub(crate) async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool, RdbError> {
        let password = password.to_owned();
        let verified = self.run(move |memory| match hash {
            Some(hash) => {
                let hash =
                    PasswordHash::new(&hash).map_err(|error| RdbError::corrupt("a password hash", error))?;
                let verified = memory.verify(password.as_bytes(), &hash);
                verified.map_err(|error| RdbError::corrupt("a password hash", error))
            }
            None => {
                let hashed = memory.hash(password.as_bytes());
                hashed.map(|_| false).map_err(|error| RdbError::corrupt("a password", error))
            }
        });
        verified.await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, RdbError> {
        let turn = tokio::time::timeout(self.turn, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(RdbError::Busy) };
        let (done, answer) = oneshot::channel();
        // The turn moves into the thread: a caller that goes away does not free it before the work ends.
        let work = Box::new(move |memory: &mut Memory| {
            // Nobody may be waiting any more.
            let _ = done.send(work(memory));
            drop(turn);
        });
        // The threads live as long as this; if one could not be had, nobody answers.
        let _ = self.threads.send(work);
        answer.await.map_err(|error| RdbError::corrupt("the password thread", error))
    }
}

/// Waits for work and does it; false when none will come any more.
fn next(work: &Mutex<mpsc::Receiver<Work>>, memory: &mut Memory) -> bool {
    let work = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
    // Who waits for the answer is told by its absence; the thread lives on.
    work.map(|work| drop(catch_unwind(AssertUnwindSafe(|| work(memory))))).is_ok()
}

/// What argon2 fills; kept from hash to hash, as large as the largest has been.
struct Memory(Vec<Block>);

impl Memory {
    fn hash(&mut self, password: &[u8]) -> password_hash::Result<PasswordHash> {
        let argon2 = Argon2::default();
        let salt = Salt::generate();
        let output = self.output(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN)?;
        Ok(PasswordHash {
            algorithm: Algorithm::default().ident(),
            version: Some(Version::default().into()),
            params: ParamsString::try_from(argon2.params())?,
            salt: Some(salt),
            hash: Some(output),
        })
    }

    /// Whether the password has this hash, which may have been made with other parameters than are used now.
    fn verify(&mut self, password: &[u8], hash: &PasswordHash) -> password_hash::Result<bool> {
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
            return Err(Error::PasswordInvalid);
        };
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 =
            Argon2::new(Algorithm::try_from(hash.algorithm.as_str())?, version, Params::try_from(hash)?);
        // Outputs are compared in constant time.
        Ok(self.output(&argon2, password, salt, expected.len())? == *expected)
    }

    fn output(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        length: usize,
    ) -> password_hash::Result<Output> {
        let blocks = argon2.params().block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::default());
        }
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(Error::OutputSize)?;
        argon2.hash_password_into_with_memory(password, salt, output, &mut self.0)?;
        Ok(Output::new(output)?)
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
        let hasher = Hasher::with(1, Duration::from_millis(10));
        let _taken = hasher.turns.clone().acquire_owned().await.expect("a turn");
        assert_eq!(hasher.hash("x").await, Err(RdbError::Busy));
    }

    #[tokio::test]
    async fn passwords_are_hashed_on_no_more_threads_than_there_are_turns() {
        let hasher = Hasher::with(2, TURN);
        let seen = (0..40).map(|_| hasher.run(|_| std::thread::current().id()));
        let threads: std::collections::HashSet<_> =
            futures::future::join_all(seen).await.into_iter().map(|id| id.expect("an answer")).collect();
        assert!(threads.len() <= 2, "{threads:?}");
        assert!(!threads.contains(&std::thread::current().id()));
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_the_thread_lives_on() {
        let hasher = Hasher::with(1, TURN);
        assert!(hasher.run(|_| -> () { panic!("as a test") }).await.is_err());
        assert_eq!(hasher.run(|_| 7).await, Ok(7));
    }
}
