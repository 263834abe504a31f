//! Start: opens the file, and rebuilds the rings from chunks and log.
//!
//! Everything that was acknowledged is in one of the two. Whatever does not decode is reported by table and key; no
//! part of a damaged file is used.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageBackend, StorageError, TableError,
};

use super::backend::{Counted, Traffic};
use super::chunks::{self, Span};
use super::commit::{self, LogIndex, initialise, upgrade};
use super::journal::{self, Journal};
use super::tables::{CHUNKS, DESCRIPTORS, FILE, FORMAT, FORMATS_BEFORE, LOG, META, OWN, SERIES, is_whole};
use super::tally::Tally;
use crate::codec::{Malformed, Reader, unseal};
use crate::config::Config;
use crate::conflict::{conform, named};
use crate::describe;
use crate::error::OpenError;
use crate::memory::Memory;
use crate::model::ids::{Attribute, NodeId, Origin, PARTITIONS, SensorId};
use crate::model::kind::Kind;
use crate::model::value::Shape;
use crate::registry::Operation;
use crate::replica::frame::{Block, Body, Frame, REGISTRY, Run};
use crate::replica::version::{FRAMES, Offer, VersionVector};
use crate::ring::Stamps;
use crate::series::Series;

/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 16 << 20;

/// What a file held beside the samples, which are in memory now.
pub(crate) struct Recovered {
    pub node: NodeId,
    pub log: LogIndex,
    pub versions: VersionVector,
    /// The last commit.
    pub commit: u64,
    /// Highest stamp time held.
    pub stamp: u64,
    /// Samples in memory.
    pub samples: u64,
}

/// Opens data file and journal in `config.data`, making what is missing.
pub(crate) fn open(config: &Config, traffic: &Arc<Traffic>) -> Result<(Database, Journal), OpenError> {
    let path = config.data.join(FILE);
    std::fs::create_dir_all(&config.data).map_err(|source| OpenError::Io { path: path.clone(), source })?;
    let database = open_on(&path, file(&path)?, traffic)?;
    let path = config.data.join(journal::FILE);
    let journal = journal_on(&path, file(&path)?, traffic)?;
    // That the files are there is durable before anything in them.
    let directory = File::open(&config.data).and_then(|directory| directory.sync_all());
    directory.map_err(|source| OpenError::Io { path: config.data.clone(), source })?;
    Ok((database, journal))
}

fn file(path: &Path) -> Result<FileBackend, OpenError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    FileBackend::new(file).map_err(|error| open_error(path, error))
}

/// Opens a journal on any storage.
pub(crate) fn journal_on(
    path: &Path,
    backend: impl StorageBackend,
    traffic: &Arc<Traffic>,
) -> Result<Journal, OpenError> {
    let journal = Journal::open(Box::new(Counted::new(backend, traffic.clone())));
    journal.map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

/// Opens a database on any storage, and checks all of it: a damaged page is better found now than by a commit.
pub(crate) fn open_on(
    path: &Path,
    backend: impl StorageBackend,
    traffic: &Arc<Traffic>,
) -> Result<Database, OpenError> {
    guarded(path, || {
        let backend = Counted::new(backend, traffic.clone());
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        let mut database = database.map_err(|error| open_error(path, error))?;
        match database.check_integrity() {
            Ok(true) => Ok(database),
            Ok(false) => Err(OpenError::Corrupt {
                path: path.to_owned(),
                what: "a page's checksum does not fit".into(),
            }),
            Err(error) => Err(open_error(path, error)),
        }
    })
}

/// redb panics on some damaged pages. That is an answer too: the file is damaged.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(OpenError::Corrupt {
            path: path.to_owned(),
            what: "the database gave up on one of its pages".into(),
        })
    })
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::AlreadyOpen { path },
        DatabaseError::UpgradeRequired(found) => OpenError::Corrupt {
            path,
            what: format!("its redb format is {found}, which this program does not read"),
        },
        DatabaseError::Storage(StorageError::Io(source)) if tells_damage(&source) => {
            OpenError::Corrupt { path, what: source.to_string() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::Io { path, source },
        DatabaseError::Storage(StorageError::Corrupted(what)) => OpenError::Corrupt { path, what },
        other => OpenError::Corrupt { path, what: other.to_string() },
    }
}

/// Whether an error is about the content of the file: it is no redb file, or is shorter than it says.
fn tells_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

/// Reads a file into `memory`, with what the journal has behind it. A new file gets its node id here.
pub(crate) fn load(
    database: &Database,
    journal: &mut Journal,
    path: &Path,
    config: &Config,
    memory: &Memory,
) -> Result<Recovered, OpenError> {
    let reader = Loader { database, path, config, memory };
    guarded(path, || {
        let run = rand::random();
        let Some(node) = reader.meta()? else {
            let node = initialise(database, run).map_err(|error| reader.database_error(error))?;
            journal.begin(run, 0);
            let (log, versions) = (LogIndex::default(), VersionVector::default());
            return Ok(Recovered { node, log, versions, commit: 0, stamp: 0, samples: 0 });
        };
        reader.take_in(journal, run)?;
        let recovered = reader.load(node)?;
        journal.begin(run, recovered.commit);
        Ok(recovered)
    })
}

struct Loader<'a> {
    database: &'a Database,
    path: &'a Path,
    config: &'a Config,
    memory: &'a Memory,
}

type Table<K, V> = Option<ReadOnlyTable<K, V>>;

impl Loader<'_> {
    fn database_error(&self, source: impl Into<redb::Error>) -> OpenError {
        match source.into() {
            redb::Error::Corrupted(what) => self.damaged(what),
            redb::Error::Io(source) if tells_damage(&source) => self.damaged(source.to_string()),
            source => OpenError::Database { path: self.path.to_owned(), source: Box::new(source) },
        }
    }

    fn damaged(&self, what: String) -> OpenError {
        OpenError::Corrupt { path: self.path.to_owned(), what }
    }

    fn record(&self, table: &str, key: impl std::fmt::Debug, error: &Malformed) -> OpenError {
        self.damaged(format!("record {key:?} of table {table}: {error}"))
    }

    fn read(&self) -> Result<ReadTransaction, OpenError> {
        self.database.begin_read().map_err(|error| self.database_error(error))
    }

    fn table<K: redb::Key, V: redb::Value>(
        &self,
        transaction: &ReadTransaction,
        definition: redb::TableDefinition<'_, K, V>,
    ) -> Result<Table<K, V>, OpenError> {
        match transaction.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(self.database_error(error)),
        }
    }

    /// The node id; `None` for a new file. A file of the format before is rewritten.
    fn meta(&self) -> Result<Option<NodeId>, OpenError> {
        let transaction = self.read()?;
        let Some(meta) = self.table(&transaction, META)? else { return Ok(None) };
        let get = |key: &str| -> Result<u64, OpenError> {
            let value = meta.get(key).map_err(|error| self.database_error(error))?;
            value.map(|value| value.value()).ok_or_else(|| self.damaged(format!("table meta has no {key}")))
        };
        let found = get("format")?;
        if FORMATS_BEFORE.contains(&found) {
            tracing::info!("the data file is of format {found}; from here on it is of format {FORMAT}");
            upgrade(self.database, found).map_err(|error| self.database_error(error))?;
        } else if found != FORMAT {
            return Err(OpenError::Format { path: self.path.to_owned(), found, expected: FORMAT });
        }
        if get("partitions")? != u64::from(PARTITIONS) {
            return Err(self.damaged("it has another number of partitions than 1024".into()));
        }
        get("node").map(|node| Some(NodeId(node)))
    }

    /// Moves what the journal has into the log. What it holds from here on is of run `run`.
    fn take_in(&self, journal: &Journal, run: u64) -> Result<(), OpenError> {
        let transaction = self.read()?;
        let meta = self.table(&transaction, META)?;
        let before =
            meta.map(|meta| meta.get("run")).transpose().map_err(|error| self.database_error(error))?;
        let mut last = self.trimmed(&transaction)?;
        if let Some(log) = self.table(&transaction, LOG)? {
            let newest = log.last().map_err(|error| self.database_error(error))?;
            last = last.max(newest.map_or(0, |(key, _)| key.value().0));
        }
        let path = || self.path.with_file_name(journal::FILE);
        let mut records = Vec::new();
        if let Some(before) = before.flatten() {
            let read = journal.read(before.value(), last);
            let read = read.map_err(|source| OpenError::Io { path: path(), source })?;
            records = read.map_err(|gap| OpenError::Corrupt { path: path(), what: gap.to_string() })?;
        }
        commit::take_in(self.database, &records, run).map_err(|error| self.database_error(error))
    }

    fn load(&self, node: NodeId) -> Result<Recovered, OpenError> {
        let transaction = self.read()?;
        self.series(&transaction)?;
        self.descriptors(&transaction)?;
        self.descriptions_of_log(&transaction)?;
        let mut tally = Tally::read(&transaction).map_err(|error| self.database_error(error))?;
        // Chunks of different series have nothing to do with each other: both cores decode them.
        let half = PARTITIONS / 2;
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| self.chunks(half..PARTITIONS));
            (self.chunks(0..half), second.join())
        });
        let second = second.map_err(|_| self.damaged("its chunks could not be read".into()))?;
        let mut stamp = first?.max(second?);
        let mut log = LogIndex::default();
        self.log(&transaction, &mut log, &mut tally, &mut stamp)?;
        let trimmed = self.trimmed(&transaction)?;
        let commit = log.frames.back().map_or(0, |frame| frame.0.0).max(trimmed);
        let mut samples = 0;
        for series in self.memory.all() {
            samples += series.lock().ring.len() as u64;
            self.memory.hold(&series);
        }
        Ok(Recovered { node, log, versions: tally.versions, commit, stamp, samples })
    }

    /// The last commit before a checkpoint.
    fn trimmed(&self, transaction: &ReadTransaction) -> Result<u64, OpenError> {
        let Some(meta) = self.table(transaction, META)? else { return Ok(0) };
        let value = meta.get("commit").map_err(|error| self.database_error(error))?;
        Ok(value.map_or(0, |value| value.value()))
    }

    fn series(&self, transaction: &ReadTransaction) -> Result<(), OpenError> {
        let Some(table) = self.table(transaction, SERIES)? else { return Ok(()) };
        for entry in table.iter().map_err(|error| self.database_error(error))? {
            let (key, record) = entry.map_err(|error| self.database_error(error))?;
            let names =
                series_names(record.value()).map_err(|error| self.record("series", key.value(), &error))?;
            self.restore(&names.0, &names.1, names.2).lock().recorded = true;
        }
        Ok(())
    }

    fn restore(&self, sensor: &SensorId, attribute: &Attribute, kind: Kind) -> Series {
        let shape = if kind.is_text() { Shape::Text } else { Shape::Numbers(1) };
        self.memory.restore(sensor, attribute, kind, shape)
    }

    /// Nothing was counted yet that a clear could take from this run.
    fn operate(&self, operation: Operation) {
        // Nobody follows the feed yet.
        let _ = describe::operate(self.memory, self.config, operation, 0);
    }

    fn descriptors(&self, transaction: &ReadTransaction) -> Result<(), OpenError> {
        let Some(table) = self.table(transaction, DESCRIPTORS)? else { return Ok(()) };
        for entry in table.iter().map_err(|error| self.database_error(error))? {
            let (key, record) = entry.map_err(|error| self.database_error(error))?;
            let operations = descriptor_operations(record.value());
            let operations = operations.map_err(|error| self.record("descriptors", key.value(), &error))?;
            operations.into_iter().for_each(|operation| self.operate(operation));
        }
        self.memory.rooms.write().set_saved();
        self.memory.retained.write().set_saved();
        Ok(())
    }

    /// Applies what the log says of sensors, before any sample is joined. The log is ordered by origins, which are
    /// random: a `keep` that was raised would else come after samples that were held because of it, and a ring that
    /// is too small for a moment lets go of them for good.
    fn descriptions_of_log(&self, transaction: &ReadTransaction) -> Result<(), OpenError> {
        let Some(table) = self.table(transaction, LOG)? else { return Ok(()) };
        for entry in table.iter().map_err(|error| self.database_error(error))? {
            let (key, record) = entry.map_err(|error| self.database_error(error))?;
            let frame = Frame::decode_if(record.value(), |partition| partition == REGISTRY)
                .map_err(|error| self.record("log", key.value(), &error))?;
            for block in frame.blocks {
                if let Body::Registry(operations) = block.body {
                    operations.into_iter().for_each(|operation| self.operate(operation));
                }
            }
        }
        Ok(())
    }

    /// Joins the chunks of some partitions; returns the highest stamp.
    fn chunks(&self, partitions: Range<u16>) -> Result<u64, OpenError> {
        let transaction = self.read()?;
        let Some(table) = self.table(&transaction, CHUNKS)? else { return Ok(0) };
        let range = (partitions.start, 0, i64::MIN)..(partitions.end, 0, i64::MIN);
        let (mut highest, mut last) = (0, None::<(u128, Series)>);
        for entry in table.range(range).map_err(|error| self.database_error(error))? {
            let (key, record) = entry.map_err(|error| self.database_error(error))?;
            let (_, id, first) = key.value();
            let (samples, stamps) =
                chunks::decode(record.value()).map_err(|error| self.record("chunks", key.value(), &error))?;
            let series = match last.take() {
                Some((held, series)) if held == id => series,
                _ => self.memory.by_id(crate::SeriesId(id.to_be_bytes())).ok_or_else(|| {
                    self.damaged(format!("chunk {:?} is of a series without names", key.value()))
                })?,
            };
            if let Stamps::Each(stamps) = &stamps {
                highest = stamps.iter().map(|stamp| stamp.time).max().unwrap_or(0).max(highest);
            }
            let count = samples.times.len();
            let end = samples.times.last().map_or(first, |time| time.0);
            let mut state = series.lock();
            let samples = conform(state.kind, samples);
            state.chunks.push(Span { first, last: end, count });
            let joined = state.ring.join(&samples, &stamps, &mut Vec::new());
            if joined.cleared > 0 {
                state.soil(&samples);
            }
            drop(state);
            last = Some((id, series));
        }
        Ok(highest)
    }

    fn log(
        &self,
        transaction: &ReadTransaction,
        log: &mut LogIndex,
        tally: &mut Tally,
        stamp: &mut u64,
    ) -> Result<(), OpenError> {
        let Some(table) = self.table(transaction, LOG)? else { return Ok(()) };
        for entry in table.iter().map_err(|error| self.database_error(error))? {
            let (key, record) = entry.map_err(|error| self.database_error(error))?;
            let frame =
                Frame::decode(record.value()).map_err(|error| self.record("log", key.value(), &error))?;
            let (commit, place) = key.value();
            log.push((commit, place), record.value().len() as u64);
            let (origin, number) = (frame.origin, frame.number);
            let counts = tally.counts(origin, commit);
            for block in frame.blocks {
                if counts {
                    self.count(origin, &block, &mut tally.versions)?;
                }
                self.block(block, stamp)?;
            }
            if counts && (place == OWN || is_whole(place)) {
                tally.versions.advance(FRAMES, origin, number);
            }
        }
        Ok(())
    }

    fn count(&self, origin: Origin, block: &Block, versions: &mut VersionVector) -> Result<(), OpenError> {
        if let Offer::Gap(missing) = versions.offer(block.partition, origin, block.number) {
            let (partition, number) = (block.partition.0, block.number);
            let what = format!(
                "the log lacks block {missing} of partition {partition} by {origin}, before {number}"
            );
            return Err(self.damaged(what));
        }
        versions.advance(block.partition, origin, block.number);
        Ok(())
    }

    fn block(&self, block: Block, stamp: &mut u64) -> Result<(), OpenError> {
        match block.body {
            Body::Registry(operations) => operations.into_iter().for_each(|operation| {
                *stamp = operation.stamp().time.max(*stamp);
                self.operate(operation);
            }),
            Body::Samples { names, runs } => {
                for name in names {
                    let series = self.restore(&name.sensor, &name.attribute, name.kind);
                    named(self.config, &series, name.kind, &runs);
                }
                for Run { series, stamp: first, samples } in runs {
                    *stamp = (first.time + samples.times.len() as u64).max(*stamp);
                    let series = self.memory.by_id(series).ok_or_else(|| {
                        self.damaged(format!("the log has samples of {series:?}, which has no names"))
                    })?;
                    let mut state = series.lock();
                    let samples = conform(state.kind, samples);
                    state.ring.join(&samples, &Stamps::From(first), &mut Vec::new());
                    state.soil(&samples);
                }
            }
        }
        Ok(())
    }
}

/// Reads a record of the `series` table.
pub(crate) fn series_names(record: &[u8]) -> Result<(SensorId, Attribute, Kind), Malformed> {
    let mut reader = Reader(unseal(record)?);
    let sensor = SensorId::new(reader.text("a sensor")?).map_err(|_| reader.malformed("a sensor id"))?;
    let attribute =
        Attribute::new(reader.text("an attribute")?).map_err(|_| reader.malformed("an attribute id"))?;
    let kind = Kind::parse(reader.text("a kind")?).ok_or(reader.malformed("a known kind"))?;
    Ok((sensor, attribute, kind))
}

/// Reads a record of the `descriptors` table.
pub(crate) fn descriptor_operations(record: &[u8]) -> Result<Vec<Operation>, Malformed> {
    let mut reader = Reader(unseal(record)?);
    let mut operations = Vec::new();
    while !reader.is_empty() {
        operations.push(Operation::decode(&mut reader)?);
    }
    Ok(operations)
}
