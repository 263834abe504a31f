//! How long an acknowledgement takes, and how long a message takes from a device on one node to a viewer on another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::contender::{Contender, NODES, View};
use super::publisher::{self, PATIENT, Published, publish};
use super::settings::Settings;
use super::table::Figure;
use super::viewer::{self, view};
use crate::figures::quantile;
use crate::load::Error;

/// Publishers, and time from a message of each to its next: 5000 messages a second.
const PUBLISHERS: (usize, Duration) = (10, Duration::from_millis(2));
/// Time and samples of a message of the device that is watched: 10 000 samples a second.
const WATCHED: (Duration, usize) = (Duration::from_millis(1), 10);
/// Most messages of a publisher that are on their way.
const WINDOW: usize = 500;
/// What is sent at first, and at the end, is not counted.
const MARGIN: Duration = Duration::from_secs(1);

fn millis(mut micros: Vec<u64>, part: f64) -> f64 {
    micros.sort_unstable();
    quantile(&micros, part) / 1000.0
}

/// Acknowledgements at 5000 messages a second, over all nodes.
pub fn acknowledgements<C: Contender>(
    cluster: &mut C,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Vec<Figure>, Error> {
    let (count, every) = PUBLISHERS;
    let lasting = Duration::from_secs(settings.seconds);
    let (mut p50, mut p99, mut cpu, mut rate) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut first = vec![0; count];
    for _ in 0..settings.runs {
        let (stop, stopped) = watch::channel(false);
        let before = cluster.cpu()?;
        let began = Instant::now();
        let job = |publisher: usize| publisher::Job {
            publisher,
            order: vec![cluster.addresses()[publisher % NODES]],
            first: first[publisher],
            every,
            window: WINDOW,
            samples: 1,
            patience: PATIENT,
            progress: Arc::default(),
        };
        let tasks: Vec<_> = (0..count)
            .map(|publisher| runtime.spawn(publish::<C::Line>(job(publisher), stopped.clone())))
            .collect();
        std::thread::sleep(lasting + MARGIN + MARGIN);
        cpu.push((cluster.cpu()? - before) / began.elapsed().as_secs_f64());
        stop.send_replace(true);
        let mut micros = Vec::new();
        for (publisher, task) in tasks.into_iter().enumerate() {
            let done: Published = runtime.block_on(task)?;
            if let Some((_, reason)) = done.moves.first() {
                return Err(format!("a publisher lost its node: {reason}").into());
            }
            first[publisher] = done.next;
            micros.extend(done.latencies(began + MARGIN, began + MARGIN + lasting));
        }
        rate.push(micros.len() as f64 / lasting.as_secs_f64());
        p50.push(millis(micros.clone(), 0.5));
        p99.push(millis(micros, 0.99));
    }
    Ok(vec![
        Figure::runs("5000 messages/s: of them taken and acknowledged", "messages/s", rate),
        Figure::runs("5000 messages/s: acknowledged, p50", "ms", p50).wanted("≤ 2"),
        Figure::runs("5000 messages/s: acknowledged, p99", "ms", p99).wanted("≤ 10"),
        Figure::runs("5000 messages/s: cores used by all nodes", "", cpu),
    ])
}

/// From a device on one node to a viewer on another, 10 000 samples a second.
pub fn live<C: Contender>(
    cluster: &mut C,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Vec<Figure>, Error> {
    let (every, samples) = WATCHED;
    let lasting = Duration::from_secs(settings.seconds);
    let addresses = cluster.addresses();
    let mut figures = Vec::new();
    let mut first = 0;
    for (way, name) in C::View::WAYS.iter().enumerate() {
        let (mut p50, mut p99, mut missed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.runs {
            let ((stop, stopped), (open, mut is_open)) = (watch::channel(false), watch::channel(false));
            let job = viewer::Job { way, order: vec![addresses[1]], samples, progress: viewer::counters(1) };
            let viewing = runtime.spawn(view::<C::View>(job, open, stopped.clone()));
            runtime.block_on(is_open.wait_for(|open| *open)).map_err(|_| "the viewer cannot connect")?;
            let (end, ended) = watch::channel(false);
            let job = publisher::Job {
                publisher: 0,
                order: vec![addresses[0]],
                first,
                every,
                window: WINDOW,
                samples,
                patience: PATIENT,
                progress: Arc::default(),
            };
            let began = Instant::now();
            let publishing = runtime.spawn(publish::<C::Line>(job, ended));
            std::thread::sleep(lasting + MARGIN);
            end.send_replace(true);
            let done = runtime.block_on(publishing)?;
            std::thread::sleep(MARGIN);
            stop.send_replace(true);
            let viewed = runtime.block_on(viewing)?;
            first = done.next;
            let sent: HashMap<u64, Instant> = done.kept.iter().map(|kept| (kept.number, kept.sent)).collect();
            let latency = |seen: &viewer::Seen| {
                let at = sent.get(&seen.number).filter(|at| **at > began + MARGIN)?;
                Some((seen.at - *at).as_micros() as u64)
            };
            let micros: Vec<u64> = viewed.seen.iter().filter_map(latency).collect();
            p50.push(millis(micros.clone(), 0.5));
            p99.push(millis(micros, 0.99));
            missed.push(viewed.missed(0, &done.numbers()) as f64);
        }
        let of = |what: &str| format!("node A to viewer on node B ({name}), 10 000 samples/s: {what}");
        figures.push(Figure::runs(of("p50"), "ms", p50));
        figures.push(Figure::runs(of("p99"), "ms", p99).wanted("≤ 3"));
        figures.push(Figure::runs(of("not shown"), "", missed).wanted("0"));
    }
    Ok(figures)
}
