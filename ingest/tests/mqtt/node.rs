//! A node's MQTT port, for a test: everything real, on loopback and in a temporary directory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ingest::advisor::Advisor;
use ingest::mqtt::{Hub, Settings};
use store::cluster::view::Nodes;
use store::{Config, NodeId, NodeName, Query, SampleTime, Store, Values};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything in these tests may take before it counts as never.
pub const NEVER: Duration = Duration::from_secs(20);

pub struct Node {
    pub address: SocketAddr,
    pub store: Store,
    pub hub: Arc<Hub>,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
    _directory: TempDir,
}

pub async fn node() -> Node {
    node_with(settings()).await
}

/// The defaults, of a node that is alone.
pub fn settings() -> Settings {
    let name = NodeName::new("test").unwrap();
    Settings::new(Nodes::new(name, NodeId(1), "http://127.0.0.1:1".into(), None))
}

pub async fn node_with(settings: Settings) -> Node {
    slow_node_with(settings, Duration::ZERO).await
}

/// A node whose commits wait for so long.
pub async fn slow_node_with(settings: Settings, commit_window: Duration) -> Node {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { commit_window, ..Config::new(directory.path(), NodeName::new("test").unwrap()) };
    serve(Store::open(config).unwrap(), directory, settings).await
}

/// A port before a store that is open.
pub async fn serve(store: Store, directory: TempDir, settings: Settings) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let hub = Hub::start(store.clone(), stop.clone());
    let advisor = Advisor::start(store.clone(), hub.clone(), stop.clone());
    let served = tokio::spawn(ingest::mqtt::serve(
        listener,
        store.clone(),
        hub.clone(),
        advisor,
        settings,
        stop.clone(),
    ));
    Node { address, store, hub, stop, served, _directory: directory }
}

impl Node {
    /// Everything that the store holds of a series, as (microseconds, numbers).
    pub fn numbers(&self, sensor: &str, attribute: &str) -> Vec<(i64, Vec<f64>)> {
        let Some(series) = self.store.find(sensor, attribute) else { return Vec::new() };
        let samples = series.read(&Query::newest(100_000));
        let Values::Numbers { channels, flat } = samples.values else {
            panic!("{sensor}/{attribute} has texts")
        };
        samples
            .times
            .iter()
            .map(|SampleTime(time)| *time)
            .zip(flat.chunks(channels).map(<[f64]>::to_vec))
            .collect()
    }

    /// How many samples the store holds of a series.
    pub fn count(&self, sensor: &str, attribute: &str) -> usize {
        self.store
            .find(sensor, attribute)
            .map_or(0, |series| series.read(&Query::newest(100_000)).times.len())
    }

    /// Waits until nobody is connected.
    pub async fn empty(&self) {
        let nobody = async {
            while self.hub.counters.connections.get() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(NEVER, nobody).await.expect("connections leak");
    }
}
