//! Devices' WebSockets: moves bytes between a socket, its session and the store, and decides nothing.
//!
//! An idle connection holds the socket's small buffers and an empty session; rows and batches live only while a frame
//! is taken.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use store::cluster::view::Nodes;
use store::{AppendError, Store, Ticket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::advice::Advice;
use crate::advisor::{Advisor, Ear};
use crate::error::Refused;
use crate::intake::Intake;
use crate::limits::{
    DRAIN_WITHIN, HELLO_WITHIN, MAX_CONNECTIONS, MAX_FRAME_BYTES, MAX_READ_BYTES, SEND_WITHIN, SILENCE,
};
use crate::nodes::{self, Ways};
use crate::session::{Session, Step};
use crate::validate;
use crate::wire::message::{self, FromNode, Hello};
use crate::wire::read::{Format, FromDevice, Unreadable, read};
use crate::wire::rows::{Fault, Rows};

/// Bytes of a connection's read and write buffers while it is idle.
const BUFFER_BYTES: usize = 2048;
/// Row buffers no larger than this are kept from one frame to the next, in bytes.
const KEEP_BYTES: usize = 1024;
/// How long a device is asked to wait before it goes to another node, at most; drawn anew for each, so that they do not
/// all arrive at once.
const MAX_RECONNECT_MS: u64 = 200;

/// Close codes (RFC 6455 section 7.4.1).
mod close {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const AWAY: u16 = 1001;
    pub(super) const TOO_LARGE: u16 = 1009;
    pub(super) const FAILED: u16 = 1011;
}

/// What all device connections share.
#[derive(Debug)]
pub struct Settings {
    /// The nodes that devices are told of.
    pub nodes: Nodes,
    /// How long a device may take to say a good `hello`.
    pub hello_within: Duration,
    /// How long a device may be silent.
    pub silence: Duration,
    /// Most connections.
    pub max_connections: usize,
}

impl Settings {
    /// The defaults, with these nodes.
    pub fn new(nodes: Nodes) -> Self {
        Self { nodes, hello_within: HELLO_WITHIN, silence: SILENCE, max_connections: MAX_CONNECTIONS }
    }
}

/// The WebSocket side of ingest.
#[derive(Clone)]
pub struct WebSockets(Arc<Shared>);

struct Shared {
    store: Store,
    settings: Settings,
    ways: Ways,
    advisor: Arc<Advisor>,
    stop: CancellationToken,
    connections: AtomicUsize,
}

impl WebSockets {
    /// Serves devices for `store` until `stop`.
    pub fn new(store: Store, settings: Settings, advisor: Arc<Advisor>, stop: CancellationToken) -> Self {
        let ways = Ways::new(settings.nodes.clone());
        Self(Arc::new(Shared { store, settings, ways, advisor, stop, connections: AtomicUsize::new(0) }))
    }

    /// Devices that are connected.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// The route of devices.
    pub fn router(&self) -> Router {
        Router::new().route(message::PATH, get(upgrade)).with_state(self.clone())
    }
}

/// Counts a connection while it lives.
struct Counted(Arc<Shared>);

impl Counted {
    /// `None` when there is no room for one more.
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let step = |count: usize| (count < shared.settings.max_connections).then_some(count + 1);
        let counted = shared.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        counted.ok().map(|_| Self(shared.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn upgrade(State(sockets): State<WebSockets>, upgrade: WebSocketUpgrade) -> Response {
    let Some(counted) = Counted::new(&sockets.0) else {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
    };
    let upgrade = upgrade
        .protocols([message::CBOR])
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MAX_READ_BYTES)
        .max_frame_size(MAX_READ_BYTES);
    let format = match upgrade.selected_protocol() {
        Some(_) => Format::Cbor,
        None => Format::Json,
    };
    upgrade.on_upgrade(move |socket| Connection::new(socket, format, counted).serve())
}

/// Why a connection ends.
enum End {
    /// The peer is gone.
    Gone,
    /// We close it, with this code and reason.
    Close(u16, String),
}

struct Connection {
    socket: WebSocket,
    format: Format,
    shared: Arc<Shared>,
    session: Session<Ticket>,
    intake: Intake,
    rows: Rows,
    heard: Instant,
    /// Where else the device may go, as it was last told.
    told: Arc<[String]>,
    /// Says when that may have changed.
    news: watch::Receiver<u64>,
    /// What it was advised last.
    advised: Option<Advice>,
    _counted: Counted,
}

impl Connection {
    fn new(socket: WebSocket, format: Format, counted: Counted) -> Self {
        let shared = counted.0.clone();
        Self {
            socket,
            format,
            session: Session::default(),
            intake: Intake::advised(shared.store.clone(), shared.advisor.ear()),
            told: shared.ways.now(),
            news: shared.ways.news(),
            advised: None,
            shared,
            rows: Rows::default(),
            heard: Instant::now(),
            _counted: counted,
        }
    }

    async fn serve(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        if let End::Close(code, reason) = end {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // The peer may be gone, or hang; both is its own affair.
            let _ = timeout(SEND_WITHIN, self.socket.send(close)).await;
            // Until it has answered, so that what was said is not lost to a reset.
            let bye = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            let _ = timeout(Duration::from_secs(1), bye).await;
        }
    }

    /// Waits for one thing to happen, and does what it asks for.
    async fn step(&mut self) -> Result<(), End> {
        let Shared { settings, stop, .. } = &*self.shared;
        let silence = match self.session.sensor() {
            Some(_) => settings.silence,
            None => settings.hello_within,
        };
        let due = self.heard + silence;
        let kept = self.session.waits_for().cloned();
        let kept = async {
            match kept {
                Some(ticket) => drop(ticket.kept().await),
                None => pending().await,
            }
        };
        let has_room = self.session.has_room();
        // All branches are cancel-safe: `recv` reads from a stream, the others wait on notifications.
        tokio::select! {
            () = stop.cancelled() => Err(self.leave().await?),
            Ok(()) = self.news.changed(), if self.session.sensor().is_some() => self.tell_ways().await,
            () = rung(self.intake.ear()), if self.session.sensor().is_some() => self.advise().await,
            () = kept => self.acknowledge().await,
            () = tokio::time::sleep_until(due) => {
                Err(End::Close(close::NORMAL, format!("silent: nothing was heard for {silence:?}")))
            }
            frame = self.socket.recv(), if has_room => {
                self.heard = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => self.frame(Format::Json, text.as_bytes()).await,
                    Some(Ok(Message::Binary(bytes))) => self.frame(Format::Cbor, &bytes).await,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_))) | None => Err(End::Gone),
                    Some(Err(error)) => {
                        let error = error.to_string();
                        tracing::debug!(error, "a device's connection broke");
                        if error.contains("too long") { Err(too_large(MAX_READ_BYTES)) } else { Err(End::Gone) }
                    }
                }
            }
        }
    }

    /// Tells the device where else it may go, if that has changed.
    async fn tell_ways(&mut self) -> Result<(), End> {
        let now = self.shared.ways.now();
        if Arc::ptr_eq(&now, &self.told) {
            return Ok(());
        }
        self.told = now;
        self.send(&FromNode::Nodes { nodes: nodes::all(&self.told) }).await
    }

    /// Tells the device how long to batch, if that has changed.
    async fn advise(&mut self) -> Result<(), End> {
        let advice = self.intake.ear().and_then(Ear::advice);
        match advice {
            Some(advice) if self.advised != Some(advice) => {
                self.advised = Some(advice);
                self.send(&advice.message()).await
            }
            _ => Ok(()),
        }
    }

    /// The node is going away: tells the device at once, then acknowledges what it waits for, as far as that is kept in
    /// time. Frames that come now are not taken: without an acknowledgement the device sends them again, elsewhere.
    async fn leave(&mut self) -> Result<End, End> {
        let delay_ms = rand::random_range(0..=MAX_RECONNECT_MS);
        let nodes = nodes::elsewhere(&self.shared.ways.now());
        self.acknowledge().await?;
        self.send(&FromNode::Reconnect { delay_ms, nodes }).await?;
        let until = Instant::now() + DRAIN_WITHIN;
        while let Some(ticket) = self.session.waits_for().cloned() {
            // Both branches are cancel-safe.
            tokio::select! {
                kept = timeout_at(until, ticket.kept()) => match kept {
                    Ok(_) => self.acknowledge().await?,
                    Err(_) => break,
                },
                said = self.socket.recv() => match said {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                    Some(Ok(_)) => {}
                },
            }
        }
        Ok(End::Close(close::AWAY, "this node is going away".into()))
    }

    async fn frame(&mut self, format: Format, bytes: &[u8]) -> Result<(), End> {
        if bytes.len() > MAX_FRAME_BYTES {
            self.intake.refused(
                self.session.sensor().unwrap_or_default(),
                &Refused::new("frame_too_large", ""),
                1,
            );
            return Err(too_large(bytes.len()));
        }
        let frame = if format == self.format {
            read(format, bytes, &mut self.rows)
        } else {
            let what =
                "expected text frames of JSON, or binary frames of CBOR with subprotocol sensorium.cbor";
            self.rows.clear();
            Err(Unreadable { seq: None, fault: Fault::WrongFormat(what) })
        };
        let done = self.judged(frame).await;
        if self.rows.bytes() > KEEP_BYTES {
            self.rows = Rows::default();
        }
        done
    }

    async fn judged(&mut self, frame: Result<FromDevice, Unreadable>) -> Result<(), End> {
        match self.session.frame(frame) {
            Step::Rest => Ok(()),
            Step::Greet(hello) => self.greet(&hello).await,
            Step::Refuse(refused, told) => {
                self.intake.refused(self.session.sensor().unwrap_or_default(), &refused, self.rows.len());
                self.send(&told).await
            }
            Step::Take { seq, sensor, attribute } => {
                match self.intake.take(&self.rows, &sensor, attribute.as_deref()) {
                    Ok(()) => self.append(seq, &sensor).await,
                    Err(refused) => {
                        let told = self.session.refused(seq, &refused);
                        self.send(&told).await
                    }
                }
            }
        }
    }

    async fn greet(&mut self, hello: &Hello) -> Result<(), End> {
        let described = validate::hello(hello).and_then(|(sensor, description)| {
            self.shared.store.describe(&sensor, &description)?;
            Ok(sensor)
        });
        let told = match described {
            Ok(sensor) => {
                self.intake.speaks_for(&sensor);
                let node = self.shared.store.node().name.clone();
                // What comes from here on is news.
                self.news.mark_unchanged();
                self.told = self.shared.ways.now();
                self.session.greeted(hello.sensor.clone(), node.as_str(), nodes::all(&self.told))
            }
            Err(Refused { code, message }) => FromNode::Error { seq: None, code: code.into(), message },
        };
        self.send(&told).await
    }

    /// Appends what the intake has gathered; waits while the store is full, and so slows the device.
    async fn append(&mut self, seq: u64, sensor: &str) -> Result<(), End> {
        let samples = self.rows.len();
        match self.shared.store.append(self.intake.batches()).await {
            Ok(appended) => {
                let late = appended.outcome.late;
                match self.session.taken(seq, appended.ticket, late, samples) {
                    Some(notice) => self.send(&notice).await,
                    None => Ok(()),
                }
            }
            Err(AppendError::Refused(refusal)) => {
                let refused = Refused::from(refusal);
                self.intake.refused(sensor, &refused, samples);
                let told = self.session.refused(seq, &refused);
                self.send(&told).await
            }
            Err(error) => {
                let refused = Refused::new("store_failed", error.to_string());
                let told = self.session.refused(seq, &refused);
                self.send(&told).await?;
                Err(End::Close(close::FAILED, "store_failed".into()))
            }
        }
    }

    /// Acknowledges what is kept by now.
    async fn acknowledge(&mut self) -> Result<(), End> {
        let mut failed = None;
        let ack = self.session.acknowledge(|ticket| match ticket.is_kept() {
            Some(Ok(copies)) => Some(copies.0),
            Some(Err(error)) => {
                failed = Some(error.to_string());
                None
            }
            None => None,
        });
        if let Some(ack) = ack {
            self.send(&ack).await?;
        }
        match failed {
            Some(failed) => Err(End::Close(close::FAILED, failed.chars().take(100).collect())),
            None => Ok(()),
        }
    }

    async fn send(&mut self, message: &FromNode) -> Result<(), End> {
        let message = match self.format {
            Format::Json => {
                let text = serde_json::to_string(message)
                    .expect("every message is an object with texts as keys, and a String takes it all");
                Message::text(text)
            }
            Format::Cbor => Message::binary(message::to_cbor(message)),
        };
        match timeout(SEND_WITHIN, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // Gone, or it does not read what it is told: there is no one to tell.
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

/// Waits until the advice may be another one.
async fn rung(ear: Option<&Ear>) {
    match ear {
        Some(ear) => ear.rung().await,
        None => pending().await,
    }
}

fn too_large(bytes: usize) -> End {
    End::Close(close::TOO_LARGE, format!("frame_too_large: {bytes} bytes or more; at most {MAX_FRAME_BYTES}"))
}
