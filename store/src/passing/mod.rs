//! The passing part of the registry: who is in which room, how closely sensors are watched, which sensors have a
//! device where. Each node owns what it says of these and tells its peers; what a node said counts as long as its
//! link stands, so nothing has to be deleted when it dies.
//!
//! A value: calls in, answers out; no I/O, no lock, no clock. [`table`] is what a node says, [`facts`] what all say of
//! one thing; `presence`, `attention` and `device` give them to the rest of the program.
//!
//! Bounds: [`PEOPLE`] and [`SENSORS`] entries of each node.

pub(crate) mod facts;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use self::facts::{Facts, Gap};
use self::table::{Difference, Told};
use crate::attention::Level;
use crate::model::ids::{NodeId, PersonId, RoomId, SensorId};
use crate::presence::Person;

/// People in rooms, of one node. A further one is refused.
pub(crate) const PEOPLE: usize = 1 << 17;
/// Sensors with a device at one node, and sensors watched there. A further device is not shown as online elsewhere, a
/// further sensor seems unwatched.
pub(crate) const SENSORS: usize = 1 << 20;

/// A person's place in a room.
pub type Place = (RoomId, PersonId);

/// What a node tells a peer of its tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// People in rooms.
    pub people: Option<Difference<Place, Person>>,
    /// Sensors that are watched.
    pub attention: Option<Difference<SensorId, Level>>,
    /// Sensors that have a device.
    pub devices: Option<Difference<SensorId, ()>>,
}

/// How far a peer has been told.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    people: Option<Told>,
    attention: Option<Told>,
    devices: Option<Told>,
}

/// What changed; what it is now is to be asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub people: Vec<Place>,
    pub attention: Vec<SensorId>,
    pub devices: Vec<SensorId>,
}

/// All that passes.
#[derive(Debug)]
pub(crate) struct Passing {
    pub people: Facts<Place, Person>,
    pub attention: Facts<SensorId, Level>,
    pub devices: Facts<SensorId, ()>,
}

impl Passing {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            people: Facts::new(me, PEOPLE),
            attention: Facts::new(me, SENSORS),
            devices: Facts::new(me, SENSORS),
        }
    }

    /// What a peer is still to be told, as far as it goes into one message.
    pub(crate) fn news(&self, cursor: &mut Cursor) -> Option<News> {
        let news = News {
            people: self.people.own().news(&mut cursor.people),
            attention: self.attention.own().news(&mut cursor.attention),
            devices: self.devices.own().news(&mut cursor.devices),
        };
        (news.people.is_some() || news.attention.is_some() || news.devices.is_some()).then_some(news)
    }

    /// Takes what a peer says.
    pub(crate) fn hear(&mut self, node: NodeId, news: News) -> Result<Changed, Gap> {
        fn heard<K: Ord + Clone, V: PartialEq + Clone>(
            facts: &mut Facts<K, V>,
            node: NodeId,
            news: Option<Difference<K, V>>,
        ) -> Result<Vec<K>, Gap> {
            news.map_or(Ok(Vec::new()), |news| facts.hear(node, news))
        }
        Ok(Changed {
            people: heard(&mut self.people, node, news.people)?,
            attention: heard(&mut self.attention, node, news.attention)?,
            devices: heard(&mut self.devices, node, news.devices)?,
        })
    }

    /// A link with a peer is open.
    pub(crate) fn linked(&mut self, node: NodeId) -> Changed {
        Changed {
            people: self.people.linked(node),
            attention: self.attention.linked(node),
            devices: self.devices.linked(node),
        }
    }

    /// The link with a peer is over.
    pub(crate) fn unlinked(&mut self, node: NodeId) -> Changed {
        Changed {
            people: self.people.unlinked(node),
            attention: self.attention.unlinked(node),
            devices: self.devices.unlinked(node),
        }
    }
}

#[cfg(test)]
mod tests;
