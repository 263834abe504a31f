//! What replication has to say and to do, on its way to those who do it: messages to the links, settled frames to
//! the senders who wait, disk work to the cluster's worker.
//!
//! Bounds: [`MESSAGES`] small messages wait for a link; beyond, the link is given up, since its peer does not read.
//! With [`OFFERED`] waiting, what a client sends to another is refused.
//! Larger ones ([`Outbox::bulk`]) wait at their source, [`BULK`] at a time. [`WORK`] requests wait for the worker;
//! beyond, a peer's request is dropped, and the peer asks again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::disk::checkpoint::Job;
use crate::disk::commit::Shared;
use crate::exchange::{Posted, Posts};
use crate::group::Copies;
use crate::model::ids::NodeId;
use crate::replica::message::Message;
use crate::replica::state::{Effect, Replica};

/// Small messages that wait for a link.
const MESSAGES: usize = 4096;
/// Messages that wait for a link, before what can be refused is.
const OFFERED: usize = 256;
/// Large messages that wait for a link.
const BULK: usize = 4;
/// Requests that wait for the worker.
pub(crate) const WORK: usize = 64;

/// What waits for one link.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: Mutex<VecDeque<Message>>,
    /// There is something to send, or may be.
    pub ready: Notify,
    /// For relays and snapshots.
    pub bulk: mpsc::Sender<Message>,
    overflowed: AtomicBool,
    posts: Mutex<Posts>,
}

impl Outbox {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Message>) {
        let (bulk, from_bulk) = mpsc::channel(BULK);
        let outbox = Self {
            messages: Mutex::default(),
            ready: Notify::new(),
            bulk,
            overflowed: AtomicBool::new(false),
            posts: Mutex::default(),
        };
        (Arc::new(outbox), from_bulk)
    }

    pub(crate) fn send(&self, message: Message) {
        let mut messages = self.messages.lock();
        // Acknowledgements are cumulative: the last one says it all.
        if let (Some(Message::Ack { frame: last }), Message::Ack { frame }) = (messages.back_mut(), &message)
        {
            *last = (*frame).max(*last);
        } else if messages.len() < MESSAGES {
            messages.push_back(message);
        } else {
            self.overflowed.store(true, Relaxed);
        }
        drop(messages);
        self.ready.notify_one();
    }

    /// Sends a message, unless others wait: then it says false, and the link goes on.
    pub(crate) fn offer(&self, message: Message) -> bool {
        let mut messages = self.messages.lock();
        let room = messages.len() < OFFERED;
        if room {
            messages.push_back(message);
        }
        drop(messages);
        self.ready.notify_one();
        room
    }

    /// Puts a message of brokers behind those that wait; false when there is no room.
    pub(crate) fn post(&self, posted: Posted) -> bool {
        let fits = self.posts.lock().push(posted);
        self.ready.notify_one();
        fits
    }

    /// The next message of brokers.
    pub(crate) fn next_post(&self) -> Option<Posted> {
        self.posts.lock().pop()
    }

    /// Takes all messages that wait; `None` when the link is to be given up.
    pub(crate) fn take(&self) -> Option<VecDeque<Message>> {
        (!self.overflowed.load(Relaxed)).then(|| std::mem::take(&mut *self.messages.lock()))
    }
}

/// All outboxes, and the worker's.
#[derive(Debug, Default)]
pub(crate) struct Post {
    outboxes: Mutex<HashMap<NodeId, Arc<Outbox>>>,
    work: OnceLock<mpsc::Sender<Effect>>,
    /// The checkpointer. At most one snapshot is adopted at a time, and one fold made.
    jobs: Mutex<Option<std::sync::mpsc::Sender<Job>>>,
    /// Frames acknowledged with all copies that were asked for.
    pub full: AtomicU64,
    /// Frames acknowledged with fewer.
    pub fewer: AtomicU64,
}

impl Post {
    /// Gives requests to the worker from here on. Only the first worker gets them.
    pub(crate) fn set_worker(&self, work: mpsc::Sender<Effect>) {
        let _ = self.work.set(work);
    }

    /// Whom to hand snapshots to that came whole; `None` lets go of the checkpointer.
    pub(crate) fn set_checkpointer(&self, jobs: Option<std::sync::mpsc::Sender<Job>>) {
        *self.jobs.lock() = jobs;
    }

    fn job(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock() {
            // The checkpointer ends with the store; then nothing is made durable any more.
            let _ = jobs.send(job);
        }
    }

    pub(crate) fn open(&self, node: NodeId, outbox: Arc<Outbox>) {
        self.outboxes.lock().insert(node, outbox);
    }

    pub(crate) fn close(&self, node: NodeId) {
        self.outboxes.lock().remove(&node);
    }

    pub(crate) fn outbox(&self, node: NodeId) -> Option<Arc<Outbox>> {
        self.outboxes.lock().get(&node).cloned()
    }

    /// Tells all links that there may be something to send.
    pub(crate) fn wake(&self) {
        self.outboxes.lock().values().for_each(|outbox| outbox.ready.notify_one());
    }

    pub(crate) fn linked(&self) -> Vec<NodeId> {
        self.outboxes.lock().keys().copied().collect()
    }
}

impl Shared {
    /// Tells replication something, and carries out what follows before anybody else tells it something: settled
    /// frames and messages keep their order.
    pub(crate) fn replicate(&self, event: impl FnOnce(&mut Replica) -> Vec<Effect>) {
        let mut replica = self.replica.lock();
        let effects = event(&mut replica);
        self.deliver(effects);
    }

    /// Carries out what replication asks for, whose lock is held. Nothing here waits.
    pub(crate) fn deliver(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(node, message) => {
                    if let Some(outbox) = self.post.outbox(node) {
                        outbox.send(message);
                    }
                }
                Effect::Stream(node) => {
                    if let Some(outbox) = self.post.outbox(node) {
                        outbox.ready.notify_one();
                    }
                }
                Effect::Settle { frame, copies, fewer } => {
                    let count = if fewer { &self.post.fewer } else { &self.post.full };
                    count.fetch_add(1, Relaxed);
                    self.waiting.settle(frame, Copies(copies));
                }
                Effect::Adopt(coverage) => self.post.job(Job::Adopt(coverage)),
                Effect::Fold(fold) => self.post.job(Job::Fold(fold)),
                work @ (Effect::Serve { .. } | Effect::Snapshot { .. }) => {
                    if self.post.work.get().is_none_or(|worker| worker.try_send(work).is_err()) {
                        tracing::debug!("a request of a peer found no room; it asks again");
                    }
                }
            }
        }
    }
}
