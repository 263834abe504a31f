//! What is sent and not yet acknowledged, oldest first. It outlives connections: after a reconnect all of it is sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::acks::AckLog;
use crate::batch::Batch;
use crate::tally::Tally;

/// A frame's number on the present connection: `seq`, or the packet id.
pub type Number = u64;

#[derive(Debug)]
struct Waiting {
    batch: Arc<Batch>,
    /// `None`: not yet sent on this connection.
    number: Option<Number>,
    /// It was sent on some connection.
    sent_before: bool,
}

/// The frames in flight, at most `capacity`.
#[derive(Debug)]
pub struct Window {
    waiting: VecDeque<Waiting>,
    capacity: usize,
    patience: Duration,
    /// Since when nothing was acknowledged although something waits.
    quiet_since: Option<Instant>,
    /// Frames that are on their way on this connection.
    outstanding: usize,
    /// Since when nothing was acknowledged although something is on its way on this connection.
    owed_since: Option<Instant>,
    acknowledged: u64,
    tally: Arc<Tally>,
    /// The log, and as whom to write into it.
    acks: Option<(Arc<AckLog>, String)>,
}

impl Window {
    pub fn new(
        capacity: usize,
        patience: Duration,
        tally: Arc<Tally>,
        acks: Option<(Arc<AckLog>, String)>,
    ) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            capacity,
            patience,
            quiet_since: None,
            outstanding: 0,
            owed_since: None,
            acknowledged: 0,
            tally,
            acks,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.capacity
    }

    /// Takes a batch; the caller has looked for room.
    pub fn take(&mut self, batch: Batch) {
        self.quiet_since.get_or_insert_with(Instant::now);
        self.waiting.push_back(Waiting { batch: Arc::new(batch), number: None, sent_before: false });
    }

    /// On a new connection nothing is sent yet.
    pub fn connected(&mut self, address: &str) {
        self.tally.connected(address);
        (self.outstanding, self.owed_since) = (0, None);
        self.waiting.iter_mut().for_each(|waiting| waiting.number = None);
    }

    /// The oldest batch that is not sent on this connection, if there is one.
    pub fn unsent(&self) -> Option<Arc<Batch>> {
        self.waiting.iter().find(|waiting| waiting.number.is_none()).map(|waiting| Arc::clone(&waiting.batch))
    }

    /// The batch that [`Self::unsent`] gave is now on its way as `number`.
    pub fn sent(&mut self, number: Number) {
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number.is_none()) else { return };
        waiting.number = Some(number);
        self.outstanding += 1;
        self.owed_since.get_or_insert_with(Instant::now);
        if waiting.sent_before {
            self.tally.resent(waiting.batch.len());
        } else {
            waiting.sent_before = true;
            self.tally.sent(waiting.batch.len());
        }
    }

    /// Everything up to `number` is kept.
    pub fn acked_up_to(&mut self, number: Number) {
        while self.waiting.front().and_then(|waiting| waiting.number).is_some_and(|own| own <= number) {
            if let Some(waiting) = self.waiting.pop_front() {
                self.outstanding -= 1;
                self.acked(&waiting.batch);
            }
        }
    }

    /// This one frame is kept.
    pub fn acked_one(&mut self, number: Number) {
        if let Some(batch) = self.remove(number) {
            self.acked(&batch);
        }
    }

    /// This one frame will never be kept: it is counted and forgotten.
    pub fn refused(&mut self, number: Number, code: &str) {
        if let Some(batch) = self.remove(number) {
            self.refuse(&batch, code);
        }
    }

    /// The batch that [`Self::unsent`] gave cannot be sent at all.
    pub fn unfit(&mut self, code: &str) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.number.is_none())
            && let Some(waiting) = self.waiting.remove(at)
        {
            self.refuse(&waiting.batch, code);
        }
    }

    pub fn copies(&self, copies: u8) {
        self.tally.copies(copies);
    }

    pub fn complaint(&self, what: &str) {
        self.tally.complaint(what);
    }

    /// How many frames were acknowledged or refused so far: whether a connection was of use.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// When to give up, if something waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.quiet_since.map(|since| since + self.patience)
    }

    /// Since when this node owes an acknowledgement.
    pub fn owed_since(&self) -> Option<Instant> {
        self.owed_since
    }

    /// How many frames are on their way on this connection.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn remove(&mut self, number: Number) -> Option<Arc<Batch>> {
        let at = self.waiting.iter().position(|waiting| waiting.number == Some(number))?;
        self.outstanding -= 1;
        self.waiting.remove(at).map(|waiting| waiting.batch)
    }

    fn acked(&mut self, batch: &Batch) {
        self.tally.acked(batch.len());
        if let Some(Err(error)) = self.acks.as_ref().map(|(acks, sensor)| acks.write(sensor, batch)) {
            self.tally.complaint(&format!("the log of acknowledgements: {error}"));
        }
        self.progress();
    }

    fn refuse(&mut self, batch: &Batch, code: &str) {
        self.tally.refused(batch.len());
        self.tally.complaint(&format!("refused: {code}"));
        self.progress();
    }

    fn progress(&mut self) {
        self.acknowledged += 1;
        let now = Instant::now();
        self.quiet_since = (!self.waiting.is_empty()).then_some(now);
        self.owed_since = (self.outstanding > 0).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use ingest::wire::message::Value;

    use super::*;

    fn window() -> (Window, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        (Window::new(3, Duration::from_secs(1), Arc::clone(&tally), None), tally)
    }

    fn batch(time: i64) -> Batch {
        Batch { attribute: "a".into(), samples: vec![(time, Value::Number(0.0))] }
    }

    #[test]
    fn all_that_is_not_acknowledged_is_sent_again_in_order() {
        let (mut window, tally) = window();
        window.connected("a");
        assert_eq!((window.outstanding(), window.owed_since()), (0, None));
        for number in 1..=3 {
            assert!(window.has_room());
            window.take(batch(number));
            window.sent(number as u64);
        }
        assert!(!window.has_room() && window.unsent().is_none());
        window.acked_up_to(1);
        assert!(window.outstanding() == 2 && window.owed_since().is_some());
        window.connected("b");
        assert_eq!((window.outstanding(), window.owed_since()), (0, None), "a new node owes nothing yet");
        for number in 1..=2 {
            assert_eq!(window.unsent().unwrap().first(), number + 1);
            window.sent(number as u64);
        }
        window.refused(1, "late");
        assert!(window.deadline().is_some());
        window.acked_up_to(2);
        assert!(window.is_empty() && window.deadline().is_none() && window.owed_since().is_none());
        assert_eq!(tally.address().as_deref(), Some("b"));
        let summary = tally.summary();
        assert_eq!((summary.sent, summary.resent, summary.acked, summary.refused), (3, 2, 2, 1));
        assert_eq!(summary.complaints["refused: late"], 1);
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_here_takes_nothing() {
        let (mut window, tally) = window();
        window.take(batch(1));
        window.acked_up_to(9);
        window.acked_one(9);
        window.refused(9, "x");
        assert!(!window.is_empty());
        window.unfit("frame_too_large");
        assert!(window.is_empty());
        assert_eq!((tally.summary().acked, tally.summary().refused), (0, 1));
    }
}
