//! `GET node` and `GET cluster`: who answers, and a cluster of one.

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use store::PARTITIONS;

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

#[derive(Serialize)]
struct Cluster<'a> {
    partitions: u16,
    replicas: u16,
    nodes: [Member<'a>; 1],
}

#[derive(Serialize)]
struct Member<'a> {
    node: &'a str,
    id: String,
    state: &'static str,
    http: &'a str,
    mqtt: Option<&'a str>,
    sensors: usize,
    devices: u64,
    viewers: u64,
    samples_per_second: f64,
    memory_bytes: u64,
    disk_bytes: u64,
    /// How far this node's copy is behind; one's own is the newest there is.
    lag_ms: f64,
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

/// `GET cluster`.
pub(super) async fn cluster(Extract(state): Extract<State>) -> Response {
    let (node, addresses, stats) = (state.store().node(), state.addresses(), state.store().stats());
    let member = Member {
        node: node.name.as_str(),
        id: node.id.to_string(),
        state: "alive",
        http: &addresses.http,
        mqtt: addresses.mqtt.as_deref(),
        sensors: stats.sensors,
        devices: state.devices().connected(),
        viewers: state.hub().figures().viewers,
        samples_per_second: state.rate().per_second(),
        memory_bytes: stats.memory_bytes,
        disk_bytes: stats.disk_bytes,
        lag_ms: 0.0,
    };
    Json(Cluster { partitions: PARTITIONS, replicas: state.replicas(), nodes: [member] }).into_response()
}
