//! One server process on a free loopback port with a folder of its own. Knows how to find, start and end it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fortia_common::functions::LIBRARY;

/// Longest time until a server answers.
const START: Duration = Duration::from_secs(10);

/// A running server; ends when dropped.
pub struct TestServer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server with Fortia's functions loaded and nothing else in it.
    ///
    /// The program is the command line in `FORTIA_TEST_REDIS`, else `valkey-server` or `redis-server` in `PATH`.
    pub async fn start() -> TestServer {
        let server = TestServer::spawn();
        let mut connection = server.connect().await;
        let loaded: redis::RedisResult<String> =
            redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY).query_async(&mut connection).await;
        loaded.unwrap_or_else(|error| panic!("the function library does not load: {error}"));
        server
    }

    fn spawn() -> TestServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Another process may take the port between our look and the server's start: then look again.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(port, folder.path());
            if answers(port, &mut child) {
                return TestServer { child, port, _folder: folder };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("no Redis server starts; its log:\n{log}");
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

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

fn spawn(port: u16, folder: &Path) -> Child {
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
