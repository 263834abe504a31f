//! A node dies, or hangs, under its devices and viewers: how long nothing is acknowledged and nothing is seen, and whether
//! every acknowledged message is on every copy afterwards.
//!
//! Two publishers send a message every [`EVERY`]: number 0 by the node that will fail, number 1 by another one.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::contender::{Contender, NODES, View};
use super::ours::KEEP;
use super::publisher::{self, Published, SILENT_FOR, publish};
use super::settings::Settings;
use super::table::Figure;
use super::viewer::{self, Seen, Viewed, view};
use crate::load::Error;

const PUBLISHERS: usize = 2;
/// From a message of a publisher to its next: the error of a gap.
const EVERY: Duration = Duration::from_millis(5);
/// Most messages of a publisher that are on their way.
const WINDOW: usize = 1000;
/// All is well for so long before a node fails.
const BEFORE: Duration = Duration::from_millis(1500);
/// And goes on for so long after all is well again.
const AFTER: Duration = Duration::from_secs(1);
/// That is, after so many more acknowledgements of each publisher.
const WELL_AGAIN: u64 = 100;
/// Longest outage that is waited for.
const OUTAGE_WITHIN: Duration = Duration::from_secs(60);
/// What is acknowledged so shortly before the end may not have been shown yet.
const SHOWN_AFTER: Duration = Duration::from_millis(500);
/// Longest that viewers are waited for when all is acknowledged again.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long a stopped node is stopped.
const HANG: Duration = Duration::from_secs(10);
/// How long clusters have at the end to bring their copies together.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// So many of the newest acknowledged messages are looked for in every copy; older ones may have left the rings.
const CHECKED: usize = KEEP as usize * 9 / 10;

/// Publishers and viewers at work.
struct Crowd {
    publishing: Vec<JoinHandle<Published>>,
    /// By the way in which they watch.
    viewing: Vec<JoinHandle<Viewed>>,
    /// What was acknowledged of each publisher.
    kept: Vec<Arc<AtomicU64>>,
    /// What each viewer saw of each.
    shown: Vec<Arc<AtomicU64>>,
    stop: watch::Sender<bool>,
}

/// What they did.
struct Outcome {
    published: Vec<Published>,
    viewed: Vec<Viewed>,
    /// When they were told to end.
    ended: Instant,
}

impl Outcome {
    /// What was sent around and after the failure, and acknowledged long enough before the viewers ended, ascending.
    fn kept_in_time(&self, publisher: usize, failed: Instant) -> Vec<u64> {
        let kept = self.published[publisher].kept.iter();
        let kept = kept.filter(|kept| kept.sent + SHOWN_AFTER > failed && kept.at + SHOWN_AFTER < self.ended);
        let mut numbers: Vec<u64> = kept.map(|kept| kept.number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Says who left which node, how long after it had failed, and why.
    fn tell(&self, what: &str, failed: Instant) -> Result<(), Error> {
        let publishers = self.published.iter().map(|done| ("device", &done.moves)).enumerate();
        let viewers = self.viewed.iter().map(|done| ("viewer", &done.moves)).enumerate();
        for (number, (who, moves)) in publishers.chain(viewers) {
            for (at, why) in moves {
                let after = at.saturating_duration_since(failed).as_millis();
                writeln!(std::io::stderr(), "  {what}, {after} ms after: {who} {number} left {why}")?;
            }
        }
        Ok(())
    }
}

/// The addresses from number `first` on, and round.
fn from(addresses: [SocketAddr; NODES], first: usize) -> Vec<SocketAddr> {
    (0..NODES).map(|at| addresses[(first + at) % NODES]).collect()
}

impl Crowd {
    /// Sets them to work: publisher 0 at `failing`, the other one at the node after it, viewers at `watched`. Returns
    /// when all has been well for a while.
    fn start<C: Contender>(
        runtime: &Runtime,
        addresses: [SocketAddr; NODES],
        failing: usize,
        watched: usize,
        next: [u64; PUBLISHERS],
    ) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let mut viewing = Vec::new();
        let (mut opened, mut shown) = (Vec::new(), Vec::new());
        for way in 0..C::View::WAYS.len() {
            let counts = viewer::counters(PUBLISHERS);
            shown.extend(counts.iter().cloned());
            let job = viewer::Job { way, order: from(addresses, watched), samples: 1, progress: counts };
            let (open, is_open) = watch::channel(false);
            opened.push(is_open);
            viewing.push(runtime.spawn(view::<C::View>(job, open, stopped.clone())));
        }
        for mut is_open in opened {
            let open = runtime.block_on(async {
                tokio::time::timeout(OUTAGE_WITHIN, is_open.wait_for(|open| *open))
                    .await
                    .map(|open| open.is_ok())
            });
            open.ok().filter(|open| *open).ok_or("a viewer cannot connect")?;
        }
        let kept = viewer::counters(PUBLISHERS);
        let publishing = (0..PUBLISHERS).map(|publisher| {
            let job = publisher::Job {
                publisher,
                order: from(addresses, failing + publisher),
                first: next[publisher],
                every: EVERY,
                window: WINDOW,
                samples: 1,
                patience: SILENT_FOR,
                progress: kept[publisher].clone(),
            };
            runtime.spawn(publish::<C::Line>(job, stopped.clone()))
        });
        let crowd = Self { publishing: publishing.collect(), viewing, kept, shown, stop };
        crowd.well(WELL_AGAIN)?;
        std::thread::sleep(BEFORE);
        Ok(crowd)
    }

    /// Waits until each publisher has had so many more acknowledgements, and each viewer has seen as many of each; the
    /// viewers are not waited for forever.
    fn well(&self, more: u64) -> Result<(), Error> {
        let began = Instant::now();
        if !more_of(&self.kept, &self.shown, more, OUTAGE_WITHIN) {
            let seconds = began.elapsed().as_secs();
            let counts =
                |of: &[Arc<AtomicU64>]| of.iter().map(|of| of.load(Ordering::Relaxed)).collect::<Vec<_>>();
            return Err(
                format!("nothing is acknowledged for {seconds} s, after {:?}", counts(&self.kept)).into()
            );
        }
        Ok(())
    }

    /// Lets them end.
    fn stop(self, runtime: &Runtime) -> Result<Outcome, Error> {
        let ended = Instant::now();
        self.stop.send_replace(true);
        runtime.block_on(async {
            let (mut published, mut viewed) = (Vec::new(), Vec::new());
            for task in self.publishing {
                published.push(task.await?);
            }
            for task in self.viewing {
                viewed.push(task.await?);
            }
            Ok(Outcome { published, viewed, ended })
        })
    }
}

/// Waits until each of `kept` has grown by `more`, else is false after a while; and, for no longer than
/// [`SHOWN_WITHIN`] after that, until each of `shown` has.
fn more_of(kept: &[Arc<AtomicU64>], shown: &[Arc<AtomicU64>], more: u64, within: Duration) -> bool {
    let count = |of: &[Arc<AtomicU64>]| of.iter().map(|of| of.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let grown = |of: &[Arc<AtomicU64>], before: &[u64]| {
        count(of).iter().zip(before).all(|(now, before)| now - before >= more)
    };
    let before = (count(kept), count(shown));
    let wait = |of: &[Arc<AtomicU64>], before: &[u64], within: Duration| {
        let began = Instant::now();
        while !grown(of, before) && began.elapsed() < within {
            std::thread::sleep(LOOK_EVERY);
        }
        grown(of, before)
    };
    let all_kept = wait(kept, &before.0, within);
    if all_kept {
        wait(shown, &before.1, SHOWN_WITHIN);
    }
    all_kept
}

/// The longest time from one of these to the next, of those that end after `since`, in milliseconds.
fn longest_gap(times: impl Iterator<Item = Instant>, since: Instant) -> Result<f64, Error> {
    let mut times: Vec<Instant> = times.collect();
    times.sort_unstable();
    let gaps = times.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().ok_or("nothing came after the node had failed")?;
    Ok(longest.as_secs_f64() * 1000.0)
}

/// The longest that a viewer saw nothing of a publisher; until the end, where nothing came any more.
fn silence(done: &Outcome, way: usize, publisher: usize, since: Instant) -> Result<f64, Error> {
    let of_it = |seen: &&Seen| seen.publisher == publisher;
    let seen = done.viewed[way].seen.iter().filter(of_it).map(|seen| seen.at);
    longest_gap(seen.chain([done.ended]), since)
}

/// All that was acknowledged so far, by publisher.
#[derive(Default)]
struct Ledger {
    acknowledged: [Vec<u64>; PUBLISHERS],
    next: [u64; PUBLISHERS],
}

impl Ledger {
    fn add(&mut self, published: &[Published]) {
        for (publisher, done) in published.iter().enumerate() {
            self.acknowledged[publisher].extend(done.numbers());
            self.next[publisher] = done.next;
        }
    }

    /// Looks for the newest in every copy.
    fn check<C: Contender>(&mut self, cluster: &mut C, after: &'static str) -> Result<Vec<Figure>, Error> {
        std::thread::sleep(SETTLE);
        let mut wanted = Vec::new();
        for acknowledged in &mut self.acknowledged {
            acknowledged.sort_unstable();
            wanted.push(&acknowledged[acknowledged.len().saturating_sub(CHECKED)..]);
        }
        let (mut copies, mut unread) = (Vec::new(), 0);
        for copy in cluster.copies(PUBLISHERS) {
            match copy {
                Ok(copy) => copies.push(copy),
                Err(error) => {
                    unread += 1;
                    writeln!(std::io::stderr(), "  {after}: {error}")?;
                }
            }
        }
        let lost = |copy: &super::contender::Held| {
            (0..PUBLISHERS).map(|publisher| copy.lost(publisher, wanted[publisher])).sum::<usize>() as f64
        };
        let total = wanted.iter().map(|wanted| wanted.len()).sum::<usize>() as f64;
        Ok(vec![
            Figure::one(format!("{after}: acknowledged messages looked for"), "", total),
            Figure::one(format!("{after}: copies that could not be read"), "", f64::from(unread)).wanted("0"),
            Figure::events(
                format!("{after}: of them not on a copy (each copy)"),
                "",
                copies.iter().map(lost).collect(),
            )
            .wanted("0"),
            Figure::events(
                format!("{after}: stored twice (each copy)"),
                "",
                copies.iter().map(|copy| copy.doubled() as f64).collect(),
            )
            .wanted("0"),
        ])
    }
}

/// Values of one thing, round by round.
#[derive(Default)]
struct Series(Vec<(String, &'static str, Option<&'static str>, Vec<f64>)>);

impl Series {
    fn add(&mut self, what: String, unit: &'static str, wanted: Option<&'static str>, value: f64) {
        match self.0.iter_mut().find(|(held, ..)| *held == what) {
            Some((.., values)) => values.push(value),
            None => self.0.push((what, unit, wanted, vec![value])),
        }
    }

    fn figures(self) -> Vec<Figure> {
        let figure = |(what, unit, wanted, values)| {
            let figure = Figure::events(what, unit, values);
            if let Some(wanted) = wanted { figure.wanted(wanted) } else { figure }
        };
        self.0.into_iter().map(figure).collect()
    }
}

/// Kills nodes one after the other, each started again before the next.
pub fn kills<C: Contender>(
    cluster: &mut C,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Vec<Figure>, Error> {
    let (mut ledger, mut series) = (Ledger::default(), Series::default());
    for round in 0..settings.kills {
        let victim = cluster.victim(round)?;
        let addresses = cluster.addresses();
        let crowd = Crowd::start::<C>(runtime, addresses, victim, victim + 1, ledger.next)?;
        let at = cluster.members()[victim].kill()?;
        crowd.well(WELL_AGAIN)?;
        std::thread::sleep(AFTER);
        let done = crowd.stop(runtime)?;
        done.tell("killed", at)?;
        ledger.add(&done.published);

        let gap =
            |publisher: usize| longest_gap(done.published[publisher].kept.iter().map(|kept| kept.at), at);
        series.add(
            "killed: acks stop, device of the dead node".into(),
            "ms",
            Some("p50 ≤ 300, p99 ≤ 1000"),
            gap(0)?,
        );
        series.add("killed: acks stop, device of another node".into(), "ms", None, gap(1)?);
        for (at_way, (way, viewed)) in C::View::WAYS.iter().zip(&done.viewed).enumerate() {
            let of = |what: &str| format!("killed: viewer elsewhere ({way}) sees nothing of {what}");
            series.add(of("others' sensors"), "ms", Some("≤ 100"), silence(&done, at_way, 1, at)?);
            series.add(of("the dead node's sensors"), "ms", Some("≤ 1000"), silence(&done, at_way, 0, at)?);
            let missed =
                (0..PUBLISHERS).map(|of| viewed.missed(of, &done.kept_in_time(of, at))).sum::<usize>();
            series.add(format!("killed: kept, never shown ({way})"), "", Some("0"), missed as f64);
        }
        if let Some(copies) = done.published.iter().filter_map(|done| done.fewest_copies).min() {
            series.add("killed: fewest copies acknowledged".into(), "", None, copies.into());
        }
        let began = Instant::now();
        cluster.members()[victim].start()?;
        cluster.ready()?;
        series.add(
            "killed: started again, ready after".into(),
            "ms",
            None,
            began.elapsed().as_secs_f64() * 1000.0,
        );
    }
    let mut figures = series.figures();
    figures.extend(ledger.check(cluster, "after all kills")?);
    Ok(figures)
}

/// Stops nodes for [`HANG`], one after the other, and lets them go on.
pub fn hangs<C: Contender>(
    cluster: &mut C,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Vec<Figure>, Error> {
    let (mut ledger, mut series) = (Ledger::default(), Series::default());
    for round in 0..settings.hangs {
        let victim = cluster.victim(round)?;
        let crowd = Crowd::start::<C>(runtime, cluster.addresses(), victim, victim, ledger.next)?;
        let at = Instant::now();
        cluster.members()[victim].signal(Signal::STOP)?;
        std::thread::sleep(HANG);
        cluster.members()[victim].signal(Signal::CONT)?;
        crowd.well(WELL_AGAIN)?;
        std::thread::sleep(AFTER);
        let done = crowd.stop(runtime)?;
        done.tell("hung", at)?;
        ledger.add(&done.published);

        let gap =
            |publisher: usize| longest_gap(done.published[publisher].kept.iter().map(|kept| kept.at), at);
        series.add(
            "hung 10 s: its device is acknowledged elsewhere after".into(),
            "ms",
            Some("≤ 3000"),
            gap(0)?,
        );
        series.add("hung 10 s: acks stop, device of another node".into(), "ms", None, gap(1)?);
        for (at_way, way) in C::View::WAYS.iter().enumerate() {
            let of = format!("hung 10 s: its viewer ({way}) sees elsewhere after");
            series.add(of, "ms", Some("≤ 3000"), silence(&done, at_way, 1, at)?);
        }
        cluster.ready()?;
    }
    let mut figures = series.figures();
    figures.extend(ledger.check(cluster, "after all hangs")?);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_the_one_that_the_failure_made() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let times = [0, 900, 905, 910, 1210, 1215].map(at);
        let gap = longest_gap(times.into_iter().rev(), at(912)).unwrap();
        assert!((gap - 300.0).abs() < 1e-6, "{gap}");
        assert!(longest_gap(times.into_iter(), at(2000)).is_err());
    }
}
