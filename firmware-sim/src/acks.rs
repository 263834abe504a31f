//! The log of acknowledged frames: a line `attribute ts_first ts_last count` each, written before the frame is forgotten,
//! so that a checker can compare what was promised with what is kept.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::batch::Batch;

/// An append-only file, shared between clients. Lines go straight to the operating system.
#[derive(Debug)]
pub struct AckLog(Mutex<File>);

impl AckLog {
    /// Opens the file, making it where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(File::options().create(true).append(true).open(path)?)))
    }

    /// Appends one acknowledged frame.
    pub fn write(&self, batch: &Batch) -> io::Result<()> {
        let line = line(batch);
        let mut file = self.0.lock().map_err(|_| io::Error::other("a writer of the log panicked"))?;
        file.write_all(line.as_bytes())?;
        file.flush()
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
        let value = Value::Number(1.0);
        let batch = Batch {
            attribute: "ecg".into(),
            samples: vec![(1_763_661_600_000_001, value.clone()), (1_763_661_600_002_778, value)],
        };
        AckLog::open(&path).unwrap().write(&batch).unwrap();
        AckLog::open(&path).unwrap().write(&batch).unwrap();
        let expected = "ecg 1763661600000.001 1763661600002.778 2\n".repeat(2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(exact(-1_002), "-1.002");
    }
}
