//! Replication as a value: what a node holds of every origin, what its peers hold, and what follows from a message,
//! a commit, or a change of membership. Events are method calls, effects are returned; it does no I/O, takes no lock
//! and reads no clock, so the simulation runs the very code that the node runs.
//!
//! Rules:
//! - A block is held only when all blocks of its origin and partition before it are.
//! - What is only held is neither acknowledged to its origin nor offered to others; what is durable is.
//! - A snapshot counts when all of it is durable, and then as a whole.
//! - No snapshot is read while one is joined (`snapshots`).
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

use bytes::Bytes;

use self::folds::Folds;
use super::fold::Fold;
use super::frame::{Block, Frame};
use super::message::{Coverage, Entries, Message};
use super::version::{BLOCKS, FRAMES, Offer, VersionVector};
use crate::model::ids::{NodeId, Origin, Partition};

mod caught_up;
mod folds;
mod snapshots;

/// A snapshot of which nothing came for so many ticks is given up, and asked for anew.
const PATIENCE: u8 = 2;

/// How many copies make an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Copies asked for; fewer do while fewer nodes are alive.
    pub ack_copies: u8,
    /// Below this nothing is acknowledged.
    pub min_copies: u8,
}

/// Blocks of a peer that were taken: to be joined into the rings and logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Author.
    pub origin: Origin,
    /// With it, all frames of the origin up to this one are held.
    pub frame: Option<u64>,
    /// Those that were not held yet.
    pub blocks: Vec<Block>,
    /// The frame that goes to the log; empty when nothing of it was new.
    pub bytes: Bytes,
}

impl Taken {
    /// What is held, once it is durable.
    pub fn marks(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        let blocks = self.blocks.iter().map(|block| (block.partition, self.origin, block.number));
        blocks.chain(self.frame.map(|frame| (FRAMES, self.origin, frame)))
    }
}

/// What the host has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(NodeId, Message),
    /// Own frames up to this one are acknowledged, with so many copies.
    Settle {
        /// The frame.
        frame: u64,
        /// Nodes that have it on disk.
        copies: u8,
        /// Fewer than asked for, since peers are gone.
        fewer: bool,
    },
    /// Send the blocks of an origin from these numbers on as relays; say [`Message::Trimmed`] for what the log lacks.
    Serve {
        /// To whom.
        to: NodeId,
        /// Whose.
        origin: Origin,
        /// First block of each partition.
        blocks: Vec<(Partition, u64)>,
    },
    /// Send these partitions from one read transaction as [`Message::Part`]s, then [`Message::SnapshotEnd`], if it may
    /// begin: see [`Replica::begin_read`].
    Snapshot {
        /// To whom.
        to: NodeId,
        /// Which.
        partitions: Vec<Partition>,
    },
    /// Make all that came in the snapshot durable, then call [`Replica::adopted`].
    Adopt(Coverage),
    /// Make the fold durable, then call [`Replica::folded`]. The log still has blocks of what is folded: up to this
    /// moment they no longer count.
    Fold(Fold),
    /// The peer has more frames to get, or may go on: see [`Replica::next`].
    Stream(NodeId),
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wants sent.
    pub wants: u64,
    /// Rewinds asked for.
    pub rewinds: u64,
    /// Snapshots asked for.
    pub snapshots: u64,
    /// Those given up when parts of them had come.
    pub broken_off: u64,
    /// Snapshots that others wait for, since one was joined here.
    pub put_off: u64,
    /// Folds made durable.
    pub folds: u64,
    /// Origins that they put away.
    pub origins_folded: u64,
    /// Folds of others that hold something else than this node.
    pub folds_missed: u64,
}

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

/// A snapshot on its way here.
#[derive(Debug)]
struct Session {
    from: NodeId,
    /// The newest read of which something came, and how many of its parts did.
    read: u64,
    parts: u64,
    /// How many parts it has and what it covers, when the end came.
    end: Option<(u64, Coverage)>,
    /// A part of it was joined, or is about to be.
    joined: bool,
    /// All of it came; it is being made durable.
    complete: bool,
    /// Ticks since something came.
    quiet: u8,
}

impl Session {
    fn new(from: NodeId) -> Self {
        Self { from, read: 0, parts: 0, end: None, joined: false, complete: false, quiet: 0 }
    }

    /// Turns to a later read.
    fn turn_to(&mut self, read: u64) {
        self.quiet = 0;
        if read > self.read {
            (self.read, self.parts, self.end) = (read, 0, None);
        }
    }

    fn expects(&self, read: u64, place: u64) -> bool {
        let next = if read == self.read { self.parts } else { 0 };
        !self.complete && read >= self.read && place == next
    }

    /// What the snapshot covers, once, when all of it is here.
    fn complete(&mut self) -> Option<Coverage> {
        let whole = self.end.as_ref().is_some_and(|(parts, _)| self.parts == *parts);
        if self.complete || !whole {
            return None;
        }
        self.complete = true;
        self.end.take().map(|end| end.1)
    }
}

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

    fn resume(&self, node: NodeId, origin: Origin) -> Effect {
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
        let mut effects = Vec::new();
        if self.session.as_ref().is_some_and(|session| session.from == node && !session.complete) {
            effects = self.give_up();
        }
        self.wanted.retain(|_, wanted| wanted.from != node);
        effects.extend(self.roots());
        effects
    }

    /// Forgets a snapshot that will not become whole. Peers that were held up by it are told to go on.
    fn give_up(&mut self) -> Vec<Effect> {
        self.counts.broken_off += u64::from(self.is_joining());
        self.session = None;
        self.wanted.clear();
        self.resume_all()
    }

    /// No snapshot is on its way here any more.
    fn resume_all(&mut self) -> Vec<Effect> {
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

    fn roots(&self) -> Vec<Effect> {
        let linked: Vec<_> = self.links().collect();
        if linked.is_empty() {
            return Vec::new();
        }
        let root = self.durable.root();
        linked.into_iter().map(|node| Effect::Send(node, Message::Root(root))).collect()
    }

    fn links(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.link.is_some()).map(|(node, _)| *node)
    }

    fn link(&mut self, node: NodeId) -> Option<&mut Link> {
        self.peers.get_mut(&node)?.link.as_mut()
    }

    /// Every few seconds: vectors are compared, and what was asked for in vain is asked for again.
    pub fn tick(&mut self) -> Vec<Effect> {
        self.wanted.retain(|_, wanted| std::mem::take(&mut wanted.fresh));
        let mut effects = Vec::new();
        if let Some(session) = self.session.as_mut().filter(|session| !session.complete) {
            session.quiet += 1;
            if session.quiet > PATIENCE {
                effects = self.give_up();
            }
        }
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

    /// An own frame of a peer came over its link.
    pub fn frame(
        &mut self,
        from: NodeId,
        previous: u64,
        frame: Frame,
        bytes: Bytes,
    ) -> (Option<Taken>, Vec<Effect>) {
        let Some(start) = self.link(from).map(|link| link.start) else { return (None, Vec::new()) };
        let origin = frame.origin;
        if origin != (Origin { node: from, start }) || self.is_folding(origin) {
            return (None, Vec::new());
        }
        let held = self.held.last(FRAMES, origin);
        if frame.number <= held {
            return (None, Vec::new());
        }
        if previous > held && !self.may_skip() {
            return (None, self.rewind(from, held));
        }
        let gaps = self.gaps(origin, &frame.blocks);
        if !gaps.is_empty() {
            if let Some(link) = self.link(from) {
                link.rewinding = true;
            }
            return (None, self.want(from, origin, gaps, true));
        }
        if let Some(link) = self.link(from) {
            link.rewinding = false;
        }
        (Some(self.take(frame, bytes, true)), Vec::new())
    }

    #[cfg(feature = "sim")]
    fn may_skip(&self) -> bool {
        self.gaps_allowed
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "with the feature `sim` it looks")]
    fn may_skip(&self) -> bool {
        false
    }

    fn rewind(&mut self, from: NodeId, after: u64) -> Vec<Effect> {
        // While a snapshot is on its way, frames do not fit; it ends with `Resume`.
        if self.session.is_some() {
            return Vec::new();
        }
        match self.link(from) {
            Some(link) if !link.rewinding => {
                link.rewinding = true;
                self.counts.rewinds += 1;
                vec![Effect::Send(from, Message::Rewind { after })]
            }
            _ => Vec::new(),
        }
    }

    /// Blocks that a peer had been asked for.
    pub fn relay(&mut self, from: NodeId, mut frame: Frame, bytes: Bytes) -> (Option<Taken>, Vec<Effect>) {
        let origin = frame.origin;
        if origin == self.me || self.link(from).is_none() || self.is_folding(origin) {
            return (None, Vec::new());
        }
        frame.blocks.retain(|block| !self.comes_late(origin, block));
        let gaps = self.gaps(origin, &frame.blocks);
        if gaps.len() == frame.blocks.len() {
            return (None, self.want(from, origin, gaps, true));
        }
        let fits = |block: &Block| !gaps.iter().any(|gap| gap.0 == block.partition);
        let reduced = Frame { blocks: frame.blocks.into_iter().filter(fits).collect(), ..frame };
        let taken = self.take(reduced, bytes, false);
        (Some(taken).filter(|taken| !taken.blocks.is_empty()), Vec::new())
    }

    /// The partitions in which a block does not follow on what is held, and the first block that is missing.
    fn gaps(&self, origin: Origin, blocks: &[Block]) -> Vec<Missing> {
        if self.may_skip() {
            return Vec::new();
        }
        let gap = |block: &Block| match self.held.offer(block.partition, origin, block.number) {
            Offer::Gap(missing) => Some((block.partition, missing, block.number)),
            Offer::Accept | Offer::Held => None,
        };
        blocks.iter().filter_map(gap).collect()
    }

    fn take(&mut self, frame: Frame, bytes: Bytes, whole: bool) -> Taken {
        let Frame { origin, number, mut blocks } = frame;
        let offered = blocks.len();
        blocks.retain(|block| self.held.offer(block.partition, origin, block.number) != Offer::Held);
        for block in &blocks {
            self.held.advance(block.partition, origin, block.number);
            let place = (block.partition, origin);
            if let Some(wanted) = self.wanted.get_mut(&place) {
                wanted.fresh = true;
                if block.number >= wanted.upto {
                    self.wanted.remove(&place);
                }
            }
        }
        if whole {
            self.held.advance(FRAMES, origin, number);
        }
        let bytes = match blocks.len() {
            0 => Bytes::new(),
            taken if taken == offered && whole => bytes,
            _ => {
                let taken = |partition, number| {
                    blocks.iter().any(|block| (block.partition, block.number) == (partition, number))
                };
                // The bytes were decoded before; what decodes can be reduced.
                super::frame::reduce(&bytes, taken).unwrap_or_default().into()
            }
        };
        Taken { origin, frame: whole.then_some(number), blocks, bytes }
    }

    /// Asks for blocks, but for those that are on their way. Behind a `gap` something was lost on the way.
    fn want(&mut self, from: NodeId, origin: Origin, mut missing: Vec<Missing>, gap: bool) -> Vec<Effect> {
        if self.session.is_some() {
            return Vec::new();
        }
        missing.retain(|(partition, first, upto)| {
            let held = self.wanted.get(&(*partition, origin));
            let asks = held.is_none_or(|held| gap && *first > held.first);
            if asks {
                let wanted = Wanted { from, first: *first, upto: *upto, fresh: true };
                self.wanted.insert((*partition, origin), wanted);
            }
            asks
        });
        if missing.is_empty() {
            return Vec::new();
        }
        self.counts.wants += 1;
        let blocks = missing.into_iter().map(|(partition, first, _)| (partition, first)).collect();
        vec![Effect::Send(from, Message::Want { origin, blocks })]
    }

    /// Which of the blocks that a peer was asked for, and has no more, are still missing.
    fn missing(&self, from: NodeId, origin: Origin, mut partitions: Vec<Partition>) -> Vec<Partition> {
        partitions.retain(|partition| {
            self.wanted.get(&(*partition, origin)).is_some_and(|wanted| wanted.from == from)
        });
        partitions
    }

    /// Takes a snapshot of some partitions, unless one is on its way.
    fn take_over(&mut self, from: NodeId, partitions: Vec<Partition>, effects: &mut Vec<Effect>) {
        if self.session.is_none() && !partitions.is_empty() {
            self.session = Some(Session::new(from));
            self.counts.snapshots += 1;
            effects.push(Effect::Send(from, Message::WantSnapshot { partitions }));
        }
    }

    /// The log of a peer begins behind the frame that is held. Its blocks may be here all the same, through others.
    fn falls_behind(
        &mut self,
        from: NodeId,
        frame: u64,
        blocks: &[(Partition, u64)],
        effects: &mut Vec<Effect>,
    ) {
        let Some(start) = self.link(from).map(|link| link.start) else { return };
        let origin = Origin { node: from, start };
        let lacks =
            |versions: &VersionVector, block: &(Partition, u64)| versions.last(block.0, origin) < block.1;
        let missing: Vec<_> = blocks.iter().filter(|block| lacks(&self.held, block)).collect();
        if !missing.is_empty() {
            let partitions = missing.into_iter().map(|block| block.0).collect();
            self.take_over(from, partitions, effects);
        } else if !blocks.iter().any(|block| lacks(&self.durable, block)) {
            self.held.advance(FRAMES, origin, frame);
            self.durable.advance(FRAMES, origin, frame);
            effects.push(self.resume(from, origin));
        }
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
            Message::SnapshotEnd { read, parts, coverage } => {
                let session = self.session.as_mut().filter(|session| session.from == from);
                if let Some(session) = session.filter(|session| !session.complete && read >= session.read) {
                    session.turn_to(read);
                    session.end = Some((parts, coverage));
                    effects.extend(session.complete().map(Effect::Adopt));
                }
            }
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

    /// Whether a part of a snapshot ([`Message::Part`]) is the next: then it is to be joined, and told to [`Self::part`].
    pub fn expects_part(&mut self, from: NodeId, read: u64, place: u64) -> bool {
        let session = self.session.as_mut().filter(|session| session.from == from);
        let Some(session) = session.filter(|session| session.expects(read, place)) else { return false };
        session.joined = true;
        true
    }

    /// The part that was expected has been joined.
    pub fn part(&mut self, from: NodeId, read: u64, place: u64) -> Vec<Effect> {
        let session = self.session.as_mut().filter(|session| session.from == from);
        let Some(session) = session.filter(|session| session.expects(read, place)) else { return Vec::new() };
        session.turn_to(read);
        session.parts += 1;
        session.complete().map(Effect::Adopt).into_iter().collect()
    }

    #[cfg(test)]
    /// Whether a snapshot is on its way here from a peer.
    pub fn is_taking_over(&self, from: NodeId) -> bool {
        self.session.as_ref().is_some_and(|session| session.from == from && !session.complete)
    }

    fn resumed(&mut self, from: NodeId, held: u64, durable: u64, effects: &mut Vec<Effect>) {
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

    fn acked(&mut self, from: NodeId, frame: u64, effects: &mut Vec<Effect>) {
        let sealed = self.sealed;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(link) = peer.link.as_ref() else { return };
        peer.acked = frame.min(sealed).max(peer.acked);
        if link.flowing && peer.acked >= link.goal {
            peer.caught_up = peer.up;
        }
        self.settle(effects);
    }

    /// Looks for blocks that a peer has and this node lacks. Those of an origin that is linked come by themselves.
    fn compare(
        &mut self,
        from: NodeId,
        mut partitions: Vec<(Partition, Entries)>,
        effects: &mut Vec<Effect>,
    ) {
        for (partition, entries) in &mut partitions {
            entries.retain(|(origin, last)| !self.is_folded(*partition, *origin, *last));
        }
        let mut wants: BTreeMap<Origin, Vec<Missing>> = BTreeMap::new();
        for (partition, entries) in &partitions {
            for (origin, last) in entries {
                let held = self.held.last(*partition, *origin);
                let comes = *origin == self.me || self.streams(*origin) || self.is_folding(*origin);
                if *last > held && !comes && partition.0 < BLOCKS {
                    wants.entry(*origin).or_default().push((*partition, held + 1, *last));
                }
            }
        }
        self.note_ahead(from, partitions);
        for (origin, missing) in wants {
            effects.extend(self.want(from, origin, missing, false));
        }
    }

    /// Whether the origin's frames come over a link of its own.
    fn streams(&self, origin: Origin) -> bool {
        let link = self.peers.get(&origin.node).and_then(|peer| peer.link.as_ref());
        link.is_some_and(|link| link.start == origin.start)
    }

    /// The snapshot, and all that was taken before it ended, is durable.
    pub fn adopted(&mut self, coverage: &Coverage) -> Vec<Effect> {
        for (partition, origin, last) in coverage.marks() {
            if !self.is_folded(partition, origin, last) {
                self.held.advance(partition, origin, last);
                self.durable.advance(partition, origin, last);
            }
        }
        self.session = None;
        self.wanted.clear();
        let mut effects = self.resume_all();
        effects.extend(self.roots());
        self.acknowledge(&mut effects);
        effects
    }

    /// What a snapshot that is read now covers, by what the disk says of itself.
    pub fn coverage(durable: &VersionVector, partitions: &[Partition]) -> Coverage {
        let all = (0..BLOCKS).all(|partition| partitions.contains(&Partition(partition)));
        Coverage {
            partitions: partitions
                .iter()
                .map(|partition| (*partition, durable.entries(*partition)))
                .collect(),
            frames: if all { durable.entries(FRAMES) } else { Entries::new() },
        }
    }

    /// Tells peers how far their frames are durable here.
    fn acknowledge(&mut self, effects: &mut Vec<Effect>) {
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
