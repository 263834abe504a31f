//! Wills of clients, for when their node dies. Each node says in a passing table what wills its clients have left with it; of a
//! node that died the survivors hold them until one has published each: the first by rendezvous hash of the client
//! among those that are linked, so that everybody knows the next one, should it die too.
//!
//! A link that breaks is no death. What a node said counts as its last will from when membership gives it up, when it
//! leaves, or when a later run of it opens a link; an earlier link of the same run brings its clients back.
//!
//! A client that comes to another node has left the one before: it is told so (`claim`), and publishes the will, or lets
//! go of one that was to be delayed. Where the node before is dead the same is done here. A will is retained as of the
//! moment at which its client was lost or came elsewhere, so that what it says there is not replaced by it.
//!
//! A node that hung, or was cut off, and is linked again is told whose wills the others have published meanwhile: those that it
//! was about to publish itself are void. It is told so on each link that opens within [`HELD_FOR`]: where both ends dial, a
//! link is replaced, and what was put to it is lost. While two sides cannot talk, both publish.
//!
//! Bounds: [`WILLS`](crate::passing::WILLS) of each node, of [`WILL_BYTES`]; a further or larger one is not known elsewhere.
//! What was not published [`HELD_FOR`] after it was due is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::handle::Store;
use crate::here::Here;
use crate::model::ids::NodeId;
use crate::replica::message::Message;

/// Longest will, in bytes.
pub const WILL_BYTES: usize = 8 << 10;
/// How long a will that another node has to publish is held for the case that it dies as well; and how long it is
/// repeated to a node that is linked again that a will was published.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Runs of nodes of which it is remembered whose wills were published, in case they were not dead.
const SETTLED: usize = 64;
/// On a link that has been open for so long, its peer's first words were heard.
const FIRST_WORDS: Duration = Duration::from_secs(2);
/// Clients named in one message.
const PART: usize = 1024;
/// Claims of clients that are remembered in case their node turns out to be dead; beyond, a will may come late.
const CLAIMS: usize = 16_384;

/// What a client has left with its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testament {
    /// As brokers write messages.
    pub message: Bytes,
    /// How long after its connection's end it is published.
    pub delay_s: u32,
}

/// A will that this node is to publish, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub client: Box<str>,
    /// What it says.
    pub message: Bytes,
    /// When the client was lost.
    pub lost: Stamp,
}

/// What nodes that are gone have left.
#[derive(Debug, Default)]
pub(crate) struct Estates {
    /// By run of a node.
    left: BTreeMap<(NodeId, u64), Estate>,
    /// Which run of a node is linked, and since when.
    runs: BTreeMap<NodeId, (u64, Instant)>,
    /// Nodes whose link broke, and that nobody holds for dead.
    unlinked: BTreeSet<NodeId>,
    /// Clients that came elsewhere while their node is still taken for alive.
    claims: BTreeMap<(NodeId, Box<str>), Stamp>,
    /// Clients whose wills were published, by run of their node.
    settled: BTreeMap<(NodeId, u64), BTreeMap<Box<str>, Settled>>,
}

/// A will was published by another node than its client's.
#[derive(Debug, Clone, Copy)]
struct Settled {
    at: Instant,
    /// From when on it is of no use any more; not before the client's node could be told.
    until: Option<Instant>,
}

impl Settled {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[derive(Debug)]
struct Estate {
    /// When its link broke.
    broke: Instant,
    /// It is dead.
    dead: bool,
    wills: BTreeMap<Box<str>, (Testament, Stamp)>,
}

/// Who of `nodes` publishes a client's will: the first by rendezvous hash.
fn first(nodes: impl IntoIterator<Item = NodeId>, client: &str) -> Option<NodeId> {
    let weight = |node: &NodeId| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&node.0.to_le_bytes());
        hasher.update(client.as_bytes());
        (*hasher.finalize().as_bytes(), *node)
    };
    nodes.into_iter().max_by_key(weight)
}

impl Estates {
    /// A run's wills are all that is left of it. Those of clients that came elsewhere are its no more, or older.
    fn inherit(
        &mut self,
        node: NodeId,
        start: u64,
        wills: Vec<(Box<str>, Testament)>,
        lost: Stamp,
        now: Instant,
    ) {
        let linked = self.runs.remove(&node).map(|(_, since)| since);
        if self.left.contains_key(&(node, start)) {
            return;
        }
        // Others may have lost it earlier.
        let settled = self.settled.get(&(node, start));
        let is_settled = |client: &str| {
            let settled = settled.and_then(|settled| settled.get(client));
            settled.is_some_and(|settled| {
                linked.is_some_and(|since| settled.at >= since) && !settled.is_over(now)
            })
        };
        let mut wills_left = BTreeMap::new();
        for (client, testament) in wills {
            if is_settled(&client) {
                continue;
            }
            match self.claims.remove(&(node, client.clone())) {
                Some(_) if testament.delay_s > 0 => {}
                claimed => {
                    let lost = claimed.map_or(lost, |at| at.min(lost));
                    wills_left.insert(client, (testament, lost));
                }
            }
        }
        self.claims.retain(|(of, _), _| *of != node);
        if !wills_left.is_empty() {
            self.left.insert((node, start), Estate { broke: now, dead: false, wills: wills_left });
        }
    }

    /// A client came elsewhere.
    fn claim(&mut self, client: &str, at: Stamp, holders: impl IntoIterator<Item = NodeId>) {
        for estate in self.left.values_mut() {
            let delayed = estate.wills.get(client).is_some_and(|(testament, _)| testament.delay_s > 0);
            if delayed {
                estate.wills.remove(client);
            } else if let Some((_, lost)) = estate.wills.get_mut(client) {
                *lost = at.min(*lost);
            }
        }
        for holder in holders {
            if self.claims.len() < CLAIMS {
                self.claims.insert((holder, client.into()), at);
            }
        }
    }

    /// These wills are published.
    fn settle(&mut self, run: (NodeId, u64), clients: &[Box<str>], now: Instant) {
        if let Some(estate) = self.left.get_mut(&run) {
            clients.iter().for_each(|client| drop(estate.wills.remove(client)));
        }
        if self.settled.len() >= SETTLED && !self.settled.contains_key(&run) {
            self.settled.pop_first();
        }
        let settled = Settled { at: now, until: self.is_linked(run).then(|| now + HELD_FOR) };
        self.settled.entry(run).or_default().extend(clients.iter().map(|client| (client.clone(), settled)));
    }

    fn is_linked(&self, (node, start): (NodeId, u64)) -> bool {
        self.runs.get(&node).is_some_and(|(linked, _)| *linked == start)
    }

    /// This run of a node is linked: whose wills it is to be told that others have published.
    fn tell(&mut self, run: (NodeId, u64), now: Instant) -> BTreeSet<Box<str>> {
        let Some(settled) = self.settled.get_mut(&run) else { return BTreeSet::new() };
        settled.retain(|_, settled| !settled.is_over(now));
        settled.values_mut().for_each(|settled| settled.until = settled.until.or(Some(now + HELD_FOR)));
        let told = settled.keys().cloned().collect();
        if settled.is_empty() {
            self.settled.remove(&run);
        }
        told
    }

    /// A node has said something else of the will of this client: what was claimed is settled. When it has none any
    /// more, the node knows what was published, or it was another one.
    pub(crate) fn said(&mut self, node: NodeId, client: &str, any: bool) {
        if !self.claims.is_empty() {
            self.claims.remove(&(node, client.into()));
        }
        let run = self.runs.get(&node).filter(|_| !any).map(|(start, _)| (node, *start));
        if let Some(settled) = run.and_then(|run| self.settled.get_mut(&run)) {
            settled.remove(client);
        }
    }

    /// Whether a node that is not known to be dead may have something to say that was not heard.
    fn is_waiting(&self, now: Instant) -> bool {
        let opened = self.runs.values().map(|(_, since)| *since).max();
        !self.unlinked.is_empty()
            || opened.is_some_and(|since| now.saturating_duration_since(since) < FIRST_WORDS)
    }

    /// Takes what this node is to publish by now; also says whether anything is left to wait for.
    fn due(&mut self, me: NodeId, now: Instant) -> (Vec<(NodeId, u64, Due)>, bool) {
        let nodes: Vec<NodeId> = self.runs.keys().copied().chain([me]).collect();
        let mut due = Vec::new();
        for ((node, start), estate) in &mut self.left {
            let past = now.saturating_duration_since(estate.broke);
            estate.wills.retain(|client, (testament, lost)| {
                let delay = Duration::from_secs(testament.delay_s.into());
                if !estate.dead || past < delay {
                    // A node of which nothing is heard any more, not even that it is dead, is forgotten some day.
                    return past < delay + HELD_FOR;
                }
                if first(nodes.iter().copied(), client) != Some(me) {
                    return past < delay + HELD_FOR;
                }
                let (client, message) = (client.clone(), testament.message.clone());
                due.push((*node, *start, Due { client, message, lost: *lost }));
                false
            });
        }
        self.left.retain(|_, estate| !estate.wills.is_empty());
        (due, !self.left.is_empty())
    }
}

impl Here {
    fn wills_of(&self, node: NodeId) -> Vec<(Box<str>, Testament)> {
        let said = self.passing.wills.by(node);
        said.map(|(client, testament)| (client.clone(), testament.clone())).collect()
    }

    /// A link with this run of a node is open, before what was said on earlier ones is forgotten.
    /// Gives the clients of this run whose wills were published.
    pub(crate) fn wills_linked(
        &mut self,
        node: NodeId,
        start: u64,
        lost: Stamp,
        now: Instant,
    ) -> BTreeSet<Box<str>> {
        let before = self.estates.runs.get(&node).map(|(before, _)| *before);
        if let Some(before) = before.filter(|before| *before != start) {
            let wills = self.wills_of(node);
            self.estates.inherit(node, before, wills, lost, now);
        }
        // This run lives, and says anew what wills it has; those before are dead.
        self.estates.left.remove(&(node, start));
        for (_, estate) in self.estates.left.range_mut((node, 0)..=(node, u64::MAX)) {
            estate.dead = true;
        }
        self.estates.runs.insert(node, (start, now));
        self.estates.unlinked.remove(&node);
        self.estates.tell((node, start), now)
    }

    /// The link with this run of a node is over, or the node is dead.
    pub(crate) fn wills_unlinked(&mut self, node: NodeId, lost: Stamp, now: Instant) {
        if let Some((start, _)) = self.estates.runs.get(&node).copied() {
            let wills = self.wills_of(node);
            self.estates.inherit(node, start, wills, lost, now);
            self.estates.unlinked.insert(node);
        }
    }
}

impl Store {
    /// Says that a client has left a will with this node, or no longer has. False when it is not known elsewhere.
    pub fn say_will(&self, client: &str, testament: Option<Testament>) -> bool {
        if testament.as_ref().is_some_and(|testament| testament.message.len() > WILL_BYTES) {
            return false;
        }
        let said = self.here().passing.wills.say(&client.into(), testament);
        self.shared().post.wake();
        said
    }

    /// A client has come to this node: where it was before it is no more. Returns when that was.
    pub fn claim_client(&self, client: &str) -> Stamp {
        let at = self.stamp();
        let mut here = self.here();
        let me = self.node().id;
        let said = here.passing.wills.of(&client.into()).iter().map(|(node, _)| *node);
        let holders: Vec<NodeId> = said.filter(|node| *node != me).collect();
        let left = here.estates.left.values().any(|estate| estate.wills.contains_key(client));
        if holders.is_empty() && !left {
            return at;
        }
        here.estates.claim(client, at, holders);
        drop(here);
        self.tell_all(&Message::Claimed { client: client.into(), at });
        at
    }

    /// How many nodes say that a client has left a will with them.
    pub fn nodes_with_will(&self, client: &str) -> usize {
        self.here().passing.wills.of(&client.into()).len()
    }

    /// A client has come to another node.
    pub(crate) fn hear_claim(&self, client: &str, at: Stamp) {
        let mut here = self.here();
        let me = self.node().id;
        let said = here.passing.wills.of(&client.into()).iter().map(|(node, _)| *node);
        let holders: Vec<NodeId> = said.filter(|node| *node != me).collect();
        here.estates.claim(client, at, holders);
        drop(here);
        self.exchange().claimed(client, at);
    }

    /// Another node has published wills that clients had left with this run of a node, which may be this one.
    pub(crate) fn hear_settled(&self, node: NodeId, start: u64, clients: &[Box<str>]) {
        let origin = self.node().origin;
        if (node, start) == (origin.node, origin.start) {
            return self.exchange().settled(clients);
        }
        let run = (node, start);
        let mut here = self.here();
        here.estates.settle(run, clients, Instant::now());
        let is_linked = here.estates.is_linked(run);
        drop(here);
        // Who says so may have no link with it.
        if is_linked {
            self.tell_settled(node, start, clients.iter().cloned().collect());
        }
    }

    /// Whether a node that is not known to be dead may have something to say of wills that was not heard.
    pub fn waits_for_nodes(&self) -> bool {
        self.here().estates.is_waiting(Instant::now())
    }

    /// Tells a node that is linked again whose wills were published while it was taken for dead.
    pub(crate) fn tell_settled(&self, node: NodeId, start: u64, clients: BTreeSet<Box<str>>) {
        let Some(outbox) = self.shared().post.outbox(node) else { return };
        let clients: Vec<_> = clients.into_iter().collect();
        for part in clients.chunks(PART) {
            outbox.send(Message::Settled { node, start, clients: part.to_vec() });
        }
    }

    /// A stamp of a moment that has passed.
    pub fn stamp_of(&self, ago: Duration) -> Stamp {
        let now = self.stamp();
        // Seconds stand in the upper half of a stamp's time.
        let ago = (ago.as_secs_f64() * 4_294_967_296.0) as u64;
        Stamp { time: now.time.saturating_sub(ago), ..now }
    }

    /// This run of a node is dead, or has left.
    pub(crate) fn wills_of_dead(&self, node: NodeId, start: u64) {
        let lost = self.stamp();
        let mut here = self.here();
        if here.estates.is_linked((node, start)) {
            here.wills_unlinked(node, lost, Instant::now());
        }
        if !here.estates.runs.contains_key(&node) {
            here.estates.unlinked.remove(&node);
        }
        if let Some(estate) = here.estates.left.get_mut(&(node, start)) {
            estate.dead = true;
        }
        drop(here);
        self.exchange().wills();
    }

    /// The wills that this node is to publish now, which are then its to publish; and whether others may come.
    pub fn take_wills(&self) -> (Vec<Due>, bool) {
        let mut settled: BTreeMap<(NodeId, u64), Vec<Box<str>>> = BTreeMap::new();
        let mut here = self.here();
        let (due, more) = here.estates.due(self.node().id, Instant::now());
        for (node, start, due) in &due {
            settled.entry((*node, *start)).or_default().push(due.client.clone());
        }
        let now = Instant::now();
        settled.iter().for_each(|(run, clients)| here.estates.settle(*run, clients, now));
        drop(here);
        for ((node, start), clients) in settled {
            for part in clients.chunks(PART) {
                self.tell_all(&Message::Settled { node, start, clients: part.to_vec() });
            }
        }
        (due.into_iter().map(|(_, _, due)| due).collect(), more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn stamp(time: u64) -> Stamp {
        Stamp { time, author: 1 }
    }

    fn testament(delay_s: u32) -> Testament {
        Testament { message: Bytes::from_static(b"gone"), delay_s }
    }

    fn clients() -> Vec<(Box<str>, Testament)> {
        (0..20)
            .map(|n| (format!("c{n}").into(), testament(0)))
            .chain([("slow".into(), testament(5))])
            .collect()
    }

    /// The survivors 1 and 2, which have heard the same of 3, whose link broke.
    fn survivors(now: Instant) -> [Estates; 2] {
        [NodeId(2), NodeId(1)].map(|other| {
            let mut estates = Estates::default();
            estates.runs.extend([(other, (1, now)), (NODES[2], (7, now))]);
            estates.inherit(NODES[2], 7, clients(), stamp(10), now);
            estates
        })
    }

    fn names(due: Vec<(NodeId, u64, Due)>) -> Vec<Box<str>> {
        due.into_iter().map(|(_, _, due)| due.client).collect()
    }

    #[test]
    fn each_will_of_a_dead_node_is_published_by_one_survivor_after_its_delay() {
        let now = Instant::now();
        let mut survivors = survivors(now);
        for (estates, me) in survivors.iter_mut().zip(NODES) {
            assert_eq!(estates.due(me, now).0, [], "a link that breaks is no death");
            estates.left.get_mut(&(NODES[2], 7)).unwrap().dead = true;
        }
        let [one, two] = &mut survivors;
        let mut all = [names(one.due(NODES[0], now).0), names(two.due(NODES[1], now).0)];
        assert!(all.iter().all(|of| !of.is_empty()), "{all:?}");
        let mut both = all.concat();
        both.sort();
        both.dedup();
        assert_eq!((both.len(), all[0].len() + all[1].len()), (20, 20));
        let later = now + Duration::from_secs(5);
        all = [names(one.due(NODES[0], later).0), names(two.due(NODES[1], later).0)];
        assert_eq!(all.concat(), [Box::from("slow")]);
        // Should one of the two die before it did so, the other does it.
        let mut alone = survivors_of_both(now);
        assert_eq!(names(alone.due(NODES[0], now).0).len(), 20);
        assert!(alone.due(NODES[0], now).1, "one is to come");
        assert!(!alone.due(NODES[0], later).1);
    }

    fn survivors_of_both(now: Instant) -> Estates {
        let [mut one, _] = survivors(now);
        one.left.get_mut(&(NODES[2], 7)).unwrap().dead = true;
        one.runs.remove(&NODES[1]);
        one
    }

    #[test]
    fn who_comes_elsewhere_takes_a_delayed_will_along_and_dates_another() {
        let now = Instant::now();
        let mut estates = survivors_of_both(now);
        estates.claim("slow", stamp(12), []);
        estates.claim("c1", stamp(9), []);
        let later = now + Duration::from_secs(9);
        let due = estates.due(NODES[0], later).0;
        let lost: BTreeMap<_, _> = due.into_iter().map(|(_, _, due)| (due.client, due.lost)).collect();
        assert_eq!(lost.get("slow"), None);
        assert_eq!((lost["c1"], lost["c2"]), (stamp(9), stamp(10)));
        // The same while nobody knows yet that the node is dead.
        let mut estates = Estates::default();
        estates.runs.insert(NODES[2], (7, now));
        estates.claim("slow", stamp(5), [NODES[2]]);
        estates.claim("c1", stamp(5), [NODES[2]]);
        estates.inherit(NODES[2], 7, clients(), stamp(10), now);
        estates.left.get_mut(&(NODES[2], 7)).unwrap().dead = true;
        let due = estates.due(NODES[0], later).0;
        let lost: BTreeMap<_, _> = due.into_iter().map(|(_, _, due)| (due.client, due.lost)).collect();
        assert_eq!((lost.get("slow"), lost["c1"], lost["c2"]), (None, stamp(5), stamp(10)));
        assert!(estates.claims.is_empty());
    }

    #[test]
    fn that_a_will_was_published_is_told_on_every_link_for_a_while_and_known_who_loses_the_node_later() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let run = (NODES[2], 7);
        let settled: BTreeSet<Box<str>> = [Box::from("c1"), "c2".into()].into();
        let clients: Vec<_> = settled.iter().cloned().collect();
        // This one still has its link when it hears of it.
        let mut estates = Estates::default();
        estates.runs.insert(run.0, (run.1, now));
        assert!(estates.is_waiting(now) && !estates.is_waiting(later(2)));
        estates.settle(run, &clients, later(3));
        estates.inherit(run.0, run.1, super::tests::clients(), stamp(10), later(4));
        assert!(settled.iter().all(|client| !estates.left[&run].wills.contains_key(client)));
        assert!(estates.left[&run].wills.contains_key("c3"));
        // The first link is replaced, and what was put to it is lost.
        let mut estates = Estates::default();
        estates.settle(run, &clients, now);
        for seconds in [1000, 1001, 1059] {
            assert_eq!(estates.tell(run, later(seconds)), settled, "{seconds}");
        }
        estates.runs.insert(run.0, (run.1, later(1059)));
        // A client that is back has another will; one that has none is done with.
        estates.said(run.0, "c1", true);
        estates.said(run.0, "c2", false);
        assert_eq!(estates.tell(run, later(1059)), [Box::from("c1")].into());
        // The node dies indeed, with that will.
        estates.inherit(run.0, run.1, super::tests::clients(), stamp(10), later(1059));
        assert!(estates.left[&run].wills.contains_key("c1"));
        assert!(estates.tell(run, later(1060)).is_empty() && estates.settled.is_empty());
    }

    #[test]
    fn what_others_do_not_publish_is_let_go_in_the_end() {
        let now = Instant::now();
        let [mut one, _] = survivors(now);
        assert!(one.due(NODES[0], now + HELD_FOR / 2).1);
        assert!(!one.due(NODES[0], now + HELD_FOR + Duration::from_secs(5)).1);
    }
}
