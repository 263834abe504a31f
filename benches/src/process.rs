//! What a process uses, as Linux tells it under `/proc`; and this process's own bound of open files.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Length of a tick in `/proc/PID/stat`: Linux fixes 100 a second for user space.
const TICKS_A_SECOND: f64 = 100.0;
/// Bytes of a page on the machines that this runs on.
const PAGE: f64 = 4096.0;

/// A process to look at.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// This process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// The process of this id.
    pub fn of(id: u32) -> Self {
        Self(id)
    }

    /// CPU seconds that it has used, in user and kernel mode, all threads.
    pub fn cpu(self) -> io::Result<f64> {
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything; the fields behind it are numbers.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        Ok((number(fields.get(11))? + number(fields.get(12))?) / TICKS_A_SECOND)
    }

    /// Bytes of memory that it has resident.
    pub fn resident(self) -> io::Result<f64> {
        let statm = self.read("statm")?;
        Ok(number(statm.split_whitespace().nth(1).as_ref())? * PAGE)
    }

    fn read(self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0))
    }
}

fn number(field: Option<&&str>) -> io::Result<f64> {
    let parsed = field.and_then(|field| field.parse().ok());
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a field of /proc is not a number"))
}

/// Raises this process's bound of open files, which its children inherit, as far as it may; returns the bound.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let held = limit.current;
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() {
            return held.unwrap_or(u64::MAX);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_cpu_and_memory() {
        let before = Process::this().cpu().unwrap();
        let mut bytes = vec![1u8; 64 << 20];
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 100 {
            bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert!(Process::this().resident().unwrap() >= bytes.len() as f64);
        assert!(Process::this().cpu().unwrap() > before);
        assert!(Process::of(u32::MAX).cpu().is_err());
    }
}
