//! Links to peers: how far each is, where own frames go on, and who counts.

use super::{Effect, Link, Replica};
use crate::model::ids::{NodeId, Origin};
use crate::replica::message::Message;
use crate::replica::version::FRAMES;

impl Replica {
    /// Membership says that a node is there, or gone.
    pub fn member(&mut self, node: NodeId, up: bool) -> Vec<Effect> {
        let peer = self.peers.entry(node).or_default();
        peer.up = up;
        let reached = peer.link.as_ref().is_some_and(|link| link.flowing && peer.acked >= link.goal);
        peer.caught_up = up && (peer.caught_up || reached);
        let mut effects = Vec::new();
        self.settle(&mut effects);
        effects
    }

    /// A link to a node, in its run `start`, is open.
    pub fn linked(&mut self, node: NodeId, start: u64) -> Vec<Effect> {
        let mut effects = self.unlinked(node);
        let origin = Origin { node, start };
        self.unfold(origin);
        let link = Link {
            start,
            flowing: false,
            cursor: 0,
            goal: 0,
            ack_sent: self.durable.last(FRAMES, origin),
            rewinding: false,
            seen: self.held.last(FRAMES, origin),
            ahead: None,
            folds: false,
            put_off: None,
        };
        let peer = self.peers.entry(node).or_default();
        (peer.run, peer.link) = (Some(start), Some(link));
        effects.extend([self.resume(node, origin), Effect::Send(node, Message::Root(self.durable.root()))]);
        effects
    }

    pub(super) fn resume(&self, node: NodeId, origin: Origin) -> Effect {
        let held = self.held.last(FRAMES, origin);
        let durable = self.durable.last(FRAMES, origin);
        Effect::Send(node, Message::Resume { held, durable })
    }

    /// The link to a node is gone. What others hold of it is asked for at once.
    pub fn unlinked(&mut self, node: NodeId) -> Vec<Effect> {
        let Some(peer) = self.peers.get_mut(&node) else { return Vec::new() };
        if peer.link.take().is_none() {
            return Vec::new();
        }
        let mut effects = self.lose(node);
        self.wanted.retain(|_, wanted| wanted.from != node);
        effects.extend(self.roots());
        effects
    }

    /// No snapshot is on its way here any more.
    pub(super) fn resume_all(&mut self) -> Vec<Effect> {
        let nodes: Vec<_> = self.links().collect();
        let mut effects = Vec::new();
        for node in nodes {
            let Some(link) = self.link(node) else { continue };
            link.rewinding = false;
            let origin = Origin { node, start: link.start };
            effects.push(self.resume(node, origin));
        }
        effects.extend(self.put_off());
        effects
    }

    pub(super) fn roots(&self) -> Vec<Effect> {
        let linked: Vec<_> = self.links().collect();
        if linked.is_empty() {
            return Vec::new();
        }
        let root = self.durable.root();
        linked.into_iter().map(|node| Effect::Send(node, Message::Root(root))).collect()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.link.is_some()).map(|(node, _)| *node)
    }

    pub(super) fn link(&mut self, node: NodeId) -> Option<&mut Link> {
        self.peers.get_mut(&node)?.link.as_mut()
    }

    /// The last own frame that was sent to a peer; `None` when nothing is to be sent now.
    pub fn next(&self, node: NodeId) -> Option<u64> {
        let link = self.peers.get(&node)?.link.as_ref()?;
        (link.flowing && link.cursor < self.sealed).then_some(link.cursor)
    }

    /// The frame behind `previous` was handed to the link. False when the peer has asked for another one meanwhile.
    pub fn sent(&mut self, node: NodeId, previous: u64, frame: u64) -> bool {
        match self.link(node) {
            Some(link) if link.flowing && link.cursor == previous => {
                link.cursor = frame;
                true
            }
            _ => false,
        }
    }

    /// The log no longer has the frames behind the peer's cursor.
    pub fn trimmed(&mut self, node: NodeId) -> Vec<Effect> {
        let Some(link) = self.link(node) else { return Vec::new() };
        link.flowing = false;
        let behind = Message::Behind { frame: self.sealed, blocks: self.held.of(self.me) };
        vec![Effect::Send(node, behind)]
    }

    /// Whether all peers that count hold all own frames durably.
    pub fn is_handed_over(&self) -> bool {
        self.peers.values().filter(|peer| peer.counts()).all(|peer| peer.acked >= self.sealed)
    }

    /// Own frames that the peer has not acknowledged as durable: from behind this one to the last sealed.
    pub fn behind(&self, node: NodeId) -> Option<(u64, u64)> {
        let peer = self.peers.get(&node).filter(|peer| peer.link.is_some())?;
        Some((peer.acked, self.sealed))
    }

    pub(super) fn resumed(&mut self, from: NodeId, held: u64, durable: u64, effects: &mut Vec<Effect>) {
        let sealed = self.sealed;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        // What a peer held before its disk was set back does not count any more.
        let before = std::mem::replace(&mut peer.acked, durable.min(sealed));
        link.cursor = held.min(sealed);
        link.goal = sealed;
        link.flowing = true;
        if peer.acked >= link.goal {
            peer.caught_up = peer.up;
        } else if peer.acked < before {
            peer.caught_up = false;
        }
        effects.push(Effect::Stream(from));
        self.settle(effects);
    }

    pub(super) fn acked(&mut self, from: NodeId, frame: u64, effects: &mut Vec<Effect>) {
        let sealed = self.sealed;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(link) = peer.link.as_ref() else { return };
        peer.acked = frame.min(sealed).max(peer.acked);
        if link.flowing && peer.acked >= link.goal {
            peer.caught_up = peer.up;
        }
        self.settle(effects);
    }

    /// Tells peers how far their frames are durable here.
    pub(super) fn acknowledge(&mut self, effects: &mut Vec<Effect>) {
        for (node, peer) in &mut self.peers {
            let Some(link) = peer.link.as_mut() else { continue };
            let frame = self.durable.last(FRAMES, Origin { node: *node, start: link.start });
            if frame > link.ack_sent {
                link.ack_sent = frame;
                effects.push(Effect::Send(*node, Message::Ack { frame }));
            }
        }
        self.catch_up();
    }
}
