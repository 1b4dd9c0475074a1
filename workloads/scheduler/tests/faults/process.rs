//! Server processes: this test program started once more, as a scheduler or a ticker. So they are of the same build as
//! the test, and can be killed and paused as any process. Knows operating system processes, no ticks.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use fortia_common::boot::{Boot, Service, var};
use fortia_testredis::DataPlane;

/// Says to this program that it is a server.
const SERVICE: &str = "FORTIA_TEST_SERVICE";

/// A running server; killed when dropped.
pub(crate) struct Process {
    pub(crate) instance: String,
    child: Child,
}

impl Process {
    /// Starts a server that boots from its environment, as in a pod. `advertise` is where others find it.
    pub(crate) fn spawn(
        plane: &DataPlane,
        service: Service,
        instance: &str,
        listen: &str,
        advertise: &str,
    ) -> Process {
        let boot = plane.boot_as(service, instance);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "server_process", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(SERVICE, service.as_str());
        command.env(var::INSTANCE, instance).env(var::CLUSTER, boot.cluster);
        command.env(var::CONTROL_DB, boot.control_db).env(var::LISTEN, listen);
        command.env(var::ADMIN, "127.0.0.1:0").env(var::ADVERTISE, advertise);
        let log = std::env::var("FORTIA_TEST_LOG").ok();
        command.env(var::LOG, log.as_deref().unwrap_or("error"));
        // The pipe's end tells the process that the test is gone.
        command.stdin(Stdio::piped());
        if log.is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Process { instance: instance.to_owned(), child: command.spawn().expect("this program starts") }
    }

    /// Ends it as a crash would (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in the middle of whatever it does (SIGSTOP).
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Tells it to end in order (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {}", self.instance);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback address nobody listens on.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

/// The server this process was started as; returns at once when it was started as a test.
pub(crate) fn serve() {
    let Ok(service) = std::env::var(SERVICE) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let service = Service::ALL.into_iter().find(|known| known.as_str() == service).expect("a service");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let boot = Boot::from_env(service).expect("an environment to boot from");
        let log = fortia_log::init(&boot);
        match service {
            Service::Scheduler => fortia_scheduler::run(boot, &log).await.expect("scheduler runs"),
            Service::Ticker => fortia_ticker::run(boot, &log).await.expect("ticker runs"),
            other => panic!("{other} is no server of these tests"),
        }
    });
}
