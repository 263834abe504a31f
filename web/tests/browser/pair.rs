//! Two nodes of a cluster as a page meets them: each a store, a state and a server of this process, behind a wire that the
//! test cuts or holds. What replication does between them the test does itself: it gives each sample to both, or to one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use store::cluster::view::{Load, NodeState, NodeView};
use store::{Attribute, Batch, NodeId, NodeName, SampleTime, SensorId, Shape, Store, Times, Values};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use web::server::{Limits, Server};
use web::{Addresses, Setup, State};

/// A node behind its wire.
pub struct Half {
    pub state: State,
    /// Where browsers reach it: `http://127.0.0.1:PORT`.
    pub http: String,
    wire: watch::Sender<Wire>,
    _data: tempfile::TempDir,
}

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// It carries.
    Whole,
    /// It carries nothing, and nobody is told: the node hangs.
    Held,
    /// It is closed, and refuses: the node was killed.
    Cut,
}

impl Half {
    /// A node of this name.
    pub async fn start(name: &str) -> Self {
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = format!("http://{}", outside.local_addr().unwrap());
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(store::Config::new(data.path(), node_name(name))).unwrap();
        let addresses = Addresses { http: http.clone(), mqtt: None, peer: "127.0.0.1:4400".into() };
        let state = State::new(Setup::alone(store, addresses));
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (wire, held) = watch::channel(Wire::Whole);
        tokio::spawn(carry(outside, inside.local_addr().unwrap(), held));
        let server = Server::new(inside, Limits::default());
        tokio::spawn(server.run(web::router(state.clone()), state.stop().clone()));
        tokio::spawn(web::rate::measure(state.clone()));
        Self { state, http, wire, _data: data }
    }

    /// What happens to the wire from now on.
    pub fn wire(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// Has this node know of another, in that state.
    pub fn knows(&self, other: &Self, state: NodeState) {
        self.knows_of(other.state.store().node().name.as_str(), &other.http, state);
    }

    /// The same of a node that there is not.
    pub fn knows_of(&self, name: &str, http: &str, state: NodeState) {
        let own = self.state.nodes().all().into_iter().find(|node| node.me).unwrap();
        self.state.nodes().put(NodeView {
            name: node_name(name),
            id: NodeId(7),
            state,
            me: false,
            http: http.to_owned(),
            load: Load {
                sensors: 30,
                devices: 12,
                viewers: 2,
                samples_per_second: 18_240.0,
                memory_bytes: 151 << 20,
                disk_bytes: 3 << 29,
            },
            lag: (state == NodeState::Alive).then_some(Duration::from_micros(1_840)),
            ..own
        });
    }

    /// Takes samples of a series with one channel: time in ms, value.
    pub async fn take(&self, sensor: &str, attribute: &str, samples: &[(u64, f64)]) {
        let store = self.state.store();
        let (sensor, attribute) = (SensorId::new(sensor).unwrap(), Attribute::new(attribute).unwrap());
        let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
        let times = Times::At(samples.iter().map(|(ts, _)| SampleTime(*ts as i64 * 1000)).collect());
        let values = Values::Numbers { channels: 1, flat: samples.iter().map(|(_, value)| *value).collect() };
        store.append(vec![Batch { series, times, values }]).await.unwrap();
    }
}

/// Two nodes that know each other.
pub async fn pair() -> (Half, Half) {
    let (a, b) = (Half::start("a").await, Half::start("b").await);
    a.knows(&b, NodeState::Alive);
    b.knows(&a, NodeState::Alive);
    (a, b)
}

fn node_name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// Carries every connection from `outside` to `inside`, as the wire is.
async fn carry(outside: TcpListener, inside: SocketAddr, mut wire: watch::Receiver<Wire>) {
    let mut outside = Some(Arc::new(outside));
    let mut connections = JoinSet::new();
    loop {
        let now = *wire.borrow_and_update();
        if now == Wire::Cut {
            outside = None;
            connections.shutdown().await;
        }
        let accepted = async {
            match &outside {
                Some(listener) if now == Wire::Whole => listener.accept().await,
                // A listener that nobody asks still has the system take connections, as that of a stopped process does.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wire.changed() => if changed.is_err() { return },
            Ok((mut near, _)) = accepted => {
                let mut held = wire.clone();
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(inside).await else { return };
                    let mut carried = std::pin::pin!(copy_bidirectional(&mut near, &mut far));
                    loop {
                        let whole = *held.borrow_and_update() == Wire::Whole;
                        tokio::select! {
                            _ = &mut carried, if whole => return,
                            changed = held.changed() => if changed.is_err() { return },
                        }
                    }
                });
            }
        }
    }
}
