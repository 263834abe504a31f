//! What every handler shares. Cheap to clone; one for each process.

use std::fmt;
use std::sync::Arc;

use store::cluster::view::{Load, Nodes, Readiness};
use store::{Stats, Store};
use tokio_util::sync::CancellationToken;

use crate::guesses::Guesses;
use crate::live::hub::Hub;
use crate::metrics::Exposition;
use crate::rate::Rate;

/// Where this node is reached, as browsers, devices and peers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Base of pages and API, without a slash at the end: `http://127.0.0.1:4000`.
    pub http: String,
    /// Devices over MQTT: `mqtt://127.0.0.1:1883`; `None` with `--no-mqtt`.
    pub mqtt: Option<String>,
    /// Peers: `127.0.0.1:4400`.
    pub peer: String,
}

/// What the part of the program that speaks with devices tells of itself.
pub trait Devices: Send + Sync {
    /// Connected devices, over all protocols.
    fn connected(&self) -> u64;
    /// Adds its figures to `GET /metrics`.
    fn expose(&self, out: &mut Exposition);
}

/// A node that speaks with no devices.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDevices;

impl Devices for NoDevices {
    fn connected(&self) -> u64 {
        0
    }

    fn expose(&self, _: &mut Exposition) {}
}

/// What [`State`] is made from.
#[derive(Clone)]
pub struct Setup {
    /// What the node keeps.
    pub store: Store,
    /// Where the node is reached.
    pub addresses: Addresses,
    /// The nodes of the cluster, this one among them.
    pub nodes: Nodes,
    /// Further origins (`https://example.org`) whose pages may open sockets and change state.
    pub allow_origins: Vec<String>,
    /// Whether only this machine can reach the node.
    pub loopback: bool,
    /// Nodes that keep each sensor, as configured.
    pub replicas: u16,
    /// Who speaks with devices.
    pub devices: Arc<dyn Devices>,
    /// Stops the node: [`State::stop`].
    pub stop: CancellationToken,
}

impl Setup {
    /// A node that only this machine reaches, with neither devices nor further origins.
    pub fn alone(store: Store, addresses: Addresses) -> Self {
        let node = store.node();
        let nodes = Nodes::new(node.name.clone(), node.id, addresses.http.clone(), addresses.mqtt.clone());
        nodes.set_readiness(Readiness::default());
        Self {
            store,
            addresses,
            nodes,
            allow_origins: Vec::new(),
            loopback: true,
            replicas: 3,
            devices: Arc::new(NoDevices),
            stop: CancellationToken::new(),
        }
    }
}

/// What every handler shares.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    setup: Setup,
    hub: Hub,
    rate: Rate,
    guesses: Guesses,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} at {})", self.store().node().name, self.addresses().http)
    }
}

impl State {
    /// The state of a node that has just opened its store.
    pub fn new(setup: Setup) -> Self {
        Self(Arc::new(Inner {
            setup,
            hub: Hub::default(),
            rate: Rate::default(),
            guesses: Guesses::default(),
        }))
    }

    /// What the node keeps.
    pub fn store(&self) -> &Store {
        &self.0.setup.store
    }

    /// Where this node is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.0.setup.addresses
    }

    /// The nodes of the cluster, as far as this one knows.
    pub fn nodes(&self) -> &Nodes {
        &self.0.setup.nodes
    }

    /// Notes this node's own figures for whoever asks any node of the cluster.
    pub(crate) fn note_load(&self, stats: &Stats) {
        self.nodes().set_load(Load {
            sensors: stats.sensors as u64,
            devices: self.devices().connected(),
            viewers: self.hub().figures().viewers,
            samples_per_second: self.rate().per_second(),
            memory_bytes: stats.memory_bytes,
            disk_bytes: stats.disk_bytes,
        });
    }

    /// Origins beside our own whose pages may open sockets and change state.
    pub fn allow_origins(&self) -> &[String] {
        &self.0.setup.allow_origins
    }

    /// Whether only this machine can reach the node.
    pub fn is_loopback(&self) -> bool {
        self.0.setup.loopback
    }

    /// Nodes that keep each sensor, as configured.
    pub fn replicas(&self) -> u16 {
        self.0.setup.replicas
    }

    /// Who speaks with devices.
    pub fn devices(&self) -> &dyn Devices {
        &*self.0.setup.devices
    }

    /// The viewers.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Who guesses join codes.
    pub fn guesses(&self) -> &Guesses {
        &self.0.guesses
    }

    /// Samples a second.
    pub fn rate(&self) -> &Rate {
        &self.0.rate
    }

    /// Cancelled when the node stops: sockets then tell their clients to move, and close.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.setup.stop
    }
}
