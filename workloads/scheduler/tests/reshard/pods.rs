//! Migrator pods of a Job: one an index, each a process of its own, started again when it ended badly. Knows nothing of
//! when which work is to be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fortia_common::boot::Boot;
use fortia_migrator::Job;

use crate::process::{Armed, Process};

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
    armed: BTreeMap<u32, Armed>,
    /// Why pods ended badly.
    failures: Vec<String>,
    not_before: Option<Instant>,
}

struct Pod {
    index: u32,
    process: Process,
}

impl Pod {
    fn start(boot: &Boot, job: &Job, index: u32, armed: Armed) -> Pod {
        Pod { index, process: Process::spawn(boot, &Job { index, ..job.clone() }, armed) }
    }
}

impl Pods {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms points in the next pod of an index.
    pub(crate) fn arm(&self, index: u32, armed: Armed) {
        self.state().armed.insert(index, armed);
    }

    /// Keeps the Job running with so many pods: starts those that are missing. True when all have succeeded.
    pub(crate) fn keep(&self, boot: &Boot, job: &Job, pods: u32) -> bool {
        let mut state = self.state();
        if state.job.as_ref().is_none_or(|(known, _)| known.work != job.work || known.from != job.from) {
            state.forget();
            state.job = Some((job.clone(), pods));
        }
        for mut pod in std::mem::take(&mut state.pods) {
            match pod.process.ended() {
                None => state.pods.push(pod),
                Some(outcome) => {
                    match outcome {
                        Ok(()) => drop(state.succeeded.insert(pod.index, ())),
                        Err(error) => state.failures.push(format!("{}: {error}", pod.index)),
                    }
                    state.not_before = Some(Instant::now() + BACKOFF);
                }
            }
        }
        if state.not_before.is_none_or(|time| time <= Instant::now()) {
            for index in 0..pods {
                if !state.succeeded.contains_key(&index) && !state.pods.iter().any(|pod| pod.index == index) {
                    let armed = state.armed.remove(&index).unwrap_or_default();
                    state.pods.push(Pod::start(boot, job, index, armed));
                }
            }
        }
        state.succeeded.len() == pods as usize
    }

    /// Kills a pod (SIGKILL), as the end of its machine would.
    pub(crate) fn kill(&self, index: u32) {
        let mut state = self.state();
        state.pods.retain(|pod| pod.index != index);
        state.not_before = Some(Instant::now() + BACKOFF);
    }

    /// Stops all pods of an index (SIGSTOP), or lets them go on (SIGCONT).
    pub(crate) fn stop(&self, index: u32, stopped: bool) {
        for pod in self.state().pods.iter().filter(|pod| pod.index == index) {
            if stopped { pod.process.pause() } else { pod.process.resume() }
        }
    }

    /// Starts another pod of an index beside the one that runs.
    pub(crate) fn double(&self, boot: &Boot, index: u32) {
        let mut state = self.state();
        if let Some((job, _)) = state.job.clone() {
            state.pods.push(Pod::start(boot, &job, index, Armed::default()));
        }
    }

    /// Ends all pods and forgets the Job; what is armed is for the next.
    pub(crate) fn clear(&self) {
        self.state().forget();
    }

    /// Why pods ended badly.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }
}

impl State {
    /// All but what is armed for the next pods.
    fn forget(&mut self) {
        *self = State { armed: std::mem::take(&mut self.armed), ..State::default() };
    }
}
