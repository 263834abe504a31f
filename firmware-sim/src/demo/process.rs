//! One node as a real process: started with a data directory and addresses of its own, and made to fail by signals.
//!
//! Its log goes to a file across all its starts, and the end of it stands in every error. Dropped, the process is killed.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a node may take until it says where it listens. It recovers its data first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Lines of a log that an error repeats.
const LOG_LINES: usize = 40;

/// What a node is told when it starts.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The program.
    pub program: PathBuf,
    /// Its name.
    pub name: String,
    /// Where its data and its log are put.
    pub directory: PathBuf,
    /// `--http`.
    pub http: String,
    /// `--mqtt`.
    pub mqtt: String,
    /// `--peer`.
    pub peer: String,
    /// `--join`, each.
    pub join: Vec<String>,
    /// Further options.
    pub options: Vec<String>,
    /// A command that runs it, such as `ip netns exec NAME`.
    pub within: Vec<String>,
}

/// Where a node listens, as its `ready` line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its name.
    pub node: String,
    /// Pages, API, WebSockets.
    pub http: SocketAddr,
    /// `None`: it takes no MQTT.
    pub mqtt: Option<SocketAddr>,
    /// Other nodes.
    pub peer: SocketAddr,
}

/// A process does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It cannot be run, signalled or its files used.
    #[error("node {name}: {what}: {source}")]
    Io {
        /// Which node.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended before it was ready.
    #[error("node {name} ended before it was ready ({status}); the end of its log:\n{log}")]
    Ended {
        /// Which node.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It does not get ready, or does not end.
    #[error("node {name} did not {what} within {within:?}; the end of its log:\n{log}")]
    Slow {
        /// Which node.
        name: String,
        /// What it should have done.
        what: &'static str,
        /// In which time.
        within: Duration,
        /// The end of its log.
        log: String,
    },
    /// Its first line is not the one of the contract.
    #[error("node {name} said {line:?} where its ready line was expected")]
    Unreadable {
        /// Which node.
        name: String,
        /// What it said.
        line: String,
    },
    /// It does not run.
    #[error("node {0} does not run")]
    NotRunning(String),
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    ready: Ready,
    /// Kept, so that whatever else it prints finds a reader.
    _out: BufReader<ChildStdout>,
}

impl Node {
    /// A node that does not run yet.
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: None }
    }

    /// What it is told when it starts.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// For its next start.
    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Where it listens, while it runs.
    pub fn ready(&self) -> Result<&Ready, ProcessError> {
        self.running
            .as_ref()
            .map(|running| &running.ready)
            .ok_or_else(|| ProcessError::NotRunning(self.spec.name.clone()))
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Starts it and waits until it says where it listens.
    pub async fn start(&mut self) -> Result<&Ready, ProcessError> {
        let mut child = self.spawn()?;
        let Some(out) = child.stdout.take() else {
            return Err(self.io("its output is not piped")(std::io::ErrorKind::BrokenPipe.into()));
        };
        let mut out = BufReader::new(out);
        let mut line = String::new();
        match timeout(READY_WITHIN, out.read_line(&mut line)).await {
            Ok(Ok(0)) => {
                let status = child.wait().await.map_err(self.io("waiting for its end"))?;
                return Err(ProcessError::Ended {
                    name: self.spec.name.clone(),
                    status,
                    log: self.log_end(),
                });
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(self.io("reading what it says")(error)),
            Err(_) => return Err(self.slow("get ready", READY_WITHIN)),
        }
        let Some(ready) = read_ready(&line) else {
            return Err(ProcessError::Unreadable { name: self.spec.name.clone(), line });
        };
        Ok(&self.running.insert(Running { child, ready, _out: out }).ready)
    }

    /// Runs it where it is expected to end by itself: how it ended, and what it logged this time.
    pub async fn run_to_end(&mut self, within: Duration) -> Result<(ExitStatus, String), ProcessError> {
        let before = self.log().len();
        let mut child = self.spawn()?;
        let Ok(ended) = timeout(within, child.wait()).await else {
            return Err(self.slow("end", within));
        };
        let status = ended.map_err(self.io("waiting for its end"))?;
        Ok((status, self.log().split_off(before)))
    }

    fn spawn(&self) -> Result<Child, ProcessError> {
        let spec = &self.spec;
        std::fs::create_dir_all(&spec.directory).map_err(self.io("making its directory"))?;
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(self.io("opening its log"))?;
        let mut words = spec.within.iter().map(AsRef::as_ref).chain([spec.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(spec.program.as_os_str()));
        command.args(words);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SENSORIUM_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .args(["--name", &spec.name, "--http", &spec.http, "--mqtt", &spec.mqtt, "--peer", &spec.peer]);
        command.arg("--data").arg(self.data()).args(&spec.options);
        command.args(spec.join.iter().flat_map(|seed| ["--join", seed]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        command.spawn().map_err(self.io("starting it"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.ok_or_else(|| ProcessError::NotRunning(self.spec.name.clone()))?;
        kill_process(pid, signal).map_err(|error| self.io("sending a signal")(error.into()))
    }

    /// `SIGKILL`, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        let not_running = || ProcessError::NotRunning(self.spec.name.clone());
        let mut running = self.running.take().ok_or_else(not_running)?;
        running.child.kill().await.map_err(self.io("killing it"))
    }

    /// `SIGSTOP`: it hangs.
    pub fn hang(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`: it hangs no longer.
    pub fn go_on(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// `SIGTERM`, and waits until it has ended: its exit code (negative: the signal that ended it).
    pub async fn terminate(&mut self, within: Duration) -> Result<i32, ProcessError> {
        self.signal(Signal::TERM)?;
        let Some(running) = &mut self.running else {
            return Err(ProcessError::NotRunning(self.spec.name.clone()));
        };
        let Ok(ended) = timeout(within, running.child.wait()).await else {
            return Err(self.slow("end after SIGTERM", within));
        };
        self.running = None;
        let status = ended.map_err(self.io("waiting for its end"))?;
        Ok(status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)))
    }

    /// Deletes its data. It does not run.
    pub fn wipe(&self) -> Result<(), ProcessError> {
        match std::fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.io("deleting its data")(error))
            }
            _ => Ok(()),
        }
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.spec.directory.join(format!("{}.data", self.spec.name))
    }

    fn log_path(&self) -> PathBuf {
        self.spec.directory.join(format!("{}.log", self.spec.name))
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        // A log that is not there yet is empty.
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn slow(&self, what: &'static str, within: Duration) -> ProcessError {
        ProcessError::Slow { name: self.spec.name.clone(), what, within, log: self.log_end() }
    }

    fn io(&self, what: &'static str) -> impl Fn(std::io::Error) -> ProcessError + use<> {
        let name = self.spec.name.clone();
        move |source| ProcessError::Io { name: name.clone(), what, source }
    }
}

/// `ready node=NAME http=ADDRESS mqtt=ADDRESS|none peer=ADDRESS`
fn read_ready(line: &str) -> Option<Ready> {
    let mut words = line.split_whitespace();
    if words.next() != Some("ready") {
        return None;
    }
    let field = |name: &str| {
        words.clone().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let mqtt = field("mqtt")?;
    Some(Ready {
        node: field("node")?,
        http: field("http")?.parse().ok()?,
        mqtt: if mqtt == "none" { None } else { Some(mqtt.parse().ok()?) },
        peer: field("peer")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_as_the_contract_says() {
        let ready = read_ready("ready node=a http=127.0.0.1:1 mqtt=[::1]:2 peer=127.0.0.1:3\n").unwrap();
        assert_eq!((ready.node.as_str(), ready.http.port()), ("a", 1));
        assert_eq!(ready.mqtt, Some("[::1]:2".parse().unwrap()));
        let without = read_ready("ready node=a http=127.0.0.1:1 mqtt=none peer=127.0.0.1:3").unwrap();
        assert_eq!(without.mqtt, None);
        for wrong in ["", "not ready", "ready node=a", "ready node=a http=x mqtt=none peer=127.0.0.1:3"] {
            assert_eq!(read_ready(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_says_so_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let spec = Spec {
            program: "-c".into(),
            name: "a".into(),
            directory: directory.path().to_owned(),
            http: String::new(),
            mqtt: String::new(),
            peer: String::new(),
            join: Vec::new(),
            options: Vec::new(),
            within: ["sh", "-c", "echo why >&2; exit 3"].map(str::to_owned).to_vec(),
        };
        let mut node = Node::new(spec);
        let error = node.start().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("why"), "{error}");
        assert!(node.pid().is_none() && matches!(node.hang(), Err(ProcessError::NotRunning(_))));
        node.spec_mut().within[2] = "echo again >&2; echo said; exec sleep 600".into();
        assert!(matches!(node.start().await, Err(ProcessError::Unreadable { line, .. }) if line == "said\n"));
        let line = "ready node=a http=127.0.0.1:1 mqtt=none peer=127.0.0.1:3";
        node.spec_mut().within[2] = format!("echo {line}; exec sleep 600");
        node.start().await.unwrap();
        node.hang().unwrap();
        node.go_on().unwrap();
        assert_eq!(node.terminate(Duration::from_secs(20)).await.unwrap(), -15);
        node.start().await.unwrap();
        node.kill().await.unwrap();
        assert_eq!(node.log(), "why\nagain\n");
    }
}
