//! What there is to say of the cluster: its nodes, how they are, what happened. Pages, `GET cluster` and metrics read it.
//!
//! Bounds: at most [`EVENTS`] events are kept, the oldest go first; a node that is gone is listed for [`LISTED_FOR`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::ids::{NodeId, NodeName};

/// Events kept for people to read.
pub const EVENTS: usize = 256;
/// How long a node that is down or has left stays listed.
pub const LISTED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a node's wrong clock is not told again.
const SAID_FOR: Duration = Duration::from_secs(600);

/// How a node is, as far as this one knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// It answers.
    Alive,
    /// It did not answer a probe; if it stays silent it is down.
    Suspect,
    /// It does not answer: killed, hung, or cut off.
    Down,
    /// It said goodbye.
    Left,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        })
    }
}

/// What a node says of itself once a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Sensors known.
    pub sensors: u64,
    /// Devices connected to it.
    pub devices: u64,
    /// Viewers connected to it.
    pub viewers: u64,
    /// Samples that its devices sent in the last second.
    pub samples_per_second: f64,
    /// Bytes that the rings take.
    pub memory_bytes: u64,
    /// Bytes that the data file takes.
    pub disk_bytes: u64,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its operator's name for it.
    pub name: NodeName,
    /// Its disk.
    pub id: NodeId,
    /// How it is.
    pub state: NodeState,
    /// Whether it is the node that answers.
    pub me: bool,
    /// What browsers are told, as a URL.
    pub http: String,
    /// What MQTT devices are told, as a URL; `None` when it takes none.
    pub mqtt: Option<String>,
    /// Its own figures, as it last told them.
    pub load: Load,
    /// Age of the oldest frame of this node that it has not made durable yet; `None` for this node itself and for
    /// nodes without a link.
    pub lag: Option<Duration>,
    /// Since when it is in this state.
    pub since: SystemTime,
}

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It came, or came back.
    Joined,
    /// It is silent.
    Suspected,
    /// It answers again.
    Recovered,
    /// It died: killed, hung, or cut off.
    Died,
    /// It said goodbye.
    Left,
    /// It was not let in, for this reason.
    Refused(String),
    /// Its clock is ahead of this node's by so much.
    ClockAhead(Duration),
    /// It caught up with this node's partitions, after so long.
    CaughtUp(Duration),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => f.write_str("joined"),
            Self::Suspected => f.write_str("is silent"),
            Self::Recovered => f.write_str("answers again"),
            Self::Died => f.write_str("died"),
            Self::Left => f.write_str("left"),
            Self::Refused(reason) => write!(f, "was refused: {reason}"),
            Self::ClockAhead(ahead) => write!(f, "has a clock that is {:.1} s ahead", ahead.as_secs_f64()),
            Self::CaughtUp(took) => write!(f, "caught up after {:.1} s", took.as_secs_f64()),
        }
    }
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// When this node saw it.
    pub at: SystemTime,
    /// Whose.
    pub node: String,
    /// What.
    pub what: Happening,
}

/// Whether the node may be given work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty when it is ready.
    pub reasons: Vec<String>,
    /// It was told of other nodes, and none of them answered.
    pub alone: bool,
}

/// Counts of replication since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames acknowledged with all copies that were asked for, and with fewer because replicas were down.
    pub frames_full: u64,
    /// Frames acknowledged with fewer copies, because replicas were down.
    pub frames_fewer: u64,
    /// Requests for missing blocks, sent.
    pub wants: u64,
    /// Frames of other origins passed on.
    pub relayed: u64,
    /// Snapshots served.
    pub snapshots_served: u64,
    /// Snapshots taken over.
    pub snapshots_taken: u64,
    /// Series compared by scrubs.
    pub scrubbed: u64,
    /// Series that a scrub found different although the version vectors were equal.
    pub diverged: u64,
    /// Messages of peers that could not be read, or made no sense.
    pub malformed: u64,
    /// Temporary rooms that this node deleted because they were empty for long.
    pub rooms_expired: u64,
    /// Bytes sent on links, before encryption.
    pub bytes_sent: u64,
    /// Bytes received on links.
    pub bytes_received: u64,
}

/// The nodes that this node knows of. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Table {
    me: NodeName,
    nodes: BTreeMap<NodeName, (NodeView, Instant)>,
    events: VecDeque<ClusterEvent>,
    clocks: BTreeMap<NodeName, Instant>,
    readiness: Readiness,
    figures: Figures,
}

impl Nodes {
    /// A cluster of one. Not ready until [`Self::set_readiness`] says so.
    pub fn new(me: NodeName, id: NodeId, http: String, mqtt: Option<String>) -> Self {
        let view = NodeView {
            name: me.clone(),
            id,
            state: NodeState::Alive,
            me: true,
            http,
            mqtt,
            load: Load::default(),
            lag: None,
            since: SystemTime::now(),
        };
        let table = Table {
            me: me.clone(),
            nodes: BTreeMap::from([(me, (view, Instant::now()))]),
            events: VecDeque::new(),
            clocks: BTreeMap::new(),
            readiness: Readiness { reasons: vec!["the node is starting".into()], alone: false },
            figures: Figures::default(),
        };
        Self(Arc::new(Shared { table: Mutex::new(table), changed: watch::Sender::new(0) }))
    }

    /// Every node, by name; those that are gone for [`LISTED_FOR`] no longer.
    pub fn all(&self) -> Vec<NodeView> {
        let mut table = self.0.table.lock();
        table.nodes.retain(|_, (node, since)| {
            matches!(node.state, NodeState::Alive | NodeState::Suspect) || since.elapsed() < LISTED_FOR
        });
        table.nodes.values().map(|(node, _)| node.clone()).collect()
    }

    /// One node.
    pub fn get(&self, name: &NodeName) -> Option<NodeView> {
        self.0.table.lock().nodes.get(name).map(|(node, _)| node.clone())
    }

    /// The event log, oldest first.
    pub fn events(&self) -> Vec<ClusterEvent> {
        self.0.table.lock().events.iter().cloned().collect()
    }

    /// Rises whenever a node comes, goes or changes its state (not with every figure).
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Whether the node may be given work.
    pub fn readiness(&self) -> Readiness {
        self.0.table.lock().readiness.clone()
    }

    /// Says whether the node may be given work.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.0.table.lock().readiness = readiness;
    }

    /// Counts of replication.
    pub fn figures(&self) -> Figures {
        self.0.table.lock().figures
    }

    /// Changes the counts of replication.
    pub fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut self.0.table.lock().figures);
    }

    /// This node's own figures, as `GET cluster` shows them here and on the others.
    pub fn set_load(&self, load: Load) {
        let mut table = self.0.table.lock();
        let me = table.me.clone();
        if let Some((node, _)) = table.nodes.get_mut(&me) {
            node.load = load;
        }
    }

    /// This node's own figures.
    pub fn load(&self) -> Load {
        let table = self.0.table.lock();
        table.nodes.get(&table.me).map(|(node, _)| node.load.clone()).unwrap_or_default()
    }

    /// Takes what is known of another node. A change of state is dated and told.
    pub fn put(&self, mut view: NodeView) {
        let mut table = self.0.table.lock();
        let mut since = Instant::now();
        let mut changed = true;
        if let Some((held, before)) = table.nodes.get(&view.name)
            && held.state == view.state
            && held.id == view.id
        {
            view.since = held.since;
            since = *before;
            changed = held.http != view.http || held.mqtt != view.mqtt;
        }
        table.nodes.insert(view.name.clone(), (view, since));
        drop(table);
        if changed {
            self.0.changed.send_modify(|count| *count += 1);
        }
    }

    /// Changes what is known of a node, if it is known.
    pub fn update(&self, name: &NodeName, change: impl FnOnce(&mut NodeView)) {
        if let Some(mut view) = self.get(name) {
            change(&mut view);
            self.put(view);
        }
    }

    /// Tells that a node's clock is too far ahead to be followed, once in a while.
    pub fn clock_ahead(&self, node: &NodeName, ahead: Duration) {
        let mut table = self.0.table.lock();
        let said = table.clocks.get(node).is_some_and(|said| said.elapsed() < SAID_FOR);
        if !said {
            table.clocks.insert(node.clone(), Instant::now());
            drop(table);
            tracing::warn!(%node, ?ahead, "a node's clock is ahead and is not followed; set its time");
            self.event(node.as_str(), Happening::ClockAhead(ahead));
        }
    }

    /// Adds a line to the event log.
    pub fn event(&self, node: impl Into<String>, what: Happening) {
        let mut table = self.0.table.lock();
        if table.events.len() == EVENTS {
            table.events.pop_front();
        }
        table.events.push_back(ClusterEvent { at: SystemTime::now(), node: node.into(), what });
        drop(table);
        self.0.changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_state_is_dated_and_told() {
        let name = |name| NodeName::new(name).unwrap();
        let nodes = Nodes::new(name("a"), NodeId(1), "http://a".into(), None);
        let mut changed = nodes.changed();
        let mut b = nodes.all().remove(0);
        (b.name, b.id, b.me) = (name("b"), NodeId(2), false);
        nodes.put(b.clone());
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        let since = nodes.get(&b.name).unwrap().since;
        b.load.devices = 3;
        nodes.put(b.clone());
        assert!(!changed.has_changed().unwrap(), "figures alone are no news");
        assert_eq!(nodes.get(&b.name).unwrap().since, since);
        b.state = NodeState::Down;
        nodes.put(b);
        assert!(changed.has_changed().unwrap());
        for _ in 0..=EVENTS {
            nodes.event("b", Happening::Died);
        }
        assert_eq!(nodes.events().len(), EVENTS);
    }
}
