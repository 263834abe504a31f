//! Where devices may stream to: the nodes of the cluster as devices are told of them.
//!
//! The others come in an order that differs each time, so that the devices of a node that dies do not all turn to the
//! same one.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::seq::SliceRandom;
use store::cluster::view::{NodeState, NodeView, Nodes};
use tokio::sync::watch;

use crate::wire::message::PATH;

/// The WebSockets that devices may use, worked out once for each change of the cluster, however many devices there are.
pub(crate) struct Ways {
    nodes: Nodes,
    news: watch::Receiver<u64>,
    known: Mutex<Known>,
}

struct Known {
    /// Of the cluster, when the ways were worked out.
    version: u64,
    ways: Arc<[String]>,
}

impl Ways {
    pub(crate) fn new(nodes: Nodes) -> Self {
        let news = nodes.changed();
        let version = *news.borrow();
        let known = Mutex::new(Known { version, ways: websockets(&nodes) });
        Self { nodes, news, known }
    }

    /// Says when the ways may have changed.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.nodes.changed()
    }

    /// This node's WebSocket, then those of the others that are alive, by their names. The same `Arc` until they change.
    pub(crate) fn now(&self) -> Arc<[String]> {
        let version = *self.news.borrow();
        let mut known = self.known.lock();
        if known.version != version {
            let ways = websockets(&self.nodes);
            if ways != known.ways {
                known.ways = ways;
            }
            known.version = version;
        }
        known.ways.clone()
    }
}

/// What a device is told: this node's WebSocket first.
pub(crate) fn all(ways: &[String]) -> Vec<String> {
    let own = ways.iter().take(1).cloned();
    own.chain(elsewhere(ways).into_iter().filter(|way| Some(way) != ways.first())).collect()
}

/// What a device is told when this node is going away. Where all nodes stand behind one address, that is it: the next
/// connection leads to another of them.
pub(crate) fn elsewhere(ways: &[String]) -> Vec<String> {
    let mut others = ways.get(1..).unwrap_or_default().to_vec();
    others.sort_unstable();
    others.dedup();
    others.shuffle(&mut rand::rng());
    others
}

/// The MQTT addresses of the others as a Server Reference has them: `host:port`, with spaces between (MQTT 5, section
/// 4.11). `None` when there are none.
pub(crate) fn server_reference(nodes: &Nodes) -> Option<String> {
    let mut places: Vec<String> = others(nodes)
        .into_iter()
        .filter_map(|node| node.mqtt)
        .filter_map(|url| Some(url.split_once("://")?.1.trim_end_matches('/').to_owned()))
        .collect();
    places.sort_unstable();
    places.dedup();
    places.shuffle(&mut rand::rng());
    (!places.is_empty()).then(|| places.join(" "))
}

fn others(nodes: &Nodes) -> Vec<NodeView> {
    let mut others = nodes.all();
    others.retain(|node| !node.me && node.state == NodeState::Alive);
    others
}

fn websockets(nodes: &Nodes) -> Arc<[String]> {
    let own = nodes.all().into_iter().find(|node| node.me);
    own.into_iter().chain(others(nodes)).map(|node| websocket(&node)).collect()
}

fn websocket(node: &NodeView) -> String {
    // `ws` for `http`, `wss` for `https`.
    match node.http.strip_prefix("http") {
        Some(rest) => format!("ws{rest}{PATH}"),
        None => format!("{}{PATH}", node.http),
    }
}

#[cfg(test)]
mod tests {
    use store::cluster::view::Happening;
    use store::{NodeId, NodeName};

    use super::*;

    #[test]
    fn devices_are_told_of_those_that_live_and_this_one_first() {
        let name = |name| NodeName::new(name).unwrap();
        let nodes =
            Nodes::new(name("b"), NodeId(1), "http://127.0.0.1:4000".into(), Some("mqtt://h:1".into()));
        assert_eq!(server_reference(&nodes), None);
        for (of, state, mqtt) in [
            ("a", NodeState::Alive, Some("mqtt://[::1]:1884".to_owned())),
            ("c", NodeState::Suspect, Some("mqtt://h:2".to_owned())),
            ("d", NodeState::Left, Some("mqtt://h:3".to_owned())),
            ("e", NodeState::Alive, None),
        ] {
            let view = nodes.all().remove(0);
            nodes.put(NodeView {
                name: name(of),
                state,
                me: false,
                http: format!("https://{of}"),
                mqtt,
                ..view
            });
        }
        assert_eq!(server_reference(&nodes).unwrap(), "[::1]:1884");
        let ways = Ways::new(nodes.clone());
        let now = ways.now();
        let expected =
            ["ws://127.0.0.1:4000/api/v1/ingest/ws", "wss://a/api/v1/ingest/ws", "wss://e/api/v1/ingest/ws"];
        assert_eq!(*now, expected);
        for told in [all(&now), [&now[..1], &elsewhere(&now)].concat()] {
            let mut others = told[1..].to_vec();
            others.sort();
            assert_eq!((told[0].as_str(), &others[..]), (expected[0], &now[1..]));
        }
        nodes.event("x", Happening::Refused("another secret".into()));
        assert!(Arc::ptr_eq(&ways.now(), &now), "not every change of the cluster is news to a device");
        nodes.update(&name("a"), |node| node.state = NodeState::Down);
        assert_eq!(*ways.now(), [expected[0], expected[2]]);
    }

    #[test]
    fn nodes_behind_one_address_are_one_way() {
        let ways = ["ws://lb", "ws://lb", "ws://lb"].map(str::to_owned);
        assert_eq!((all(&ways), elsewhere(&ways)), (vec![ways[0].clone()], vec![ways[0].clone()]));
        assert_eq!((all(&ways[..1]), elsewhere(&ways[..1])), (vec![ways[0].clone()], Vec::new()));
    }
}
