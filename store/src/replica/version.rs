//! Version vectors: for each partition and origin, the last block held, without gaps.

use std::collections::BTreeMap;

use crate::model::ids::{Origin, PARTITIONS, Partition};
use crate::replica::fold::Fold;
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

/// The last block of some origins in every partition; numbers start at 1. A column for each origin: a frame touches many
/// partitions of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<Origin, Box<[u64]>>);

impl Columns {
    /// The last block; 0 for none.
    pub fn last(&self, partition: Partition, origin: Origin) -> u64 {
        let column = self.0.get(&origin);
        column.and_then(|column| column.get(usize::from(partition.0))).copied().unwrap_or(0)
    }

    /// Forgets an origin.
    pub fn forget(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }

    /// Every entry: partition, origin, last block.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        self.0.iter().flat_map(|(origin, column)| {
            let held = column.iter().enumerate().filter(|(_, last)| **last > 0);
            held.map(|(partition, last)| (Partition(partition as u16), *origin, *last))
        })
    }
}

/// The last block held of every origin in every partition.
///
/// The hashes are sums over entries and kept up to date, so that comparing vectors every few seconds costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector {
    columns: Columns,
    /// For each partition with blocks, the sum of its entries' hashes; empty while there are none.
    hashes: Vec<u64>,
    /// Sum over all of these.
    root: u64,
}

impl VersionVector {
    /// The last block held; 0 for none.
    pub fn last(&self, partition: Partition, origin: Origin) -> u64 {
        self.columns.last(partition, origin)
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

    /// Takes the next number for a block of our own.
    pub fn next(&mut self, partition: Partition, origin: Origin) -> u64 {
        let next = self.last(partition, origin) + 1;
        self.advance(partition, origin, next);
        next
    }

    /// Notes that all blocks up to `number` are held.
    pub fn advance(&mut self, partition: Partition, origin: Origin, number: u64) {
        // A partition comes from a hash or a decoder, both of which stay below `FRAMES`.
        let partition = partition.0.min(FRAMES.0);
        let column = self.columns.0.entry(origin);
        let column = column.or_insert_with(|| vec![0; usize::from(FRAMES.0) + 1].into());
        let last = &mut column[usize::from(partition)];
        if number <= *last {
            return;
        }
        let before = std::mem::replace(last, number);
        if partition < BLOCKS {
            self.hashes.resize(usize::from(BLOCKS), 0);
            let gone = if before == 0 { 0 } else { entry_hash(partition, origin, before) };
            let change = entry_hash(partition, origin, number).wrapping_sub(gone);
            let hash = &mut self.hashes[usize::from(partition)];
            *hash = hash.wrapping_add(change);
            self.root = self.root.wrapping_add(change);
        }
    }

    /// All origins of which something is held.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        self.columns.0.keys().copied()
    }

    /// Hash over all blocks of some origins.
    pub fn hash_of(&self, origins: &[Origin]) -> u64 {
        let blocks = origins.iter().flat_map(|origin| {
            self.of(*origin).into_iter().map(|(partition, last)| entry_hash(partition.0, *origin, last))
        });
        blocks.fold(0, u64::wrapping_add)
    }

    fn remove(&mut self, origins: &[Origin]) -> Columns {
        let mut removed = Columns::default();
        for origin in origins {
            let of_blocks = self.of(*origin);
            let Some(column) = self.columns.0.remove(origin) else { continue };
            removed.0.insert(*origin, column);
            for (partition, last) in of_blocks {
                let hash = entry_hash(partition.0, *origin, last);
                let of_partition = &mut self.hashes[usize::from(partition.0)];
                *of_partition = of_partition.wrapping_sub(hash);
                self.root = self.root.wrapping_sub(hash);
            }
        }
        removed
    }

    /// Puts the stand-in of a fold in the place of its origins, and returns their columns.
    pub fn fold(&mut self, fold: &Fold) -> Columns {
        let (stand_in, removed) = (fold.stand_in(), self.remove(&fold.origins));
        for (partition, _, _) in removed.iter().filter(|entry| entry.0.0 < BLOCKS) {
            self.advance(partition, stand_in, 1);
        }
        removed
    }

    /// Every entry: partition, origin, last block.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        self.columns.iter()
    }

    /// The entries of one partition.
    pub fn entries(&self, partition: Partition) -> Entries {
        let lasts = self.columns.0.keys().map(|origin| (*origin, self.last(partition, *origin)));
        lasts.filter(|(_, last)| *last > 0).collect()
    }

    /// The last block of one origin in each partition.
    pub fn of(&self, origin: Origin) -> Vec<(Partition, u64)> {
        let column = self.columns.0.get(&origin).map_or(&[][..], |column| &column[..usize::from(BLOCKS)]);
        let held = (0..).zip(column).filter(|(_, last)| **last > 0);
        held.map(|(partition, last)| (Partition(partition), *last)).collect()
    }

    /// A hash of one partition's entries: equal for equal ones.
    pub fn hash(&self, partition: Partition) -> u64 {
        self.hashes.get(usize::from(partition.0)).copied().unwrap_or(0)
    }

    /// The hashes of all partitions that hold blocks.
    pub fn digest(&self) -> Vec<u64> {
        let mut digest = self.hashes.clone();
        digest.resize(usize::from(BLOCKS), 0);
        digest
    }

    /// A hash over all blocks.
    pub fn root(&self) -> u64 {
        self.root
    }
}

/// Sums of these tell vectors apart.
fn entry_hash(partition: u16, origin: Origin, last: u64) -> u64 {
    stir([u64::from(partition), origin.node.0, origin.start, last])
}

/// A hash: every word stirred in by the finalizer of `SplitMix64`.
pub(super) fn stir(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0, |hash, word| {
        let mut mixed = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
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
        assert_eq!(a.digest(), b.digest());
        assert_eq!(b.entries(Partition(3)), [(origin(1), 5), (origin(2), 6)]);
        assert_eq!(b.of(origin(1)), [(Partition(3), 5)]);
    }

    #[test]
    fn a_hash_is_that_of_the_entries_whatever_steps_led_there() {
        let origin = Origin { node: NodeId(1), start: 2 };
        let (mut steps, mut leap) = (VersionVector::default(), VersionVector::default());
        for number in 1..=9 {
            steps.advance(Partition(4), origin, number);
        }
        leap.advance(Partition(4), origin, 9);
        assert_eq!(steps, leap);
        leap.advance(Partition(5), origin, 9);
        assert_ne!(leap.hash(Partition(4)), leap.hash(Partition(5)));
        assert_ne!(steps.root(), leap.root());
        assert_eq!(VersionVector::default().digest().len(), usize::from(BLOCKS));
    }

    #[test]
    fn a_fold_leaves_one_origin_where_there_were_several() {
        let origin = |start| Origin { node: NodeId(1), start };
        let mut versions = VersionVector::default();
        versions.advance(Partition(3), origin(1), 5);
        versions.advance(Partition(3), origin(2), 6);
        versions.advance(Partition(4), origin(2), 1);
        versions.advance(FRAMES, origin(2), 9);
        versions.advance(Partition(3), origin(3), 7);
        let fold = Fold::new(vec![origin(2), origin(1)], &versions);
        assert!(fold.fits(&versions));
        versions.fold(&fold);
        assert!(!fold.fits(&versions));
        let stand_in = fold.stand_in();
        let mut expected = VersionVector::default();
        expected.advance(Partition(3), origin(3), 7);
        expected.advance(Partition(3), stand_in, 1);
        expected.advance(Partition(4), stand_in, 1);
        assert_eq!(versions, expected, "hashes too are those of the entries");
        let mut longer = versions.clone();
        longer.advance(Partition(3), origin(1), 6);
        assert_ne!(Fold::new(fold.origins.clone(), &longer).stand_in(), stand_in);
    }
}
