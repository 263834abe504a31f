//! Snapshots that others ask for: none is read while parts of one are joined here.
//!
//! What is joined is in the rings before the vector counts it, and a checkpoint may write it out. Who read it then would
//! hold more than its vector says, and rings would differ at equal vectors. So who asks meanwhile waits until the
//! snapshot that comes here has ended. Nobody waits in a circle: others are put off only once parts come in, so what
//! comes has been read already and waits for nobody. What does not come any more is given up after some ticks, and so is
//! what waits for it: then another is asked.
//!
//! A snapshot that breaks off leaves what came of it; whether the rest ever comes is not known, so others are served
//! again. Until it does a scrub may find rings different, and joins them.
//!
//! Bounds: one request of each link waits.

use super::{Effect, Replica};
use crate::model::ids::{NodeId, Partition};

impl Replica {
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
    use crate::replica::message::Message;
    use crate::replica::state::PATIENCE;

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
