//! Publications on their way to their subscribers: those here by the tree, those of other nodes by the links.
//!
//! A client gets a message once, however many of its subscriptions match, with the highest QoS of these and all their
//! identifiers (MQTT 5, 3.3.4); a group that shares a subscription gets it once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rumqttd::protocol::QoS;
use store::{NodeId, Posted, Ticket};

use super::hub::{Hub, Options, Route};
use super::letter;
use super::mailbox::{Delivery, Mailbox, Message, Put};
use super::relays::Abroad;
use super::retained::{self, NotRetained, Retain};

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

impl Hub {
    /// Puts the retained messages that `filter` matches into a new subscriber's mailbox.
    pub fn send_retained(&self, mailbox: &Mailbox, filter: &str, options: Options) {
        // Held, so that none comes as retained and live as well.
        let _inner = self.locked();
        retained::matching(self.store(), filter, |message| {
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
            _ => retained::set(self.store(), &message, retain, Instant::now())
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
        let mut inner = self.locked();
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
            let here = |route: &&&Route| inner.is_here(&route.client);
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
                self.store().post_to(node, Posted { message: letter.clone(), groups });
            }
        }
        crowded
    }

    fn count(&self, put: Put) {
        if put != Put::Queued {
            self.counters.dropped.add(1);
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

/// The lower of two qualities of service.
pub fn lower(one: QoS, other: QoS) -> QoS {
    if one < other { one } else { other }
}
