//! What the message brokers of different nodes tell each other: the topic filters that each has subscribers for, and the
//! messages that match these. What a filter is, and what a message says, is theirs to know.
//!
//! Filters stand in a passing table of each node: as long as a link is open, its peer's are known, and nothing is sent to
//! who does not ask for it. A message is put to a link once, by the node that took it from its client, and is never passed
//! on from there: so none goes in circles, and none comes twice when a link is replaced. It is lost with a link that
//! breaks, and when there is no room for it.
//!
//! Bounds: [`FILTERS`](crate::passing::FILTERS) of each node; [`POSTED`] messages of [`POSTED_BYTES`] wait for a link, and
//! as many for the broker here; one more is dropped and counted.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Stamp;
use crate::handle::Store;
use crate::model::ids::NodeId;
use crate::replica::message::Message;

/// Messages that wait for one link, or for the broker.
pub const POSTED: usize = 16_384;
/// Bytes of them.
pub const POSTED_BYTES: usize = 8 << 20;
/// What a waiting message counts beside its bytes.
const OVERHEAD: usize = 64;
/// Clients that were heard to have come to other nodes, and wait for the broker. One more is not told.
const CLAIMED: usize = 4096;

/// A message between brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// As brokers write it.
    pub message: Bytes,
    /// Groups of subscribers of which the receiver is to choose one each.
    pub groups: Vec<Box<str>>,
}

impl Posted {
    fn cost(&self) -> usize {
        OVERHEAD + self.message.len() + self.groups.iter().map(|group| group.len()).sum::<usize>()
    }
}

/// What the broker of this node hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Other nodes ask for a filter that did not, or no longer do: look again.
    Filter(Box<str>),
    /// A client of this name came to another node, then.
    Claimed(Box<str>, Stamp),
    /// Others have published the will of this client, whose node they took for dead.
    Settled(Box<str>),
    /// A message for subscribers here.
    Posted(Posted),
    /// Wills of a node that died may be due: look again.
    Wills,
}

/// Messages that wait, within their bounds.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    queue: VecDeque<Posted>,
    bytes: usize,
}

impl Posts {
    /// False when there is no room.
    pub(crate) fn push(&mut self, posted: Posted) -> bool {
        let cost = posted.cost();
        if self.queue.len() >= POSTED || self.bytes + cost > POSTED_BYTES {
            return false;
        }
        self.bytes += cost;
        self.queue.push_back(posted);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Posted> {
        let posted = self.queue.pop_front()?;
        self.bytes -= posted.cost();
        if self.queue.is_empty() {
            // A burst that is over holds no memory.
            self.queue = VecDeque::new();
        }
        Some(posted)
    }
}

/// What waits for the broker.
#[derive(Debug, Default)]
struct Waiting {
    /// Each stands here once, so there are no more than in the tables.
    filters: BTreeSet<Box<str>>,
    claimed: VecDeque<(Box<str>, Stamp)>,
    wills: bool,
    /// Of clients here: no more than have left a will.
    settled: BTreeSet<Box<str>>,
    posts: Posts,
}

/// Where brokers meet: counted, and bounded.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    waiting: Mutex<Waiting>,
    ready: Notify,
    sent: AtomicU64,
    received: AtomicU64,
    link_full: AtomicU64,
    broker_full: AtomicU64,
}

/// What became of messages between nodes, since this one started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExchangeFigures {
    /// Put to a link.
    pub sent: u64,
    /// Came over a link.
    pub received: u64,
    /// Dropped: too many waited for their link.
    pub link_full: u64,
    /// Dropped: they came faster than the broker here took them.
    pub broker_full: u64,
}

impl Exchange {
    fn tell(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.ready.notify_one();
    }

    pub(crate) fn filters(&self, filters: &[Box<str>]) {
        if !filters.is_empty() {
            self.tell(|waiting| waiting.filters.extend(filters.iter().cloned()));
        }
    }

    pub(crate) fn claimed(&self, client: &str, at: Stamp) {
        self.tell(|waiting| {
            if waiting.claimed.len() < CLAIMED {
                waiting.claimed.push_back((client.into(), at));
            }
        });
    }

    pub(crate) fn settled(&self, clients: &[Box<str>]) {
        self.tell(|waiting| waiting.settled.extend(clients.iter().cloned()));
    }

    pub(crate) fn wills(&self) {
        self.tell(|waiting| waiting.wills = true);
    }

    pub(crate) fn posted(&self, posted: Posted) {
        self.received.fetch_add(1, Relaxed);
        if !self.waiting.lock().posts.push(posted) {
            self.broker_full.fetch_add(1, Relaxed);
        }
        self.ready.notify_one();
    }

    fn next(&self) -> Option<Heard> {
        let mut waiting = self.waiting.lock();
        // What is known of filters and clients comes before messages that were sent because of it.
        if let Some(filter) = waiting.filters.pop_first() {
            return Some(Heard::Filter(filter));
        }
        if let Some((client, at)) = waiting.claimed.pop_front() {
            return Some(Heard::Claimed(client, at));
        }
        if let Some(client) = waiting.settled.pop_first() {
            return Some(Heard::Settled(client));
        }
        if std::mem::take(&mut waiting.wills) {
            return Some(Heard::Wills);
        }
        waiting.posts.pop().map(Heard::Posted)
    }
}

impl Store {
    /// The next thing that this node's broker is to hear; it has one listener. Cancel-safe.
    pub async fn hear_brokers(&self) -> Heard {
        loop {
            if let Some(heard) = self.exchange().next() {
                return heard;
            }
            self.exchange().ready.notified().await;
        }
    }

    /// Says whether this node has subscribers for a filter. False when there is no room for one more.
    pub fn say_filter(&self, filter: &str, wanted: bool) -> bool {
        let said = self.here().passing.filters.say(&filter.into(), wanted.then_some(()));
        self.shared().post.wake();
        said
    }

    /// The other nodes that have subscribers for a filter.
    pub fn nodes_for(&self, filter: &str) -> Vec<NodeId> {
        let me = self.node().id;
        let here = self.here();
        let said = here.passing.filters.of(&filter.into()).iter();
        said.map(|(node, ())| *node).filter(|node| *node != me).collect()
    }

    /// Puts a message to the link with a node. False, and counted, when there is no room; when there is no link, it is
    /// for nobody.
    pub fn post_to(&self, node: NodeId, posted: Posted) -> bool {
        let Some(outbox) = self.shared().post.outbox(node) else { return false };
        let (exchange, fits) = (self.exchange(), outbox.post(posted));
        let count = if fits { &exchange.sent } else { &exchange.link_full };
        count.fetch_add(1, Relaxed);
        fits
    }

    /// Tells every linked node something, as far as there is room.
    pub(crate) fn tell_all(&self, message: &Message) {
        let post = &self.shared().post;
        let outboxes: Vec<Arc<_>> = post.linked().into_iter().filter_map(|node| post.outbox(node)).collect();
        for outbox in outboxes {
            if !outbox.offer(message.clone()) {
                tracing::warn!("a link has no room for what brokers tell each other");
            }
        }
    }

    /// What became of messages between nodes.
    pub fn exchange_figures(&self) -> ExchangeFigures {
        let exchange = self.exchange();
        ExchangeFigures {
            sent: exchange.sent.load(Relaxed),
            received: exchange.received.load(Relaxed),
            link_full: exchange.link_full.load(Relaxed),
            broker_full: exchange.broker_full.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(bytes: usize) -> Posted {
        Posted { message: vec![0; bytes].into(), groups: Vec::new() }
    }

    #[test]
    fn full_means_the_stated_count_and_bytes_and_is_counted() {
        let exchange = Exchange::default();
        (0..POSTED + 3).for_each(|_| exchange.posted(posted(1)));
        assert_eq!(
            (exchange.received.load(Relaxed), exchange.broker_full.load(Relaxed)),
            (POSTED as u64 + 3, 3)
        );
        for _ in 0..POSTED {
            assert_eq!(exchange.next(), Some(Heard::Posted(posted(1))));
        }
        assert_eq!(exchange.next(), None);
        let mut posts = Posts::default();
        assert!(posts.push(posted(POSTED_BYTES - OVERHEAD)) && !posts.push(posted(0)));
        assert!(posts.pop().is_some() && posts.push(posted(POSTED_BYTES - OVERHEAD)));
    }

    #[test]
    fn what_is_known_comes_before_messages_and_each_filter_once() {
        let exchange = Exchange::default();
        exchange.posted(posted(1));
        exchange.filters(&["a".into()]);
        exchange.filters(&["a".into()]);
        let at = Stamp { time: 1, author: 1 };
        exchange.claimed("x", at);
        exchange.wills();
        exchange.wills();
        let heard: Vec<_> = std::iter::from_fn(|| exchange.next()).collect();
        let expected = [
            Heard::Filter("a".into()),
            Heard::Claimed("x".into(), at),
            Heard::Wills,
            Heard::Posted(posted(1)),
        ];
        assert_eq!(heard, expected);
    }
}
