//! The program as a process: started on ports of its own, spoken to, stopped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::GUARD;

/// Every listener on a port that is free.
pub(crate) const ANY_PORTS: [&str; 6] =
    ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--peer", "127.0.0.1:0"];

/// `sensorium` with an environment that says nothing to it.
pub(crate) fn sensorium(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sensorium"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SENSORIUM_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to its end: exit code, standard output, standard error.
pub(crate) fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A running node, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    /// What it printed first.
    pub(crate) ready: String,
    /// What it printed after that, once it has ended.
    rest: Receiver<String>,
    log: Receiver<String>,
}

impl Running {
    /// Starts a node on ports of its own and waits until it serves.
    pub(crate) fn start(data: &Path) -> Self {
        let mut command = sensorium(&ANY_PORTS);
        command.arg("--data").arg(data);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (lines, rest) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let (mut first, mut after) = (String::new(), String::new());
            out.read_line(&mut first).unwrap();
            lines.send(first).unwrap();
            out.read_to_string(&mut after).unwrap();
            // The test may have ended before.
            lines.send(after).ok();
        });
        let (log_in, log) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            BufReader::new(err).read_to_string(&mut text).unwrap();
            log_in.send(text).ok();
        });
        let ready = rest.recv_timeout(GUARD).expect("a first line in time");
        Self { child, ready, rest, log }
    }

    /// The value of `key` in the ready line.
    pub(crate) fn told(&self, key: &str) -> &str {
        let pairs = self.ready.trim_end().split(' ').filter_map(|pair| pair.split_once('='));
        pairs.clone().find(|(name, _)| *name == key).unwrap_or_else(|| panic!("{key} in {:?}", self.ready)).1
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.told("http").parse().unwrap()
    }

    /// `GET path`: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http()).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("transfer-encoding"), "only for bodies of known length");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: how it ended, what it printed after its first line, its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String, String) {
        let began = Instant::now();
        let rest = self.rest.recv_timeout(GUARD).expect("an end in time");
        let log = self.log.recv_timeout(GUARD).expect("an end in time");
        let status = self.child.wait().unwrap();
        assert!(began.elapsed() < GUARD);
        (status, rest, log)
    }

    /// `SIGKILL`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
