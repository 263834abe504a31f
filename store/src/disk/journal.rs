//! The journal: frames that are durable and that the database does not have yet.
//!
//! A commit of the database writes some eight pages, wherever they are, and syncs them; a record here is one write to
//! one place, and a sync. So small commits go here, and many of them into the database at once. The file is written
//! whole when it is made: a sync has no metadata to wait for then.
//!
//! Invariants: a record is written when all before it are synced, and begins at a block of its own, so that no write
//! touches what was synced; a place is written again when the database has all that the journal held. What
//! [`Journal::read`] finds is therefore all that was synced, and at most one record more.
//!
//! A record is its length (u32) and, sealed by a checksum: run, number of the last commit in the log before, frames with
//! their keys. Records of another run, or that the database has by now, are what was written here before.
//!
//! Bounds: [`JOURNAL_BYTES`] of file, [`OWED_BYTES`] of frames; what does not fit goes into the database at once.

use std::io;
use std::time::{Duration, Instant};

use redb::StorageBackend;

use super::tables::LogKey;
use crate::codec::{Malformed, Reader, put_varint, seal, unseal};

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "sensorium.journal";
/// Length of the file.
const JOURNAL_BYTES: usize = 256 << 10;
/// What a disk writes as one: records begin at multiples of it.
const BLOCK: usize = 4096;
/// A commit of more frames than that gains nothing here.
const SMALL_BYTES: usize = 8 << 10;
/// Frames that may be here and not in the database.
const OWED_BYTES: usize = 64 << 10;
/// How long.
pub(crate) const OWED_FOR: Duration = Duration::from_secs(1);

/// The frames of a commit with their keys.
pub(crate) type Frames<'a> = [(LogKey, &'a [u8])];

/// The file, and where it is written next.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Box<dyn StorageBackend>,
    run: u64,
    /// The last commit in the log.
    last: u64,
    end: usize,
    owed_bytes: usize,
    owed_since: Option<Instant>,
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    after: u64,
    pub frames: Vec<(LogKey, Vec<u8>)>,
}

/// A record is missing: the journal was damaged, or is not of the same moment as the database.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal goes on behind commit {after}, and what is before it ends with {last}")]
pub(crate) struct Gap {
    after: u64,
    last: u64,
}

impl Journal {
    /// Opens a file, and fills a new one.
    pub(crate) fn open(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        if file.len()? != JOURNAL_BYTES as u64 {
            file.set_len(JOURNAL_BYTES as u64)?;
            // By blocks: a page cache that holds larger pieces counts a write to one of them as one of all.
            for at in (0..JOURNAL_BYTES).step_by(BLOCK) {
                file.write(at as u64, &[0; BLOCK])?;
            }
            file.sync_data()?;
        }
        Ok(Self { file, run: 0, last: 0, end: 0, owed_bytes: 0, owed_since: None })
    }

    /// What run `run` wrote behind commit `last`, in order.
    pub(crate) fn read(&self, run: u64, mut last: u64) -> io::Result<Result<Vec<Record>, Gap>> {
        let mut bytes = vec![0; JOURNAL_BYTES];
        self.file.read(0, &mut bytes)?;
        let mut records = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let Ok((found, length, record)) = decode(&bytes[at..]) else {
                at += BLOCK;
                continue;
            };
            at += length.next_multiple_of(BLOCK);
            let Some(commits) = record.frames.first().zip(record.frames.last()) else { continue };
            let (first, highest) = (commits.0.0.0, commits.1.0.0);
            if found != run || first <= last {
                continue;
            }
            if record.after > last {
                return Ok(Err(Gap { after: record.after, last }));
            }
            last = highest;
            records.push(record);
        }
        Ok(Ok(records))
    }

    /// Begins anew: whatever the file holds, the database has up to commit `last`, or it is of no use.
    pub(crate) fn begin(&mut self, run: u64, last: u64) {
        (self.run, self.last) = (run, last);
        self.moved(None);
    }

    /// Makes the frames of a commit durable; false when they belong into the database at once.
    pub(crate) fn append(&mut self, frames: &Frames<'_>) -> io::Result<bool> {
        let Some((last, _)) = frames.last() else { return Ok(true) };
        let bytes: usize = frames.iter().map(|frame| frame.1.len()).sum();
        if bytes > SMALL_BYTES || self.owed_bytes + bytes > OWED_BYTES {
            return Ok(false);
        }
        let record = encode(self.run, self.last, frames);
        if self.end + record.len() > JOURNAL_BYTES {
            return Ok(false);
        }
        self.file.write(self.end as u64, &record)?;
        self.file.sync_data()?;
        self.end += record.len();
        self.owed_bytes += bytes;
        self.owed_since.get_or_insert_with(Instant::now);
        self.last = last.0;
        Ok(true)
    }

    /// The database has all of it, and what is behind it up to commit `last`.
    pub(crate) fn moved(&mut self, last: Option<u64>) {
        self.last = last.unwrap_or(self.last);
        (self.end, self.owed_bytes, self.owed_since) = (0, 0, None);
    }

    /// When the database should have what is here.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.owed_since.map(|since| since + OWED_FOR)
    }
}

/// Whole blocks.
fn encode(run: u64, after: u64, frames: &Frames<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&run.to_le_bytes());
    body.extend_from_slice(&after.to_le_bytes());
    put_varint(&mut body, frames.len() as u64);
    for ((commit, place), frame) in frames {
        put_varint(&mut body, *commit);
        put_varint(&mut body, u64::from(*place));
        put_varint(&mut body, frame.len() as u64);
        body.extend_from_slice(frame);
    }
    seal(&mut body);
    // No longer than a small commit and its keys.
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    record.append(&mut body);
    record.resize(record.len().next_multiple_of(BLOCK), 0);
    record
}

/// The run, the length and the content of the record that `bytes` begin with.
fn decode(bytes: &[u8]) -> Result<(u64, usize, Record), Malformed> {
    let mut reader = Reader(bytes);
    let length = u32::from_le_bytes(reader.array("a length")?) as usize;
    let mut reader = Reader(unseal(reader.bytes(length, "a record")?)?);
    let (run, after) = (reader.word("a run")?, reader.word("a commit")?);
    let count = reader.count(3, "a number of frames")?;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let commit = reader.varint("a commit")?;
        let place = u32::try_from(reader.varint("a place")?).map_err(|_| reader.malformed("a place"))?;
        let bytes = reader.count(1, "the length of a frame")?;
        frames.push(((commit, place), reader.bytes(bytes, "a frame")?.to_vec()));
    }
    Ok((run, 4 + length, Record { after, frames }))
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    /// Commits one by one into an empty journal of run 7, behind commit 3.
    fn written(commits: &[(u64, usize)]) -> Journal {
        let mut journal = Journal::open(Box::new(InMemoryBackend::new())).unwrap();
        journal.begin(7, 3);
        for (commit, bytes) in commits {
            assert!(append(&mut journal, *commit, *bytes), "there is room for {commit}");
        }
        journal
    }

    fn append(journal: &mut Journal, commit: u64, bytes: usize) -> bool {
        let frame = vec![commit as u8; bytes];
        journal.append(&[((commit, 1), &frame[..]), ((commit, 2), b"of others")]).unwrap()
    }

    fn commits(journal: &Journal, run: u64, last: u64) -> Result<Vec<u64>, Gap> {
        let records = journal.read(run, last).unwrap()?;
        Ok(records.iter().flat_map(|record| &record.frames).map(|frame| frame.0.0).step_by(2).collect())
    }

    #[test]
    fn what_was_written_is_read_again_behind_what_the_database_has() {
        let journal = written(&[(4, 10), (6, 6000), (7, 1)]);
        assert_eq!(commits(&journal, 7, 3), Ok(vec![4, 6, 7]));
        assert_eq!(commits(&journal, 7, 4), Ok(vec![6, 7]));
        assert_eq!(commits(&journal, 7, 9), Ok(vec![]));
        assert_eq!(commits(&journal, 8, 3), Ok(vec![]), "of another run");
        let records = journal.read(7, 4).unwrap().unwrap();
        assert_eq!(records[0].frames[0], ((6, 1), vec![6; 6000]));
        assert_eq!(records[0].frames[1], ((6, 2), b"of others".to_vec()));
    }

    #[test]
    fn what_the_database_has_is_written_over() {
        let mut journal = written(&[(4, 5000), (5, 5000), (6, 5000)]);
        journal.moved(Some(8));
        assert!(append(&mut journal, 9, 10));
        assert_eq!(commits(&journal, 7, 8), Ok(vec![9]), "5 and 6 stand behind it");
    }

    #[test]
    fn large_commits_and_too_many_belong_into_the_database() {
        let mut journal = written(&[]);
        assert!(!append(&mut journal, 4, SMALL_BYTES));
        let taken = (4..999).take_while(|commit| append(&mut journal, *commit, 1000)).count();
        assert_eq!(taken, OWED_BYTES / 1009);
        journal.moved(Some(100));
        let taken = (101..999).take_while(|commit| append(&mut journal, *commit, 1)).count();
        assert_eq!(taken, JOURNAL_BYTES / BLOCK);
        assert!(journal.due().is_some());
    }

    #[test]
    fn a_torn_end_is_left_out_and_a_torn_middle_is_told() {
        let torn = |block: u64| {
            let journal = written(&[(4, 10), (5, 10), (6, 10)]);
            journal.file.write(block * BLOCK as u64 + 20, &[0xff]).unwrap();
            commits(&journal, 7, 3)
        };
        assert_eq!(torn(2), Ok(vec![4, 5]));
        assert_eq!(torn(1), Err(Gap { after: 5, last: 4 }));
        assert_eq!(torn(0), Err(Gap { after: 4, last: 3 }));
    }

    #[test]
    fn noise_is_no_record() {
        let mut noise = vec![0u8; 3 * BLOCK];
        for (at, byte) in noise.iter_mut().enumerate() {
            *byte = (at * 31 % 251) as u8;
        }
        assert!(decode(&noise).is_err());
        let record = encode(7, 3, &[((4, 1), b"frame")]);
        assert_eq!(decode(&record).unwrap().0, 7);
        for length in 0..37 {
            assert!(decode(&record[..length]).is_err(), "{length}");
        }
    }
}
