//! What devices speak, for the node: the one place that knows both `ingest` and `web`.

use std::sync::Arc;

use axum::Router;
use ingest::advisor::Advisor;
use ingest::{mqtt, ws};
use store::Store;
use store::cluster::view::Nodes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::metrics::Exposition;

/// The node's side of devices.
pub(crate) struct Devices {
    store: Store,
    nodes: Nodes,
    sockets: ws::WebSockets,
    hub: Arc<mqtt::Hub>,
    advisor: Arc<Advisor>,
    stop: CancellationToken,
}

impl Devices {
    /// Devices that append to `store` until `stop`, and are told of `nodes`.
    pub(crate) fn new(store: &Store, nodes: &Nodes, stop: &CancellationToken) -> Self {
        let hub = mqtt::Hub::start(store.clone(), stop.clone());
        let advisor = Advisor::start(store.clone(), hub.clone(), stop.clone());
        let settings = ws::Settings::new(nodes.clone());
        let sockets = ws::WebSockets::new(store.clone(), settings, advisor.clone(), stop.clone());
        Self { store: store.clone(), nodes: nodes.clone(), sockets, hub, advisor, stop: stop.clone() }
    }

    /// Their figures.
    pub(crate) fn figures(&self) -> Arc<dyn web::Devices> {
        Arc::new(Figures { sockets: self.sockets.clone(), hub: self.hub.clone() })
    }

    /// Their routes.
    pub(crate) fn router(&self) -> Router {
        self.sockets.router()
    }

    /// Serves MQTT; the tracker is empty once all connections have ended.
    pub(crate) fn serve_mqtt(&self, listener: TcpListener) -> TaskTracker {
        let tracker = TaskTracker::new();
        let settings = mqtt::Settings::new(self.nodes.clone());
        tracker.spawn(mqtt::serve(
            listener,
            self.store.clone(),
            self.hub.clone(),
            self.advisor.clone(),
            settings,
            self.stop.clone(),
        ));
        tracker
    }
}

struct Figures {
    sockets: ws::WebSockets,
    hub: Arc<mqtt::Hub>,
}

impl web::Devices for Figures {
    fn connected(&self) -> u64 {
        self.sockets.connections() as u64 + self.hub.counters.connections.get()
    }

    fn expose(&self, out: &mut Exposition) {
        let mqtt = &self.hub.counters;
        out.gauge("ws_connections", "Connections of devices over WebSocket.", self.sockets.connections());
        out.gauge("mqtt_connections", "Connections over MQTT, subscribers included.", mqtt.connections.get());
        for (name, help, counter) in [
            (
                "mqtt_turned_away_total",
                "MQTT connections closed because there were too many.",
                &mqtt.turned_away,
            ),
            (
                "mqtt_violations_total",
                "MQTT connections ended by what their client did wrong.",
                &mqtt.violations,
            ),
            ("mqtt_received_total", "PUBLISH packets taken in.", &mqtt.received),
            ("mqtt_sent_total", "PUBLISH packets sent.", &mqtt.sent),
            ("mqtt_refused_total", "Publications refused, whole.", &mqtt.refused),
            (
                "mqtt_dropped_total",
                "Messages between clients that a subscriber had no room for.",
                &mqtt.dropped,
            ),
            ("mqtt_lagged_total", "Samples that MQTT subscribers were too slow to get live.", &mqtt.lagged),
            ("mqtt_sessions_ended_total", "Sessions of absent clients that ended.", &mqtt.sessions_ended),
        ] {
            out.counter(name, help, counter.get());
        }
        out.counters(
            "mqtt_not_retained_total",
            "Messages that were not retained, by the reason.",
            "cause",
            [
                ("full", mqtt.retained_full.get()),
                ("too_long", mqtt.retained_too_long.get()),
                ("older_node", mqtt.retained_older_node.get()),
            ],
        );
        out.counter(
            "mqtt_wills_inherited_total",
            "Wills of clients of dead nodes that were published here.",
            mqtt.wills_inherited.get(),
        );
        out.counter(
            "mqtt_wills_not_told_total",
            "Wills that other nodes do not know of, since they are too long or too many.",
            mqtt.wills_not_told.get(),
        );
        out.gauge("mqtt_retained", "Retained messages.", self.hub.sizes().2);
        let relayed = self.hub.relayed();
        out.counter("mqtt_relayed_total", "Messages put to links for clients of other nodes.", relayed.sent);
        out.counter("mqtt_relays_received_total", "Messages that came from other nodes.", relayed.received);
        out.counters(
            "mqtt_relays_dropped_total",
            "Messages between nodes that found no room, by where.",
            "at",
            [("link", relayed.link_full), ("broker", relayed.broker_full)],
        );
    }
}
