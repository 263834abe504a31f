//! A motor with a bearing that wears: vibration, temperature and power follow one speed of rotation and one fault.

use std::f64::consts::TAU;

use ingest::wire::message::Value;

use super::imu::GRAVITY;
use super::noise::{Drift, Noise, derive};
use super::{Signal, Spec, numbers, rounded};

/// Between two samples of vibration, in microseconds: 200 Hz.
const VIBRATION_US: i64 = 5_000;
/// Between two readings of temperature and power.
const SLOW_US: i64 = 1_000_000;
/// Blows of a damaged outer ring in a turn, of a bearing with nine balls.
const BLOWS: f64 = 3.58;
/// Seconds until the fault is fully grown.
const GROWTH_S: std::ops::Range<f64> = 300.0..3000.0;

/// What differs from motor to motor, and how its bearing fares.
#[derive(Debug, Clone, Copy)]
struct Motor {
    /// Turns a second.
    turns: f64,
    /// Rated power in W.
    rated: f64,
    /// When the fault starts and how long it takes to grow; one motor in three has one.
    fault: Option<(f64, f64)>,
}

impl Motor {
    fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "motor");
        let (turns, rated) = (noise.between(14.0, 25.0), noise.between(400.0, 2200.0));
        let (start, growth) = (noise.between(10.0, 60.0), noise.between(GROWTH_S.start, GROWTH_S.end));
        let faulty = derive(seed, "fault", 0).is_multiple_of(3);
        Self { turns, rated, fault: faulty.then_some((start, growth)) }
    }

    /// From 0, sound, to 1.
    fn damage(&self, now: f64) -> f64 {
        self.fault.map_or(0.0, |(start, growth)| ((now - start) / growth).clamp(0.0, 1.0))
    }
}

/// Three axes of acceleration in m/s², z up: the first three channels of kind `imu`.
#[derive(Debug)]
pub struct Vibration {
    motor: Motor,
    speed: Drift,
    noise: Noise,
    /// Turns so far.
    angle: f64,
    now: f64,
}

impl Vibration {
    /// Of the machine with `seed`.
    pub fn new(seed: u64) -> Self {
        let step = VIBRATION_US as f64 * 1e-6;
        let speed = Drift::new(Noise::new(seed, "speed"), 0.05, 5.0, step);
        Self { motor: Motor::new(seed), speed, noise: Noise::new(seed, "vibration"), angle: 0.0, now: 0.0 }
    }
}

impl Signal for Vibration {
    fn spec(&self) -> Spec {
        Spec::of("vibration", "imu", VIBRATION_US, 6000)
    }

    fn next(&mut self) -> Option<Value> {
        let step = VIBRATION_US as f64 * 1e-6;
        self.angle += (self.motor.turns + self.speed.step()) * step;
        self.now += step;
        let harmonic =
            |order: f64, height: f64, phase: f64| height * (TAU * order * self.angle + phase).sin();
        // Unbalance at 1x, misalignment at 2x, looseness at 3x.
        let radial =
            |phase| harmonic(1.0, 0.8, phase) + harmonic(2.0, 0.3, phase) + harmonic(3.0, 0.1, phase);
        // Every blow rings down before the next.
        let since_blow = (self.angle * BLOWS).fract();
        let damage = self.motor.damage(self.now);
        let ringing = 6.0 * damage * (-6.0 * since_blow).exp() * (TAU * 4.0 * since_blow).cos();
        let [x, y, z] = [
            radial(0.0) + ringing,
            harmonic(1.0, 0.15, 0.5) + 0.2 * ringing,
            GRAVITY + radial(TAU / 4.0) + 0.7 * ringing,
        ];
        let noise = 0.05 + 0.3 * damage;
        Some(numbers(&[x, y, z].map(|axis| rounded(axis + self.noise.normal(noise), 4))))
    }
}

/// Temperature of the bearing in °C.
#[derive(Debug)]
pub struct BearingTemperature {
    motor: Motor,
    noise: Noise,
    load: Drift,
    celsius: f64,
    now: f64,
}

impl BearingTemperature {
    /// Of the machine with `seed`.
    pub fn new(seed: u64) -> Self {
        let load = load(seed);
        Self { motor: Motor::new(seed), noise: Noise::new(seed, "bearing"), load, celsius: 35.0, now: 0.0 }
    }
}

impl Signal for BearingTemperature {
    fn spec(&self) -> Spec {
        Spec::of("temperature", "temperature", SLOW_US, 3600)
    }

    fn next(&mut self) -> Option<Value> {
        self.now += 1.0;
        let target = 48.0 + 40.0 * self.load.step() + 30.0 * self.motor.damage(self.now);
        self.celsius += (target - self.celsius) / 60.0;
        Some(Value::Number(rounded(self.celsius + self.noise.normal(0.05), 2)))
    }
}

/// Active power, voltage, current.
#[derive(Debug)]
pub struct Power {
    motor: Motor,
    noise: Noise,
    load: Drift,
    now: f64,
}

impl Power {
    /// Of the machine with `seed`.
    pub fn new(seed: u64) -> Self {
        Self { motor: Motor::new(seed), noise: Noise::new(seed, "power"), load: load(seed), now: 0.0 }
    }
}

fn load(seed: u64) -> Drift {
    Drift::new(Noise::new(seed, "load"), 0.08, 30.0, 1.0)
}

impl Signal for Power {
    fn spec(&self) -> Spec {
        Spec::of("power", "power", SLOW_US, 3600)
    }

    fn next(&mut self) -> Option<Value> {
        /// Cosine phi of a loaded induction motor.
        const FACTOR: f64 = 0.85;
        self.now += 1.0;
        let share = (0.7 + self.load.step() + 0.1 * self.motor.damage(self.now)).clamp(0.2, 1.2);
        let active = self.motor.rated * share + self.noise.normal(2.0);
        let voltage = 230.0 + self.noise.normal(0.8);
        let current = active / (voltage * FACTOR);
        Some(numbers(&[rounded(active, 1), rounded(voltage, 1), rounded(current, 3)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{deviation, mean, take};
    use super::*;

    fn seed_with(fault: bool) -> u64 {
        (0..100).find(|seed| Motor::new(*seed).fault.is_some() == fault).unwrap()
    }

    #[test]
    fn vibration_stands_on_gravity_and_turns_at_the_motors_speed() {
        let seed = seed_with(false);
        let values = take(&mut Vibration::new(seed), 200 * 20);
        assert!((mean(values.iter().map(|value| value[2])) - GRAVITY).abs() < 0.1);
        assert!((mean(values.iter().map(|value| value[0]))).abs() < 0.1);
        // Power at a frequency by the sum over samples: the speed of rotation beats its neighbours.
        let power = |hertz: f64| {
            let (mut re, mut im) = (0.0, 0.0);
            for (at, value) in values.iter().take(400).enumerate() {
                let (sin, cos) = (TAU * hertz * at as f64 * 0.005).sin_cos();
                re += value[0] * cos;
                im += value[0] * sin;
            }
            re.hypot(im)
        };
        let turns = Motor::new(seed).turns;
        assert!(power(turns) > 3.0 * power(turns - 3.0) && power(turns) > 3.0 * power(turns + 3.0));
    }

    #[test]
    fn a_worn_bearing_shakes_more_and_more_and_gets_hot() {
        let roughness = |seed, from: usize| {
            let mut vibration = Vibration::new(seed);
            (0..200 * from).for_each(|_| drop(vibration.next()));
            deviation(take(&mut vibration, 200 * 10).iter().map(|value| value[0]))
        };
        let (sound, worn) = (seed_with(false), seed_with(true));
        assert!(roughness(worn, 600) > 1.1 * roughness(worn, 0));
        assert!((roughness(sound, 600) / roughness(sound, 0) - 1.0).abs() < 0.05);
        let warmth = |seed| take(&mut BearingTemperature::new(seed), 4000).pop().unwrap()[0];
        assert!(warmth(worn) > warmth(sound) + 10.0);
    }

    #[test]
    fn current_voltage_and_power_agree() {
        for reading in take(&mut Power::new(1), 300) {
            assert!((reading[1] * reading[2] * 0.85 - reading[0]).abs() < 1.0, "{reading:?}");
            assert!(reading[0] > 50.0 && (220.0..240.0).contains(&reading[1]));
        }
    }
}
