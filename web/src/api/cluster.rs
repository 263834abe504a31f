//! `GET node` and `GET cluster`: who answers, and with whom; the same as a message of the live socket.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use store::PARTITIONS;
use store::cluster::view::{ClusterEvent, Happening, NodeView};

use crate::State;

#[derive(Serialize)]
struct Identity<'a> {
    node: &'a str,
    id: String,
    version: &'static str,
    http: &'a str,
    mqtt: Option<&'a str>,
    peer: &'a str,
    uptime_s: f64,
}

/// The cluster as this node knows it.
#[derive(Serialize)]
pub(crate) struct Cluster {
    /// `cluster`, in a message of the live socket.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Who tells it.
    me: String,
    partitions: u16,
    replicas: u16,
    nodes: Vec<Member>,
    /// What happened, the oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Told>>,
}

#[derive(Serialize)]
struct Member {
    node: String,
    id: String,
    state: String,
    /// Whether it is the one who tells.
    me: bool,
    /// Since when it is in its state.
    since_ts: f64,
    http: String,
    mqtt: Option<String>,
    sensors: u64,
    devices: u64,
    viewers: u64,
    samples_per_second: f64,
    memory_bytes: u64,
    disk_bytes: u64,
    /// How far its copy of what this node takes is behind; null when that cannot be known, for want of a link.
    lag_ms: Option<f64>,
}

/// One line of the event log.
#[derive(Serialize)]
struct Told {
    ts: f64,
    node: String,
    event: &'static str,
    /// For people: `joined`, `was refused: …`.
    text: String,
}

impl Cluster {
    /// What is known now; with the event log, when that is wanted.
    pub(crate) fn of(state: &State, with_events: bool) -> Self {
        let nodes = state.nodes();
        Self {
            kind: None,
            me: state.store().node().name.to_string(),
            partitions: PARTITIONS,
            replicas: state.replicas(),
            nodes: nodes.all().into_iter().map(Member::from).collect(),
            events: with_events.then(|| nodes.events().into_iter().map(Told::from).collect()),
        }
    }

    /// As a message of the live socket.
    pub(crate) fn message(mut self) -> String {
        self.kind = Some("cluster");
        serde_json::to_string(&self).expect("texts, numbers and lists of them are always written")
    }
}

impl From<NodeView> for Member {
    fn from(view: NodeView) -> Self {
        let lag = if view.me { Some(0.0) } else { view.lag.map(|lag| lag.as_secs_f64() * 1000.0) };
        Self {
            node: view.name.to_string(),
            id: view.id.to_string(),
            state: view.state.to_string(),
            me: view.me,
            since_ts: millis(view.since),
            http: view.http,
            mqtt: view.mqtt,
            sensors: view.load.sensors,
            devices: view.load.devices,
            viewers: view.load.viewers,
            samples_per_second: view.load.samples_per_second,
            memory_bytes: view.load.memory_bytes,
            disk_bytes: view.load.disk_bytes,
            lag_ms: lag,
        }
    }
}

impl From<ClusterEvent> for Told {
    fn from(event: ClusterEvent) -> Self {
        let code = match &event.what {
            Happening::Joined => "joined",
            Happening::Suspected => "suspected",
            Happening::Recovered => "recovered",
            Happening::Died => "died",
            Happening::Left => "left",
            Happening::Refused(_) => "refused",
            Happening::ClockAhead(_) => "clock_ahead",
            Happening::CaughtUp(_) => "caught_up",
        };
        Self { ts: millis(event.at), node: event.node, event: code, text: event.what.to_string() }
    }
}

/// Milliseconds since 1970, whole.
fn millis(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64)
}

/// `GET node`.
pub(super) async fn node(Extract(state): Extract<State>) -> Response {
    let (node, addresses) = (state.store().node(), state.addresses());
    Json(Identity {
        node: node.name.as_str(),
        id: node.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        http: &addresses.http,
        mqtt: addresses.mqtt.as_deref(),
        peer: &addresses.peer,
        uptime_s: state.store().stats().uptime.as_secs_f64(),
    })
    .into_response()
}

/// `GET cluster`. This node's own figures are those of this moment, the others' what they last told.
pub(super) async fn cluster(Extract(state): Extract<State>) -> Response {
    state.note_load(&state.store().stats());
    Json(Cluster::of(&state, true)).into_response()
}
