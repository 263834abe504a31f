//! A viewer of `GET /api/v1/live`: it follows all series, says after every move what it holds (`since`), and notes whatever
//! it is sent. It moves by itself, when its node is gone, silent, or says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ingest::wire::message::Value;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::check::{MAX_SAMPLES, fingerprint};
use crate::client::BadAddress;
use crate::client::addresses::{Addresses, Purpose};
use crate::pulse::Pulse;

/// A node sends a beat every 250 ms; one that is silent for so long is left.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Time for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries when no node lets us in.
const RETRY_MS: std::ops::Range<u64> = 20..60;
/// Complaints remembered; further ones say nothing new.
const MAX_ERRORS: usize = 32;
/// No sample is older.
const NEVER: i64 = i64::MIN;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One sample as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Time in microseconds.
    pub time: i64,
    /// On which of the viewer's connections.
    pub connection: u32,
    /// Of its value.
    pub fingerprint: u64,
}

/// Everything that a viewer saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// By sensor and attribute, in the order of arrival.
    pub series: HashMap<(String, String), Vec<Sighting>>,
    /// Connections that it had.
    pub connections: u32,
    /// Samples that were not sent live, as nodes said; they came later.
    pub lagged: u64,
    /// What nodes complained of, or what could not be read.
    pub errors: Vec<String>,
}

/// A running viewer.
#[derive(Debug)]
pub struct Viewer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    go: watch::Sender<Option<String>>,
    task: JoinHandle<Seen>,
}

#[derive(Debug)]
struct Shared {
    series: Vec<(String, String)>,
    by_name: HashMap<String, usize>,
    /// The newest time seen of each series.
    newest: Vec<AtomicI64>,
    /// Whose series it is: an index into `sensors`.
    sensor_of: Vec<usize>,
    /// Each sensor, and how evenly what is new of it comes.
    sensors: Vec<(String, Pulse)>,
    address: Mutex<Option<String>>,
}

/// Why a connection ended.
enum End {
    Stopped,
    Lost,
    Told(Vec<String>),
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Samples {
    series: String,
    samples: Vec<(f64, Value)>,
}

#[derive(Deserialize)]
struct Reconnect {
    #[serde(default)]
    nodes: Vec<String>,
}

/// Of `cluster`: where else there are nodes.
#[derive(Deserialize)]
struct Members {
    nodes: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    http: String,
}

#[derive(Deserialize)]
struct Lag {
    skipped: u64,
}

impl Viewer {
    /// Connects to number `first` of `urls`, and watches these series. Needs a tokio runtime.
    pub fn start(
        urls: &[String],
        first: usize,
        series: Vec<(String, String)>,
        seed: u64,
    ) -> Result<Self, BadAddress> {
        let mut random = StdRng::seed_from_u64(seed);
        let addresses = Addresses::new(Purpose::Live, urls, first, StdRng::seed_from_u64(random.random()))?;
        let shared = Arc::new(Shared::new(series));
        let (stop, stopping) = watch::channel(false);
        let (go, going) = watch::channel(None);
        let task = tokio::spawn(follow(Arc::clone(&shared), addresses, random, stopping, going));
        Ok(Self { shared, stop, go, task })
    }

    /// The node that it is on, as it was addressed; `None` while it is on none.
    pub fn address(&self) -> Option<String> {
        self.shared.address().clone()
    }

    /// Moves it to another node.
    pub fn go_to(&self, url: &str) {
        self.go.send_replace(Some(url.to_owned()));
    }

    /// Each sensor, and how evenly what is new of it comes.
    pub fn sensors(&self) -> &[(String, Pulse)] {
        &self.shared.sensors
    }

    /// The newest time that it has seen of each series.
    pub fn newest(&self) -> impl Iterator<Item = (&(String, String), i64)> {
        self.shared.series.iter().zip(self.shared.newest.iter().map(|newest| newest.load(Relaxed)))
    }

    /// Stops watching: everything that it saw.
    pub async fn finish(self) -> Seen {
        self.stop.send_replace(true);
        // A viewer that panicked has seen nothing, and so missed everything.
        self.task.await.unwrap_or_default()
    }
}

impl Seen {
    fn complains(&mut self, what: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(what);
        }
    }
}

impl Shared {
    fn new(series: Vec<(String, String)>) -> Self {
        let mut sensors: Vec<(String, Pulse)> = Vec::new();
        let mut numbers = HashMap::new();
        let mut sensor_of = Vec::with_capacity(series.len());
        for (sensor, _) in &series {
            let number = *numbers.entry(sensor.clone()).or_insert_with(|| {
                sensors.push((sensor.clone(), Pulse::default()));
                sensors.len() - 1
            });
            sensor_of.push(number);
        }
        let name = |(sensor, attribute): &(String, String)| format!("{sensor}/{attribute}");
        let by_name = series.iter().enumerate().map(|(at, series)| (name(series), at)).collect();
        let newest = series.iter().map(|_| AtomicI64::new(NEVER)).collect();
        Self { series, by_name, newest, sensor_of, sensors, address: Mutex::new(None) }
    }

    fn address(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.address.lock().expect("no holder of this lock does anything that could panic")
    }

    /// What to say first on every connection.
    fn watch(&self) -> String {
        let names: Vec<_> = self.by_name.keys().collect();
        let since: serde_json::Map<_, _> = self
            .by_name
            .iter()
            .map(|(name, at)| (name, self.newest[*at].load(Relaxed)))
            .filter(|(_, newest)| *newest != NEVER)
            .map(|(name, newest)| (name.clone(), (newest as f64 / 1000.0).into()))
            .collect();
        // Of what is not in `since` nothing was seen yet: everything that there is comes first.
        serde_json::json!({
            "type": "watch", "id": 1, "series": names, "attention": "high", "since": since, "backfill": MAX_SAMPLES
        })
        .to_string()
    }
}

async fn follow(
    shared: Arc<Shared>,
    mut addresses: Addresses,
    mut random: StdRng,
    mut stop: watch::Receiver<bool>,
    mut go: watch::Receiver<Option<String>>,
) -> Seen {
    let mut seen = Seen::default();
    // Series by number while it runs: no name is made for every sample.
    let mut sightings: Vec<Vec<Sighting>> = shared.series.iter().map(|_| Vec::new()).collect();
    loop {
        let before = seen.connections;
        let connection = connect(&mut addresses, &shared, &mut seen, &mut sightings);
        // Cancelled, a connection ends; what it had read is noted.
        let end = tokio::select! {
            end = connection => end,
            _ = stop.wait_for(|stop| *stop) => End::Stopped,
            Ok(()) = go.changed() => End::Told(go.borrow_and_update().iter().cloned().collect()),
        };
        *shared.address() = None;
        match end {
            End::Stopped => break,
            End::Lost => addresses.advance(),
            End::Told(nodes) => addresses.move_to(&nodes),
        }
        if seen.connections == before {
            sleep(Duration::from_millis(random.random_range(RETRY_MS))).await;
        }
    }
    seen.series = shared.series.iter().cloned().zip(sightings).collect();
    seen
}

async fn connect(
    addresses: &mut Addresses,
    shared: &Shared,
    seen: &mut Seen,
    sightings: &mut [Vec<Sighting>],
) -> End {
    let address = addresses.current().to_owned();
    let opened = timeout(CONNECT_WITHIN, async {
        let (mut socket, _) = connect_async_with_config(&address, None, true).await?;
        socket.send(Message::text(shared.watch())).await?;
        Ok::<Socket, tokio_tungstenite::tungstenite::Error>(socket)
    });
    let Ok(Ok(mut socket)) = opened.await else { return End::Lost };
    *shared.address() = Some(address.clone());
    seen.connections += 1;
    loop {
        let text = match timeout(SILENT_AFTER, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return End::Lost,
            Ok(Some(Ok(_))) => continue,
        };
        match note(text.as_str(), shared, seen, sightings) {
            Ok(Some(Told::Move(nodes))) => return End::Told(nodes),
            Ok(Some(Told::Nodes(nodes))) => addresses.learn(&nodes),
            Ok(None) => {}
            Err(error) => seen.complains(format!("{address}: {error}: {text}")),
        }
    }
}

/// What concerns the connection, and not what is watched.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// Go to one of these.
    Move(Vec<String>),
    /// There are these nodes.
    Nodes(Vec<String>),
}

/// Notes a message.
fn note(
    text: &str,
    shared: &Shared,
    seen: &mut Seen,
    sightings: &mut [Vec<Sighting>],
) -> Result<Option<Told>, serde_json::Error> {
    match serde_json::from_str::<Kind>(text)?.kind.as_str() {
        "samples" => {
            let Samples { series, samples } = serde_json::from_str(text)?;
            let Some(at) = shared.by_name.get(&series).copied() else { return Ok(None) };
            let held = shared.newest[at].load(Relaxed);
            let mut newest = held;
            sightings[at].extend(samples.iter().map(|(ts, value)| {
                let time = (ts * 1000.0).round() as i64;
                newest = newest.max(time);
                Sighting { time, connection: seen.connections, fingerprint: fingerprint(value) }
            }));
            if newest > held {
                shared.newest[at].store(newest, Relaxed);
                shared.sensors[shared.sensor_of[at]].1.beat();
            }
        }
        "reconnect" => return Ok(Some(Told::Move(serde_json::from_str::<Reconnect>(text)?.nodes))),
        "cluster" => {
            let nodes = serde_json::from_str::<Members>(text)?.nodes;
            return Ok(Some(Told::Nodes(nodes.into_iter().map(|node| node.http).collect())));
        }
        "lag" => seen.lagged += serde_json::from_str::<Lag>(text)?.skipped,
        "error" => seen.complains(text.to_owned()),
        _ => {}
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_noted_and_asked_for_no_more() {
        let name = |attribute: &str| ("s".to_owned(), attribute.to_owned());
        let shared = Shared::new(vec![name("a"), name("b")]);
        let (mut seen, mut sightings) = (Seen { connections: 1, ..Seen::default() }, vec![Vec::new(); 2]);
        let mut note = |text: &str| note(text, &shared, &mut seen, &mut sightings);
        note(r#"{"type":"samples","series":"s/b","samples":[[1.001,5],[0.5,[1,null]]]}"#).unwrap();
        note(r#"{"type":"beat","ts":1}"#).unwrap();
        let nodes = note(r#"{"type":"cluster","nodes":[{"node":"a","http":"http://a:1"}]}"#).unwrap();
        assert_eq!(nodes, Some(Told::Nodes(vec!["http://a:1".to_owned()])));
        note(r#"{"type":"lag","skipped":3}"#).unwrap();
        note(r#"{"type":"error","code":"c","message":"m"}"#).unwrap();
        let told = note(r#"{"type":"reconnect","delay_ms":1,"nodes":["ws://h:1"]}"#).unwrap();
        assert_eq!(told, Some(Told::Move(vec!["ws://h:1".to_owned()])));
        assert!(note("nonsense").is_err());
        let times: Vec<_> = sightings[1].iter().map(|sighting| sighting.time).collect();
        assert_eq!((sightings[0].len(), times), (0, vec![1001, 500]));
        assert_eq!((seen.lagged, seen.errors.len()), (3, 1));
        let watch: serde_json::Value = serde_json::from_str(&shared.watch()).unwrap();
        assert_eq!(watch["since"], serde_json::json!({"s/b": 1.001}));
        assert_eq!(watch["series"].as_array().unwrap().len(), 2);
        assert_eq!(shared.sensors.len(), 1);
    }
}
