//! A node that lost its disk: how long until it has everything again.

use std::time::{Duration, Instant};

use store::SampleTime;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::contender::{Contender, NODES, Start};
use super::jetstream::{self, JetStream};
use super::nats::{Event, Nats};
use super::ours::{self, KEEP, Ours};
use super::settings::Settings;
use super::table::Figure;
use crate::load::Error;
use crate::load::device::{Device, Pace};
use crate::load::frames::{Encoding, Frames};
use crate::samples;

/// Samples of a message while the cluster is filled.
const FRAME: u64 = 100;
/// Messages on their way meanwhile.
const WINDOW: u64 = 64;
/// Longest that a node may take.
const WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Devices that fill it at the same time.
const AT_ONCE: usize = 12;
/// A cluster rests for so long before the node comes.
const REST: Duration = Duration::from_secs(2);

fn figures(took: Duration, fill: Duration, samples: u64) -> Vec<Figure> {
    vec![
        Figure::one("an empty node takes over all samples", "s", took.as_secs_f64()).wanted("≤ 15 for 10 M"),
        Figure::one("samples that it took over", "", samples as f64),
        Figure::one("filling the cluster before", "s", fill.as_secs_f64()),
    ]
}

/// Fills three nodes, wipes one, and starts it.
pub fn ours(settings: &Settings, runtime: &Runtime) -> Result<(Vec<Figure>, String), Error> {
    let mut cluster = Ours::start(settings)?;
    let (series, began) = (settings.catchup.div_ceil(KEEP), Instant::now());
    let addresses = cluster.http;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for at in 0..series as usize {
            if tasks.len() >= AT_ONCE {
                tasks.join_next().await.ok_or("no task")???;
            }
            tasks.spawn(async move {
                let hello = Some(("value", ours::attribute()));
                let node = addresses[at % NODES];
                let mut device = Device::connect(node, Encoding::Cbor, &ours::sensor(at), hello).await?;
                let frames = Frames::new(Encoding::Cbor, "value", FRAME as usize, 1000);
                let (every, lasting) = (Duration::ZERO, WITHIN);
                let pace = Pace { window: WINDOW as usize, every, lasting, frames: KEEP / FRAME };
                device.send(&frames, SampleTime(samples::START), pace).await.map(drop)
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok::<_, Error>(())
    })?;
    let fill = began.elapsed();
    std::thread::sleep(REST);
    let victim = NODES - 1;
    cluster.members()[victim].wipe()?;
    let began = Instant::now();
    cluster.members()[victim].start()?;
    cluster.ready()?;
    let took = began.elapsed();
    let held = cluster.metric(victim, "samples")? as u64;
    if held != series * KEEP {
        return Err(format!("it is ready, and has {held} of {} samples", series * KEEP).into());
    }
    Ok((figures(took, fill, held), cluster.configuration()))
}

/// The same with the stream: as many samples in messages of 100, and a follower is wiped.
pub fn jetstream(
    settings: &Settings,
    runtime: &Runtime,
    start: Start<JetStream>,
) -> Result<(Vec<Figure>, String), Error> {
    let mut cluster = start(settings)?;
    let (messages, began) = (settings.catchup / FRAME, Instant::now());
    let address = cluster.addresses()[cluster.victim(0)?];
    runtime.block_on(fill(address, messages))?;
    let filled = began.elapsed();
    std::thread::sleep(REST);
    let leader = cluster.victim(0)?;
    let victim = (leader + 1) % NODES;
    let wanted = cluster.state(leader)?;
    cluster.members()[victim].wipe()?;
    let began = Instant::now();
    cluster.members()[victim].start()?;
    while cluster.state(victim).map_or(true, |state| state != wanted) {
        if began.elapsed() > WITHIN {
            let reason =
                cluster.state(victim).map_or_else(|error| error.to_string(), |state| format!("{state:?}"));
            return Err(format!("after {} s it has {reason} of {wanted:?}", WITHIN.as_secs()).into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok((figures(began.elapsed(), filled, wanted.messages * FRAME), cluster.configuration()))
}

async fn fill(address: std::net::SocketAddr, messages: u64) -> Result<(), Error> {
    let mut nats = Nats::connect(address, "fill").await?;
    let block = jetstream::block(FRAME as usize);
    let (mut published, mut kept) = (0, 0);
    while kept < messages {
        while published < messages && published - kept < WINDOW * AT_ONCE as u64 {
            let message = jetstream::payload(0, published, &block);
            // Subjects of a thousand messages, each as far as the stream keeps it.
            let subject = jetstream::subject((published / KEEP) as usize, published);
            nats.publish(&subject, &nats.reply(published), &message);
            published += 1;
        }
        nats.flush().await?;
        let each = |event: Event<'_>| {
            kept += u64::from(matches!(event, Event::Message { payload, .. } if jetstream::is_kept(payload)));
        };
        tokio::time::timeout(WITHIN, nats.receive(each)).await.map_err(|_| "the server is silent")??;
    }
    Ok(())
}
