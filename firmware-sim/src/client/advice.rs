//! How a node asks its devices to batch: by how closely they are watched, and by its load. It changes when samples are
//! sent, never which.

use std::time::Duration;

use serde::Deserialize;

/// Shortest time between two frames, whatever a node asks for: one tick of the timer.
const LEAST: Duration = Duration::from_millis(1);
/// Longest time between two frames, whatever a node asks for.
const MOST: Duration = Duration::from_secs(60);

/// What a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Batch for so long,
    pub window: Duration,
    /// or until there are so many.
    pub samples: u64,
    /// Send nothing for now.
    pub paused: bool,
}

/// As it comes over MQTT, on `advice/{sensor}`.
#[derive(Deserialize)]
struct Wire {
    window_ms: u64,
    max_samples: u64,
    #[serde(default)]
    paused: bool,
}

impl Advice {
    pub(super) fn new(window_ms: u64, max_samples: u64, paused: bool) -> Self {
        Self { window: Duration::from_millis(window_ms), samples: max_samples, paused }
    }

    /// From an MQTT payload; `None` where it is no advice.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let Wire { window_ms, max_samples, paused } = serde_json::from_slice(payload).ok()?;
        Some(Self::new(window_ms, max_samples, paused))
    }

    /// Between two frames of a device that measures every `interval`.
    pub fn every(&self, interval: Duration) -> Duration {
        let samples = u32::try_from(self.samples.max(1)).unwrap_or(u32::MAX);
        self.window.min(interval.saturating_mul(samples)).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_when_the_window_ends_or_when_there_are_enough_samples() {
        let advice =
            Advice::read(br#"{"attention":"low","window_ms":2000,"max_samples":10,"paused":false}"#).unwrap();
        assert_eq!(advice.every(Duration::from_millis(4)), Duration::from_millis(40));
        assert_eq!(advice.every(Duration::from_secs(1)), Duration::from_secs(2));
        let odd = Advice::new(0, 0, true);
        assert_eq!((odd.every(Duration::ZERO), odd.paused), (LEAST, true));
        assert_eq!(Advice::new(u64::MAX, u64::MAX, false).every(Duration::MAX), MOST);
        assert_eq!(Advice::read(b"[]"), None);
    }
}
