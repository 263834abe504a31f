//! What a viewer looks at, and how closely: its watches say so to the devices, through the store.
//!
//! A viewer whose battery is low gets less of its own accord: what it watches counts for no more than its cap, so that
//! a device does not send each sample for a page that had better sleep. Others who look closely are not affected.

use std::collections::{BTreeSet, HashMap};

use store::{Gaze, Level, SensorId, Store};

/// Charge, from 0 to 1, below which a viewer's attention counts for no more than a level, as long as it is not plugged
/// in.
const CAPS: [(f64, Level); 2] = [(0.15, Level::Low), (0.30, Level::Medium)];

/// What a viewer looks at.
pub(super) struct Gazes {
    store: Store,
    cap: Level,
    open: HashMap<u64, Look>,
}

#[derive(Debug)]
struct Look {
    sensors: Vec<SensorId>,
    level: Level,
    /// While it lives, the store counts it.
    gaze: Gaze,
}

impl Gazes {
    pub(super) fn new(store: Store) -> Self {
        Self { store, cap: Level::High, open: HashMap::new() }
    }

    /// A watch has begun; one of the same number ends.
    pub(super) fn begin(&mut self, id: u64, sensors: impl Iterator<Item = SensorId>, level: Level) {
        let sensors: Vec<_> = sensors.collect::<BTreeSet<_>>().into_iter().collect();
        let gaze = self.store.attend(sensors.clone(), level.min(self.cap));
        // The one before ends when the new one stands, so that nothing falls in between.
        self.open.insert(id, Look { sensors, level, gaze });
    }

    /// A watch has ended.
    pub(super) fn end(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// The viewer says how its battery is.
    pub(super) fn battery(&mut self, charge: f64, charging: bool) {
        let cap = CAPS.into_iter().find(|(below, _)| charge < *below && !charging);
        let cap = cap.map_or(Level::High, |(_, level)| level);
        if cap != self.cap {
            self.cap = cap;
            for look in self.open.values_mut() {
                look.gaze = self.store.attend(look.sensors.clone(), look.level.min(cap));
            }
        }
    }
}
