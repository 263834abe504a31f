//! The ledger: what became of every sample, by cause, per sensor. Nothing is dropped in silence.
//!
//! Invariant: received = stored + duplicate + late + replaced + refused. `evicted` counts among stored.

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
        add(&self.evicted, joined.evicted);
    }

    pub(crate) fn refused(&self, code: &'static str, samples: u64) {
        *self.refused.lock().entry(code).or_insert(0) += samples;
    }

    pub(crate) fn read(&self) -> Ledger {
        let refused = self.refused.lock().clone();
        let (stored, duplicate) = (self.stored.load(Relaxed), self.duplicate.load(Relaxed));
        let (late, replaced) = (self.late.load(Relaxed), self.replaced.load(Relaxed));
        let received = stored + duplicate + late + replaced + refused.values().sum::<u64>();
        Ledger { received, stored, duplicate, late, replaced, evicted: self.evicted.load(Relaxed), refused }
    }
}
