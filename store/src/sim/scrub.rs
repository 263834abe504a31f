//! Scrubs: nodes whose vectors are equal compare their rings. A difference that neither a change of `keep`, nor a
//! clear, nor a snapshot that broke off explains is a defect.

use super::world::{Node, World};
use crate::disk::recover::series_names;
use crate::model::ids::{NodeId, Partition, SeriesId};
use crate::replica::message::{Message, Piece};

impl World {
    /// One node tells another the hashes of its rings.
    pub(super) fn scrub(&mut self, at: usize, other: usize) {
        let to = self.nodes[other].disk.node;
        for partition in self.plan.partitions() {
            let Node { run: Some(run), .. } = &self.nodes[at] else { return };
            // A ring that has more than its vector says cannot be compared.
            if run.is_open() || run.is_taking_over() {
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
    }

    /// Every pair of nodes.
    pub(super) fn scrub_all(&mut self) {
        for at in 0..self.nodes.len() {
            for other in at + 1..self.nodes.len() {
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
        if run.is_open() || run.is_taking_over() || run.replica.held().hash(partition) != version {
            return;
        }
        self.counts.add("rings compared", series.len() as u64);
        let mut differ = Vec::new();
        for (id, hash) in series {
            let topic = self.plan.by_id(SeriesId(id.to_be_bytes()));
            let Some(topic) = topic.filter(|topic| run.hash(*topic) != *hash) else { continue };
            differ.push(*id);
            if !self.unlike[topic] && !self.broken_off {
                let held = super::disk::column(&run.rings[topic]);
                let line = format!(
                    "vectors of nodes {at} and {from} are equal, rings of series {topic} are not: {held:?}"
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
            let series: Vec<_> = ids.map(|id| u128::from_be_bytes(id.0)).collect();
            self.send_rings(at, from, &series, false);
        }
        Ok(())
    }
}
