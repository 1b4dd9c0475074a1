//! Migrator pods of a Job: one an index, each with a runtime of its own, so that it can be killed with all it does, and
//! started again when it ended badly. Knows nothing of when which work is to be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fortia_common::boot::Boot;
use fortia_common::failpoint::Failpoints;
use fortia_migrator::{Job, run};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Time from the end of a pod to the beginning of the next.
const BACKOFF: Duration = Duration::from_millis(200);

/// The pods of the Job that runs.
#[derive(Clone, Default)]
pub(crate) struct Pods(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    job: Option<(Job, u32)>,
    /// By index; more than one of an index is a fault.
    pods: Vec<Pod>,
    succeeded: BTreeMap<u32, ()>,
    /// For the next pod of this index.
    failpoints: BTreeMap<u32, Failpoints>,
    /// Why pods ended badly.
    failures: Vec<String>,
    not_before: Option<Instant>,
}

struct Pod {
    index: u32,
    _alone: Alone,
    task: JoinHandle<Result<(), String>>,
}

/// A runtime of its own for a program: dropped with all that runs in it, at once, as a killed process would be.
pub(crate) struct Alone(Option<Runtime>);

impl Alone {
    /// Runs a program by itself.
    pub(crate) fn run<T: Send + 'static>(
        program: impl Future<Output = T> + Send + 'static,
    ) -> (Alone, JoinHandle<T>) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let task = runtime.spawn(program);
        (Alone(Some(runtime)), task)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pod {
    fn start(boot: &Boot, job: &Job, failpoints: Failpoints) -> Pod {
        let (boot, job) = (boot.clone(), job.clone());
        let index = job.index;
        let (alone, task) = Alone::run(async move {
            let ended = run(&boot, &job, &failpoints, |_| ()).await;
            ended.map(drop).map_err(|error| error.to_string())
        });
        Pod { index, _alone: alone, task }
    }
}

impl Pods {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the next pod of an index these failpoints.
    pub(crate) fn arm(&self, index: u32, failpoints: Failpoints) {
        self.state().failpoints.insert(index, failpoints);
    }

    /// Keeps the Job running with so many pods: starts those that are missing. True when all have succeeded.
    pub(crate) async fn keep(&self, boot: &Boot, job: &Job, pods: u32) -> bool {
        let ended: Vec<Pod> = {
            let mut state = self.state();
            if state.job.as_ref().is_none_or(|(known, _)| known.work != job.work || known.from != job.from) {
                *state = State {
                    job: Some((job.clone(), pods)),
                    failpoints: std::mem::take(&mut state.failpoints),
                    ..State::default()
                };
            }
            state.pods.extract_if(.., |pod| pod.task.is_finished()).collect()
        };
        for mut pod in ended {
            let outcome = (&mut pod.task).await;
            let mut state = self.state();
            match outcome {
                Ok(Ok(())) => drop(state.succeeded.insert(pod.index, ())),
                Ok(Err(error)) => state.failures.push(format!("{}: {error}", pod.index)),
                Err(error) => state.failures.push(format!("{}: {error}", pod.index)),
            }
            state.not_before = Some(Instant::now() + BACKOFF);
        }
        let mut state = self.state();
        if state.not_before.is_none_or(|time| time <= Instant::now()) {
            for index in 0..pods {
                if !state.succeeded.contains_key(&index) && !state.pods.iter().any(|pod| pod.index == index) {
                    let failpoints = state.failpoints.remove(&index).unwrap_or_default();
                    state.pods.push(Pod::start(boot, &Job { index, ..job.clone() }, failpoints));
                }
            }
        }
        state.succeeded.len() == pods as usize
    }

    /// Kills a pod with all it does, as the end of its machine would.
    pub(crate) fn kill(&self, index: u32) {
        let mut state = self.state();
        state.pods.retain(|pod| pod.index != index);
        state.not_before = Some(Instant::now() + BACKOFF);
    }

    /// Starts another pod of an index beside the one that runs.
    pub(crate) fn double(&self, boot: &Boot, index: u32) {
        let mut state = self.state();
        if let Some((job, _)) = state.job.clone() {
            state.pods.push(Pod::start(boot, &Job { index, ..job }, Failpoints::default()));
        }
    }

    /// Ends all pods and forgets the Job; what is armed is for the next.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        *state = State { failpoints: std::mem::take(&mut state.failpoints), ..State::default() };
    }

    /// Why pods ended badly.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }
}
