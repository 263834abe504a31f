//! A disk: what a crash leaves. Its tables are those of the data file; a transaction is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::plan::Plan;
use super::said::Said;
use crate::clock::Stamp;
use crate::model::ids::{NodeId, Origin};
use crate::model::time::SampleTime;
use crate::model::value::{ValueRef, Values};
use crate::registry::Operation;
use crate::registry::retained::Retained;
use crate::registry::rooms::Rooms;
use crate::replica::frame::{Body, Frame, Run};
use crate::replica::version::{FRAMES, Offer, VersionVector};
use crate::ring::{Ring, Samples, Stamps};

/// Samples of one series at rest, by time.
pub(super) type Column = BTreeMap<i64, (Stamp, f64)>;

/// Copies a ring.
pub(super) fn column(ring: &Ring) -> Column {
    let all = 0..ring.len();
    let (samples, stamps) = (ring.copy(all.clone()), ring.copy_stamps(all.clone()));
    let number = |index| match samples.values.get(index) {
        ValueRef::Numbers(numbers) => numbers[0],
        ValueRef::Text(_) => f64::NAN,
    };
    all.map(|index| (samples.times[index].0, (stamps[index], number(index)))).collect()
}

/// The samples of a column, and their stamps.
pub(super) fn samples(column: &Column) -> (Samples, Vec<Stamp>) {
    let times = column.keys().copied().map(SampleTime).collect();
    let flat = column.values().map(|(_, value)| *value).collect();
    let stamps = column.values().map(|(stamp, _)| *stamp).collect();
    (Samples { times, values: Values::Numbers { channels: 1, flat } }, stamps)
}

/// A frame, and what came from others before it was sealed.
#[derive(Debug)]
pub(super) struct Sealed {
    pub number: u64,
    pub own: Option<Bytes>,
    /// Frames, and whether all frames of their origin up to them are held.
    pub taken: Vec<(bool, Bytes)>,
}

/// What one commit makes durable.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub sealed: Vec<Sealed>,
    /// Series whose ring was copied, with the names and the bound that it has.
    pub chunks: Vec<(usize, Column)>,
    pub series: BTreeSet<usize>,
    pub said: Said,
    pub rooms: Option<Rooms>,
    pub retained: Option<Retained>,
    /// The end of a checkpoint: what is durable with it, and the first commit whose frames stay.
    pub versions: Option<(VersionVector, u64)>,
    /// What is folded in the versions.
    pub folded: Vec<Origin>,
}

/// What a node keeps when it is killed.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub node: NodeId,
    /// (commit, index) → whole, frame. Index 0 is the node's own.
    pub log: BTreeMap<(u64, usize), (bool, Bytes)>,
    pub versions: VersionVector,
    /// The commit up to which the log's blocks of an origin count no more.
    pub folded: BTreeMap<Origin, u64>,
    pub series: BTreeSet<usize>,
    pub said: Said,
    pub rooms: Rooms,
    pub retained: Retained,
    pub chunks: BTreeMap<usize, Column>,
    /// The last commit.
    pub commit: u64,
}

/// What a disk says when a node starts.
#[derive(Debug)]
pub(super) struct Recovered {
    pub versions: VersionVector,
    pub rings: Vec<Ring>,
    pub said: Said,
    pub rooms: Rooms,
    pub retained: Retained,
    pub series: BTreeSet<usize>,
    pub stamp: u64,
}

/// What a disk would answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub rings: Vec<Ring>,
    pub rooms: Rooms,
    pub retained: Retained,
}

impl Disk {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            log: BTreeMap::new(),
            versions: VersionVector::default(),
            folded: BTreeMap::new(),
            series: BTreeSet::new(),
            said: Said::default(),
            rooms: Rooms::default(),
            retained: Retained::default(),
            chunks: BTreeMap::new(),
            commit: 0,
        }
    }

    pub(super) fn apply(&mut self, transaction: Transaction) {
        let Transaction { sealed, chunks, series, said, rooms, retained, versions, folded } = transaction;
        for Sealed { number, own, taken } in sealed {
            self.commit = number;
            if let Some(own) = own {
                self.log.insert((number, 0), (true, own));
            }
            for (index, frame) in (1..).zip(taken) {
                self.log.insert((number, index), frame);
            }
        }
        let number = self.commit;
        self.chunks.extend(chunks);
        self.series.extend(series);
        self.said.extend(said);
        if let Some(rooms) = rooms {
            self.rooms = rooms;
        }
        if let Some(retained) = retained {
            self.retained = retained;
        }
        if let Some((versions, first)) = versions {
            let oldest = self.log.keys().next().map_or(number, |key| key.0);
            self.folded.retain(|_, commit| *commit >= oldest);
            self.folded.extend(folded.into_iter().map(|origin| (origin, number)));
            self.versions = versions;
            self.log = self.log.split_off(&(first, 0));
        }
    }

    /// What is durable: the trimmed part of the log, and what the log has.
    pub(super) fn durable(&self) -> Result<VersionVector, String> {
        let mut versions = self.versions.clone();
        for (key, (whole, record)) in &self.log {
            let frame = decode(record)?;
            if self.folded.get(&frame.origin).is_some_and(|folded| key.0 <= *folded) {
                continue;
            }
            for block in &frame.blocks {
                if let Offer::Gap(first) = versions.offer(block.partition, frame.origin, block.number) {
                    let place = (block.partition, frame.origin, block.number);
                    return Err(format!("the log has {place:?} at {key:?} but lacks block {first}"));
                }
                versions.advance(block.partition, frame.origin, block.number);
            }
            if *whole {
                versions.advance(FRAMES, frame.origin, frame.number);
            }
        }
        Ok(versions)
    }

    /// What a node finds at its start. Bounds and clears of rings come before samples.
    pub(super) fn recover(&self, plan: &Plan) -> Result<Recovered, String> {
        let (mut said, mut series, mut rooms) = (self.said.clone(), self.series.clone(), self.rooms.clone());
        let mut retained = self.retained.clone();
        let mut stamp = said.highest_stamp();
        let frames = self.log.values().map(|(_, record)| decode(record)).collect::<Result<Vec<_>, _>>()?;
        for frame in &frames {
            for block in &frame.blocks {
                match &block.body {
                    Body::Registry(operations) => operations.iter().for_each(|operation| {
                        stamp = operation.stamp().time.max(stamp);
                        match operation {
                            Operation::Sensor(operation) => said.hear(plan, operation),
                            Operation::Room(operation) => rooms.apply(operation.clone()),
                            Operation::Topic(operation) => retained.apply(operation.clone()),
                        };
                    }),
                    Body::Samples { names, .. } => series
                        .extend(names.iter().filter_map(|name| plan.by_name(&name.sensor, &name.attribute))),
                }
            }
        }
        let mut rings: Vec<_> = (0..plan.topics.len()).map(|topic| said.empty_ring(plan, topic)).collect();
        for (topic, column) in &self.chunks {
            if !series.contains(topic) && !column.is_empty() {
                return Err(format!("chunks of series {topic}, which has no names"));
            }
            let (samples, stamps) = samples(column);
            rings[*topic].join(&samples, &Stamps::Each(stamps), &mut Vec::new());
        }
        for frame in frames {
            for block in frame.blocks {
                let Body::Samples { runs, .. } = block.body else { continue };
                for Run { series: id, stamp: first, samples } in runs {
                    let topic = plan.by_id(id).filter(|topic| series.contains(topic));
                    let topic = topic.ok_or(format!("the log has samples of {id:?}, which has no names"))?;
                    stamp = (first.time + samples.times.len() as u64).max(stamp);
                    rings[topic].join(&samples, &Stamps::From(first), &mut Vec::new());
                }
            }
        }
        let stamp = rings.iter().map(Ring::highest_stamp).fold(stamp, u64::max);
        Ok(Recovered { versions: self.durable()?, rings, said, rooms, retained, series, stamp })
    }

    /// The frames of an origin, in order.
    pub(super) fn frames_of(&self, origin: Origin) -> impl Iterator<Item = (Frame, &Bytes)> {
        let frames = self.log.values().filter_map(|(_, record)| Some((decode(record).ok()?, record)));
        frames.filter(move |(frame, _)| frame.origin == origin)
    }

    /// The first own frame of this run behind number `previous`.
    pub(super) fn own_after(&self, previous: u64, origin: Origin) -> Option<(u64, Bytes)> {
        let mut own = self.log.range((previous + 1, 0)..).filter(|((_, index), _)| *index == 0);
        own.find_map(|(_, (_, record))| {
            let frame = decode(record).ok()?;
            (frame.origin == origin).then(|| (frame.number, record.clone()))
        })
    }
}

pub(super) fn decode(record: &[u8]) -> Result<Frame, String> {
    Frame::decode(record).map_err(|error| format!("a frame cannot be read: {error}"))
}
