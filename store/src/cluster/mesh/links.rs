//! The links of the mesh: one to every node that is there, whichever end dialled it.
//!
//! Bounds: one link a node, and one attempt at a time to an address; [`REACHED`] addresses of a node are remembered, and
//! [`TOLD`] of the name that it tells.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ALONE_AFTER, Inner, Known};
use crate::cluster::hello::{Cause, FOLDS, Hello, KNOW_ROOMS, Refusal};
use crate::cluster::link::{Keep, Link, OpenError, keep};
use crate::cluster::peer::{End, Peer};
use crate::cluster::view::{Happening, NodeState};
use crate::model::ids::NodeId;
use crate::post::Outbox;
use crate::replica::message::Message;

/// Between two attempts to open a link: at first, and at most.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// After a refusal: an operator has to change something first.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// Addresses of a node that are remembered. One more is dialled again now and then.
const REACHED: usize = 16;
/// Addresses of a node's name that are tried; the rest is left out.
const TOLD: usize = 8;

/// A link that is held.
pub(super) struct Open {
    pub(super) start: u64,
    dialled: bool,
    since: Instant,
    outbox: Arc<Outbox>,
    pub(super) stop: CancellationToken,
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

impl Inner {
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
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

    /// A node may not have the name of another one that is alive, and must understand what this one holds.
    fn admit(&self, theirs: &Hello) -> Result<(), Refusal> {
        let ours = self.linker.hello();
        if theirs.name == ours.name {
            return Err(Refusal::name_taken(theirs, ours.node, &ours.peer));
        }
        if theirs.versions.1 < KNOW_ROOMS && self.store.has_rooms() {
            return Err(Refusal::older(ours, theirs));
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
    pub(super) async fn try_found(self: Arc<Self>, mut found: mpsc::Receiver<SocketAddr>, own: SocketAddr) {
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

    /// Opens a link to a node that is up and has none.
    pub(super) fn dial(self: &Arc<Self>, node: NodeId) {
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
            let (member, places) = {
                let mut peers = self.peers.lock();
                let Some(known) = peers.get_mut(&node) else { return };
                let wanted = known.up && known.link.is_none() && !self.leaving.load(Relaxed);
                match known.member.clone().filter(|_| wanted) {
                    Some(member) => (member, known.places()),
                    None => {
                        known.dialling = false;
                        return;
                    }
                }
            };
            let (mut refused, mut nobody, mut tried) = (false, true, false);
            for address in places {
                let Some(claim) = self.claim(address) else {
                    nobody = false;
                    continue;
                };
                tried = true;
                match self.linker.connect(address, |hello| self.admit(hello)).await {
                    Ok(link) => {
                        let place = self.hold(&link);
                        if let Some(known) = self.peers.lock().get_mut(&node) {
                            known.dialling = false;
                        }
                        drop(claim);
                        return self.run(link, place).await;
                    }
                    Err(error) => {
                        nobody &= error.nobody_listens();
                        self.not_opened(&error, address);
                        let causes = error.refusal().map(|refusal| refusal.cause);
                        refused |=
                            causes.is_some_and(|cause| !matches!(cause, Cause::Doubled | Cause::Oneself));
                    }
                }
            }
            if !tried {
                sleep(DIAL_AGAIN.0).await;
                continue;
            }
            if nobody {
                self.membership.is_down(&member);
            }
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
            self.store.passing_linked(hello.node, hello.start);
            let mut effects = replica.linked(hello.node, hello.start);
            if link.version >= FOLDS {
                effects.extend(replica.speaks_of_folds(hello.node));
            }
            effects
        });
        Some(Place { outbox, bulk, stop })
    }

    /// Drives a link that is held until it ends.
    async fn run(self: Arc<Self>, link: Link, place: Option<Place>) {
        let Some(Place { outbox, bulk, stop }) = place else { return };
        let Link { hello, version, dialled, peer, reader, writer } = link;
        let _older = (version < KNOW_ROOMS).then(|| self.store.meet_older(&hello.name));
        self.met.store(true, Relaxed);
        self.seen(hello.node, &hello.name);
        self.nodes
            .update(&hello.name, |view| (view.http, view.mqtt) = (hello.http.clone(), hello.mqtt.clone()));
        tracing::info!("linked with node {} at {} (protocol {version})", hello.name, hello.peer);
        // Membership reaches it where it says it lives, or else where the connection leads.
        let told = tokio::net::lookup_host(&hello.peer).await;
        let mut told: Vec<_> = told.into_iter().flatten().take(TOLD).collect();
        if let Some(known) = self.peers.lock().get_mut(&hello.node) {
            known.told.clone_from(&told);
        }
        if told.is_empty() && dialled {
            told.push(peer);
        }
        told.into_iter().for_each(|address| self.membership.announce(address));
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
                self.store.passing_unlinked(hello.node);
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
}
