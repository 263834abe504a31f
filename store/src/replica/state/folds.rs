//! When closed origins are folded, and that no node takes a fold for more than it holds.
//!
//! A node folds what has become durable alike on all nodes that it is linked with: it asks them, and when all have
//! agreed it folds and says so, and they fold the same. Nothing depends on that agreement but traffic: to whom it was
//! not told, or who holds something else, lacks the stand-in, and takes a snapshot (see [`crate::replica::fold`]).
//!
//! Bounds: [`CLOSED`] closed origins stay as they are, twice as many while a node is away that was met in this run, or
//! that one of them is of. Who was away while more than one fold was made takes a snapshot.

use std::collections::BTreeSet;

use super::{Effect, Replica};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::fold::{Fold, NOBODY};
use crate::replica::frame::Block;
use crate::replica::message::Message;
use crate::replica::version::Columns;

/// Columns of closed origins in a vector; when there are more, they are folded.
const CLOSED: usize = 16;
/// For so many ticks, peers that have not folded yet are not thought to have more.
const PATIENCE: u8 = 6;

/// What a replica folds.
#[derive(Debug)]
pub(super) struct Folds {
    /// Closed origins that stay as they are.
    pub closed: usize,
    /// What the peers were asked about, and who has not answered.
    asked: Option<(Fold, BTreeSet<NodeId>)>,
    /// What is being made durable.
    folding: Option<Fold>,
    /// The columns that were folded last: what a peer still says of them is held here.
    folded: Columns,
    /// Ticks until they are forgotten.
    patience: u8,
    /// The last fold of this run.
    last: Option<Fold>,
}

impl Default for Folds {
    fn default() -> Self {
        Self {
            closed: CLOSED,
            asked: None,
            folding: None,
            folded: Columns::default(),
            patience: 0,
            last: None,
        }
    }
}

impl Replica {
    /// So many closed origins stay as they are.
    #[cfg(any(test, feature = "sim"))]
    pub fn set_closed(&mut self, closed: usize) {
        self.folds.closed = closed;
    }

    /// The link to a peer speaks of folds: it is told of the one that it may have missed.
    pub fn speaks_of_folds(&mut self, node: NodeId) -> Vec<Effect> {
        let Some(link) = self.link(node) else { return Vec::new() };
        link.folds = true;
        let last = self.folds.last.iter().cloned();
        last.map(|fold| Effect::Send(node, Message::Closed { fold, folded: true })).collect()
    }

    /// At a tick: what is closed is folded where there is much of it.
    pub(super) fn tidy(&mut self) -> Vec<Effect> {
        self.folds.asked = None;
        if self.folds.folding.is_none() {
            self.folds.patience = self.folds.patience.saturating_sub(1);
            if self.folds.patience == 0 {
                self.folds.folded = Columns::default();
            }
        }
        let links: BTreeSet<_> = self.links().collect();
        // One asks; if two do, they ask the same.
        let asks = links.first().is_none_or(|first| self.me.node < *first);
        let speak = self.peers.values().filter_map(|peer| peer.link.as_ref()).all(|link| link.folds);
        if !asks || !speak || self.joining || self.folds.folding.is_some() || self.session.is_some() {
            return Vec::new();
        }
        let Some(closed) = self.too_many_closed() else { return Vec::new() };
        let fold = Fold::new(closed, &self.durable);
        if links.is_empty() {
            return self.begin_fold(fold);
        }
        let ask = |node: &NodeId| Effect::Send(*node, Message::Closed { fold: fold.clone(), folded: false });
        let effects = links.iter().map(ask).collect();
        self.folds.asked = Some((fold, links));
        effects
    }

    /// The closed origins, when there are more than may stay. The last run of a node that is away may still write.
    fn too_many_closed(&self) -> Option<Vec<Origin>> {
        let may_write = |origin: &Origin| {
            let last = self.peers.get(&origin.node).and_then(|peer| peer.run);
            self.is_open(*origin) || last == Some(origin.start)
        };
        let closed: Vec<_> = self.durable.origins().filter(|origin| !may_write(origin)).collect();
        let is_here = |node: NodeId| {
            let peer = self.peers.get(&node);
            node == self.me.node || node == NOBODY || peer.is_some_and(|peer| peer.link.is_some())
        };
        let mut known = closed.iter().map(|origin| origin.node).chain(self.peers.keys().copied());
        let most = self.folds.closed * if known.all(is_here) { 1 } else { 2 };
        (closed.len() > most).then_some(closed)
    }

    #[cfg(any(test, feature = "sim"))]
    /// Whether there are no more closed origins than may stay.
    pub fn is_tidy(&self) -> bool {
        self.too_many_closed().is_none()
    }

    /// Whether it writes, as far as is known here.
    fn is_open(&self, origin: Origin) -> bool {
        origin == self.me || self.streams(origin)
    }

    /// A peer says what is closed.
    pub(super) fn closed(&mut self, from: NodeId, fold: Fold, folded: bool) -> Vec<Effect> {
        let open = fold.origins.iter().any(|origin| self.is_open(*origin));
        if open || !self.durable.of(fold.stand_in()).is_empty() || self.folds.folding.is_some() {
            return Vec::new();
        }
        let alike = self.may_fold(&fold);
        match (alike, folded) {
            (true, false) => vec![Effect::Send(from, Message::Alike(fold))],
            (true, true) => self.begin_fold(fold),
            (false, false) => Vec::new(),
            (false, true) => {
                self.counts.folds_missed += 1;
                Vec::new()
            }
        }
    }

    /// A peer has the same.
    pub(super) fn alike(&mut self, from: NodeId, fold: &Fold) -> Vec<Effect> {
        let Some((asked, waits)) = self.folds.asked.as_mut().filter(|asked| asked.0 == *fold) else {
            return Vec::new();
        };
        waits.remove(&from);
        if !waits.is_empty() {
            return Vec::new();
        }
        let fold = asked.clone();
        self.folds.asked = None;
        self.begin_fold(fold)
    }

    /// Whether all of it is durable, nothing more is on its way, and no snapshot is that might bring more.
    fn may_fold(&self, fold: &Fold) -> bool {
        self.session.is_none() && (fold.fits(&self.durable) && fold.fits(&self.held) || self.folds_unlike())
    }

    fn begin_fold(&mut self, fold: Fold) -> Vec<Effect> {
        if !self.may_fold(&fold) || self.folds.folding.is_some() {
            return Vec::new();
        }
        self.wanted.retain(|(_, origin), _| !fold.origins.contains(origin));
        self.folds.folded = self.held.fold(&fold);
        self.folds.patience = PATIENCE;
        self.folds.folding = Some(fold.clone());
        vec![Effect::Fold(fold)]
    }

    /// A fold is durable ([`crate::replica::version::VersionVector::fold`]).
    pub fn folded(&mut self, fold: &Fold) -> Vec<Effect> {
        self.folds.folding = None;
        self.counts.folds += 1;
        self.counts.origins_folded += fold.origins.len() as u64;
        self.durable.fold(fold);
        for origin in &fold.origins {
            if self.is_open(*origin) {
                self.folds.folded.forget(*origin);
            }
        }
        self.folds.last = Some(fold.clone());
        let links = self.peers.iter().filter(|(_, peer)| peer.link.as_ref().is_some_and(|link| link.folds));
        let tell = |node: &NodeId| Effect::Send(*node, Message::Closed { fold: fold.clone(), folded: true });
        let mut effects: Vec<_> = links.map(|(node, _)| tell(node)).collect();
        effects.extend(self.roots());
        effects
    }

    /// An origin that was folded writes after all, or still: its frames come from the first one on.
    pub(super) fn unfold(&mut self, origin: Origin) {
        if self.folds.folding.is_none() {
            self.folds.folded.forget(origin);
        }
    }

    /// Whether blocks up to this one were folded lately, here: a peer that names them has not done so yet.
    pub(super) fn is_folded(&self, partition: Partition, origin: Origin, last: u64) -> bool {
        let all = self.folds_unlike() && self.folds.last.iter().any(|fold| fold.origins.contains(&origin));
        all || self.folds.folded.last(partition, origin) >= last
    }

    /// Whether nothing of an origin may be taken now: its fold is made durable, and what is taken meanwhile would be
    /// counted with it.
    pub(super) fn is_folding(&self, origin: Origin) -> bool {
        self.folds.folding.as_ref().is_some_and(|fold| fold.origins.contains(&origin))
    }

    /// Whether a block is on its way that was asked for before it was folded.
    pub(super) fn comes_late(&self, origin: Origin, block: &Block) -> bool {
        self.is_folded(block.partition, origin, block.number)
            && !self.wanted.contains_key(&(block.partition, origin))
    }

    /// Whether a fold is taken for all of its origins, whatever was held of them.
    #[cfg(feature = "sim")]
    fn folds_unlike(&self) -> bool {
        self.unlike_folds
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "with the feature `sim` it looks")]
    fn folds_unlike(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
