//! What the MQTT clients of this node have in common: who is here, sessions of those who are away, subscriptions. Beside
//! it stand `delivery`, `retained` messages, `wills`, and the clients of other nodes (`relays`). Samples do not pass through here; they come
//! from the store's feed (`samples`).
//!
//! Invariant: a client id has one session at most, and one connection holds it. A newcomer with the same id gets the
//! session from the connection that has it, which is told that it was taken over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rumqttd::protocol::QoS;
use store::{ExchangeFigures, Stamp, Store};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::filter::{FilterTree, SHARE};
use super::mailbox::{Mailbox, Message};
use super::relays::{Relays, share_key};
use super::samples::Samples;
use super::session::Memory;
use super::wills::{DueWill, Pulse, Wills};

/// Most sessions kept for clients that are away; beyond, the one that would expire first ends.
pub const MAX_AWAY: usize = 10_000;
/// Longest that a session is kept for a client that is away; version 5 is told, and 3.1.1 always gets this.
pub const MAX_AWAY_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 1024;

/// Everything of a session that outlives its connection.
#[derive(Debug)]
pub struct Kept {
    /// The protocol's part.
    pub memory: Memory,
    /// Messages that wait.
    pub mailbox: Arc<Mailbox>,
    /// The place in the feed; it goes on collecting, within its bound, while the client is away.
    pub samples: Option<Box<Samples>>,
}

/// A will, with its delay.
#[derive(Debug)]
pub struct Will {
    /// What to publish.
    pub message: Message,
    /// Whether it is retained.
    pub retain: bool,
    /// How long after the connection's end.
    pub delay: Duration,
}

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Highest QoS.
    pub qos: QoS,
    /// Not what the client itself publishes.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub as_published: bool,
    /// Subscription identifier.
    pub id: Option<usize>,
}

/// Another connection has a client's id.
#[derive(Debug)]
pub enum Takeover {
    /// It is here, and asks for the session: the one that has it answers and closes.
    Here(oneshot::Sender<Kept>),
    /// It is on another node since then. Sessions do not move: it stays, and the connection is closed.
    Elsewhere(Stamp),
}

/// A client id, claimed by a connection.
#[derive(Debug)]
pub struct Claim {
    /// Names this connection among those that had the id.
    pub token: u64,
    /// A newcomer's request arrives here.
    pub takeover: oneshot::Receiver<Takeover>,
    /// The session as it was.
    pub previous: Previous,
}

/// The session that a newcomer finds.
#[derive(Debug)]
pub enum Previous {
    /// There is none.
    None,
    /// The client was away.
    Away(Box<Kept>),
    /// Another connection has it, and was asked for it.
    Held(oneshot::Receiver<Kept>),
}

/// Publications that are not samples, with their subscribers.
pub struct Hub {
    store: Store,
    /// Lock order: before all of the store's.
    inner: Mutex<Inner>,
    pulse: Mutex<Pulse>,
    /// What happens here, counted.
    pub counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    clients: HashMap<Arc<str>, Client>,
    away: usize,
    pub(super) tree: FilterTree<Route>,
    pub(super) relays: Relays,
    wills: Wills,
    last_token: u64,
    /// Turns of shared subscriptions.
    pub(super) turn: usize,
}

#[derive(Debug)]
enum Client {
    /// `takeover` is used once. `since`: when it came.
    Here {
        token: u64,
        takeover: Option<oneshot::Sender<Takeover>>,
        since: Stamp,
    },
    Away {
        kept: Box<Kept>,
        until: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) client: Arc<str>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) options: Options,
    /// `group` and filter of a shared subscription.
    pub(super) share: Option<Box<str>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({:?})", self.sizes())
    }
}

impl Hub {
    /// The hub of a node, which hears of those of other nodes until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Arc<Self> {
        let hub = Arc::new(Self::of(store));
        tokio::spawn(hub.clone().attend(stop));
        hub
    }

    /// A hub that hears of no others yet.
    pub(super) fn of(store: Store) -> Self {
        let pulse = Mutex::new(Pulse::new(Instant::now()));
        Self { store, inner: Mutex::default(), pulse, counters: Counters::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(super) fn relays<T>(&self, change: impl FnOnce(&mut Relays) -> T) -> T {
        change(&mut self.inner.lock().relays)
    }

    pub(super) fn pulse<T>(&self, look: impl FnOnce(&mut Pulse) -> T) -> T {
        look(&mut self.pulse.lock())
    }

    pub(super) fn wills<T>(&self, change: impl FnOnce(&mut Wills) -> T) -> T {
        change(&mut self.inner.lock().wills)
    }

    /// Makes the connection the holder of `client`, wherever it was before. A will that was waiting for this client's
    /// return is dropped.
    pub fn claim(&self, client: &Arc<str>) -> Claim {
        let since = self.store.claim_client(client);
        let mut inner = self.inner.lock();
        inner.last_token += 1;
        let token = inner.last_token;
        inner.wills.is_back(client);
        let (sender, takeover) = oneshot::channel();
        let here = Client::Here { token, takeover: Some(sender), since };
        let previous = match inner.clients.insert(client.clone(), here) {
            None | Some(Client::Here { takeover: None, .. }) => Previous::None,
            Some(Client::Away { kept, .. }) => {
                inner.away -= 1;
                Previous::Away(kept)
            }
            Some(Client::Here { takeover: Some(takeover), .. }) => {
                let (answer, kept) = oneshot::channel();
                match takeover.send(Takeover::Here(answer)) {
                    Ok(()) => Previous::Held(kept),
                    Err(_) => Previous::None,
                }
            }
        };
        Claim { token, takeover, previous }
    }

    /// Whether a connection has `client`.
    pub(super) fn is_here(&self, client: &str) -> bool {
        self.inner.lock().is_here(client)
    }

    /// Closes the connection that `client` had before it came to another node `at` that time.
    pub(super) fn send_elsewhere(&self, client: &str, at: Stamp) {
        if let Some(Client::Here { takeover, since, .. }) = self.inner.lock().clients.get_mut(client)
            && *since < at
            && let Some(takeover) = takeover.take()
        {
            // A connection that is ending anyway does not listen.
            let _ = takeover.send(Takeover::Elsewhere(at));
        }
    }

    /// A number that no other client of this node's run gets.
    pub fn draw(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.last_token += 1;
        inner.last_token
    }

    /// Ends a connection's hold of `client`. With `keep` its session stays for that long. Given back is what is to
    /// be handed on: someone has claimed the id since.
    pub fn release(&self, client: &Arc<str>, token: u64, kept: Kept, keep: Duration) -> Option<Kept> {
        let mut inner = self.inner.lock();
        match inner.clients.get(client) {
            Some(Client::Here { token: held, .. }) if *held == token => {}
            _ => return Some(kept),
        }
        if keep.is_zero() || kept.mailbox.is_broken() {
            inner.clients.remove(client);
            inner.forget(&self.store, client, &kept);
            return None;
        }
        if inner.away >= MAX_AWAY {
            inner.end_the_next_to_expire(&self.store);
            self.counters.sessions_ended.add(1);
        }
        inner.away += 1;
        let until = Instant::now() + keep.min(MAX_AWAY_TIME);
        inner.clients.insert(client.clone(), Client::Away { kept: Box::new(kept), until });
        None
    }

    /// Ends a session: its subscriptions are gone. The client id stays with who holds it.
    pub fn forget(&self, client: &Arc<str>, kept: &Kept) {
        self.inner.lock().forget(&self.store, client, kept);
    }

    /// Subscribes. True when the client had this subscription already.
    pub fn subscribe(
        &self,
        client: &Arc<str>,
        mailbox: &Arc<Mailbox>,
        to: (Option<&str>, &str),
        options: Options,
    ) -> bool {
        let (group, filter) = to;
        let share = group.map(|group| share_key(group, filter));
        let route = Route { client: client.clone(), mailbox: mailbox.clone(), options, share: share.clone() };
        let same = |route: &Route| route.client == *client && route.share == share;
        let mut inner = self.inner.lock();
        let known = inner.tree.insert(filter, route, same).is_some();
        if !known {
            inner.relays.ask(&self.store, &text_of(to));
        }
        known
    }

    /// Ends a subscription. False when there was none.
    pub fn unsubscribe(&self, client: &Arc<str>, to: (Option<&str>, &str)) -> bool {
        self.inner.lock().unsubscribe(&self.store, client, to)
    }

    /// Ends sessions whose time is over, and publishes the wills that are due. To be called about once a second.
    pub async fn sweep(&self, now: Instant) {
        let due = self.end_sessions(now);
        for will in due {
            self.publish_will(will).await;
        }
    }

    /// Ends sessions whose time is over. Gives the wills that are due.
    fn end_sessions(&self, now: Instant) -> Vec<DueWill> {
        let waits_for_nodes = self.store.waits_for_nodes();
        let mut inner = self.inner.lock();
        let over: Vec<Arc<str>> = inner
            .clients
            .iter()
            .filter(|(_, client)| match client {
                Client::Here { .. } => false,
                Client::Away { kept, until } => *until <= now || kept.mailbox.is_broken(),
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &over {
            inner.end_away(&self.store, id);
            self.counters.sessions_ended.add(1);
        }
        inner.wills.due(now, &over, waits_for_nodes)
    }

    /// What became of messages between nodes.
    pub fn relayed(&self) -> ExchangeFigures {
        self.store.exchange_figures()
    }

    /// How many sessions of absent clients, subscriptions and retained messages there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let inner = self.inner.lock();
        (inner.away, inner.tree.len(), self.store.retained_count())
    }
}

impl Inner {
    /// Whether a connection has `client`.
    pub(super) fn is_here(&self, client: &str) -> bool {
        matches!(self.clients.get(client), Some(Client::Here { .. }))
    }

    fn unsubscribe(&mut self, store: &Store, client: &Arc<str>, to: (Option<&str>, &str)) -> bool {
        let (group, filter) = to;
        let share = group.map(|group| share_key(group, filter));
        let removed = self.tree.remove(filter, |route| route.client == *client && route.share == share);
        if removed.is_some() {
            self.relays.ask_no_more(store, &text_of(to));
        }
        removed.is_some()
    }

    fn forget(&mut self, store: &Store, client: &Arc<str>, kept: &Kept) {
        for text in kept.memory.subscriptions.keys() {
            if let Ok(parsed) = super::filter::parse(text) {
                self.unsubscribe(store, client, (parsed.group, parsed.filter));
            }
        }
    }

    fn end_away(&mut self, store: &Store, client: &Arc<str>) {
        if let Some(Client::Away { kept, .. }) = self.clients.remove(client) {
            self.away -= 1;
            self.forget(store, client, &kept);
        }
    }

    fn end_the_next_to_expire(&mut self, store: &Store) {
        let until = |client: &Client| match client {
            Client::Away { until, .. } => Some(*until),
            Client::Here { .. } => None,
        };
        let next = self.clients.iter().filter_map(|(id, client)| Some((until(client)?, id.clone()))).min();
        if let Some((_, id)) = next {
            self.end_away(store, &id);
        }
    }
}

/// A subscription as its client writes it.
fn text_of<'a>((group, filter): (Option<&'a str>, &'a str)) -> Cow<'a, str> {
    group.map_or(Cow::Borrowed(filter), |group| Cow::Owned(format!("{SHARE}{}", share_key(group, filter))))
}
