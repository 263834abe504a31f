//! The ledger: what became of every sample, by cause, per sensor. Nothing is dropped in silence.
//!
//! Invariant: received = stored + duplicate + late + replaced + cleared + refused. `evicted` counts among
//! stored, and what this node took and a clear let go of moves from stored to cleared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::ring::Joined;

/// The counters of one sensor, or of the node.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    stored: AtomicU64,
    duplicate: AtomicU64,
    late: AtomicU64,
    replaced: AtomicU64,
    cleared: AtomicU64,
    evicted: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// What became of the samples that a node took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All that came.
    pub received: u64,
    /// New times.
    pub stored: u64,
    /// Same time, same value.
    pub duplicate: u64,
    /// Older than the whole full ring.
    pub late: u64,
    /// Same time, another value: the newer stamp won.
    pub replaced: u64,
    /// Taken, and let go of by a clear.
    pub cleared: u64,
    /// Samples that newer ones pushed out.
    pub evicted: u64,
    /// Refused, by error code.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn joined(&self, joined: Joined) {
        let add = |counter: &AtomicU64, count: usize| {
            if count > 0 {
                counter.fetch_add(count as u64, Relaxed);
            }
        };
        add(&self.stored, joined.stored);
        add(&self.duplicate, joined.duplicate);
        add(&self.late, joined.late);
        add(&self.replaced, joined.replaced + joined.outdated);
        add(&self.cleared, joined.cleared);
        add(&self.evicted, joined.evicted);
    }

    /// So many of the samples that were stored were cleared.
    pub(crate) fn cleared(&self, samples: usize) {
        let samples = samples as u64;
        let take = |stored: u64| Some(stored.saturating_sub(samples));
        // Never more than were stored: a sample that took another's place counts as replaced.
        let moved = self.stored.fetch_update(Relaxed, Relaxed, take).unwrap_or(0).min(samples);
        self.cleared.fetch_add(moved, Relaxed);
    }

    pub(crate) fn refused(&self, code: &'static str, samples: u64) {
        *self.refused.lock().entry(code).or_insert(0) += samples;
    }

    pub(crate) fn read(&self) -> Ledger {
        let refused = self.refused.lock().clone();
        let (stored, duplicate) = (self.stored.load(Relaxed), self.duplicate.load(Relaxed));
        let (late, replaced) = (self.late.load(Relaxed), self.replaced.load(Relaxed));
        let (cleared, evicted) = (self.cleared.load(Relaxed), self.evicted.load(Relaxed));
        let received = stored + duplicate + late + replaced + cleared + refused.values().sum::<u64>();
        Ledger { received, stored, duplicate, late, replaced, cleared, evicted, refused }
    }
}
