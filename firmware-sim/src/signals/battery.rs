//! A lithium cell: it empties, is put on the charger, and its voltage follows the charge.

use ingest::wire::message::Value;

use super::noise::Noise;
use super::{Signal, Spec, numbers, rounded};

/// Between two readings, in microseconds.
const INTERVAL_US: i64 = 10_000_000;
/// Voltage at 0, 20, 40, … 100 % without load.
const VOLTAGE: [f64; 6] = [3.30, 3.65, 3.75, 3.85, 3.98, 4.18];
/// Share of the charge that a reading costs, in percent, and that charging brings.
const DRAIN: f64 = 0.03;
const CHARGE: f64 = 0.2;

/// Level (%), charging (0 or 1), voltage.
#[derive(Debug)]
pub struct Battery {
    noise: Noise,
    level: f64,
    charging: bool,
}

impl Battery {
    /// Of the device with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "battery");
        let level = noise.between(35.0, 100.0);
        Self { noise, level, charging: false }
    }
}

fn voltage(level: f64) -> f64 {
    let place = (level / 20.0).clamp(0.0, 5.0);
    let below = (place as usize).min(4);
    VOLTAGE[below] + (VOLTAGE[below + 1] - VOLTAGE[below]) * (place - below as f64)
}

impl Signal for Battery {
    fn spec(&self) -> Spec {
        Spec::of("battery", "battery", INTERVAL_US, 1000)
    }

    fn next(&mut self) -> Option<Value> {
        self.charging = if self.charging { self.level < 100.0 } else { self.level < 15.0 };
        let change = if self.charging { CHARGE } else { -DRAIN * self.noise.between(0.7, 1.3) };
        self.level = (self.level + change).clamp(0.0, 100.0);
        let lift = if self.charging { 0.06 } else { -0.01 };
        let volts = voltage(self.level) + lift + self.noise.normal(0.002);
        Some(numbers(&[rounded(self.level, 1), f64::from(u8::from(self.charging)), rounded(volts, 3)]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::take;
    use super::*;

    #[test]
    fn the_cell_empties_until_it_is_charged() {
        let readings = take(&mut Battery::new(1), 6000);
        for pair in readings.windows(2) {
            let charging = pair[1][1] == 1.0;
            assert!(if charging { pair[1][0] >= pair[0][0] } else { pair[1][0] <= pair[0][0] }, "{pair:?}");
            assert!((14.0..=100.0).contains(&pair[1][0]) && (3.2..4.3).contains(&pair[1][2]), "{pair:?}");
        }
        assert!(readings.iter().any(|reading| reading[1] == 1.0), "never charged");
    }
}
