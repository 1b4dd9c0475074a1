//! A migrator pod as a process: this test program started once more, so that it is of the same build as the test and can
//! be killed and stopped as any process. Knows operating system processes and who stands at which failpoint; no Jobs.
#![allow(clippy::print_stdout, reason = "a pod tells the test where it stands")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fortia_common::boot::{Boot, Service, var};
use fortia_common::failpoint::{Action, Failpoints, NAMES, VARIABLE};
use fortia_migrator::{Job, Work, run};
use tokio::runtime::{Handle, Runtime};

/// Says to this program that it is a pod: how many milliseconds it is patient for.
const PATIENCE: &str = "FORTIA_TEST_POD_PATIENCE";
/// Lines of a pod that are for the test begin so; what it is told has no such beginning.
const TELLS: &str = "pod: ";
/// With what a pod ends whose work could not be done.
const FAILED: i32 = 1;

/// What is armed in a pod. The test has points of the same names that stand in for the pod's: there it hears who has come
/// by, and when it disarms them the pod's are disarmed.
#[derive(Clone, Default)]
pub(crate) struct Armed {
    text: String,
    here: Failpoints,
}

impl Armed {
    /// Arms these points, each with what is to happen in the pod, in the words of the environment.
    pub(crate) fn new(points: &[(&str, &str)], here: &Failpoints) -> Armed {
        for (name, _) in points {
            here.arm(name, Action::Stop).expect("a point");
        }
        let text: Vec<String> = points.iter().map(|(name, action)| format!("{name}={action}")).collect();
        Armed { text: text.join(";"), here: here.clone() }
    }
}

/// A pod that runs; killed when dropped. One whose test is gone ends by itself: its pipe has an end.
pub(crate) struct Process {
    child: Child,
    /// Hears the pod until it ends; then why it says it did.
    ears: Option<JoinHandle<String>>,
}

impl Process {
    /// Starts a pod that boots from its environment, as in a cluster.
    pub(crate) fn spawn(boot: &Boot, job: &Job, armed: Armed) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "process::pod", "--ignored", "--nocapture", "--test-threads", "1"]);
        environment(&mut command, boot, job);
        command.env(VARIABLE, &armed.text);
        let log = std::env::var("FORTIA_TEST_LOG").ok();
        command.env(var::LOG, log.as_deref().unwrap_or("error"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(if log.is_some() { Stdio::inherit() } else { Stdio::null() });
        let mut child = command.spawn().expect("this program starts");
        let (tells, told) = (child.stdout.take().expect("a pipe"), child.stdin.take().expect("a pipe"));
        let (runtime, is_loud) = (Handle::current(), log.is_some());
        let ears = std::thread::spawn(move || hear(tells, told, &armed.here, &runtime, is_loud));
        Process { child, ears: Some(ears) }
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<Result<(), String>> {
        let status = self.child.try_wait().expect("a child")?;
        let why = self.ears.take().and_then(|ears| ears.join().ok()).unwrap_or_default();
        Some(if status.success() { Ok(()) } else { Err(format!("{status}: {why}")) })
    }

    /// Stops it in the middle of whatever it does (SIGSTOP): what it holds it goes on holding.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {}", self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment(command: &mut Command, boot: &Boot, job: &Job) {
    let work = match job.work {
        Work::Copy => "Copying",
        Work::CatchUp => "CatchingUp",
        Work::Collect => "Collecting",
    };
    let number = |n: u128| n.to_string();
    command.env(PATIENCE, number(job.patience.as_millis()));
    command.env(var::INSTANCE, &boot.instance).env(var::CLUSTER, &boot.cluster);
    command
        .env(var::CONTROL_DB, &boot.control_db)
        .env(var::LISTEN, "127.0.0.1:0")
        .env(var::ADMIN, "127.0.0.1:0");
    command.env("FORTIA_PHASE", work).env("FORTIA_FROM", job.from.to_string());
    command.env("JOB_COMPLETION_INDEX", job.index.to_string());
    command.env("FORTIA_PARALLELISM", job.parallelism.to_string());
    command.env("FORTIA_READ_LATENCY", number(job.read_latency.unwrap_or_default().as_millis()));
    let lost: Vec<String> = job.lost.iter().map(u32::to_string).collect();
    command.env("FORTIA_LOST", lost.join(","));
}

/// Hears a pod until it ends: who came to a point waits there for as long as the point of the test is armed.
fn hear(tells: ChildStdout, told: ChildStdin, here: &Failpoints, runtime: &Handle, is_loud: bool) -> String {
    let told = Arc::new(Mutex::new(told));
    let mut why = String::new();
    for line in BufReader::new(tells).lines().map_while(Result::ok) {
        match line.strip_prefix(TELLS).and_then(|told| told.split_once(' ')) {
            Some(("stands", point)) => {
                let point = NAMES.iter().find(|name| **name == point).expect("a point");
                let (here, told) = (here.clone(), Arc::clone(&told));
                runtime.spawn(async move {
                    let _ = here.pass(point).await;
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    // A pod that was killed meanwhile hears nothing.
                    let _ = writeln!(told, "{point}");
                });
            }
            Some(("failed", reason)) => reason.clone_into(&mut why),
            _ if is_loud => println!("{line}"),
            _ => {}
        }
    }
    why
}

fn tell(what: &str) {
    // The test's name stands on this line.
    println!("\n{TELLS}{what}");
}

/// Not a test: what a pod of these tests is started as.
#[test]
#[ignore = "a pod of the other tests"]
fn pod() {
    let Some(patience) = std::env::var(PATIENCE).ok().and_then(|ms| ms.parse().ok()) else { return };
    let boot = Boot::from_env(Service::Migrator).expect("an environment to boot from");
    let mut job = Job::from_env().expect("work");
    job.patience = Duration::from_millis(patience);
    let failpoints = Failpoints::from_env().expect("points");
    let told = failpoints.clone();
    std::thread::spawn(move || {
        for point in std::io::stdin().lines().map_while(Result::ok) {
            told.disarm(&point);
        }
        std::process::exit(FAILED);
    });
    Runtime::new().expect("a runtime").block_on(async {
        let _log = fortia_log::init(&boot);
        for name in NAMES {
            let points = failpoints.clone();
            tokio::spawn(async move {
                points.reached(name).await;
                tell(&format!("stands {name}"));
            });
        }
        if let Err(error) = run(&boot, &job, &failpoints, |_| ()).await {
            tell(&format!("failed {error}"));
            std::process::exit(error.ending().map_or(FAILED, |ending| i32::from(ending.code())));
        }
    });
}
