//! How closely sensors are being watched: each viewer says so on its node, and every node knows the highest level over
//! all. It is advice for devices on how long to batch; what is kept of a sensor does not depend on it.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::handle::Store;
use crate::model::ids::SensorId;

/// How closely something is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nobody looks.
    #[default]
    None,
    /// At a glance: one of many on a page.
    Low,
    /// As a number or a small chart.
    Medium,
    /// Closely: sample by sample.
    High,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Low, Self::Medium, Self::High];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The level of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many look here at each sensor, by level.
#[derive(Debug, Default)]
pub(crate) struct Gazes(HashMap<SensorId, [u32; Level::ALL.len()]>);

impl Gazes {
    /// One more looks, or one fewer. Gives the highest level now.
    fn count(&mut self, sensor: &SensorId, level: Level, more: bool) -> Level {
        let counts = self.0.entry(sensor.clone()).or_default();
        let count = &mut counts[level as usize];
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let highest = Level::ALL.into_iter().rev().find(|level| counts[*level as usize] > 0);
        if highest.is_none() {
            self.0.remove(sensor);
        }
        highest.unwrap_or_default()
    }
}

/// While it lives, a viewer looks at sensors.
#[must_use = "dropping it looks away"]
pub struct Gaze {
    store: Store,
    sensors: Vec<SensorId>,
    level: Level,
}

impl fmt::Debug for Gaze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gaze({} at {} sensors)", self.level, self.sensors.len())
    }
}

impl Drop for Gaze {
    fn drop(&mut self) {
        self.store.count_gazes(&self.sensors, self.level, false);
    }
}

impl Store {
    /// Notes that a viewer looks at sensors this closely, as long as the answer lives.
    pub fn attend(&self, mut sensors: Vec<SensorId>, level: Level) -> Gaze {
        if level == Level::None {
            sensors.clear();
        }
        self.count_gazes(&sensors, level, true);
        Gaze { store: self.clone(), sensors, level }
    }

    fn count_gazes(&self, sensors: &[SensorId], level: Level, more: bool) {
        if sensors.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        let mut here = self.here();
        for sensor in sensors {
            let highest = here.gazes.count(sensor, level, more);
            let value = (highest > Level::None).then_some(highest);
            if here.passing.attention.own().get(sensor) != value.as_ref() {
                if here.passing.attention.say(sensor, value) {
                    changed.push(sensor);
                } else {
                    tracing::warn!(%sensor, "more sensors are watched here than devices are told of");
                }
            }
        }
        drop(here);
        self.tell_attention(changed);
    }

    /// How closely a sensor is watched, by anybody on any node.
    pub fn attention(&self, sensor: &SensorId) -> Level {
        let here = self.here();
        here.passing.attention.of(sensor).iter().map(|(_, level)| *level).max().unwrap_or_default()
    }
}
