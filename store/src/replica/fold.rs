//! Folding: the columns that origins of past starts have in a version vector become one.
//!
//! A stand-in takes their place: an origin that never writes, held up to block 1 in each partition in which they had
//! blocks. Invariant: who holds a stand-in's block holds all that it stands for. So no log has it; it is had by folding
//! what is held alike, or with a snapshot of the partition. Whoever lacks some of what was folded, for however long it
//! was away, therefore lacks the stand-in too, and vectors say so.

use serde::{Deserialize, Serialize};

use super::version::{VersionVector, stir};
use crate::model::ids::{NodeId, Origin};

/// The node of stand-ins: none.
pub(super) const NOBODY: NodeId = NodeId(0);

/// Origins that are folded, and how far they had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Which, in order.
    pub origins: Vec<Origin>,
    /// Hash over all of their blocks.
    pub hash: u64,
}

impl Fold {
    /// A fold of these origins as a vector has them.
    pub fn new(mut origins: Vec<Origin>, versions: &VersionVector) -> Self {
        origins.sort_unstable();
        let hash = versions.hash_of(&origins);
        Self { origins, hash }
    }

    /// Whether a vector has them alike.
    pub fn fits(&self, versions: &VersionVector) -> bool {
        versions.hash_of(&self.origins) == self.hash
    }

    /// What stands for them. It follows from them, so nodes that fold the same at once need not agree on a name.
    pub fn stand_in(&self) -> Origin {
        let origins = self.origins.iter().flat_map(|origin| [origin.node.0, origin.start]);
        Origin { node: NOBODY, start: stir(std::iter::once(self.hash).chain(origins)) }
    }
}
