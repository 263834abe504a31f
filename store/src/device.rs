//! Which sensors have a device where: each node counts the connections that speak for a sensor, and every node knows
//! which nodes have any.

use crate::handle::Store;
use crate::model::ids::{NodeName, SensorId};

/// While it lives, its sensor counts as online on this node.
pub struct DeviceGuard {
    store: Store,
    sensor: SensorId,
}

impl std::fmt::Debug for DeviceGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceGuard({})", self.sensor)
    }
}

impl Drop for DeviceGuard {
    fn drop(&mut self) {
        let mut here = self.store.here();
        let Some(count) = here.devices.get_mut(&self.sensor) else { return };
        *count -= 1;
        if *count == 0 {
            here.devices.remove(&self.sensor);
            here.passing.devices.say(&self.sensor, None);
            drop(here);
            self.store.tell_devices([&self.sensor]);
        }
    }
}

impl Store {
    /// Counts a connection that speaks for `sensor`, while the guard lives.
    pub fn device(&self, sensor: &SensorId) -> DeviceGuard {
        let mut here = self.here();
        let count = here.devices.entry(sensor.clone()).or_default();
        *count += 1;
        if *count == 1 && !here.passing.devices.say(sensor, Some(())) {
            tracing::warn!(%sensor, "more devices are connected than other nodes are told of");
        }
        drop(here);
        self.tell_devices([sensor]);
        DeviceGuard { store: self.clone(), sensor: sensor.clone() }
    }

    /// Sensors that a connection here speaks for.
    pub fn devices_here(&self) -> Vec<SensorId> {
        self.here().devices.keys().cloned().collect()
    }

    /// The nodes that a device of this sensor is connected to, by name.
    pub fn device_nodes(&self, sensor: &SensorId) -> Vec<NodeName> {
        let here = self.here();
        let mut nodes: Vec<_> =
            here.passing.devices.of(sensor).iter().map(|(node, ())| self.called(*node)).collect();
        nodes.sort();
        nodes
    }

    /// Whether a device that speaks for the sensor is connected to any node.
    pub(crate) fn is_online(&self, sensor: &SensorId) -> bool {
        !self.here().passing.devices.of(sensor).is_empty()
    }
}
