//! Retained messages: the last one of each topic, which whoever subscribes later gets. A register by topic, marked with
//! the stamp; a removal is a register without a message.
//!
//! | at once on two sides | afterwards |
//! |---|---|
//! | two messages on a topic | the later one (`LWWReg`, marked with the stamp) |
//! | a message, and the removal of the one before | whichever is later |
//! | both sides fill up | what was taken stays |
//!
//! What a message means is its senders' business: here it is bytes, and when it is to be forgotten.
//!
//! Bounds: [`MAX_RETAINED`] messages of [`MAX_MESSAGE_BYTES`]; one more is refused. [`MAX_REMOVED`] removals are
//! remembered, the last ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crdts::LWWReg;
use serde::{Deserialize, Serialize};

use super::request::Asked;
use super::{Operation, Register, join, unset};
use crate::clock::Stamp;
use crate::codec::{Malformed, Reader, checksum, seal};
use crate::model::ids::Origin;
use crate::model::time::SampleTime;

/// Topics with a message, of a cluster.
pub const MAX_RETAINED: usize = 10_000;
/// Longest message, in bytes, with all that is said about it.
pub const MAX_MESSAGE_BYTES: usize = 12 << 10;
/// Longest topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 1024;
/// Topics of which it is remembered that their message was removed. Before so many others, it could come back with a
/// node that has been away all the while.
pub const MAX_REMOVED: usize = 20_000;
/// Forgotten messages that make room for one that finds none.
const SWEPT_AT_ONCE: usize = 64;
/// Numbers of topics begin behind those of rooms.
const NUMBERS: u128 = 1 << 80;

/// The number of a topic: where hashes of rings are compared, it stands among those of series and rooms. It decides
/// which register a topic has: should two share one (2⁻⁸⁰), the later message is there.
pub type Number = u128;

/// The number of a topic.
pub fn number(topic: &str) -> Number {
    let mut bytes = [0; 16];
    bytes[6..].copy_from_slice(&blake3::hash(topic.as_bytes()).as_bytes()[..10]);
    NUMBERS | u128::from_be_bytes(bytes)
}

/// Whether a number is that of a topic: a series has it by a chance of 2⁻⁴⁷.
pub fn is_number(number: Number) -> bool {
    number >> 80 == 1
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// As its senders write it.
    pub message: Bytes,
    /// When it is to be forgotten.
    pub expires: Option<SampleTime>,
}

/// A topic has another message, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOperation {
    /// Which.
    pub topic: Box<str>,
    /// When it was written.
    pub stamp: Stamp,
    /// `None` removes what was there.
    pub kept: Option<Kept>,
}

impl TopicOperation {
    /// Appends the operation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bytes = postcard::to_stdvec(self);
        out.extend(bytes.expect("a vector grows, and every length is known before its content"));
    }

    /// Reads an operation back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let decoded = postcard::take_from_bytes(reader.0);
        let (operation, rest) = decoded.map_err(|_| reader.malformed("an operation on a topic"))?;
        reader.0 = rest;
        Ok(operation)
    }
}

/// Why a message is not retained. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetainError {
    /// The cluster is full.
    #[error(
        "{MAX_RETAINED} topics have a retained message already; publish an empty one to a topic to free it"
    )]
    TooMany,
    /// It is too long.
    #[error("a message of {0} bytes with its properties; at most {MAX_MESSAGE_BYTES} are retained")]
    TooLong(usize),
    /// Its topic is too long.
    #[error("a topic of {0} bytes; at most {MAX_TOPIC_BYTES} are possible")]
    LongTopic(usize),
    /// There are nodes that would not understand it.
    #[error("node {0} does not know retained messages of other nodes yet: upgrade it first")]
    OlderNode(String),
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    topic: Box<str>,
    kept: Option<Kept>,
}

/// All retained messages, and the removals that are remembered.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    held: BTreeMap<Number, Register<Said>>,
    /// Removals among them, by age.
    removed: BTreeSet<(Stamp, Number)>,
    /// Those of which the disk lacks something.
    unsaved: BTreeSet<Number>,
    /// Forgets at once what was removed: a rule that the simulation breaks on purpose.
    #[cfg(feature = "sim")]
    pub forgetful: bool,
}

impl Retained {
    /// How many messages there are, those that are to be forgotten too.
    pub fn count(&self) -> usize {
        self.held.len() - self.removed.len()
    }

    /// Whether nothing was ever said of any topic.
    pub fn is_untouched(&self) -> bool {
        self.held.is_empty()
    }

    /// The message of a topic.
    pub fn get(&self, topic: &str) -> Option<&Kept> {
        let said = self.held.get(&number(topic))?.val.as_ref()?;
        said.kept.as_ref().filter(|_| *said.topic == *topic)
    }

    /// Every topic that has a message.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Kept)> {
        let said = self.held.values().filter_map(|register| register.val.as_ref());
        said.filter_map(|said| Some((&*said.topic, said.kept.as_ref()?)))
    }

    /// Applies an operation, of this node or of another. False when it is older than what is held.
    pub fn apply(&mut self, operation: TopicOperation) -> bool {
        let TopicOperation { topic, stamp, kept } = operation;
        let number = number(&topic);
        let register = self.held.entry(number).or_insert_with(unset);
        let (before, was_removed) = (register.marker, is_removed(register));
        join(register, LWWReg { val: Some(Said { topic, kept }), marker: stamp });
        if register.marker == before {
            if register.val.is_none() {
                self.held.remove(&number);
            }
            return false;
        }
        if was_removed {
            self.removed.remove(&(before, number));
        }
        if is_removed(register) {
            self.removed.insert((register.marker, number));
        }
        self.unsaved.insert(number);
        while self.removed.len() > self.remembers()
            && let Some((_, oldest)) = self.removed.pop_first()
        {
            self.held.remove(&oldest);
            self.unsaved.insert(oldest);
        }
        true
    }

    #[cfg(feature = "sim")]
    fn remembers(&self) -> usize {
        if self.forgetful { 0 } else { MAX_REMOVED }
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "with the feature `sim` it looks")]
    fn remembers(&self) -> usize {
        MAX_REMOVED
    }

    /// Judges what is asked of a topic and makes operations of it, stamped above what they replace. Where the bound is
    /// reached, messages that are to be forgotten by `now` make room.
    pub fn set(
        &self,
        topic: &str,
        kept: Option<Kept>,
        asked: Asked,
        now: SampleTime,
    ) -> Result<Vec<TopicOperation>, RetainError> {
        if topic.len() > MAX_TOPIC_BYTES {
            return Err(RetainError::LongTopic(topic.len()));
        }
        let operation = |topic: &str, held: Stamp, kept| {
            let time = asked.stamp.time.max(held.time.saturating_add(1));
            TopicOperation { topic: topic.into(), stamp: Stamp { time, ..asked.stamp }, kept }
        };
        let held = self.held.get(&number(topic));
        let marker = held.map_or(Stamp { time: 0, author: 0 }, |register| register.marker);
        let Some(kept) = kept else {
            // Of what nobody has heard there is nothing to remove.
            return Ok(held.map(|_| operation(topic, marker, None)).into_iter().collect());
        };
        if kept.message.len() > MAX_MESSAGE_BYTES {
            return Err(RetainError::TooLong(kept.message.len()));
        }
        let mut operations = Vec::new();
        if self.count() >= MAX_RETAINED && held.is_none_or(is_removed) {
            operations = self.sweep(asked.origin, now);
            if operations.is_empty() {
                return Err(RetainError::TooMany);
            }
        }
        operations.push(operation(topic, marker, Some(kept)));
        Ok(operations)
    }

    /// The message as it was at a moment that has passed; nothing when the topic has heard of later ones.
    pub fn set_as_of(
        &self,
        topic: &str,
        kept: Option<Kept>,
        stamp: Stamp,
        asked: Asked,
        now: SampleTime,
    ) -> Result<Vec<TopicOperation>, RetainError> {
        let mut operations = self.set(topic, kept, asked, now)?;
        if self.held.get(&number(topic)).is_some_and(|held| held.marker >= stamp) {
            return Ok(Vec::new());
        }
        if let Some(last) = operations.last_mut() {
            last.stamp = Stamp { time: stamp.time, ..asked.stamp };
        }
        Ok(operations)
    }

    /// Removes some of what is to be forgotten. The removals are hardly newer than what they remove: a message that
    /// somebody sends meanwhile stays.
    fn sweep(&self, origin: Origin, now: SampleTime) -> Vec<TopicOperation> {
        let over = |register: &&Register<Said>| {
            let kept = register.val.as_ref().and_then(|said| said.kept.as_ref());
            kept.and_then(|kept| kept.expires).is_some_and(|expires| expires <= now)
        };
        let author = crate::clock::author(origin);
        let removal = |register: &Register<Said>| {
            let stamp = Stamp { time: register.marker.time.saturating_add(1), author };
            let topic = register.val.as_ref()?.topic.clone();
            Some(TopicOperation { topic, stamp, kept: None })
        };
        self.held.values().filter(over).filter_map(removal).take(SWEPT_AT_ONCE).collect()
    }

    /// What is held of a topic, as a record of the disk; `None` when nothing is known of it.
    pub fn record(&self, number: Number) -> Option<Vec<u8>> {
        let register = self.held.get(&number)?;
        let Said { topic, kept } = register.val.clone()?;
        let mut record = Vec::new();
        Operation::Topic(TopicOperation { topic, stamp: register.marker, kept }).encode(&mut record);
        seal(&mut record);
        Some(record)
    }

    /// A topic of which the disk lacks something, and its record. It counts as saved.
    pub fn next_unsaved(&mut self) -> Option<(Number, Option<Vec<u8>>)> {
        let number = self.unsaved.pop_first()?;
        Some((number, self.record(number)))
    }

    /// What is held comes from the disk.
    pub fn set_saved(&mut self) {
        self.unsaved.clear();
    }

    /// What is held of topics behind `after`, as hashes: equal where two nodes hold the same.
    pub fn hashes(&self, after: Option<Number>, limit: usize) -> Vec<(Number, u64)> {
        let behind = self.held.range(after.map_or(0, |after| after.saturating_add(1))..);
        behind.take(limit).filter_map(|(number, _)| Some((*number, self.hash(*number)?))).collect()
    }

    /// A hash of what is held of a topic; `None` when nothing is.
    pub fn hash(&self, number: Number) -> Option<u64> {
        // A stamp has one message.
        let marker = self.held.get(&number)?.marker;
        let bytes = [&marker.time.to_le_bytes()[..], &marker.author.to_le_bytes()].concat();
        Some(u64::from_le_bytes(checksum(&bytes)))
    }

    /// Every topic of which something is known.
    #[cfg(any(test, feature = "sim"))]
    pub fn known(&self) -> impl Iterator<Item = Number> {
        self.held.keys().copied()
    }

    /// When what is held of a topic was written.
    #[cfg(any(test, feature = "sim"))]
    pub fn marker(&self, topic: &str) -> Option<Stamp> {
        self.held.get(&number(topic)).map(|register| register.marker)
    }
}

fn is_removed(register: &Register<Said>) -> bool {
    register.val.as_ref().is_some_and(|said| said.kept.is_none())
}

/// Two that hold the same answer alike; what the disk lacks is not of them.
impl PartialEq for Retained {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
    }
}

#[cfg(test)]
mod tests;
