//! Which devices a fleet is made of.

use std::fmt;
use std::str::FromStr;

use super::Member;
use crate::signals::Signal;
use crate::signals::battery::Battery;
use crate::signals::button::Button;
use crate::signals::climate::{Climate, Quantity};
use crate::signals::ecg::Ecg;
use crate::signals::gps::Walk;
use crate::signals::heart::{HeartRate, Variability};
use crate::signals::imu::Imu;
use crate::signals::machine::{BearingTemperature, Power, Vibration};
use crate::signals::noise::derive;

/// A kind of fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Chest straps and watches in turn.
    Wearables,
    /// Rooms.
    Building,
    /// Motors.
    Machines,
    /// All of them in turn.
    Mixed,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 4] = [Self::Wearables, Self::Building, Self::Machines, Self::Mixed];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wearables => "wearables",
            Self::Building => "building",
            Self::Machines => "machines",
            Self::Mixed => "mixed",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| format!("`{text}` is none of wearables, building, machines, mixed"))
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy)]
enum Model {
    Strap,
    Watch,
    Room,
    Motor,
}

/// Device number `index`, from 0, of a fleet.
pub fn member(scenario: Scenario, seed: u64, index: usize) -> Member {
    let models: &[Model] = match scenario {
        Scenario::Wearables => &[Model::Strap, Model::Watch],
        Scenario::Building => &[Model::Room],
        Scenario::Machines => &[Model::Motor],
        Scenario::Mixed => &[Model::Strap, Model::Room, Model::Motor, Model::Watch],
    };
    let number = index / models.len() + 1;
    let (model, seed) = (models[index % models.len()], derive(seed, "sensor", index as u64));
    let climate = |quantity| -> Box<dyn Signal> { Box::new(Climate::new(seed, quantity)) };
    let (id, name, signals): (_, _, Vec<Box<dyn Signal>>) = match model {
        Model::Strap => (
            "strap",
            "Chest strap",
            vec![
                Box::new(Ecg::new(seed)),
                Box::new(HeartRate::new(seed)),
                Box::new(Variability::new(seed)),
                Box::new(Imu::new(seed)),
                Box::new(Battery::new(seed)),
            ],
        ),
        Model::Watch => (
            "watch",
            "Watch",
            vec![
                Box::new(HeartRate::new(seed)),
                Box::new(Imu::new(seed)),
                Box::new(Walk::new(seed)),
                Box::new(Button::new(seed)),
                Box::new(Battery::new(seed)),
            ],
        ),
        Model::Room => (
            "room",
            "Room",
            vec![
                climate(Quantity::Temperature),
                climate(Quantity::Humidity),
                climate(Quantity::Pressure),
                climate(Quantity::Illuminance),
                climate(Quantity::AirQuality),
                Box::new(Battery::new(seed)),
            ],
        ),
        Model::Motor => (
            "motor",
            "Motor",
            vec![
                Box::new(Vibration::new(seed)),
                Box::new(BearingTemperature::new(seed)),
                Box::new(Power::new(seed)),
            ],
        ),
    };
    Member::new(format!("{id}-{number}"), format!("{name} {number}"), seed, signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_a_fleet_has_an_id_of_its_own() {
        for scenario in Scenario::ALL {
            let mut ids: Vec<_> = (0..100).map(|index| member(scenario, 1, index).device.sensor).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), 100, "{scenario}");
            assert_eq!(scenario.name().parse(), Ok(scenario));
        }
        assert!("zoo".parse::<Scenario>().is_err());
    }
}
