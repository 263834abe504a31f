//! One lead of an ECG. Each beat is a sum of Gaussians, one for each of P, Q, R, S and T, as in McSharry et al., "A
//! dynamical model for generating synthetic electrocardiogram signals" (IEEE TBME 50(3):289, 2003). R peaks stand where
//! the [`Heart`] beats.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use ingest::wire::message::Value;

use super::heart::Heart;
use super::noise::{Drift, Noise};
use super::{Signal, Spec, rounded};

/// Between two samples, in microseconds: 250 Hz.
const INTERVAL_US: i64 = 4000;
/// Seconds around its R peak in which a beat is felt.
const REACH: f64 = 0.8;
/// Resolution of the converter in mV.
const STEP_MV: f64 = 0.005;

/// (seconds after R at 60 beats a minute, height in mV, width in seconds); all but QRS move with the rate.
const WAVES: [(f64, f64, f64); 5] = [
    (-0.180, 0.12, 0.025),
    (-0.032, -0.12, 0.008),
    (0.0, 1.10, 0.010),
    (0.030, -0.25, 0.009),
    (0.290, 0.30, 0.045),
];
/// The waves that keep their distance from R at any rate.
const QRS: std::ops::RangeInclusive<usize> = 1..=3;

/// An ECG at 250 Hz.
#[derive(Debug)]
pub struct Ecg {
    heart: Heart,
    /// (time of R, interval before it), oldest first; the last is ahead of now by more than `REACH`.
    beats: VecDeque<(f64, f64)>,
    noise: Noise,
    wander: Drift,
    breathing: f64,
    gain: f64,
    step: u64,
}

impl Ecg {
    /// Of the person with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "ecg");
        let gain = noise.between(0.8, 1.3);
        let breathing = noise.between(0.02, 0.06);
        let wander = Drift::new(Noise::new(seed, "ecg wander"), 0.03, 4.0, INTERVAL_US as f64 * 1e-6);
        Self { heart: Heart::new(seed), beats: VecDeque::new(), noise, wander, breathing, gain, step: 0 }
    }
}

fn beat(after: f64, interval: f64) -> f64 {
    // Bazett: what is not QRS shortens with the square root of the interval.
    let stretch = interval.sqrt();
    WAVES
        .iter()
        .enumerate()
        .map(|(at, (centre, height, width))| {
            let stretch = if QRS.contains(&at) { 1.0 } else { stretch };
            let distance = (after - centre * stretch) / (width * stretch);
            height * (-0.5 * distance * distance).exp()
        })
        .sum()
}

impl Signal for Ecg {
    fn spec(&self) -> Spec {
        Spec::of("ecg", "ecg", INTERVAL_US, 5000)
    }

    fn next(&mut self) -> Option<Value> {
        let now = self.step as f64 * INTERVAL_US as f64 * 1e-6;
        self.step += 1;
        while self.beats.back().is_none_or(|beat| beat.0 < now + REACH) {
            let next = self.heart.beat();
            self.beats.push_back(next);
        }
        while self.beats.front().is_some_and(|beat| beat.0 < now - REACH) {
            self.beats.pop_front();
        }
        let heart: f64 = self.beats.iter().map(|(at, interval)| beat(now - at, *interval)).sum();
        let baseline = self.wander.step() + self.breathing * (TAU * 0.25 * now).sin();
        let value = self.gain * heart + baseline + self.noise.normal(0.008);
        Some(Value::Number(rounded((value / STEP_MV).round() * STEP_MV, 3)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::take;
    use super::*;

    /// Times of local maxima above `threshold` mV, at least 250 ms apart.
    fn peaks(values: &[Vec<f64>], threshold: f64) -> Vec<f64> {
        let mut found: Vec<f64> = Vec::new();
        for at in 1..values.len() - 1 {
            let time = at as f64 * 0.004;
            let top = values[at][0] >= values[at - 1][0] && values[at][0] > values[at + 1][0];
            if top && values[at][0] > threshold && found.last().is_none_or(|last| time - last > 0.25) {
                found.push(time);
            }
        }
        found
    }

    #[test]
    fn r_peaks_stand_where_the_heart_beats() {
        for seed in 0..5 {
            let values = take(&mut Ecg::new(seed), 250 * 60);
            let found = peaks(&values, 0.55);
            let mut heart = Heart::new(seed);
            let beats: Vec<f64> =
                std::iter::repeat_with(|| heart.beat().0).take_while(|at| *at < 59.9).collect();
            assert!(found.len().abs_diff(beats.len()) <= 1, "seed {seed}: {} {}", found.len(), beats.len());
            for at in &beats {
                let nearest = found.iter().map(|peak| (peak - at).abs()).fold(f64::MAX, f64::min);
                assert!(nearest < 0.02, "seed {seed}: no peak at {at}, off by {nearest}");
            }
            assert!(values.iter().all(|value| value[0].abs() < 2.5));
        }
    }
}
