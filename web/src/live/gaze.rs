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
    /// Those that the watch names.
    named: Vec<SensorId>,
    /// These, and those of its rooms.
    sensors: Vec<SensorId>,
    level: Level,
    /// While it lives, the store counts it.
    gaze: Gaze,
}

impl Gazes {
    pub(super) fn new(store: Store) -> Self {
        Self { store, cap: Level::High, open: HashMap::new() }
    }

    /// A watch has begun, of sensors that it names and of those of its rooms; one of the same number ends.
    pub(super) fn begin<'a>(
        &mut self,
        id: u64,
        named: Vec<SensorId>,
        of_rooms: impl Iterator<Item = &'a SensorId>,
        level: Level,
    ) {
        let look = self.look(named, of_rooms, level);
        // The one before ends when the new one stands, so that nothing falls in between.
        self.open.insert(id, look);
    }

    /// The rooms of a watch have other sensors than before.
    pub(super) fn turn<'a>(&mut self, id: u64, of_rooms: impl Iterator<Item = &'a SensorId>) {
        let Some(look) = self.open.get_mut(&id) else { return };
        let (named, level) = (std::mem::take(&mut look.named), look.level);
        let look = self.look(named, of_rooms, level);
        self.open.insert(id, look);
    }

    fn look<'a>(
        &self,
        named: Vec<SensorId>,
        of_rooms: impl Iterator<Item = &'a SensorId>,
        level: Level,
    ) -> Look {
        let sensors: BTreeSet<_> = named.iter().cloned().chain(of_rooms.cloned()).collect();
        let sensors: Vec<_> = sensors.into_iter().collect();
        let gaze = self.store.attend(sensors.clone(), level.min(self.cap));
        Look { named, sensors, level, gaze }
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
