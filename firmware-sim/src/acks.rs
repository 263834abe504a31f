//! The log of acknowledged frames, a line each, written before the frame is forgotten, so that a checker can compare what
//! was promised with what is kept. Two forms: `attribute ts_first ts_last count`, or with every sample that was sent:
//! `["sensor","attribute",[[microseconds,value],…]]`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::batch::Batch;

/// An append-only file, shared between clients. Lines go straight to the operating system.
#[derive(Debug)]
pub struct AckLog {
    file: Mutex<File>,
    samples: bool,
}

impl AckLog {
    /// Opens the file, making it where there is none; lines name the first and the last time of a frame.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::append_to(path, false)
    }

    /// Opens the file, making it where there is none; lines hold the sensor and every sample as it was sent.
    pub fn with_samples(path: &Path) -> io::Result<Self> {
        Self::append_to(path, true)
    }

    fn append_to(path: &Path, samples: bool) -> io::Result<Self> {
        Ok(Self { file: Mutex::new(File::options().create(true).append(true).open(path)?), samples })
    }

    /// Appends one acknowledged frame of `sensor`.
    pub fn write(&self, sensor: &str, batch: &Batch) -> io::Result<()> {
        let line = if self.samples {
            let mut line = serde_json::to_string(&(sensor, &*batch.attribute, &batch.samples))?;
            line.push('\n');
            line
        } else {
            line(batch)
        };
        let mut file = self.file.lock().map_err(|_| io::Error::other("a writer of the log panicked"))?;
        file.write_all(line.as_bytes())
    }
}

fn line(batch: &Batch) -> String {
    format!("{} {} {} {}\n", batch.attribute, exact(batch.first()), exact(batch.last()), batch.len())
}

/// Milliseconds in decimals, without going through a double.
fn exact(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", us.unsigned_abs() / 1000, us.unsigned_abs() % 1000)
}

#[cfg(test)]
mod tests {
    use ingest::wire::message::Value;

    use super::*;

    #[test]
    fn lines_are_appended_exactly() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        let value = Value::Number(0.1);
        let batch = Batch {
            attribute: "ecg".into(),
            samples: vec![(1_763_661_600_000_001, value.clone()), (1_763_661_600_002_778, value)],
        };
        AckLog::open(&path).unwrap().write("s", &batch).unwrap();
        AckLog::open(&path).unwrap().write("s", &batch).unwrap();
        AckLog::with_samples(&path).unwrap().write("s", &batch).unwrap();
        let frames = "ecg 1763661600000.001 1763661600002.778 2\n".repeat(2);
        let samples = "[\"s\",\"ecg\",[[1763661600000001,0.1],[1763661600002778,0.1]]]\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), frames + samples);
        assert_eq!(exact(-1_002), "-1.002");
    }
}
