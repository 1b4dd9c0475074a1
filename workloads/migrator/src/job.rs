//! What the pod is to do, as the Job's environment says. Knows names of values; reads nothing else.

use std::time::Duration;

/// How long a pod waits for the scheduler to freeze the shards: the operator may start it a little early.
const PATIENCE: Duration = Duration::from_secs(60);

const PHASE: &str = "FORTIA_PHASE";
const FROM: &str = "FORTIA_FROM";
const INDEX: &str = "JOB_COMPLETION_INDEX";

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Copy, catch up, verify.
    Copy,
    /// Unlink.
    Collect,
}

/// One pod's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What to do.
    pub work: Work,
    /// The version copied from, or unlinked.
    pub from: u64,
    /// The shard worked on.
    pub index: u32,
    /// Longest wait for the shards to be frozen.
    pub patience: Duration,
}

/// Why the environment names no work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobError {
    /// The phase is absent or has no work for a migrator.
    #[error("environment value {PHASE}={0:?} is no work: set it to Copying or Collecting")]
    Phase(String),
    /// A number is absent or none.
    #[error("environment value {0}={1:?} is not a number: set it to {2}")]
    Number(&'static str, String, &'static str),
}

impl Job {
    /// Reads the process environment.
    ///
    /// # Errors
    /// When a value is missing or cannot be understood.
    pub fn from_env() -> Result<Job, JobError> {
        Job::from(|name| std::env::var(name).ok())
    }

    /// Reads values through `get`.
    ///
    /// # Errors
    /// As [`Job::from_env`].
    pub fn from(get: impl Fn(&str) -> Option<String>) -> Result<Job, JobError> {
        let value = |name| get(name).unwrap_or_default();
        let work = match value(PHASE).as_str() {
            "Copying" => Work::Copy,
            "Collecting" => Work::Collect,
            other => return Err(JobError::Phase(other.to_owned())),
        };
        let from = value(FROM);
        let from = from.parse().map_err(|_| JobError::Number(FROM, from, "the version to copy or unlink"))?;
        let index = value(INDEX);
        let index =
            index.parse().map_err(|_| JobError::Number(INDEX, index, "the shard (Indexed Jobs do)"))?;
        Ok(Job { work, from, index, patience: PATIENCE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(phase: &str, from: &str, index: &str) -> Result<Job, JobError> {
        let values = [(PHASE, phase), (FROM, from), (INDEX, index)];
        Job::from(|name| values.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_of_an_indexed_job_names_the_work() {
        let wanted = Job { work: Work::Collect, from: 4, index: 2, patience: PATIENCE };
        assert_eq!(job("Collecting", "4", "2"), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_with_the_environment_is_said_with_what_to_set() {
        assert_eq!(job("Retaining", "4", "2"), Err(JobError::Phase("Retaining".into())));
        let error = job("Copying", "v4", "2").expect_err("no number").to_string();
        assert!(error.contains("FORTIA_FROM=\"v4\"") && error.contains("the version"), "{error}");
        assert!(job("Copying", "4", "").is_err());
    }
}
