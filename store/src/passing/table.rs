//! One node's table: what it says of people, attention or devices here, and the differences that bring a peer's copy
//! up to date.
//!
//! Each change raises the version, and each entry knows the version of its last change. So what is new behind any
//! version is a walk in that order, a table sent whole is what is new behind nothing, and a link needs to remember
//! one number.
//!
//! Bounds: [`PART`] changes in one difference; the rest comes in the next. [`REMOVED`] removals are remembered; a
//! peer that has not heard of older ones gets the table whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Changes of one difference.
pub(crate) const PART: usize = 1024;
/// Removals that are remembered.
pub(crate) const REMOVED: usize = 4096;

/// What changed in a table: entries with their values, or `None` where they are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference<K, V> {
    /// It brings a copy of this version …
    pub after: u64,
    /// … to this one. Behind 0 it begins the table anew.
    pub upto: u64,
    /// In the order in which they changed last.
    pub changes: Vec<(K, Option<V>)>,
}

#[derive(Debug)]
struct Entry<V> {
    version: u64,
    /// `None`: removed.
    value: Option<V>,
}

/// How far a peer's copy of the table goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// It has what changed up to this version.
    upto: u64,
    /// The table's version when the copy was begun: what was removed before never was in it.
    begun: u64,
}

/// A table that this node owns.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    version: u64,
    entries: BTreeMap<K, Entry<V>>,
    /// Which entry changed at a version.
    order: BTreeMap<u64, K>,
    /// Versions of the removals that are remembered.
    removed: BTreeMap<u64, K>,
    /// Removals up to here are forgotten.
    forgotten: u64,
    /// Changes of one difference.
    pub part: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        let (entries, order, removed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { version: 0, entries, order, removed, forgotten: 0, part: PART }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Table<K, V> {
    /// Entries that are there.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.removed.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).and_then(|entry| entry.value.as_ref())
    }

    /// Every entry that is there, by key.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.value.as_ref()?)))
    }

    /// Sets an entry, or removes it. False when that changes nothing.
    pub(crate) fn put(&mut self, key: &K, value: Option<V>) -> bool {
        if self.get(key) == value.as_ref() {
            return false;
        }
        self.version += 1;
        if value.is_none() {
            self.removed.insert(self.version, key.clone());
        }
        self.order.insert(self.version, key.clone());
        if let Some(before) = self.entries.insert(key.clone(), Entry { version: self.version, value }) {
            self.order.remove(&before.version);
            self.removed.remove(&before.version);
        }
        if self.removed.len() > REMOVED
            && let Some((version, key)) = self.removed.pop_first()
        {
            self.order.remove(&version);
            self.entries.remove(&key);
            self.forgotten = version;
        }
        true
    }

    /// What a copy lacks (`None`: there is none yet), as far as it goes into one message, which moves it; `None` when it
    /// lacks nothing.
    pub(crate) fn news(&self, copy: &mut Option<Told>) -> Option<Difference<K, V>> {
        if copy.is_some_and(|told| told.upto == self.version) {
            return None;
        }
        let told = copy
            .filter(|told| told.upto.max(told.begun) >= self.forgotten)
            .unwrap_or(Told { upto: 0, begun: self.version });
        let after = told.upto;
        let mut upto = self.version;
        let mut changes = Vec::new();
        for (version, key) in self.order.range(after + 1..) {
            let value = self.get(key).cloned();
            // It was removed before there was a copy.
            if value.is_none() && *version <= told.begun {
                continue;
            }
            if changes.len() == self.part {
                break;
            }
            upto = *version;
            changes.push((key.clone(), value));
        }
        if changes.len() < self.part {
            upto = self.version;
        }
        *copy = Some(Told { upto, ..told });
        Some(Difference { after, upto, changes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that brings a copy at `upto` up to date.
    fn all(table: &Table<u32, u32>, upto: Option<u64>) -> Vec<Difference<u32, u32>> {
        let mut copy = upto.map(|upto| Told { upto, begun: 0 });
        std::iter::from_fn(|| table.news(&mut copy)).collect()
    }

    #[test]
    fn news_are_what_changed_and_whole_is_what_changed_behind_nothing() {
        let mut table = Table::default();
        let empty = Difference { after: 0, upto: 0, changes: Vec::new() };
        assert_eq!(all(&table, None), [empty], "that a table is empty is news to who has no copy");
        assert!(table.put(&1, Some(10)) && table.put(&2, Some(20)) && !table.put(&2, Some(20)));
        assert!(!table.put(&3, None));
        assert_eq!(all(&table, Some(1)), [Difference { after: 1, upto: 2, changes: vec![(2, Some(20))] }]);
        assert!(table.put(&1, None) && table.put(&2, Some(21)));
        assert_eq!(
            all(&table, Some(2)),
            [Difference { after: 2, upto: 4, changes: vec![(1, None), (2, Some(21))] }]
        );
        assert_eq!(all(&table, None), [Difference { after: 0, upto: 4, changes: vec![(2, Some(21))] }]);
        assert_eq!((table.len(), all(&table, Some(4))), (1, Vec::new()));
    }

    #[test]
    fn a_large_table_comes_in_parts_and_who_missed_forgotten_removals_gets_it_whole() {
        let mut table = Table::default();
        let count = 2 * PART as u32 + 1;
        (0..count).for_each(|key| assert!(table.put(&key, Some(key))));
        let parts: Vec<_> = all(&table, None).iter().map(|part| (part.after, part.changes.len())).collect();
        assert_eq!(parts, [(0, PART), (PART as u64, PART), (2 * PART as u64, 1)]);
        let before = u64::from(count);
        for key in 0..=REMOVED as u32 {
            table.put(&(count + key), Some(key));
            table.put(&(count + key), None);
        }
        assert_eq!(table.removed.len(), REMOVED);
        assert_eq!(table.len(), count as usize);
        assert_eq!(all(&table, Some(before))[0].after, 0, "one removal too many");
        assert_eq!(all(&table, Some(table.forgotten))[0].after, table.forgotten);
        assert_eq!(table.order.len(), table.entries.len());
    }
}
