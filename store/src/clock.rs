//! The hybrid logical clock: stamps say which of two writes is newer, and nothing else.
//!
//! Invariant: no two stamps of one clock are equal, and each is greater than every stamp that the clock was raised to.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use uhlc::{HLC, HLCBuilder, ID};

use crate::model::ids::Origin;

/// A `uhlc` time (NTP64: seconds since 1970 in the upper 32 bits, fractions below) and its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Hybrid time.
    pub time: u64,
    /// [`author`] of the origin: breaks ties between nodes.
    pub author: u32,
}

impl Stamp {
    /// The stamp of the sample `index` places after this one in its run.
    pub fn plus(self, index: usize) -> Self {
        Self { time: self.time + index as u64, ..self }
    }
}

/// The tie-breaker of an origin: 32 random bits of it. Were two origins to share them, the value breaks the tie.
pub fn author(origin: Origin) -> u32 {
    origin.start as u32
}

/// The time of this machine's clock, as stamps have it.
pub fn machine_time() -> u64 {
    uhlc::system_time_clock().as_u64()
}

/// The clock of one origin.
pub struct Clock {
    hlc: HLC,
    /// Highest time given or seen. `uhlc` refuses to follow a stamp far in the future; a node that once wrote such
    /// stamps must still start, and must still write newer ones.
    highest: AtomicU64,
    author: u32,
}

impl Clock {
    /// A clock for `origin`.
    pub fn new(origin: Origin) -> Self {
        let id = ID::try_from(&origin.start.max(1).to_le_bytes()).unwrap_or_else(|_| ID::rand());
        Self {
            hlc: HLCBuilder::new().with_id(id).build(),
            highest: AtomicU64::new(0),
            author: author(origin),
        }
    }

    /// A stamp newer than all before. The next `reserve` times stay free for the samples that follow it in its run.
    pub fn stamp(&self) -> Stamp {
        let now = self.hlc.new_timestamp().get_time().as_u64();
        let step = |highest: u64| Some(now.max(highest + 1));
        let before =
            self.highest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_else(|same| same);
        Stamp { time: now.max(before + 1), author: self.author }
    }

    /// The author of its stamps.
    pub fn author(&self) -> u32 {
        self.author
    }

    /// Makes every later stamp greater than `time`.
    pub fn raise(&self, time: u64) {
        self.highest.fetch_max(time, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({:08x})", self.author)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;

    #[test]
    fn stamps_rise_even_past_a_future_one() {
        let clock = Clock::new(Origin { node: NodeId(1), start: 7 });
        let first = clock.stamp();
        assert!(clock.stamp() > first);
        let far = first.time + (1 << 45);
        clock.raise(far);
        let after = clock.stamp();
        assert!(after.time > far);
        assert!(clock.stamp() > after);
    }
}
