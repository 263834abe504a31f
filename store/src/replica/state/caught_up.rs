//! Whether a node has caught up: everything is durable here that its peers had when they were met.
//!
//! What a peer had may be folded since, there or here: then its stand-in is what is lacking.

use super::Replica;
use crate::model::ids::{NodeId, Partition};
use crate::replica::fold::NOBODY;
use crate::replica::message::Entries;
use crate::replica::version::VersionVector;

/// Whether a vector lacks some of these blocks.
fn lacks(versions: &VersionVector, (partition, entries): &(Partition, Entries)) -> bool {
    entries.iter().any(|(origin, last)| versions.last(*partition, *origin) < *last)
}

impl Replica {
    /// Whether everything is here that the peers held when they were met.
    pub fn is_caught_up(&self) -> bool {
        let mut links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        self.session.is_none() && links.all(|link| link.ahead.as_ref().is_some_and(Vec::is_empty))
    }

    /// What a peer has of partitions that differ: the first time that is what there is to catch up with.
    pub(super) fn note_ahead(&mut self, from: NodeId, mut theirs: Vec<(Partition, Entries)>) {
        let Some(link) = self.peers.get_mut(&from).and_then(|peer| peer.link.as_mut()) else { return };
        if let Some(ahead) = &mut link.ahead {
            for (partition, entries) in ahead.iter_mut() {
                let Some((_, now)) = theirs.iter().find(|theirs| theirs.0 == *partition) else { continue };
                let before = entries.len();
                entries.retain(|(origin, _)| now.iter().any(|now| now.0 == *origin));
                if entries.len() < before {
                    entries.extend(now.iter().filter(|now| now.0.node == NOBODY));
                }
            }
        } else {
            theirs.retain(|theirs| lacks(&self.durable, theirs));
            link.ahead = Some(theirs);
        }
        self.catch_up();
    }

    /// A peer has the same as this node in all partitions but these.
    pub(super) fn note_equal(&mut self, from: NodeId, partitions: &[Partition]) {
        if let Some(ahead) = self.link(from).and_then(|link| link.ahead.as_mut()) {
            ahead.retain(|(partition, _)| partitions.contains(partition));
        }
    }

    /// Forgets what has become durable of what there was to catch up with.
    pub(super) fn catch_up(&mut self) {
        let links = self.peers.values_mut().filter_map(|peer| peer.link.as_mut());
        for ahead in links.filter_map(|link| link.ahead.as_mut()) {
            ahead.retain(|theirs| lacks(&self.durable, theirs));
        }
    }
}
