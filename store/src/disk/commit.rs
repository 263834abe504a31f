//! The committer: the one thread that writes. It seals a frame, commits it, settles its tickets, and goes on.
//!
//! A commit starts when work exists and none is running; the next group forms meanwhile. What the checkpointer has
//! prepared rides in the same transactions. Invariants: a ticket is settled as kept only after `commit` returned with
//! `Durability::Immediate`; after a failed commit nothing is ever acknowledged again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Instant;

use parking_lot::Mutex;
use redb::Database;

use super::tables::{CHUNKS, ChunkKey, DESCRIPTORS, FORMAT, LOG, LogKey, META, SERIES, VERSIONS, log_key};
use crate::error::{CLOSED, Failed};
use crate::group::{Copies, Group, Pace, Sealed, Wake};
use crate::model::ids::{NodeId, Origin, PARTITIONS};
use crate::replica::frame::{FrameWriter, Name, REGISTRY};
use crate::replica::version::VersionVector;
use crate::series::OpenRun;

/// Work of the checkpointer for the next transaction.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    pub chunks_gone: Vec<ChunkKey>,
    pub chunks: Vec<(ChunkKey, Vec<u8>)>,
    pub series: Vec<(u128, Vec<u8>)>,
    pub descriptors: Vec<(String, Vec<u8>)>,
    /// Write the version vector: the log is about to be trimmed.
    pub versions: bool,
    pub trim: Vec<LogKey>,
}

impl Errand {
    /// Bytes that it adds to the transaction.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.1.len()).sum()
    }
}

/// The frames that the log holds, oldest first.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    pub frames: VecDeque<(LogKey, u64)>,
    pub bytes: u64,
}

impl LogIndex {
    pub(crate) fn push(&mut self, key: LogKey, bytes: u64) {
        self.frames.push_back((key, bytes));
        self.bytes += bytes;
    }
}

/// How commits went.
#[derive(Debug, Default)]
pub(crate) struct CommitFigures {
    pub commits: AtomicU64,
    pub frames: AtomicU64,
    pub nanos: AtomicU64,
    pub durable_frame: AtomicU64,
}

/// What committer and checkpointer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub origin: Origin,
    pub group: Group,
    pub log: Mutex<LogIndex>,
    pub versions: Mutex<VersionVector>,
    pub figures: CommitFigures,
    pub log_budget: u64,
}

/// The committer's end of the world.
pub(crate) struct Committer {
    pub database: Database,
    pub shared: Arc<Shared>,
    pub errands: Receiver<(Errand, SyncSender<()>)>,
    /// Tells the checkpointer that the log is over its budget.
    pub over_budget: SyncSender<()>,
}

impl Committer {
    /// Runs until the group closes or a commit fails; whatever ends it, nothing is acknowledged afterwards.
    pub(crate) fn run(self) {
        let shared = self.shared.clone();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.commits())).is_err() {
            tracing::error!(
                "the database gave up in a commit; nothing more is acknowledged, restart the node"
            );
            shared.group.fail(&Failed("the database gave up in a commit".into()));
        }
    }

    fn commits(self) {
        let mut pace = Pace::new();
        while self.shared.group.wait(&mut pace) == Wake::Work {
            let (errand, done) = match self.errands.try_recv() {
                Ok((errand, done)) => (errand, Some(done)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => (Errand::default(), None),
            };
            let sealed = self.shared.group.seal();
            let (frame, bytes) = self.frame(&sealed);
            self.shared.group.shrink(bytes);
            let started = Instant::now();
            pace.spend();
            match self.commit(&sealed, frame.as_deref(), &errand) {
                Ok(()) => {
                    self.shared.figures.nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
                    self.shared.figures.commits.fetch_add(1, Relaxed);
                    self.shared.figures.durable_frame.store(sealed.ticket.frame(), Relaxed);
                    sealed.ticket.settle(Ok(Copies(1)));
                }
                Err(error) => {
                    let failed = Failed(format!("a commit failed: {error}").into());
                    tracing::error!(%error, "a commit failed; nothing more is acknowledged, restart the node");
                    sealed.ticket.settle(Err(failed.clone()));
                    self.shared.group.fail(&failed);
                    return;
                }
            }
            if let Some(done) = done {
                // The checkpointer may have ended; then nobody waits.
                let _ = done.try_send(());
            }
            let log_bytes = self.shared.log.lock().bytes;
            self.shared.group.choke(log_bytes >= 2 * self.shared.log_budget);
            if log_bytes >= self.shared.log_budget {
                // Full means that it has been told already.
                let _ = self.over_budget.try_send(());
            }
        }
        self.shared.group.fail(&Failed(CLOSED.into()));
    }

    /// Writes the sealed group as a frame; `None` when it is empty. Also returns the bytes that it gives back.
    fn frame(&self, sealed: &Sealed) -> (Option<Vec<u8>>, usize) {
        if sealed.dirty.is_empty() && sealed.operations.is_empty() {
            return (None, 0);
        }
        let shared = &self.shared;
        let mut writer = FrameWriter::new(shared.origin, sealed.ticket.frame());
        let mut versions = shared.versions.lock();
        if !sealed.operations.is_empty() {
            writer.registry(versions.next(REGISTRY, shared.origin), &sealed.operations);
        }
        let mut dirty: Vec<_> = sealed.dirty.iter().collect();
        dirty.sort_by_key(|series| series.partition());
        let mut freed = 0;
        for block in dirty.chunk_by(|a, b| a.partition() == b.partition()) {
            let (mut names, mut runs) = (Vec::new(), Vec::new());
            for series in block {
                let mut state = series.lock();
                if !std::mem::replace(&mut state.named, true) {
                    let (sensor, attribute) = (series.sensor().clone(), series.attribute().clone());
                    names.push(Name { sensor, attribute, kind: state.kind });
                }
                if let Some(OpenRun { finished, writer, bytes, .. }) = state.open.take() {
                    state.next_stamp = writer.next_stamp();
                    drop(state);
                    freed += bytes;
                    runs.extend_from_slice(&finished);
                    writer.finish(series.id(), &mut runs);
                }
            }
            let partition = block[0].partition();
            writer.samples(partition, versions.next(partition, shared.origin), &names, &runs);
        }
        (Some(writer.finish()), freed)
    }

    fn commit(&self, sealed: &Sealed, frame: Option<&[u8]>, errand: &Errand) -> Result<(), redb::Error> {
        let shared = &self.shared;
        // redb's default durability is `Immediate`: commit returns after the sync.
        let transaction = self.database.begin_write()?;
        let key = log_key(shared.origin, sealed.ticket.frame());
        {
            let mut log = transaction.open_table(LOG)?;
            if let Some(frame) = frame {
                log.insert(key, frame)?;
            }
            for key in &errand.trim {
                log.remove(key)?;
            }
        }
        if !errand.chunks_gone.is_empty() || !errand.chunks.is_empty() {
            let mut chunks = transaction.open_table(CHUNKS)?;
            for key in &errand.chunks_gone {
                chunks.remove(key)?;
            }
            for (key, record) in &errand.chunks {
                chunks.insert(key, record.as_slice())?;
            }
        }
        if !errand.series.is_empty() {
            let mut table = transaction.open_table(SERIES)?;
            for (key, record) in &errand.series {
                table.insert(key, record.as_slice())?;
            }
        }
        if !errand.descriptors.is_empty() {
            let mut table = transaction.open_table(DESCRIPTORS)?;
            for (key, record) in &errand.descriptors {
                table.insert(key.as_str(), record.as_slice())?;
            }
        }
        if errand.versions {
            let mut table = transaction.open_table(VERSIONS)?;
            for (partition, origin, last) in shared.versions.lock().iter() {
                table.insert((partition.0, origin.node.0, origin.start), last)?;
            }
        }
        transaction.commit()?;
        let mut log = shared.log.lock();
        if let Some(frame) = frame {
            log.push(key, frame.len() as u64);
            shared.figures.frames.fetch_add(1, Relaxed);
        }
        for key in &errand.trim {
            if let Some(at) = log.frames.iter().position(|frame| frame.0 == *key)
                && let Some((_, bytes)) = log.frames.remove(at)
            {
                log.bytes -= bytes;
            }
        }
        Ok(())
    }
}

/// Gives a new file its format and its node id.
pub(crate) fn initialise(database: &Database) -> Result<NodeId, redb::Error> {
    let node = NodeId(rand::random());
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("node", node.0)?;
        meta.insert("partitions", u64::from(PARTITIONS))?;
    }
    transaction.commit()?;
    Ok(node)
}
