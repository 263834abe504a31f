//! `GET /metrics`: the node's figures in the text format of Prometheus. Counters count since the process started.

use std::fmt::{Display, Write as _};

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use store::cluster::view::NodeState;

use crate::State;

/// Figures in the text exposition format, version 0.0.4. Names get `sensorium_` in front.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A count that only grows; `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    /// Counters of one name, told apart by the value of `label`.
    pub fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.labelled(name, help, "counter", label, values);
    }

    /// Gauges of one name, told apart by the value of `label`.
    pub fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.labelled(name, help, "gauge", label, values);
    }

    /// What took how long: the sum of seconds and how often.
    pub fn summary(&mut self, name: &str, help: &str, seconds: f64, count: u64) {
        self.head(name, help, "summary");
        self.line(&format!("{name}_sum"), "", seconds);
        self.line(&format!("{name}_count"), "", count);
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(self.0, "# HELP sensorium_{name} {help}\n# TYPE sensorium_{name} {kind}")
            .expect("writing to a String cannot fail");
    }

    fn labelled<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.head(name, help, kind);
        for (of, value) in values {
            let of = of.as_ref().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(name, &format!("{{{label}=\"{of}\"}}"), value);
        }
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.0, "sensorium_{name}{labels} {value}").expect("writing to a String cannot fail");
    }
}

/// `GET /metrics`.
pub async fn get(Extract(state): Extract<State>) -> Response {
    let (stats, live) = (state.store().stats(), state.hub().figures());
    let ledger = &stats.ledger;
    let mut out = Exposition::default();
    out.gauge("uptime_seconds", "Age of this process.", stats.uptime.as_secs_f64());
    out.gauge("sensors", "Sensors known.", stats.sensors);
    out.gauge("series", "Series known.", stats.series);
    out.gauge("samples", "Samples held.", stats.samples);
    out.gauge("memory_bytes", "Bytes that samples take in memory.", stats.memory_bytes);
    out.gauge(
        "memory_reserved_bytes",
        "Bytes promised to series out of the memory limit.",
        stats.reserved_bytes,
    );
    out.gauge("disk_bytes", "Size of the data file.", stats.disk_bytes);
    out.counter("samples_received_total", "Samples that came, whatever became of them.", ledger.received);
    out.counters(
        "samples_total",
        "Samples by what became of them.",
        "fate",
        [
            ("stored", ledger.stored),
            ("duplicate", ledger.duplicate),
            ("late", ledger.late),
            ("replaced", ledger.replaced),
        ],
    );
    out.counters("samples_refused_total", "Samples refused, by error code.", "code", &ledger.refused);
    out.counter("samples_evicted_total", "Samples that newer ones pushed out of their ring.", ledger.evicted);
    out.summary(
        "commit_seconds",
        "Transactions of the data file.",
        stats.commit_time.as_secs_f64(),
        stats.commits,
    );
    out.counter("frames_total", "Transactions that held samples.", stats.frames);
    out.gauge("durable_frame", "Number of the last durable frame.", stats.durable_frame);
    out.counter("disk_written_bytes_total", "Bytes written to the data file.", stats.written_bytes);
    out.counter("disk_syncs_total", "Syncs of the data file.", stats.syncs);
    out.gauge("log_bytes", "Bytes of frames that no chunk holds yet.", stats.log_bytes);
    out.gauge("pending_bytes", "Bytes of samples on their way to the disk.", stats.pending_bytes);
    out.gauge("viewers", "Open live sockets.", live.viewers);
    out.counter("viewers_total", "Live sockets ever opened.", live.opened);
    out.counter("live_samples_total", "Samples sent to viewers, backfill included.", live.samples);
    out.counter(
        "live_skipped_total",
        "Samples not sent live to viewers that could not keep up.",
        live.skipped,
    );
    out.gauge("devices", "Connected devices.", state.devices().connected());
    out.gauge("rooms", "Rooms known.", state.store().count_rooms());
    let guesses = state.guesses().figures();
    out.counters(
        "join_codes_total",
        "Join codes that opened no room, and those not looked at because their address had tried too many.",
        "fate",
        [("wrong", guesses.wrong), ("refused", guesses.refused)],
    );
    cluster(&state, &mut out);
    state.devices().expose(&mut out);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out.into_text()).into_response()
}

/// How the cluster is, as this node sees it, and what replication has done.
fn cluster(state: &State, out: &mut Exposition) {
    let (nodes, figures) = (state.nodes().all(), state.nodes().figures());
    let states = [NodeState::Alive, NodeState::Suspect, NodeState::Down, NodeState::Left];
    out.gauges(
        "nodes",
        "Nodes of the cluster by state, this one among them.",
        "state",
        states.map(|state| (state.to_string(), nodes.iter().filter(|node| node.state == state).count())),
    );
    out.gauge(
        "ready",
        "1 when the node may be given work.",
        u8::from(state.nodes().readiness().reasons.is_empty()),
    );
    out.gauges(
        "peer_lag_seconds",
        "Age of the oldest frame of this node that the peer has not made durable yet.",
        "peer",
        nodes.iter().filter_map(|node| Some((node.name.as_str(), node.lag?.as_secs_f64()))),
    );
    out.counters(
        "frames_acknowledged_total",
        "Frames acknowledged with all copies that were asked for, or with fewer because replicas were down.",
        "copies",
        [("all", figures.frames_full), ("fewer", figures.frames_fewer)],
    );
    for (name, help, count) in [
        ("wants_total", "Requests for missing blocks, sent to peers.", figures.wants),
        ("relayed_frames_total", "Frames of other origins passed on to peers.", figures.relayed),
        ("snapshots_served_total", "Snapshots of partitions served to peers.", figures.snapshots_served),
        ("snapshots_taken_total", "Snapshots of partitions taken over from peers.", figures.snapshots_taken),
        ("scrubbed_series_total", "Series compared with a peer's by scrubs.", figures.scrubbed),
        (
            "diverged_series_total",
            "Series that a scrub found different under equal vectors.",
            figures.diverged,
        ),
        ("peer_malformed_total", "Messages of peers that could not be read.", figures.malformed),
        (
            "rooms_expired_total",
            "Temporary rooms that this node deleted: empty for long.",
            figures.rooms_expired,
        ),
        ("link_sent_bytes_total", "Bytes sent to peers, before encryption.", figures.bytes_sent),
        ("link_received_bytes_total", "Bytes received from peers.", figures.bytes_received),
    ] {
        out.counter(name, help, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut out = Exposition::default();
        out.counter("a_total", "All a.", 3);
        out.counters("b_total", "B by code.", "code", [("x\"y", 1), ("z", 2)]);
        out.summary("c_seconds", "C.", 0.25, 4);
        assert_eq!(
            out.into_text(),
            "# HELP sensorium_a_total All a.\n# TYPE sensorium_a_total counter\nsensorium_a_total 3\n\
             # HELP sensorium_b_total B by code.\n# TYPE sensorium_b_total counter\n\
             sensorium_b_total{code=\"x\\\"y\"} 1\nsensorium_b_total{code=\"z\"} 2\n\
             # HELP sensorium_c_seconds C.\n# TYPE sensorium_c_seconds summary\n\
             sensorium_c_seconds_sum 0.25\nsensorium_c_seconds_count 4\n"
        );
    }
}
