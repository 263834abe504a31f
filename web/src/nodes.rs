//! Where a browser may go: the nodes of the cluster as pages are told of them, and the origins that are theirs.

use rand::seq::SliceRandom;
use store::cluster::view::{NodeState, NodeView, Nodes};

/// The path of the live socket.
pub(crate) const LIVE: &str = "/api/v1/live";
/// What stands for "this machine" where a port follows.
const LOOPBACK: &str = "localhost";

/// The base of a node's WebSockets: `ws://…` for `http://…`, `wss://…` for `https://…`.
pub(crate) fn socket_base(http: &str) -> String {
    match http.strip_prefix("http") {
        Some(rest) => format!("ws{rest}"),
        None => http.to_owned(),
    }
}

/// A node's live socket.
fn live(http: &str) -> String {
    format!("{}{LIVE}", socket_base(http))
}

/// The nodes that a page may be on: this one first, then those that are alive.
pub(crate) fn open(nodes: &Nodes) -> Vec<NodeView> {
    let mut open = nodes.all();
    open.retain(|node| node.me || node.state == NodeState::Alive);
    open.sort_by_key(|node| !node.me);
    open
}

/// The live sockets of the nodes that viewers are sent to when this one goes, in an order that differs each time, so
/// that they do not all turn to the same one.
pub(crate) fn elsewhere(nodes: &Nodes) -> Vec<String> {
    let mut others: Vec<String> =
        open(nodes).iter().filter(|node| !node.me).map(|node| live(&node.http)).collect();
    // They may all stand behind one address.
    others.sort_unstable();
    others.dedup();
    others.shuffle(&mut rand::rng());
    others
}

/// Whether `origin` (in lower case) is that of a listed node's pages. Nodes that are down count: their pages live on.
pub(crate) fn is_of_one(nodes: &Nodes, origin: &str) -> bool {
    let origin = canonical(origin);
    nodes.all().iter().any(|node| canonical(&node.http.to_ascii_lowercase()) == origin)
}

/// An origin with one name for this machine, by whichever a browser has opened it.
fn canonical(origin: &str) -> String {
    let Some((scheme, authority)) = origin.trim_end_matches('/').split_once("://") else {
        return origin.to_owned();
    };
    let (host, port) = split(authority);
    let is_loopback = host == LOOPBACK || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match (is_loopback, port) {
        (true, Some(port)) => format!("{scheme}://{LOOPBACK}:{port}"),
        (true, None) => format!("{scheme}://{LOOPBACK}"),
        (false, _) => format!("{scheme}://{authority}"),
    }
}

/// Whether `authority` (host, or host:port) names this machine by address, or as localhost.
pub(crate) fn is_local(authority: &str) -> bool {
    let (host, _) = split(authority);
    host == LOOPBACK || host.ends_with(".localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// Host, without brackets, and port.
fn split(authority: &str) -> (&str, Option<&str>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

#[cfg(test)]
mod tests {
    use store::{NodeId, NodeName};

    use super::*;

    /// `a` asks; `b` is alive, `c` down.
    fn three() -> Nodes {
        let name = |name| NodeName::new(name).unwrap();
        let nodes = Nodes::new(name("b"), NodeId(1), "http://127.0.0.1:4000".into(), None);
        let other = |of, port, state| NodeView {
            name: name(of),
            id: NodeId(port),
            state,
            me: false,
            http: format!("http://127.0.0.1:{port}"),
            ..nodes.all().remove(0)
        };
        for (of, port, state) in
            [("a", 4001, NodeState::Alive), ("c", 4002, NodeState::Down), ("d", 4003, NodeState::Suspect)]
        {
            nodes.put(other(of, port, state));
        }
        nodes
    }

    #[test]
    fn a_page_is_told_of_this_node_and_then_of_those_alive() {
        let nodes = three();
        let told: Vec<String> = open(&nodes).iter().map(|node| live(&node.http)).collect();
        assert_eq!(told, ["ws://127.0.0.1:4000/api/v1/live", "ws://127.0.0.1:4001/api/v1/live"]);
        assert_eq!(elsewhere(&nodes), ["ws://127.0.0.1:4001/api/v1/live"]);
        assert_eq!(socket_base("https://sense.example"), "wss://sense.example");
    }

    #[test]
    fn origins_of_nodes_are_told_from_others() {
        let nodes = three();
        for ours in
            ["http://127.0.0.1:4000", "http://localhost:4001", "http://[::1]:4002", "http://127.0.0.1:4003"]
        {
            assert!(is_of_one(&nodes, ours), "{ours}");
        }
        for foreign in
            ["http://127.0.0.1:3000", "https://127.0.0.1:4000", "http://evil.example:4000", "null", ""]
        {
            assert!(!is_of_one(&nodes, foreign), "{foreign}");
        }
    }

    #[test]
    fn local_names_are_told_from_others() {
        for local in
            ["localhost:4000", "127.0.0.1:4000", "[::1]:4000", "[::1]", "app.localhost", "10.0.0.7:80"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in ["evil.example:4000", "localhost.evil.example", "127.0.0.1.nip.io:4000", ""] {
            assert!(!is_local(other), "{other}");
        }
    }
}
