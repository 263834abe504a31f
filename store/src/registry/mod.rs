//! The lasting part of the registry: what is said of sensors (`descriptors`), rooms (`room`, `rooms`), and retained messages
//! (`retained`), as operations of `crdts` types. Values without I/O, locks or a clock: the store and the simulation run the same code.
//!
//! Operations travel and are logged as blocks of a partition of their own, in the order in which their origin made
//! them. Invariant: whoever has applied the same operations holds the same, in whatever order those of different
//! origins came, and however often; and one that does not follow on those of its origin before it changes nothing.

pub mod descriptors;
pub mod request;
pub mod retained;
pub mod room;
pub mod rooms;
#[cfg(test)]
mod tests;

use crdts::{CmRDT, LWWReg};

pub use self::descriptors::{AttributeDescription, Description, Keeps, SensorOperation};
pub use self::retained::TopicOperation;
pub use self::room::RoomOperation;
use crate::clock::Stamp;
use crate::codec::{Malformed, Reader};

/// Stands where an operation on a sensor has the length of its id, which is never 0.
const OF_ROOM: u8 = 0;
/// Stands where an operation on a room has the length of its id, which is never 0.
const OF_TOPIC: [u8; 2] = [OF_ROOM, 0];

/// A change of the registry, as it stands in a block of its partition and in records of the disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Of what is said of a sensor.
    Sensor(SensorOperation),
    /// Of a room.
    Room(RoomOperation),
    /// Of a retained message.
    Topic(TopicOperation),
}

impl Operation {
    /// When it was written.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Sensor(operation) => operation.stamp,
            Self::Room(operation) => operation.stamp,
            Self::Topic(operation) => operation.stamp,
        }
    }

    /// Appends the operation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sensor(operation) => operation.encode(out),
            Self::Room(operation) => {
                out.push(OF_ROOM);
                operation.encode(out);
            }
            Self::Topic(operation) => {
                out.extend(OF_TOPIC);
                operation.encode(out);
            }
        }
    }

    /// Reads an operation back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.0.starts_with(&OF_TOPIC) {
            reader.bytes(OF_TOPIC.len(), "an operation on a topic")?;
            return TopicOperation::decode(reader).map(Self::Topic);
        }
        if reader.0.first() == Some(&OF_ROOM) {
            reader.byte("an operation on a room")?;
            return RoomOperation::decode(reader).map(Self::Room);
        }
        SensorOperation::decode(reader).map(Self::Sensor)
    }
}

impl From<SensorOperation> for Operation {
    fn from(operation: SensorOperation) -> Self {
        Self::Sensor(operation)
    }
}

impl From<RoomOperation> for Operation {
    fn from(operation: RoomOperation) -> Self {
        Self::Room(operation)
    }
}

impl From<TopicOperation> for Operation {
    fn from(operation: TopicOperation) -> Self {
        Self::Topic(operation)
    }
}

/// A register of the registry.
pub type Register<T> = LWWReg<Option<T>, Stamp>;

/// An empty register: any write is newer.
pub fn unset<T>() -> Register<T> {
    LWWReg { val: None, marker: Stamp { time: 0, author: 0 } }
}

/// Writes `value` where it is newer than what is held. An equal stamp with another value (two origins that share
/// their 32 bits) is refused by `validate_op`, and the held value stays.
pub fn write<T: Clone + PartialEq>(register: &mut Register<T>, value: T, stamp: Stamp) {
    join(register, LWWReg { val: Some(value), marker: stamp });
}

/// Joins what another register holds.
pub fn join<T: Clone + PartialEq>(register: &mut Register<T>, other: Register<T>) {
    if register.validate_op(&other).is_ok() {
        register.apply(other);
    }
}

/// Empties a register of what is not newer than `stamp`.
pub fn void<T>(register: &mut Register<T>, stamp: Stamp) {
    if register.marker <= stamp {
        *register = unset();
    }
}
