//! The program as it is: its options, what it says of settings, its routes and metrics.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longer than anything here should take.
const GUARD: Duration = Duration::from_secs(60);
/// Every listener on a port that is free.
const ANY_PORTS: [&str; 6] = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--peer", "127.0.0.1:0"];

/// `sensorium` with an environment that says nothing to it.
pub(crate) fn sensorium<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sensorium"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SENSORIUM_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Environment variable of each option, by its name without the dashes, as `--help` tells them.
pub(crate) fn options() -> BTreeMap<String, String> {
    let output = sensorium(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let option = |line: &str| {
        let name = line.trim_start().strip_prefix("--")?.split([' ', '[', '=']).next()?;
        let variable = line.split_once("[env: ")?.1.split(['=', ']']).next()?;
        Some((name.to_owned(), variable.to_owned()))
    };
    let options: BTreeMap<_, _> = help.lines().filter_map(option).collect();
    assert!(options.len() > 20 && options["cluster-secret"] == "SENSORIUM_CLUSTER_SECRET", "{help}");
    options
}

/// Whether the program takes these arguments: it is asked for its help behind them, so that nothing is done.
pub(crate) fn takes(args: &[&str]) -> bool {
    sensorium(args.iter().copied().chain(["--help"])).output().unwrap().status.success()
}

/// Why a node with these settings would not start, empty when it would.
pub(crate) fn check(settings: &BTreeMap<String, String>) -> String {
    let args = settings.iter().map(|(name, value)| format!("--{name}={value}")).collect::<Vec<_>>();
    let output = sensorium(["check"]).args(args).output().unwrap();
    if output.status.success() { String::new() } else { String::from_utf8(output.stderr).unwrap() }
}

/// A running node, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    http: SocketAddr,
    _data: tempfile::TempDir,
}

impl Running {
    /// Starts a node on ports of its own and waits until it serves.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = sensorium(ANY_PORTS);
        let mut child = command.arg("--data").arg(data.path()).stderr(Stdio::null()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let (found, line) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).unwrap();
            found.send(line).unwrap();
        });
        let line = line.recv_timeout(GUARD).expect("a first line in time");
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap();
        Self { child, http: http.parse().unwrap(), _data: data }
    }

    /// `GET path`: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The arguments that ask this node for its status.
    pub(crate) fn status(&self) -> [String; 3] {
        ["status".to_owned(), "--http".to_owned(), format!("http://{}", self.http)]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
