//! Scrubs: nodes whose vectors are equal compare their rings and rooms. A difference that neither a change of `keep`, nor a
//! clear, nor a snapshot that broke off explains is a defect.

use super::node::Run;
use super::world::{Node, World};
use crate::disk::recover::{descriptor_operations, series_names};
use crate::model::ids::{NodeId, Partition, SeriesId};
use crate::model::room::{number, of_number};
use crate::registry::Operation;
use crate::registry::retained::{self, is_number};
use crate::replica::frame::REGISTRY;
use crate::replica::message::{Message, Piece};

impl World {
    /// One node tells another the hashes of its rings.
    pub(super) fn scrub(&mut self, at: usize, other: usize) {
        let to = self.nodes[other].disk.node;
        for partition in self.plan.partitions() {
            let Node { run: Some(run), .. } = &self.nodes[at] else { return };
            // A ring that has more than its vector says cannot be compared.
            if run.is_open() || run.replica.is_joining() {
                return;
            }
            let topics = (0..self.plan.topics.len()).filter(|topic| {
                self.plan.topics[*topic].partition == partition && run.series.contains(topic)
            });
            let series = topics
                .map(|topic| (u128::from_be_bytes(self.plan.topics[topic].id.0), run.hash(topic)))
                .collect();
            let version = run.replica.held().hash(partition);
            self.counts.add("scrubs", 1);
            self.send_to(at, to, Message::Scrub { partition, version, series });
        }
        let Node { run: Some(run), .. } = &self.nodes[at] else { return };
        let hashes = run.rooms.hashes(None, usize::MAX).into_iter();
        let mut series: Vec<_> = hashes.filter_map(|(room, hash)| Some((number(&room)?, hash))).collect();
        series.extend(run.retained.hashes(None, usize::MAX));
        let version = run.replica.held().hash(REGISTRY);
        if !series.is_empty() {
            self.send_to(at, to, Message::Scrub { partition: REGISTRY, version, series });
        }
    }

    /// Every pair of nodes.
    pub(super) fn scrub_all(&mut self) {
        for at in 0..self.nodes.len() {
            for other in (0..self.nodes.len()).filter(|other| *other != at).collect::<Vec<_>>() {
                self.scrub(at, other);
            }
        }
    }

    pub(super) fn compare_scrub(
        &mut self,
        at: usize,
        from: NodeId,
        partition: Partition,
        version: u64,
        series: &[(u128, u64)],
    ) {
        let Node { run: Some(run), .. } = &self.nodes[at] else { return };
        if run.is_open() || run.replica.is_joining() || run.replica.held().hash(partition) != version {
            return;
        }
        if partition == REGISTRY {
            return self.compare_room_scrub(at, from, series);
        }
        self.counts.add("rings compared", series.len() as u64);
        let mut differ = Vec::new();
        for (id, hash) in series {
            let topic = self.plan.by_id(SeriesId(id.to_be_bytes()));
            let Some(topic) = topic.filter(|topic| run.hash(*topic) != *hash) else { continue };
            differ.push(*id);
            if !self.unlike[topic] && !self.broken_off {
                let held = |run: &Run| super::disk::column(&run.rings[topic]);
                let theirs = self.nodes.iter().filter(|node| node.disk.node == from);
                let theirs = theirs.filter_map(|node| node.run.as_ref()).map(held).next();
                let line = format!(
                    "vectors of nodes {at} and {from} are equal, rings of series {topic} are not: {:?} and now {theirs:?}",
                    held(run)
                );
                return self.fail(line);
            }
        }
        if !differ.is_empty() {
            self.counts.add("scrub merges", differ.len() as u64);
            self.tell(|| format!("node {at} finds {} rings of {from} different", differ.len()));
            self.send_to(at, from, Message::WantRings(differ));
        }
    }

    /// Registry operations come with every snapshot, so a node may have heard of more than its vector says: that rooms
    /// differ at equal vectors is none of a defect.
    fn compare_room_scrub(&mut self, at: usize, from: NodeId, theirs: &[(u128, u64)]) {
        let Node { run: Some(run), .. } = &self.nodes[at] else { return };
        let room = |id: u128| of_number(id).and_then(|room| run.rooms.hash(&room));
        let ours = |id: u128| if is_number(id) { run.retained.hash(id) } else { room(id) };
        let differ = theirs.iter().filter(|(id, hash)| ours(*id) != Some(*hash));
        let differ: Vec<_> = differ.map(|(id, _)| *id).collect();
        self.counts.add("rooms compared", theirs.len() as u64);
        if !differ.is_empty() {
            self.counts.add("rooms joined by scrubs", differ.len() as u64);
            self.send_to(at, from, Message::WantRings(differ));
        }
    }

    pub(super) fn send_rings(&mut self, at: usize, to: NodeId, series: &[u128], answer: bool) {
        let Node { run: Some(run), .. } = &self.nodes[at] else { return };
        let piece = run.rings_of(&self.plan, series, answer);
        self.send_to(at, to, Message::Piece(piece));
    }

    pub(super) fn join_rings(&mut self, at: usize, from: NodeId, piece: &Piece) -> Result<(), String> {
        let Node { run: Some(run), .. } = &mut self.nodes[at] else { return Ok(()) };
        run.join_piece(piece, &self.plan)?;
        if piece.answer {
            let names = piece.series.iter().filter_map(|record| series_names(record).ok());
            let ids = names.map(|(sensor, attribute, _)| SeriesId::of(&sensor, &attribute));
            let mut series: Vec<_> = ids.map(|id| u128::from_be_bytes(id.0)).collect();
            let said = piece.descriptors.iter().filter_map(|record| descriptor_operations(record).ok());
            series.extend(said.flatten().filter_map(|operation| match operation {
                Operation::Room(operation) => number(&operation.room),
                Operation::Topic(operation) => Some(retained::number(&operation.topic)),
                Operation::Sensor(_) => None,
            }));
            self.send_rings(at, from, &series, false);
        }
        Ok(())
    }
}
