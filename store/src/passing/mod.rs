//! The passing part of the registry: who is in which room, how closely sensors are watched, which sensors have a
//! device where, which topic filters have subscribers where, and the wills of clients. Each node owns what it says of these and tells its peers; what a node said counts as long as its
//! link stands, so nothing has to be deleted when it dies.
//!
//! A value: calls in, answers out; no I/O, no lock, no clock. [`table`] is what a node says, [`facts`] what all say of
//! one thing; `presence`, `attention`, `device`, `exchange` and `wills` give them to the rest of the program.
//!
//! Bounds: [`PEOPLE`], [`SENSORS`], [`FILTERS`] and [`WILLS`] entries of each node.

pub(crate) mod facts;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use self::facts::{Facts, Gap};
use self::table::{Difference, Told};
use crate::attention::Level;
use crate::model::ids::{NodeId, PersonId, RoomId, SensorId};
use crate::presence::Person;
use crate::wills::Testament;

/// People in rooms, of one node. A further one is refused.
pub(crate) const PEOPLE: usize = 1 << 17;
/// Sensors with a device at one node, and sensors watched there. A further device is not shown as online elsewhere, a
/// further sensor seems unwatched.
pub(crate) const SENSORS: usize = 1 << 20;

/// Topic filters that a node has subscribers for. A node with more asks for everything (see `ingest`).
pub const FILTERS: usize = 1 << 14;
/// Clients of a node that have left a will with it. A further one is not known elsewhere.
pub(crate) const WILLS: usize = 1 << 16;
/// Wills in one difference: they may be long.
const WILLS_PART: usize = 64;

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
    /// Topic filters that have subscribers.
    pub filters: Option<Difference<Box<str>, ()>>,
    /// Clients that have left a will.
    pub wills: Option<Difference<Box<str>, Testament>>,
}

/// How far a peer has been told.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    people: Option<Told>,
    attention: Option<Told>,
    devices: Option<Told>,
    filters: Option<Told>,
    wills: Option<Told>,
}

/// What changed; what it is now is to be asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub people: Vec<Place>,
    pub attention: Vec<SensorId>,
    pub devices: Vec<SensorId>,
    pub filters: Vec<Box<str>>,
    pub wills: Vec<Box<str>>,
}

/// All that passes.
#[derive(Debug)]
pub(crate) struct Passing {
    pub people: Facts<Place, Person>,
    pub attention: Facts<SensorId, Level>,
    pub devices: Facts<SensorId, ()>,
    pub filters: Facts<Box<str>, ()>,
    pub wills: Facts<Box<str>, Testament>,
}

impl Passing {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            people: Facts::new(me, PEOPLE),
            attention: Facts::new(me, SENSORS),
            devices: Facts::new(me, SENSORS),
            filters: Facts::new(me, FILTERS),
            wills: Facts::in_parts_of(me, WILLS, WILLS_PART),
        }
    }

    /// What a peer is still to be told, as far as it goes into one message.
    pub(crate) fn news(&self, cursor: &mut Cursor) -> Option<News> {
        let news = News {
            people: self.people.own().news(&mut cursor.people),
            attention: self.attention.own().news(&mut cursor.attention),
            devices: self.devices.own().news(&mut cursor.devices),
            filters: self.filters.own().news(&mut cursor.filters),
            wills: self.wills.own().news(&mut cursor.wills),
        };
        let any = news.people.is_some()
            || news.attention.is_some()
            || news.devices.is_some()
            || news.filters.is_some()
            || news.wills.is_some();
        any.then_some(news)
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
            filters: heard(&mut self.filters, node, news.filters)?,
            wills: heard(&mut self.wills, node, news.wills)?,
        })
    }

    /// A link with a peer is open.
    pub(crate) fn linked(&mut self, node: NodeId) -> Changed {
        Changed {
            people: self.people.linked(node),
            attention: self.attention.linked(node),
            devices: self.devices.linked(node),
            filters: self.filters.linked(node),
            wills: self.wills.linked(node),
        }
    }

    /// The link with a peer is over.
    pub(crate) fn unlinked(&mut self, node: NodeId) -> Changed {
        Changed {
            people: self.people.unlinked(node),
            attention: self.attention.unlinked(node),
            devices: self.devices.unlinked(node),
            filters: self.filters.unlinked(node),
            wills: self.wills.unlinked(node),
        }
    }
}

#[cfg(test)]
mod tests;
