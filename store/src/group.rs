//! Group commit: what the next frame will hold, and the tickets of those who wait for it.
//!
//! The first sample that a series gets after a seal puts the series on the dirty list of the frame to come; sealing
//! takes the list and opens the next frame. Invariant: a ticket is kept only after its frame is durable.
//!
//! Bounds: at most [`GROUP_BYTES`] of encoded samples wait for a seal (and one append beyond); then appending waits.
//! It also waits while the log is at twice its budget, until a checkpoint has trimmed it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::error::Failed;
use crate::model::ids::{Origin, Partition};
use crate::registry::Operation;
use crate::series::Series;

/// Bytes of encoded samples that may wait for the next seal.
pub(crate) const GROUP_BYTES: usize = 1 << 20;
/// A group of this size is committed without waiting for company.
const FULL_GROUP_BYTES: usize = 256 << 10;
/// Commits of a few samples each are this far apart under steady load.
const PACE: Duration = Duration::from_millis(1);
/// Commits of [`PACE_FULL_BYTES`] are this far apart: each costs a sync and some 30 KiB of database pages beside the
/// samples, so many small ones would wear a disk out for nothing.
const PACE_FULL: Duration = Duration::from_millis(5);
/// What half a million samples a second bring in [`PACE_FULL`].
const PACE_FULL_BYTES: f64 = 48.0 * 1024.0;
/// Commits that may go unpaced after a rest, so that a lone device is answered at once.
const BURST: u32 = 32;

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

/// What the next commit will hold.
#[derive(Debug)]
pub(crate) struct Sealed {
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
    since: Option<Instant>,
    /// The checkpointer has something for the next transaction.
    errand: bool,
    closing: bool,
    failed: Option<Failed>,
}

/// The group that is open for appending.
#[derive(Debug)]
pub(crate) struct Group {
    open: Mutex<Open>,
    work: Condvar,
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
            errand: false,
            closing: false,
            failed: None,
        };
        Self {
            open: Mutex::new(open),
            work: Condvar::new(),
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
        open.dirty.push(series.clone());
        let first = open.since.is_none();
        open.since.get_or_insert_with(Instant::now);
        let ticket = open.ticket.clone();
        if let Some(failed) = &open.failed {
            ticket.settle(Err(failed.clone()));
        }
        drop(open);
        if first {
            self.work.notify_one();
        }
        ticket
    }

    /// Adds registry operations to the frame to come: all to one.
    pub(crate) fn operate(&self, operations: impl IntoIterator<Item = Operation>) -> Ticket {
        let mut open = self.open.lock();
        open.operations.extend(operations);
        open.since.get_or_insert_with(Instant::now);
        let ticket = open.ticket.clone();
        drop(open);
        self.work.notify_one();
        ticket
    }

    /// Whether registry operations wait for a frame.
    pub(crate) fn operates(&self) -> bool {
        !self.open.lock().operations.is_empty()
    }

    /// Adds a frame of another origin to the next commit. Its samples count as waiting: see [`Self::shrink`].
    pub(crate) fn take(&self, logged: Logged) {
        let bytes = logged.bytes.len();
        let mut open = self.open.lock();
        open.taken.push(logged);
        let first = open.since.is_none();
        open.since.get_or_insert_with(Instant::now);
        drop(open);
        if first {
            self.work.notify_one();
        }
        self.grow(bytes);
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

    /// Bytes that wait for a seal.
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
    }

    /// Why the group has stopped, if it has.
    pub(crate) fn failed(&self) -> Option<Failed> {
        self.open.lock().failed.clone()
    }

    /// Blocks until it is time to commit.
    pub(crate) fn wait(&self, pace: &mut Pace) -> Wake {
        let mut open = self.open.lock();
        loop {
            match open.since {
                None if open.errand => return Wake::Work,
                None if open.closing => return Wake::Closing,
                None => self.work.wait(&mut open),
                Some(_) if open.closing || self.full.load(Ordering::Relaxed) => return Wake::Work,
                Some(since) => {
                    let due = pace.due().max(since + self.window);
                    if Instant::now() >= due {
                        return Wake::Work;
                    }
                    self.work.wait_until(&mut open, due);
                }
            }
        }
    }

    /// Takes what has gathered and opens the next frame.
    pub(crate) fn seal(&self) -> Sealed {
        let mut open = self.open.lock();
        let next = Ticket::new(open.ticket.frame() + 1);
        open.since = None;
        open.errand = false;
        self.full.store(false, Ordering::Relaxed);
        Sealed {
            ticket: std::mem::replace(&mut open.ticket, next),
            dirty: std::mem::take(&mut open.dirty),
            operations: std::mem::take(&mut open.operations),
            taken: std::mem::take(&mut open.taken),
        }
    }

    /// Makes appending wait, or go on.
    pub(crate) fn choke(&self, choked: bool) {
        if self.choked.swap(choked, Ordering::Relaxed) && !choked {
            self.room.notify_waiters();
        }
    }

    /// Gives room back for `bytes` that were sealed.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.notify_waiters();
    }
}

/// Spaces commits out under steady load: a bucket of [`BURST`] tokens that fills by one every interval. The interval
/// grows with what a commit holds, from [`PACE`] for a trickle to [`PACE_FULL`] at half a million samples a second:
/// where each commit is full anyway, fewer of them write less, and nobody waits much longer.
#[derive(Debug)]
pub(crate) struct Pace {
    tokens: u32,
    filled: Instant,
    interval: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { tokens: BURST, filled: Instant::now(), interval: PACE }
    }

    /// When the next commit may start.
    fn due(&mut self) -> Instant {
        let elapsed = self.filled.elapsed();
        let earned = (elapsed.as_nanos() / self.interval.as_nanos()).min(u128::from(BURST)) as u32;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(BURST);
            self.filled = Instant::now();
        }
        if self.tokens > 0 { self.filled } else { self.filled + self.interval }
    }

    /// Counts a commit of so many bytes.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if self.tokens == 0 {
            self.filled = Instant::now();
        }
        self.tokens = self.tokens.saturating_sub(1);
        let more = PACE_FULL.saturating_sub(PACE).mul_f64((bytes as f64 / PACE_FULL_BYTES).min(1.0));
        self.interval = PACE + more;
    }
}
