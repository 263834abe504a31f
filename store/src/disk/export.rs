//! What the disk gives to peers: own frames behind a link's cursor, blocks that were asked for, snapshots. Each answer
//! comes from one read transaction, so it is one moment of the file.
//!
//! Bounds: pieces of a snapshot are about [`PIECE_BYTES`]; a link reads [`BATCH_BYTES`] of frames at a time.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::recover::series_names;
use super::tables::{CHUNKS, DESCRIPTORS, LOG, OWN, SERIES, is_whole};
use super::tally::Tally;
use crate::model::ids::{Attribute, Origin, Partition, SensorId};
use crate::model::kind::Kind;
use crate::replica::frame::{REGISTRY, outline, reduce};
use crate::replica::message::{Message, Piece};
use crate::replica::state::Replica;
use crate::replica::version::{BLOCKS, FRAMES};

/// Size from which a piece of a snapshot is sent.
const PIECE_BYTES: usize = 1 << 20;
/// Frames read for a link at once.
const BATCH_BYTES: usize = 4 << 20;

/// Why an answer was not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The file cannot be read.
    #[error("the data file cannot be read: {0}")]
    Database(#[from] redb::Error),
    /// The link that asked is gone.
    #[error("the link is gone")]
    LinkGone,
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for ExportError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        })*
    };
}
from_redb!(StorageError, TableError, TransactionError);

fn table<K: redb::Key, V: redb::Value>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>, ExportError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Own frames behind `previous`, in order, up to [`BATCH_BYTES`] of them.
pub(crate) fn own_frames(database: &Database, previous: u64) -> Result<Vec<(u64, Bytes)>, ExportError> {
    let transaction = database.begin_read()?;
    let mut frames = Vec::new();
    let Some(log) = table(&transaction, LOG)? else { return Ok(frames) };
    let mut bytes = 0;
    for entry in log.range((previous + 1, 0)..)? {
        let (key, record) = entry?;
        let (commit, place) = key.value();
        if place == OWN {
            bytes += record.value().len();
            frames.push((commit, Bytes::copy_from_slice(record.value())));
            if bytes >= BATCH_BYTES {
                break;
            }
        }
    }
    Ok(frames)
}

/// Sends the blocks of `origin` from the given numbers on, as the log has them; then the partitions whose first one
/// it lacks.
pub(crate) fn serve(
    database: &Database,
    origin: Origin,
    blocks: &[(Partition, u64)],
    mut send: impl FnMut(Message) -> bool,
) -> Result<u64, ExportError> {
    let transaction = database.begin_read()?;
    let from: HashMap<Partition, u64> = blocks.iter().copied().collect();
    let mut next = from.clone();
    let mut relayed = 0;
    if let Some(log) = table(&transaction, LOG)? {
        for entry in log.iter()? {
            let (_, record) = entry?;
            let Ok((author, _, places)) = outline(record.value()) else { continue };
            if author != origin {
                continue;
            }
            let fits: HashSet<_> = places
                .into_iter()
                .filter(|(partition, number)| next.get(partition) == Some(number))
                .collect();
            for (partition, number) in &fits {
                next.insert(*partition, number + 1);
            }
            if let Some(frame) =
                reduce(record.value(), |partition, number| fits.contains(&(partition, number)))
            {
                relayed += 1;
                if !send(Message::Relay { frame: frame.into() }) {
                    return Err(ExportError::LinkGone);
                }
            }
        }
    }
    let mut partitions: Vec<_> = next
        .into_iter()
        .filter(|(partition, next)| from.get(partition) == Some(next))
        .map(|next| next.0)
        .collect();
    partitions.sort_unstable();
    if !partitions.is_empty() && !send(Message::Trimmed { origin, partitions }) {
        return Err(ExportError::LinkGone);
    }
    Ok(relayed)
}

/// Sends all of some partitions as the parts of read number `read`: names and descriptions first, then samples, then
/// what it all covers.
pub(crate) fn snapshot(
    transaction: &ReadTransaction,
    partitions: &[Partition],
    read: u64,
    send: impl FnMut(Message) -> bool,
) -> Result<(), ExportError> {
    let asked: HashSet<_> = partitions.iter().copied().filter(|partition| partition.0 < BLOCKS).collect();
    let mut out = Parts { read, sent: 0, piece: Piece::default(), bytes: 0, send };
    if let Some(series) = table(transaction, SERIES)? {
        for entry in series.iter()? {
            let (_, record) = entry?;
            let asks = |names: (SensorId, Attribute, Kind)| asked.contains(&Partition::of(&names.0));
            if series_names(record.value()).is_ok_and(asks) {
                out.add(record.value(), |piece| &mut piece.series)?;
            }
        }
    }
    // What is said of the sensors goes first, though it is of another partition: a ring that has not heard of a clear
    // could let go of what it should hold.
    let named =
        |sensor: &str| SensorId::new(sensor).is_ok_and(|sensor| asked.contains(&Partition::of(&sensor)));
    if let Some(descriptors) = table(transaction, DESCRIPTORS)? {
        for entry in descriptors.iter()? {
            let (sensor, record) = entry?;
            if asked.contains(&REGISTRY) || named(sensor.value()) {
                out.add(record.value(), |piece| &mut piece.descriptors)?;
            }
        }
    }
    let mut tally = Tally::read(transaction)?;
    let log = table(transaction, LOG)?;
    if let Some(log) = &log {
        for entry in log.iter()? {
            let (key, record) = entry?;
            let Ok((origin, number, places)) = outline(record.value()) else { continue };
            let (commit, place) = key.value();
            if tally.counts(origin, commit) {
                let whole = is_whole(place).then_some((FRAMES, number));
                for (partition, number) in places.into_iter().chain(whole) {
                    tally.versions.advance(partition, origin, number);
                }
            }
            if let Some(frame) = reduce(record.value(), |partition, _| partition == REGISTRY) {
                out.add(&frame, |piece| &mut piece.frames)?;
            }
        }
    }
    if let Some(chunks) = table(transaction, CHUNKS)? {
        let mut sorted: Vec<_> = asked.iter().collect();
        sorted.sort_unstable();
        for partition in sorted {
            for entry in chunks.range((partition.0, 0, i64::MIN)..(partition.0 + 1, 0, i64::MIN))? {
                let (key, record) = entry?;
                out.room()?;
                out.bytes += record.value().len();
                out.piece.chunks.push((key.value().1, Bytes::copy_from_slice(record.value())));
            }
        }
    }
    if let Some(log) = &log {
        for entry in log.iter()? {
            let samples = |partition, _| partition != REGISTRY && asked.contains(&partition);
            if let Some(frame) = reduce(entry?.1.value(), samples) {
                out.add(&frame, |piece| &mut piece.frames)?;
            }
        }
    }
    out.flush()?;
    let coverage = Replica::coverage(&tally.versions, partitions);
    if (out.send)(Message::SnapshotEnd { read, parts: out.sent, coverage }) {
        Ok(())
    } else {
        Err(ExportError::LinkGone)
    }
}

/// Gathers records into parts.
struct Parts<S> {
    read: u64,
    /// Parts sent so far.
    sent: u64,
    piece: Piece,
    bytes: usize,
    send: S,
}

impl<S: FnMut(Message) -> bool> Parts<S> {
    fn add(
        &mut self,
        record: &[u8],
        list: impl FnOnce(&mut Piece) -> &mut Vec<Bytes>,
    ) -> Result<(), ExportError> {
        self.room()?;
        self.bytes += record.len();
        list(&mut self.piece).push(Bytes::copy_from_slice(record));
        Ok(())
    }

    fn room(&mut self) -> Result<(), ExportError> {
        if self.bytes >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        self.bytes = 0;
        let piece = std::mem::take(&mut self.piece);
        if piece == Piece::default() {
            return Ok(());
        }
        let place = self.sent;
        self.sent += 1;
        if (self.send)(Message::Part { read: self.read, place, piece }) {
            Ok(())
        } else {
            Err(ExportError::LinkGone)
        }
    }
}
