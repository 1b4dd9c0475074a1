//! What a Job's status means for the re-sharding. Pure.

use k8s_openapi::api::batch::v1::Job;

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
}

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
                    return JobState::Failed(message.unwrap_or_else(|| "no reason given".into()));
                }
                _ => {}
            }
        }
        JobState::Running
    }
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
}
