//! Version vectors: for each partition and origin, the last block held, without gaps.

use std::collections::BTreeMap;

use crate::model::ids::{Origin, PARTITIONS, Partition};
use crate::replica::message::Entries;

/// Not a partition: in it stands, for each origin, the last frame held without gaps.
pub const FRAMES: Partition = Partition(PARTITIONS + 1);
/// Partitions with blocks: those of samples, and the registry's.
pub const BLOCKS: u16 = PARTITIONS + 1;

/// What to do with a block that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is the next one.
    Accept,
    /// It is held already.
    Held,
    /// Blocks from this number on are missing before it.
    Gap(u64),
}

/// The last block held of every origin in every partition; numbers start at 1. A column for each origin: a frame
/// touches many partitions of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<Origin, Box<[u64]>>);

impl VersionVector {
    /// The last block held; 0 for none.
    pub fn last(&self, partition: Partition, origin: Origin) -> u64 {
        self.0.get(&origin).and_then(|column| column.get(usize::from(partition.0))).copied().unwrap_or(0)
    }

    /// Whether block `number` is the next.
    pub fn offer(&self, partition: Partition, origin: Origin, number: u64) -> Offer {
        let last = self.last(partition, origin);
        match number {
            _ if number <= last => Offer::Held,
            _ if number == last + 1 => Offer::Accept,
            _ => Offer::Gap(last + 1),
        }
    }

    fn place(&mut self, partition: Partition, origin: Origin) -> &mut u64 {
        let column = self.0.entry(origin).or_insert_with(|| vec![0; usize::from(FRAMES.0) + 1].into());
        // A partition comes from a hash or a decoder, both of which stay below `FRAMES`.
        &mut column[usize::from(partition.0.min(FRAMES.0))]
    }

    /// Takes the next number for a block of our own.
    pub fn next(&mut self, partition: Partition, origin: Origin) -> u64 {
        let last = self.place(partition, origin);
        *last += 1;
        *last
    }

    /// Notes that all blocks up to `number` are held.
    pub fn advance(&mut self, partition: Partition, origin: Origin, number: u64) {
        let last = self.place(partition, origin);
        *last = number.max(*last);
    }

    /// Every entry: partition, origin, last block.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        self.0.iter().flat_map(|(origin, column)| {
            let held = column.iter().enumerate().filter(|(_, last)| **last > 0);
            held.map(|(partition, last)| (Partition(partition as u16), *origin, *last))
        })
    }

    /// The entries of one partition.
    pub fn entries(&self, partition: Partition) -> Entries {
        self.of(partition).collect()
    }

    fn of(&self, partition: Partition) -> impl Iterator<Item = (Origin, u64)> + '_ {
        let held = move |(origin, column): (&Origin, &Box<[u64]>)| {
            column.get(usize::from(partition.0)).filter(|last| **last > 0).map(|last| (*origin, *last))
        };
        self.0.iter().filter_map(held)
    }

    /// A hash of one partition's entries: equal for equal ones.
    pub fn hash(&self, partition: Partition) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for (origin, last) in self.of(partition) {
            hasher.update(&origin.node.0.to_le_bytes());
            hasher.update(&origin.start.to_le_bytes());
            hasher.update(&last.to_le_bytes());
        }
        short(&hasher)
    }

    /// The hashes of all partitions that hold blocks.
    pub fn digest(&self) -> Vec<u64> {
        (0..BLOCKS).map(|partition| self.hash(Partition(partition))).collect()
    }

    /// A hash over everything.
    pub fn root(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for hash in self.digest() {
            hasher.update(&hash.to_le_bytes());
        }
        short(&hasher)
    }
}

fn short(hasher: &blake3::Hasher) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;

    #[test]
    fn blocks_are_taken_in_order_only() {
        let (partition, origin) = (Partition(3), Origin { node: NodeId(1), start: 2 });
        let mut versions = VersionVector::default();
        assert_eq!(versions.offer(partition, origin, 2), Offer::Gap(1));
        assert_eq!(versions.offer(partition, origin, 1), Offer::Accept);
        assert_eq!(versions.next(partition, origin), 1);
        assert_eq!(versions.offer(partition, origin, 1), Offer::Held);
        versions.advance(partition, origin, 9);
        assert_eq!(versions.offer(partition, origin, 12), Offer::Gap(10));
        assert_eq!(versions.iter().count(), 1);
    }

    #[test]
    fn equal_vectors_have_equal_hashes_whatever_was_held_of_frames() {
        let origin = |start| Origin { node: NodeId(1), start };
        let (mut a, mut b) = (VersionVector::default(), VersionVector::default());
        a.advance(Partition(3), origin(1), 5);
        a.advance(Partition(3), origin(2), 6);
        b.advance(Partition(3), origin(2), 6);
        assert_ne!(a.root(), b.root());
        b.advance(Partition(3), origin(1), 5);
        b.advance(FRAMES, origin(1), 5);
        assert_eq!(a.root(), b.root());
        assert_eq!(b.entries(Partition(3)), [(origin(1), 5), (origin(2), 6)]);
    }
}
