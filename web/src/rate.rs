//! Samples a second, measured each second; with it the node's other figures are noted for the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::State;

/// How often the rate is measured.
const EVERY: Duration = Duration::from_secs(1);

/// Samples received per second, over the last second.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// The rate as last measured; 0 before that.
    pub fn per_second(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, per_second: f64) {
        self.0.store(per_second.to_bits(), Ordering::Relaxed);
    }
}

/// Measures until the node stops. One for each process.
pub async fn measure(state: State) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = state.store().stats().ledger.received;
    let mut at = Instant::now();
    loop {
        tokio::select! {
            () = state.stop().cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Asked once: counting goes through every series.
        let (stats, now) = (state.store().stats(), Instant::now());
        let seconds = (now - at).as_secs_f64();
        if seconds > 0.0 {
            let received = stats.ledger.received;
            state.rate().set(received.saturating_sub(before) as f64 / seconds);
            (before, at) = (received, now);
        }
        state.note_load(&stats);
    }
}
