//! Group commit: what the next frame will hold, and the tickets of those who wait for it.
//!
//! The first sample that a series gets after a seal puts the series on the dirty list of the frame to come; sealing
//! takes the list and opens the next frame. Invariant: a ticket is kept only after its frame is durable.
//!
//! Bounds: at most [`GROUP_BYTES`] of encoded samples wait for a seal (and one append beyond); then appending waits.
//! It also waits while the log is at twice its budget, until a checkpoint has trimmed it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::error::Failed;
use crate::registry::Operation;
use crate::series::Series;

/// Bytes of encoded samples that may wait for the next seal.
pub(crate) const GROUP_BYTES: usize = 1 << 20;
/// A group of this size is committed without waiting for company.
const FULL_GROUP_BYTES: usize = 256 << 10;
/// Commits under steady load are this far apart: each costs a sync and some 30 KiB of database pages beside the
/// samples, so many small ones would wear a disk out for nothing.
const PACE: Duration = Duration::from_millis(5);
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

    /// The number of the frame that holds the samples; frames become durable in order.
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

/// What the frame to come will hold.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub ticket: Ticket,
    pub dirty: Vec<Series>,
    pub operations: Vec<Operation>,
}

/// However a commit ends, nobody waits for ever.
impl Drop for Sealed {
    fn drop(&mut self) {
        self.ticket.settle(Err(Failed("the commit did not end".into())));
    }
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    dirty: Vec<Series>,
    operations: Vec<Operation>,
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
    pub(crate) fn new(window: Duration) -> Self {
        let open = Open {
            ticket: Ticket::new(1),
            dirty: Vec::new(),
            operations: Vec::new(),
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

    /// Adds a registry operation to the frame to come.
    pub(crate) fn operate(&self, operation: Operation) -> Ticket {
        let mut open = self.open.lock();
        open.operations.push(operation);
        open.since.get_or_insert_with(Instant::now);
        let ticket = open.ticket.clone();
        drop(open);
        self.work.notify_one();
        ticket
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

/// Spaces commits out under steady load: a bucket of [`BURST`] tokens that fills by one every [`PACE`].
#[derive(Debug)]
pub(crate) struct Pace {
    tokens: u32,
    filled: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { tokens: BURST, filled: Instant::now() }
    }

    /// When the next commit may start.
    fn due(&mut self) -> Instant {
        let elapsed = self.filled.elapsed();
        let earned = (elapsed.as_nanos() / PACE.as_nanos()).min(u128::from(BURST)) as u32;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(BURST);
            self.filled = Instant::now();
        }
        if self.tokens > 0 { self.filled } else { self.filled + PACE }
    }

    /// Counts a commit.
    pub(crate) fn spend(&mut self) {
        if self.tokens == 0 {
            self.filled = Instant::now();
        }
        self.tokens = self.tokens.saturating_sub(1);
    }
}
