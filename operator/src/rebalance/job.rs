//! What a Job's status means for the re-sharding. Pure.

use fortia_common::ending::Ending;
use k8s_openapi::api::batch::v1::{Job, JobCondition};

/// How a Job stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// There is none.
    #[default]
    Absent,
    /// It is being deleted; its pods may still run.
    Going,
    /// It runs.
    Running,
    /// All its pods succeeded.
    Complete,
    /// It gave up.
    Failed(String),
    /// It was failed at once: one of its pods ended in a way that trying again does not mend.
    Hopeless(Ending, String),
}

/// Reason of a Job that its pods' failure policy has failed.
const BY_POLICY: &str = "PodFailurePolicy";

impl JobState {
    /// Reads a Job.
    pub fn of(job: Option<&Job>) -> JobState {
        let Some(job) = job else { return JobState::Absent };
        if job.metadata.deletion_timestamp.is_some() {
            return JobState::Going;
        }
        let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        for condition in conditions.iter().filter(|c| c.status == "True") {
            match condition.type_.as_str() {
                "Complete" => return JobState::Complete,
                "Failed" => {
                    let message = condition.message.clone().or_else(|| condition.reason.clone());
                    let why = message.unwrap_or_else(|| "no reason given".into());
                    return match ending(condition) {
                        Some(ending) => JobState::Hopeless(ending, why),
                        None => JobState::Failed(why),
                    };
                }
                _ => {}
            }
        }
        JobState::Running
    }
}

/// How the pod ended by which a Job was failed at once. Kubernetes tells its exit code in words only, like
/// `Container migrator for pod worlds/midgard-v2-migrate-0-x failed with exit code 41 matching FailJob rule at index 1`.
fn ending(condition: &JobCondition) -> Option<Ending> {
    condition.reason.as_ref().filter(|reason| *reason == BY_POLICY)?;
    let (_, after) = condition.message.as_ref()?.split_once("exit code ")?;
    Ending::of(after.split(' ').next()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(condition: &str) -> Job {
        let text =
            format!("{{status: {{conditions: [{{type: {condition}, status: 'True', message: why}}]}}}}");
        serde_yaml::from_str(&text).expect("job")
    }

    #[test]
    fn a_job_at_its_backoff_limit_has_failed_and_says_why() {
        assert_eq!(JobState::of(Some(&job("Failed"))), JobState::Failed("why".into()));
        assert_eq!(JobState::of(Some(&job("Complete"))), JobState::Complete);
        assert_eq!(JobState::of(Some(&job("FailureTarget"))), JobState::Running);
        assert_eq!(JobState::of(None), JobState::Absent);
    }

    #[test]
    fn a_job_failed_by_the_exit_code_of_a_pod_says_how_that_ended() {
        let failed = |reason: &str, code: u8| {
            let message = format!(
                "Container migrator for pod w/m-v2-migrate-0-x failed with exit code {code} matching FailJob rule at index 1"
            );
            let text = format!(
                "{{status: {{conditions: [{{type: Failed, status: 'True', reason: {reason}, message: '{message}'}}]}}}}"
            );
            (JobState::of(Some(&serde_yaml::from_str(&text).expect("job"))), message)
        };
        for ending in Ending::ALL {
            let (state, message) = failed("PodFailurePolicy", ending.code());
            assert_eq!(state, JobState::Hopeless(ending, message));
        }
        let (state, message) = failed("PodFailurePolicy", 1);
        assert_eq!(state, JobState::Failed(message));
        let (state, message) = failed("BackoffLimitExceeded", 41);
        assert_eq!(state, JobState::Failed(message));
    }
}
