//! One server process on a free loopback port with a folder of its own. Knows how to find, start, stop, end and start it
//! again where it was; nothing of what is in it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fortia_common::functions::LIBRARY;

/// Longest time until a server answers.
const START: Duration = Duration::from_secs(10);

/// A running server; ends when dropped.
pub struct TestServer {
    child: Child,
    port: u16,
    options: Vec<String>,
    folder: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server with Fortia's functions loaded and nothing else in it.
    ///
    /// The program is the command line in `FORTIA_TEST_REDIS`, else `valkey-server` or `redis-server` in `PATH`.
    pub async fn start() -> TestServer {
        TestServer::start_with(&[]).await
    }

    /// As [`TestServer::start`], with options more: `["--appendonly", "yes"]`.
    pub async fn start_with(options: &[&str]) -> TestServer {
        let server = TestServer::spawn(options.iter().map(|option| (*option).to_owned()).collect());
        server.load_functions().await;
        server
    }

    async fn load_functions(&self) {
        let mut connection = self.connect().await;
        let loaded: redis::RedisResult<String> =
            redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY).query_async(&mut connection).await;
        loaded.unwrap_or_else(|error| panic!("the function library does not load: {error}"));
    }

    fn spawn(options: Vec<String>) -> TestServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Another process may take the port between our look and the server's start: then look again.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(port, folder.path(), &options);
            if answers(port, &mut child) {
                return TestServer { child, port, options, folder };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("no Redis server starts; its log:\n{}", log(folder.path()));
    }

    /// `host:port` of the server.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection with all rights.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}", self.address())).expect("a loopback address");
        client.get_multiplexed_async_connection().await.expect("the server takes connections")
    }

    /// Runs one command with all rights and returns its answer.
    pub async fn run<T: redis::FromRedisValue>(&self, arguments: &[&str]) -> T {
        let mut command = redis::cmd(arguments[0]);
        command.arg(&arguments[1..]);
        let answer = command.query_async(&mut self.connect().await).await;
        answer.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Starts a replica of this server, with options of its own, and waits until it has caught up.
    pub async fn replica(&self, options: &[&str]) -> TestServer {
        let replica = TestServer::start_with(options).await;
        replica.follow(self).await;
        replica
    }

    /// Makes this server a replica of another and waits until it has caught up.
    pub async fn follow(&self, primary: &TestServer) {
        let port = primary.port.to_string();
        self.run::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
        let begun = Instant::now();
        while !self.run::<String>(&["INFO", "replication"]).await.contains("master_link_status:up") {
            assert!(begun.elapsed() < START, "the replica does not catch up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The file that its writes are appended to, with `--appendonly yes`; none of these tests' is long enough to be
    /// written anew.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("appendonlydir").join("appendonly.aof.1.incr.aof")
    }

    /// The process of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again after [`TestServer::kill`], on its port and in its folder: with what its disk kept,
    /// which without `--appendonly yes` is nothing.
    pub fn restart(&mut self) {
        // Its port may still be held for a moment by what it was connected to.
        for _ in 0..50 {
            self.child = spawn(self.port, self.folder.path(), &self.options);
            if answers(self.port, &mut self.child) {
                return;
            }
            self.kill();
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not start again; its log:\n{}", log(self.folder.path()));
    }

    /// Stops the server in the middle of whatever it does (SIGSTOP).
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {}", self.address());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
    listener.local_addr().expect("its address").port()
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn spawn(port: u16, folder: &Path, options: &[String]) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log file");
    let mut command = program();
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &folder.to_string_lossy()]);
    command.args([
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--repl-diskless-sync-delay",
        "0",
    ]);
    command.args(options);
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    let spawned = command.spawn();
    spawned.unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program()))
}

fn program() -> Command {
    if let Ok(line) = std::env::var("FORTIA_TEST_REDIS")
        && !line.trim().is_empty()
    {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        return command;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["valkey-server", "redis-server"]
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    let name = found.unwrap_or_else(|| {
        panic!(
            "these tests need a Redis server: install the package valkey-server (or redis-server, 7.0 or newer), \
             or set FORTIA_TEST_REDIS to the command that starts one"
        )
    });
    Command::new(name)
}

/// Whether the server on this port becomes ours: it answers before it ends.
fn answers(port: u16, child: &mut Child) -> bool {
    use std::io::{Read, Write};
    let begun = Instant::now();
    while begun.elapsed() < START {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return false;
        }
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
            let mut answer = [0; 5];
            if stream.write_all(b"PING\r\n").is_ok()
                && stream.read_exact(&mut answer).is_ok()
                && &answer == b"+PONG"
            {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
