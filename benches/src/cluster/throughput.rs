//! What is acknowledged when devices send as fast as they may, and what it costs all nodes together.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::contender::{Contender, NODES, Start};
use super::jetstream::{self, JetStream};
use super::nats::{Event, Nats};
use super::ours::{self, Ours};
use super::settings::Settings;
use super::table::Figure;
use crate::load::Error;
use crate::load::device::{Device, Pace};
use crate::load::frames::{Encoding, Frames};
use crate::load::mqtt::{PAYLOAD_BYTES, Publisher};
use crate::process::Process;
use crate::samples;
use store::SampleTime;

/// Samples of a frame.
const FRAME: usize = 100;
/// How long a server may be silent while it owes something.
const SILENT_FOR: Duration = Duration::from_secs(20);

/// Counts what all nodes and the generator use.
struct Meter {
    began: Instant,
    nodes: f64,
    own: f64,
}

/// What one run showed.
struct Rate {
    a_second: f64,
    micros_each: f64,
    nodes: f64,
    own: f64,
}

impl Meter {
    fn start<C: Contender>(cluster: &mut C) -> Result<Self, Error> {
        Ok(Self { began: Instant::now(), nodes: cluster.cpu()?, own: Process::this().cpu()? })
    }

    fn stop<C: Contender>(self, cluster: &mut C, count: u64) -> Result<Rate, Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        let (nodes, own) = (cluster.cpu()? - self.nodes, Process::this().cpu()? - self.own);
        let count = count as f64;
        Ok(Rate {
            a_second: count / seconds,
            micros_each: nodes / count * 1e6,
            nodes: nodes / seconds,
            own: own / seconds,
        })
    }
}

/// The figures of one way to send; `per` is how many of what is wanted a message counts for.
fn figures(
    way: &str,
    thing: &str,
    wanted: [Option<&'static str>; 2],
    per: usize,
    rates: &[Rate],
) -> Vec<Figure> {
    let per = per as f64;
    let of = |value: &dyn Fn(&Rate) -> f64| rates.iter().map(value).collect();
    let mut figures = vec![
        Figure::runs(format!("{way}: {thing}/s acknowledged"), "", of(&|rate| rate.a_second * per)),
        Figure::runs(
            format!("{way}: µs of CPU over all nodes a {}", &thing[..thing.len() - 1]),
            "",
            of(&|rate| rate.micros_each / per),
        ),
        Figure::runs(format!("{way}: cores used by all nodes"), "", of(&|rate| rate.nodes)),
        Figure::runs(format!("{way}: cores used by the generator"), "", of(&|rate| rate.own)),
    ];
    for (figure, wanted) in figures.iter_mut().zip(wanted) {
        figure.wanted = wanted;
    }
    figures
}

fn fast(settings: &Settings) -> Pace {
    let lasting = Duration::from_secs(settings.seconds);
    Pace { window: settings.window, every: Duration::ZERO, lasting, frames: u64::MAX }
}

/// WebSocket frames of 100 samples, and MQTT QoS 1 messages of one.
pub fn ours(settings: &Settings, runtime: &Runtime) -> Result<(Vec<Figure>, String), Error> {
    let (mut frames, mut messages, mut copies, mut configuration) = (vec![], vec![], vec![], String::new());
    for _ in 0..settings.runs {
        let mut cluster = Ours::start(settings)?;
        configuration = cluster.configuration();
        let addresses = cluster.http;
        let devices = runtime.block_on(async {
            let mut devices = Vec::new();
            for at in 0..settings.connections {
                let hello = Some(("value", ours::attribute()));
                let node = addresses[at % NODES];
                devices.push(Device::connect(node, Encoding::Cbor, &ours::sensor(at), hello).await?);
            }
            Ok::<_, Error>(devices)
        })?;
        let meter = Meter::start(&mut cluster)?;
        let pace = fast(settings);
        let sent = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for mut device in devices {
                let frames = Frames::new(Encoding::Cbor, "value", FRAME, 1000);
                tasks.spawn(async move { device.send(&frames, SampleTime(samples::START), pace).await });
            }
            tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        let count = sent.iter().map(|sent| sent.at.len() as u64).sum();
        frames.push(meter.stop(&mut cluster, count)?);
        copies.extend(sent.iter().filter_map(|sent| sent.fewest_copies).map(f64::from));
        check(&cluster, count * FRAME as u64)?;
        drop(cluster);

        let mut cluster = Ours::start(settings)?;
        let addresses = cluster.mqtt;
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for at in 0..settings.clients {
                clients.push(Publisher::connect(addresses[at % NODES], &ours::sensor(at)).await?);
            }
            Ok::<_, Error>(clients)
        })?;
        let meter = Meter::start(&mut cluster)?;
        let (window, lasting) = (settings.client_window, pace.lasting);
        let count = total(
            runtime,
            clients.into_iter().map(|mut client| async move { client.at_least_once(window, lasting).await }),
        )?;
        messages.push(meter.stop(&mut cluster, count)?);
        check(&cluster, count)?;
    }
    let mut all = figures("frames of 100", "samples", [Some("≥ 700 000"), None], FRAME, &frames);
    all.push(Figure::events("frames of 100: fewest copies acknowledged", "", copies).wanted("2"));
    all.extend(figures("single messages", "messages", [Some("≥ 100 000"), Some("≤ 15")], 1, &messages));
    Ok((all, configuration))
}

/// Fails unless the nodes have taken so many samples, no more and no fewer.
fn check(cluster: &Ours, count: u64) -> Result<(), Error> {
    let mut stored = 0.0;
    for at in 0..NODES {
        stored += cluster.metric(at, r#"samples_total{fate="stored"}"#)?;
    }
    match stored as u64 {
        stored if stored == count => Ok(()),
        stored => Err(format!("{count} samples were acknowledged, but {stored} are stored").into()),
    }
}

/// Messages of 100 samples, and of one, into the stream.
pub fn jetstream(
    settings: &Settings,
    runtime: &Runtime,
    start: Start<JetStream>,
) -> Result<(Vec<Figure>, String), Error> {
    let (mut frames, mut messages, mut configuration) = (vec![], vec![], String::new());
    for _ in 0..settings.runs {
        for (samples, rates) in [(FRAME, &mut frames), (1, &mut messages)] {
            let mut cluster = start(settings)?;
            configuration = cluster.configuration();
            let addresses = cluster.addresses();
            let (clients, window) = if samples == 1 {
                (settings.clients, settings.client_window)
            } else {
                (settings.connections, settings.window)
            };
            let clients = runtime.block_on(async {
                let mut connected = Vec::new();
                for at in 0..clients {
                    connected.push(Nats::connect(addresses[at % NODES], &format!("load-{at}")).await?);
                }
                Ok::<_, Error>(connected)
            })?;
            let meter = Meter::start(&mut cluster)?;
            let lasting = Duration::from_secs(settings.seconds);
            let count = total(
                runtime,
                clients
                    .into_iter()
                    .enumerate()
                    .map(|(at, client)| pump(client, at, samples, window, lasting)),
            )?;
            rates.push(meter.stop(&mut cluster, count)?);
            let leader = cluster.victim(0)?;
            let last = cluster.state(leader)?.last;
            if last != count {
                return Err(format!("{count} messages were acknowledged, but {last} are stored").into());
            }
        }
    }
    let mut all = figures("frames of 100", "samples", [Some("≥ 700 000"), None], FRAME, &frames);
    all.extend(figures("single messages", "messages", [Some("≥ 100 000"), Some("≤ 15")], 1, &messages));
    Ok((all, configuration))
}

/// Runs all at the same time, and adds up what they say.
fn total<F>(runtime: &Runtime, work: impl Iterator<Item = F>) -> Result<u64, Error>
where
    F: Future<Output = Result<u64, Error>> + Send + 'static,
{
    runtime.block_on(async {
        let tasks: JoinSet<F::Output> = work.collect();
        let done = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(done.iter().sum())
    })
}

/// Publishes for a while, up to `window` messages on their way, until all are acknowledged. Returns how many.
async fn pump(
    mut nats: Nats,
    publisher: usize,
    samples: usize,
    window: usize,
    lasting: Duration,
) -> Result<u64, Error> {
    let began = Instant::now();
    let block = jetstream::block(samples);
    let (mut published, mut waiting) = (0, 0);
    loop {
        if began.elapsed() < lasting {
            for _ in waiting..window {
                let (subject, reply) = (jetstream::subject(publisher, published), nats.reply(published));
                let mut message = jetstream::payload(publisher, published, &block);
                if samples == 1 {
                    // As long as the MQTT message of the same run.
                    message.resize(PAYLOAD_BYTES, b' ');
                }
                nats.publish(&subject, &reply, &message);
                published += 1;
            }
            waiting = window;
            nats.flush().await?;
        } else if waiting == 0 {
            return Ok(published);
        }
        let (mut kept, mut refused) = (0, None);
        let each = |event: Event<'_>| {
            if let Event::Message { payload, status, .. } = event {
                if jetstream::is_kept(payload) {
                    kept += 1;
                } else {
                    refused = Some(format!("{status:?} {}", String::from_utf8_lossy(payload)));
                }
            }
        };
        tokio::time::timeout(SILENT_FOR, nats.receive(each)).await.map_err(|_| "the server is silent")??;
        if let Some(refused) = refused {
            return Err(format!("a message was refused: {refused}").into());
        }
        waiting -= kept;
    }
}
