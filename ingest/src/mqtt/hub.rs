//! What the MQTT clients of this node have in common: who is here, sessions of those who are away, subscriptions,
//! retained messages, wills. Samples do not pass through here; they come from the store's feed (`samples`).
//!
//! Invariant: a client id has one session at most, and one connection holds it. A newcomer with the same id gets the
//! session from the connection that has it, which is told that it was taken over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rumqttd::protocol::QoS;
use tokio::sync::oneshot;

use super::counters::Counters;
use super::filter::FilterTree;
use super::mailbox::{Delivery, Mailbox, Message, Put};
use super::retained::Retained;
use super::samples::Samples;
use super::session::Memory;

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

/// Asks a connection for its session; it answers and closes.
pub type Takeover = oneshot::Sender<Kept>;

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
#[derive(Debug, Default)]
pub struct Hub {
    inner: Mutex<Inner>,
    /// What happens here, counted.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Inner {
    clients: HashMap<Arc<str>, Client>,
    away: usize,
    tree: FilterTree<Route>,
    retained: Retained,
    wills: Vec<(Instant, Arc<str>, Will)>,
    last_token: u64,
    /// Turns of shared subscriptions.
    turn: usize,
}

#[derive(Debug)]
enum Client {
    Here { token: u64, takeover: oneshot::Sender<Takeover> },
    Away { kept: Box<Kept>, until: Instant },
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

impl Hub {
    /// Makes the connection the holder of `client`. A will that was waiting for this client's return is dropped.
    pub fn claim(&self, client: &Arc<str>) -> Claim {
        let mut inner = self.inner.lock();
        inner.last_token += 1;
        let token = inner.last_token;
        inner.wills.retain(|(_, of, _)| of != client);
        let (sender, takeover) = oneshot::channel();
        let previous = match inner.clients.insert(client.clone(), Client::Here { token, takeover: sender }) {
            None => Previous::None,
            Some(Client::Away { kept, .. }) => {
                inner.away -= 1;
                Previous::Away(kept)
            }
            Some(Client::Here { takeover, .. }) => {
                let (answer, kept) = oneshot::channel();
                match takeover.send(answer) {
                    Ok(()) => Previous::Held(kept),
                    Err(_) => Previous::None,
                }
            }
        };
        Claim { token, takeover, previous }
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
            inner.forget(client, &kept);
            return None;
        }
        if inner.away >= MAX_AWAY {
            inner.end_the_next_to_expire();
            self.counters.sessions_ended.add(1);
        }
        inner.away += 1;
        let until = Instant::now() + keep.min(MAX_AWAY_TIME);
        inner.clients.insert(client.clone(), Client::Away { kept: Box::new(kept), until });
        None
    }

    /// Ends a session: its subscriptions are gone. The client id stays with who holds it.
    pub fn forget(&self, client: &Arc<str>, kept: &Kept) {
        self.inner.lock().forget(client, kept);
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
        self.inner.lock().tree.insert(filter, route, same).is_some()
    }

    /// Ends a subscription. False when there was none.
    pub fn unsubscribe(&self, client: &Arc<str>, to: (Option<&str>, &str)) -> bool {
        self.inner.lock().unsubscribe(client, to)
    }

    /// Puts the retained messages that `filter` matches into a new subscriber's mailbox.
    pub fn send_retained(&self, mailbox: &Mailbox, filter: &str, options: Options) {
        let inner = self.inner.lock();
        for message in inner.retained.matching(filter) {
            let delivery = Delivery {
                message: message.clone(),
                qos: lower(message.qos, options.qos),
                retain: true,
                ids: options.id.into_iter().collect(),
            };
            self.count(mailbox.put(delivery));
        }
    }

    /// Publishes to every subscriber of the topic; `from` is the publisher. The error says why it could not be
    /// retained; then nobody got it.
    pub fn publish(&self, from: &str, message: Message, retain: bool) -> Result<Crowded, String> {
        let message = Arc::new(message);
        let mut inner = self.inner.lock();
        if retain {
            inner.retained.set(&message, Instant::now())?;
        }
        let turn = inner.turn;
        let (mut own, mut shared): (HashMap<&str, Target<'_>>, HashMap<&str, Vec<&Route>>) =
            Default::default();
        inner.tree.matching(&message.topic, &mut |route: &Route| match &route.share {
            Some(key) => shared.entry(key).or_default().push(route),
            None if route.options.no_local && *route.client == *from => {}
            None => own.entry(&route.client).or_insert_with(|| Target::of(route)).join(route),
        });
        let mut crowded = None;
        let mut put = |mailbox: &Arc<Mailbox>, options: Options, ids: Vec<usize>| {
            let delivery = Delivery {
                message: message.clone(),
                qos: lower(message.qos, options.qos),
                retain: retain && options.as_published,
                ids,
            };
            self.count(mailbox.put(delivery));
            if mailbox.is_crowded() {
                crowded = Some(mailbox.clone());
            }
        };
        for target in own.into_values() {
            put(&target.route.mailbox, target.options, target.ids);
        }
        let any_shared = !shared.is_empty();
        for members in shared.into_values() {
            // One that is here, if any is; they take turns.
            let here =
                |route: &&&Route| matches!(inner.clients.get(&route.client), Some(Client::Here { .. }));
            let count = members.iter().filter(here).count();
            let chosen = if count == 0 {
                members.get(turn % members.len())
            } else {
                members.iter().filter(here).nth(turn % count)
            };
            if let Some(route) = chosen {
                put(&route.mailbox, route.options, route.options.id.into_iter().collect());
            }
        }
        if any_shared {
            inner.turn = turn.wrapping_add(1);
        }
        Ok(crowded)
    }

    /// Publishes a will now, or after its delay. `session_ends` says that it may not wait.
    pub fn leave_will(&self, client: &Arc<str>, will: Will, session_ends: bool) {
        if will.delay.is_zero() || session_ends {
            self.publish_will(client, will);
        } else {
            self.inner.lock().wills.push((Instant::now() + will.delay, client.clone(), will));
        }
    }

    /// Ends sessions whose time is over and gives the wills that are due, with their clients. To be called about
    /// once a second.
    pub fn sweep(&self, now: Instant) {
        let mut due = Vec::new();
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
            inner.end_away(id);
            self.counters.sessions_ended.add(1);
        }
        let mut index = 0;
        while index < inner.wills.len() {
            if inner.wills[index].0 <= now || over.contains(&inner.wills[index].1) {
                let (_, client, will) = inner.wills.swap_remove(index);
                due.push((client, will));
            } else {
                index += 1;
            }
        }
        drop(inner);
        for (client, will) in due {
            self.publish_will(&client, will);
        }
    }

    fn publish_will(&self, client: &Arc<str>, mut will: Will) {
        let expiry =
            will.message.properties.as_mut().and_then(|properties| properties.message_expiry_interval.take());
        will.message.expires = expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        if let Err(error) = self.publish(client, will.message, will.retain) {
            self.counters.dropped.add(1);
            tracing::warn!(%client, %error, "a will was not published");
        }
    }

    fn count(&self, put: Put) {
        if put != Put::Queued {
            self.counters.dropped.add(1);
        }
    }

    /// How many sessions of absent clients, subscriptions and retained messages there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let inner = self.inner.lock();
        (inner.away, inner.tree.len(), inner.retained.len())
    }
}

impl Inner {
    fn unsubscribe(&mut self, client: &Arc<str>, (group, filter): (Option<&str>, &str)) -> bool {
        let share = group.map(|group| share_key(group, filter));
        self.tree.remove(filter, |route| route.client == *client && route.share == share).is_some()
    }

    fn forget(&mut self, client: &Arc<str>, kept: &Kept) {
        for text in kept.memory.subscriptions.keys() {
            if let Ok(parsed) = super::filter::parse(text) {
                self.unsubscribe(client, (parsed.group, parsed.filter));
            }
        }
    }

    fn end_away(&mut self, client: &Arc<str>) {
        if let Some(Client::Away { kept, .. }) = self.clients.remove(client) {
            self.away -= 1;
            self.forget(client, &kept);
        }
    }

    fn end_the_next_to_expire(&mut self) {
        let until = |client: &Client| match client {
            Client::Away { until, .. } => Some(*until),
            Client::Here { .. } => None,
        };
        let next = self.clients.iter().filter_map(|(id, client)| Some((until(client)?, id.clone()))).min();
        if let Some((_, id)) = next {
            self.end_away(&id);
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

fn share_key(group: &str, filter: &str) -> Box<str> {
    format!("{group}/{filter}").into()
}

/// The lower of two qualities of service.
pub fn lower(one: QoS, other: QoS) -> QoS {
    if one < other { one } else { other }
}
