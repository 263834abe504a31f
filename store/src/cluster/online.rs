//! Which sensors have a device on which node: each node tells its own, and what a node told is forgotten with its link.
//!
//! Bounds: a peer may name at most [`SENSORS`] sensors; what is beyond is not shown as online here.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::handle::Store;
use crate::model::ids::SensorId;
use crate::replica::message::Message;

/// Sensors online on one peer.
const SENSORS: usize = 1 << 20;

/// What a peer was told of this node's devices.
#[derive(Debug, Default)]
pub(crate) struct Told(HashSet<SensorId>);

impl Told {
    /// What has changed since; `None` when nothing has.
    pub(crate) fn news(&mut self, store: &Store) -> Option<Message> {
        let online: HashSet<_> = store.memory().online().into_iter().collect();
        let came: Vec<_> = online.difference(&self.0).map(|sensor| sensor.as_str().to_owned()).collect();
        let gone: Vec<_> = self.0.difference(&online).map(|sensor| sensor.as_str().to_owned()).collect();
        self.0 = online;
        (!came.is_empty() || !gone.is_empty()).then_some(Message::Devices { came, gone })
    }
}

/// What a peer told of its devices. Forgotten when it is dropped.
pub(crate) struct Heard {
    store: Store,
    online: HashSet<SensorId>,
}

impl Heard {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), online: HashSet::new() }
    }

    pub(crate) fn hear(&mut self, came: &[String], gone: &[String]) {
        for sensor in came.iter().filter_map(|sensor| SensorId::new(sensor).ok()) {
            if self.online.len() < SENSORS && self.online.insert(sensor.clone()) {
                let entry = self.store.memory().sensor(&sensor);
                entry.elsewhere.fetch_add(1, Relaxed);
                self.store.memory().feed.described(&sensor);
            }
        }
        for sensor in gone.iter().filter_map(|sensor| SensorId::new(sensor).ok()) {
            if self.online.remove(&sensor) {
                forget(&self.store, &sensor);
            }
        }
    }
}

fn forget(store: &Store, sensor: &SensorId) {
    store.memory().sensor(sensor).elsewhere.fetch_sub(1, Relaxed);
    store.memory().feed.described(sensor);
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.online.drain().for_each(|sensor| forget(&self.store, &sensor));
    }
}
