//! How evenly something comes: when it last did, and the longest silence since [`Pulse::watch`].
//!
//! A silence counts from the last beat, also when that was before the watch began, and a silence that still goes on counts
//! with its length so far. Before the first beat there is none.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shared between the one who notes beats and those who look.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
struct State {
    last: Option<Instant>,
    longest: Duration,
}

impl Pulse {
    /// It came.
    pub fn beat(&self) {
        self.beat_at(Instant::now());
    }

    fn beat_at(&self, now: Instant) {
        self.with(|state| {
            if let Some(last) = state.last.replace(now) {
                state.longest = state.longest.max(now.saturating_duration_since(last));
            }
        });
    }

    /// Forgets the silences that are over.
    pub fn watch(&self) {
        self.with(|state| state.longest = Duration::ZERO);
    }

    /// The longest silence since the watch began.
    pub fn longest(&self) -> Duration {
        self.longest_at(Instant::now())
    }

    fn longest_at(&self, now: Instant) -> Duration {
        let state = self.with(|state| *state);
        let going_on = state.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        state.longest.max(going_on)
    }

    /// When it last came.
    pub fn last(&self) -> Option<Instant> {
        self.with(|state| state.last)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("no holder of this lock does anything that could panic"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silences_count_from_the_last_beat_until_now() {
        let pulse = Pulse::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pulse.longest_at(at(50)), Duration::ZERO, "nothing is expected yet");
        pulse.beat_at(at(0));
        pulse.beat_at(at(500));
        assert_eq!(pulse.longest_at(at(600)), Duration::from_millis(500));
        pulse.watch();
        assert_eq!(pulse.longest_at(at(800)), Duration::from_millis(300), "it goes on");
        pulse.beat_at(at(900));
        pulse.beat_at(at(950));
        assert_eq!(pulse.longest_at(at(951)), Duration::from_millis(400), "from before the watch");
        assert_eq!(pulse.last(), Some(at(950)));
    }
}
