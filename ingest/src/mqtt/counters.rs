//! What happens on the MQTT port, counted for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that many tasks change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes away.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one listener. All but `connections` only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections now, with those that have not said CONNECT yet.
    pub connections: Counter,
    /// Connections turned away because there were too many.
    pub turned_away: Counter,
    /// Connections that ended by something their client did wrong.
    pub violations: Counter,
    /// PUBLISH packets taken in.
    pub received: Counter,
    /// PUBLISH packets sent.
    pub sent: Counter,
    /// Publications refused, whole.
    pub refused: Counter,
    /// Messages between clients that a subscriber did not get: its queue was full, or it cannot take their size.
    pub dropped: Counter,
    /// Messages that were not retained: as many topics as there may be have one already.
    pub retained_full: Counter,
    /// Messages that were not retained: they, or their topic, are too long.
    pub retained_too_long: Counter,
    /// Messages that were not retained: a node that does not know them is linked.
    pub retained_older_node: Counter,
    /// Wills that other nodes do not know of, since they are too long or too many.
    pub wills_not_told: Counter,
    /// Wills of clients of dead nodes that were published here.
    pub wills_inherited: Counter,
    /// Samples that a subscriber was too slow to get live; it got what the rings still held of them.
    pub lagged: Counter,
    /// Sessions of absent clients that ended: their time was over, or there were too many.
    pub sessions_ended: Counter,
}
