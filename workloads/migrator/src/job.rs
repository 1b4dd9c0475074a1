//! What the pod is to do, as the Job's environment says. Knows names of values; reads nothing else.

use std::time::Duration;

/// How long a pod waits for the scheduler to set the guards: the operator may start it a little early.
const PATIENCE: Duration = Duration::from_secs(60);

const PHASE: &str = "FORTIA_PHASE";
const FROM: &str = "FORTIA_FROM";
const INDEX: &str = "JOB_COMPLETION_INDEX";
const PARALLELISM: &str = "FORTIA_PARALLELISM";
const READ_LATENCY: &str = "FORTIA_READ_LATENCY";
const LOST: &str = "FORTIA_LOST";

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Copy, catch up, verify.
    Copy,
    /// Catch up and verify: the target was served before, and what was written since is noted.
    CatchUp,
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
    /// Sources copied from at once.
    pub parallelism: u32,
    /// What a read of a busy server may take; none: the work is not throttled.
    pub read_latency: Option<Duration>,
    /// Shards of which nothing is left to unlink: they were lost with their volumes.
    pub lost: Vec<u32>,
    /// Longest wait for guards to be as the work needs them.
    pub patience: Duration,
}

/// Why the environment names no work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobError {
    /// The phase is absent or has no work for a migrator.
    #[error("environment value {PHASE}={0:?} is no work: set it to Copying, CatchingUp or Collecting")]
    Phase(String),
    /// A number is absent or none.
    #[error("environment value {0}={1:?} is not a number: set it to {2}")]
    Number(&'static str, String, &'static str),
}

impl Job {
    /// The work on one shard, not throttled, with all sources at once.
    pub fn new(work: Work, from: u64, index: u32) -> Job {
        Job {
            work,
            from,
            index,
            parallelism: u32::MAX,
            read_latency: None,
            lost: Vec::new(),
            patience: PATIENCE,
        }
    }

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
            "CatchingUp" => Work::CatchUp,
            "Collecting" => Work::Collect,
            other => return Err(JobError::Phase(other.to_owned())),
        };
        let from = number(FROM, value(FROM), "the version to copy or unlink")?;
        let index = number(INDEX, value(INDEX), "the shard (Indexed Jobs do)")?;
        let mut job = Job::new(work, from, index);
        if let Some(text) = get(PARALLELISM) {
            job.parallelism = number::<u32>(PARALLELISM, text, "how many sources are copied at once")?.max(1);
        }
        if let Some(text) = get(READ_LATENCY) {
            let latency = number(READ_LATENCY, text, "milliseconds a read may take, or leave it out")?;
            job.read_latency = (latency > 0).then(|| Duration::from_millis(latency));
        }
        for text in value(LOST).split(',').filter(|text| !text.is_empty()) {
            job.lost.push(number(LOST, text.to_owned(), "shards like 2,3, or leave it out")?);
        }
        Ok(job)
    }
}

fn number<T: std::str::FromStr>(name: &'static str, text: String, what: &'static str) -> Result<T, JobError> {
    text.parse().map_err(|_| JobError::Number(name, text, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(values: &[(&str, &str)]) -> Result<Job, JobError> {
        Job::from(|name| values.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn plain(phase: &str, from: &str, index: &str) -> Result<Job, JobError> {
        job(&[(PHASE, phase), (FROM, from), (INDEX, index)])
    }

    #[test]
    fn the_environment_of_an_indexed_job_names_the_work() {
        assert_eq!(plain("Collecting", "4", "2"), Ok(Job::new(Work::Collect, 4, 2)));
        assert_eq!(plain("CatchingUp", "4", "0"), Ok(Job::new(Work::CatchUp, 4, 0)));
        let lost = [(PHASE, "Collecting"), (FROM, "4"), (INDEX, "2"), (LOST, "2,3")];
        assert_eq!(job(&lost).map(|job| job.lost), Ok(vec![2, 3]));
        let throttled =
            [(PHASE, "Copying"), (FROM, "4"), (INDEX, "2"), (PARALLELISM, "3"), (READ_LATENCY, "2")];
        let wanted = Job {
            parallelism: 3,
            read_latency: Some(Duration::from_millis(2)),
            ..Job::new(Work::Copy, 4, 2)
        };
        assert_eq!(job(&throttled), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_with_the_environment_is_said_with_what_to_set() {
        assert_eq!(plain("Retaining", "4", "2"), Err(JobError::Phase("Retaining".into())));
        let error = plain("Copying", "v4", "2").expect_err("no number").to_string();
        assert!(error.contains("FORTIA_FROM=\"v4\"") && error.contains("the version"), "{error}");
        assert!(plain("Copying", "4", "").is_err());
        assert!(job(&[(PHASE, "Collecting"), (FROM, "4"), (INDEX, "2"), (LOST, "2;3")]).is_err());
        let error = job(&[(PHASE, "Copying"), (FROM, "4"), (INDEX, "2"), (READ_LATENCY, "2ms")]);
        assert!(error.expect_err("no number").to_string().contains("milliseconds"));
    }
}
