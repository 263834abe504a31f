//! What the measurements know of a cluster: its processes, a connection to publish on, a connection to watch on, and
//! what each of its copies holds.
//!
//! A message is known by its publisher and a number that counts up from 0; both travel with it, and come back out of
//! every copy.

use std::net::SocketAddr;
use std::time::Duration;

use super::member::Member;
use super::settings::Settings;
use crate::load::Error;

/// Nodes of a cluster.
pub const NODES: usize = 3;
/// Microseconds between the samples of a message, and so between messages of one sample.
pub const SPACING: i64 = 1000;

/// A cluster of [`NODES`] processes that runs.
pub trait Contender: Sized {
    /// A connection that publishes.
    type Line: Line;
    /// A connection that watches.
    type View: View;

    /// What it is called in the table.
    fn name(&self) -> &'static str;
    /// How it is set up, for the report.
    fn configuration(&self) -> String;
    /// Its processes.
    fn members(&mut self) -> &mut [Member];
    /// Where clients connect, in the order of the processes.
    fn addresses(&self) -> [SocketAddr; NODES];
    /// Waits until every process has joined and has caught up. Returns how long that took.
    fn ready(&mut self) -> Result<Duration, Error>;
    /// The process to kill in this round: the one whose death is worst.
    fn victim(&mut self, round: usize) -> Result<usize, Error>;
    /// What each copy by itself holds of the messages of the publishers from 0 on, or why it cannot be read.
    fn copies(&mut self, publishers: usize) -> Vec<Result<Held, Error>>;

    /// CPU seconds that its processes have used.
    fn cpu(&mut self) -> Result<f64, Error> {
        self.members().iter().map(|member| Ok(member.process()?.cpu()?)).sum()
    }
}

/// Starts a contender in an empty directory.
pub type Start<C> = fn(&Settings) -> Result<C, Error>;

/// The messages of a copy.
#[derive(Debug)]
pub struct Held {
    /// Whose copy.
    pub node: String,
    /// The numbers, by publisher, ascending, a doubled one twice.
    pub numbers: Vec<Vec<u64>>,
}

impl Held {
    /// How many of `acknowledged` (ascending, of one publisher) are not there.
    pub fn lost(&self, publisher: usize, acknowledged: &[u64]) -> usize {
        let held = &self.numbers[publisher];
        acknowledged.iter().filter(|number| held.binary_search(number).is_err()).count()
    }

    /// How many are there more than once.
    pub fn doubled(&self) -> usize {
        self.numbers.iter().map(|held| held.windows(2).filter(|pair| pair[0] == pair[1]).count()).sum()
    }
}

/// A connection that publishes messages and hears which of them are kept.
pub trait Line: Sized + Send + 'static {
    /// When a message that is not acknowledged is sent again on the same connection; `None`: never, the order of
    /// acknowledgements says enough.
    const RESEND: Option<Duration>;

    /// Connects as `publisher`, whose messages have `samples` samples each.
    fn open(
        address: SocketAddr,
        publisher: usize,
        samples: usize,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
    /// Writes a message into the buffer.
    fn put(&mut self, number: u64) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sends the buffer.
    fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Waits for acknowledgements: the messages that are kept now. Cancel-safe.
    fn kept(&mut self) -> impl Future<Output = Result<Vec<u64>, Error>> + Send;
    /// The fewest copies that an acknowledgement spoke of, where it does.
    fn fewest_copies(&self) -> Option<u8>;
}

/// A connection that watches the messages of some publishers.
pub trait View: Sized + Send + 'static {
    /// The ways to watch that there are.
    const WAYS: &'static [&'static str];

    /// Connects, to watch in way number `way` the publishers from 0 on; `since` is the last number that was seen of
    /// each, all `None` the first time.
    fn open(
        address: SocketAddr,
        way: usize,
        samples: usize,
        since: &[Option<u64>],
    ) -> impl Future<Output = Result<Self, Error>> + Send;
    /// Waits for messages, as publisher and number; none is a sign of life. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<Vec<(usize, u64)>, Error>> + Send;
    /// Asks for a sign of life, where none comes by itself.
    fn nudge(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_doubled_is_counted() {
        let held = Held { node: "a".into(), numbers: vec![vec![1, 2, 2, 4], vec![]] };
        assert_eq!((held.lost(0, &[1, 2, 3, 4]), held.lost(1, &[7]), held.doubled()), (1, 1, 1));
    }
}
