//! Programs left running after this one ends: each has a folder entry with its pid, when it began, and a note. Ends
//! only what it started: a pid that has since gone to another process is left alone.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Why a program could not be left running, or ended.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// It could not be started.
    #[error("cannot start {0}: {1}; run `make build` first")]
    Start(PathBuf, io::Error),
    /// Its record could not be written or removed.
    #[error("cannot keep {0}: {1}")]
    Keep(PathBuf, io::Error),
    /// It does not end.
    #[error("process {0} ({1}) does not end")]
    Stays(u32, PathBuf),
}

/// Starts a program whose output goes to `<state>.log`, and remembers it.
///
/// # Errors
/// When it cannot be started or its record not be written.
pub fn start(state: &Path, program: &Path, arguments: &[&str], note: &str) -> Result<(), BackgroundError> {
    let log = state.with_extension("log");
    make_folder(state)?;
    let output = fs::File::create(&log).map_err(|error| BackgroundError::Keep(log.clone(), error))?;
    let errors = output.try_clone().map_err(|error| BackgroundError::Keep(log, error))?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| BackgroundError::Start(program.into(), error))?;
    remember(state, child.id(), note)
}

/// Remembers a running process.
///
/// # Errors
/// When its record cannot be written.
pub fn remember(state: &Path, pid: u32, note: &str) -> Result<(), BackgroundError> {
    make_folder(state)?;
    let began = began(pid).unwrap_or_default();
    fs::write(state, format!("{pid}\n{began}\n{note}\n"))
        .map_err(|error| BackgroundError::Keep(state.into(), error))
}

/// The note of a remembered process, if it still runs.
pub fn running(state: &Path) -> Option<String> {
    let (_, note) = alive(state)?;
    Some(note)
}

/// Ends a remembered process and waits until it is gone; nothing to do is fine.
///
/// # Errors
/// When it stays.
pub async fn stop(state: &Path) -> Result<(), BackgroundError> {
    if let Some((pid, _)) = alive(state) {
        // Without unsafe code there is no kill(2); the program of that name is on every Debian.
        let ended = Command::new("kill").arg(pid.to_string()).status();
        ended.map_err(|error| BackgroundError::Start("kill".into(), error))?;
        let mut patience = 100;
        while alive(state).is_some() {
            if patience == 0 {
                return Err(BackgroundError::Stays(pid, state.into()));
            }
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    remove(state)
}

/// Removes the folder of records.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(folder: &Path) -> Result<(), BackgroundError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackgroundError::Keep(folder.into(), error))
        }
        _ => Ok(()),
    }
}

fn remove(state: &Path) -> Result<(), BackgroundError> {
    match fs::remove_file(state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackgroundError::Keep(state.into(), error))
        }
        _ => Ok(()),
    }
}

fn make_folder(state: &Path) -> Result<(), BackgroundError> {
    let folder = state.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| BackgroundError::Keep(folder.into(), error))
}

fn alive(state: &Path) -> Option<(u32, String)> {
    let record = fs::read_to_string(state).ok()?;
    let mut lines = record.lines();
    let pid: u32 = lines.next()?.parse().ok()?;
    let same = began(pid)? == lines.next()?;
    same.then(|| (pid, lines.next().unwrap_or_default().to_owned()))
}

/// When a process began, in ticks since the machine did: with the pid it names a process for good. A zombie has ended.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split_whitespace();
    let running = fields.next()? != "Z";
    running.then(|| fields.nth(18).map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("fortia-background-{}", std::process::id())).join(name)
    }

    #[tokio::test]
    async fn a_remembered_process_runs_until_stopped() {
        let state = state("sleeper");
        start(&state, Path::new("sleep"), &["60"], "a note").expect("starts");
        assert_eq!(running(&state).as_deref(), Some("a note"));
        stop(&state).await.expect("stops");
        assert_eq!(running(&state), None);
    }

    #[tokio::test]
    async fn a_pid_that_went_to_another_process_is_left_alone() {
        let state = state("other");
        remember(&state, std::process::id(), "us").expect("remembers");
        let record = fs::read_to_string(&state).expect("record").replacen('\n', "\n9", 1);
        fs::write(&state, record).expect("changes");
        stop(&state).await.expect("does nothing");
        assert_eq!(running(&state), None);
    }
}
