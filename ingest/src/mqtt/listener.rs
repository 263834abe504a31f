//! The MQTT port: takes connections, as many as may be, and ends them all when the node stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::Store;
use store::cluster::view::Nodes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection;
use super::hub::Hub;
use crate::advisor::Advisor;
use crate::limits::{MAX_CONNECTIONS, MAX_FRAME_BYTES};

/// How long to wait when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often sessions and wills are looked through for those whose time has come.
const SWEEP: Duration = Duration::from_secs(1);
/// How long connections are given to say goodbye when the node stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What one MQTT port allows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The nodes that clients are sent to when this one stops.
    pub nodes: Nodes,
    /// Most connections at a time; one more is closed at once.
    pub max_connections: usize,
    /// How long a client may take to say CONNECT.
    pub handshake: Duration,
    /// How long it may be silent in the middle of a packet.
    pub patience: Duration,
    /// Longest packet taken, in bytes; version 5 is told.
    pub max_packet: usize,
}

impl Settings {
    /// The defaults, with these nodes.
    pub fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            max_connections: MAX_CONNECTIONS,
            handshake: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            max_packet: MAX_FRAME_BYTES,
        }
    }
}

/// What all connections of a port share.
pub(super) struct Port {
    pub(super) store: Store,
    pub(super) hub: Arc<Hub>,
    pub(super) advisor: Arc<Advisor>,
    pub(super) settings: Settings,
    pub(super) stop: CancellationToken,
}

/// Serves MQTT on `listener` until `stop`, and returns when the last connection has ended.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    hub: Arc<Hub>,
    advisor: Arc<Advisor>,
    settings: Settings,
    stop: CancellationToken,
) {
    let port = Arc::new(Port { store, hub, advisor, settings, stop: stop.clone() });
    let mut connections = JoinSet::new();
    // By itself: a will may be a sample, which waits for room like any other.
    let sweeping = tokio::spawn(sweep(port.clone()));
    loop {
        // All branches are cancel-safe.
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => accept(stream, &port, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "no MQTT connection could be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => note(ended),
        }
    }
    drop(listener);
    sweeping.abort();
    let farewell = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!(left = connections.len(), "MQTT connections were cut off");
    }
}

/// Sees to what is due, until it is aborted.
async fn sweep(port: Arc<Port>) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sweep.tick().await;
        port.hub.sweep(Instant::now()).await;
    }
}

fn accept(stream: TcpStream, port: &Arc<Port>, connections: &mut JoinSet<()>) {
    let counters = &port.hub.counters;
    if connections.len() >= port.settings.max_connections {
        counters.turned_away.add(1);
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        // The peer is gone already.
        tracing::debug!(%error, "an MQTT connection was not taken");
        return;
    }
    counters.connections.add(1);
    let counted = Counted(port.hub.clone());
    let port = port.clone();
    connections.spawn(async move {
        let _counted = counted;
        connection::serve(stream, port).await;
    });
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an MQTT connection ended by a fault of the program");
    }
}

/// Counts a connection while it lives.
struct Counted(Arc<Hub>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.connections.sub(1);
    }
}
