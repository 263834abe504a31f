//! Three `sensorium` processes, every one with all options at their defaults but for its name, directory, addresses and
//! the others.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ingest::wire::message::{Attribute, FromNode};
use serde::Deserialize;
use serde_json::{Value, json};
use store::SampleTime;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::contender::{Contender, Held, Line, NODES, SPACING, View};
use super::member::{Member, free_addresses};
use super::settings::Settings;
use crate::load::Error;
use crate::load::device::Device;
use crate::load::frames::{Encoding, Frames};
use crate::load::http::Client;
use crate::samples::START;

/// How long nodes may take to join and catch up.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Samples kept of each series: all that a run makes.
pub const KEEP: u64 = 100_000;
const ATTRIBUTE: &str = "value";

/// A cluster, and the directory of its data.
pub struct Ours {
    members: Vec<Member>,
    /// Where each node listens for HTTP and WebSocket.
    pub http: [SocketAddr; NODES],
    /// Where each node listens for MQTT.
    pub mqtt: [SocketAddr; NODES],
    _dir: TempDir,
}

/// The id of a publisher's sensor.
pub fn sensor(publisher: usize) -> String {
    format!("dev-{publisher}")
}

/// What a sensor says of its attribute.
pub fn attribute() -> Attribute {
    Attribute { kind: Some("number".into()), keep: Some(KEEP as _), ..Attribute::default() }
}

fn time(number: u64, samples: usize) -> SampleTime {
    SampleTime(START + number as i64 * samples as i64 * SPACING)
}

/// The number of the message that a sample of this time came in.
fn number(time: SampleTime, samples: usize) -> u64 {
    ((time.0 - START) / (samples as i64 * SPACING)) as u64
}

impl Ours {
    /// Starts three nodes with empty directories, and waits until they are ready.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        std::fs::create_dir_all(&settings.dir)?;
        let dir = TempDir::with_prefix_in("sensorium-", &settings.dir)?;
        let [http, mqtt, peer] = free_addresses()?;
        let member = |at: usize| {
            let name = ["a", "b", "c"][at];
            let data = dir.path().join(name);
            let mut args: Vec<OsString> =
                vec!["--name".into(), name.into(), "--data".into(), data.clone().into()];
            for (option, address) in [("--http", http[at]), ("--mqtt", mqtt[at]), ("--peer", peer[at])] {
                args.extend([option.into(), address.to_string().into()]);
            }
            for other in (0..NODES).filter(|other| *other != at) {
                args.extend(["--join".into(), peer[other].to_string().into()]);
            }
            Member::new(name, data, settings.sensorium.clone(), args, http[at])
        };
        let mut cluster = Self { members: (0..NODES).map(member).collect(), http, mqtt, _dir: dir };
        cluster.members.iter_mut().try_for_each(Member::start)?;
        cluster.ready()?;
        Ok(cluster)
    }

    /// Whether this node is ready, and sees all nodes alive; else why not.
    fn is_ready(&self, at: usize) -> Result<(), Error> {
        let mut client = Client::connect(self.http[at])?;
        client.get("/health/ready")?;
        let cluster: Value = serde_json::from_slice(&client.get("/api/v1/cluster")?)?;
        let nodes = cluster["nodes"].as_array().ok_or("no nodes")?;
        let alive = nodes.iter().filter(|node| node["state"] == "alive").count();
        if alive == NODES { Ok(()) } else { Err(format!("{alive} nodes are alive").into()) }
    }

    /// A metric of a node, by its name with labels, without the prefix of the project's names.
    pub fn metric(&self, at: usize, name: &str) -> Result<f64, Error> {
        let text = Client::connect(self.http[at])?.get("/metrics")?;
        let text = std::str::from_utf8(&text)?;
        let prefix = format!("sensorium_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        Ok(value.ok_or_else(|| format!("there is no metric {name}"))?.parse()?)
    }
}

#[derive(Deserialize)]
struct Samples {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    ts: f64,
}

impl Contender for Ours {
    type Line = Socket;
    type View = Live;

    fn name(&self) -> &'static str {
        "sensorium"
    }

    fn configuration(&self) -> String {
        let of = |member: &Member| format!("  {}", member.command());
        let lines: Vec<String> = self.members.iter().map(of).collect();
        format!(
            "defaults: 3 replicas, acknowledged with 2 copies, each synced to disk first\n{}",
            lines.join("\n")
        )
    }

    fn members(&mut self) -> &mut [Member] {
        &mut self.members
    }

    fn addresses(&self) -> [SocketAddr; NODES] {
        self.http
    }

    fn ready(&mut self) -> Result<Duration, Error> {
        let began = Instant::now();
        for at in 0..NODES {
            while let Err(reason) = self.is_ready(at) {
                if began.elapsed() > READY_WITHIN {
                    let member = &self.members[at];
                    return Err(
                        format!("{} is not ready: {reason}; {}", member.name, member.last_words()).into()
                    );
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(began.elapsed())
    }

    fn victim(&mut self, round: usize) -> Result<usize, Error> {
        // There is no leader: each in turn.
        Ok(round % NODES)
    }

    fn copies(&mut self, publishers: usize) -> Vec<Result<Held, Error>> {
        let copy = |at: usize| {
            let mut client = Client::connect(self.http[at])?;
            let mut numbers = Vec::new();
            for publisher in 0..publishers {
                let path = format!("/api/v1/sensors/{}/{ATTRIBUTE}/samples?limit={KEEP}", sensor(publisher));
                let held: Samples = serde_json::from_slice(&client.get(&path)?)?;
                let times = held.samples.iter().map(|sample| SampleTime::from_millis(sample.ts));
                let mut of_it: Vec<u64> = times
                    .map(|time| time.map(|time| number(time, 1)))
                    .collect::<Option<_>>()
                    .ok_or("a bad time")?;
                of_it.sort_unstable();
                numbers.push(of_it);
            }
            Ok(Held { node: self.members[at].name.clone(), numbers })
        };
        (0..NODES).map(copy).collect()
    }
}

/// A device over WebSocket, in CBOR.
pub struct Socket {
    device: Device,
    frames: Frames,
    samples: usize,
    seq: u64,
    /// The messages on their way: frame and number.
    waiting: VecDeque<(u64, u64)>,
    fewest: Option<u8>,
}

impl Line for Socket {
    const RESEND: Option<Duration> = None;

    async fn open(address: SocketAddr, publisher: usize, samples: usize) -> Result<Self, Error> {
        let described = Some((ATTRIBUTE, attribute()));
        let device = Device::connect(address, Encoding::Cbor, &sensor(publisher), described).await?;
        let frames = Frames::new(Encoding::Cbor, ATTRIBUTE, samples, SPACING);
        Ok(Self { device, frames, samples, seq: 0, waiting: VecDeque::new(), fewest: None })
    }

    async fn put(&mut self, number: u64) -> Result<(), Error> {
        self.seq += 1;
        // A frame's own time goes by its `seq`, which begins anew with each connection; the message's does not.
        let start = SampleTime(time(number, self.samples).0 - (self.seq as i64 - 1) * self.frames.span());
        self.waiting.push_back((self.seq, number));
        self.device.feed(self.frames.frame(self.seq, start)).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.device.flush().await
    }

    async fn kept(&mut self) -> Result<Vec<u64>, Error> {
        match self.device.answer().await? {
            FromNode::Ack { seq, copies } => {
                self.fewest = Some(self.fewest.map_or(copies, |fewest| fewest.min(copies)));
                let covered = self.waiting.partition_point(|(held, _)| *held <= seq);
                Ok(self.waiting.drain(..covered).map(|(_, number)| number).collect())
            }
            refused @ FromNode::Error { .. } => Err(format!("{refused:?}").into()),
            FromNode::Reconnect { .. } => Err("it is going away".into()),
            _ => Ok(Vec::new()),
        }
    }

    fn fewest_copies(&self) -> Option<u8> {
        self.fewest
    }
}

/// A live socket, as the pages open it.
pub struct Live {
    socket: WebSocketStream<TcpStream>,
    samples: usize,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Deserialize)]
struct Said<'a> {
    series: &'a str,
    samples: Vec<(f64, f64)>,
}

impl View for Live {
    const WAYS: &'static [&'static str] = &["live socket"];

    async fn open(
        address: SocketAddr,
        _way: usize,
        samples: usize,
        since: &[Option<u64>],
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = client_async(format!("ws://{address}/api/v1/live"), stream).await?;
        let name = |publisher| format!("{}/{ATTRIBUTE}", sensor(publisher));
        let series: Vec<String> = (0..since.len()).map(name).collect();
        let seen = |(publisher, number): (usize, &Option<u64>)| {
            let last = number.map(|number| SampleTime(time(number + 1, samples).0 - SPACING));
            last.map(|last| (name(publisher), json!(last.millis())))
        };
        let since: serde_json::Map<String, Value> = since.iter().enumerate().filter_map(seen).collect();
        let watch = json!({"type": "watch", "id": 1, "series": series, "attention": "high", "since": since});
        socket.send(Message::text(watch.to_string())).await?;
        Ok(Self { socket, samples })
    }

    async fn next(&mut self) -> Result<Vec<(usize, u64)>, Error> {
        match self.socket.next().await.ok_or("the node closed the live socket")?? {
            Message::Text(text) => messages(&text, self.samples),
            Message::Close(_) => Err("the node closed the live socket".into()),
            _ => Ok(Vec::new()),
        }
    }

    async fn nudge(&mut self) -> Result<(), Error> {
        // Beats come by themselves.
        Ok(())
    }
}

/// The messages that a text from the live socket speaks of.
fn messages(text: &str, samples: usize) -> Result<Vec<(usize, u64)>, Error> {
    // Only these are read whole: others may have fields of other types by the same names.
    let kind: Kind = serde_json::from_str(text)?;
    match kind.kind {
        "samples" => {
            let said: Said = serde_json::from_str(text)?;
            let publisher =
                said.series.strip_prefix("dev-").and_then(|rest| rest.split('/').next()?.parse().ok());
            let publisher: usize =
                publisher.ok_or_else(|| format!("a series that is not watched: {}", said.series))?;
            let mut numbers = Vec::new();
            for (ts, _) in said.samples {
                let number = number(SampleTime::from_millis(ts).ok_or("a time out of range")?, samples);
                if numbers.last() != Some(&(publisher, number)) {
                    numbers.push((publisher, number));
                }
            }
            Ok(numbers)
        }
        "reconnect" => Err("it is going away".into()),
        "error" => Err(text.into()),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_travel_as_times() {
        for samples in [1, 10, 100] {
            for told in [0, 1, 7, 99_999] {
                assert_eq!(number(time(told, samples), samples), told);
                let last = SampleTime(time(told + 1, samples).0 - SPACING);
                assert_eq!(number(last, samples), told);
            }
        }
        let text = format!(
            r#"{{"type":"samples","series":"dev-3/value","samples":[[{},1],[{},2],[{},3]]}}"#,
            time(4, 2).millis(),
            time(4, 2).millis() + 1.0,
            time(5, 2).millis()
        );
        assert_eq!(messages(&text, 2).unwrap(), [(3, 4), (3, 5)]);
        assert_eq!(messages(r#"{"type":"beat","ts":1}"#, 2).unwrap(), []);
        assert!(messages(r#"{"type":"error","code":"c","message":"m"}"#, 2).is_err());
        assert!(messages(r#"{"type":"reconnect","delay_ms":1,"nodes":[]}"#, 2).is_err());
    }
}
