//! A viewer that does what the project's page does: when its connection ends or is silent, it moves to the next node, and
//! says what it has seen. The same for every contender.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use super::contender::View;
use super::publisher::{BETWEEN_ROUNDS, OPEN_WITHIN, SILENT_FOR};
use crate::load::Error;

/// How often a sign of life is asked for, and looked for.
const NUDGE_EVERY: Duration = Duration::from_millis(250);

/// What to watch, and where.
#[derive(Debug, Clone)]
pub struct Job {
    /// In which of the ways.
    pub way: usize,
    /// The nodes, the one to begin with first.
    pub order: Vec<SocketAddr>,
    /// Samples of a message.
    pub samples: usize,
    /// Counts what was seen of each publisher, for whoever wants to know how it goes on.
    pub progress: Vec<Arc<AtomicU64>>,
}

/// As many counters.
pub fn counters(count: usize) -> Vec<Arc<AtomicU64>> {
    (0..count).map(|_| Arc::default()).collect()
}

/// A message that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Whose.
    pub publisher: usize,
    /// Which.
    pub number: u64,
    /// When.
    pub at: Instant,
}

/// What a viewer saw.
#[derive(Debug, Default)]
pub struct Viewed {
    /// Every message, as it came.
    pub seen: Vec<Seen>,
    /// Why it left a node, and when.
    pub moves: Vec<(Instant, String)>,
}

impl Viewed {
    /// How many of these (ascending, of one publisher) were never seen.
    pub fn missed(&self, publisher: usize, numbers: &[u64]) -> usize {
        let of_it = self.seen.iter().filter(|seen| seen.publisher == publisher);
        let mut seen: Vec<u64> = of_it.map(|seen| seen.number).collect();
        seen.sort_unstable();
        numbers.iter().filter(|number| seen.binary_search(number).is_err()).count()
    }
}

/// Watches until `stop` says so. Tells `opened` when it does so for the first time.
pub async fn view<V: View>(job: Job, opened: watch::Sender<bool>, mut stop: watch::Receiver<bool>) -> Viewed {
    let mut done = Viewed::default();
    let mut since = vec![None; job.progress.len()];
    for (tried, address) in job.order.iter().copied().cycle().enumerate() {
        if tried > 0 && tried % job.order.len() == 0 {
            sleep(BETWEEN_ROUNDS).await;
        }
        if *stop.borrow() {
            break;
        }
        let mut view = match timeout(OPEN_WITHIN, V::open(address, job.way, job.samples, &since)).await {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => {
                done.moves.push((Instant::now(), format!("{address}: {error}")));
                continue;
            }
            Err(_) => {
                done.moves.push((Instant::now(), format!("{address}: silent while connecting")));
                continue;
            }
        };
        opened.send_replace(true);
        match follow(&job, &mut view, &mut since, &mut done.seen, &mut stop).await {
            Ok(()) => break,
            Err(reason) => done.moves.push((Instant::now(), format!("{address}: {reason}"))),
        }
    }
    done
}

async fn follow<V: View>(
    job: &Job,
    view: &mut V,
    since: &mut [Option<u64>],
    seen: &mut Vec<Seen>,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut heard = Instant::now();
    let mut ticks = interval(NUDGE_EVERY);
    while !*stop.borrow() {
        // `next` is cancel-safe, and so are the others.
        tokio::select! {
            messages = view.next() => {
                heard = Instant::now();
                for (publisher, number) in messages? {
                    seen.push(Seen { publisher, number, at: heard });
                    if let Some(last) = since.get_mut(publisher) {
                        *last = (*last).max(Some(number));
                        job.progress[publisher].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            _ = ticks.tick() => {
                if heard.elapsed() >= SILENT_FOR {
                    return Err("it is silent".into());
                }
                timeout(SILENT_FOR, view.nudge()).await.map_err(|_| "it does not read")??;
            }
            _ = stop.changed() => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    /// Stops the viewer of the test.
    static STOP: OnceLock<watch::Sender<bool>> = OnceLock::new();

    /// Numbers that count up from where it was; the node at port 1 dies after three, the one at port 2 is silent, and
    /// the one at port 3 ends the test.
    struct Count {
        port: u16,
        next: u64,
        given: u64,
    }

    impl View for Count {
        const WAYS: &'static [&'static str] = &["count"];

        async fn open(address: SocketAddr, _: usize, _: usize, since: &[Option<u64>]) -> Result<Self, Error> {
            Ok(Self { port: address.port(), next: since[0].map_or(0, |last| last + 1), given: 0 })
        }

        async fn next(&mut self) -> Result<Vec<(usize, u64)>, Error> {
            match self.port {
                1 if self.given == 3 => Err("dead".into()),
                2 => std::future::pending().await,
                _ => {
                    tokio::task::yield_now().await;
                    if self.port == 3 && self.given == 3 {
                        STOP.get().unwrap().send_replace(true);
                    }
                    self.given += 1;
                    self.next += 1;
                    Ok(vec![(0, self.next - 1)])
                }
            }
        }

        async fn nudge(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_viewer_goes_on_elsewhere_with_what_it_has_not_seen() {
        let order = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).to_vec();
        let job = Job { way: 0, order, samples: 1, progress: counters(1) };
        let ((stop, stopped), (opened, is_open)) = (watch::channel(false), watch::channel(false));
        STOP.set(stop).unwrap();
        let done = view::<Count>(job, opened, stopped).await;
        let numbers: Vec<u64> = done.seen.iter().map(|seen| seen.number).collect();
        assert_eq!(numbers[..6], [0, 1, 2, 3, 4, 5]);
        assert!(*is_open.borrow() && done.moves.len() == 2, "{:?}", done.moves);
        assert!(done.moves[0].1.ends_with("dead") && done.moves[1].1.ends_with("silent"), "{:?}", done.moves);
        assert!(done.seen[3].at - done.seen[2].at >= SILENT_FOR);
        assert_eq!((done.missed(0, &[0, 1, 2]), done.missed(0, &[1_000_000])), (0, 1));
    }
}
