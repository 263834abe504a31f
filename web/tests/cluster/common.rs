//! The program under test, load on it, and single samples sent by hand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firmware_sim::client::Transport;
use firmware_sim::demo::check::{MAX_SAMPLES, Verdict};
use firmware_sim::demo::cluster::{Cluster, Plan};
use firmware_sim::demo::round::Audience;
use firmware_sim::demo::viewer::Viewer;
use firmware_sim::demo::{judge, load};
use firmware_sim::fleet::{self, Fleet};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything here should take: a guard against waiting forever.
pub(crate) const GUARD: Duration = Duration::from_secs(180);
/// How long devices may wait for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);

static MACHINE: Mutex<()> = Mutex::const_new(());

/// The machine for oneself, until the guard is dropped.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// Whether the long versions are wanted.
pub(crate) fn slow() -> bool {
    std::env::var("SENSORIUM_SLOW").is_ok_and(|value| value == "1")
}

/// How often something is done, ordinarily and in the long version.
pub(crate) fn often(ordinary: usize, long: usize) -> usize {
    if slow() { long } else { ordinary }
}

/// Of a run; printed, so that it can be repeated.
pub(crate) fn seed() -> u64 {
    let said = std::env::var("SENSORIUM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = said.unwrap_or_else(|| firmware_sim::now_us() as u64 % 1_000_000);
    eprintln!("SENSORIUM_SEED={seed}");
    seed
}

/// Pseudo-random, the same for the same seed.
pub(crate) fn draw(seed: u64, step: usize, below: usize) -> usize {
    (firmware_sim::signals::noise::derive(seed, "draw", step as u64) % below as u64) as usize
}

pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_sensorium").into()
}

/// Nodes that keep all that a test acknowledges.
pub(crate) fn plan(nodes: usize, options: &[&str]) -> Plan {
    let keep = MAX_SAMPLES.to_string();
    let options = ["--keep", &keep].iter().chain(options).map(ToString::to_string).collect();
    Plan { program: program(), nodes, options }
}

/// How much load.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) devices: usize,
    /// Of each device.
    pub(crate) series: usize,
    /// Of each series.
    pub(crate) rate_hz: u32,
    pub(crate) frame: Duration,
    pub(crate) viewers: usize,
}

impl Size {
    /// 20 000 samples/s; the rings hold 200 s of it.
    pub(crate) fn full() -> Self {
        Self { devices: 40, series: 1, rate_hz: 500, frame: Duration::from_millis(50), viewers: 2 }
    }

    /// 2000 samples/s, where the machine has enough to do without.
    pub(crate) fn light() -> Self {
        Self { devices: 20, series: 1, rate_hz: 100, frame: Duration::from_millis(50), viewers: 1 }
    }
}

/// Devices over WebSocket and MQTT on all nodes, viewers, and the log of what was acknowledged.
pub(crate) struct Load {
    fleet: Fleet,
    viewers: Vec<Viewer>,
    acks: PathBuf,
}

impl Load {
    /// Starts, and waits until every device has been acknowledged and every viewer sees every sensor.
    pub(crate) async fn start(cluster: &Cluster, size: Size, seed: u64) -> Self {
        let members = load::counting(size.devices, size.series, size.rate_hz, MAX_SAMPLES as u64);
        let series = load::series(&members);
        let viewers = (0..size.viewers)
            .map(|at| Viewer::start(&cluster.urls(), at, series.clone(), seed + at as u64).unwrap())
            .collect();
        let acks = cluster.directory().join("acks");
        let transports = vec![
            Transport::WebSocket { urls: cluster.urls(), cbor: false },
            Transport::Mqtt { addresses: cluster.brokers() },
        ];
        let options = fleet::Options {
            frame: Some(size.frame),
            acks: Some(acks.clone()),
            patience: PATIENCE,
            ..fleet::Options::new(transports, seed)
        };
        let load = Self { fleet: Fleet::start(members, &options).unwrap(), viewers, acks };
        let flows = cluster.eventually("everything flows", GUARD, async || {
            let mute = load.fleet.tallies().iter().find(|(_, tally)| tally.pulse().last().is_none());
            if let Some((sensor, tally)) = mute {
                return Err(format!("{sensor}: {:?}", tally.summary()));
            }
            let mut sensors = load.viewers.iter().flat_map(Viewer::sensors);
            match sensors.find(|(_, pulse)| pulse.last().is_none()) {
                Some((sensor, _)) => Err(format!("no viewer has seen {sensor}")),
                None => Ok(()),
            }
        });
        flows.await.unwrap();
        load
    }

    pub(crate) fn audience(&self) -> Audience<'_> {
        Audience { fleet: &self.fleet, viewers: &self.viewers }
    }

    /// Stops measuring, and waits until everything is acknowledged.
    pub(crate) async fn stop(&mut self) {
        self.fleet.stop();
        timeout(PATIENCE, self.fleet.ended()).await.expect("everything is acknowledged in time");
        let total = self.fleet.total();
        assert!(total.complete(), "{total}: {:?}", total.complaints);
    }

    /// Stops, and fails unless every acknowledged sample is on every running node and was seen by every viewer, once.
    pub(crate) async fn settle(mut self, cluster: &Cluster) -> Verdict {
        self.stop().await;
        let total = self.fleet.total();
        let say = |line: &str| eprintln!("{line}");
        let verdict = judge(cluster, self.viewers, &self.acks, MAX_SAMPLES as u64, say).await.unwrap();
        eprintln!("{total}; {verdict:?}");
        assert!(verdict.is_clean() && verdict.samples == total.acked, "{verdict:?}\n{}", cluster.logs());
        assert_eq!(verdict.unasked, 0, "every sample that a node holds was acknowledged: {verdict:?}");
        verdict
    }

    pub(crate) fn acks(&self) -> &Path {
        &self.acks
    }
}

/// Sends one sample, which is kept on two nodes by the answer, or on more: the last may be as quick.
pub(crate) async fn keep_on(http: SocketAddr, sensor: &str, ts: f64, value: f64) {
    let copies = send_to(http, sensor, ts, value).await;
    assert!(copies.as_ref().is_ok_and(|copies| *copies >= 2), "durable on two nodes: {copies:?}");
}

/// Sends one sample to this very node and waits for its acknowledgement: how many copies it has.
pub(crate) async fn send_to(http: SocketAddr, sensor: &str, ts: f64, value: f64) -> Result<u64, String> {
    let url = format!("ws://{http}/api/v1/ingest/ws");
    let conversation = async {
        let (mut socket, _) =
            tokio_tungstenite::connect_async(&url).await.map_err(|error| error.to_string())?;
        let sample = json!({"attribute": "x", "ts": ts, "value": value});
        for message in [
            json!({"type": "hello", "sensor": sensor}),
            json!({"type": "samples", "seq": 1, "samples": [sample]}),
        ] {
            socket.send(Message::text(message.to_string())).await.map_err(|error| error.to_string())?;
        }
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message.map_err(|error| error.to_string())? else { continue };
            let said: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            match said["type"].as_str() {
                Some("ack") => return said["copies"].as_u64().ok_or(format!("no copies: {said}")),
                Some("error") => return Err(said.to_string()),
                _ => {}
            }
        }
        Err("the connection was closed".to_owned())
    };
    timeout(GUARD, conversation).await.unwrap_or_else(|_| Err("no acknowledgement in time".to_owned()))
}

/// Calls an HTTP API with a JSON body, or with none for null: status and body of the answer.
pub(crate) async fn call(http: SocketAddr, method: &str, path: &str, body: Value) -> (u16, Value) {
    let conversation = async {
        let mut stream = TcpStream::connect(http).await.unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {http}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_default())
    };
    timeout(GUARD, conversation).await.expect("an answer in time")
}

/// The status of `DELETE path`.
pub(crate) async fn delete(http: SocketAddr, path: &str) -> u16 {
    call(http, "DELETE", path, Value::Null).await.0
}

/// Makes a room through a node, and waits until all of these know it: its id.
pub(crate) async fn room(nodes: &[SocketAddr], sensors: &[&str]) -> String {
    let wish = json!({"name": "Lab", "sensors": sensors});
    let (status, made) = call(nodes[0], "POST", "/api/v1/rooms", wish).await;
    assert_eq!(status, 201, "{made}");
    let id = made["room"].as_str().unwrap().to_owned();
    let known = async {
        for node in nodes {
            while call(*node, "GET", &format!("/api/v1/rooms/{id}"), Value::Null).await.0 != 200 {}
        }
    };
    timeout(GUARD, known).await.expect("all know it");
    id
}

/// Milliseconds since 1970, whole.
pub(crate) fn now_ms() -> f64 {
    (firmware_sim::now_us() / 1000) as f64
}
