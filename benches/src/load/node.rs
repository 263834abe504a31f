//! A node under load: the release program as a child process, with a data directory and ports of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Error;
use super::http::Client;
use crate::process::Process;

/// How long the program may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to stop when asked; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(12);
/// How often a child that was asked to stop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running node. Dropped, it is stopped, and its data is deleted.
pub struct Node {
    child: Child,
    _data: TempDir,
    /// Where it listens for HTTP and WebSocket.
    pub http: SocketAddr,
    mqtt: Option<SocketAddr>,
}

impl Node {
    /// Starts `program` with a data directory, and its log, under `within`. Blocks until it is ready.
    pub fn start(program: &Path, within: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(within)?;
        let data = TempDir::with_prefix_in("data-", within)?;
        let mut child = Command::new(program)
            .args([
                "--name",
                "load",
                "--http",
                "127.0.0.1:0",
                "--mqtt",
                "127.0.0.1:0",
                "--peer",
                "127.0.0.1:0",
            ])
            .arg("--data")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(within.join("node.log"))?)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let stdout = child.stdout.take().ok_or("the child has no standard output")?;
        let (found, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An error reads like an end: a line that is not `ready`.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = found.send(line);
        });
        let line = line.recv_timeout(READY_WITHIN).unwrap_or_default();
        let address = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.and_then(|word| word.parse::<SocketAddr>().ok())
        };
        let (http, mqtt) = (address("http="), address("mqtt="));
        let Some(http) = http.filter(|_| line.starts_with("ready ")) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(within.join("node.log")).unwrap_or_default();
            return Err(format!("the node did not get ready; it said {line:?} and {log}").into());
        };
        Ok(Self { child, _data: data, http, mqtt })
    }

    /// Where it listens for MQTT.
    pub fn mqtt(&self) -> Result<SocketAddr, Error> {
        self.mqtt.ok_or_else(|| "the node does not listen for MQTT".into())
    }

    /// Its process.
    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Samples that it has stored since it started.
    pub fn stored(&self) -> Result<u64, Error> {
        let metrics = Client::connect(self.http)?.get("/metrics")?;
        let text = std::str::from_utf8(&metrics)?;
        let value =
            text.lines().find_map(|line| line.strip_prefix(r#"sensorium_samples_total{fate="stored"} "#));
        Ok(value.ok_or("the metrics do not say how many samples are stored")?.parse()?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let asked = Pid::from_raw(self.child.id() as i32).map(|pid| kill_process(pid, Signal::TERM));
        let began = Instant::now();
        while asked.is_some() && began.elapsed() < STOP_WITHIN {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It did not stop: nothing is left to do if it cannot be killed either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
