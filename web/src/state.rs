//! What every handler shares. Cheap to clone; one for each process.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

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

/// What [`State`] is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where the node is reached.
    pub addresses: Addresses,
    /// Further origins (`https://example.org`) whose pages may open sockets and change state.
    pub allow_origins: Vec<String>,
    /// Whether only this machine can reach the node.
    pub loopback: bool,
}

/// What every handler shares.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    stop: CancellationToken,
}

impl State {
    /// The state of a node that has just opened its store.
    pub fn new(setup: Setup) -> Self {
        Self(Arc::new(Inner { setup, stop: CancellationToken::new() }))
    }

    /// Where this node is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.0.setup.addresses
    }

    /// Origins beside our own whose pages may open sockets and change state.
    pub fn allow_origins(&self) -> &[String] {
        &self.0.setup.allow_origins
    }

    /// Whether only this machine can reach the node.
    pub fn is_loopback(&self) -> bool {
        self.0.setup.loopback
    }

    /// Cancelled when the node stops: sockets then tell their clients to move, and close.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }
}
