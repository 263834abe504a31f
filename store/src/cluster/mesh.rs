//! The mesh: a link to every node that membership knows. It dials and accepts, tells replication who is there and who
//! is gone, serves what peers ask of the disk, and says when the node is ready.
//!
//! A link that breaks is dialled again at once: a refused connection says that the process is dead, and membership is
//! told so. What membership says decides who counts; an open link is proof of life until it says otherwise.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use self::links::Open;
use self::upkeep::READERS;
use super::hello::{Hello, VERSIONS};
use super::link::Linker;
use super::member::{Member, MemberEvent, Membership};
use super::placement::Placement;
use super::secret::Keys;
use super::view::{Happening, Load, NodeState, NodeView, Nodes};
use crate::handle::Store;
use crate::model::ids::{NodeId, NodeName, PARTITIONS};
use crate::post::WORK;
use crate::replica::message::Message;

mod links;
mod upkeep;

/// How long a node looks for others before it goes on alone.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// How long a node that leaves waits for its peers to have everything.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// What a node is told of its cluster.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where peers reach this node, `HOST:PORT`.
    pub peer: String,
    /// The protocol versions that it announces ([`VERSIONS`], but for tests of rolling upgrades).
    pub versions: (u16, u16),
    /// What all nodes of the cluster share.
    pub secret: Option<String>,
    /// Nodes that keep a partition.
    pub replicas: u16,
    /// Availability zone.
    pub zone: Option<String>,
    /// It was told where other nodes may be: it is not ready before one has answered, or all were silent.
    pub expects_peers: bool,
}

/// Why the cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket does not say where it is.
    #[error("a listener without an address: {0}")]
    Socket(#[from] std::io::Error),
    /// The address that peers are told leads nowhere.
    #[error("--public-peer {address}: {what}")]
    Public {
        /// As it was told.
        address: String,
        /// What is wrong.
        what: String,
    },
    /// No certificate can be made.
    #[error("cannot make a certificate for links: {0}")]
    Certificate(#[from] super::tls::CertificateError),
}

/// A node's place in its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    store: Store,
    nodes: Nodes,
    linker: Linker,
    membership: Membership,
    peers: Mutex<HashMap<NodeId, Known>>,
    /// Where links are being opened to.
    dialled: Mutex<HashSet<SocketAddr>>,
    readers: Arc<Semaphore>,
    placement: watch::Sender<Placement>,
    /// Another node was linked: it fits into its cluster.
    met: AtomicBool,
    /// This node says goodbye.
    leaving: AtomicBool,
    /// Why the node must not go on.
    fatal: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

/// A node that this one has heard of.
struct Known {
    name: NodeName,
    member: Option<Member>,
    up: bool,
    /// The run of it that said goodbye.
    left: Option<u64>,
    dialling: bool,
    /// All addresses to which the name leads that it tells; some may lead nowhere from here.
    told: Vec<SocketAddr>,
    /// Addresses at which it answered, beside the one that it tells.
    reached: HashSet<SocketAddr>,
    link: Option<Open>,
}

impl Cluster {
    /// Takes part in the cluster over these sockets, which are bound to the same address. Tries the addresses that are
    /// found, and fills `nodes` from here on.
    pub async fn start(
        store: Store,
        nodes: Nodes,
        setup: Setup,
        tcp: TcpListener,
        udp: UdpSocket,
        found: mpsc::Receiver<SocketAddr>,
    ) -> Result<Self, StartError> {
        let node = store.node().clone();
        let me = nodes.get(&node.name);
        let keys = Keys::new(setup.secret.as_deref());
        let hello = Hello {
            versions: setup.versions,
            node: node.id,
            start: node.origin.start,
            name: node.name.clone(),
            partitions: PARTITIONS,
            replicas: setup.replicas,
            peer: setup.peer.clone(),
            http: me.as_ref().map(|me| me.http.clone()).unwrap_or_default(),
            mqtt: me.and_then(|me| me.mqtt),
            zone: setup.zone,
        };
        let linker = Linker::new(&keys, hello)?;
        let address = public(&setup.peer, tcp.local_addr()?).await?;
        let member = Member { name: node.name.clone(), node: node.id, start: node.origin.start, address };
        let (membership, events) = Membership::start(udp, member, &keys);
        let (work_in, work) = mpsc::channel(WORK);
        store.shared().post.set_worker(work_in);
        let inner = Arc::new(Inner {
            store,
            nodes,
            linker,
            membership,
            peers: Mutex::default(),
            dialled: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            placement: watch::Sender::default(),
            met: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
            stop: CancellationToken::new(),
        });
        // A node that expects nobody is ready when it is here.
        inner.nodes.set_readiness(inner.readiness(setup.expects_peers, false, false));
        tokio::spawn(inner.clone().accept(tcp));
        tokio::spawn(inner.clone().follow(events));
        tokio::spawn(inner.clone().serve(work));
        tokio::spawn(inner.clone().compare());
        tokio::spawn(inner.clone().look(setup.expects_peers));
        tokio::spawn(inner.clone().try_found(found, address));
        Ok(Self(inner))
    }

    /// Ends when the node must not go on: the cluster that it was told to join does not take it.
    pub async fn refused(&self) -> String {
        let mut fatal = self.0.fatal.subscribe();
        let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Leaves: waits until peers hold everything, says goodbye, closes the links. The error names what was not handed
    /// over.
    pub async fn leave(&self) -> Result<(), String> {
        let inner = &self.0;
        let handed_over = async {
            let mut ticks = interval(Duration::from_millis(10));
            while !inner.store.shared().replica.lock().is_handed_over() {
                ticks.tick().await;
            }
        };
        let outcome = tokio::time::timeout(HAND_OVER_WITHIN, handed_over).await;
        inner.leaving.store(true, Relaxed);
        for node in inner.store.shared().post.linked() {
            inner.send(node, Message::Leaving);
        }
        inner.membership.leave().await;
        inner.stop.cancel();
        outcome.map_err(|_| {
            format!(
                "the last samples were not handed over to the other nodes within {} s; they are on this node's disk",
                HAND_OVER_WITHIN.as_secs()
            )
        })
    }
}

/// Where the address that peers are told leads, for a node that listens at `bound`.
async fn public(address: &str, bound: SocketAddr) -> Result<SocketAddr, StartError> {
    let wrong = |what: String| StartError::Public { address: address.to_owned(), what };
    let found = tokio::net::lookup_host(address).await.map_err(|error| wrong(error.to_string()))?;
    heard_at(&found.collect::<Vec<_>>(), bound).ok_or_else(|| wrong("the name has no address".to_owned()))
}

/// The address of a name by which membership knows this node. A name may have several, of which a socket of one family
/// hears only its own.
fn heard_at(addresses: &[SocketAddr], bound: SocketAddr) -> Option<SocketAddr> {
    let both = bound.ip().is_unspecified() && bound.is_ipv6();
    let hears = |address: &&SocketAddr| both || address.is_ipv4() == bound.is_ipv4();
    let exact = addresses.iter().find(|address| **address == bound);
    exact.or_else(|| addresses.iter().find(hears)).or(addresses.first()).copied()
}

impl Inner {
    fn me(&self) -> NodeId {
        self.linker.hello().node
    }

    fn send(&self, node: NodeId, message: Message) {
        if let Some(outbox) = self.store.shared().post.outbox(node) {
            outbox.send(message);
        }
    }

    /// Follows membership.
    async fn follow(self: Arc<Self>, mut events: mpsc::Receiver<MemberEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                MemberEvent::Up(member) => self.up(&member),
                MemberEvent::Suspect(member) => self.state(&member, NodeState::Suspect, Happening::Suspected),
                MemberEvent::Recovered(member) => self.state(&member, NodeState::Alive, Happening::Recovered),
                MemberEvent::Down(member) => self.gone(&member, NodeState::Down, Happening::Died),
                MemberEvent::Left(member) => self.gone(&member, NodeState::Left, Happening::Left),
                MemberEvent::Contested(member) => {
                    let reason = format!(
                        "another live node, {} at {}, has the name {} too: stop one of them, or give it another --name",
                        member.node, member.address, member.name
                    );
                    tracing::error!("{reason}");
                    if !self.met.load(Relaxed) {
                        self.fatal.send_replace(Some(reason));
                    }
                }
            }
        }
    }

    fn up(self: &Arc<Self>, member: &Member) {
        let mut peers = self.peers.lock();
        let known = peers.entry(member.node).or_insert_with(|| Known::new(&member.name));
        let replaced = known.link.as_ref().filter(|link| link.start != member.start);
        if let Some(link) = replaced {
            link.stop.cancel();
        }
        known.member = Some(member.clone());
        known.name = member.name.clone();
        if known.left == Some(member.start) {
            return;
        }
        let came = !std::mem::replace(&mut known.up, true);
        drop(peers);
        self.seen(member.node, &member.name);
        if came {
            tracing::info!("node {} joined, at {}", member.name, member.address);
            self.nodes.event(member.name.as_str(), Happening::Joined);
        }
        self.dial(member.node);
    }

    /// A node is there.
    fn seen(&self, node: NodeId, name: &NodeName) {
        self.store.call(node, name);
        self.store.shared().replicate(|replica| replica.member(node, true));
        let held = self.nodes.get(name).filter(|view| view.id == node);
        let view = match held {
            Some(view) => NodeView { state: NodeState::Alive, ..view },
            None => NodeView {
                name: name.clone(),
                id: node,
                state: NodeState::Alive,
                me: false,
                http: String::new(),
                mqtt: None,
                load: Load::default(),
                lag: None,
                since: SystemTime::now(),
            },
        };
        self.nodes.put(view);
        self.place();
    }

    /// Places the partitions on the nodes that are known and have not left. While fewer copies than nodes are asked
    /// for, every node keeps everything all the same: nodes do not fetch from others what they lack yet.
    fn place(&self) {
        let replicas = usize::from(self.linker.hello().replicas);
        let nodes = self.nodes.all().into_iter().filter(|view| view.state != NodeState::Left);
        let names: Vec<_> = nodes.map(|view| view.name).collect();
        let placement = Placement::new(&names, replicas.max(names.len()));
        let changed = self.placement.send_if_modified(|held| {
            let changed = *held != placement;
            *held = placement;
            changed
        });
        if changed && names.len() > replicas {
            tracing::warn!("{} nodes with --replicas {replicas}: each keeps everything", names.len());
        }
    }

    fn state(&self, member: &Member, state: NodeState, happening: Happening) {
        self.nodes.update(&member.name, |view| view.state = state);
        tracing::info!("node {} {happening}", member.name);
        self.nodes.event(member.name.as_str(), happening);
    }

    fn gone(&self, member: &Member, state: NodeState, happening: Happening) {
        let mut peers = self.peers.lock();
        let Some(known) = peers.get_mut(&member.node) else { return };
        // A later run of it may be here already.
        if known.member.as_ref().is_some_and(|held| held.start != member.start) {
            return;
        }
        known.up = false;
        let (state, happening) = if known.left == Some(member.start) {
            (NodeState::Left, Happening::Left)
        } else {
            (state, happening)
        };
        if let Some(link) = &known.link {
            link.stop.cancel();
        }
        drop(peers);
        self.store.shared().replicate(|replica| replica.member(member.node, false));
        self.store.wills_of_dead(member.node, member.start);
        let news = |view: NodeView| view.id == member.node && view.state != state;
        if self.nodes.get(&member.name).is_some_and(news) {
            self.nodes.update(&member.name, |view| (view.state, view.lag) = (state, None));
            tracing::warn!("node {} {happening}", member.name);
            self.nodes.event(member.name.as_str(), happening);
        }
    }
}

impl Known {
    fn new(name: &NodeName) -> Self {
        Self {
            name: name.clone(),
            member: None,
            up: false,
            left: None,
            dialling: false,
            told: Vec::new(),
            reached: HashSet::new(),
            link: None,
        }
    }

    /// Where to dial it.
    fn places(&self) -> Vec<SocketAddr> {
        let mut places: Vec<_> = self.member.iter().map(|member| member.address).collect();
        for address in &self.told {
            if !places.contains(address) {
                places.push(*address);
            }
        }
        places
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.0.linker.hello().name)
    }
}

/// The protocol versions of this program.
pub const PROTOCOL: (u16, u16) = VERSIONS;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_is_known_by_an_address_that_it_hears() {
        let both = addresses(&["[::1]:4400", "127.0.0.1:4400"]);
        let heard = |bound: &str| heard_at(&both, bound.parse().unwrap()).unwrap().to_string();
        assert_eq!(heard("127.0.0.1:4400"), "127.0.0.1:4400");
        assert_eq!(heard("[::1]:4400"), "[::1]:4400");
        assert_eq!(heard("0.0.0.0:4400"), "127.0.0.1:4400");
        assert_eq!(heard("[::]:4400"), "[::1]:4400", "such a socket hears both");
        assert_eq!(heard("10.0.0.7:9"), "127.0.0.1:4400", "behind a proxy");
        let six = addresses(&["[::1]:4400"]);
        assert_eq!(heard_at(&six, "0.0.0.0:4400".parse().unwrap()), Some(six[0]), "there is no better one");
        assert_eq!(heard_at(&[], six[0]), None);
    }

    #[test]
    fn a_node_is_dialled_where_membership_knows_it_and_then_at_its_other_addresses() {
        let name = NodeName::new("a").unwrap();
        let mut known = Known::new(&name);
        assert_eq!(known.places(), []);
        let address = "127.0.0.1:1".parse().unwrap();
        known.member = Some(Member { name, node: NodeId(1), start: 2, address });
        assert_eq!(known.places(), [address]);
        known.told = addresses(&["[::1]:1", "127.0.0.1:1"]);
        assert_eq!(known.places(), addresses(&["127.0.0.1:1", "[::1]:1"]));
    }
}
