//! A device's connection: hands batches to a node, keeps what is not acknowledged, and moves to another node by itself.
//!
//! Invariant: a batch leaves the [`window`] only when a node acknowledged or refused it, so what [`Client::finish`] calls
//! complete is complete. The window is bounded, and a full one makes [`Client::send`] wait: the producer is slowed, nothing
//! is dropped.

pub(crate) mod addresses;
mod advice;
mod mqtt;
mod window;
mod ws;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ingest::wire::message::Attribute;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::acks::AckLog;
use crate::batch::Batch;
use crate::tally::Tally;
pub use addresses::BadAddress;
use addresses::{Addresses, Purpose};
pub use advice::Advice;
use window::Window;

/// Frames in flight; at this the producer waits.
const WINDOW: usize = 64;
/// Batches waiting before the window; at this the producer waits.
const QUEUE: usize = 4;
/// A node that has got something and acknowledges nothing for so long is left for another one.
const ACK_WITHIN: Duration = Duration::from_secs(2);
/// A node of which nothing was heard for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(1);
/// A node that was asked, and of which nothing was heard for so long, is left for another one.
const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// Time for a connection and a welcome.
const CONNECT_WITHIN: Duration = Duration::from_millis(1500);
/// First wait before connecting again; doubles with every failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait before connecting again, and longest that a node's `reconnect` is taken to mean.
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// Time for a goodbye once everything is acknowledged.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where to send, and how.
#[derive(Debug, Clone)]
pub enum Transport {
    /// WebSocket: `ws://host:port`, with or without a path.
    WebSocket {
        /// Nodes to turn to.
        urls: Vec<String>,
        /// CBOR instead of JSON.
        cbor: bool,
    },
    /// MQTT 5, QoS 1: `host:port`.
    Mqtt {
        /// Nodes to turn to.
        addresses: Vec<String>,
    },
}

/// Who the device is, and what it measures.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// Its id.
    pub sensor: String,
    /// For people.
    pub name: Option<String>,
    /// What it measures; said in `hello`, and not at all over MQTT.
    pub attributes: BTreeMap<String, Attribute>,
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Where to send.
    pub transport: Transport,
    /// Which of the addresses comes first, so that a fleet spreads.
    pub first: usize,
    /// Without any acknowledgement for so long, although something waits for one, the client gives up.
    pub patience: Duration,
    /// Where acknowledged frames are noted.
    pub acks: Option<Arc<AckLog>>,
    /// Of the jitter.
    pub seed: u64,
    /// Token for nodes with authentication.
    pub token: Option<String>,
}

/// The client has given up: the tally says how much was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("gave up: no node acknowledged anything for too long, or would take this device")]
pub struct GaveUp;

/// A running client. Dropped instead of finished, it goes on delivering what it was handed, as long as the runtime runs.
#[derive(Debug)]
pub struct Client {
    batches: mpsc::Sender<Batch>,
    advice: watch::Receiver<Option<Advice>>,
    tally: Arc<Tally>,
    task: JoinHandle<Result<(), GaveUp>>,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// Everything is acknowledged, and nothing more will come.
    Done,
    /// No acknowledgement within the patience.
    GaveUp,
    /// Connect again.
    Again {
        /// What happened.
        why: String,
        /// The node said when.
        delay: Option<Duration>,
    },
}

impl End {
    /// Whether the node is still there, and may be told goodbye.
    fn is_orderly(&self) -> bool {
        !matches!(self, Self::Again { delay: None, .. })
    }
}

/// What all connections of a device share.
struct Shared {
    device: Device,
    window: Window,
    addresses: Addresses,
    batches: mpsc::Receiver<Batch>,
    /// Nothing more will come.
    closed: bool,
    token: Option<String>,
    advice: watch::Sender<Option<Advice>>,
}

impl Shared {
    /// On a new connection nothing is sent yet, and no node holds us back.
    fn connected(&mut self, address: &str) {
        self.window.connected(address);
        self.advice.send_if_modified(|advice| {
            advice.as_mut().is_some_and(|advice| std::mem::replace(&mut advice.paused, false))
        });
    }

    /// The oldest batch that is to be sent now, if the node has not asked for a pause.
    fn to_send(&self) -> Option<Arc<Batch>> {
        let paused = self.advice.borrow().is_some_and(|advice| advice.paused);
        if paused { None } else { self.window.unsent() }
    }

    fn advised(&self, advice: Advice) {
        self.advice.send_if_modified(|held| held.replace(advice) != Some(advice));
    }
}

/// What was last heard of a node, on which it depends whether it is asked, or left.
#[derive(Debug)]
struct Heard {
    at: Instant,
    asked: bool,
}

impl Heard {
    fn now() -> Self {
        Self { at: Instant::now(), asked: false }
    }

    /// When to ask, or when to leave if it was asked.
    fn patience(&self) -> Instant {
        self.at + if self.asked { SILENT_AFTER } else { PING_AFTER }
    }
}

impl Client {
    /// Starts connecting; needs a tokio runtime.
    pub fn start(device: Device, options: ClientOptions, tally: Arc<Tally>) -> Result<Self, BadAddress> {
        let mut random = StdRng::seed_from_u64(options.seed);
        let (purpose, given, cbor) = match &options.transport {
            Transport::WebSocket { urls, cbor } => (Purpose::Devices, urls, Some(*cbor)),
            Transport::Mqtt { addresses } => (Purpose::Mqtt, addresses, None),
        };
        let addresses =
            Addresses::new(purpose, given, options.first, StdRng::seed_from_u64(random.random()))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (advise, advice) = watch::channel(None);
        let acks = options.acks.map(|acks| (acks, device.sensor.clone()));
        let shared = Shared {
            device,
            window: Window::new(WINDOW, options.patience, Arc::clone(&tally), acks),
            addresses,
            batches: receiver,
            closed: false,
            token: options.token,
            advice: advise,
        };
        let task = tokio::spawn(keep_connected(shared, cbor, random));
        Ok(Self { batches: sender, advice, tally, task })
    }

    /// How the node asks this device to batch, as soon as it does. Batches that are handed over are sent as they are.
    pub fn advice(&self) -> watch::Receiver<Option<Advice>> {
        self.advice.clone()
    }

    /// Hands over a batch; waits while the window is full.
    ///
    /// Cancel safe in that nothing is sent twice; a batch whose handing over was cancelled counts as made and not sent.
    pub async fn send(&self, batch: Batch) -> Result<(), GaveUp> {
        if batch.is_empty() {
            return Ok(());
        }
        self.tally.made(batch.len());
        self.batches.send(batch).await.map_err(|_| GaveUp)
    }

    /// Waits until everything is acknowledged or refused, or the client has given up.
    pub async fn finish(self) -> Result<(), GaveUp> {
        let Self { batches, task, .. } = self;
        drop(batches);
        // A panic in the client is no acknowledgement.
        task.await.unwrap_or(Err(GaveUp))
    }
}

async fn keep_connected(mut shared: Shared, cbor: Option<bool>, mut random: StdRng) -> Result<(), GaveUp> {
    let mut failures = 0u32;
    loop {
        // Something to send is what a connection is for; nothing at all needs none.
        if shared.window.is_empty() && !shared.closed {
            match shared.batches.recv().await {
                Some(batch) => shared.window.take(batch),
                None => shared.closed = true,
            }
        }
        if shared.window.is_empty() && shared.closed {
            return Ok(());
        }
        let acknowledged = shared.window.acknowledged();
        let address = shared.addresses.current().to_owned();
        let end = match cbor {
            Some(cbor) => ws::connect(&address, cbor, &mut shared).await,
            None => mqtt::connect(&address, &mut shared, random.random()).await,
        };
        let (why, delay) = match end {
            End::Done => return Ok(()),
            End::GaveUp => return Err(GaveUp),
            End::Again { why, delay } => (why, delay),
        };
        shared.window.complaint(&why);
        if delay.is_none() {
            shared.addresses.advance();
        }
        failures = if shared.window.acknowledged() > acknowledged { 0 } else { failures + 1 };
        let jitter = random.random_range(0.5..1.0);
        // All that are told to move at once do not come at once.
        let wait = delay.map_or_else(|| backoff(failures, jitter), |delay| delay.mul_f64(0.5 + jitter));
        let again = Instant::now() + wait.min(BACKOFF_MOST);
        if shared.window.deadline().is_some_and(|deadline| deadline <= again) {
            return Err(GaveUp);
        }
        tokio::time::sleep_until(again).await;
    }
}

fn backoff(failures: u32, jitter: f64) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << failures.min(10)).min(BACKOFF_MOST).mul_f64(jitter)
}

/// Until `deadline`, or for ever where there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<_> = (0..40).map(|failures| backoff(failures, 1.0)).collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[39]), (BACKOFF_FIRST, BACKOFF_MOST));
    }
}
