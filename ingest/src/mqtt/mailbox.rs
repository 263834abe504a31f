//! Messages between clients, and the bounded queue of those on their way to one.
//!
//! Invariant: a message of QoS 1 or 2 that was queued is delivered, or the mailbox is `broken` and its session
//! ends, so that the client learns of the loss by the session that is not there. QoS 0 is dropped when there is
//! no room, and counted by the caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttd::protocol::{PublishProperties, QoS};
use tokio::sync::Notify;

/// Most messages waiting for one client.
pub const MAX_QUEUED: usize = 16_384;
/// Most bytes of messages waiting for one client.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;
/// What a queued message counts beside its topic and payload, in bytes. A retained one counts no more than this: it is
/// held elsewhere already.
const OVERHEAD: usize = 160;

/// A message that a client published, or is published on its behalf.
#[derive(Debug)]
pub struct Message {
    /// Topic name.
    pub topic: Box<str>,
    /// The message itself.
    pub payload: Bytes,
    /// Version 5's properties, without topic alias, subscription identifiers and expiry.
    pub properties: Option<PublishProperties>,
    /// QoS it was published with.
    pub qos: QoS,
    /// When it is to be forgotten.
    pub expires: Option<Instant>,
}

/// A message on its way to one client.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What is delivered.
    pub message: Arc<Message>,
    /// The lower of the publisher's QoS and the subscription's.
    pub qos: QoS,
    /// The retain flag, as this subscriber is to see it.
    pub retain: bool,
    /// Identifiers of the subscriptions that it is delivered for.
    pub ids: Vec<usize>,
}

impl Delivery {
    fn cost(&self) -> usize {
        let held = if self.retain { 0 } else { self.message.topic.len() + self.message.payload.len() };
        OVERHEAD + held
    }
}

/// What became of a message put into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits for the client.
    Queued,
    /// There is no room, and it is of QoS 0 or was only offered: it is gone.
    Dropped,
    /// QoS 1 or 2 and no room: the mailbox is broken from now on.
    Broken,
}

/// Messages waiting for one client, whether it is connected or not.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    bell: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Delivery>,
    bytes: usize,
    broken: bool,
}

impl Mailbox {
    /// Queues `delivery`, or says why not.
    pub fn put(&self, delivery: Delivery) -> Put {
        let mut inner = self.inner.lock();
        let cost = delivery.cost();
        if inner.broken {
            return Put::Dropped;
        }
        if inner.queue.len() >= MAX_QUEUED || inner.bytes + cost > MAX_QUEUED_BYTES {
            if delivery.qos == QoS::AtMostOnce {
                return Put::Dropped;
            }
            *inner = Inner { broken: true, ..Inner::default() };
            drop(inner);
            self.bell.notify_one();
            return Put::Broken;
        }
        inner.push(delivery, cost);
        drop(inner);
        self.bell.notify_one();
        Put::Queued
    }

    /// Queues `delivery` if there is room; whatever its QoS, it is dropped when there is none.
    pub fn offer(&self, delivery: Delivery) -> Put {
        let mut inner = self.inner.lock();
        let cost = delivery.cost();
        if inner.broken || inner.queue.len() >= MAX_QUEUED || inner.bytes + cost > MAX_QUEUED_BYTES {
            return Put::Dropped;
        }
        inner.push(delivery, cost);
        drop(inner);
        self.bell.notify_one();
        Put::Queued
    }

    /// The next message.
    pub fn take(&self) -> Option<Delivery> {
        let mut inner = self.inner.lock();
        let delivery = inner.queue.pop_front()?;
        inner.bytes -= delivery.cost();
        let calm = !inner.is_crowded();
        if inner.queue.is_empty() {
            // An idle client holds no buffer.
            inner.queue = VecDeque::new();
        }
        drop(inner);
        if calm {
            self.drained.notify_waiters();
        }
        Some(delivery)
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a message of QoS 1 or 2 found no room.
    pub fn is_broken(&self) -> bool {
        self.inner.lock().broken
    }

    /// Whether it is more than half full: then publishers to it should wait.
    pub fn is_crowded(&self) -> bool {
        self.inner.lock().is_crowded()
    }

    /// Waits until something was put in since the last call. Cancel-safe.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Waits until it is no longer crowded. Cancel-safe.
    pub async fn drained(&self) {
        let drained = self.drained.notified();
        if self.is_crowded() {
            drained.await;
        }
    }
}

impl Inner {
    fn push(&mut self, delivery: Delivery, cost: usize) {
        self.bytes += cost;
        self.queue.push_back(delivery);
    }

    fn is_crowded(&self) -> bool {
        self.queue.len() > MAX_QUEUED / 2 || self.bytes > MAX_QUEUED_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(qos: QoS, bytes: usize) -> Delivery {
        let message = Message {
            topic: "t".into(),
            payload: vec![0; bytes].into(),
            properties: None,
            qos,
            expires: None,
        };
        Delivery { message: Arc::new(message), qos, retain: false, ids: Vec::new() }
    }

    #[test]
    fn full_means_exactly_the_stated_count() {
        let mailbox = Mailbox::default();
        for _ in 0..MAX_QUEUED {
            assert_eq!(mailbox.put(delivery(QoS::AtMostOnce, 1)), Put::Queued);
        }
        assert!(mailbox.is_crowded());
        assert_eq!(mailbox.put(delivery(QoS::AtMostOnce, 1)), Put::Dropped);
        assert_eq!((mailbox.len(), mailbox.is_broken()), (MAX_QUEUED, false));
        assert_eq!(mailbox.offer(delivery(QoS::AtLeastOnce, 1)), Put::Dropped);
        assert!(!mailbox.is_broken(), "what is only offered ends no session");
        assert_eq!(mailbox.put(delivery(QoS::AtLeastOnce, 1)), Put::Broken);
        assert!(mailbox.is_broken() && mailbox.is_empty());
        assert_eq!(mailbox.put(delivery(QoS::AtMostOnce, 1)), Put::Dropped);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mailbox = Mailbox::default();
        let big = MAX_QUEUED_BYTES / 2 - 1000;
        assert_eq!(mailbox.put(delivery(QoS::ExactlyOnce, big)), Put::Queued);
        assert_eq!(mailbox.put(delivery(QoS::ExactlyOnce, big)), Put::Queued);
        assert_eq!(mailbox.put(delivery(QoS::AtMostOnce, big)), Put::Dropped);
        while mailbox.take().is_some() {}
        assert_eq!(mailbox.put(delivery(QoS::AtMostOnce, big)), Put::Queued);
        assert!(!mailbox.is_broken());
    }
}
