//! Seeded randomness: white noise, and drift that always comes back.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A source of chance of its own for `what`, so that one signal's draws do not move another's.
#[derive(Debug, Clone)]
pub struct Noise(StdRng);

/// A seed for part `what`, number `index`, of something with `seed` (FNV-1a, then the finisher of SplitMix64).
pub fn derive(seed: u64, what: &str, index: u64) -> u64 {
    let hash = what
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut mixed = seed ^ hash.rotate_left(17) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Noise {
    /// For part `what` of something with `seed`.
    pub fn new(seed: u64, what: &str) -> Self {
        Self(StdRng::seed_from_u64(derive(seed, what, 0)))
    }

    /// Evenly between two bounds.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
    }

    /// Normally distributed around 0 (Box-Muller).
    pub fn normal(&mut self, deviation: f64) -> f64 {
        // `random` is below 1, so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.0.random::<f64>()).ln()).sqrt();
        deviation * radius * (TAU * self.0.random::<f64>()).cos()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.0.random::<f64>() < p
    }
}

/// Drift around 0 (Ornstein-Uhlenbeck): deviation and memory do not depend on the step.
#[derive(Debug, Clone)]
pub struct Drift {
    noise: Noise,
    value: f64,
    decay: f64,
    kick: f64,
}

impl Drift {
    /// Drift with a standard `deviation`, forgetting over `memory` seconds, in steps of `step` seconds.
    pub fn new(mut noise: Noise, deviation: f64, memory: f64, step: f64) -> Self {
        let decay = (-step / memory).exp();
        let value = noise.normal(deviation);
        Self { noise, value, decay, kick: deviation * (1.0 - decay * decay).sqrt() }
    }

    /// The next step.
    pub fn step(&mut self) -> f64 {
        self.value = self.value * self.decay + self.noise.normal(self.kick);
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{deviation, mean};
    use super::*;

    #[test]
    fn noise_has_its_deviation_and_drift_too() {
        let mut noise = Noise::new(1, "test");
        let white: Vec<_> = (0..20_000).map(|_| noise.normal(2.0)).collect();
        assert!(mean(white.iter().copied()).abs() < 0.05);
        assert!((deviation(white.iter().copied()) - 2.0).abs() < 0.05);
        let mut drift = Drift::new(noise, 3.0, 5.0, 1.0);
        let path: Vec<_> = (0..50_000).map(|_| drift.step()).collect();
        assert!((deviation(path.iter().copied()) - 3.0).abs() < 0.2);
    }

    #[test]
    fn seeds_of_parts_differ() {
        let seeds = [derive(1, "a", 0), derive(1, "a", 1), derive(1, "b", 0), derive(2, "a", 0)];
        assert!((1..4).all(|at| !seeds[..at].contains(&seeds[at])), "{seeds:x?}");
    }
}
