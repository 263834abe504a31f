//! The heart: when it beats, and what a heart-rate sensor says of it.
//!
//! The interval between beats follows breathing (0.25 Hz) and blood pressure (0.1 Hz), the two peaks of real heart-rate
//! variability (Task Force of the ESC and NASPE, Circulation 93:1043, 1996), above slow changes of effort.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use ingest::wire::message::Value;

use super::noise::{Drift, Noise};
use super::{Signal, Spec, numbers, rounded};

/// Seconds over which the rate is averaged.
const RATE_WINDOW: f64 = 5.0;
/// Seconds over which variability is computed.
const HRV_WINDOW: f64 = 60.0;
/// Shortest and longest interval between beats, in seconds: 190 and 35 beats a minute.
const RR: std::ops::RangeInclusive<f64> = 0.316..=1.714;

/// The beats of one heart. All signals of a person share its seed, and so its beats.
#[derive(Debug, Clone)]
pub struct Heart {
    noise: Noise,
    effort: Drift,
    /// Beats a minute at rest.
    rest: f64,
    /// Amplitudes in seconds.
    breathing: f64,
    pressure: f64,
    at: f64,
}

impl Heart {
    /// The heart of the person with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "heart");
        let rest = noise.between(58.0, 82.0);
        let breathing = noise.between(0.015, 0.035);
        let pressure = noise.between(0.010, 0.020);
        let at = noise.between(0.0, 0.5);
        Self {
            effort: Drift::new(Noise::new(seed, "effort"), 4.0, 90.0, 0.8),
            noise,
            rest,
            breathing,
            pressure,
            at,
        }
    }

    /// The time of the next beat in seconds, and how long ago the one before was.
    pub fn beat(&mut self) -> (f64, f64) {
        let base = 60.0 / (self.rest + self.effort.step());
        let breathing = self.breathing * (TAU * 0.25 * self.at).sin();
        let pressure = self.pressure * (TAU * 0.1 * self.at).sin();
        let interval = (base + breathing + pressure + self.noise.normal(0.006)).clamp(*RR.start(), *RR.end());
        self.at += interval;
        (self.at, interval)
    }
}

/// The last beats before a moment.
#[derive(Debug)]
struct Beats {
    heart: Heart,
    next: (f64, f64),
    past: VecDeque<(f64, f64)>,
    now: f64,
    window: f64,
}

impl Beats {
    fn new(seed: u64, window: f64) -> Self {
        let mut heart = Heart::new(seed);
        let next = heart.beat();
        Self { heart, next, past: VecDeque::new(), now: 0.0, window }
    }

    /// Moves on by `step` seconds; intervals of the window, oldest first.
    fn step(&mut self, step: f64) -> impl Iterator<Item = f64> + Clone {
        self.now += step;
        while self.next.0 <= self.now {
            self.past.push_back(self.next);
            self.next = self.heart.beat();
        }
        while self.past.front().is_some_and(|beat| beat.0 < self.now - self.window) {
            self.past.pop_front();
        }
        self.past.iter().map(|beat| beat.1)
    }
}

/// Beats a minute, once a second.
#[derive(Debug)]
pub struct HeartRate(Beats);

impl HeartRate {
    /// Of the person with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Beats::new(seed, RATE_WINDOW))
    }
}

impl Signal for HeartRate {
    fn spec(&self) -> Spec {
        Spec::of("heartrate", "heartrate", 1_000_000, 3600)
    }

    fn next(&mut self) -> Option<Value> {
        let intervals = self.0.step(1.0);
        let beats = intervals.clone().count();
        // Before the first beat a sensor has nothing to say.
        (beats > 0).then(|| Value::Number(rounded(60.0 * beats as f64 / intervals.sum::<f64>(), 1)))
    }
}

/// RMSSD and SDNN over the last minute, every ten seconds.
#[derive(Debug)]
pub struct Variability(Beats);

impl Variability {
    /// Of the person with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Beats::new(seed, HRV_WINDOW))
    }
}

impl Signal for Variability {
    fn spec(&self) -> Spec {
        Spec::of("hrv", "hrv", 10_000_000, 1000)
    }

    fn next(&mut self) -> Option<Value> {
        let intervals: Vec<f64> = self.0.step(10.0).collect();
        let count = intervals.len() as f64;
        if count < 3.0 {
            return None;
        }
        let mean = intervals.iter().sum::<f64>() / count;
        let sdnn = (intervals.iter().map(|rr| (rr - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
        let differences = intervals.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum::<f64>();
        let rmssd = (differences / (count - 1.0)).sqrt();
        Some(numbers(&[rounded(rmssd * 1000.0, 1), rounded(sdnn * 1000.0, 1)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{deviation, mean, take};
    use super::*;

    #[test]
    fn hearts_beat_at_human_rates_and_never_quite_evenly() {
        for seed in 0..20 {
            let mut heart = Heart::new(seed);
            let beats: Vec<_> = (0..500).map(|_| heart.beat().1).collect();
            let rate = 60.0 / mean(beats.iter().copied());
            assert!((45.0..100.0).contains(&rate), "seed {seed}: {rate}");
            let spread = deviation(beats.iter().copied());
            assert!((0.01..0.15).contains(&spread), "seed {seed}: {spread}");
        }
    }

    #[test]
    fn rate_and_variability_agree_with_the_beats() {
        let mut heart = Heart::new(5);
        let mut beats = Vec::new();
        while beats.last().is_none_or(|beat: &(f64, f64)| beat.0 < 300.0) {
            beats.push(heart.beat());
        }
        let rates = take(&mut HeartRate::new(5), 300);
        let shown = mean(rates.iter().map(|rate| rate[0]));
        let real = 60.0 * beats.len() as f64 / 300.0;
        assert!((shown - real).abs() < 1.5, "{shown} {real}");
        for values in take(&mut Variability::new(5), 30) {
            assert!(values.iter().all(|ms| (5.0..150.0).contains(ms)), "{values:?}");
        }
    }
}
