//! Version vectors: for each partition and origin, the last block held, without gaps.

use std::collections::BTreeMap;

use crate::model::ids::{Origin, Partition};

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

/// The last block held of every origin in every partition; numbers start at 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<(Partition, Origin), u64>);

impl VersionVector {
    /// The last block held; 0 for none.
    pub fn last(&self, partition: Partition, origin: Origin) -> u64 {
        self.0.get(&(partition, origin)).copied().unwrap_or(0)
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
        let last = self.0.entry((partition, origin)).or_insert(0);
        *last += 1;
        *last
    }

    /// Notes that all blocks up to `number` are held.
    pub fn advance(&mut self, partition: Partition, origin: Origin, number: u64) {
        let last = self.0.entry((partition, origin)).or_insert(0);
        *last = number.max(*last);
    }

    /// Every entry: partition, origin, last block.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        self.0.iter().map(|((partition, origin), last)| (*partition, *origin, *last))
    }
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
}
