//! What a device has counted. Each sample is made once, sent for the first time once, and then acknowledged, refused or
//! left over: `made = acked + refused + left over`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::pulse::Pulse;

/// Different complaints remembered; further ones are counted under `other`.
const MAX_COMPLAINTS: usize = 32;

/// The counters of one device, shared between its producer, its client and whoever watches.
#[derive(Debug, Default)]
pub struct Tally {
    made: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    resent: AtomicU64,
    refused: AtomicU64,
    connections: AtomicU64,
    fewest_copies: AtomicU64,
    complaints: Mutex<BTreeMap<String, u64>>,
    pulse: Pulse,
    address: Mutex<Option<String>>,
}

impl Tally {
    pub(crate) fn made(&self, samples: usize) {
        self.made.fetch_add(samples as u64, Relaxed);
    }

    pub(crate) fn sent(&self, samples: usize) {
        self.sent.fetch_add(samples as u64, Relaxed);
    }

    pub(crate) fn resent(&self, samples: usize) {
        self.resent.fetch_add(samples as u64, Relaxed);
    }

    pub(crate) fn acked(&self, samples: usize) {
        self.acked.fetch_add(samples as u64, Relaxed);
        self.pulse.beat();
    }

    pub(crate) fn refused(&self, samples: usize) {
        self.refused.fetch_add(samples as u64, Relaxed);
    }

    pub(crate) fn connected(&self, address: &str) {
        self.connections.fetch_add(1, Relaxed);
        *self.address.lock().expect("no holder of this lock does anything that could panic") =
            Some(address.to_owned());
    }

    /// Copies are never zero in an acknowledgement, so zero stands for "none came yet".
    pub(crate) fn copies(&self, copies: u8) {
        let _ = self.fewest_copies.fetch_update(Relaxed, Relaxed, |fewest| {
            (fewest == 0 || u64::from(copies) < fewest).then_some(u64::from(copies))
        });
    }

    pub(crate) fn complaint(&self, what: &str) {
        let mut complaints =
            self.complaints.lock().expect("no holder of this lock does anything that could panic");
        let known = complaints.len() < MAX_COMPLAINTS || complaints.contains_key(what);
        *complaints.entry(if known { what } else { "other" }.to_owned()).or_default() += 1;
    }

    /// How evenly acknowledgements come.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The node that last welcomed the device, as it was addressed.
    pub fn address(&self) -> Option<String> {
        self.address.lock().expect("no holder of this lock does anything that could panic").clone()
    }

    /// The counts as they are now.
    pub fn summary(&self) -> Summary {
        let complaints =
            self.complaints.lock().expect("no holder of this lock does anything that could panic");
        let (made, acked) = (self.made.load(Relaxed), self.acked.load(Relaxed));
        Summary {
            made,
            sent: self.sent.load(Relaxed),
            acked,
            resent: self.resent.load(Relaxed),
            refused: self.refused.load(Relaxed),
            gaps: made.saturating_sub(acked),
            connections: self.connections.load(Relaxed),
            fewest_copies: self.fewest_copies.load(Relaxed),
            complaints: complaints.clone(),
        }
    }
}

/// What came of sending; all counts but `connections` and `complaints` are samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Measured, or read from the file.
    pub made: u64,
    /// Sent for the first time.
    pub sent: u64,
    /// Acknowledged, each once.
    pub acked: u64,
    /// Sent again after a reconnect.
    pub resent: u64,
    /// Refused by a node.
    pub refused: u64,
    /// Made but never acknowledged: holes in what the node keeps.
    pub gaps: u64,
    /// Connections that were welcomed.
    pub connections: u64,
    /// The fewest copies that any acknowledgement spoke of; 0 where none said (MQTT).
    pub fewest_copies: u64,
    /// What went wrong, how often.
    pub complaints: BTreeMap<String, u64>,
}

impl Summary {
    /// Whether everything made was acknowledged.
    pub fn complete(&self) -> bool {
        self.gaps == 0
    }

    /// Adds another device's counts.
    pub fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.sent += other.sent;
        self.acked += other.acked;
        self.resent += other.resent;
        self.refused += other.refused;
        self.gaps += other.gaps;
        self.connections += other.connections;
        self.fewest_copies = match (self.fewest_copies, other.fewest_copies) {
            (0, copies) | (copies, 0) => copies,
            (ours, theirs) => ours.min(theirs),
        };
        for (what, count) in &other.complaints {
            *self.complaints.entry(what.clone()).or_default() += count;
        }
    }
}

/// The counts while more is still being made: what is not acknowledged yet is on its way, and no gap.
#[derive(Debug, Clone)]
pub struct Progress(pub Summary);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { sent, acked, resent, gaps, refused, .. } = &self.0;
        let waiting = gaps.saturating_sub(*refused);
        write!(f, "sent {sent}, acked {acked}, waiting {waiting}, resent {resent}, refused {refused}")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, resent, refused, gaps, connections, .. } = self;
        write!(
            f,
            "sent {sent}, acked {acked}, resent {resent}, gaps {gaps}, refused {refused}, connections {connections}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acknowledged_is_a_gap_and_the_fewest_copies_stand() {
        let tally = Tally::default();
        tally.made(5);
        tally.acked(3);
        tally.copies(3);
        tally.copies(2);
        tally.copies(3);
        let mut summary = tally.summary();
        assert_eq!((summary.gaps, summary.fewest_copies, summary.complete()), (2, 2, false));
        summary.add(&Summary { fewest_copies: 1, made: 1, gaps: 1, ..Summary::default() });
        assert_eq!((summary.made, summary.gaps, summary.fewest_copies), (6, 3, 1));
    }

    #[test]
    fn complaints_are_bounded() {
        let tally = Tally::default();
        for number in 0..MAX_COMPLAINTS * 2 {
            tally.complaint(&number.to_string());
        }
        let complaints = tally.summary().complaints;
        assert_eq!(complaints.len(), MAX_COMPLAINTS + 1);
        assert_eq!(complaints["other"], MAX_COMPLAINTS as u64);
    }
}
