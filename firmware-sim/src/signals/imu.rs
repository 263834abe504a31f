//! Motion of something worn: acceleration, turning rate and magnetic field, of one orientation that all three follow.
//!
//! The arm turns in gestures between which it rests. The gyroscope is the derivative of the same angles by which gravity and
//! the earth's field are turned into the body's frame, so integrating one gives the other.

use std::f64::consts::TAU;

use ingest::wire::message::Value;

use super::noise::Noise;
use super::{Signal, Spec, numbers, rounded};

/// Between two samples, in microseconds: 50 Hz.
const INTERVAL_US: i64 = 20_000;
/// Standard gravity in m/s².
pub const GRAVITY: f64 = 9.80665;
/// The earth's field in middle Europe in µT: north and down.
const FIELD: (f64, f64) = (20.0, 44.0);

/// A turn there and back: about which axis, how far, from when, for how long.
#[derive(Debug, Clone, Copy)]
struct Gesture {
    roll: f64,
    pitch: f64,
    start: f64,
    length: f64,
}

/// Nine channels: acceleration (m/s²), turning rate (rad/s), field (µT).
#[derive(Debug)]
pub struct Imu {
    noise: Noise,
    gesture: Gesture,
    /// Angles at rest.
    roll: f64,
    pitch: f64,
    yaw: f64,
    step: u64,
}

impl Imu {
    /// Of the wearer with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "imu");
        let (roll, pitch) = (noise.between(-0.4, 0.4), noise.between(-0.3, 0.3));
        let yaw = noise.between(0.0, TAU);
        let start = noise.between(1.0, 3.0);
        let mut imu = Self {
            gesture: Gesture { roll: 0.0, pitch: 0.0, start, length: 1.0 },
            noise,
            roll,
            pitch,
            yaw,
            step: 0,
        };
        imu.plan(start);
        imu
    }

    /// Whether the wearer is still at the next sample.
    pub fn resting(&self) -> bool {
        self.step as f64 * INTERVAL_US as f64 * 1e-6 <= self.gesture.start
    }

    fn plan(&mut self, start: f64) {
        self.gesture = Gesture {
            roll: self.noise.between(-1.2, 1.2),
            pitch: self.noise.between(-0.8, 0.8),
            start,
            length: self.noise.between(0.8, 2.5),
        };
    }
}

impl Gesture {
    /// Share of the way at `now`, and its derivative: a raised cosine, there and back.
    fn way(&self, now: f64) -> (f64, f64) {
        let phase = (now - self.start) / self.length;
        if !(0.0..=1.0).contains(&phase) {
            return (0.0, 0.0);
        }
        (0.5 - 0.5 * (TAU * phase).cos(), 0.5 * TAU / self.length * (TAU * phase).sin())
    }
}

impl Signal for Imu {
    fn spec(&self) -> Spec {
        Spec::of("imu", "imu", INTERVAL_US, 3000)
    }

    fn next(&mut self) -> Option<Value> {
        let now = self.step as f64 * INTERVAL_US as f64 * 1e-6;
        self.step += 1;
        if now > self.gesture.start + self.gesture.length {
            let rest = self.noise.between(0.5, 4.0);
            self.plan(now + rest);
        }
        let (way, speed) = self.gesture.way(now);
        let (roll, pitch) = (self.roll + self.gesture.roll * way, self.pitch + self.gesture.pitch * way);
        let (roll_rate, pitch_rate) = (self.gesture.roll * speed, self.gesture.pitch * speed);
        let (sin_roll, cos_roll) = roll.sin_cos();
        let (sin_pitch, cos_pitch) = pitch.sin_cos();
        // Gravity, and what the swing of a forearm of 30 cm adds towards the elbow.
        let swing = 0.3 * (roll_rate * roll_rate + pitch_rate * pitch_rate);
        let acceleration =
            [-GRAVITY * sin_pitch - swing, GRAVITY * cos_pitch * sin_roll, GRAVITY * cos_pitch * cos_roll];
        // Body rates of the angles roll and pitch (yaw stands still).
        let turning = [roll_rate, pitch_rate * cos_roll, -pitch_rate * sin_roll];
        let (north, down) = FIELD;
        let (x, y) = (north * self.yaw.cos(), -north * self.yaw.sin());
        let level = x * sin_pitch * sin_roll + y * cos_roll + down * cos_pitch * sin_roll;
        let field = [
            x * cos_pitch - down * sin_pitch,
            level,
            x * sin_pitch * cos_roll - y * sin_roll + down * cos_pitch * cos_roll,
        ];
        let mut all = [0.0; 9];
        for axis in 0..3 {
            all[axis] = rounded(acceleration[axis] + self.noise.normal(0.02), 4);
            all[axis + 3] = rounded(turning[axis] + self.noise.normal(0.004), 5);
            all[axis + 6] = rounded(field[axis] + self.noise.normal(0.4), 2);
        }
        Some(numbers(&all))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::take;
    use super::*;

    fn length(axes: &[f64]) -> f64 {
        axes.iter().map(|axis| axis * axis).sum::<f64>().sqrt()
    }

    #[test]
    fn at_rest_there_is_gravity_alone() {
        let mut imu = Imu::new(3);
        let mut rests = 0;
        for _ in 0..50 * 60 {
            let resting = imu.resting();
            let sample = take(&mut imu, 1).remove(0);
            assert_eq!(sample.len(), 9);
            if resting {
                rests += 1;
                assert!((length(&sample[..3]) - GRAVITY).abs() < 0.15, "{sample:?}");
                assert!(length(&sample[3..6]) < 0.05, "{sample:?}");
            }
            assert!((length(&sample[6..]) - FIELD.0.hypot(FIELD.1)).abs() < 3.0, "{sample:?}");
        }
        assert!((500..2900).contains(&rests), "both rest and motion: {rests}");
    }

    #[test]
    fn the_gyroscope_integrates_to_the_angle_that_gravity_shows() {
        let mut imu = Imu::new(8);
        let samples = take(&mut imu, 50 * 30);
        let angle = |sample: &[f64]| sample[1].atan2(sample[2]);
        let (mut turned, mut moved) = (angle(&samples[0]), 0.0f64);
        for pair in samples.windows(2) {
            // Trapezoids of 20 ms; noise of 0.004 rad/s adds up to far less than the bound below.
            turned += 0.5 * (pair[0][3] + pair[1][3]) * 0.02;
            moved = moved.max(pair[1][3].abs());
            assert!((turned - angle(&pair[1])).abs() < 0.06, "{turned} {}", angle(&pair[1]));
        }
        assert!(moved > 0.5, "nothing moved: {moved}");
    }
}
