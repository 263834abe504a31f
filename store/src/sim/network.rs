//! The network: links that break, messages that are late or lost, and what membership makes of it.

use std::collections::VecDeque;

use super::plan::{MS, SECOND, Wire};
use super::world::{Bulk, Event, World};
use crate::model::ids::NodeId;
use crate::replica::message::Message;

/// A cut link is noticed within this time.
const SILENCE: u64 = 3 * SECOND;
/// Membership is right again within this time.
const DETECTION: u64 = 1500 * MS;

/// One end of a link.
#[derive(Debug)]
pub(super) struct Link {
    pub session: u64,
    pub peer: NodeId,
    /// A pump, or a large message, is to come.
    pub pumping: bool,
    pub bulking: bool,
    pub bulk: VecDeque<Bulk>,
}

/// Directions in which nothing passes.
#[derive(Debug)]
pub(super) struct Cut {
    pub number: u64,
    pub pairs: Vec<(usize, usize)>,
}

impl World {
    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.iter().any(|cut| cut.pairs.contains(&(from, to)))
    }

    fn can_talk(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// Cuts directions until healed.
    pub(super) fn cut(&mut self, pairs: Vec<(usize, usize)>, time: u64) {
        self.sessions += 1;
        let number = self.sessions;
        for (a, b) in pairs.iter().copied() {
            for (at, peer) in [(a, b), (b, a)] {
                if let Some(session) = self.nodes[at].links.get(&peer).map(|link| link.session) {
                    self.within(SILENCE, Event::Silence { at, peer, session });
                }
            }
        }
        self.cuts.push(Cut { number, pairs });
        self.after(time, Event::Heal { cut: number });
    }

    /// Ends a cut: what was stalled arrives.
    pub(super) fn heal(&mut self, number: u64) {
        self.cuts.retain(|cut| cut.number != number);
        for (from, to) in self.stalled.keys().copied().collect::<Vec<_>>() {
            if !self.is_cut(from, to)
                && let Some(messages) = self.stalled.remove(&(from, to))
            {
                for (session, message) in messages {
                    self.schedule(from, to, session, message, MS);
                }
            }
        }
    }

    /// Opens the links that can be opened.
    pub(super) fn dial(&mut self) {
        let next = self.dice.between(50 * MS, 300 * MS);
        self.after(next, Event::Dial);
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let (Some(one), Some(other)) = (&self.nodes[a].run, &self.nodes[b].run) else { continue };
                let (one, other) = (one.origin, other.origin);
                let awake = |at: usize| self.nodes[at].hangs_until <= self.now;
                let free = |at: usize, peer| !self.nodes[at].links.contains_key(peer);
                if self.can_talk(a, b) && awake(a) && awake(b) && free(a, &b) && free(b, &a) {
                    self.sessions += 1;
                    let session = self.sessions;
                    let link =
                        |peer| Link { session, peer, pumping: false, bulking: false, bulk: VecDeque::new() };
                    self.nodes[a].links.insert(b, link(other.node));
                    self.nodes[b].links.insert(a, link(one.node));
                    self.tell(|| format!("link {a} = {b}"));
                    for (at, peer) in [(a, other), (b, one)] {
                        self.machine(at, |run, _, _| run.replica.linked(peer.node, peer.start));
                        self.machine(at, |run, _, _| run.replica.speaks_of_folds(peer.node));
                    }
                }
            }
        }
    }

    /// One end of a link goes down.
    pub(super) fn unlink(&mut self, at: usize, peer: usize, session: u64) {
        let links = &mut self.nodes[at].links;
        if links.get(&peer).is_none_or(|link| link.session != session) {
            return;
        }
        let Some(link) = links.remove(&peer) else { return };
        self.counts.add("links broken", 1);
        self.tell(|| format!("node {at} loses its link to {peer}"));
        self.machine(at, |run, _, _| run.replica.unlinked(link.peer));
        self.end_of_stream(peer, at, session);
    }

    /// The other end of a link learns that this one is down, behind what was sent before.
    pub(super) fn end_of_stream(&mut self, at: usize, from: usize, session: u64) {
        if self.is_cut(from, at) {
            self.within(SILENCE, Event::Silence { at, peer: from, session });
            return;
        }
        let behind = self.last_arrival.get(&(from, at)).copied().unwrap_or(0).saturating_sub(self.now);
        let delay = behind + self.dice.between(1, 20 * MS);
        self.after(delay, Event::Unlink { at, peer: from, session });
    }

    /// Nothing has come over a link for long: it is given up if it is still cut, or its other end gone.
    pub(super) fn silence(&mut self, at: usize, peer: usize, session: u64) {
        let gone = self.nodes[peer].links.get(&at).is_none_or(|link| link.session != session);
        if gone || !self.can_talk(at, peer) || self.nodes[peer].hangs_until > self.now {
            self.unlink(at, peer, session);
        }
    }

    /// Sends a message to a node, if there is a link.
    pub(super) fn send_to(&mut self, from: usize, to: NodeId, message: Message) {
        let Some(at) = self.ids.get(&to).copied() else { return };
        let link = self.nodes[from].links.get(&at).filter(|link| link.peer == to);
        let Some(session) = link.map(|link| link.session) else { return };
        let delay = self.plan.delay;
        match self.plan.wire {
            Wire::Datagrams { lost, doubled } if !self.healing => {
                if self.dice.chance(lost) || self.is_cut(from, at) {
                    self.counts.add("messages lost", 1);
                    self.tell(|| format!("lost {from} > {at}: {}", brief(&message)));
                    return;
                }
                let copies = 1 + u64::from(self.dice.chance(doubled));
                self.counts.add("messages doubled", copies - 1);
                for _ in 0..copies {
                    let delay = self.dice.between(1, 3 * delay);
                    let message = Box::new(message.clone());
                    let arrival = self.now + delay;
                    let last = self.last_arrival.entry((from, at)).or_insert(0);
                    let overtakes = arrival < *last;
                    *last = arrival.max(*last);
                    self.counts.add("messages overtaken", u64::from(overtakes));
                    self.after(delay, Event::Deliver { at, from, session, message });
                }
            }
            Wire::Stream | Wire::Datagrams { .. } => {
                self.schedule(from, at, session, Box::new(message), delay);
            }
        }
    }

    fn schedule(&mut self, from: usize, at: usize, session: u64, message: Box<Message>, delay: u64) {
        let delay = self.dice.between(delay / 2 + 1, delay + 1);
        let last = self.last_arrival.entry((from, at)).or_insert(0);
        *last = (self.now + delay).max(*last + 1);
        let delay = *last - self.now;
        self.after(delay, Event::Deliver { at, from, session, message });
    }

    pub(super) fn deliver(&mut self, at: usize, from: usize, session: u64, message: Box<Message>) {
        let stalled = self.stalled.get(&(from, at)).is_some_and(|queue| !queue.is_empty());
        if stalled || self.is_cut(from, at) {
            if self.plan.wire == Wire::Stream || self.healing {
                self.stalled.entry((from, at)).or_default().push_back((session, message));
            }
            return;
        }
        let link = self.nodes[at].links.get(&from).filter(|link| link.session == session);
        let Some(peer) = link.map(|link| link.peer) else { return };
        self.tell(|| format!("{from} > {at}: {}", brief(&message)));
        self.handle(at, peer, *message);
    }

    pub(super) fn schedule_pump(&mut self, at: usize, to: NodeId) {
        let Some(peer) = self.ids.get(&to).copied() else { return };
        let Some(link) = self.nodes[at].links.get_mut(&peer).filter(|link| link.peer == to) else { return };
        if !std::mem::replace(&mut link.pumping, true) {
            let session = link.session;
            self.within(5 * MS, Event::Pump { at, peer, session });
        }
    }

    /// Puts large messages behind those that wait for a link.
    pub(super) fn queue_bulk(&mut self, at: usize, to: NodeId, messages: impl Iterator<Item = Bulk>) {
        let Some(peer) = self.ids.get(&to).copied() else { return };
        let Some(link) = self.nodes[at].links.get_mut(&peer).filter(|link| link.peer == to) else { return };
        link.bulk.extend(messages);
        if !link.bulk.is_empty() && !std::mem::replace(&mut link.bulking, true) {
            let session = link.session;
            self.within(60 * MS, Event::Bulk { at, peer, session });
        }
    }

    /// Membership: nodes learn who is up, with some delay.
    pub(super) fn gossip(&mut self) {
        self.after(200 * MS, Event::Gossip);
        let ids: Vec<_> = self.ids.iter().map(|(id, at)| (*id, *at)).collect();
        for at in 0..self.nodes.len() {
            if self.nodes[at].run.is_none() || self.nodes[at].hangs_until > self.now {
                continue;
            }
            for (id, peer) in ids.iter().copied().filter(|(_, peer)| *peer != at) {
                let node = &self.nodes[peer];
                let there = node.run.is_some() && node.disk.node == id && node.hangs_until <= self.now;
                let truth = there && self.can_talk(at, peer);
                let now = self.now;
                let noticed = self.dice.between(0, DETECTION);
                let (up, since) = self.nodes[at].view.entry(id).or_insert((false, None));
                if *up == truth {
                    *since = None;
                } else if now - *since.get_or_insert(now) >= noticed {
                    (*up, *since) = (truth, None);
                    self.member(at, id, truth);
                }
            }
        }
    }

    /// A node is told of another.
    pub(super) fn member(&mut self, at: usize, id: NodeId, up: bool) {
        self.tell(|| format!("node {at} takes {id} for {}", if up { "up" } else { "down" }));
        self.machine(at, |run, _, _| run.replica.member(id, up));
    }
}

/// A message in a line.
fn brief(message: &Message) -> String {
    match message {
        Message::Frame { previous, frame } => {
            format!("frame behind {previous}: {:?}", crate::replica::frame::outline(frame))
        }
        Message::Relay { frame } => format!("relay: {:?}", crate::replica::frame::outline(frame)),
        Message::Digest(_) => "digest".into(),
        Message::Part { read, place, .. } => format!("part {place} of read {read}"),
        Message::SnapshotEnd { read, parts, .. } => format!("end of read {read} with {parts} parts"),
        Message::Trimmed { origin, partitions } => {
            format!("trimmed {} partitions of {origin}", partitions.len())
        }
        Message::WantSnapshot { partitions } => {
            format!("wants a snapshot of {} partitions", partitions.len())
        }
        other => format!("{other:?}"),
    }
}
