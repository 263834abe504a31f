//! What a run is made of: how many nodes, which series, how nasty the network. All of it follows from the seed.

use super::dice::Dice;
use crate::config::Policy;
use crate::model::ids::{Attribute, Partition, SensorId, SeriesId};
use crate::model::kind::Kind;
use crate::replica::frame::Name;

/// A millisecond of virtual time, which counts microseconds.
pub(super) const MS: u64 = 1000;
/// A second of it.
pub(super) const SECOND: u64 = 1000 * MS;

/// One series.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub name: Name,
    pub id: SeriesId,
    pub partition: Partition,
    /// Samples kept at first; it may be raised.
    pub keep: usize,
}

/// How links treat messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// In order and whole, like TCP, until the link breaks.
    Stream,
    /// Each by itself: some are lost, doubled, or overtaken; per thousand.
    Datagrams { lost: u64, doubled: u64 },
}

/// The plan of one run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub nodes: usize,
    pub topics: Vec<Topic>,
    pub policy: Policy,
    pub wire: Wire,
    /// Messages take up to this long.
    pub delay: u64,
    /// Commits take up to this long.
    pub commit: u64,
    /// Time between samples, on average.
    pub pause: u64,
    /// Time between faults, on average.
    pub calm: u64,
    /// When faults end.
    pub end: u64,
    /// Closed origins that a vector may have before they are folded.
    pub closed: usize,
    /// Operators clear sensors. Where they do not, rings differ at equal vectors for fewer reasons.
    pub clears: bool,
    /// Operators change rooms. Where they do not, fewer commits come between the rarer faults.
    pub rooms: bool,
    /// Clients retain messages.
    pub retained: bool,
}

impl Plan {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let nodes = [3, 3, 3, 3, 4, 5, 7][dice.index(7)];
        let sensors = dice.between(1, 3);
        let attributes = dice.between(1, 2);
        let topics =
            (0..sensors).flat_map(|sensor| (0..attributes).map(move |attribute| (sensor, attribute)));
        let topics = topics.map(|(sensor, attribute)| {
            // Short rings evict all the time; in long ones nothing that was lost is forgotten.
            let keep = if dice.chance(500) { dice.between(2, 6) } else { dice.between(10, 40) } as usize;
            topic(&format!("sensor-{sensor}"), &format!("attribute-{attribute}"), keep)
        });
        let topics = topics.collect();
        let wire = match dice.index(3) {
            0 => Wire::Datagrams { lost: dice.between(5, 150), doubled: dice.between(5, 150) },
            _ => Wire::Stream,
        };
        let ack_copies = [2, 2, 2, 2, 2, 3, 1][dice.index(7)];
        let clears_and_closed =
            [(true, 1), (false, 1), (true, 1), (false, 1), (true, 2), (false, 2), (true, 16), (false, 16)];
        let (clears, closed) = clears_and_closed[dice.index(8)];
        Self {
            nodes,
            topics,
            policy: Policy { ack_copies, min_copies: if dice.chance(100) { ack_copies.min(2) } else { 1 } },
            wire,
            delay: [MS, 5 * MS, 30 * MS, 150 * MS][dice.index(4)],
            commit: [2 * MS, 10 * MS, 60 * MS, 400 * MS][dice.index(4)],
            pause: dice.between(30, 160) * MS,
            calm: dice.between(200, 1200) * MS,
            end: dice.between(8, 20) * SECOND,
            clears,
            closed,
            rooms: false,
            retained: false,
        }
    }

    /// The series with this id.
    pub(super) fn by_id(&self, id: SeriesId) -> Option<usize> {
        self.topics.iter().position(|topic| topic.id == id)
    }

    /// The series with these names.
    pub(super) fn by_name(&self, sensor: &SensorId, attribute: &Attribute) -> Option<usize> {
        self.topics
            .iter()
            .position(|topic| topic.name.sensor == *sensor && topic.name.attribute == *attribute)
    }

    /// The series of a sensor.
    pub(super) fn of(&self, sensor: &SensorId) -> impl Iterator<Item = usize> {
        (0..self.topics.len()).filter(|topic| self.topics[*topic].name.sensor == *sensor)
    }

    /// The partitions of all series, each once.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        let mut partitions: Vec<_> = self.topics.iter().map(|topic| topic.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }
}

fn topic(sensor: &str, attribute: &str, keep: usize) -> Topic {
    let sensor = SensorId::new(sensor).expect("letters, a dash and a digit");
    let attribute = Attribute::new(attribute).expect("letters, a dash and a digit");
    let (id, partition) = (SeriesId::of(&sensor, &attribute), Partition::of(&sensor));
    Topic { name: Name { sensor, attribute, kind: Kind::Number }, id, partition, keep }
}
