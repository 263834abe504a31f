//! Group commit: what the next frame will hold, and the tickets of those who wait for it.
//!
//! The first sample that a series gets after a seal puts the series on the dirty list of the frame to come; sealing
//! takes the list and opens the next frame. Invariant: a ticket is kept only after its frame is durable.
//!
//! Bounds: at most [`GROUP_BYTES`] of encoded samples wait for a commit (and one append beyond); then appending waits.
//! It also waits while the log is at twice its budget, until a checkpoint has trimmed it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::error::Failed;
use crate::model::ids::{Origin, Partition};
use crate::pace::Pace;
use crate::registry::Operation;
use crate::series::Series;

/// Bytes of encoded samples that may wait for the next commit.
pub(crate) const GROUP_BYTES: usize = 1 << 20;
/// A group of this size is committed without waiting for company.
const FULL_GROUP_BYTES: usize = 256 << 10;
/// On how many nodes samples are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copies(pub u8);

/// Proof of an append, to wait with.
#[derive(Debug, Clone)]
pub struct Ticket(Arc<Pending>);

#[derive(Debug)]
struct Pending {
    frame: u64,
    fate: OnceLock<Result<Copies, Failed>>,
    settled: Notify,
}

impl Ticket {
    fn new(frame: u64) -> Self {
        Self(Arc::new(Pending { frame, fate: OnceLock::new(), settled: Notify::new() }))
    }

    /// The number of the commit that holds the samples; commits become durable in order.
    pub fn frame(&self) -> u64 {
        self.0.frame
    }

    /// Whether the samples are kept, if that is settled.
    pub fn is_kept(&self) -> Option<Result<Copies, Failed>> {
        self.0.fate.get().cloned()
    }

    /// Waits until the samples are durable. Cancel-safe.
    pub async fn kept(&self) -> Result<Copies, Failed> {
        loop {
            let settled = self.0.settled.notified();
            if let Some(fate) = self.0.fate.get() {
                return fate.clone();
            }
            settled.await;
        }
    }

    pub(crate) fn settle(&self, fate: Result<Copies, Failed>) {
        if self.0.fate.set(fate).is_ok() {
            self.0.settled.notify_waiters();
        }
    }
}

/// What gathered for a frame.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub ticket: Ticket,
    pub dirty: Vec<Series>,
    pub operations: Vec<Operation>,
    /// Frames of other origins.
    pub taken: Vec<Logged>,
}

/// A frame of another origin for the log, and what is held with it.
#[derive(Debug)]
pub(crate) struct Logged {
    pub bytes: Bytes,
    pub whole: bool,
    pub marks: Vec<(Partition, Origin, u64)>,
}

/// The tickets of frames that are sealed and not yet acknowledged, oldest first. Their number is bounded by that of
/// the senders who wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<VecDeque<Ticket>>);

impl Waiting {
    pub(crate) fn push(&self, ticket: Ticket) {
        self.0.lock().push_back(ticket);
    }

    /// Settles the tickets of all frames up to this one.
    pub(crate) fn settle(&self, frame: u64, copies: Copies) {
        let mut waiting = self.0.lock();
        while let Some(ticket) = waiting.front().filter(|ticket| ticket.frame() <= frame) {
            ticket.settle(Ok(copies));
            waiting.pop_front();
        }
    }

    /// However it ends, nobody waits for ever.
    pub(crate) fn fail(&self, failed: &Failed) {
        self.0.lock().drain(..).for_each(|ticket| ticket.settle(Err(failed.clone())));
    }
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    dirty: Vec<Series>,
    operations: Vec<Operation>,
    taken: Vec<Logged>,
    /// When the first came that no commit has taken.
    since: Option<Instant>,
    sealed_at: Instant,
    /// How far seals between commits are apart.
    rest: Duration,
    /// The committer is in a commit, or lets a while pass before the next.
    busy: bool,
    /// The checkpointer has something for the next transaction.
    errand: bool,
    closing: bool,
    failed: Option<Failed>,
}

impl Open {
    /// Whether there are samples or operations of this node that no frame holds.
    fn is_unsealed(&self) -> bool {
        !self.dirty.is_empty() || !self.operations.is_empty()
    }

    fn gather(&mut self) -> Gathered {
        let next = Ticket::new(self.ticket.frame() + 1);
        self.sealed_at = Instant::now();
        Gathered {
            ticket: std::mem::replace(&mut self.ticket, next),
            dirty: std::mem::take(&mut self.dirty),
            operations: std::mem::take(&mut self.operations),
            taken: std::mem::take(&mut self.taken),
        }
    }
}

/// The group that is open for appending.
#[derive(Debug)]
pub(crate) struct Group {
    open: Mutex<Open>,
    work: Condvar,
    /// For the sealer, while the committer is busy.
    between: Condvar,
    /// Somebody takes frames as they are sealed.
    offered: AtomicBool,
    bytes: AtomicUsize,
    full: AtomicBool,
    /// The log is over its bound: appending waits for the checkpoint.
    choked: AtomicBool,
    room: Notify,
    window: Duration,
}

/// Why [`Group::wait`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Work,
    Closing,
}

impl Group {
    /// `first` is the number of the first commit.
    pub(crate) fn new(window: Duration, first: u64) -> Self {
        let open = Open {
            ticket: Ticket::new(first),
            dirty: Vec::new(),
            operations: Vec::new(),
            taken: Vec::new(),
            since: None,
            sealed_at: Instant::now(),
            rest: Duration::ZERO,
            busy: false,
            errand: false,
            closing: false,
            failed: None,
        };
        Self {
            open: Mutex::new(open),
            work: Condvar::new(),
            between: Condvar::new(),
            offered: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            choked: AtomicBool::new(false),
            room: Notify::new(),
            window,
        }
    }

    /// Waits until the group has room. Cancel-safe.
    pub(crate) async fn room(&self) -> Result<(), Failed> {
        loop {
            let room = self.room.notified();
            if self.bytes.load(Ordering::Relaxed) < GROUP_BYTES && !self.choked.load(Ordering::Relaxed) {
                return self.open.lock().failed.clone().map_or(Ok(()), Err);
            }
            room.await;
        }
    }

    /// Puts `series` on the list of the frame to come.
    pub(crate) fn enlist(&self, series: &Series) -> Ticket {
        let mut open = self.open.lock();
        let between = open.busy && !open.is_unsealed();
        open.dirty.push(series.clone());
        let ticket = open.ticket.clone();
        if let Some(failed) = &open.failed {
            ticket.settle(Err(failed.clone()));
        }
        self.gained(open, between);
        ticket
    }

    /// Adds registry operations to the frame to come: all to one.
    pub(crate) fn operate(&self, operations: impl IntoIterator<Item = Operation>) -> Ticket {
        let mut open = self.open.lock();
        let between = open.busy && !open.is_unsealed();
        open.operations.extend(operations);
        let ticket = open.ticket.clone();
        self.gained(open, between);
        ticket
    }

    /// Something of this node waits for a frame: wakes whoever is to seal it.
    fn gained(&self, mut open: MutexGuard<'_, Open>, between: bool) {
        let first = open.since.is_none();
        open.since.get_or_insert_with(Instant::now);
        drop(open);
        if first {
            self.work.notify_one();
        }
        if between && self.offered.load(Ordering::Relaxed) {
            self.between.notify_one();
        }
    }

    /// Whether registry operations wait for a frame.
    pub(crate) fn operates(&self) -> bool {
        !self.open.lock().operations.is_empty()
    }

    /// Adds a frame of another origin to the next commit. Its samples count as waiting: see [`Self::shrink`].
    pub(crate) fn take(&self, logged: Logged) {
        // Counted first: what was taken may be in a commit at once.
        self.grow(logged.bytes.len());
        let mut open = self.open.lock();
        open.taken.push(logged);
        let first = open.since.is_none();
        open.since.get_or_insert_with(Instant::now);
        drop(open);
        if first {
            self.work.notify_one();
        }
    }

    /// Counts encoded bytes.
    pub(crate) fn grow(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before < FULL_GROUP_BYTES && before + bytes >= FULL_GROUP_BYTES {
            self.full.store(true, Ordering::Relaxed);
            drop(self.open.lock());
            self.work.notify_one();
        }
    }

    /// Bytes that wait for a commit.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Asks for a transaction even without samples.
    pub(crate) fn errand(&self) {
        self.open.lock().errand = true;
        self.work.notify_one();
    }

    /// The frame that is open now: everything appended from here on is in it or a later one.
    pub(crate) fn frame(&self) -> u64 {
        self.open.lock().ticket.frame()
    }

    /// Ends the committer once nothing waits.
    pub(crate) fn close(&self) {
        self.open.lock().closing = true;
        self.work.notify_one();
        self.between.notify_one();
    }

    /// Stops the group: this frame and all later ones fail.
    pub(crate) fn fail(&self, failed: &Failed) {
        let mut open = self.open.lock();
        open.failed = Some(failed.clone());
        open.ticket.settle(Err(failed.clone()));
        drop(open);
        self.bytes.store(0, Ordering::Relaxed);
        self.choked.store(false, Ordering::Relaxed);
        self.room.notify_waiters();
        self.between.notify_one();
    }

    /// Why the group has stopped, if it has.
    pub(crate) fn failed(&self) -> Option<Failed> {
        self.open.lock().failed.clone()
    }

    /// Blocks until it is time to commit: when something waits for that, or at `latest`.
    pub(crate) fn wait(&self, pace: &mut Pace, latest: Option<Instant>) -> Wake {
        let mut open = self.open.lock();
        open.busy = false;
        open.rest = pace.rest();
        let wake = loop {
            match open.since {
                None if open.errand => break Wake::Work,
                None if open.closing => break Wake::Closing,
                None => match latest {
                    Some(latest) if Instant::now() >= latest => break Wake::Work,
                    Some(latest) => drop(self.work.wait_until(&mut open, latest)),
                    None => self.work.wait(&mut open),
                },
                Some(_) if open.closing || self.full.load(Ordering::Relaxed) => break Wake::Work,
                Some(since) => {
                    let due = pace.due().max(since + self.window);
                    if Instant::now() >= due {
                        break Wake::Work;
                    }
                    if !std::mem::replace(&mut open.busy, true) && open.is_unsealed() {
                        self.between.notify_one();
                    }
                    self.work.wait_until(&mut open, due);
                }
            }
        };
        open.busy = true;
        // Before the errand is taken: whoever brings the next one asks again.
        open.errand = false;
        wake
    }

    /// Blocks until it is time for a seal between two commits: the committer is busy, somebody takes frames as they are
    /// sealed, and the last seal was long enough ago.
    pub(crate) fn wait_between(&self) -> Wake {
        let mut open = self.open.lock();
        loop {
            if open.closing || open.failed.is_some() {
                return Wake::Closing;
            }
            if open.busy && open.is_unsealed() && self.offered.load(Ordering::Relaxed) {
                let due = open.sealed_at + open.rest.max(self.window);
                if Instant::now() >= due {
                    return Wake::Work;
                }
                self.between.wait_until(&mut open, due);
            } else {
                self.between.wait(&mut open);
            }
        }
    }

    /// Says whether somebody takes frames as they are sealed.
    pub(crate) fn offer(&self, offered: bool) {
        self.offered.store(offered, Ordering::Relaxed);
    }

    /// Takes what has gathered for a frame, and opens the next.
    pub(crate) fn gather(&self) -> Gathered {
        self.open.lock().gather()
    }

    /// The same for the commit that now begins: nothing waits for one any longer.
    pub(crate) fn gather_last(&self) -> Gathered {
        let mut open = self.open.lock();
        open.since = None;
        self.full.store(false, Ordering::Relaxed);
        open.gather()
    }

    /// Makes appending wait, or go on.
    pub(crate) fn choke(&self, choked: bool) {
        if self.choked.swap(choked, Ordering::Relaxed) && !choked {
            self.room.notify_waiters();
        }
    }

    /// Gives room back for `bytes` that a commit took.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.notify_waiters();
    }
}
