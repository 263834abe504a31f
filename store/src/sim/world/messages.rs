//! What comes over a link, and what goes out: own frames behind the cursor, and large messages one by one.

use super::super::disk::decode;
use super::super::node::Run;
use super::{Bulk, Node, World};
use crate::model::ids::NodeId;
use crate::replica::message::Message;
use crate::replica::state::{Effect, Taken};

/// Frames that a link takes at once.
const BATCH: usize = 4;

impl World {
    /// A message that came over a link.
    pub(in crate::sim) fn handle(&mut self, at: usize, from: NodeId, message: Message) {
        let outcome = match message {
            Message::Frame { previous, frame } => decode(&frame).map(|decoded| {
                self.taking(at, |run| run.replica.frame(from, previous, decoded, frame));
            }),
            Message::Relay { frame } => decode(&frame).map(|decoded| {
                self.taking(at, |run| run.replica.relay(from, decoded, frame));
            }),
            Message::Part { read, place, piece } => {
                let Node { run: Some(run), .. } = &mut self.nodes[at] else { return };
                if !run.replica.expects_part(from, read, place) {
                    return;
                }
                let joined = run.join_piece(&piece, &self.plan);
                self.machine(at, |run, _, _| run.replica.part(from, read, place));
                joined
            }
            Message::Scrub { partition, version, series } => {
                self.compare_scrub(at, from, partition, version, &series);
                Ok(())
            }
            Message::WantRings(series) => {
                self.send_rings(at, from, &series, true);
                Ok(())
            }
            Message::Piece(piece) => self.join_rings(at, from, &piece),
            other => {
                self.machine(at, |run, _, _| run.replica.message(from, other));
                Ok(())
            }
        };
        if let Err(what) = outcome {
            self.fail(format!("node {at}: {what}"));
        }
    }

    pub(super) fn taking(&mut self, at: usize, offer: impl FnOnce(&mut Run) -> (Option<Taken>, Vec<Effect>)) {
        let Node { run: Some(run), .. } = &mut self.nodes[at] else { return };
        let (taken, effects) = offer(run);
        if let Some(taken) = taken
            && let Err(what) = run.take(taken, &self.plan)
        {
            return self.fail(format!("node {at}: {what}"));
        }
        self.machine(at, |_, _, _| effects);
    }

    /// Sends frames of a node to a peer that is behind.
    pub(super) fn pump(&mut self, at: usize, peer: usize, session: u64) {
        let Some(link) = self.nodes[at].links.get_mut(&peer).filter(|link| link.session == session) else {
            return;
        };
        link.pumping = false;
        let to = link.peer;
        for _ in 0..BATCH {
            let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
            match run.stream(to, disk) {
                Ok(message) => self.send_to(at, to, message),
                Err(Some(effects)) => {
                    self.trimmed.insert((at, to, Vec::new()), run.origin);
                    return self.machine(at, |_, _, _| effects);
                }
                Err(None) => return,
            }
        }
        self.schedule_pump(at, to);
    }

    /// Sends the next large message that waits for a link.
    pub(super) fn bulk(&mut self, at: usize, peer: usize, session: u64) {
        let Node { links, disk, .. } = &mut self.nodes[at];
        let Some(link) = links.get_mut(&peer).filter(|link| link.session == session) else { return };
        link.bulking = false;
        let to = link.peer;
        let message = match link.bulk.pop_front() {
            None => return,
            Some(Bulk::Ready(message)) => message,
            Some(Bulk::Later { partitions, read, place }) => {
                let Ok(mut all) = Run::snapshot(disk, &self.plan, &partitions, read) else { return };
                let Some(end) = all.pop() else { return };
                if place < all.len() {
                    link.bulk.push_front(Bulk::Later { partitions, read, place: place + 1 });
                    all.swap_remove(place)
                } else if let Message::SnapshotEnd { read, coverage, .. } = end {
                    Message::SnapshotEnd { read, parts: place as u64, coverage }
                } else {
                    end
                }
            }
        };
        self.send_to(at, to, message);
        self.queue_bulk(at, to, std::iter::empty());
    }
}
