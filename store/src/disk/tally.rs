//! What a file says is durable: the table `versions`, and on top of it what the log has. Blocks of origins that were
//! folded meanwhile do not count again.

use std::collections::HashMap;

use redb::{ReadTransaction, ReadableTable, TableError};

use super::tables::{FOLDED, VERSIONS};
use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::version::VersionVector;

/// The count, without the log at first.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub versions: VersionVector,
    folded: HashMap<Origin, u64>,
}

impl Tally {
    pub(crate) fn read(transaction: &ReadTransaction) -> Result<Self, redb::Error> {
        let mut tally = Self::default();
        match transaction.open_table(VERSIONS) {
            Ok(table) => {
                for entry in table.iter()? {
                    let (key, last) = entry?;
                    let (partition, node, start) = key.value();
                    let origin = Origin { node: NodeId(node), start };
                    tally.versions.advance(Partition(partition), origin, last.value());
                }
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match transaction.open_table(FOLDED) {
            Ok(table) => {
                for entry in table.iter()? {
                    let (key, commit) = entry?;
                    let (node, start) = key.value();
                    tally.folded.insert(Origin { node: NodeId(node), start }, commit.value());
                }
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(tally)
    }

    /// Whether blocks of an origin that the log has in a commit count.
    pub(crate) fn counts(&self, origin: Origin, commit: u64) -> bool {
        self.folded.get(&origin).is_none_or(|folded| commit > *folded)
    }
}

#[cfg(test)]
mod tests {
    use redb::ReadableDatabase;

    use super::*;
    use crate::config::Config;
    use crate::disk::commit::Shared;
    use crate::disk::export;
    use crate::handle::Store;
    use crate::model::ids::{Attribute, NodeName, SensorId};
    use crate::replica::message::{Entries, Message};
    use crate::replica::state::Replica;
    use crate::{Batch, SampleTime, Shape, Times, Values};

    /// Starts of the node before it folds: one more than stay as they are.
    const STARTS: i64 = 18;

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(Config::new(dir.path(), NodeName::new("a").unwrap())).unwrap()
    }

    /// One more sample of the one series that there is, in the log.
    async fn append(store: &Store, time: i64) {
        let (sensor, attribute) = (SensorId::new("s").unwrap(), Attribute::new("a").unwrap());
        let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
        let values = Values::Numbers { channels: 1, flat: vec![1.0] };
        let batch = Batch { series, times: Times::At(vec![SampleTime(time)]), values };
        store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
    }

    fn entries(shared: &Shared) -> Entries {
        let partition = Partition::of(&SensorId::new("s").unwrap());
        shared.replica.lock().durable().entries(partition)
    }

    /// What a snapshot of the store's file says that it covers.
    fn covered(store: &Store) -> Entries {
        let partition = Partition::of(&SensorId::new("s").unwrap());
        let mut covered = Entries::new();
        let transaction = store.database().unwrap().begin_read().unwrap();
        export::snapshot(&transaction, &[partition], 1, |message| {
            if let Message::SnapshotEnd { coverage, .. } = message {
                covered.clone_from(&coverage.partitions[0].1);
            }
            true
        })
        .unwrap();
        covered
    }

    #[tokio::test]
    async fn what_is_folded_counts_no_more_though_the_log_has_it() {
        let dir = tempfile::tempdir().unwrap();
        for start in 1..STARTS {
            let store = open(&dir);
            append(&store, start).await;
            store.close().await;
        }
        let store = open(&dir);
        append(&store, STARTS).await;
        assert_eq!(entries(store.shared()).len(), 18);
        store.shared().replicate(Replica::tick);
        let folded = async {
            while store.shared().replica.lock().counts().folds == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), folded).await.unwrap();
        let (folded, own) = (entries(store.shared()), store.node().origin);
        assert_eq!(folded.len(), 2);
        assert!(folded.contains(&(own, 1)), "{folded:?}");
        assert_eq!(covered(&store), folded);
        append(&store, STARTS + 1).await;
        store.close().await;
        let rows = |store: &Store| {
            let transaction = store.database().unwrap().begin_read().unwrap();
            Tally::read(&transaction).unwrap().versions.iter().count()
        };
        let store = open(&dir);
        assert_eq!(store.stats().samples, 19, "they are all there");
        let found = entries(store.shared());
        assert_eq!(found.len(), 2, "of 18 origins in the log: {found:?}");
        assert!(found.contains(&(own, 2)), "{found:?}");
        assert_eq!(covered(&store), found);
        // The stand-in, and the run that folded: its block and its frame.
        assert_eq!(rows(&store), 3);
    }
}
