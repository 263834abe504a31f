//! What a device is advised: how long to batch, by how closely its sensors are watched and how busy the node is. It
//! changes when samples come and in how many frames, never which.
//!
//! Values only: no clock and no socket; `advisor` keeps them and tells the devices.

use std::time::{Duration, Instant};

use serde::Serialize;
use store::Level;

use crate::wire::message::FromNode;

/// How long a level is kept after the last who looked so closely has gone: so a viewer who comes back, or was moved to
/// another node, finds the device as it left it.
pub const KEEP_LEVEL: Duration = Duration::from_secs(8);
/// From one lower level to the next: nobody looks, and after 8 s, 11.5 s and 15 s `high` has become `none`.
pub const NEXT_LEVEL: Duration = Duration::from_millis(3500);
/// By how much windows and samples grow as load rises.
const FACTORS: [f64; 4] = [1.0, 1.5, 3.0, 5.0];
/// How full the way to the disk is when each of the higher factors begins.
const PRESSURES: [f64; 3] = [0.5, 0.75, 0.9];
/// How late the node is for its own timers when each of them begins.
const DELAYS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1)];
/// Looks in a row that must be calmer before the factor falls, one step at a time.
const CALM_LOOKS: u32 = 20;
/// Looks in a row at which nothing more could be taken, before devices are asked to pause.
const FULL_LOOKS: u32 = 8;

/// What a device is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// How closely it is watched.
    pub attention: Level,
    /// Batch for so long,
    pub window_ms: u64,
    /// or until there are so many.
    pub max_samples: u64,
    /// Stop sending for now: the node has no room for more.
    pub paused: bool,
}

impl Advice {
    /// For a device that is watched so closely, on a node under this strain.
    pub fn new(attention: Level, strain: &Strain) -> Self {
        let (window_ms, max_samples) = match attention {
            Level::High => (100, 1),
            Level::Medium => (500, 5),
            Level::Low => (2000, 10),
            Level::None => (5000, 20),
        };
        let times = |count: u64| (count as f64 * strain.factor()).round() as u64;
        let paused = strain.is_full();
        Self { attention, window_ms: times(window_ms), max_samples: times(max_samples), paused }
    }

    /// As a WebSocket device gets it.
    pub fn message(&self) -> FromNode {
        let Self { attention, window_ms, max_samples, paused } = *self;
        FromNode::Advice { attention: attention.name().to_owned(), window_ms, max_samples, paused }
    }
}

/// The attention that a sensor gets, as its device is told of it: it rises at once, and falls by and by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Easing {
    level: Level,
    falls: Option<Instant>,
}

impl Easing {
    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// When to look again, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        self.falls
    }

    /// Notes how closely the sensor is watched. True when the level is another one now.
    pub fn look(&mut self, watched: Level, now: Instant) -> bool {
        let before = self.level;
        if watched >= self.level {
            (self.level, self.falls) = (watched, None);
        }
        while self.level > watched {
            let falls = *self.falls.get_or_insert(now + KEEP_LEVEL);
            if now < falls {
                break;
            }
            self.level = Level::ALL[self.level as usize - 1];
            self.falls = (self.level > watched).then_some(falls + NEXT_LEVEL);
        }
        self.level != before
    }
}

/// How busy the node is: looked at several times a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strain {
    step: usize,
    /// What the look before would have asked for.
    asked: usize,
    calm: u32,
    full: u32,
}

impl Strain {
    /// By how much batches grow.
    pub fn factor(&self) -> f64 {
        FACTORS[self.step]
    }

    /// Whether devices should stop for now.
    pub fn is_full(&self) -> bool {
        self.full >= FULL_LOOKS
    }

    /// Notes how full the way to the disk is (1: nothing more is taken), and how late this look comes. The factor
    /// rises when two looks in a row ask for it. True when devices are to be told.
    pub fn look(&mut self, pressure: f64, delay: Duration) -> bool {
        let before = (self.step, self.is_full());
        let full = PRESSURES.iter().filter(|least| pressure >= **least).count();
        let late = DELAYS.iter().filter(|least| delay >= **least).count();
        let asks = full.max(late);
        let both = asks.min(self.asked);
        self.asked = asks;
        if both > self.step {
            self.step = both;
        }
        self.calm = if asks < self.step { self.calm + 1 } else { 0 };
        if self.calm >= CALM_LOOKS {
            (self.step, self.calm) = (self.step - 1, 0);
        }
        self.full = match pressure {
            pressure if pressure >= 1.0 => self.full.saturating_add(1),
            pressure if pressure >= PRESSURES[0] && self.is_full() => self.full,
            _ => 0,
        };
        before != (self.step, self.is_full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_factors_are_those_of_the_design() {
        let calm = Strain::default();
        let told = |level, strain: &Strain| {
            let Advice { window_ms, max_samples, paused, .. } = Advice::new(level, strain);
            (window_ms, max_samples, paused)
        };
        let all = |strain: &Strain| Level::ALL.map(|level| told(level, strain));
        assert_eq!(all(&calm), [(5000, 20, false), (2000, 10, false), (500, 5, false), (100, 1, false)]);
        let busy = Strain { step: 3, ..calm.clone() };
        assert_eq!(
            all(&busy),
            [(25_000, 100, false), (10_000, 50, false), (2500, 25, false), (500, 5, false)]
        );
        let text = serde_json::to_string(&Advice::new(Level::High, &calm)).unwrap();
        assert_eq!(text, r#"{"attention":"high","window_ms":100,"max_samples":1,"paused":false}"#);
        let text = serde_json::to_string(&Advice::new(Level::Low, &calm).message()).unwrap();
        assert_eq!(
            text,
            r#"{"type":"advice","attention":"low","window_ms":2000,"max_samples":10,"paused":false}"#
        );
    }

    #[test]
    fn attention_rises_at_once_and_falls_within_8_to_15_seconds() {
        let began = Instant::now();
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        let mut easing = Easing::default();
        assert!(easing.look(Level::High, at(0.0)) && easing.due().is_none());
        assert!(!easing.look(Level::None, at(1.0)), "it stays for a while");
        assert_eq!(easing.due(), Some(at(9.0)));
        assert!(!easing.look(Level::None, at(8.9)));
        assert!(easing.look(Level::None, at(9.0)));
        assert_eq!((easing.level(), easing.due()), (Level::Medium, Some(at(12.5))));
        assert!(easing.look(Level::None, at(12.5)));
        assert!(easing.look(Level::None, at(16.0)));
        assert_eq!((easing.level(), easing.due()), (Level::None, None));
        // Who looks away and back has changed nothing, and what falls stops where somebody still looks.
        easing.look(Level::High, at(20.0));
        easing.look(Level::Low, at(21.0));
        assert!(!easing.look(Level::High, at(28.0)) && easing.due().is_none());
        easing.look(Level::Medium, at(30.0));
        assert!(easing.look(Level::Medium, at(100.0)));
        assert_eq!((easing.level(), easing.due()), (Level::Medium, None));
        // Looked at late, it has fallen as far as it should.
        easing.look(Level::None, at(101.0));
        assert!(easing.look(Level::None, at(200.0)));
        assert_eq!(easing, Easing::default());
    }

    #[test]
    fn the_factor_rises_with_load_and_falls_step_by_step_in_calm() {
        let mut strain = Strain::default();
        let soon = Duration::ZERO;
        assert!(!strain.look(0.95, soon), "once may be chance");
        assert!(strain.look(0.8, soon));
        assert!((strain.factor() - 3.0).abs() < f64::EPSILON);
        assert!(!strain.look(0.8, soon));
        let calm = |strain: &mut Strain| (0..CALM_LOOKS).filter(|_| strain.look(0.0, soon)).count();
        assert_eq!((calm(&mut strain), strain.step), (1, 1));
        assert_eq!((calm(&mut strain), strain.step), (1, 0));
        assert!(!strain.look(0.0, DELAYS[2]) && strain.look(0.0, DELAYS[2]));
        assert_eq!(strain.step, 3);
        let told: Vec<bool> = (0..FULL_LOOKS).map(|_| strain.look(1.0, soon)).collect();
        assert_eq!(told.iter().rposition(|told| *told), Some(FULL_LOOKS as usize - 1));
        assert!(Advice::new(Level::High, &strain).paused);
        assert!(!strain.look(0.6, soon), "half full is not yet room enough");
        assert!(strain.look(0.4, soon) && !strain.is_full());
    }
}
