//! A publisher that does what a good device does: it keeps what is not acknowledged, and when its connection ends or is
//! silent, moves to the next node and sends that again. The same for every contender.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::contender::Line;
use crate::load::Error;

/// The patience of a publisher that can go elsewhere. One that cannot has more, and does not send again either.
pub const SILENT_FOR: Duration = Duration::from_secs(1);
/// The patience of a publisher that has one node only.
pub const PATIENT: Duration = Duration::from_secs(30);
/// How long it may take to connect: a stopped process accepts, and says nothing.
pub const OPEN_WITHIN: Duration = Duration::from_millis(500);
/// The rest after every node was tried in vain.
pub const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);
/// How long what is owed is waited for at the end.
const GRACE: Duration = Duration::from_secs(20);
/// How often is looked at what should be sent again.
const RESEND_TICK: Duration = Duration::from_millis(50);

/// What to publish, and where.
#[derive(Debug, Clone)]
pub struct Job {
    /// Who publishes.
    pub publisher: usize,
    /// The nodes, the one to begin with first.
    pub order: Vec<SocketAddr>,
    /// Number of the first message.
    pub first: u64,
    /// Time from a message to the next.
    pub every: Duration,
    /// Most messages that are not acknowledged.
    pub window: usize,
    /// Samples of a message.
    pub samples: usize,
    /// How long a node may owe an acknowledgement and say nothing, until it is left.
    pub patience: Duration,
    /// Counts acknowledgements, for whoever wants to know how it goes on.
    pub progress: Arc<AtomicU64>,
}

/// A message that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// When it was sent first.
    pub sent: Instant,
    /// When the acknowledgement came.
    pub at: Instant,
}

/// What a publisher did.
#[derive(Debug, Default)]
pub struct Published {
    /// What was acknowledged, in the order of the acknowledgements.
    pub kept: Vec<Kept>,
    /// Number of the next message.
    pub next: u64,
    /// Why it left a node, and when.
    pub moves: Vec<(Instant, String)>,
    /// The fewest copies that an acknowledgement spoke of.
    pub fewest_copies: Option<u8>,
}

impl Published {
    /// The numbers that were acknowledged, ascending.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.kept.iter().map(|kept| kept.number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Microseconds from sending to acknowledgement, of what was sent between two times.
    pub fn latencies(&self, from: Instant, to: Instant) -> Vec<u64> {
        let between = self.kept.iter().filter(|kept| from <= kept.sent && kept.sent < to);
        between.map(|kept| (kept.at - kept.sent).as_micros() as u64).collect()
    }
}

/// What is on its way: when it was sent first, and last.
type Owed = BTreeMap<u64, (Instant, Instant)>;

/// Publishes until `stop` says so and all is acknowledged, or nothing comes any more.
pub async fn publish<L: Line>(job: Job, mut stop: watch::Receiver<bool>) -> Published {
    let began = Instant::now();
    let mut done = Published { next: job.first, ..Published::default() };
    let mut owed = Owed::new();
    let mut ended = None;
    for (tried, address) in job.order.iter().copied().cycle().enumerate() {
        if tried > 0 && tried % job.order.len() == 0 {
            sleep(BETWEEN_ROUNDS).await;
        }
        let over = |ended: &mut Option<Instant>| {
            *stop.borrow() && ended.get_or_insert_with(Instant::now).elapsed() > GRACE
        };
        if over(&mut ended) {
            break;
        }
        let opened = timeout(OPEN_WITHIN, L::open(address, job.publisher, job.samples)).await;
        let mut line = match opened {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                done.moves.push((Instant::now(), format!("{address}: {error}")));
                continue;
            }
            Err(_) => {
                done.moves.push((Instant::now(), format!("{address}: silent while connecting")));
                continue;
            }
        };
        match follow(&job, began, &mut line, &mut owed, &mut done, &mut stop).await {
            Ok(()) => break,
            Err(reason) => done.moves.push((Instant::now(), format!("{address}: {reason}"))),
        }
    }
    done
}

/// Publishes on one connection, until all is over, or the connection is of no use any more.
async fn follow<L: Line>(
    job: &Job,
    began: Instant,
    line: &mut L,
    owed: &mut Owed,
    done: &mut Published,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Error> {
    for (number, (_, last)) in owed.iter_mut() {
        line.put(*number).await?;
        *last = Instant::now();
    }
    // Since when the node owes something and has said nothing.
    let mut silent_since = Instant::now();
    let mut ended = None;
    loop {
        let over = *stop.borrow();
        let give_up = over.then(|| *ended.get_or_insert_with(Instant::now) + GRACE);
        if over && (owed.is_empty() || give_up.is_some_and(|at| at <= Instant::now())) {
            return Ok(());
        }
        let due = |number: u64| began + job.every.mul_f64((number - job.first) as f64);
        while !over && owed.len() < job.window && due(done.next) <= Instant::now() {
            line.put(done.next).await?;
            let now = Instant::now();
            if owed.is_empty() {
                silent_since = now;
            }
            owed.insert(done.next, (now, now));
            done.next += 1;
        }
        let resend = L::RESEND.filter(|_| job.order.len() > 1);
        if let Some(after) = resend {
            for (number, (_, last)) in owed.iter_mut().filter(|(_, (_, last))| last.elapsed() > after) {
                line.put(*number).await?;
                *last = Instant::now();
            }
        }
        timeout(job.patience, line.flush()).await.map_err(|_| "it does not read")??;

        let mut wake = Instant::now() + job.patience;
        if !over && owed.len() < job.window {
            wake = wake.min(due(done.next));
        }
        if !owed.is_empty() {
            wake = wake.min(silent_since + job.patience);
            if resend.is_some() {
                wake = wake.min(Instant::now() + RESEND_TICK);
            }
        }
        // `kept` is cancel-safe, and so are the others: nothing of an acknowledgement is lost when another is ready.
        tokio::select! {
            kept = line.kept() => {
                let at = Instant::now();
                for number in kept? {
                    if let Some((sent, _)) = owed.remove(&number) {
                        done.kept.push(Kept { number, sent, at });
                        silent_since = at;
                        job.progress.fetch_add(1, Ordering::Relaxed);
                    }
                }
                done.fewest_copies = done.fewest_copies.into_iter().chain(line.fewest_copies()).min();
            }
            () = sleep_until(wake.into()) => {}
            _ = stop.changed(), if !over => {}
        }
        if !owed.is_empty() && silent_since.elapsed() >= job.patience {
            return Err("it owes acknowledgements, and is silent".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Eight bytes a message, echoed to acknowledge it.
    struct Echo(TcpStream, Vec<u8>);

    impl Line for Echo {
        const RESEND: Option<Duration> = None;

        async fn open(address: SocketAddr, _: usize, _: usize) -> Result<Self, Error> {
            Ok(Self(TcpStream::connect(address).await?, Vec::new()))
        }

        async fn put(&mut self, number: u64) -> Result<(), Error> {
            Ok(self.0.write_all(&number.to_be_bytes()).await?)
        }

        async fn flush(&mut self) -> Result<(), Error> {
            Ok(())
        }

        async fn kept(&mut self) -> Result<Vec<u64>, Error> {
            if self.0.read_buf(&mut self.1).await? == 0 {
                return Err("closed".into());
            }
            let whole = self.1.len() / 8 * 8;
            let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("chunks of eight"));
            Ok(self.1.drain(..whole).collect::<Vec<u8>>().chunks(8).map(word).collect())
        }

        fn fewest_copies(&self) -> Option<u8> {
            Some(2)
        }
    }

    /// Answers so many messages on a connection, then does what `then` says with it.
    async fn node(listener: TcpListener, answers: usize, silent: bool) -> Vec<u64> {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut taken = Vec::new();
        while let Ok(number) = socket.read_u64().await {
            if taken.len() < answers {
                taken.push(number);
                socket.write_u64(number).await.unwrap();
            } else if !silent {
                return taken;
            }
        }
        taken
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn what_a_dead_or_silent_node_did_not_acknowledge_goes_to_the_next() {
        let ((dying, first), (hung, second), (good, third)) =
            (listener().await, listener().await, listener().await);
        let nodes = (tokio::spawn(node(dying, 3, false)), tokio::spawn(node(hung, 4, true)));
        let last = tokio::spawn(node(good, usize::MAX, true));
        let order = vec![first, second, third];
        let every = Duration::from_millis(2);
        let job = Job {
            publisher: 0,
            order,
            first: 100,
            every,
            window: 8,
            samples: 1,
            patience: SILENT_FOR,
            progress: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let publishing = tokio::spawn(publish::<Echo>(job, stopped));
        let (of_first, of_second) = (nodes.0.await.unwrap(), nodes.1.await.unwrap());
        stop.send(true).unwrap();
        let done = publishing.await.unwrap();
        let of_last = last.await.unwrap();

        let expected: Vec<u64> = (100..done.next).collect();
        assert_eq!(done.numbers(), expected, "each was acknowledged once");
        let mut taken = [of_first.clone(), of_second.clone(), of_last].concat();
        taken.sort_unstable();
        assert_eq!(taken, expected, "nothing that was acknowledged was sent again");
        assert_eq!((of_first.len(), of_second.len(), done.moves.len()), (3, 4, 2));
        assert!(done.moves[1].1.contains("silent"), "{:?}", done.moves);
        let gap = done.kept.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
        assert!(gap >= SILENT_FOR, "{gap:?}");
        assert_eq!(done.fewest_copies, Some(2));
    }
}
