//! A node in one of its runs: what a crash takes. It does for the replica what the store does: joins samples into
//! rings, seals and commits frames and writes checkpoints (`commits`), reads the disk for peers (`exports`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use self::commits::{Checkpoint, Committing};
use super::Rule;
use super::disk::{Answer, Disk, Sealed, column, decode, samples};
use super::plan::Plan;
use super::said::{Said, raise};
use super::witness::Ack;
use crate::clock::{Stamp, author};
use crate::config::Policy;
use crate::disk::chunks;
use crate::disk::recover::{descriptor_operations, series_names};
use crate::model::ids::{Origin, Partition, SensorId, SeriesId};
use crate::model::time::SampleTime;
use crate::model::value::{Shape, ValueRef, Values};
use crate::registry::TopicOperation;
use crate::registry::request::{Asked, RoomError};
use crate::registry::retained::{RetainError, Retained};
use crate::registry::room::RoomOperation;
use crate::registry::rooms::Rooms;
use crate::registry::{Operation, SensorOperation};
use crate::replica::fold::Fold;
use crate::replica::frame::{Block, Body, Run as Samples, RunWriter};
use crate::replica::message::{Coverage, Piece};
use crate::replica::state::{Replica, Taken};
use crate::ring::{Ring, Stamps};

mod commits;
mod exports;

type Mark = (Partition, Origin, u64);

/// Samples of a series that wait for the next frame.
#[derive(Debug)]
struct Open {
    /// Runs that a clear ended: what comes behind it has later stamps.
    ended: Vec<u8>,
    run: RunWriter,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Promise {
    /// The sample of this number, taken with this acknowledgement to come.
    Sample(usize, Ack),
    /// The clear of this number, heard at this time.
    Clear(usize, u64),
    /// The change of a room of this number, heard at this time.
    Room(usize, u64),
    /// The same of a retained message.
    Retained(usize, u64),
}

/// A run of a node.
#[derive(Debug)]
pub(super) struct Run {
    pub number: u64,
    pub origin: Origin,
    pub replica: Replica,
    pub rings: Vec<Ring>,
    pub said: Said,
    pub rooms: Rooms,
    pub retained: Retained,
    pub series: BTreeSet<usize>,
    named: BTreeSet<usize>,
    open: BTreeMap<usize, Open>,
    next_stamps: BTreeMap<usize, u64>,
    operations: Vec<Operation>,
    taken: Vec<Taken>,
    /// What was sealed since the last commit began.
    sealed: Vec<Sealed>,
    marks: Vec<Mark>,
    /// Own frames that were sealed, for the history.
    pub made: Vec<Bytes>,
    committing: Option<Committing>,
    /// A commit, or the end of one, is to come.
    pub busy: bool,
    /// A seal between commits is to come.
    pub sealing: bool,
    next_commit: u64,
    /// The last own frame that was trimmed.
    floor: u64,
    checkpoint: Option<Checkpoint>,
    adopting: Option<Coverage>,
    folding: Option<Fold>,
    clock: u64,
    /// What waits for the frame that is open, and for those that are sealed.
    pub waiting_open: Vec<Promise>,
    pub waiting: BTreeMap<u64, Vec<Promise>>,
    /// Samples that came after the clear that they are older than.
    pub kept_out: u64,
    broken: Option<Rule>,
}

impl Run {
    pub(super) fn new(
        number: u64,
        start: u64,
        disk: &Disk,
        plan: &Plan,
        broken: Option<Rule>,
    ) -> Result<Self, String> {
        let mut found = disk.recover(plan)?;
        if broken == Some(Rule::ClearLasts) {
            found.rings.iter_mut().for_each(forget_clear);
        }
        found.rooms.forgetful = broken == Some(Rule::DeletionLasts);
        found.retained.forgetful = broken == Some(Rule::RemovalLasts);
        let origin = Origin { node: disk.node, start };
        let Policy { ack_copies, min_copies } = plan.policy;
        let mut replica = Replica::new(origin, Policy { ack_copies, min_copies }, found.versions, true);
        replica.gaps_allowed = broken == Some(Rule::NoGaps);
        replica.unlike_folds = broken == Some(Rule::FoldedAlike);
        replica.set_closed(plan.closed);
        Ok(Self {
            number,
            origin,
            replica,
            rings: found.rings,
            said: found.said,
            rooms: found.rooms,
            retained: found.retained,
            series: found.series,
            named: BTreeSet::new(),
            open: BTreeMap::new(),
            next_stamps: BTreeMap::new(),
            operations: Vec::new(),
            taken: Vec::new(),
            sealed: Vec::new(),
            marks: Vec::new(),
            made: Vec::new(),
            committing: None,
            busy: false,
            sealing: false,
            next_commit: disk.commit + 1,
            floor: 0,
            checkpoint: None,
            adopting: None,
            folding: None,
            clock: found.stamp,
            waiting_open: Vec::new(),
            waiting: BTreeMap::new(),
            kept_out: 0,
            broken,
        })
    }

    /// Takes a sample from a client, and returns its stamp. `now` is what the node's clock shows.
    pub(super) fn append(&mut self, topic: usize, time: i64, value: f64, now: u64) -> Stamp {
        let floor = self.next_stamps.get(&topic).copied().unwrap_or(0);
        let fresh = now.max(self.clock + 1).max(floor);
        let new = || Open { ended: Vec::new(), run: RunWriter::new(fresh, 1) };
        let writer = &mut self.open.entry(topic).or_insert_with(new).run;
        let stamp = Stamp { time: writer.next_stamp(), author: author(self.origin) };
        self.clock = self.clock.max(stamp.time);
        writer.push(SampleTime(time), ValueRef::Numbers(&[value]));
        self.series.insert(topic);
        let values = Values::Numbers { channels: 1, flat: vec![value] };
        let one = crate::ring::Samples { times: vec![SampleTime(time)], values };
        self.rings[topic].join(&one, &Stamps::From(stamp), &mut Vec::new());
        stamp
    }

    /// Raises the bound of a ring.
    pub(super) fn raise_keep(&mut self, topic: usize, keep: usize, plan: &Plan, now: u64) {
        self.clock = now.max(self.clock + 1);
        let stamp = Stamp { time: self.clock, author: author(self.origin) };
        let operation = raise(plan, topic, keep, stamp);
        self.apply(plan, &operation);
        self.operations.push(operation.into());
    }

    /// Clears a sensor, with a stamp above all that is held of it, and returns the stamp.
    pub(super) fn clear(&mut self, sensor: &SensorId, plan: &Plan, now: u64) -> Stamp {
        let next = |topic: usize| self.open.get(&topic).map_or(0, |open| open.run.next_stamp());
        let held = plan.of(sensor).map(|topic| self.rings[topic].highest_stamp().max(next(topic)));
        let held = held.max().unwrap_or(0).max(self.said.of(plan, sensor).highest_stamp());
        let above = if self.broken == Some(Rule::ClearAboveAll) { 0 } else { held.max(self.clock) + 1 };
        let stamp = Stamp { time: now.max(above), author: author(self.origin) };
        let operation = SensorOperation::clear(sensor.clone(), stamp);
        self.apply(plan, &operation);
        self.operations.push(operation.into());
        stamp
    }

    /// Does to rooms what is asked, if it may be.
    pub(super) fn change_rooms(
        &mut self,
        now: u64,
        judge: impl FnOnce(&Rooms, Asked) -> Result<Vec<RoomOperation>, RoomError>,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        self.clock = now.max(self.clock + 1);
        let stamp = Stamp { time: self.clock, author: author(self.origin) };
        let operations = judge(&self.rooms, Asked { origin: self.origin, stamp })?;
        for operation in &operations {
            self.rooms.apply(operation.clone());
            self.operations.push(operation.clone().into());
        }
        Ok(operations)
    }

    /// The same with retained messages.
    pub(super) fn change_retained(
        &mut self,
        now: u64,
        judge: impl FnOnce(&Retained, Asked) -> Result<Vec<TopicOperation>, RetainError>,
    ) -> Result<Vec<TopicOperation>, RetainError> {
        self.clock = now.max(self.clock + 1);
        let stamp = Stamp { time: self.clock, author: author(self.origin) };
        let operations = judge(&self.retained, Asked { origin: self.origin, stamp })?;
        for operation in &operations {
            self.retained.apply(operation.clone());
            self.operations.push(operation.clone().into());
        }
        Ok(operations)
    }

    fn operate(&mut self, plan: &Plan, operation: &Operation) {
        self.clock = operation.stamp().time.max(self.clock);
        match operation {
            Operation::Sensor(operation) => self.apply(plan, operation),
            Operation::Room(operation) => {
                self.rooms.apply(operation.clone());
            }
            Operation::Topic(operation) => {
                self.retained.apply(operation.clone());
            }
        }
    }

    fn apply(&mut self, plan: &Plan, operation: &SensorOperation) {
        if !self.said.hear(plan, operation) {
            return;
        }
        self.clock = operation.stamp.time.max(self.clock);
        for topic in plan.of(&operation.sensor) {
            if operation.clears() {
                self.clear_series(topic, plan, operation.stamp);
            }
            let keep = self.said.keep(plan, topic);
            if keep != self.rings[topic].keep() {
                self.rings[topic].set_keep(keep);
            }
        }
    }

    fn clear_series(&mut self, topic: usize, plan: &Plan, stamp: Stamp) {
        self.rings[topic].clear(stamp);
        if self.broken == Some(Rule::ClearLasts) {
            forget_clear(&mut self.rings[topic]);
        }
        // What is sent from here on is newer, whatever the clock shows.
        let next = self.next_stamps.entry(topic).or_insert(0);
        *next = (*next).max(stamp.time + 1);
        if let Some(Open { ended, run }) = self.open.get_mut(&topic) {
            let next = run.next_stamp().max(*next);
            std::mem::replace(run, RunWriter::new(next, 1)).finish(plan.topics[topic].id, ended);
        }
        self.named.remove(&topic);
    }

    /// Takes blocks of a peer: they are in memory, and in the next commit.
    pub(super) fn take(&mut self, taken: Taken, plan: &Plan) -> Result<(), String> {
        self.join(&taken.blocks, plan)?;
        self.taken.push(taken);
        Ok(())
    }

    fn join(&mut self, blocks: &[Block], plan: &Plan) -> Result<(), String> {
        for block in blocks {
            match &block.body {
                Body::Registry(operations) => {
                    operations.iter().for_each(|operation| self.operate(plan, operation));
                }
                Body::Samples { names, runs } => {
                    let known = names.iter().filter_map(|name| plan.by_name(&name.sensor, &name.attribute));
                    self.series.extend(known);
                    for Samples { series, stamp, samples } in runs {
                        let topic = plan.by_id(*series).filter(|topic| self.series.contains(topic));
                        let topic = topic.ok_or(format!("samples of {series:?} came before its names"))?;
                        self.clock = (stamp.time + samples.times.len() as u64).max(self.clock);
                        let joined = self.rings[topic].join(samples, &Stamps::From(*stamp), &mut Vec::new());
                        self.kept_out += joined.cleared as u64;
                    }
                }
            }
        }
        Ok(())
    }

    /// Joins what a peer read for a snapshot or a scrub.
    pub(super) fn join_piece(&mut self, piece: &Piece, plan: &Plan) -> Result<(), String> {
        let unreadable = |error| format!("a record of a piece cannot be read: {error}");
        for record in &piece.series {
            let (sensor, attribute, _) = series_names(record).map_err(unreadable)?;
            self.series.extend(plan.by_name(&sensor, &attribute));
        }
        for record in &piece.descriptors {
            let operations = descriptor_operations(record).map_err(unreadable)?;
            operations.iter().for_each(|operation| {
                self.log_clear(operation);
                self.operate(plan, operation);
            });
        }
        for (id, record) in &piece.chunks {
            let (samples, stamps) = chunks::decode(record).map_err(unreadable)?;
            let topic = plan.by_id(SeriesId(id.to_be_bytes()));
            let topic = topic.filter(|topic| self.series.contains(topic));
            let topic = topic.ok_or(format!("chunks of {id:x} came before its names"))?;
            let joined = self.rings[topic].join(&samples, &stamps, &mut Vec::new());
            self.kept_out += joined.cleared as u64;
            self.clock = self.rings[topic].highest_stamp().max(self.clock);
        }
        for record in &piece.frames {
            let frame = decode(record)?;
            for block in &frame.blocks {
                if let Body::Registry(operations) = &block.body {
                    operations.iter().for_each(|operation| self.log_clear(operation));
                }
            }
            self.join(&frame.blocks, plan)?;
        }
        Ok(())
    }

    /// A clear that comes in a piece goes into the log before what is taken behind it.
    fn log_clear(&mut self, operation: &Operation) {
        if let Operation::Sensor(said) = operation
            && said.clears()
            && self.said.cleared(&said.sensor).is_none_or(|cleared| cleared < said.stamp)
        {
            self.operations.push(operation.clone());
        }
    }

    /// Whether memory holds what no frame has yet.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty() || !self.operations.is_empty()
    }

    /// What it would answer.
    pub(super) fn answer(&self) -> Answer {
        let (rooms, retained) = (self.rooms.clone(), self.retained.clone());
        Answer { rings: self.rings.clone(), rooms, retained }
    }
}

/// Makes a ring one that was never cleared.
fn forget_clear(ring: &mut Ring) {
    let (samples, stamps) = samples(&column(ring));
    *ring = Ring::new(ring.keep(), Shape::Numbers(1));
    ring.join(&samples, &Stamps::Each(stamps), &mut Vec::new());
}
