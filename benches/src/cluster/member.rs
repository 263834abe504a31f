//! A node of a cluster as a process: started, killed, stopped and continued, always by its id.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::Error;
use crate::process::Process;

/// How long a process may take until it accepts connections.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to stop when asked; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(12);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process that can be started again, with the same arguments.
#[derive(Debug)]
pub struct Member {
    /// Its name in the cluster.
    pub name: String,
    /// The directory that it keeps its data in.
    pub data: PathBuf,
    program: PathBuf,
    args: Vec<OsString>,
    listens: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// A process to be started; it is up once it accepts connections at `listens`.
    pub fn new(
        name: &str,
        data: PathBuf,
        program: PathBuf,
        args: Vec<OsString>,
        listens: SocketAddr,
    ) -> Self {
        let log = data.with_extension("log");
        Self { name: name.to_owned(), data, program, args, listens, log, child: None }
    }

    /// Starts it, and waits until it accepts connections.
    pub fn start(&mut self) -> Result<(), Error> {
        std::fs::create_dir_all(&self.data)?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", self.program.display()))?;
        self.child = Some(child);
        let began = Instant::now();
        while TcpStream::connect(self.listens).is_err() {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|s| s.is_some()));
            if ended || began.elapsed() > LISTENS_WITHIN {
                return Err(format!("{} does not listen; {}", self.name, self.last_words()).into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// How it is started.
    pub fn command(&self) -> String {
        let words = self.args.iter().map(|word| word.to_string_lossy());
        [self.program.to_string_lossy()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
        log[from..].to_owned()
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Result<Process, Error> {
        Ok(Process::of(self.id()?))
    }

    /// The id of its process, while it runs.
    pub fn id(&self) -> Result<u32, Error> {
        Ok(self.child.as_ref().ok_or_else(|| format!("{} does not run", self.name))?.id())
    }

    /// Sends it a signal. Returns when the signal is sent.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = Pid::from_raw(self.id()? as i32).ok_or("a process without an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills it, and waits until it is gone. Returns when the signal was sent.
    pub fn kill(&mut self) -> Result<Instant, Error> {
        let at = Instant::now();
        self.signal(Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(at)
    }

    /// Kills it if it runs, and deletes its data.
    pub fn wipe(&mut self) -> Result<(), Error> {
        if self.child.is_some() {
            self.kill()?;
        }
        match std::fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            // A stopped process would not hear that it should end.
            let _ = kill_process(pid, Signal::CONT);
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_WITHIN {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It did not stop: nothing is left to do if it cannot be killed either.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Addresses on loopback that are free now, so many for each of so many nodes. They are held until all are found, so that
/// no two are the same; nobody else takes one before it is used where the run has a network namespace of its own.
pub fn free_addresses<const NODES: usize, const EACH: usize>() -> Result<[[SocketAddr; NODES]; EACH], Error> {
    let mut held = Vec::new();
    let mut addresses = [[SocketAddr::from(([127, 0, 0, 1], 0)); NODES]; EACH];
    for address in addresses.iter_mut().flatten() {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_different_and_free() {
        let addresses: [[SocketAddr; 3]; 3] = free_addresses().unwrap();
        let addresses = addresses.concat();
        for (at, address) in addresses.iter().enumerate() {
            assert!(!addresses[..at].contains(address));
        }
        TcpListener::bind(addresses[0]).unwrap();
    }

    #[test]
    fn a_process_that_does_not_listen_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let [[nobody]] = free_addresses().unwrap();
        let mut member = Member::new(
            "m",
            dir.path().join("m"),
            "/bin/sh".into(),
            ["-c", "echo no such option; exit 2"].map(OsString::from).into(),
            nobody,
        );
        let error = member.start().unwrap_err().to_string();
        assert!(error.contains("m does not listen") && error.contains("no such option"), "{error}");
    }

    #[test]
    fn a_process_is_killed_and_its_data_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut member = Member::new(
            "m",
            dir.path().join("m"),
            "/bin/sleep".into(),
            vec!["600".into()],
            listener.local_addr().unwrap(),
        );
        assert!(member.process().is_err());
        member.start().unwrap();
        let process = member.process().unwrap();
        assert!(process.cpu().is_ok());
        member.wipe().unwrap();
        assert!(process.cpu().is_err() && !dir.path().join("m").exists());
    }
}
