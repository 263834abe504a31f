//! What was said of sensors: bounds of rings, and clears, as the store's descriptors have them. In memory and on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::plan::Plan;
use crate::clock::Stamp;
use crate::codec::seal;
use crate::model::ids::SensorId;
use crate::model::value::Shape;
use crate::registry::{AttributeDescription, Description, Keeps, SensorOperation};
use crate::ring::Ring;

/// By series, and by sensor. What is not newer than a sensor's clear is not held.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    keeps: BTreeMap<usize, Keeps>,
    cleared: BTreeMap<SensorId, Stamp>,
}

impl Said {
    /// Takes an operation; true unless it is void.
    pub(super) fn hear(&mut self, plan: &Plan, operation: &SensorOperation) -> bool {
        let SensorOperation { sensor, stamp, description } = operation;
        if self.cleared(sensor).is_some_and(|cleared| *stamp <= cleared) {
            return false;
        }
        if operation.clears() {
            self.cleared.insert(sensor.clone(), *stamp);
            for topic in plan.of(sensor) {
                self.keeps.entry(topic).or_default().clear(*stamp);
            }
        }
        for (attribute, asked) in &description.attributes {
            if let (Some(topic), Some(keep)) = (plan.by_name(sensor, attribute), asked.keep) {
                self.keeps.entry(topic).or_default().declare(keep, *stamp);
            }
        }
        true
    }

    /// Takes what stands in the tables of a transaction: later than what is held.
    pub(super) fn extend(&mut self, later: Self) {
        self.keeps.extend(later.keeps);
        self.cleared.extend(later.cleared);
    }

    /// What it has of one sensor.
    pub(super) fn of(&self, plan: &Plan, sensor: &SensorId) -> Self {
        let keeps = plan.of(sensor).filter_map(|topic| Some((topic, self.keeps.get(&topic)?.clone())));
        let cleared = self.cleared(sensor).map(|stamp| (sensor.clone(), stamp));
        Self { keeps: keeps.collect(), cleared: cleared.into_iter().collect() }
    }

    /// The newest clear of a sensor.
    pub(super) fn cleared(&self, sensor: &SensorId) -> Option<Stamp> {
        self.cleared.get(sensor).copied()
    }

    /// The bound of a ring.
    pub(super) fn keep(&self, plan: &Plan, topic: usize) -> usize {
        self.keeps.get(&topic).map_or(0, Keeps::greatest).max(plan.topics[topic].keep)
    }

    /// A ring before any sample.
    pub(super) fn empty_ring(&self, plan: &Plan, topic: usize) -> Ring {
        let mut ring = Ring::new(self.keep(plan, topic), Shape::Numbers(1));
        if let Some(cleared) = self.cleared(&plan.topics[topic].name.sensor) {
            ring.clear(cleared);
        }
        ring
    }

    /// The time of the newest stamp in it.
    pub(super) fn highest_stamp(&self) -> u64 {
        let keeps = self.keeps.values().flat_map(Keeps::iter).map(|(stamp, _)| stamp);
        self.cleared.values().copied().chain(keeps).map(|stamp| stamp.time).max().unwrap_or(0)
    }

    /// The descriptors: a record for each sensor of which something was said.
    pub(super) fn records(&self, plan: &Plan) -> Vec<Bytes> {
        let mut sensors: Vec<_> = plan.topics.iter().map(|topic| &topic.name.sensor).collect();
        sensors.dedup();
        sensors.into_iter().filter_map(|sensor| self.record(plan, sensor)).collect()
    }

    fn record(&self, plan: &Plan, sensor: &SensorId) -> Option<Bytes> {
        let mut record = Vec::new();
        if let Some(cleared) = self.cleared(sensor) {
            SensorOperation::clear(sensor.clone(), cleared).encode(&mut record);
        }
        for topic in plan.of(sensor) {
            for (stamp, keep) in self.keeps.get(&topic).into_iter().flat_map(Keeps::iter) {
                raise(plan, topic, keep, stamp).encode(&mut record);
            }
        }
        if record.is_empty() {
            return None;
        }
        seal(&mut record);
        Some(record.into())
    }
}

/// The operation that raises the bound of a ring.
pub(super) fn raise(plan: &Plan, topic: usize, keep: usize, stamp: Stamp) -> SensorOperation {
    let name = &plan.topics[topic].name;
    let description = AttributeDescription { keep: Some(keep), ..AttributeDescription::default() };
    let description = Description { name: None, attributes: vec![(name.attribute.clone(), description)] };
    SensorOperation { sensor: name.sensor.clone(), stamp, description }
}
