//! The committer: the one thread that writes. It seals what has gathered, commits it together with the frames that were
//! sealed since the last commit, and goes on.
//!
//! A commit starts when work exists and none is running; the next group forms meanwhile. A small one goes to the journal,
//! and into the database with a later one. What the checkpointer has prepared rides in transactions of the database, behind
//! all that the journal has. Invariants: what is told to [`Replica::committed`] was durable before (the journal was synced, or
//! `commit` returned with `Durability::Immediate`); after a failed commit nothing is ever acknowledged again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

use parking_lot::Mutex;
use redb::{Database, ReadableTable};

use super::checkpoint::Job;
use super::journal::{Frames, Journal, Record};
use super::tables::{
    CHUNKS, ChunkKey, DESCRIPTORS, FOLDED, FORMAT, LOG, LOG_BEFORE, LogKey, META, OWN, SERIES, VERSIONS,
};
use crate::error::{CLOSED, Failed};
use crate::group::{Group, Waiting, Wake};
use crate::model::ids::{NodeId, Origin, PARTITIONS, Partition};
use crate::pace::Pace;
use crate::post::Post;
use crate::replica::fold::Fold;
use crate::replica::message::Coverage;
use crate::replica::state::Replica;
use crate::seal::{Mark, Sealed};
use crate::tail::Tail;

/// Work of the checkpointer for the next transaction.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    pub chunks_gone: Vec<ChunkKey>,
    pub chunks: Vec<(ChunkKey, Vec<u8>)>,
    pub series: Vec<(u128, Vec<u8>)>,
    pub descriptors: Vec<(String, Vec<u8>)>,
    pub descriptors_gone: Vec<String>,
    /// Write the version vector: the log is about to be trimmed, or a snapshot counts from here on.
    pub versions: Option<Coverage>,
    /// With the version vector: what is folded in it.
    pub fold: Option<Fold>,
    pub trim: Vec<LogKey>,
}

impl Errand {
    /// Bytes that it adds to the transaction.
    pub(crate) fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.1.len()).sum();
        chunks + self.descriptors.iter().map(|descriptor| descriptor.1.len()).sum::<usize>()
    }
}

/// An errand, and whom to tell that it is committed.
pub(crate) type Sent = (Errand, SyncSender<()>);

/// The committer has ended.
#[derive(Debug)]
pub(crate) struct Ended;

/// The frames that the log holds, oldest first.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    pub frames: VecDeque<(LogKey, u64)>,
    pub bytes: u64,
    /// The last own frame of this run that was trimmed.
    pub floor: u64,
}

impl LogIndex {
    pub(crate) fn push(&mut self, key: LogKey, bytes: u64) {
        self.frames.push_back((key, bytes));
        self.bytes += bytes;
    }

    fn trim(&mut self, key: LogKey) {
        if let Some(at) = self.frames.iter().position(|frame| frame.0 == key)
            && let Some((_, bytes)) = self.frames.remove(at)
        {
            self.bytes -= bytes;
            if key.1 == OWN {
                self.floor = self.floor.max(key.0);
            }
        }
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

/// What committer, checkpointer and links share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub origin: Origin,
    /// The first commit of this run.
    pub first: u64,
    pub group: Group,
    pub waiting: Waiting,
    /// What waits for a commit, in order; locked while a frame is sealed. Lock order: before everything else here.
    pub sealed: Mutex<Vec<Sealed>>,
    pub log: Mutex<LogIndex>,
    /// The journal has frames that the database lacks.
    pub owed: AtomicBool,
    pub errands: SyncSender<Sent>,
    /// The checkpointer was told that the log is over its budget.
    pub trimming: AtomicBool,
    pub tail: Tail,
    /// Lock order: after nothing, before the series.
    pub replica: Mutex<Replica>,
    pub post: Post,
    pub figures: CommitFigures,
    pub log_budget: u64,
}

impl Shared {
    /// Hands an errand over and waits until it is committed.
    pub(crate) fn send(&self, errand: Errand) -> Result<(), Ended> {
        let (done, committed) = sync_channel(1);
        self.errands.send((errand, done)).map_err(|_| Ended)?;
        self.group.errand();
        committed.recv().map_err(|_| Ended)
    }

    /// Waits until the database has all that is durable: whoever reads there what this node said that it holds. A store that
    /// ends has it as it ends.
    pub(crate) fn settle(&self) {
        if self.owed.load(Relaxed) {
            let _ = self.send(Errand::default());
        }
    }

    /// Stops everything that waits for a commit.
    pub(crate) fn fail(&self, failed: &Failed) {
        self.group.fail(failed);
        self.waiting.fail(failed);
    }
}

/// The committer's end of the world.
pub(crate) struct Committer {
    pub database: Arc<Database>,
    pub shared: Arc<Shared>,
    pub errands: Receiver<Sent>,
    pub journal: Journal,
    /// What the journal has and the database lacks.
    pub owed: Vec<Sealed>,
    /// To tell the checkpointer that the log is over its budget.
    pub jobs: Sender<Job>,
}

impl Committer {
    /// Runs until the group closes or a commit fails; whatever ends it, nothing is acknowledged afterwards.
    pub(crate) fn run(self) {
        let shared = self.shared.clone();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.commits())).is_err() {
            tracing::error!(
                "the database gave up in a commit; nothing more is acknowledged, restart the node"
            );
            shared.fail(&Failed("the database gave up in a commit".into()));
        }
    }

    fn commits(mut self) {
        let mut pace = Pace::new();
        loop {
            let wake = self.shared.group.wait(&mut pace, self.journal.due());
            if wake == Wake::Closing && self.owed.is_empty() {
                break;
            }
            let (errand, done) = match self.errands.try_recv() {
                Ok((errand, done)) => (Some(errand), Some(done)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => (None, None),
            };
            let sealed = self.shared.seal_last();
            let bytes = sealed.iter().map(|sealed| sealed.bytes).sum();
            let own = sealed.iter().rev().find(|sealed| sealed.frame.is_some()).map(|sealed| sealed.number);
            let marks: Vec<_> = sealed.iter().flat_map(|sealed| &sealed.marks).copied().collect();
            self.shared.group.shrink(bytes);
            let started = Instant::now();
            pace.spend(bytes);
            match self.commit(sealed, errand, &marks, wake == Wake::Closing) {
                Ok(number) => {
                    self.shared.figures.nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
                    self.shared.figures.commits.fetch_add(1, Relaxed);
                    self.shared.figures.durable_frame.store(number, Relaxed);
                    self.shared.replicate(|replica| replica.committed(own, marks));
                }
                Err(error) => {
                    let failed = Failed(format!("a commit failed: {error}").into());
                    tracing::error!(%error, "a commit failed; nothing more is acknowledged, restart the node");
                    self.shared.fail(&failed);
                    return;
                }
            }
            if let Some(done) = done {
                // Whoever sent the errand may have ended; then nobody waits.
                let _ = done.try_send(());
            }
            let log_bytes = self.shared.log.lock().bytes;
            self.shared.group.choke(log_bytes >= 2 * self.shared.log_budget);
            if log_bytes >= self.shared.log_budget && !self.shared.trimming.swap(true, Relaxed) {
                // The checkpointer outlives the committer.
                let _ = self.jobs.send(Job::OverBudget);
            }
        }
        self.shared.fail(&Failed(CLOSED.into()));
    }

    /// Makes what was sealed durable: in the journal, or in the database together with all that the journal has. Gives the
    /// number of the last seal.
    fn commit(
        &mut self,
        sealed: Vec<Sealed>,
        errand: Option<Errand>,
        marks: &[Mark],
        closing: bool,
    ) -> Result<u64, redb::Error> {
        let number = sealed.last().map_or(0, |sealed| sealed.number);
        let frames: Vec<_> = sealed.iter().flat_map(Sealed::records).collect();
        let shared = self.shared.clone();
        let due = closing || self.journal.due().is_some_and(|due| due <= Instant::now());
        let noted = errand.is_none() && !due && self.journal.append(&frames)?;
        let errand = errand.unwrap_or_default();
        if !noted {
            let owed: Vec<_> = self.owed.iter().flat_map(Sealed::records).collect();
            self.transact(number, &[owed.as_slice(), frames.as_slice()], &errand, marks)?;
            self.journal.moved(frames.last().map(|(key, _)| key.0));
        }
        {
            let mut log = shared.log.lock();
            frames.iter().for_each(|(key, frame)| log.push(*key, frame.len() as u64));
            errand.trim.iter().for_each(|key| log.trim(*key));
        }
        let own = sealed.iter().filter(|sealed| sealed.frame.is_some()).count();
        shared.figures.frames.fetch_add(own as u64, Relaxed);
        if noted {
            self.owed.extend(sealed);
        } else {
            self.owed.clear();
        }
        shared.owed.store(noted && self.journal.due().is_some(), Relaxed);
        Ok(number)
    }

    fn transact(
        &self,
        number: u64,
        frames: &[&Frames<'_>],
        errand: &Errand,
        marks: &[Mark],
    ) -> Result<(), redb::Error> {
        let shared = &self.shared;
        // redb's default durability is `Immediate`: commit returns after the sync.
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            for (key, frame) in frames.iter().copied().flatten() {
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
        if !errand.descriptors.is_empty() || !errand.descriptors_gone.is_empty() {
            let mut table = transaction.open_table(DESCRIPTORS)?;
            for key in &errand.descriptors_gone {
                table.remove(key.as_str())?;
            }
            for (key, record) in &errand.descriptors {
                table.insert(key.as_str(), record.as_slice())?;
            }
        }
        if let Some(coverage) = &errand.versions {
            // Never what is only held: blocks that came since the seal are in no log yet.
            let mut versions = shared.replica.lock().durable().clone();
            let mut folded = transaction.open_table(FOLDED)?;
            let oldest = shared.log.lock().frames.front().map_or(number, |frame| frame.0.0);
            folded.retain(|_, commit| commit >= oldest)?;
            if let Some(fold) = &errand.fold {
                versions.fold(fold);
                for origin in &fold.origins {
                    folded.insert((origin.node.0, origin.start), number)?;
                }
            }
            for (partition, origin, last) in marks {
                versions.advance(*partition, *origin, *last);
            }
            coverage.marks().for_each(|(partition, origin, last)| versions.advance(partition, origin, last));
            let mut table = transaction.open_table(VERSIONS)?;
            table.retain(|(partition, node, start), _| {
                versions.last(Partition(partition), Origin { node: NodeId(node), start }) > 0
            })?;
            for (partition, origin, last) in versions.iter() {
                table.insert((partition.0, origin.node.0, origin.start), last)?;
            }
            transaction.open_table(META)?.insert("commit", number)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Puts the records of the journal into the log, where they belong, and gives the journal's run another number: what it
/// holds is of no use from here on.
pub(crate) fn take_in(database: &Database, records: &[Record], run: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut log = transaction.open_table(LOG)?;
        for (key, frame) in records.iter().flat_map(|record| &record.frames) {
            log.insert(key, frame.as_slice())?;
        }
        transaction.open_table(META)?.insert("run", run)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Gives a new file its format and its node id.
pub(crate) fn initialise(database: &Database, run: u64) -> Result<NodeId, redb::Error> {
    let node = NodeId(rand::random());
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("run", run)?;
        meta.insert("format", FORMAT)?;
        meta.insert("node", node.0)?;
        meta.insert("partitions", u64::from(PARTITIONS))?;
    }
    transaction.commit()?;
    Ok(node)
}

/// Rewrites a file of a format before: the log of format 1 gets commit numbers. All of it in one transaction, so that a
/// file is of one format or the other.
pub(crate) fn upgrade(database: &Database, found: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut frames = transaction.open_table(LOG)?;
        if found == 1 {
            for (entry, commit) in transaction.open_table(LOG_BEFORE)?.iter()?.zip(1..) {
                frames.insert((commit, OWN), entry?.1.value())?;
            }
        }
        transaction.open_table(META)?.insert("format", FORMAT)?;
    }
    transaction.delete_table(LOG_BEFORE)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::handle::Store;
    use crate::model::ids::NodeName;

    #[tokio::test]
    async fn errands_of_several_threads_are_all_done() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path(), NodeName::new("a").unwrap())).unwrap();
        let (done, mut ends) = tokio::sync::mpsc::channel(3);
        for _ in 0..3 {
            let (shared, done) = (store.shared().clone(), done.clone());
            std::thread::spawn(move || {
                (0..300).for_each(|_| shared.send(Errand::default()).expect("the committer is there"));
                done.blocking_send(()).expect("somebody waits");
            });
        }
        for _ in 0..3 {
            let end = tokio::time::timeout(std::time::Duration::from_secs(60), ends.recv()).await;
            assert_eq!(end.expect("nobody waits for ever"), Some(()));
        }
        store.close().await;
    }
}
