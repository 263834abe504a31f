//! The measurements. Each run of one has a node of its own, started for it on an empty data directory, and ends in an
//! error when the node has not stored what it acknowledged.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use ingest::wire::message::Attribute;
use store::SampleTime;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Error;
use super::device::{Device, Pace, Sent};
use super::frames::{Encoding, Frames};
use super::http::Client;
use super::mqtt::Publisher;
use super::node::Node;
use super::viewer::{Format, Viewer};
use crate::figures::{Run, quantile};
use crate::process::Process;
use crate::samples;

/// Connections that are opened at the same time.
const OPENING: usize = 64;
/// How often a reader asks.
const READ_EVERY: Duration = Duration::from_millis(5);
/// Samples of a frame, and microseconds between them, of the device that is watched: 10 000 a second.
const WATCHED: (usize, i64) = (10, 100);
/// How long a viewer goes on after the device has ended, for what is still on its way.
const VIEW_AFTER: Duration = Duration::from_millis(500);
/// How often a figure that should come to rest is looked at.
const SETTLE_EVERY: Duration = Duration::from_millis(250);
/// At most for how long.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// How often a node is asked whether it has stored everything: the error of the rate that follows from it is this long.
const STORED_EVERY: Duration = Duration::from_millis(20);
/// A change of resident memory up to this is rest.
const REST_BYTES: f64 = 65_536.0;

/// What to drive and how hard.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The release program
    #[arg(long, default_value = "target/release/sensorium")]
    pub sensorium: PathBuf,
    /// Where the nodes' data directories and the reports go; figures are those of this disk
    #[arg(long, default_value = "target/load")]
    pub dir: PathBuf,
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// WebSocket connections that send; each is a sensor with one series
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Frames of a WebSocket connection that are not acknowledged, at most
    #[arg(long, default_value_t = 64)]
    pub window: usize,
    /// Samples of a WebSocket frame
    #[arg(long, default_value_t = 100)]
    pub frame: usize,
    /// MQTT clients that publish
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Messages of an MQTT client that are not acknowledged, at most
    #[arg(long, default_value_t = 200)]
    pub mqtt_window: usize,
    /// Idle connections
    #[arg(long, default_value_t = 5000)]
    pub idle: usize,
    /// Samples a second that are written while HTTP is measured
    #[arg(long, default_value_t = 500_000)]
    pub rate: u64,
}

/// A measurement.
#[derive(Debug)]
pub struct Measure {
    /// What it is called in `--only`.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// One run of it.
    pub run: fn(&Settings, &Runtime) -> Result<Run, Error>,
}

/// All of them, in the order they run in.
pub const MEASURES: [Measure; 9] = [
    Measure {
        name: "ws-json",
        about: "Samples in JSON over WebSocket, pipelined, until they are acknowledged.",
        run: |settings, runtime| devices(settings, runtime, Encoding::Json),
    },
    Measure {
        name: "ws-cbor",
        about: "Samples in CBOR over WebSocket, pipelined, until they are acknowledged.",
        run: |settings, runtime| devices(settings, runtime, Encoding::Cbor),
    },
    Measure {
        name: "mqtt-qos1",
        about: "Messages of 100 bytes and one sample over MQTT with QoS 1, pipelined, until they are acknowledged.",
        run: at_least_once,
    },
    Measure {
        name: "mqtt-qos0",
        about: "Messages of 100 bytes and one sample over MQTT with QoS 0, until the node has stored them.",
        run: at_most_once,
    },
    Measure {
        name: "live-json",
        about: "From a device at 10 000 samples/s (JSON, frames of 10) to a viewer, JSON: from just before a frame is \
                sent to its receipt.",
        run: |settings, runtime| live(settings, runtime, Format::Json),
    },
    Measure {
        name: "live-binary",
        about: "The same to a viewer that gets binary frames.",
        run: |settings, runtime| live(settings, runtime, Format::Binary),
    },
    Measure {
        name: "idle-ws",
        about: "Memory of WebSocket devices that have been welcomed, each a sensor of its own, and send nothing.",
        run: idle_devices,
    },
    Measure {
        name: "idle-mqtt",
        about: "Memory of MQTT clients that are connected and send nothing.",
        run: idle_publishers,
    },
    Measure {
        name: "http",
        about: "The newest 100 samples of a series over a kept-alive connection, asked for every 5 ms, while others \
                write (CBOR over WebSocket).",
        run: reads,
    },
];

/// CPU and time from its making on.
struct Meter {
    node: Process,
    began: Instant,
    cpu: (f64, f64),
}

impl Meter {
    fn start(node: &Node) -> Result<Self, Error> {
        let node = node.process();
        Ok(Self { node, began: Instant::now(), cpu: (node.cpu()?, Process::this().cpu()?) })
    }

    /// The rate of `count` things, and what they cost.
    fn stop(self, rate: &'static str, cost: &'static str, count: u64) -> Result<Run, Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        let (node, own) = (self.node.cpu()? - self.cpu.0, Process::this().cpu()? - self.cpu.1);
        let count = count as f64;
        Ok(vec![
            (rate, count / seconds),
            (cost, node / count * 1e6),
            ("cores used by the node", node / seconds),
            ("cores used by the generator", own / seconds),
        ])
    }
}

fn latencies(figures: &mut Run, labels: [&'static str; 3], mut micros: Vec<u64>) {
    micros.sort_unstable();
    for (label, at) in labels.into_iter().zip([0.5, 0.99, 1.0]) {
        figures.push((label, quantile(&micros, at) / 1000.0));
    }
}

/// Fails unless the node has stored `count` samples.
fn check_stored(node: &Node, count: u64) -> Result<(), Error> {
    match node.stored()? {
        stored if stored == count => Ok(()),
        stored => Err(format!("{count} samples were acknowledged, but {stored} are stored").into()),
    }
}

fn ecg() -> Attribute {
    Attribute { kind: Some("ecg".into()), rate_hz: Some(250.0), ..Attribute::default() }
}

/// Connects the devices; lets `pace` drive them once all are welcomed, and tells `then` what they did.
async fn drive(node: &Node, settings: &Settings, encoding: Encoding, pace: Pace) -> Result<Vec<Sent>, Error> {
    let frames = Frames::new(encoding, "ecg", settings.frame, samples::INTERVAL);
    let mut devices = Vec::new();
    for index in 0..settings.connections {
        let hello = Some(("ecg", ecg()));
        devices.push(Device::connect(node.http, encoding, &format!("load-{index}"), hello).await?);
    }
    let mut tasks = JoinSet::new();
    for mut device in devices {
        let frames = frames.clone();
        tasks.spawn(async move { device.send(&frames, SampleTime(samples::START), pace).await });
    }
    let mut sent = Vec::new();
    while let Some(done) = tasks.join_next().await {
        sent.push(done??);
    }
    Ok(sent)
}

fn devices(settings: &Settings, runtime: &Runtime, encoding: Encoding) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    let lasting = Duration::from_secs(settings.seconds);
    let pace = Pace { window: settings.window, every: Duration::ZERO, lasting, frames: u64::MAX };
    let meter = Meter::start(&node)?;
    let sent = runtime.block_on(drive(&node, settings, encoding, pace))?;
    let frames: usize = sent.iter().map(|sent| sent.at.len()).sum();
    let count = (frames * settings.frame) as u64;
    let mut figures = meter.stop("samples/s acknowledged", "node CPU, µs a sample", count)?;
    let micros = sent.into_iter().flat_map(|sent| sent.acknowledged).collect();
    let labels = ["acknowledgement p50, ms", "acknowledgement p99, ms", "acknowledgement max, ms"];
    latencies(&mut figures, labels, micros);
    check_stored(&node, count)?;
    Ok(figures)
}

async fn publishers(node: &Node, count: usize) -> Result<Vec<Publisher>, Error> {
    let address = node.mqtt()?;
    let connect = |index| async move { Publisher::connect(address, &format!("load-{index}")).await };
    stream::iter(0..count).map(connect).buffer_unordered(OPENING).try_collect().await
}

fn at_least_once(settings: &Settings, runtime: &Runtime) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    let clients = runtime.block_on(publishers(&node, settings.clients))?;
    let meter = Meter::start(&node)?;
    let (window, lasting) = (settings.mqtt_window, Duration::from_secs(settings.seconds));
    let count = runtime.block_on(total(clients, move |mut client| async move {
        client.at_least_once(window, lasting).await
    }))?;
    let figures = meter.stop("messages/s acknowledged", "node CPU, µs a message", count)?;
    check_stored(&node, count)?;
    Ok(figures)
}

fn at_most_once(settings: &Settings, runtime: &Runtime) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    let clients = runtime.block_on(publishers(&node, settings.clients))?;
    let meter = Meter::start(&node)?;
    let lasting = Duration::from_secs(settings.seconds);
    let count = runtime
        .block_on(total(clients, move |mut client| async move { client.at_most_once(lasting).await }))?;
    // Read is not stored yet: what is stored must come to rest, and be everything.
    let (mut stored, mut rested) = (node.stored()?, Instant::now());
    while stored < count && rested.elapsed() < SETTLE_WITHIN {
        std::thread::sleep(STORED_EVERY);
        let now = node.stored()?;
        if now > stored {
            (stored, rested) = (now, Instant::now());
        }
    }
    let mut figures = meter.stop("messages/s stored", "node CPU, µs a message", stored)?;
    figures.push(("messages that were not stored", count.abs_diff(stored) as f64));
    Ok(figures)
}

/// Runs `work` for each client at the same time, and adds up what they say.
async fn total<F>(clients: Vec<Publisher>, work: impl Fn(Publisher) -> F) -> Result<u64, Error>
where
    F: Future<Output = Result<u64, Error>> + Send + 'static,
{
    let mut tasks: JoinSet<_> = clients.into_iter().map(work).collect();
    let mut total = 0;
    while let Some(done) = tasks.join_next().await {
        total += done??;
    }
    Ok(total)
}

fn live(settings: &Settings, runtime: &Runtime, format: Format) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    let frames = Frames::new(Encoding::Json, "ecg", WATCHED.0, WATCHED.1);
    let start = SampleTime(samples::START);
    let every = Duration::from_micros(frames.span() as u64);
    // One frame ahead, so that the viewer has something to see before the measurement begins.
    let ahead = Pace {
        window: 1,
        every: Duration::from_secs(60),
        lasting: Duration::from_millis(100),
        frames: u64::MAX,
    };
    let (mut device, ahead) = runtime.block_on(async {
        let mut device = Device::connect(node.http, Encoding::Json, "live-0", Some(("ecg", ecg()))).await?;
        let sent = device.send(&frames, start, ahead).await?;
        Ok::<_, Error>((device, sent.at.len()))
    })?;
    let mut viewer = Viewer::watch(node.http, "live-0/ecg", format)?;
    let ended = OnceLock::<Instant>::new();
    let meter = Meter::start(&node)?;
    let (sent, viewer) = std::thread::scope(|scope| {
        let ended = &ended;
        let viewing = scope.spawn(move || {
            viewer.follow(|| ended.get().is_some_and(|at| at.elapsed() > VIEW_AFTER)).map(|()| viewer)
        });
        let pace =
            Pace { window: 1000, every, lasting: Duration::from_secs(settings.seconds), frames: u64::MAX };
        let sent = runtime.block_on(device.send(&frames, start, pace));
        ended.get_or_init(Instant::now);
        (sent, viewing.join())
    });
    let (sent, viewer) = (sent?, viewer.map_err(|_| "the viewer panicked")??);
    let count = (sent.at.len() * frames.count()) as u64;
    let mut figures = meter.stop("samples/s (until the viewer ended)", "node CPU, µs a sample", count)?;
    let received = viewer.received()?;
    let latency = |(time, at): &(SampleTime, Instant)| {
        // Frames are told apart by the time of their first sample.
        let (frame, rest) = ((time.0 - start.0) / frames.span(), (time.0 - start.0) % frames.span());
        let sent = sent.at.get(usize::try_from(frame).ok()?.checked_sub(ahead)?)?;
        (rest == 0).then(|| (*at - *sent).as_micros() as u64)
    };
    let labels = ["latency p50, ms", "latency p99, ms", "latency max, ms"];
    latencies(&mut figures, labels, received.iter().filter_map(latency).collect());
    figures.push(("samples that the viewer missed", count as f64 - received.len() as f64));
    Ok(figures)
}

/// Resident memory of the node when it has come to rest.
async fn resident(node: &Node) -> Result<f64, Error> {
    let began = Instant::now();
    let mut held = node.process().resident()?;
    loop {
        tokio::time::sleep(SETTLE_EVERY).await;
        let now = node.process().resident()?;
        if (now - held).abs() <= REST_BYTES || began.elapsed() > SETTLE_WITHIN {
            return Ok(now);
        }
        held = now;
    }
}

/// Memory of connections that `connect` opens and that are held meanwhile.
fn idle<C>(
    settings: &Settings,
    runtime: &Runtime,
    connect: &impl AsyncFn(&Node, usize) -> Result<C, Error>,
) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    runtime.block_on(async {
        let before = resident(&node).await?;
        let began = Instant::now();
        let connecting = stream::iter(0..settings.idle).map(|index| connect(&node, index));
        let held: Vec<C> = connecting.buffer_unordered(OPENING).try_collect().await?;
        let opened = began.elapsed().as_secs_f64();
        let grown = resident(&node).await? - before;
        let count = held.len() as f64;
        Ok(vec![
            ("connections", count),
            ("KiB a connection", grown / count / 1024.0),
            ("connections opened/s", count / opened),
            ("MiB resident before", before / 1_048_576.0),
        ])
    })
}

fn idle_devices(settings: &Settings, runtime: &Runtime) -> Result<Run, Error> {
    idle(settings, runtime, &async |node: &Node, index| {
        Device::connect(node.http, Encoding::Json, &format!("idle-{index}"), None).await
    })
}

fn idle_publishers(settings: &Settings, runtime: &Runtime) -> Result<Run, Error> {
    idle(settings, runtime, &async |node: &Node, index| {
        Publisher::connect(node.mqtt()?, &format!("idle-{index}")).await
    })
}

fn reads(settings: &Settings, runtime: &Runtime) -> Result<Run, Error> {
    let node = Node::start(&settings.sensorium, &settings.dir)?;
    let frames_a_second = settings.rate as f64 / settings.frame as f64 / settings.connections as f64;
    let every = Duration::from_secs_f64(1.0 / frames_a_second);
    let pace = Pace {
        window: settings.window,
        every,
        lasting: Duration::from_secs(settings.seconds),
        frames: u64::MAX,
    };
    let ended = OnceLock::<()>::new();
    let meter = Meter::start(&node)?;
    let (sent, micros) = std::thread::scope(|scope| {
        let (ended, address) = (&ended, node.http);
        let reading = scope.spawn(move || {
            let mut client = Client::connect(address)?;
            let mut micros = Vec::new();
            let mut unanswered = "nothing was asked".to_owned();
            for sensor in (0..settings.connections).cycle() {
                if ended.get().is_some() {
                    break;
                }
                std::thread::sleep(READ_EVERY);
                let path = format!("/api/v1/sensors/load-{sensor}/ecg/samples?limit=100");
                let began = Instant::now();
                match client.get(&path) {
                    Ok(body) if body.len() > 1000 => micros.push(began.elapsed().as_micros() as u64),
                    // At first there are no series, or they do not hold 100 samples.
                    Ok(body) if micros.is_empty() => unanswered = format!("{path}: {} bytes", body.len()),
                    Err(error) if micros.is_empty() => unanswered = error.to_string(),
                    Ok(_) => return Err(format!("{path}: fewer than 100 samples").into()),
                    Err(error) => return Err(error),
                }
            }
            if micros.is_empty() { Err(Error::from(unanswered)) } else { Ok(micros) }
        });
        let sent = runtime.block_on(drive(&node, settings, Encoding::Cbor, pace));
        ended.get_or_init(|| ());
        (sent, reading.join())
    });
    let (sent, micros) = (sent?, micros.map_err(|_| "the reader panicked")??);
    let count = (sent.iter().map(|sent| sent.at.len()).sum::<usize>() * settings.frame) as u64;
    let mut figures = meter.stop("samples/s written meanwhile", "node CPU, µs a sample", count)?;
    figures.push(("answers", micros.len() as f64));
    latencies(&mut figures, ["answer p50, ms", "answer p99, ms", "answer max, ms"], micros);
    check_stored(&node, count)?;
    Ok(figures)
}
