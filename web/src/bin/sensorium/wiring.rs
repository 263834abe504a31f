//! The node put together: store, listeners, router; one place, from start to stop. It alone knows every part.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use store::cluster::discover::{Announced, Discovery};
use store::cluster::expiry::{EMPTY_FOR, expire};
use store::cluster::mesh::Cluster;
use store::cluster::view::Nodes;
use store::{OpenError, Store};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use web::server::{Limits, Server};
use web::{Setup, State};

use crate::config::Settings;
use crate::devices::Devices;
use crate::shutdown::{self, Signals};

/// Free ports that are tried until one is free for both TCP and UDP.
const PEER_PORTS: usize = 16;
/// Addresses of other nodes that wait to be tried.
const FOUND: usize = 64;
/// How often the store is asked whether it has failed.
const WATCH_STORE_EVERY: Duration = Duration::from_millis(250);

/// Runs a node until it is told to stop, or cannot go on. The error is the reason, for the operator.
pub(crate) async fn run(settings: Settings) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    raise_file_limit();
    // The data first: that another node has it is worth more to know than that its ports are taken as well.
    let store = tokio::select! {
        opened = open(&settings) => opened?,
        () = signals.next() => return Ok(()),
    };
    let outcome = serve(&settings, store.clone(), &mut signals).await;
    if outcome.is_err() {
        // Whatever was taken before the failure is kept, if that is still possible.
        tokio::time::timeout(shutdown::FLUSH_WITHIN, store.close()).await.ok();
    }
    outcome
}

async fn serve(settings: &Settings, store: Store, signals: &mut Signals) -> Result<(), String> {
    let http = bind("--http", settings.http).await?;
    let mqtt = match settings.mqtt {
        Some(address) => Some(bind("--mqtt", address).await?),
        None => None,
    };
    let (peer, datagrams) = bind_peer(settings.peer).await?;
    let bound =
        Bound { http: local(&http)?, mqtt: mqtt.as_ref().map(local).transpose()?, peer: local(&peer)? };

    let addresses = settings.addresses(bound.http, bound.mqtt, bound.peer);
    let stop = CancellationToken::new();
    let node = store.node();
    let nodes = Nodes::new(node.name.clone(), node.id, addresses.http.clone(), addresses.mqtt.clone());
    let setup = settings.mesh(&addresses.peer);
    let (found_in, found) = mpsc::channel(FOUND);
    let instance = node.id.to_string();
    let (seeds, discover) = (settings.cluster.join.clone(), settings.cluster.discover.to_source());
    // As long as the node serves. What finds no room is found again.
    let _discovery =
        Discovery::start(seeds, discover, Announced { instance, address: bound.peer }, move |address| {
            let _ = found_in.try_send(address);
        });
    let cluster = Cluster::start(store.clone(), nodes.clone(), setup, peer, datagrams, found);
    let cluster = cluster.await.map_err(|error| error.to_string())?;
    let devices = Devices::new(&store, &nodes, &stop);
    let state = State::new(Setup {
        store: store.clone(),
        addresses,
        nodes,
        allow_origins: settings.allow_origins.clone(),
        loopback: settings.is_loopback(),
        replicas: settings.cluster.replicas,
        devices: devices.figures(),
        stop: stop.clone(),
    });
    let router = web::app(state.clone(), devices.router());
    let server = Server::new(http, Limits::default());
    let mut draining = vec![server.connections()];
    tokio::spawn(server.run(router, stop.clone()));
    if let Some(mqtt) = mqtt {
        draining.push(devices.serve_mqtt(mqtt));
    }
    tokio::spawn(web::rate::measure(state.clone()));
    let expiry = tokio::spawn(expire(store.clone(), state.nodes().clone(), EMPTY_FOR));
    // It ends with the node, and holds the store no longer than that.
    let _expiry = tokio_util::task::AbortOnDropHandle::new(expiry);

    announce(settings, &state, &bound);
    tokio::select! {
        () = signals.next() => {
            tracing::info!("stopping; a second signal exits at once");
            shutdown::stop(&state, &cluster, &draining, signals).await
        }
        reason = cluster.refused() => {
            stop.cancel();
            Err(reason)
        }
        reason = store_fails(&store) => {
            stop.cancel();
            Err(reason)
        }
    }
}

/// The addresses that were bound.
struct Bound {
    http: SocketAddr,
    mqtt: Option<SocketAddr>,
    peer: SocketAddr,
}

/// The contract's `ready` line on standard output, and for people where to go on standard error.
fn announce(settings: &Settings, state: &State, bound: &Bound) {
    let mqtt = bound.mqtt.map_or_else(|| "none".to_owned(), |mqtt| mqtt.to_string());
    let ready = format!("ready node={} http={} mqtt={mqtt} peer={}\n", settings.name, bound.http, bound.peer);
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(ready.as_bytes()).and_then(|()| out.flush()) {
        tracing::warn!(%error, "nobody reads standard output");
    }
    let data = std::path::absolute(&settings.data).unwrap_or_else(|_| settings.data.clone());
    tracing::info!("node {} keeps its data in {}", settings.name, data.display());
    tracing::info!("the dashboard is at {}", state.addresses().http);
    if let Some(mqtt) = &state.addresses().mqtt {
        tracing::info!("devices stream to {}/api/v1/ingest/ws or {mqtt}", state.addresses().http);
    }
    if !settings.is_loopback() {
        tracing::warn!("open to the network without authentication (--insecure-open)");
    }
}

async fn open(settings: &Settings) -> Result<Store, String> {
    let config = settings.store();
    let data = config.data.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(config)).await;
    match opened {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) => Err(explain(&error, &data)),
        Err(error) => Err(format!("--data {}: opening it failed: {error}", data.display())),
    }
}

/// The store's message, with the directory where it names only the file.
pub(crate) fn explain(error: &OpenError, data: &std::path::Path) -> String {
    format!("--data {}: {error}", data.display())
}

pub(crate) async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{option} {address}: cannot listen: {error}"))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| format!("a listener without an address: {error}"))
}

/// Both sockets that peers use, on one port.
async fn bind_peer(address: SocketAddr) -> Result<(TcpListener, UdpSocket), String> {
    let mut refused = String::new();
    for _ in 0..PEER_PORTS {
        let tcp = bind("--peer", address).await?;
        match UdpSocket::bind(local(&tcp)?).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) => refused = format!("--peer {address}: cannot listen for datagrams: {error}"),
        }
        if address.port() != 0 {
            break;
        }
    }
    Err(refused)
}

/// Ends when the store has stopped by itself: a commit failed, and nothing after it can be kept.
async fn store_fails(store: &Store) -> String {
    let mut ticks = tokio::time::interval(WATCH_STORE_EVERY);
    loop {
        ticks.tick().await;
        if let Some(failed) = store.failed() {
            return failed.to_string();
        }
    }
}

/// Each device is an open file: takes as many as the system lets this process have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}
