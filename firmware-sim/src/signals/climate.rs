//! The air of a room: one state, told by several sensors that share its seed. People come and go; they warm the room,
//! breathe, and switch on the light.

use std::f64::consts::TAU;

use ingest::wire::message::Value;

use super::noise::{Drift, Noise};
use super::{Signal, Spec, numbers, rounded};

/// Between two readings, in microseconds.
const INTERVAL_US: i64 = 1_000_000;
/// The shortest of days: weather turns within ten minutes, so that a short run shows something.
const DAY_S: f64 = 600.0;

/// Which of the room's quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// °C.
    Temperature,
    /// % relative humidity.
    Humidity,
    /// hPa.
    Pressure,
    /// lx.
    Illuminance,
    /// eCO2 in ppm, TVOC in ppb.
    AirQuality,
}

/// What all sensors in a room see alike.
#[derive(Debug)]
struct Room {
    doors: Noise,
    occupied: bool,
    /// Follows `occupied` slowly, 0 to 1.
    stuffiness: f64,
    temperature: f64,
    moisture: Drift,
    weather: Drift,
    clouds: Drift,
    base: f64,
    elapsed: f64,
}

impl Room {
    fn new(seed: u64) -> Self {
        let mut doors = Noise::new(seed, "doors");
        let drift = |what, deviation, memory| Drift::new(Noise::new(seed, what), deviation, memory, 1.0);
        let base = doors.between(19.5, 22.5);
        Self {
            occupied: doors.chance(0.5),
            stuffiness: doors.between(0.0, 0.6),
            temperature: base,
            moisture: drift("moisture", 0.4, 300.0),
            weather: drift("weather", 4.0, 900.0),
            clouds: drift("clouds", 0.15, 30.0),
            base,
            elapsed: 0.0,
            doors,
        }
    }

    fn step(&mut self) {
        self.elapsed += 1.0;
        if self.doors.chance(1.0 / 120.0) {
            self.occupied = !self.occupied;
        }
        let people = if self.occupied { 1.0 } else { 0.0 };
        self.stuffiness += (people - self.stuffiness) / 180.0;
        let target = self.base + 1.5 * self.stuffiness + 0.8 * (TAU * self.elapsed / DAY_S).sin();
        self.temperature += (target - self.temperature) / 60.0;
    }
}

/// One quantity of a room.
#[derive(Debug)]
pub struct Climate {
    room: Room,
    quantity: Quantity,
    noise: Noise,
}

impl Climate {
    /// Of the room with `seed`.
    pub fn new(seed: u64, quantity: Quantity) -> Self {
        let noise = Noise::new(seed, Self::name(quantity));
        Self { room: Room::new(seed), quantity, noise }
    }

    fn name(quantity: Quantity) -> &'static str {
        match quantity {
            Quantity::Temperature => "temperature",
            Quantity::Humidity => "humidity",
            Quantity::Pressure => "pressure",
            Quantity::Illuminance => "illuminance",
            Quantity::AirQuality => "air_quality",
        }
    }
}

/// Saturation pressure of water in hPa (Magnus, after Alduchov and Eskridge, 1996).
fn saturation(celsius: f64) -> f64 {
    6.1094 * (17.625 * celsius / (celsius + 243.04)).exp()
}

impl Signal for Climate {
    fn spec(&self) -> Spec {
        let name = Self::name(self.quantity);
        Spec::of(name, name, INTERVAL_US, 3600)
    }

    fn next(&mut self) -> Option<Value> {
        let room = &mut self.room;
        room.step();
        let number = |value, digits| Some(Value::Number(rounded(value, digits)));
        match self.quantity {
            Quantity::Temperature => number(room.temperature + self.noise.normal(0.03), 2),
            Quantity::Humidity => {
                // Vapour in the air; the warmer it gets, the lower the humidity that this is.
                let vapour = 10.0 + room.moisture.step() + 1.5 * room.stuffiness;
                let humidity = 100.0 * vapour / saturation(room.temperature);
                number((humidity + self.noise.normal(0.15)).clamp(0.0, 100.0), 1)
            }
            Quantity::Pressure => number(1013.0 + room.weather.step() + self.noise.normal(0.05), 2),
            Quantity::Illuminance => {
                let sun =
                    (TAU * room.elapsed / DAY_S).sin().max(0.0) * (0.7 + room.clouds.step()).clamp(0.1, 1.0);
                let lamp = if room.occupied { 320.0 } else { 0.0 };
                number((2.0 + 600.0 * sun + lamp + self.noise.normal(1.5)).max(0.0), 1)
            }
            Quantity::AirQuality => {
                let carbon = 420.0 + 900.0 * room.stuffiness + self.noise.normal(6.0);
                let organic = 15.0 + 260.0 * room.stuffiness + self.noise.normal(4.0);
                Some(numbers(&[carbon.max(400.0).round(), organic.max(0.0).round()]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{deviation, take};
    use super::*;

    #[test]
    fn rooms_stay_where_people_can_live() {
        for seed in 0..8 {
            for (quantity, low, high) in [
                (Quantity::Temperature, 15.0, 28.0),
                (Quantity::Humidity, 20.0, 80.0),
                (Quantity::Pressure, 980.0, 1045.0),
                (Quantity::Illuminance, 0.0, 1100.0),
                (Quantity::AirQuality, 0.0, 1500.0),
            ] {
                let values = take(&mut Climate::new(seed, quantity), 1800);
                let all = values.iter().flatten().copied();
                assert!(all.clone().all(|value| (low..=high).contains(&value)), "{quantity:?} {seed}");
                assert!(deviation(values.iter().map(|value| value[0])) > 0.01, "{quantity:?} stands still");
            }
        }
    }

    #[test]
    fn sensors_of_a_room_see_the_same_people() {
        let light = take(&mut Climate::new(2, Quantity::Illuminance), 1800);
        let air = take(&mut Climate::new(2, Quantity::AirQuality), 1800);
        // While the lamp is certainly off the air gets better, over a minute at least.
        let dark = |at: usize| light[at..at + 60].iter().all(|value| value[0] < 280.0);
        let better = |at: usize| air[at + 59][0] <= air[at][0] + 25.0;
        let minutes: Vec<_> = (0..1740).filter(|at| dark(*at)).collect();
        assert!(!minutes.is_empty() && minutes.iter().all(|at| better(*at)));
    }
}
