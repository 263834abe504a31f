//! Placement: which nodes keep a partition. Rendezvous hashing over node names with a pinned hash (BLAKE3), so every
//! node comes to the same answer in every release, and a node that comes or goes moves only its share.
//!
//! Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.

use std::collections::BTreeMap;

use crate::model::ids::{NodeName, Partition, RoomId};
use crate::replica::frame::REGISTRY;
use crate::replica::version::BLOCKS;

/// The weight of a node for a partition; the highest keep it.
fn weight(node: &NodeName, partition: Partition) -> u64 {
    weight_for(node, &partition.0.to_le_bytes())
}

fn weight_for(node: &NodeName, what: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what);
    hasher.update(node.as_str().as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// The nodes of a cluster in the order in which they keep `partition`: the first `replicas` do, the first of all does
/// what only one may do.
pub fn ranked<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, partition: Partition) -> Vec<&'a NodeName> {
    let mut ranked: Vec<_> = nodes.into_iter().map(|node| (weight(node, partition), node)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// The node that does for a room what only one may do.
pub fn first<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, room: &RoomId) -> Option<&'a NodeName> {
    nodes.into_iter().max_by_key(|node| (weight_for(node, room.as_str().as_bytes()), *node))
}

/// Whether `node` is among the `replicas` nodes that keep `partition`.
pub fn keeps<'a>(
    node: &NodeName,
    nodes: impl IntoIterator<Item = &'a NodeName>,
    partition: Partition,
    replicas: usize,
) -> bool {
    let own = (weight(node, partition), node);
    let before = nodes.into_iter().filter(|other| (weight(other, partition), *other) > own).count();
    before < replicas
}

/// Which node keeps what, worked out once for a set of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement(BTreeMap<NodeName, Vec<bool>>);

impl Placement {
    /// `replicas` of the nodes keep each partition of samples; the registry's every node keeps.
    pub fn new(nodes: &[NodeName], replicas: usize) -> Self {
        let row = |node: &NodeName| {
            let kept = |partition| partition == REGISTRY || keeps(node, nodes, partition, replicas);
            (node.clone(), (0..BLOCKS).map(|partition| kept(Partition(partition))).collect())
        };
        Self(nodes.iter().map(row).collect())
    }

    /// Whether a node keeps a partition. One that is not placed yet gets everything.
    pub fn keeps(&self, node: &NodeName, partition: Partition) -> bool {
        self.0.get(node).is_none_or(|row| row.get(usize::from(partition.0)).copied().unwrap_or(false))
    }

    /// Whether a node keeps all partitions.
    pub fn keeps_all(&self, node: &NodeName) -> bool {
        self.0.get(node).is_none_or(|row| row.iter().all(|kept| *kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::PARTITIONS;

    fn names(count: usize) -> Vec<NodeName> {
        (0..count).map(|index| NodeName::new(&format!("node-{index}")).unwrap()).collect()
    }

    #[test]
    fn the_order_is_pinned() {
        let names = names(4);
        let order: Vec<_> = ranked(&names, Partition(7)).into_iter().map(NodeName::as_str).collect();
        assert_eq!(order, ["node-3", "node-0", "node-2", "node-1"]);
        let firsts =
            ["r1", "r2", "r3"].map(|room| first(&names, &RoomId::new(room).unwrap()).unwrap().as_str());
        assert_eq!(firsts, ["node-0", "node-1", "node-2"]);
    }

    #[test]
    fn each_keeps_its_share_and_a_newcomer_moves_only_its_own() {
        let (ten, eleven) = (names(10), names(11));
        let (mut shares, mut moved) = (vec![0; 10], 0);
        for partition in (0..PARTITIONS).map(Partition) {
            let before = &ranked(&ten, partition)[..3];
            let after = &ranked(&eleven, partition)[..3];
            for (index, node) in ten.iter().enumerate() {
                assert_eq!(before.contains(&node), keeps(node, &ten, partition, 3));
                shares[index] += usize::from(before.contains(&node));
            }
            let new = after.iter().filter(|node| !before.contains(node)).count();
            assert!(new == 0 || after.contains(&&eleven[10]), "only the newcomer takes over");
            moved += new;
        }
        assert!(shares.iter().all(|share| (230..=390).contains(share)), "{shares:?}");
        assert!((180..=380).contains(&moved), "{moved} of 3072 moved");
    }

    #[test]
    fn with_as_many_nodes_as_replicas_all_keep_all() {
        let names = names(3);
        for partition in (0..PARTITIONS).map(Partition) {
            assert!(names.iter().all(|node| keeps(node, &names, partition, 3)));
        }
        let placement = Placement::new(&names, 3);
        assert!(names.iter().all(|node| placement.keeps_all(node)));
        let placement = Placement::new(&names, 2);
        let kept = |node: &NodeName| (0..PARTITIONS).filter(|p| placement.keeps(node, Partition(*p))).count();
        assert_eq!(names.iter().map(kept).sum::<usize>(), 2 * usize::from(PARTITIONS));
        assert!(names.iter().all(|node| placement.keeps(node, REGISTRY) && !placement.keeps_all(node)));
    }
}
