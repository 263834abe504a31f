//! A node whose disk stands still.

use std::future::Future as _;
use std::io;
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;

use redb::backends::InMemoryBackend;
use redb::{BackendError, StorageBackend};

use super::*;

/// A file on a disk whose syncs can be held up.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    content: Arc<InMemoryBackend>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Disk {
    /// Another file on it.
    pub(super) fn another(&self) -> Self {
        Self { content: Arc::default(), held: self.held.clone() }
    }

    /// Syncs wait as long as the guard is there.
    fn hold(&self) -> Hold {
        *self.held.0.lock().unwrap() = true;
        Hold(self.clone())
    }
}

struct Hold(Disk);

impl Drop for Hold {
    fn drop(&mut self) {
        let (held, changed) = &*self.0.held;
        *held.lock().unwrap() = false;
        changed.notify_all();
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.content.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        drop(self.held.1.wait_while(self.held.0.lock().unwrap(), |held| *held).unwrap());
        self.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.content.write(offset, data)
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }
}

fn batch(node: &Node, times: std::ops::Range<i64>) -> Vec<Batch> {
    let flat = times.clone().map(|time| time as f64).collect();
    let times = Times::At(times.map(SampleTime).collect());
    vec![Batch { series: node.series("s"), times, values: Values::Numbers { channels: 1, flat } }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stands_still_keeps_no_other_node_waiting() {
    let disk = Disk::default();
    let a = start_with("a", Options { disk: Some(disk.clone()), ..Options::default() }).await;
    let b = start("b", Some(a.address)).await;
    a.ready().await;
    b.ready().await;
    until("two copies", || a.nodes.all().iter().all(|view| view.me || view.lag.is_some())).await;
    assert_eq!(a.append("s", 0..1).await, Copies(2));
    let hold = disk.hold();
    let mut tickets = Vec::new();
    for time in 1..10 {
        tickets.push(a.store.append(batch(&a, time..time + 1)).await.unwrap().ticket);
        // Several frames: one for a commit that stands still, the others behind it.
        until("b has it", || b.times("s").last() == Some(&time)).await;
    }
    assert!(tickets.iter().all(|ticket| ticket.is_kept().is_none()), "acknowledged before the sync");
    // What waits for the disk is bounded: appending waits with it.
    let mut last = 10;
    let waiting = loop {
        let mut append = Box::pin(a.store.append(batch(&a, last..last + 5000)));
        match std::future::poll_fn(|context| Poll::Ready(append.as_mut().poll(context))).await {
            Poll::Ready(appended) => tickets.push(appended.unwrap().ticket),
            Poll::Pending => break append,
        }
        last += 5000;
        assert!(a.store.stats().pending_bytes < 2 << 20, "{:?}", a.store.stats());
    };
    drop(hold);
    tickets.push(pin!(timeout(WITHIN, waiting)).await.expect("room again").unwrap().ticket);
    for ticket in tickets {
        assert_eq!(timeout(WITHIN, ticket.kept()).await.expect("acknowledged").unwrap(), Copies(2));
    }
}
