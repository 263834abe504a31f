//! The mesh: a link to every node that membership knows. It dials and accepts, tells replication who is there and who
//! is gone, serves what peers ask of the disk, and says when the node is ready.
//!
//! A link that breaks is dialled again at once: a refused connection says that the process is dead, and membership is
//! told so. What membership says decides who counts; an open link is proof of life until it says otherwise.
//!
//! Bounds: [`READERS`] answers from the disk at a time; one link a peer.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::hello::{Cause, Hello, Refusal, VERSIONS};
use super::link::{Keep, Link, Linker, OpenError, keep};
use super::member::{Member, MemberEvent, Membership};
use super::peer::{End, Peer};
use super::placement::Placement;
use super::scrub;
use super::secret::Keys;
use super::view::{Happening, Load, NodeState, NodeView, Nodes, Readiness};
use crate::disk::export;
use crate::handle::Store;
use crate::model::ids::{NodeId, NodeName, PARTITIONS};
use crate::post::{Outbox, WORK};
use crate::replica::message::Message;
use crate::replica::state::{Effect, Replica};

/// How long a node looks for others before it goes on alone.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// How often version vectors and rings are compared with each peer.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often lag and readiness are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two attempts to open a link: at first, and at most.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// After a refusal: an operator has to change something first.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// Addresses of a node that are remembered. One more is dialled again now and then.
const REACHED: usize = 16;
/// Answers from the disk at a time.
const READERS: usize = 2;
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
    /// Addresses at which it answered, beside the one that it tells.
    reached: HashSet<SocketAddr>,
    link: Option<Open>,
}

struct Open {
    start: u64,
    dialled: bool,
    since: Instant,
    outbox: Arc<Outbox>,
    stop: CancellationToken,
}

/// What the host of a held link works with.
struct Place {
    outbox: Arc<Outbox>,
    bulk: mpsc::Receiver<Message>,
    stop: CancellationToken,
}

/// The right to open a link to an address.
struct Claim<'a> {
    dialled: &'a Mutex<HashSet<SocketAddr>>,
    address: SocketAddr,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.dialled.lock().remove(&self.address);
    }
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
        let address = public(&setup.peer).await?;
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

/// Where the address that peers are told leads.
async fn public(address: &str) -> Result<SocketAddr, StartError> {
    let wrong = |what: String| StartError::Public { address: address.to_owned(), what };
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
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

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, from)) => {
                    tokio::spawn(self.clone().accepted(tcp, from));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept peers");
                    sleep(DIAL_AGAIN.1).await;
                }
            }
        }
    }

    async fn accepted(self: Arc<Self>, tcp: TcpStream, from: SocketAddr) {
        match self.linker.accept(tcp, from, |hello| self.admit(hello)).await {
            Ok(link) => {
                let place = self.hold(&link);
                self.run(link, place).await;
            }
            Err(error) => self.not_opened(&error, from),
        }
    }

    /// A node may not have the name of another one that is alive.
    fn admit(&self, theirs: &Hello) -> Result<(), Refusal> {
        let ours = self.linker.hello();
        if theirs.name == ours.name {
            return Err(Refusal::name_taken(theirs, ours.node, &ours.peer));
        }
        let peers = self.peers.lock();
        let holder = peers.iter().find(|(node, known)| {
            known.name == theirs.name && **node != theirs.node && known.up && known.link.is_some()
        });
        match holder {
            Some((node, known)) => {
                let address =
                    known.member.as_ref().map_or_else(String::new, |member| member.address.to_string());
                Err(Refusal::name_taken(theirs, *node, &address))
            }
            None => Ok(()),
        }
    }

    fn not_opened(&self, error: &OpenError, peer: SocketAddr) {
        match error.refusal().map(|refusal| refusal.cause) {
            Some(Cause::Oneself | Cause::Doubled) => {}
            Some(_) => {
                tracing::warn!("{error}");
                self.nodes.event(peer.to_string(), Happening::Refused(error.to_string()));
            }
            None => tracing::debug!("{error}"),
        }
    }

    /// Tries addresses that discovery found: as seeds of membership, and once over TCP, since only that way two nodes
    /// that cannot be of one cluster tell each other why.
    async fn try_found(self: Arc<Self>, mut found: mpsc::Receiver<SocketAddr>, own: SocketAddr) {
        let mut tried: HashMap<SocketAddr, Instant> = HashMap::new();
        loop {
            let address = tokio::select! {
                () = self.stop.cancelled() => return,
                Some(address) = found.recv() => address,
                else => return,
            };
            if address == own {
                continue;
            }
            self.membership.announce(address);
            let known = self.peers.lock().values().any(|known| {
                known.link.is_some()
                    && (known.reached.contains(&address)
                        || known.member.as_ref().is_some_and(|member| member.address == address))
            });
            let lately = tried.get(&address).is_some_and(|at| at.elapsed() < ALONE_AFTER);
            if !known && (!lately || !self.met.load(Relaxed)) {
                tried.insert(address, Instant::now());
                tokio::spawn(self.clone().knock(address));
            }
        }
    }

    /// Opens a link to whoever lives at an address.
    async fn knock(self: Arc<Self>, address: SocketAddr) {
        let Some(claim) = self.claim(address) else { return };
        match self.linker.connect(address, |hello| self.admit(hello)).await {
            Ok(link) => {
                let place = self.hold(&link);
                drop(claim);
                self.run(link, place).await;
            }
            Err(error) => {
                self.not_opened(&error, address);
                let misfit = error.refusal().filter(|refusal| {
                    matches!(
                        refusal.cause,
                        Cause::Secret
                            | Cause::Partitions
                            | Cause::Replicas
                            | Cause::NameTaken
                            | Cause::Version
                    )
                });
                if misfit.is_some() && !self.met.load(Relaxed) {
                    self.fatal.send_replace(Some(error.to_string()));
                }
            }
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
        let news = |view: NodeView| view.id == member.node && view.state != state;
        if self.nodes.get(&member.name).is_some_and(news) {
            self.nodes.update(&member.name, |view| (view.state, view.lag) = (state, None));
            tracing::warn!("node {} {happening}", member.name);
            self.nodes.event(member.name.as_str(), happening);
        }
    }

    /// Opens a link to a node that is up and has none.
    fn dial(self: &Arc<Self>, node: NodeId) {
        let mut peers = self.peers.lock();
        let Some(known) = peers.get_mut(&node) else { return };
        if known.dialling || known.link.is_some() || !known.up || known.member.is_none() {
            return;
        }
        known.dialling = true;
        drop(peers);
        tokio::spawn(self.clone().dial_until_linked(node));
    }

    async fn dial_until_linked(self: Arc<Self>, node: NodeId) {
        let mut wait = DIAL_AGAIN.0;
        loop {
            let member = {
                let mut peers = self.peers.lock();
                let Some(known) = peers.get_mut(&node) else { return };
                let wanted = known.up && known.link.is_none() && !self.leaving.load(Relaxed);
                match known.member.clone().filter(|_| wanted) {
                    Some(member) => member,
                    None => {
                        known.dialling = false;
                        return;
                    }
                }
            };
            let Some(claim) = self.claim(member.address) else {
                sleep(DIAL_AGAIN.0).await;
                continue;
            };
            let refused = match self.linker.connect(member.address, |hello| self.admit(hello)).await {
                Ok(link) => {
                    let place = self.hold(&link);
                    if let Some(known) = self.peers.lock().get_mut(&node) {
                        known.dialling = false;
                    }
                    drop(claim);
                    return self.run(link, place).await;
                }
                Err(error) => {
                    if error.nobody_listens() {
                        self.membership.is_down(&member);
                    }
                    self.not_opened(&error, member.address);
                    let causes = error.refusal().map(|refusal| refusal.cause);
                    causes.is_some_and(|cause| !matches!(cause, Cause::Doubled | Cause::Oneself))
                }
            };
            drop(claim);
            if refused {
                wait = REFUSED_AGAIN;
            }
            // The smaller id is a little quicker, so that two nodes seldom dial each other at once.
            let shift = if self.me() < node { 1.0 } else { 1.6 };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(wait.mul_f64(shift * (0.75 + rand::random::<f64>() / 2.0))) => {}
            }
            wait = if refused { wait } else { (wait * 2).min(DIAL_AGAIN.1) };
        }
    }

    /// Keeps others from opening a link there as well: two that one end opens at once might arrive in either order, and
    /// each end would keep another one.
    fn claim(&self, address: SocketAddr) -> Option<Claim<'_>> {
        self.dialled.lock().insert(address).then(|| Claim { dialled: &self.dialled, address })
    }

    /// Holds a link that has opened, as the one to its node, unless there is a better one.
    fn hold(&self, link: &Link) -> Option<Place> {
        let hello = &link.hello;
        let (outbox, bulk) = Outbox::new();
        let stop = self.stop.child_token();
        let mut peers = self.peers.lock();
        let known = peers.entry(hello.node).or_insert_with(|| Known::new(&hello.name));
        if known.left == Some(hello.start) || self.leaving.load(Relaxed) {
            return None;
        }
        if let Some(held) = &known.link {
            if held.start == hello.start
                && keep(self.me(), hello.node, (held.dialled, held.since.elapsed()), link.dialled)
                    == Keep::Held
            {
                return None;
            }
            held.stop.cancel();
        }
        known.link = Some(Open {
            start: hello.start,
            dialled: link.dialled,
            since: Instant::now(),
            outbox: outbox.clone(),
            stop: stop.clone(),
        });
        if link.dialled && known.reached.len() < REACHED {
            known.reached.insert(link.peer);
        }
        known.name = hello.name.clone();
        // With the peers' lock held: of two links that open at once, replication must end up with the one that is
        // held here.
        let shared = self.store.shared();
        shared.replicate(|replica| {
            shared.post.open(hello.node, outbox.clone());
            replica.linked(hello.node, hello.start)
        });
        Some(Place { outbox, bulk, stop })
    }

    /// Drives a link that is held until it ends.
    async fn run(self: Arc<Self>, link: Link, place: Option<Place>) {
        let Some(Place { outbox, bulk, stop }) = place else { return };
        let Link { hello, version, dialled, peer, reader, writer } = link;
        self.met.store(true, Relaxed);
        self.seen(hello.node, &hello.name);
        self.nodes
            .update(&hello.name, |view| (view.http, view.mqtt) = (hello.http.clone(), hello.mqtt.clone()));
        tracing::info!("linked with node {} at {} (protocol {version})", hello.name, hello.peer);
        // Membership reaches it where it says it lives, or else where the connection leads.
        if let Ok(mut addresses) = tokio::net::lookup_host(&hello.peer).await
            && let Some(address) = addresses.next()
        {
            self.membership.announce(address);
        } else if dialled {
            self.membership.announce(peer);
        }
        let inner = self.clone();
        let node = hello.node;
        let alive = move || {
            let member = inner.peers.lock().get(&node).and_then(|known| known.member.clone());
            if let Some(member) = member {
                inner.membership.heard(&member);
            }
        };
        let work = Peer::new(&self.store, &self.nodes, &hello, version, &outbox, self.placement.subscribe());
        let end = tokio::select! {
            () = stop.cancelled() => End::Closed,
            end = work.read(reader, alive) => end,
            end = work.write(writer, bulk) => end,
        };
        self.ended(&hello, &outbox, &end);
    }

    fn ended(self: &Arc<Self>, hello: &Hello, outbox: &Arc<Outbox>, end: &End) {
        // Another link may have taken its place.
        let (mut gone, mut current) = (None, false);
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get_mut(&hello.node)
            && known.link.as_ref().is_some_and(|link| Arc::ptr_eq(&link.outbox, outbox))
        {
            known.link = None;
            let shared = self.store.shared();
            shared.replicate(|replica| {
                shared.post.close(hello.node);
                replica.unlinked(hello.node)
            });
            current = true;
            if matches!(end, End::Left) {
                known.left = Some(hello.start);
                gone.clone_from(&known.member);
            }
        }
        drop(peers);
        if current {
            self.nodes.update(&hello.name, |view| view.lag = None);
        }
        if let Some(member) = gone {
            self.gone(&member, NodeState::Left, Happening::Left);
            self.membership.has_left(&member);
        } else if !self.stop.is_cancelled() {
            tracing::info!("the link with node {} is over: {end}", hello.name);
            self.dial(hello.node);
        }
    }

    /// Answers from the disk.
    async fn serve(self: Arc<Self>, mut work: mpsc::Receiver<Effect>) {
        loop {
            let effect = tokio::select! {
                () = self.stop.cancelled() => return,
                effect = work.recv() => match effect {
                    Some(effect) => effect,
                    None => return,
                },
            };
            let Ok(place) = self.readers.clone().acquire_owned().await else { return };
            let (inner, Some(database)) = (self.clone(), self.store.database()) else { return };
            tokio::task::spawn_blocking(move || {
                let _place = place;
                inner.answer(&database, effect);
            });
        }
    }

    fn answer(&self, database: &redb::Database, effect: Effect) {
        let post = &self.store.shared().post;
        let outcome = match effect {
            Effect::Serve { to, origin, blocks } => {
                let Some(outbox) = post.outbox(to) else { return };
                let relayed = export::serve(database, origin, &blocks, |message| {
                    outbox.bulk.blocking_send(message).is_ok()
                });
                relayed.map(|relayed| self.nodes.count(|figures| figures.relayed += relayed))
            }
            Effect::Snapshot { to, partitions, read } => {
                let Some(outbox) = post.outbox(to) else { return };
                tracing::info!(%to, partitions = partitions.len(), "sending a snapshot");
                self.nodes.count(|figures| figures.snapshots_served += 1);
                export::snapshot(database, &partitions, read, |message| {
                    outbox.bulk.blocking_send(message).is_ok()
                })
            }
            Effect::Send(..) | Effect::Settle { .. } | Effect::Adopt(_) | Effect::Stream(_) => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!("a peer's request was not answered: {error}");
        }
    }

    /// Compares vectors and rings with the peers.
    async fn compare(self: Arc<Self>) {
        let mut ticks = interval(COMPARE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = scrub::Round::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.store.shared().replicate(Replica::tick);
            let linked = self.store.shared().post.linked();
            if !linked.is_empty()
                && let Some(hashes) = round.next(&self.store)
            {
                linked.into_iter().for_each(|node| self.send(node, hashes.clone()));
            }
        }
    }

    /// Looks after readiness, lag and figures.
    async fn look(self: Arc<Self>, expects: bool) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (started, mut ready, mut settled) = (Instant::now(), false, false);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let shared = self.store.shared();
            let met = self.met.load(Relaxed);
            let late = started.elapsed() >= ALONE_AFTER;
            if !settled && (met || !expects || late) {
                settled = true;
                shared.replicate(|replica| replica.set_joining(false));
            }
            if !ready {
                let readiness = self.readiness(expects, met, late);
                ready = readiness.reasons.is_empty();
                if ready && met {
                    let name = self.linker.hello().name.as_str();
                    self.nodes.event(name, Happening::CaughtUp(started.elapsed()));
                }
                self.nodes.set_readiness(readiness);
            }
            self.lags();
            let counts = shared.replica.lock().counts();
            self.nodes.count(|figures| {
                figures.frames_full = shared.post.full.load(Relaxed);
                figures.frames_fewer = shared.post.fewer.load(Relaxed);
                figures.wants = counts.wants + counts.rewinds;
                figures.snapshots_taken = counts.snapshots;
            });
        }
    }

    fn readiness(&self, expects: bool, met: bool, late: bool) -> Readiness {
        let mut reasons = Vec::new();
        if expects && !met && !late {
            reasons.push("no other node has answered yet".to_owned());
        }
        let linked = !self.store.shared().post.linked().is_empty();
        if met && !linked && !late {
            reasons.push("no link to another node is open yet".to_owned());
        }
        if !self.store.shared().replica.lock().is_caught_up() {
            reasons.push("it is still catching up with the other nodes".to_owned());
        }
        Readiness { reasons, alone: expects && !met }
    }

    fn lags(&self) {
        let shared = self.store.shared();
        for node in shared.post.linked() {
            let Some((acked, sealed)) = shared.replica.lock().behind(node) else { continue };
            let lag =
                if acked >= sealed { Duration::ZERO } else { shared.tail.age(acked).unwrap_or_default() };
            let name = self.peers.lock().get(&node).map(|known| known.name.clone());
            if let Some(name) = name {
                self.nodes.update(&name, |view| view.lag = Some(lag));
            }
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
            reached: HashSet::new(),
            link: None,
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.0.linker.hello().name)
    }
}

/// The protocol versions of this program.
pub const PROTOCOL: (u16, u16) = VERSIONS;
