//! Blocks of others: which are taken, and which are asked for.
//!
//! A block is taken only when all blocks of its origin and partition before it are held. Frames of a live origin come over
//! its own link; what is missing of any other is wanted from whoever has it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Effect, Missing, Replica, Taken, Wanted};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::frame::{Block, Frame, reduce};
use crate::replica::message::{Entries, Message};
use crate::replica::version::{BLOCKS, FRAMES, Offer};

impl Replica {
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
                reduce(&bytes, taken).unwrap_or_default().into()
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
    pub(super) fn missing(
        &self,
        from: NodeId,
        origin: Origin,
        mut partitions: Vec<Partition>,
    ) -> Vec<Partition> {
        partitions.retain(|partition| {
            self.wanted.get(&(*partition, origin)).is_some_and(|wanted| wanted.from == from)
        });
        partitions
    }

    /// Looks for blocks that a peer has and this node lacks. Those of an origin that is linked come by themselves.
    pub(super) fn compare(
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
    pub(super) fn streams(&self, origin: Origin) -> bool {
        let link = self.peers.get(&origin.node).and_then(|peer| peer.link.as_ref());
        link.is_some_and(|link| link.start == origin.start)
    }
}
