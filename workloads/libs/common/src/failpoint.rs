//! Points in the programs at which a test, or a person who studies faults, can make them end, wait or fail. Knows the
//! points' names and what can happen at them, not what the programs do there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Environment value: `name=action;name=action@3`, with `@3` only at the third passing.
pub const VARIABLE: &str = "FORTIA_FAILPOINTS";
/// With what a process ends at a point armed with `exit`.
pub const EXIT_STATUS: i32 = 86;

/// All points there are.
pub const NAMES: &[&str] = &[
    "pod.started",
    "copying.attempted",
    "copying.page_read",
    "copying.batch_carried",
    "copying.checkpointed",
    "copying.done",
    "catching_up.read",
    "catching_up.carried",
    "catching_up.cleaned",
    "verifying.forward",
    "verifying.backward",
    "verifying.mended",
    "verifying.proven",
    "collecting.batch",
    "cutover.lag",
    "cutover.frozen",
    "cutover.drained",
    "cutover.turned",
    "cutover.flipped",
    "cutover.retreated",
    "noting.done",
    "rebalance.recorded",
    "rebalance.acted",
];

/// What happens at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once, with status 86.
    Exit,
    /// Whoever passes waits for so long, or until the point is disarmed.
    Pause(Duration),
    /// Whoever passes waits until the point is disarmed.
    Stop,
    /// Whoever passes is told to fail.
    Fail,
}

/// A point told whoever passed to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {0}")]
pub struct Failed(pub &'static str);

/// Why a point cannot be armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailpointError {
    /// There is no such point.
    #[error("there is no failpoint {0}")]
    Unknown(String),
    /// The action cannot be understood.
    #[error(
        "{0:?} is no failpoint: write name=exit, name=fail, name=stop or name=pause:100, perhaps with @3 behind"
    )]
    Malformed(String),
}

/// The points of a process, or of the part of it that a test looks at. Clones share what is armed.
#[derive(Clone, Debug, Default)]
pub struct Failpoints(Arc<Points>);

#[derive(Debug, Default)]
struct Points {
    /// So that a point of which nothing is wanted costs one look at a number.
    armed: AtomicUsize,
    points: Mutex<HashMap<&'static str, Armed>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    action: Action,
    /// Acts only at this passing; 0: at all.
    at: u64,
    passed: u64,
}

impl Failpoints {
    /// What the process's environment arms.
    ///
    /// # Errors
    /// When it names no point or no action.
    pub fn from_env() -> Result<Failpoints, FailpointError> {
        Failpoints::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    /// What a text in the environment's form arms.
    ///
    /// # Errors
    /// As [`Failpoints::from_env`].
    pub fn parse(text: &str) -> Result<Failpoints, FailpointError> {
        let points = Failpoints::default();
        for one in text.split(';').map(str::trim).filter(|one| !one.is_empty()) {
            let malformed = || FailpointError::Malformed(one.to_owned());
            let (name, action) = one.split_once('=').ok_or_else(malformed)?;
            let (action, at) = match action.split_once('@') {
                Some((action, at)) => (action, at.parse().map_err(|_| malformed())?),
                None => (action, 0),
            };
            let action = match (action, action.strip_prefix("pause:")) {
                ("exit", _) => Action::Exit,
                ("stop", _) => Action::Stop,
                ("fail", _) => Action::Fail,
                (_, Some(ms)) => Action::Pause(Duration::from_millis(ms.parse().map_err(|_| malformed())?)),
                _ => return Err(malformed()),
            };
            points.arm_at(name, action, at)?;
        }
        Ok(points)
    }

    /// Lets this happen at every passing of the point from now on.
    ///
    /// # Errors
    /// When there is no such point.
    pub fn arm(&self, name: &str, action: Action) -> Result<(), FailpointError> {
        self.arm_at(name, action, 0)
    }

    /// Lets this happen at one passing of the point alone, counted from 1; 0: at every one.
    ///
    /// # Errors
    /// When there is no such point.
    pub fn arm_at(&self, name: &str, action: Action, at: u64) -> Result<(), FailpointError> {
        let known = NAMES.iter().find(|known| **known == name);
        let name = known.ok_or_else(|| FailpointError::Unknown(name.to_owned()))?;
        let mut points = self.points();
        points.insert(name, Armed { action, at, passed: 0 });
        self.0.armed.store(points.len(), Ordering::Release);
        drop(points);
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Lets nothing happen there any more; who waits there goes on.
    pub fn disarm(&self, name: &str) {
        let mut points = self.points();
        points.remove(name);
        self.0.armed.store(points.len(), Ordering::Release);
        drop(points);
        self.0.changed.notify_waiters();
    }

    /// Waits until somebody has come to a point since it was armed. Never ends for a point that is not armed.
    pub async fn reached(&self, name: &str) {
        self.until(|points| points.get(name).is_some_and(|armed| armed.passed > 0)).await;
    }

    /// Passes a point.
    ///
    /// # Errors
    /// When it is armed so.
    pub async fn pass(&self, name: &'static str) -> Result<(), Failed> {
        if self.0.armed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let action = {
            let mut points = self.points();
            let Some(armed) = points.get_mut(name) else { return Ok(()) };
            armed.passed += 1;
            (armed.at == 0 || armed.at == armed.passed).then_some(armed.action)
        };
        self.0.changed.notify_waiters();
        let disarmed = self.until(|points| !points.contains_key(name));
        match action {
            None => {}
            Some(Action::Fail) => return Err(Failed(name)),
            Some(Action::Exit) => std::process::exit(EXIT_STATUS),
            Some(Action::Stop) => disarmed.await,
            Some(Action::Pause(time)) => drop(tokio::time::timeout(time, disarmed).await),
        }
        Ok(())
    }

    async fn until(&self, holds: impl Fn(&HashMap<&'static str, Armed>) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that what changes right after it is not missed.
            changed.as_mut().enable();
            if holds(&self.points()) {
                return;
            }
            changed.await;
        }
    }

    fn points(&self) -> MutexGuard<'_, HashMap<&'static str, Armed>> {
        self.0.points.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_point_of_which_nothing_is_wanted_is_passed() {
        assert_eq!(Failpoints::default().pass("pod.started").await, Ok(()));
    }

    #[tokio::test]
    async fn a_point_may_fail_at_its_third_passing_alone() {
        let points = Failpoints::parse("pod.started=fail@3; copying.done=pause:1").expect("points");
        let mut passed = Vec::new();
        for _ in 0..4 {
            passed.push(points.pass("pod.started").await.is_ok());
        }
        assert_eq!(passed, [true, true, false, true]);
    }

    #[tokio::test]
    async fn whoever_stops_at_a_point_goes_on_when_it_is_disarmed() {
        let points = Failpoints::default();
        points.arm("cutover.frozen", Action::Stop).expect("a point");
        let passes = tokio::spawn({
            let points = points.clone();
            async move { points.pass("cutover.frozen").await }
        });
        points.reached("cutover.frozen").await;
        assert!(!passes.is_finished());
        points.disarm("cutover.frozen");
        assert_eq!(passes.await.expect("passes"), Ok(()));
    }

    #[test]
    fn names_and_actions_that_do_not_exist_are_refused() {
        assert_eq!(Failpoints::parse("x=exit").err(), Some(FailpointError::Unknown("x".into())));
        for text in ["pod.started", "pod.started=burn", "pod.started=pause:x", "pod.started=exit@x"] {
            assert_eq!(Failpoints::parse(text).err(), Some(FailpointError::Malformed(text.into())), "{text}");
        }
    }
}
