//! The viewers of a node: how many there are, how many there may be, and what was sent to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Most live sockets of a node. A further one is told 503 `too_many_viewers` and comes back later.
pub const MAX_VIEWERS: u64 = 2000;

/// The viewers of a node.
#[derive(Debug, Default)]
pub struct Hub(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    viewers: AtomicU64,
    opened: AtomicU64,
    samples: AtomicU64,
    skipped: AtomicU64,
}

/// The hub's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Open sockets.
    pub viewers: u64,
    /// Sockets ever opened.
    pub opened: u64,
    /// Samples sent, backfill included.
    pub samples: u64,
    /// Samples not sent live to viewers that could not keep up.
    pub skipped: u64,
}

impl Hub {
    /// A place for a viewer, while there is one.
    pub fn enter(&self) -> Option<Seat> {
        let taken = self
            .0
            .viewers
            .fetch_update(Relaxed, Relaxed, |viewers| (viewers < MAX_VIEWERS).then_some(viewers + 1));
        taken.ok()?;
        self.0.opened.fetch_add(1, Relaxed);
        Some(Seat(Arc::clone(&self.0)))
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        let counters = &self.0;
        Figures {
            viewers: counters.viewers.load(Relaxed),
            opened: counters.opened.load(Relaxed),
            samples: counters.samples.load(Relaxed),
            skipped: counters.skipped.load(Relaxed),
        }
    }
}

/// A viewer's place, given back when it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Counters>);

impl Seat {
    /// Counts samples that were sent.
    pub fn sent(&self, samples: usize) {
        self.0.samples.fetch_add(samples as u64, Relaxed);
    }

    /// Counts samples that were not sent live.
    pub fn skipped(&self, samples: u64) {
        self.0.skipped.fetch_add(samples, Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let hub = Hub::default();
        let seats: Vec<_> = std::iter::from_fn(|| hub.enter()).collect();
        assert_eq!((seats.len() as u64, hub.figures().viewers), (MAX_VIEWERS, MAX_VIEWERS));
        drop(seats);
        assert_eq!((hub.figures().viewers, hub.figures().opened), (0, MAX_VIEWERS));
        assert!(hub.enter().is_some());
    }
}
