//! What a node gives to peers: own frames behind a link's cursor, blocks that were asked for, snapshots, rings.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::disk::{Column, Disk, column, samples};
use super::super::plan::Plan;
use super::Run;
use crate::clock::author;
use crate::codec::{put_text, seal};
use crate::disk::chunks;
use crate::model::ids::{NodeId, Origin, Partition, SeriesId};
use crate::model::room::of_number;
use crate::registry::rooms::Rooms;
use crate::replica::frame::{REGISTRY, reduce};
use crate::replica::message::{Message, Piece};
use crate::replica::state::{Effect, Replica};
use crate::replica::version::BLOCKS;

/// Frames in one part of a snapshot.
const FRAMES_A_PART: usize = 4;

impl Run {
    /// The next own frame for a peer, behind the one that it has; or what replication does where the log lacks it.
    pub(in crate::sim) fn stream(
        &mut self,
        node: NodeId,
        disk: &Disk,
    ) -> Result<Message, Option<Vec<Effect>>> {
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
    pub(in crate::sim) fn serve(disk: &Disk, origin: Origin, blocks: &[(Partition, u64)]) -> Vec<Message> {
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
    pub(in crate::sim) fn snapshot(
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
    pub(in crate::sim) fn survivors(
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
    pub(in crate::sim) fn hash(&self, topic: usize) -> u64 {
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
    pub(in crate::sim) fn rings_of(&self, plan: &Plan, series: &[u128], answer: bool) -> Piece {
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
