//! How far apart commits are.

use std::time::{Duration, Instant};

/// Commits of a few samples each are this far apart under steady load.
const PACE: Duration = Duration::from_millis(1);
/// Commits of [`PACE_FULL_BYTES`] are this far apart: each costs a sync and some 30 KiB of database pages beside the
/// samples, so many small ones would wear a disk out for nothing.
const PACE_FULL: Duration = Duration::from_millis(5);
/// Frames that are sealed while the committer is busy, for each interval between commits. More make more work on three
/// nodes than they save time.
const SEALS: u32 = 3;
/// What half a million samples a second bring in [`PACE_FULL`].
const PACE_FULL_BYTES: f64 = 24.0 * 1024.0;
/// Commits that may go unpaced after a rest, so that a lone device is answered at once.
const BURST: u32 = 32;

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
    pub(crate) fn due(&mut self) -> Instant {
        let elapsed = self.filled.elapsed();
        let earned = (elapsed.as_nanos() / self.interval.as_nanos()).min(u128::from(BURST)) as u32;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(BURST);
            self.filled = Instant::now();
        }
        if self.tokens > 0 { self.filled } else { self.filled + self.interval }
    }

    /// How far apart frames are that are sealed between commits.
    pub(crate) fn rest(&self) -> Duration {
        self.interval / SEALS
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
