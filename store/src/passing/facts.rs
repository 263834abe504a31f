//! What all nodes say of one thing: this node's own table, and copies of those of the linked peers.
//!
//! Invariant: a peer's copy counts from the first difference on its link to the end of that link. Nothing of a node
//! that is gone is held, and a node that comes back says everything anew, whichever run of it that is.
//!
//! Bounds: the number of entries of one node is given at the start. Of one more of its own a node is told (`false`);
//! one more of a peer's is not shown here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeBounds;

use super::table::{Difference, Table};
use crate::model::ids::NodeId;

/// A difference that does not fit onto the copy held: on one link this does not happen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table at version {held:?} is told what changed behind {after}")]
pub struct Gap {
    held: Option<u64>,
    after: u64,
}

#[derive(Debug)]
struct Copy<K> {
    /// `None` until the first difference.
    version: Option<u64>,
    keys: BTreeSet<K>,
}

/// What all nodes say of one thing.
#[derive(Debug)]
pub(crate) struct Facts<K, V> {
    me: NodeId,
    limit: usize,
    own: Table<K, V>,
    copies: HashMap<NodeId, Copy<K>>,
    /// Who says what, this node included.
    all: BTreeMap<K, Vec<(NodeId, V)>>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Facts<K, V> {
    /// Nothing is said yet. `limit`: entries of each node.
    pub(crate) fn new(me: NodeId, limit: usize) -> Self {
        Self { me, limit, own: Table::default(), copies: HashMap::new(), all: BTreeMap::new() }
    }

    /// The same; `part` changes go into one difference.
    pub(crate) fn in_parts_of(me: NodeId, limit: usize, part: usize) -> Self {
        let mut facts = Self::new(me, limit);
        facts.own.part = part;
        facts
    }

    /// What this node says.
    pub(crate) fn own(&self) -> &Table<K, V> {
        &self.own
    }

    /// What is said of one key, and by whom.
    pub(crate) fn of(&self, key: &K) -> &[(NodeId, V)] {
        self.all.get(key).map_or(&[], Vec::as_slice)
    }

    /// What a peer says.
    pub(crate) fn by(&self, node: NodeId) -> impl Iterator<Item = (&K, &V)> {
        let keys = self.copies.get(&node).into_iter().flat_map(|copy| &copy.keys);
        keys.filter_map(move |key| {
            let said = self.of(key).iter().find(|(of, _)| *of == node)?;
            Some((key, &said.1))
        })
    }

    /// What is said of the keys in a range.
    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &[(NodeId, V)])> {
        self.all.range(range).map(|(key, said)| (key, said.as_slice()))
    }

    /// Says something of a key, or nothing any more. False when there is no room for one more.
    pub(crate) fn say(&mut self, key: &K, value: Option<V>) -> bool {
        if value.is_some() && self.own.get(key).is_none() && self.own.len() >= self.limit {
            return false;
        }
        if self.own.put(key, value.clone()) {
            put(&mut self.all, self.me, key, value);
        }
        true
    }

    /// A link with a peer is open: what it said on an earlier one is forgotten. Gives the keys of which something was.
    pub(crate) fn linked(&mut self, node: NodeId) -> Vec<K> {
        let before = self.copies.insert(node, Copy { version: None, keys: BTreeSet::new() });
        self.drop_copy(node, before)
    }

    /// The link with a peer is over. Gives the keys of which it said something.
    pub(crate) fn unlinked(&mut self, node: NodeId) -> Vec<K> {
        let before = self.copies.remove(&node);
        self.drop_copy(node, before)
    }

    fn drop_copy(&mut self, node: NodeId, copy: Option<Copy<K>>) -> Vec<K> {
        let keys: Vec<K> = copy.into_iter().flat_map(|copy| copy.keys).collect();
        keys.iter().for_each(|key| put(&mut self.all, node, key, None));
        keys
    }

    /// Takes what a peer says. Gives the keys of which it says something else than before.
    pub(crate) fn hear(&mut self, node: NodeId, news: Difference<K, V>) -> Result<Vec<K>, Gap> {
        let Some(copy) = self.copies.get_mut(&node) else { return Ok(Vec::new()) };
        if news.after != 0 && copy.version != Some(news.after) {
            return Err(Gap { held: copy.version, after: news.after });
        }
        let mut changed = Vec::new();
        if news.after == 0 {
            let named: BTreeSet<&K> = news.changes.iter().map(|(key, _)| key).collect();
            changed.extend(copy.keys.iter().filter(|key| !named.contains(key)).cloned());
            for key in &changed {
                copy.keys.remove(key);
                put(&mut self.all, node, key, None);
            }
        }
        copy.version = Some(news.upto);
        for (key, value) in news.changes {
            let held = self.all.get(&key).and_then(|said| said.iter().find(|(of, _)| *of == node));
            let full = held.is_none() && copy.keys.len() >= self.limit;
            if held.map(|(_, value)| value) == value.as_ref() || full {
                continue;
            }
            match value {
                Some(_) => copy.keys.insert(key.clone()),
                None => copy.keys.remove(&key),
            };
            put(&mut self.all, node, &key, value);
            changed.push(key);
        }
        Ok(changed)
    }

    /// Takes what changed at a peer that counts no versions.
    pub(crate) fn hear_uncounted(&mut self, node: NodeId, changes: Vec<(K, Option<V>)>) -> Vec<K> {
        let after = self.copies.get(&node).and_then(|copy| copy.version).unwrap_or(0);
        self.hear(node, Difference { after, upto: after + 1, changes }).unwrap_or_default()
    }
}

fn put<K: Ord + Clone, V>(all: &mut BTreeMap<K, Vec<(NodeId, V)>>, node: NodeId, key: &K, value: Option<V>) {
    let said = all.entry(key.clone()).or_default();
    said.retain(|(of, _)| *of != node);
    said.extend(value.map(|value| (node, value)));
    if said.is_empty() {
        all.remove(key);
    }
}
