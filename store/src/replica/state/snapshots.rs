//! Snapshots: one that is on its way here, and those that others ask for.
//!
//! The one that comes counts when all parts of one read are here and durable, and then as a whole. None is read for others
//! while parts of one are joined: what is joined is in the rings before the vector counts it, and a checkpoint may write it
//! out. Who read it then would hold more than its vector says, and rings would differ at equal vectors. So who asks
//! meanwhile waits until the snapshot that comes here has ended. Nobody waits in a circle: others are put off only once
//! parts come in, so what comes has been read already and waits for nobody. What does not come any more is given up after
//! some ticks, and so is what waits for it: then another is asked.
//!
//! A snapshot that breaks off leaves what came of it; whether the rest ever comes is not known, so others are served
//! again. Until it does a scrub may find rings different, and joins them.
//!
//! Bounds: one snapshot comes at a time; one request of each link waits.

use super::{Effect, Replica};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::message::{Coverage, Entries, Message};
use crate::replica::version::{BLOCKS, FRAMES, VersionVector};

/// A snapshot of which nothing came for so many ticks is given up, and asked for anew.
pub(super) const PATIENCE: u8 = 2;

/// A snapshot on its way here.
#[derive(Debug)]
pub(super) struct Session {
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

impl Replica {
    /// Takes a snapshot of some partitions, unless one is on its way.
    pub(super) fn take_over(&mut self, from: NodeId, partitions: Vec<Partition>, effects: &mut Vec<Effect>) {
        if self.session.is_none() && !partitions.is_empty() {
            self.session = Some(Session::new(from));
            self.counts.snapshots += 1;
            effects.push(Effect::Send(from, Message::WantSnapshot { partitions }));
        }
    }

    /// The log of a peer begins behind the frame that is held. Its blocks may be here all the same, through others.
    pub(super) fn falls_behind(
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

    /// At a tick: what falls silent is given up.
    pub(super) fn lose_patience(&mut self) -> Vec<Effect> {
        let Some(session) = self.session.as_mut().filter(|session| !session.complete) else {
            return Vec::new();
        };
        session.quiet += 1;
        if session.quiet > PATIENCE { self.give_up() } else { Vec::new() }
    }

    /// The link to a peer is gone, and with it what was to come over it.
    pub(super) fn lose(&mut self, node: NodeId) -> Vec<Effect> {
        let comes = self.session.as_ref().is_some_and(|session| session.from == node && !session.complete);
        if comes { self.give_up() } else { Vec::new() }
    }

    /// Forgets a snapshot that will not become whole. Peers that were held up by it are told to go on.
    fn give_up(&mut self) -> Vec<Effect> {
        self.counts.broken_off += u64::from(self.is_joining());
        self.session = None;
        self.wanted.clear();
        self.resume_all()
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

    /// All parts of a read were sent, and they cover this.
    pub(super) fn end(&mut self, from: NodeId, read: u64, parts: u64, coverage: Coverage) -> Vec<Effect> {
        let session = self.session.as_mut().filter(|session| session.from == from);
        let Some(session) = session.filter(|session| !session.complete && read >= session.read) else {
            return Vec::new();
        };
        session.turn_to(read);
        session.end = Some((parts, coverage));
        session.complete().map(Effect::Adopt).into_iter().collect()
    }

    #[cfg(test)]
    /// Whether a snapshot is on its way here from a peer.
    pub fn is_taking_over(&self, from: NodeId) -> bool {
        self.session.as_ref().is_some_and(|session| session.from == from && !session.complete)
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

    /// The host is about to begin the read that [`Effect::Snapshot`] asks for: its number. `None` when it may not be read
    /// now; the effect comes again. Until the read has begun, the host does nothing else with this value.
    pub fn begin_read(&mut self, to: NodeId, partitions: &[Partition]) -> Option<u64> {
        if self.is_joining() {
            let link = self.link(to)?;
            link.put_off = Some(partitions.to_vec());
            self.counts.put_off += 1;
            return None;
        }
        self.reads += 1;
        Some(self.reads)
    }

    /// Whether memory may hold parts of a snapshot that does not count yet.
    pub fn is_joining(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.joined)
    }

    /// What was put off, now that no snapshot is on its way here.
    pub(super) fn put_off(&mut self) -> Vec<Effect> {
        let links = self
            .peers
            .iter_mut()
            .filter_map(|(node, peer)| Some((*node, peer.link.as_mut()?.put_off.take()?)));
        links.map(|(to, partitions)| Effect::Snapshot { to, partitions }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{B, C, D, behind, coverage, end, replica};
    use super::*;

    fn asks(replica: &mut Replica, node: NodeId) -> Vec<Effect> {
        replica.message(node, Message::WantSnapshot { partitions: vec![Partition(5)] })
    }

    fn serves(to: NodeId) -> Effect {
        Effect::Snapshot { to, partitions: vec![Partition(5)] }
    }

    /// A replica that has joined the first part of a snapshot of B.
    fn joining() -> Replica {
        let mut replica = replica();
        replica.message(B.node, behind());
        assert!(replica.expects_part(B.node, 1, 0));
        replica.part(B.node, 1, 0);
        replica
    }

    /// A seed in seventy thousand found it: chunks of parts that were joined went on to a third node, whose ring then
    /// differed from others at equal vectors.
    #[test]
    fn who_asks_while_parts_come_in_waits_until_they_count() {
        let mut replica = joining();
        assert_eq!(asks(&mut replica, C.node), [serves(C.node)]);
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
        assert_eq!(replica.message(B.node, end(1, 1, 7)), [Effect::Adopt(coverage(7))]);
        assert!(replica.is_joining(), "it is not durable yet");
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
        let effects = replica.adopted(&coverage(7));
        assert_eq!(effects.iter().filter(|effect| **effect == serves(C.node)).count(), 1, "{effects:?}");
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), Some(1));
        assert_eq!(replica.counts().put_off, 2);
        assert!(!replica.tick().contains(&serves(C.node)), "only once");
    }

    #[test]
    fn nobody_waits_before_a_part_has_come() {
        let mut replica = replica();
        replica.message(B.node, behind());
        assert!(!replica.expects_part(C.node, 1, 0) && !replica.expects_part(B.node, 1, 1));
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), Some(1), "they may wait for each other");
        assert_eq!(replica.begin_read(B.node, &[Partition(5)]), Some(2));
        // The host looks, then joins, then says so.
        assert!(replica.expects_part(B.node, 1, 0));
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
    }

    #[test]
    fn who_waits_is_served_when_the_snapshot_breaks_off() {
        let mut replica = joining();
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
        assert!(replica.unlinked(B.node).contains(&serves(C.node)));
        let mut replica = joining();
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
        let mut ticks = (0..=PATIENCE).map(|_| replica.tick());
        assert!(ticks.any(|effects| effects.contains(&serves(C.node))), "it falls silent");
        assert_eq!(replica.counts().broken_off, 1);
    }

    #[test]
    fn who_is_gone_waits_no_more() {
        let mut replica = joining();
        assert_eq!(replica.begin_read(D.node, &[Partition(5)]), None, "there is no link");
        assert_eq!(replica.begin_read(C.node, &[Partition(5)]), None);
        replica.unlinked(C.node);
        replica.linked(C.node, C.start + 1);
        replica.message(B.node, end(1, 1, 7));
        let effects = replica.adopted(&coverage(7));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Snapshot { .. })), "{effects:?}");
    }
}
