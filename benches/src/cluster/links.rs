//! What a sample costs on the link between two nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::contender::{Contender, NODES};
use super::member::Member;
use super::publisher::{self, PATIENT, publish};
use super::settings::Settings;
use super::sockets;
use super::table::Figure;
use crate::load::Error;

/// Publishers, samples of a message, and time from a message to the next: 50 000 samples a second.
const PUBLISHERS: (usize, usize, Duration) = (5, 100, Duration::from_millis(10));
const WINDOW: usize = 500;
/// For what is still on its way to the other nodes when the devices have ended.
const AFTER: Duration = Duration::from_secs(1);

/// Bytes on one link, both directions, for each sample.
pub fn bytes<C: Contender>(
    cluster: &mut C,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Vec<Figure>, Error> {
    let (count, samples, every) = PUBLISHERS;
    let taking = cluster.victim(0)?;
    let address = cluster.addresses()[taking];
    let ids: Vec<u32> = cluster.members().iter().map(Member::id).collect::<Result<_, _>>()?;
    let others: Vec<u32> = (0..NODES).filter(|at| *at != taking).map(|at| ids[at]).collect();
    // Over both links of the node, to be divided by two.
    let carried = || -> Result<(u64, u64), Error> {
        let (mut there, mut back) = (0, 0);
        for other in &others {
            there += sockets::sent(ids[taking], *other)?;
            back += sockets::sent(*other, ids[taking])?;
        }
        Ok((there, back))
    };
    let (mut both, mut there_only, mut rate, mut first) =
        (Vec::new(), Vec::new(), Vec::new(), vec![0; count]);
    for _ in 0..settings.runs {
        let before = carried()?;
        let began = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let job = |publisher: usize| publisher::Job {
            publisher,
            order: vec![address],
            first: first[publisher],
            every,
            window: WINDOW,
            samples,
            patience: PATIENT,
            progress: Arc::default(),
        };
        let tasks: Vec<_> = (0..count)
            .map(|publisher| runtime.spawn(publish::<C::Line>(job(publisher), stopped.clone())))
            .collect();
        std::thread::sleep(Duration::from_secs(settings.seconds));
        stop.send_replace(true);
        let mut messages = 0;
        for (publisher, task) in tasks.into_iter().enumerate() {
            let done = runtime.block_on(task)?;
            if let Some((_, reason)) = done.moves.first() {
                return Err(format!("a publisher lost its node: {reason}").into());
            }
            messages += done.next - first[publisher];
            first[publisher] = done.next;
        }
        let seconds = began.elapsed().as_secs_f64();
        std::thread::sleep(AFTER);
        let after = carried()?;
        let samples = (messages * samples as u64) as f64;
        let links = others.len() as f64;
        there_only.push((after.0 - before.0) as f64 / links / samples);
        both.push((after.0 + after.1 - before.0 - before.1) as f64 / links / samples);
        rate.push(samples / seconds);
    }
    Ok(vec![
        Figure::runs("bytes on a link for a sample, there and back", "", both).wanted("≤ 12"),
        Figure::runs("bytes on a link for a sample, there alone", "", there_only),
        Figure::runs("samples/s meanwhile", "", rate),
    ])
}
