//! What the MQTT clients of this node have in common: who is here, sessions of those who are away, subscriptions. Beside
//! it stand `retained` messages, `wills`, and the clients of other nodes (`relays`). Samples do not pass through here; they come
//! from the store's feed (`samples`).
//!
//! Invariant: a client id has one session at most, and one connection holds it. A newcomer with the same id gets the
//! session from the connection that has it, which is told that it was taken over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rumqttd::protocol::QoS;
use store::{ExchangeFigures, NodeId, Posted, Stamp, Store, Ticket};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::filter::{FilterTree, SHARE};
use super::letter;
use super::mailbox::{Delivery, Mailbox, Message, Put};
use super::relays::{Abroad, Relays, share_key};
use super::retained::{self, NotRetained, Retain};
use super::samples::Samples;
use super::session::Memory;
use super::wills::Wills;

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
    /// What happens here, counted.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Inner {
    clients: HashMap<Arc<str>, Client>,
    away: usize,
    tree: FilterTree<Route>,
    relays: Relays,
    wills: Wills,
    last_token: u64,
    /// Turns of shared subscriptions.
    turn: usize,
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
struct Route {
    client: Arc<str>,
    mailbox: Arc<Mailbox>,
    options: Options,
    /// `group` and filter of a shared subscription.
    share: Option<Box<str>>,
}

/// Where a publication's subscribers have more waiting than they should; their publisher waits for them.
pub type Crowded = Option<Arc<Mailbox>>;

/// A publication that was taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// Who has more waiting than they should.
    pub crowded: Crowded,
    /// Says when it is retained on the disks.
    pub ticket: Option<Ticket>,
}

/// Where a publication comes from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// A client here.
    Client(&'a str),
    /// This node itself; others have their own.
    Here,
    /// Another node, which leaves the choice of a member of these groups to this one.
    Node(&'a [Box<str>]),
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({:?})", self.sizes())
    }
}

impl Hub {
    /// The hub of a node, which hears of those of other nodes until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Arc<Self> {
        let hub = Arc::new(Self { store, inner: Mutex::default(), counters: Counters::default() });
        tokio::spawn(hub.clone().attend(stop));
        hub
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn relays<T>(&self, change: impl FnOnce(&mut Relays) -> T) -> T {
        change(&mut self.inner.lock().relays)
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
        matches!(self.inner.lock().clients.get(client), Some(Client::Here { .. }))
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

    /// Puts the retained messages that `filter` matches into a new subscriber's mailbox.
    pub fn send_retained(&self, mailbox: &Mailbox, filter: &str, options: Options) {
        // Held, so that none comes as retained and live as well.
        let _inner = self.inner.lock();
        retained::matching(&self.store, filter, |message| {
            let qos = lower(message.qos, options.qos);
            let ids = options.id.into_iter().collect();
            self.count(mailbox.put(Delivery { message: Arc::new(message), qos, retain: true, ids }));
        });
    }

    /// Publishes to every subscriber of the topic, on any node; `from` is the publisher. The error says why it could not
    /// be retained; then nobody got it.
    pub fn publish(&self, from: &str, message: Message, retain: Retain) -> Result<Taken, NotRetained> {
        let ticket = match retain {
            Retain::No => None,
            _ => retained::set(&self.store, &message, retain, Instant::now())
                .inspect_err(|error| error.count(&self.counters))?,
        };
        let crowded = self.deliver(&Arc::new(message), retain != Retain::No, &Source::Client(from));
        Ok(Taken { crowded, ticket })
    }

    /// Publishes to the subscribers here what every node publishes by itself.
    pub fn publish_here(&self, message: Message) {
        self.deliver(&Arc::new(message), false, &Source::Here);
    }

    /// Gives a publication to its subscribers here and, when it comes from a client here, to the nodes that ask for it.
    pub(super) fn deliver(&self, message: &Arc<Message>, retain: bool, source: &Source<'_>) -> Crowded {
        let mut inner = self.inner.lock();
        let turn = inner.turn;
        let (mut own, mut shared): (HashMap<&str, Target<'_>>, HashMap<&str, Vec<&Route>>) =
            Default::default();
        inner.tree.matching(&message.topic, &mut |route: &Route| match (&route.share, source) {
            (Some(key), Source::Node(groups)) if !groups.contains(key) => {}
            (Some(key), _) => shared.entry(key).or_default().push(route),
            (None, Source::Client(from)) if route.options.no_local && *route.client == **from => {}
            (None, _) => own.entry(&route.client).or_insert_with(|| Target::of(route)).join(route),
        });
        let abroad = match source {
            Source::Client(_) => inner.relays.route(&message.topic),
            Source::Here | Source::Node(_) => Abroad::default(),
        };
        let mut posts: HashMap<NodeId, Vec<Box<str>>> =
            abroad.plain.into_iter().map(|node| (node, Vec::new())).collect();
        let mut crowded = None;
        let mut put = |mailbox: &Arc<Mailbox>, options: Options, ids: Vec<usize>| {
            let delivery = Delivery {
                message: message.clone(),
                qos: lower(message.qos, options.qos),
                retain: retain && options.as_published,
                ids,
            };
            if let Source::Node(_) = source {
                // Its publisher cannot be slowed, so it must not end a session.
                return self.count(mailbox.offer(delivery));
            }
            self.count(mailbox.put(delivery));
            if mailbox.is_crowded() {
                crowded = Some(mailbox.clone());
            }
        };
        for target in own.into_values() {
            put(&target.route.mailbox, target.options, target.ids);
        }
        let any_shared = !shared.is_empty() || !abroad.groups.is_empty();
        for key in abroad.groups.keys() {
            shared.entry(key).or_default();
        }
        for (key, members) in shared {
            // One that is here, if any is, or else on another node; they take turns.
            let here =
                |route: &&&Route| matches!(inner.clients.get(&route.client), Some(Client::Here { .. }));
            let count = members.iter().filter(here).count();
            let chosen = match abroad.groups.get(key) {
                _ if count > 0 => members.iter().filter(here).nth(turn % count),
                Some(nodes) => {
                    posts.entry(nodes[turn % nodes.len()]).or_default().push(key.into());
                    None
                }
                None => members.get(turn % members.len()),
            };
            if let Some(route) = chosen {
                put(&route.mailbox, route.options, route.options.id.into_iter().collect());
            }
        }
        if any_shared {
            inner.turn = turn.wrapping_add(1);
        }
        drop(inner);
        if !posts.is_empty() {
            let qos = lower(message.qos, QoS::AtLeastOnce);
            let letter = letter::write(message, qos, retain, true, Instant::now());
            for (node, groups) in posts {
                // What finds no room on a link is counted there.
                self.store.post_to(node, Posted { message: letter.clone(), groups });
            }
        }
        crowded
    }

    /// Ends sessions whose time is over and gives the wills that are due, with their clients. To be called about
    /// once a second.
    pub fn sweep(&self, now: Instant) {
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
        let due = inner.wills.due(now, &over);
        drop(inner);
        for (client, token, will) in due {
            self.publish_will(&client, token, will, None);
        }
    }

    fn count(&self, put: Put) {
        if put != Put::Queued {
            self.counters.dropped.add(1);
        }
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

/// A client with one or more subscriptions to a topic: it gets the message once, with the highest QoS and all
/// identifiers (MQTT 5, 3.3.4).
struct Target<'a> {
    route: &'a Route,
    options: Options,
    ids: Vec<usize>,
}

impl<'a> Target<'a> {
    fn of(route: &'a Route) -> Self {
        Self { route, options: route.options, ids: Vec::new() }
    }

    fn join(&mut self, route: &Route) {
        self.ids.extend(route.options.id);
        self.options.as_published |= route.options.as_published;
        if route.options.qos > self.options.qos {
            self.options.qos = route.options.qos;
        }
    }
}

/// A subscription as its client writes it.
fn text_of<'a>((group, filter): (Option<&'a str>, &'a str)) -> Cow<'a, str> {
    group.map_or(Cow::Borrowed(filter), |group| Cow::Owned(format!("{SHARE}{}", share_key(group, filter))))
}

/// The lower of two qualities of service.
pub fn lower(one: QoS, other: QoS) -> QoS {
    if one < other { one } else { other }
}
