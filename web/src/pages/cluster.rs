//! The cluster: its nodes with their state and figures, and what happened to them. The server says what it knows now;
//! `cluster.js` makes the table of it and keeps it live, from whichever node the page is on.

use maud::{Markup, html};
use store::cluster::view::NodeView;

use super::layout::{Page, line};
use crate::State;
use crate::api::cluster::Cluster;

/// Figures of a node: what the script calls them, and their headings.
const FIGURES: [(&str, &str); 7] = [
    ("samples_per_second", "Samples/s"),
    ("devices", "Devices"),
    ("viewers", "Viewers"),
    ("sensors", "Sensors"),
    ("memory_bytes", "Memory"),
    ("disk_bytes", "Disk"),
    ("lag_ms", "Lag"),
];

/// The page.
pub(super) fn page(state: &State) -> Page {
    state.note_load(&state.store().stats());
    let known = state.nodes().all();
    let body = html! {
        div.page-head {
            h1 { "Cluster" }
            p.summary data-role="summary" role="status" {}
        }
        dl.tiles aria-label="All nodes together" {
            @for (role, label) in
                [("alive", "Nodes alive"), ("rate", "Samples/s"), ("devices", "Devices"), ("viewers", "Viewers")]
            {
                div.tile { dt { (label) } dd data-role={ "total-" (role) } { "–" } }
            }
        }
        div.panel.scroll role="region" aria-label="Nodes" tabindex="0" {
            // The roles are said, since on a phone the style sheet makes cards of the rows.
            table.nodes role="table" data-role="nodes" data-cluster=(Cluster::of(state, true).message()) {
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Node" }
                        th scope="col" role="columnheader" { "State" }
                        @for (field, label) in FIGURES {
                            th.figure scope="col" role="columnheader" data-field=(field) { (label) }
                        }
                    }
                }
                tbody role="rowgroup" data-role="rows" {}
            }
        }
        (second(state, known.len() > 1))
        section.log {
            div.page-head {
                h2 { "What happened" }
                p.summary data-role="witness" {}
            }
            ol.panel.happenings data-role="events" role="log" aria-label="Events, the newest first" {}
        }
        p.keys {
            "Lag: how long ago this node took what the other has not on its disk yet. A node that is down is listed for \
             24 hours."
        }
        noscript { (plain(&known)) }
    };
    Page::new(state, "Cluster", Some("cluster.js"), body)
}

/// What a node that is alone shows: how to start a second one.
fn second(state: &State, hidden: bool) -> Markup {
    html! {
        section.panel.second data-role="second" hidden[hidden] {
            h2 { "This node is alone" }
            p {
                "It keeps what it acknowledges on its own disk. Start a second node, and every sample is on two disks \
                 before it is acknowledged; kill either, and devices and pages go on with the other."
            }
            (line(&second_command(state)))
            p.hint {
                "From this project's folder, " code { "cargo run --release --" } " stands for " code { "sensorium" } ". \
                 The node appears here by itself."
            }
        }
    }
}

/// The line that starts another node beside this one.
fn second_command(state: &State) -> String {
    let own = state.store().node().name.as_str();
    let name = if own == "b" { "c" } else { "b" };
    let peer = &state.addresses().peer;
    let near = peer.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    let (http, mqtt, at) = if state.is_loopback() {
        ("127.0.0.1:0", "127.0.0.1:0", "")
    } else {
        ("0.0.0.0:4000", "0.0.0.0:1883", " --insecure-open")
    };
    let (listen, secret) = if near {
        ("127.0.0.1:0", "")
    } else {
        ("0.0.0.0:4400", " --cluster-secret \"$SENSORIUM_CLUSTER_SECRET\"")
    };
    format!(
        "sensorium --name {name} --data ./data-{name} --http {http} --mqtt {mqtt}{at} --peer {listen}{secret} \
         --join {peer}"
    )
}

/// For browsers without scripts.
fn plain(known: &[NodeView]) -> Markup {
    html! {
        p { "Live figures need JavaScript. These nodes are known:" }
        ul {
            @for node in known { li { a href={ (node.http) "/cluster" } { (node.name) } ": " (node.state) } }
        }
    }
}
