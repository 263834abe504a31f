//! One link at work: what comes from the peer goes to replication and the rings, what replication says goes out, and
//! own frames follow the link's cursor into the log.
//!
//! There is no send queue for frames: a slow peer is merely behind. When it is further behind than the log reaches, it
//! takes a snapshot.
//!
//! Bounds: a peer that is silent for [`SILENCE`] is given up; it says something every [`LOAD_EVERY`] otherwise.
//! [`SEND_BYTES`] of frames are written before the socket is flushed.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::MutexGuard;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::hello::{Hello, NEWS};
use super::link::{LinkError, LinkReader, LinkWriter};
use super::placement::Placement;
use super::scrub;
use super::view::Nodes;
use crate::disk::commit::Shared;
use crate::disk::export;
use crate::error::Failed;
use crate::group::Logged;
use crate::handle::Store;
use crate::model::ids::{NodeId, NodeName, SensorId};
use crate::passing::Cursor;
use crate::post::Outbox;
use crate::replica::frame::{Frame, FrameWriter, reduce};
use crate::replica::message::{Message, Piece};
use crate::replica::state::{Effect, Replica, Taken};
use crate::tail::Next;

/// A link on which nothing came for so long is closed.
///
/// Where packets are lost, TCP waits ever longer before it tries again; a new connection does not.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a node says how it is.
const LOAD_EVERY: Duration = Duration::from_secs(1);
/// How often membership is told that a peer speaks.
const ALIVE_EVERY: Duration = Duration::from_millis(200);
/// Frames written at once.
const SEND_BYTES: usize = 1 << 20;
/// Frames from this size on are decoded off the runtime's queue, so that small ones do not wait for them.
const LARGE_BYTES: usize = 32 << 10;

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// It said goodbye.
    #[error("it leaves")]
    Left,
    /// It closed the connection.
    #[error("it closed the link")]
    Closed,
    /// A newer link to the node is open.
    #[error("a newer link has taken its place")]
    Replaced,
    /// The connection broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It does not speak.
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silent,
    /// It does not read.
    #[error("it does not read what it is sent")]
    DoesNotRead,
    /// What it says makes no sense.
    #[error("it sent what cannot be read: {0}")]
    Malformed(String),
    /// This node cannot go on.
    #[error("the store stopped: {0}")]
    Store(#[from] Failed),
    /// The log cannot be read.
    #[error("{0}")]
    Disk(String),
}

/// A peer, as one link sees it.
pub(crate) struct Peer {
    store: Store,
    nodes: Nodes,
    node: NodeId,
    name: NodeName,
    version: u16,
    outbox: Arc<Outbox>,
    placement: watch::Receiver<Placement>,
}

impl Peer {
    pub(crate) fn new(
        store: &Store,
        nodes: &Nodes,
        hello: &Hello,
        version: u16,
        outbox: &Arc<Outbox>,
        placement: watch::Receiver<Placement>,
    ) -> Self {
        Self {
            store: store.clone(),
            nodes: nodes.clone(),
            node: hello.node,
            name: hello.name.clone(),
            version,
            outbox: outbox.clone(),
            placement,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.store.shared()
    }

    /// Replication, locked, as long as this is the link that it knows: what comes late on an older one would move the
    /// cursor of the newer.
    fn replica(&self) -> Result<MutexGuard<'_, Replica>, End> {
        let replica = self.shared().replica.lock();
        let held = self.shared().post.outbox(self.node);
        if held.is_some_and(|held| Arc::ptr_eq(&held, &self.outbox)) {
            Ok(replica)
        } else {
            Err(End::Replaced)
        }
    }

    /// Tells replication something that happened on this link.
    fn replicate(&self, event: impl FnOnce(&mut Replica) -> Vec<Effect>) -> Result<(), End> {
        let mut replica = self.replica()?;
        let effects = event(&mut replica);
        self.shared().deliver(effects);
        Ok(())
    }

    /// Reads until the link ends; `alive` is told from time to time that the peer speaks.
    pub(crate) async fn read(&self, mut reader: LinkReader, alive: impl Fn() + Send) -> End {
        let mut told = Instant::now();
        loop {
            let bytes = match timeout(SILENCE, reader.next()).await {
                Err(_) => return End::Silent,
                // A process that ends does not take leave of TLS.
                Ok(Err(LinkError::Broken(error))) if error.kind() == ErrorKind::UnexpectedEof => {
                    return End::Closed;
                }
                Ok(Err(error)) => return error.into(),
                Ok(Ok(None)) => return End::Closed,
                Ok(Ok(Some(bytes))) => bytes,
            };
            self.nodes.count(|figures| figures.bytes_received += bytes.len() as u64);
            if told.elapsed() >= ALIVE_EVERY {
                told = Instant::now();
                alive();
            }
            if let Err(end) = self.hear(&bytes).await {
                if let End::Malformed(_) = end {
                    self.nodes.count(|figures| figures.malformed += 1);
                }
                return end;
            }
        }
    }

    async fn hear(&self, bytes: &[u8]) -> Result<(), End> {
        match decode(bytes)? {
            Message::Frame { previous, frame } => {
                self.shared().group.room().await?;
                large(&frame, || {
                    self.take(&frame, |replica, decoded, bytes| {
                        replica.frame(self.node, previous, decoded, bytes)
                    })
                })
            }
            Message::Relay { frame } => {
                self.shared().group.room().await?;
                large(&frame, || {
                    self.take(&frame, |replica, decoded, bytes| replica.relay(self.node, decoded, bytes))
                })
            }
            Message::Part { read, place, piece } => {
                if !self.replica()?.expects_part(self.node, read, place) {
                    return Ok(());
                }
                self.join(&piece)?;
                self.replicate(|replica| replica.part(self.node, read, place))
            }
            Message::Piece(piece) => {
                let answer = piece.answer.then(|| scrub::series_of(&piece));
                self.join(&piece)?;
                if let Some(series) = answer {
                    scrub::rings(&self.store, &series, false).into_iter().for_each(|piece| self.say(piece));
                }
                Ok(())
            }
            Message::Scrub { partition, version, series } => {
                let found = scrub::compare(&self.store, partition, version, &series);
                self.nodes.count(|figures| {
                    figures.scrubbed += found.compared;
                    figures.diverged += found.pieces.len() as u64 + found.unknown.len() as u64;
                });
                if !found.unknown.is_empty() {
                    self.say(Message::WantRings(found.unknown));
                }
                found.pieces.into_iter().for_each(|piece| self.say(piece));
                Ok(())
            }
            Message::WantRings(series) => {
                scrub::rings(&self.store, &series, false).into_iter().for_each(|piece| self.say(piece));
                Ok(())
            }
            Message::News(news) => {
                // Held: what an older link brings late would mix with what this one has brought.
                let _current = self.replica()?;
                self.store.hear_news(self.node, news).map_err(|gap| End::Malformed(gap.to_string()))
            }
            Message::Devices { came, gone } => {
                let _current = self.replica()?;
                self.store.hear_devices(self.node, &came, &gone);
                Ok(())
            }
            Message::Signal(signal) => {
                self.store.hear_signal(signal);
                Ok(())
            }
            Message::Posted(posted) => {
                self.store.exchange().posted(posted);
                Ok(())
            }
            Message::Claimed { client, at } => {
                self.store.hear_claim(&client, at);
                Ok(())
            }
            Message::Settled { node, start, clients } => {
                self.store.hear_settled(node, start, &clients);
                Ok(())
            }
            Message::Leaving => Err(End::Left),
            Message::Load(load) => {
                self.nodes.update(&self.name, |view| view.load = load);
                Ok(())
            }
            message => self.replicate(|replica| replica.message(self.node, message)),
        }
    }

    fn join(&self, piece: &Piece) -> Result<(), End> {
        let joined = tokio::task::block_in_place(|| self.store.intake().piece(piece));
        joined.map_err(|error| End::Malformed(error.to_string()))
    }

    fn say(&self, message: Message) {
        self.outbox.send(message);
    }

    /// Decodes a frame, takes what is new of it, and joins it. One lock from the decision to the log: blocks of an
    /// origin go into memory and into the log in the order in which they were accepted.
    fn take(
        &self,
        frame: &Bytes,
        accept: impl FnOnce(&mut Replica, Frame, Bytes) -> (Option<Taken>, Vec<Effect>),
    ) -> Result<(), End> {
        let decoded = Frame::decode(frame).map_err(|error| End::Malformed(error.to_string()))?;
        let shared = self.shared();
        let mut replica = self.replica()?;
        let (taken, effects) = accept(&mut replica, decoded, frame.clone());
        let mut ahead = None;
        if let Some(taken) = taken {
            let marks = taken.marks().collect();
            ahead = self.store.intake().join(taken.origin, taken.blocks);
            shared.group.take(Logged { bytes: taken.bytes, whole: taken.frame.is_some(), marks });
        }
        shared.deliver(effects);
        drop(replica);
        if let Some(ahead) = ahead {
            self.nodes.clock_ahead(&self.name, ahead);
        }
        Ok(())
    }

    /// Writes until the link ends.
    pub(crate) async fn write(&self, mut writer: LinkWriter, mut bulk: mpsc::Receiver<Message>) -> End {
        let mut ticks = interval(LOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Cursor::default();
        loop {
            let mut out = Vec::new();
            tokio::select! {
                biased;
                () = self.outbox.ready.notified() => {}
                _ = ticks.tick() => {
                    out.push(self.encode(&Message::Load(self.nodes.load())));
                }
                Some(message) = bulk.recv() => out.push(self.encode(&message)),
            }
            loop {
                let Some(messages) = self.outbox.take() else { return End::DoesNotRead };
                let understood = messages.iter().filter(|message| message.since() <= self.version);
                out.extend(understood.map(|message| self.encode(message)));
                out.extend(self.news(&mut told).map(|news| self.encode(&news)));
                self.posts(&mut out);
                if let Err(end) = self.stream(&mut out).await {
                    return end;
                }
                if out.is_empty() {
                    break;
                }
                let bytes: usize = out.iter().map(Bytes::len).sum();
                self.nodes.count(|figures| figures.bytes_sent += bytes as u64);
                if let Err(error) = writer.send(out.drain(..)).await {
                    return error.into();
                }
            }
        }
    }

    /// What the peer is still to be told of what passes, in words that it understands.
    fn news(&self, told: &mut Cursor) -> Option<Message> {
        loop {
            let news = self.store.passing_news(told)?;
            if self.version >= NEWS {
                return Some(Message::News(news));
            }
            if let Some(devices) = news.devices {
                let (came, gone): (Vec<_>, Vec<_>) =
                    devices.changes.into_iter().partition(|(_, there)| there.is_some());
                let names = |sensors: Vec<(SensorId, Option<()>)>| -> Vec<String> {
                    sensors.into_iter().map(|(sensor, _)| sensor.as_str().to_owned()).collect()
                };
                return Some(Message::Devices { came: names(came), gone: names(gone) });
            }
        }
    }

    /// Adds messages of brokers, up to [`SEND_BYTES`]: frames do not wait for all of them.
    fn posts(&self, out: &mut Vec<Bytes>) {
        let mut bytes = 0;
        while bytes < SEND_BYTES
            && self.version >= NEWS
            && let Some(posted) = self.outbox.next_post()
        {
            let message = self.encode(&Message::Posted(posted));
            bytes += message.len();
            out.push(message);
        }
    }

    /// Adds the own frames behind the link's cursor, up to [`SEND_BYTES`].
    async fn stream(&self, out: &mut Vec<Bytes>) -> Result<(), End> {
        let shared = self.shared();
        let mut bytes = 0;
        while bytes < SEND_BYTES {
            let Some(previous) = self.replica()?.next(self.node) else { break };
            let frames = match shared.tail.after(previous) {
                Next::Frame(number, frame) => vec![(number, frame)],
                Next::Nothing => break,
                Next::Older => self.older(previous).await?,
            };
            let mut before = previous;
            for (number, frame) in frames {
                if !self.replica()?.sent(self.node, before, number) {
                    break;
                }
                let frame = self.kept_by_peer(number, frame);
                bytes += frame.len();
                out.push(self.encode(&Message::Frame { previous: before, frame }));
                before = number;
            }
        }
        Ok(())
    }

    /// The frame with the blocks that the peer keeps; one without blocks still counts, so that acknowledgements stay
    /// cumulative.
    fn kept_by_peer(&self, number: u64, frame: Bytes) -> Bytes {
        let placement = self.placement.borrow();
        if placement.keeps_all(&self.name) {
            return frame;
        }
        let reduced = reduce(&frame, |partition, _| placement.keeps(&self.name, partition));
        reduced.unwrap_or_else(|| FrameWriter::new(self.shared().origin, number).finish()).into()
    }

    /// Frames behind `previous` from the disk; none, and the peer is told, when they were trimmed.
    async fn older(&self, previous: u64) -> Result<Vec<(u64, Bytes)>, End> {
        let shared = self.shared();
        if shared.log.lock().floor > previous {
            self.replicate(|replica| replica.trimmed(self.node))?;
            return Ok(Vec::new());
        }
        let Some(database) = self.store.database() else { return Err(End::Store(Failed("closed".into()))) };
        // The frames of this run begin behind the last commit of the one before.
        let from = previous.max(shared.first - 1);
        let read = tokio::task::spawn_blocking(move || export::own_frames(&database, from)).await;
        match read {
            Ok(Ok(frames)) => Ok(frames),
            Ok(Err(error)) => Err(End::Disk(error.to_string())),
            Err(error) => Err(End::Disk(error.to_string())),
        }
    }

    fn encode(&self, message: &Message) -> Bytes {
        encode(self.version, message)
    }
}

/// Runs `work` where it may take its time, when there is much to decode.
fn large<T>(frame: &Bytes, work: impl FnOnce() -> T) -> T {
    if frame.len() >= LARGE_BYTES { tokio::task::block_in_place(work) } else { work() }
}

/// A message behind the version of the protocol.
fn encode(version: u16, message: &Message) -> Bytes {
    let start = vec![version as u8];
    // Serialising into a growing vector does not fail, and messages have no form that postcard refuses.
    postcard::to_extend(message, start).unwrap_or_default().into()
}

fn decode(bytes: &[u8]) -> Result<Message, End> {
    let malformed = |what: String| End::Malformed(what);
    let (_, message) = bytes.split_first().ok_or_else(|| malformed("an empty message".into()))?;
    postcard::from_bytes(message).map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::ids::{Origin, Partition};

    /// It did once: a frame handed to the older link was taken for sent, and lay there until vectors were compared.
    #[tokio::test]
    async fn what_comes_late_on_an_older_link_does_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let name = |name: &str| NodeName::new(name).unwrap();
        let store = Store::open(Config::new(directory.path(), name("a"))).unwrap();
        let nodes = Nodes::new(name("a"), store.node().id, String::new(), None);
        let hello = Hello {
            versions: (1, 1),
            node: NodeId(7),
            start: 1,
            name: name("b"),
            partitions: 1024,
            replicas: 3,
            peer: String::new(),
            http: String::new(),
            mqtt: None,
            zone: None,
        };
        let link = || {
            let (outbox, _) = Outbox::new();
            store.shared().replicate(|replica| {
                store.shared().post.open(hello.node, outbox.clone());
                replica.linked(hello.node, hello.start)
            });
            Peer::new(&store, &nodes, &hello, 1, &outbox, watch::Sender::default().subscribe())
        };
        let resume = encode(1, &Message::Resume { held: 0, durable: 0 });
        let older = link();
        older.hear(&resume).await.unwrap();
        let newer = link();
        assert!(matches!(older.hear(&resume).await, Err(End::Replaced)));
        newer.hear(&resume).await.unwrap();
        store.shared().replicate(|replica| replica.sealed(1));
        assert!(matches!(older.stream(&mut Vec::new()).await, Err(End::Replaced)));
        assert_eq!(newer.replica().unwrap().next(hello.node), Some(0), "it is still to be sent");
    }

    #[test]
    fn a_message_comes_back_and_noise_does_not() {
        let origin = Origin { node: NodeId(7), start: 9 };
        let messages = [
            Message::Frame { previous: 3, frame: Bytes::from_static(b"frame") },
            Message::Want { origin, blocks: vec![(Partition(3), 5)] },
            Message::Vectors { answer: true, partitions: vec![(Partition(3), vec![(origin, 5)])] },
        ];
        for message in messages {
            let bytes = encode(1, &message);
            assert_eq!(bytes[0], 1);
            assert_eq!(decode(&bytes).unwrap(), message);
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err());
            }
        }
        assert!(decode(&[1, 99, 1, 2, 3]).is_err());
    }
}
