//! What devices speak, for the node: the one place that knows both `ingest` and `web`.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::NoDevices;

/// The node's side of devices.
pub(crate) struct Devices;

impl Devices {
    /// Their figures.
    pub(crate) fn figures() -> Arc<dyn web::Devices> {
        Arc::new(NoDevices)
    }

    /// Their routes.
    pub(crate) fn router() -> Router {
        Router::new()
    }

    /// Serves MQTT until `stop`; the tracker is empty once all connections have ended.
    pub(crate) fn serve_mqtt(listener: TcpListener, stop: &CancellationToken) -> TaskTracker {
        let tracker = TaskTracker::new();
        let stop = stop.clone();
        tracker.spawn(async move {
            stop.cancelled().await;
            drop(listener);
        });
        tracker
    }
}
