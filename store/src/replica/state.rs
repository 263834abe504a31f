//! Replication as a value: what a node holds of every origin, what its peers hold, and what follows from a message,
//! a commit, or a change of membership. Events are method calls, effects are returned; it does no I/O, takes no lock
//! and reads no clock, so the simulation runs the very code that the node runs.
//!
//! Rules:
//! - A block is held only when all blocks of its origin and partition before it are.
//! - What is only held is neither acknowledged to its origin nor offered to others; what is durable is.
//! - A snapshot counts when all of it is durable, and then as a whole; none is read while one is joined (`snapshots`).
//! - Closed origins are folded into one; who lacks any of theirs lacks that one (`folds`).
//! - A frame is settled when it is durable here and on enough of the peers that count. A peer counts from when it has
//!   caught up until membership says that it is gone.
//!
//! - Messages may be lost, doubled or overtake each other: whatever stands still is asked for again at a tick, and a
//!   snapshot counts only when every part of one read is here. Parts are taken in their order: names come first.
//!
//! Bounds: one snapshot is taken over at a time; wants are one outstanding for each partition and origin, for as long
//! as blocks come.

use std::collections::{BTreeMap, HashMap, VecDeque};

pub use self::effect::{Counts, Effect, Policy, Taken};
use self::folds::Folds;
use self::snapshots::Session;
use super::message::{Entries, Message};
use super::version::{BLOCKS, FRAMES, VersionVector};
use crate::model::ids::{NodeId, Origin, Partition};

mod blocks;
mod caught_up;
mod effect;
mod folds;
mod links;
mod snapshots;

#[derive(Debug, Default)]
struct Peer {
    /// Membership: it is not gone.
    up: bool,
    /// It had everything once since it came.
    caught_up: bool,
    /// Own frames up to here are durable there.
    acked: u64,
    /// The run that was linked last.
    run: Option<u64>,
    link: Option<Link>,
}

impl Peer {
    fn counts(&self) -> bool {
        self.up && self.caught_up
    }
}

#[derive(Debug)]
struct Link {
    /// The peer's current run.
    start: u64,
    /// The peer has said from where to go on, and nothing keeps it from that.
    flowing: bool,
    /// The last own frame that was sent.
    cursor: u64,
    /// The peer has caught up when it acknowledges this one.
    goal: u64,
    /// The last of its frames that was acknowledged to it.
    ack_sent: u64,
    /// It was asked to rewind, and what fits has not come yet.
    rewinding: bool,
    /// The last of its frames that was held at the tick before.
    seen: u64,
    /// What it held when it was first asked; empty when all of that is here.
    ahead: Option<Vec<(Partition, Entries)>>,
    /// It speaks of folds.
    folds: bool,
    /// The partitions of which it is to get a snapshot when none is joined here any more.
    put_off: Option<Vec<Partition>>,
}

/// Blocks that were asked for.
#[derive(Debug)]
struct Wanted {
    from: NodeId,
    first: u64,
    upto: u64,
    /// It was asked for, or some of it came, since the last tick.
    fresh: bool,
}

/// Blocks that are missing: in which partition, the first, and the last that is known of.
type Missing = (Partition, u64, u64);

/// What one node knows of replication.
#[derive(Debug)]
pub struct Replica {
    me: Origin,
    policy: Policy,
    held: VersionVector,
    durable: VersionVector,
    sealed: u64,
    own_durable: u64,
    unsettled: VecDeque<u64>,
    peers: BTreeMap<NodeId, Peer>,
    session: Option<Session>,
    /// Snapshots read for others.
    reads: u64,
    wanted: HashMap<(Partition, Origin), Wanted>,
    /// Peers are expected that have not been met yet.
    joining: bool,
    folds: Folds,
    counts: Counts,
    /// Takes blocks over a gap: a rule that the simulation breaks on purpose.
    #[cfg(feature = "sim")]
    pub gaps_allowed: bool,
    /// Folds what it holds otherwise: another such rule.
    #[cfg(feature = "sim")]
    pub unlike_folds: bool,
}

impl Replica {
    /// A node in a new run, with what its disk holds.
    pub fn new(me: Origin, policy: Policy, durable: VersionVector, joining: bool) -> Self {
        Self {
            me,
            policy,
            held: durable.clone(),
            durable,
            sealed: 0,
            own_durable: 0,
            unsettled: VecDeque::new(),
            peers: BTreeMap::new(),
            session: None,
            reads: 0,
            wanted: HashMap::new(),
            joining,
            folds: Folds::default(),
            counts: Counts::default(),
            #[cfg(feature = "sim")]
            gaps_allowed: false,
            #[cfg(feature = "sim")]
            unlike_folds: false,
        }
    }

    /// What is in memory.
    pub fn held(&self) -> &VersionVector {
        &self.held
    }

    /// What is on disk.
    pub fn durable(&self) -> &VersionVector {
        &self.durable
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The number of an own block of the frame that is being sealed.
    pub fn next_block(&mut self, partition: Partition) -> u64 {
        self.held.next(partition, self.me)
    }

    /// An own frame is sealed: its bytes never change, and may be sent.
    pub fn sealed(&mut self, frame: u64) -> Vec<Effect> {
        self.sealed = frame;
        self.held.advance(FRAMES, self.me, frame);
        self.unsettled.push_back(frame);
        let flowing =
            self.peers.iter().filter(|(_, peer)| peer.link.as_ref().is_some_and(|link| link.flowing));
        flowing.map(|(node, _)| Effect::Stream(*node)).collect()
    }

    /// A commit is done: own frames up to `frame`, and what was taken from others.
    pub fn committed(
        &mut self,
        frame: Option<u64>,
        marks: impl IntoIterator<Item = (Partition, Origin, u64)>,
    ) -> Vec<Effect> {
        for (partition, origin, number) in marks {
            self.durable.advance(partition, origin, number);
        }
        if let Some(frame) = frame {
            self.own_durable = frame;
            self.durable.advance(FRAMES, self.me, frame);
        }
        let mut effects = Vec::new();
        self.settle(&mut effects);
        self.acknowledge(&mut effects);
        effects
    }

    /// Whether peers are expected that have not been met: until then, no fewer copies than asked for will do.
    pub fn set_joining(&mut self, joining: bool) -> Vec<Effect> {
        self.joining = joining;
        let mut effects = Vec::new();
        self.settle(&mut effects);
        effects
    }

    /// Every few seconds: vectors are compared, and what was asked for in vain is asked for again.
    pub fn tick(&mut self) -> Vec<Effect> {
        self.wanted.retain(|_, wanted| std::mem::take(&mut wanted.fresh));
        let mut effects = self.lose_patience();
        effects.extend(self.tidy());
        effects.extend(self.roots());
        self.acknowledge(&mut effects);
        // Where no frame came since the last tick, either there is none, or one of us waits for a message that was
        // lost: saying where we stand costs next to nothing, and sets both right.
        let nodes: Vec<_> = self.links().collect();
        for node in nodes {
            let held = &self.held;
            let Some(link) = self.peers.get_mut(&node).and_then(|peer| peer.link.as_mut()) else { continue };
            let origin = Origin { node, start: link.start };
            let now = held.last(FRAMES, origin);
            let stands = std::mem::replace(&mut link.seen, now) == now;
            if (stands || std::mem::take(&mut link.rewinding)) && self.session.is_none() {
                effects.push(self.resume(node, origin));
            }
        }
        effects
    }

    /// Any other message of a peer. What concerns rings and figures is the host's ([`Message::Piece`],
    /// [`Message::Scrub`], [`Message::WantRings`], [`Message::Load`]) and does nothing here.
    pub fn message(&mut self, from: NodeId, message: Message) -> Vec<Effect> {
        if self.link(from).is_none() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match message {
            Message::Resume { held, durable } => self.resumed(from, held, durable, &mut effects),
            Message::Ack { frame } => self.acked(from, frame, &mut effects),
            Message::Rewind { after } => {
                let sealed = self.sealed;
                if let Some(link) = self.link(from).filter(|link| link.flowing) {
                    link.cursor = after.min(sealed);
                    effects.push(Effect::Stream(from));
                }
            }
            Message::Behind { frame, blocks } => self.falls_behind(from, frame, &blocks, &mut effects),
            Message::Trimmed { origin, partitions } => {
                let partitions = self.missing(from, origin, partitions);
                self.take_over(from, partitions, &mut effects);
            }
            Message::Root(root) => {
                if root != self.durable.root() {
                    effects.push(Effect::Send(from, Message::Digest(self.durable.digest())));
                } else if let Some(link) = self.link(from) {
                    link.ahead = Some(Vec::new());
                }
            }
            Message::Digest(theirs) => {
                let differ = |partition: &Partition| {
                    theirs.get(usize::from(partition.0)) != Some(&self.durable.hash(*partition))
                };
                let partitions: Vec<_> = (0..BLOCKS).map(Partition).filter(differ).collect();
                let entries = |partition: &Partition| (*partition, self.durable.entries(*partition));
                let ours = partitions.iter().map(entries).collect();
                effects.push(Effect::Send(from, Message::Vectors { answer: true, partitions: ours }));
                self.note_equal(from, &partitions);
            }
            Message::Vectors { answer, partitions } => {
                if answer {
                    let ours = partitions
                        .iter()
                        .map(|(partition, _)| (*partition, self.durable.entries(*partition)));
                    let vectors = Message::Vectors { answer: false, partitions: ours.collect() };
                    effects.push(Effect::Send(from, vectors));
                }
                self.compare(from, partitions, &mut effects);
            }
            Message::Want { origin, blocks } => effects.push(Effect::Serve { to: from, origin, blocks }),
            Message::WantSnapshot { partitions } => {
                effects.push(Effect::Snapshot { to: from, partitions });
            }
            Message::SnapshotEnd { read, parts, coverage } => effects = self.end(from, read, parts, coverage),
            Message::Closed { fold, folded } => effects = self.closed(from, fold, folded),
            Message::Alike(fold) => effects = self.alike(from, &fold),
            Message::Frame { .. }
            | Message::Relay { .. }
            | Message::Part { .. }
            | Message::Piece(_)
            | Message::Scrub { .. }
            | Message::WantRings(_)
            | Message::Load(_)
            | Message::Devices { .. }
            | Message::Leaving
            | Message::News(_)
            | Message::Signal(_)
            | Message::Posted(_)
            | Message::Claimed { .. }
            | Message::Settled { .. } => {}
        }
        effects
    }

    /// Settles the own frames that have copies enough, in order.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Policy { ack_copies, min_copies } = self.policy;
        let count = self.peers.values().filter(|peer| peer.counts()).count();
        let reachable = u8::try_from(count + 1).unwrap_or(u8::MAX);
        let enough = if self.joining { ack_copies } else { ack_copies.min(reachable) }.max(min_copies);
        let mut settled: Option<(u64, u8)> = None;
        while let Some(frame) = self.unsettled.front().copied().filter(|frame| *frame <= self.own_durable) {
            let others = self.peers.values().filter(|peer| peer.acked >= frame).count();
            let copies = u8::try_from(others + 1).unwrap_or(u8::MAX);
            if copies < enough {
                break;
            }
            self.unsettled.pop_front();
            // Frames with as many copies are settled together.
            if let Some((before, held)) = settled.filter(|(_, held)| *held != copies) {
                effects.push(Effect::Settle { frame: before, copies: held, fewer: held < ack_copies });
            }
            settled = Some((frame, copies));
        }
        if let Some((frame, copies)) = settled {
            effects.push(Effect::Settle { frame, copies, fewer: copies < ack_copies });
        }
    }
}

#[cfg(test)]
mod tests;
