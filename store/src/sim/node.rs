//! A node in one of its runs: what a crash takes. It does for the replica what the store does: joins samples into
//! rings, seals and commits frames, writes checkpoints, reads the disk for peers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Rule;
use super::disk::{Answer, Column, Disk, Sealed, Transaction, column, decode, samples};
use super::plan::Plan;
use super::said::{Said, raise};
use super::witness::Ack;
use crate::clock::{Stamp, author};
use crate::codec::{put_text, seal};
use crate::config::Policy;
use crate::disk::chunks;
use crate::disk::recover::{descriptor_operations, series_names};
use crate::model::ids::{NodeId, Origin, Partition, SensorId, SeriesId};
use crate::model::room::of_number;
use crate::model::time::SampleTime;
use crate::model::value::{Shape, ValueRef, Values};
use crate::registry::TopicOperation;
use crate::registry::request::{Asked, RoomError};
use crate::registry::retained::{RetainError, Retained};
use crate::registry::room::RoomOperation;
use crate::registry::rooms::Rooms;
use crate::registry::{Operation, SensorOperation};
use crate::replica::fold::Fold;
use crate::replica::frame::{Block, Body, FrameWriter, REGISTRY, Run as Samples, RunWriter, reduce};
use crate::replica::message::{Coverage, Message, Piece};
use crate::replica::state::{Effect, Replica, Taken};
use crate::replica::version::{BLOCKS, VersionVector};
use crate::ring::{Ring, Stamps};

/// Series that one commit of a checkpoint takes.
const SLICE: usize = 2;
/// Frames in one part of a snapshot.
const FRAMES_A_PART: usize = 4;

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

/// A checkpoint that is being written.
#[derive(Debug)]
struct Checkpoint {
    /// The first commit whose frames stay.
    first: u64,
    left: Vec<usize>,
    coverage: Option<Coverage>,
}

/// A commit that is on its way to the disk.
#[derive(Debug)]
struct Committing {
    transaction: Transaction,
    marks: Vec<Mark>,
    adopted: Option<Coverage>,
    folded: Option<Fold>,
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

    /// Whether the next commit has something to do.
    pub(super) fn has_work(&self) -> bool {
        self.committing.is_none()
            && (!self.open.is_empty()
                || !self.sealed.is_empty()
                || !self.operations.is_empty()
                || !self.taken.is_empty()
                || self.checkpoint.is_some()
                || self.adopting.is_some()
                || self.folding.is_some())
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

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_work() && self.committing.is_none()
    }

    /// Whether a commit is on its way.
    pub(super) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Begins a checkpoint, unless one is being written.
    pub(super) fn begin_checkpoint(&mut self, disk: &mut Disk) {
        if self.checkpoint.is_some() {
            return;
        }
        let coverage = self.adopting.take();
        self.checkpoint =
            Some(Checkpoint { first: self.next_commit, left: (0..self.rings.len()).collect(), coverage });
        if self.broken == Some(Rule::ChunksOfDurable) {
            disk.series.extend(&self.series);
            disk.chunks.extend(self.rings.iter().map(column).enumerate());
        }
    }

    /// A snapshot is here whole: it counts after the checkpoint that begins now.
    pub(super) fn adopt(&mut self, coverage: Coverage, disk: &mut Disk) -> Vec<Effect> {
        if self.broken == Some(Rule::SnapshotWhenDurable) {
            coverage.marks().for_each(|(partition, origin, last)| {
                disk.versions.advance(partition, origin, last);
            });
            return self.replica.adopted(&coverage);
        }
        self.adopting = Some(coverage);
        self.begin_checkpoint(disk);
        Vec::new()
    }

    /// Origins are folded: that counts with the next commit.
    pub(super) fn fold(&mut self, fold: Fold) -> Vec<Effect> {
        self.folding = Some(fold);
        Vec::new()
    }

    /// Seals what is open, and what came from others.
    pub(super) fn seal(&mut self, plan: &Plan) -> Vec<Effect> {
        let number = self.next_commit;
        self.next_commit += 1;
        let mut marks = Vec::new();
        let own = self.own_frame(number, plan, &mut marks);
        let mut effects = Vec::new();
        if let Some(frame) = &own {
            self.made.push(frame.clone());
            self.waiting.insert(number, std::mem::take(&mut self.waiting_open));
            effects = self.replica.sealed(number);
        }
        let taken = std::mem::take(&mut self.taken);
        marks.extend(taken.iter().flat_map(Taken::marks));
        let logged = taken.into_iter().filter(|taken| !taken.bytes.is_empty());
        let taken = logged.map(|taken| (taken.frame.is_some(), taken.bytes)).collect();
        self.marks.extend(marks);
        self.sealed.push(Sealed { number, own, taken });
        effects
    }

    /// Seals, and starts a commit of all that is sealed.
    pub(super) fn commit(&mut self, disk: &mut Disk, plan: &Plan) -> Vec<Effect> {
        if self.checkpoint.is_none() && self.adopting.is_some() {
            self.begin_checkpoint(disk);
        }
        let effects = self.seal(plan);
        let (sealed, marks) = (std::mem::take(&mut self.sealed), std::mem::take(&mut self.marks));
        let mut transaction = Transaction { sealed, ..Transaction::default() };
        let adopted = self.slice(disk, plan, &marks, &mut transaction);
        if let Some(fold) = &self.folding {
            transaction.versions.get_or_insert_with(|| (self.versions(&marks), 0));
            if self.broken != Some(Rule::FoldedInLog) {
                transaction.folded.clone_from(&fold.origins);
            }
        }
        let folded = self.folding.take();
        self.committing = Some(Committing { transaction, marks, adopted, folded });
        effects
    }

    /// The frame of what is open, if anything is.
    fn own_frame(&mut self, number: u64, plan: &Plan, marks: &mut Vec<Mark>) -> Option<Bytes> {
        let (open, operations) = (std::mem::take(&mut self.open), std::mem::take(&mut self.operations));
        if open.is_empty() && operations.is_empty() {
            return None;
        }
        let mut frame = FrameWriter::new(self.origin, number);
        if !operations.is_empty() {
            let block = self.replica.next_block(REGISTRY);
            marks.push((REGISTRY, self.origin, block));
            frame.registry(block, &operations);
        }
        for partition in plan.partitions() {
            let (mut names, mut runs) = (Vec::new(), Vec::new());
            let here = open.iter().filter(|(topic, _)| plan.topics[**topic].partition == partition);
            for (topic, Open { ended, run }) in here {
                if !self.named.contains(topic) {
                    names.push(plan.topics[*topic].name.clone());
                    // A clear asks for the names again, with samples that are newer than it.
                    if !run.is_empty() {
                        self.named.insert(*topic);
                    }
                }
                self.next_stamps.insert(*topic, run.next_stamp());
                runs.extend_from_slice(ended);
                run.finish(plan.topics[*topic].id, &mut runs);
            }
            if !runs.is_empty() {
                let block = self.replica.next_block(partition);
                marks.push((partition, self.origin, block));
                frame.samples(partition, block, &names, &runs);
            }
        }
        Some(frame.finish().into())
    }

    /// Adds a slice of the checkpoint to a transaction; returns what it makes count.
    fn slice(
        &mut self,
        disk: &mut Disk,
        plan: &Plan,
        marks: &[Mark],
        transaction: &mut Transaction,
    ) -> Option<Coverage> {
        let checkpoint = self.checkpoint.as_mut()?;
        if self.broken == Some(Rule::VersionsBehindLog) {
            disk.versions = self.replica.held().clone();
        }
        for topic in checkpoint.left.drain(..SLICE.min(checkpoint.left.len())) {
            transaction.chunks.push((topic, column(&self.rings[topic])));
            // What a clear took from a ring goes with the clear.
            transaction.said.extend(self.said.of(plan, &plan.topics[topic].name.sensor));
        }
        transaction.series.clone_from(&self.series);
        if !checkpoint.left.is_empty() {
            return None;
        }
        let Checkpoint { first, coverage, .. } = self.checkpoint.take()?;
        transaction.said.clone_from(&self.said);
        transaction.rooms = Some(self.rooms.clone());
        transaction.retained = Some(self.retained.clone());
        let mut versions = self.versions(marks);
        for (partition, origin, last) in coverage.iter().flat_map(Coverage::marks) {
            versions.advance(partition, origin, last);
        }
        transaction.versions = Some((versions, first));
        coverage
    }

    /// What is durable with the commit that begins.
    fn versions(&self, marks: &[Mark]) -> VersionVector {
        let mut versions = self.replica.durable().clone();
        self.folding.iter().for_each(|fold| drop(versions.fold(fold)));
        for (partition, origin, last) in marks.iter().copied() {
            versions.advance(partition, origin, last);
        }
        versions
    }

    /// The commit is on the disk.
    pub(super) fn committed(&mut self, disk: &mut Disk) -> Vec<Effect> {
        let Some(committing) = self.committing.take() else { return Vec::new() };
        let Committing { transaction, marks, adopted, folded } = committing;
        let own = transaction.sealed.iter().rev().find(|sealed| sealed.own.is_some());
        let own = own.map(|sealed| sealed.number);
        if let Some((_, first)) = transaction.versions.as_ref() {
            let own = disk.log.range(..(*first, 0)).filter(|((_, index), _)| *index == 0);
            let mine =
                own.filter(|(_, (_, record))| decode(record).is_ok_and(|frame| frame.origin == self.origin));
            // Frames of this very commit may be trimmed with it.
            let fresh =
                transaction.sealed.iter().filter(|sealed| sealed.number < *first && sealed.own.is_some());
            let gone = mine.map(|(key, _)| key.0).chain(fresh.map(|sealed| sealed.number)).max();
            self.floor = gone.unwrap_or(0).max(self.floor);
        }
        disk.apply(transaction);
        if self.broken == Some(Rule::ChunksDeletedByDurable) {
            for (topic, column) in &mut disk.chunks {
                if let Some(first) = self.rings[*topic].first() {
                    column.retain(|time, _| *time >= first.0);
                }
            }
        }
        let mut effects = self.replica.committed(own, marks);
        if let Some(fold) = folded {
            effects.extend(self.replica.folded(&fold));
        }
        if let Some(coverage) = adopted {
            effects.extend(self.replica.adopted(&coverage));
        }
        effects
    }

    /// The transaction as the disk would have it, when the node is killed right after the sync.
    pub(super) fn synced(&mut self, disk: &mut Disk) {
        if let Some(committing) = self.committing.take() {
            disk.apply(committing.transaction);
        }
    }

    /// The next own frame for a peer, behind the one that it has; or what replication does where the log lacks it.
    pub(super) fn stream(&mut self, node: NodeId, disk: &Disk) -> Result<Message, Option<Vec<Effect>>> {
        let previous = self.replica.next(node).ok_or(None)?;
        if previous < self.floor {
            return Err(Some(self.replica.trimmed(node)));
        }
        let committing = self.committing.iter().flat_map(|committing| &committing.transaction.sealed);
        let sealed = committing.chain(&self.sealed).filter(|sealed| sealed.number > previous);
        let mut in_memory = sealed.filter_map(|sealed| Some((sealed.number, sealed.own.clone()?)));
        let next = disk.own_after(previous, self.origin);
        let (number, frame) = next.or_else(|| in_memory.next()).ok_or(None)?;
        if self.replica.sent(node, previous, number) {
            Ok(Message::Frame { previous, frame })
        } else {
            Err(None)
        }
    }

    /// The blocks of `origin` from the given numbers on, as the log has them; then the partitions whose first one it
    /// lacks.
    pub(super) fn serve(disk: &Disk, origin: Origin, blocks: &[(Partition, u64)]) -> Vec<Message> {
        let from: BTreeMap<_, _> = blocks.iter().copied().collect();
        let mut next = from.clone();
        let mut messages = Vec::new();
        for (frame, record) in disk.frames_of(origin) {
            let mut fits = BTreeSet::new();
            for block in &frame.blocks {
                if next.get(&block.partition) == Some(&block.number) {
                    next.insert(block.partition, block.number + 1);
                    fits.insert((block.partition, block.number));
                }
            }
            let reduced = reduce(record, |partition, number| fits.contains(&(partition, number)));
            messages.extend(reduced.map(|frame| Message::Relay { frame: frame.into() }));
        }
        let lacking = next.iter().filter(|(partition, next)| from.get(partition) == Some(next));
        let partitions: Vec<_> = lacking.map(|(partition, _)| *partition).collect();
        if !partitions.is_empty() {
            messages.push(Message::Trimmed { origin, partitions });
        }
        messages
    }

    /// All of some partitions as they stand on the disk at this moment.
    pub(super) fn snapshot(
        disk: &Disk,
        plan: &Plan,
        partitions: &[Partition],
        read: u64,
    ) -> Result<Vec<Message>, String> {
        let asked: BTreeSet<_> =
            partitions.iter().copied().filter(|partition| partition.0 < BLOCKS).collect();
        let topics = |topic: &usize| asked.contains(&plan.topics[*topic].partition);
        let mut names = Piece::default();
        names
            .series
            .extend(disk.series.iter().copied().filter(topics).map(|topic| names_record(plan, topic)));
        // What is said of the sensors goes first, though it is of another partition.
        names.descriptors.extend(disk.said.records(plan));
        if asked.contains(&REGISTRY) {
            names.descriptors.extend(room_records(&disk.rooms));
            let topics = disk.retained.known().filter_map(|topic| disk.retained.record(topic));
            names.descriptors.extend(topics.map(Bytes::from));
        }
        let frames = disk.log.values();
        let registry = frames.filter_map(|(_, record)| reduce(record, |partition, _| partition == REGISTRY));
        names.frames.extend(registry.map(Bytes::from));
        let mut pieces = vec![names];
        for (topic, column) in disk.chunks.iter().filter(|(topic, _)| topics(topic)) {
            pieces.extend(chunk_piece(plan, *topic, column, false));
        }
        let frames = disk.log.values().filter_map(|(_, record)| {
            reduce(record, |partition, _| partition != REGISTRY && asked.contains(&partition))
        });
        let frames: Vec<_> = frames.map(Bytes::from).collect();
        pieces.extend(
            frames.chunks(FRAMES_A_PART).map(|frames| Piece { frames: frames.to_vec(), ..Piece::default() }),
        );
        let parts = pieces.len() as u64;
        let mut messages: Vec<_> =
            (0..).zip(pieces).map(|(place, piece)| Message::Part { read, place, piece }).collect();
        let coverage = Replica::coverage(&disk.durable()?, partitions);
        messages.push(Message::SnapshotEnd { read, parts, coverage });
        Ok(messages)
    }

    /// What memory holds of one origin, as if that were the origin's part of the partitions.
    pub(super) fn survivors(
        &self,
        plan: &Plan,
        partitions: &[Partition],
        read: u64,
        only: Origin,
    ) -> Vec<Message> {
        let mut coverage = Replica::coverage(self.replica.durable(), partitions);
        coverage.partitions.iter_mut().for_each(|(_, entries)| entries.retain(|(origin, _)| *origin == only));
        coverage.frames.retain(|(origin, _)| *origin == only);
        let topics = self.series.iter().filter(|topic| partitions.contains(&plan.topics[**topic].partition));
        let mut all = Piece::default();
        for topic in topics.copied() {
            all.series.push(names_record(plan, topic));
            let mut column = column(&self.rings[topic]);
            column.retain(|_, (stamp, _)| stamp.author == author(only));
            all.chunks
                .extend(chunk_piece(plan, topic, &column, false).into_iter().flat_map(|piece| piece.chunks));
        }
        let part = Message::Part { read, place: 0, piece: all };
        vec![part, Message::SnapshotEnd { read, parts: 1, coverage }]
    }

    /// The hash of a ring's content.
    pub(super) fn hash(&self, topic: usize) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.rings[topic].keep().to_le_bytes());
        if let Some(cleared) = self.rings[topic].cleared() {
            hasher.update(&cleared.time.to_le_bytes());
            hasher.update(&cleared.author.to_le_bytes());
        }
        for (time, (stamp, value)) in column(&self.rings[topic]) {
            hasher.update(&time.to_le_bytes());
            hasher.update(&stamp.time.to_le_bytes());
            hasher.update(&stamp.author.to_le_bytes());
            hasher.update(&value.to_le_bytes());
        }
        let mut hash = [0; 8];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(hash)
    }

    /// The rings of some series, for a peer that found them different.
    pub(super) fn rings_of(&self, plan: &Plan, series: &[u128], answer: bool) -> Piece {
        let mut all = Piece { answer, ..Piece::default() };
        for topic in series.iter().filter_map(|id| plan.by_id(SeriesId(id.to_be_bytes()))) {
            let piece = chunk_piece(plan, topic, &column(&self.rings[topic]), answer);
            all.chunks.extend(piece.into_iter().flat_map(|piece| piece.chunks));
            all.series.push(names_record(plan, topic));
            all.descriptors.extend(self.said.of(plan, &plan.topics[topic].name.sensor).records(plan));
        }
        let rooms = series.iter().filter_map(|id| of_number(*id));
        all.descriptors.extend(rooms.filter_map(|room| self.rooms.record(&room)).map(Bytes::from));
        let topics = series.iter().filter_map(|id| self.retained.record(*id));
        all.descriptors.extend(topics.map(Bytes::from));
        all
    }
}

fn room_records(rooms: &Rooms) -> Vec<Bytes> {
    rooms.known().filter_map(|room| rooms.record(room)).map(Bytes::from).collect()
}

/// Makes a ring one that was never cleared.
fn forget_clear(ring: &mut Ring) {
    let (samples, stamps) = samples(&column(ring));
    *ring = Ring::new(ring.keep(), Shape::Numbers(1));
    ring.join(&samples, &Stamps::Each(stamps), &mut Vec::new());
}

fn names_record(plan: &Plan, topic: usize) -> Bytes {
    let name = &plan.topics[topic].name;
    let mut record = Vec::new();
    put_text(&mut record, name.sensor.as_str());
    put_text(&mut record, name.attribute.as_str());
    put_text(&mut record, name.kind.name());
    seal(&mut record);
    record.into()
}

fn chunk_piece(plan: &Plan, topic: usize, column: &Column, answer: bool) -> Option<Piece> {
    if column.is_empty() {
        return None;
    }
    let (samples, stamps) = samples(column);
    let series = u128::from_be_bytes(plan.topics[topic].id.0);
    let chunks = vec![(series, chunks::encode(&samples, &stamps).into())];
    Some(Piece { chunks, answer, ..Piece::default() })
}
