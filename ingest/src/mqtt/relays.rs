//! Messages between the clients of different nodes: which filters this node asks the others for, which nodes ask for what,
//! and what comes from them.
//!
//! A message goes once to each node that has a subscriber for it, with QoS 1 at most, from the node that took it from its
//! client; what comes from another node goes to the clients here and no further. Between nodes it is best effort: a
//! message that finds no room, on the link or in a mailbox, is dropped and counted, and ends no session.
//!
//! Of a group that shares a subscription one member gets it: on the publisher's node if one is connected there, else on one
//! of the nodes that have members, in turns.
//!
//! Bounds: filters that the passing table takes; a node that has more asks for everything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{FILTERS, Heard, NodeId, Posted, Store};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::delivery::Source;
use super::filter::{self, FilterTree};
use super::hub::Hub;
use super::letter;
use crate::wire::topic;

/// How often to look whether wills of a dead node are due, while there are any; and whether this node is at its work.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Asks for everything.
const ALL: &str = "#";
/// Filters of their own that other nodes are told; one place is for [`ALL`].
const MAX_SAID: usize = FILTERS - 1;

/// What nodes ask each other for.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// Filters with subscribers here, as these write them.
    wanted: HashMap<Box<str>, Wanted>,
    said: usize,
    elsewhere: FilterTree<Elsewhere>,
}

#[derive(Debug)]
struct Wanted {
    count: usize,
    said: bool,
}

/// A node that has subscribers for a filter.
#[derive(Debug)]
struct Elsewhere {
    node: NodeId,
    /// `group/filter` of a shared subscription.
    share: Option<Box<str>>,
}

/// Where a publication goes beside this node.
#[derive(Debug, Default)]
pub(super) struct Abroad<'a> {
    /// Nodes with subscribers of their own.
    pub(super) plain: HashSet<NodeId>,
    /// Nodes with members of groups.
    pub(super) groups: HashMap<&'a str, Vec<NodeId>>,
}

impl Relays {
    /// A client here has subscribed.
    pub(super) fn ask(&mut self, store: &Store, filter: &str) {
        if !filter::reaches_ordinary(filter) {
            return;
        }
        if let Some(wanted) = self.wanted.get_mut(filter) {
            wanted.count += 1;
            return;
        }
        let said = self.said < MAX_SAID && store.say_filter(filter, true);
        if said {
            self.said += 1;
        } else {
            store.say_filter(ALL, true);
        }
        self.wanted.insert(filter.into(), Wanted { count: 1, said });
    }

    /// A subscription here has ended.
    pub(super) fn ask_no_more(&mut self, store: &Store, filter: &str) {
        let Some(wanted) = self.wanted.get_mut(filter) else { return };
        wanted.count -= 1;
        if wanted.count > 0 {
            return;
        }
        let said = wanted.said;
        self.wanted.remove(filter);
        if said {
            self.said -= 1;
        }
        let untold = self.wanted.len() > self.said;
        if said && !(untold && filter == ALL) {
            store.say_filter(filter, false);
        } else if !said && !untold && !self.wanted.contains_key(ALL) {
            store.say_filter(ALL, false);
        }
    }

    /// Other nodes ask for a filter, and these only.
    fn asked(&mut self, text: &str, nodes: Vec<NodeId>) {
        // A peer says what it likes; what is no filter is asked for by nobody.
        let Ok(parsed) = filter::parse(text) else { return };
        let share = parsed.group.map(|group| share_key(group, parsed.filter));
        while self.elsewhere.remove(parsed.filter, |one| one.share == share).is_some() {}
        for node in nodes {
            let one = Elsewhere { node, share: share.clone() };
            self.elsewhere.insert(parsed.filter, one, |_| false);
        }
    }

    /// Where a message on `topic` goes.
    pub(super) fn route(&self, topic: &str) -> Abroad<'_> {
        let mut route = Abroad::default();
        self.elsewhere.matching(topic, &mut |one: &Elsewhere| match &one.share {
            None => drop(route.plain.insert(one.node)),
            Some(share) => route.groups.entry(share).or_default().push(one.node),
        });
        route
    }
}

/// `group/filter`: names a shared subscription.
pub(super) fn share_key(group: &str, filter: &str) -> Box<str> {
    format!("{group}/{filter}").into()
}

impl Hub {
    /// Attends to what other nodes say, until `stop`.
    pub(super) async fn attend(self: Arc<Self>, stop: CancellationToken) {
        let mut look = None;
        let mut beats = interval(LOOK_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = async {
                match look {
                    Some(due) => sleep_until(Instant::into(due)).await,
                    None => std::future::pending().await,
                }
            };
            // All branches are cancel-safe.
            tokio::select! {
                () = stop.cancelled() => return,
                heard = self.store().hear_brokers() => match heard {
                    Heard::Filter(filter) => self.asked(&filter),
                    Heard::Claimed(client, at) => self.take_away(&client, at).await,
                    Heard::Posted(posted) => self.arrived(&posted),
                    Heard::Settled(client) => self.settled(&client),
                    Heard::Wills => look = Some(Instant::now()),
                },
                _ = beats.tick() => self.pulse(|pulse| pulse.beat(Instant::now())),
                () = due => {
                    let more = self.inherit().await;
                    look = more.then(|| Instant::now() + LOOK_EVERY);
                }
            }
        }
    }

    fn asked(&self, filter: &str) {
        let nodes = self.store().nodes_for(filter);
        self.relays(|relays| relays.asked(filter, nodes));
    }

    /// A message from a client of another node.
    fn arrived(&self, posted: &Posted) {
        let read = letter::read(&posted.message, Instant::now());
        // What clients may not publish, peers may not pass on.
        let read = read.filter(|(message, _)| {
            let name = &message.topic;
            filter::check_name(name).is_ok() && !topic::is_reserved(name)
        });
        match read {
            Some((message, retain)) => {
                self.deliver(&Arc::new(message), retain, &Source::Node(&posted.groups));
            }
            None => tracing::warn!("a node passed on what is no message"),
        }
    }
}

#[cfg(test)]
mod tests {
    use store::{Config, NodeName};

    use super::*;

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(Config::new(directory.path(), NodeName::new("a").unwrap())).unwrap()
    }

    #[tokio::test]
    async fn what_finds_no_place_among_the_filters_asks_for_everything_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut relays) = (store(&directory), Relays::default());
        let name = |index: usize| format!("t/{index}");
        (0..MAX_SAID).for_each(|index| relays.ask(&store, &name(index)));
        assert_eq!((relays.said, relays.wanted.len()), (MAX_SAID, MAX_SAID));
        // The last place is taken by `#`, so a further filter would find none.
        relays.ask(&store, "one/more");
        relays.ask(&store, "two/more");
        assert!(!store.say_filter("x", true));
        relays.ask_no_more(&store, "one/more");
        assert!(!store.say_filter("x", true), "there is one more");
        relays.ask_no_more(&store, "two/more");
        assert!(store.say_filter("x", true), "nothing is asked for but what was said");
        store.say_filter("x", false);
        (0..MAX_SAID).for_each(|index| relays.ask_no_more(&store, &name(index)));
        assert_eq!((relays.said, relays.wanted.len()), (0, 0));
        store.close().await;
    }

    #[tokio::test]
    async fn a_filter_is_asked_for_as_long_as_anybody_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut relays) = (store(&directory), Relays::default());
        relays.ask(&store, "a/#");
        relays.ask(&store, "a/#");
        relays.ask(&store, "sensors/s/a");
        relays.ask_no_more(&store, "a/#");
        assert_eq!(relays.wanted.len(), 1, "samples are not asked for");
        relays.ask_no_more(&store, "a/#");
        relays.ask_no_more(&store, "a/#");
        assert!(relays.wanted.is_empty());
        store.close().await;
    }

    #[test]
    fn nodes_get_what_they_ask_for_once() {
        let mut relays = Relays::default();
        relays.asked("a/#", vec![NodeId(1), NodeId(2)]);
        relays.asked("a/+", vec![NodeId(1)]);
        relays.asked("$share/g/a/b", vec![NodeId(3), NodeId(1)]);
        relays.asked("no/#/filter", vec![NodeId(9)]);
        let route = relays.route("a/b");
        assert_eq!(route.plain, HashSet::from([NodeId(1), NodeId(2)]));
        assert_eq!(route.groups["g/a/b"], [NodeId(3), NodeId(1)]);
        relays.asked("a/#", vec![NodeId(2)]);
        relays.asked("a/+", vec![]);
        relays.asked("$share/g/a/b", vec![]);
        let route = relays.route("a/b");
        assert_eq!((route.plain, route.groups.len()), (HashSet::from([NodeId(2)]), 0));
        assert_eq!(relays.elsewhere.len(), 1);
    }
}
