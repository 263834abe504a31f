//! One connection, from its first byte to its last: the only place where an MQTT session meets its socket, the store
//! and the clock.
//!
//! What one read brings is one append; its answers wait for that append's ticket, behind those of earlier reads. While
//! [`MAX_READS_WAITING`] reads wait, or the client does not take what is written to it, it is not read: this is how it
//! is slowed.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttd::protocol::{DisconnectReasonCode, QoS};
use store::{AppendError, Ticket};
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

use super::codec::Violation;
use super::counters::Counters;
use super::desk::{Desk, Leaving, Stop};
use super::greeting::{self, Greeted};
use super::hub::{Kept, Takeover};
use super::listener::Port;
use super::mailbox::Mailbox;
use super::samples::Samples;
use super::transport::{Read, ReadError, Transport};
use super::wills::Ending;
use crate::limits::DRAIN_WITHIN;
use crate::nodes;

/// Reads whose samples are not kept yet, before reading stops.
const MAX_READS_WAITING: usize = 32;
/// Bytes waiting to be written, before no more are made and reading stops.
const HIGH_WATER: usize = 128 * 1024;
/// How long a publisher waits for crowded subscribers after a read.
const CROWD_PATIENCE: Duration = Duration::from_millis(250);
/// How long a client may take nothing of what is written to it.
const STALL: Duration = Duration::from_secs(60);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client said DISCONNECT.
    Left(Leaving),
    /// The socket is closed or broken.
    Closed,
    /// The client did something that is not allowed.
    Violation(Violation),
    /// The node ends it.
    Told(DisconnectReasonCode, String),
    /// The node is going away.
    Away,
    /// Another connection has the client id now, and gets the session.
    TakenOver(Takeover),
    /// The session is at its end: messages for it were lost, and it must not seem as if they were not.
    Lost(String),
}

/// Serves one client.
pub(super) async fn serve(stream: tokio::net::TcpStream, port: Arc<Port>) {
    let mut transport = Transport::new(stream);
    // What happens once is in boxes of its own, here and below: an idle connection holds none of it.
    let greeted = Box::pin(greeting::greet(&mut transport, &port)).await;
    match greeted {
        Some(greeted) => Connection::new(transport, port, *greeted).run().await,
        None => Box::pin(transport.close()).await,
    }
}

struct Connection {
    transport: Transport,
    port: Arc<Port>,
    desk: Desk,
    token: u64,
    takeover: oneshot::Receiver<Takeover>,
    tickets: VecDeque<Ticket>,
    keep_alive: Option<Duration>,
    /// How long the session stays after the connection.
    expiry: Duration,
}

impl Connection {
    fn new(transport: Transport, port: Arc<Port>, greeted: Greeted) -> Box<Self> {
        let Greeted { desk, token, takeover, keep_alive, expiry } = greeted;
        let tickets = VecDeque::new();
        Box::new(Self { transport, port, desk, token, takeover, tickets, keep_alive, expiry })
    }

    async fn run(mut self: Box<Self>) {
        let end = match self.begin().await {
            Ok(()) => self.serve().await,
            Err(end) => end,
        };
        Box::pin(self.end(end)).await;
    }

    /// What is owed from the last connection, and what came right behind CONNECT.
    async fn begin(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.desk.session.resume(now, &mut self.transport.out);
        let limit = self.port.settings.max_packet;
        let (desk, transport) = (&mut self.desk, &mut self.transport);
        transport.rest_of_first(limit, |frame, out| desk.take(&frame, out)).map_err(End::from)?;
        self.append().await
    }

    async fn serve(&mut self) -> End {
        let stop = self.port.stop.clone();
        let mut stopped = pin!(stop.cancelled());
        loop {
            self.pump();
            if self.transport.flush().is_err() {
                return End::Closed;
            }
            let reading = self.tickets.len() < MAX_READS_WAITING
                && self.transport.out.len() < HIGH_WATER
                && self.desk.crowded.is_none();
            let writing = !self.transport.out.is_empty();
            let sending = self.desk.session.window_open() && self.transport.out.len() < HIGH_WATER;
            let check = self.next_check();
            let (desk, transport) = (&mut self.desk, &self.transport);
            // Every branch is cancel-safe: it waits, and the work is done after the choice.
            tokio::select! {
                biased;
                () = &mut stopped => {
                    self.drain().await;
                    return End::Away;
                }
                taken = &mut self.takeover => match taken {
                    Ok(answer) => return End::TakenOver(answer),
                    // The hub drops its end only when the id is no longer ours.
                    Err(_) => return End::Told(DisconnectReasonCode::SessionTakenOver, "session ended".into()),
                },
                kept = front(&self.tickets) => match kept {
                    Ok(_) => self.settle(),
                    Err(failed) => return End::Told(DisconnectReasonCode::ImplementationSpecificError, failed.to_string()),
                },
                ready = transport.writable(), if writing => if ready.is_err() { return End::Closed },
                ready = transport.readable(), if reading => {
                    if ready.is_err() {
                        return End::Closed;
                    }
                    if let Err(end) = self.read().await {
                        return end;
                    }
                }
                () = desk.mailbox.rung() => {
                    if desk.mailbox.is_broken() {
                        return End::Lost("more messages waited for this client than are kept".into());
                    }
                }
                () = samples_ready(&mut desk.samples, &self.port.hub.counters), if sending => {}
                () = crowd_gone(desk.crowded.as_ref()) => desk.crowded = None,
                () = sleep_until(check.into()) => if let Some(end) = self.check() { return end },
            }
        }
    }

    /// One read, and one append of what it brought.
    async fn read(&mut self) -> Result<(), End> {
        let limit = self.port.settings.max_packet;
        let (desk, transport) = (&mut self.desk, &mut self.transport);
        match transport.read(limit, |frame, out| desk.take(&frame, out)) {
            Ok(Read::Nothing) => return Ok(()),
            Ok(Read::End) => return Err(End::Closed),
            Ok(Read::Some) => {}
            Err(error) => {
                // What came before the bad packet is as good as if it had come alone.
                let end = End::from(error);
                self.append().await?;
                return Err(end);
            }
        }
        self.append().await?;
        if let Some((_, until)) = &mut self.desk.crowded {
            *until = Instant::now() + CROWD_PATIENCE;
        }
        Ok(())
    }

    async fn append(&mut self) -> Result<(), End> {
        let batches = self.desk.uplink.batches();
        let retained = self.desk.retaining.take();
        if batches.is_empty() {
            if self.desk.session.close_read(retained.is_some(), &mut self.transport.out) {
                self.tickets.extend(retained);
            }
            return Ok(());
        }
        match Box::pin(self.port.store.append(batches)).await {
            Ok(appended) => {
                if self.desk.session.close_read(true, &mut self.transport.out) {
                    // Frames become durable in order, so the later one stands for both.
                    let later = retained.filter(|ticket| ticket.frame() > appended.ticket.frame());
                    self.tickets.push_back(later.unwrap_or(appended.ticket));
                }
                Ok(())
            }
            // Each batch was checked against its series; what was described in between made one wrong. The client
            // sends again what has no answer, and is told then.
            Err(error @ (AppendError::Refused(_) | AppendError::Uneven { .. } | AppendError::Empty)) => {
                Err(End::Told(DisconnectReasonCode::ImplementationSpecificError, error.to_string()))
            }
            Err(AppendError::Failed(failed)) => {
                Err(End::Told(DisconnectReasonCode::ImplementationSpecificError, failed.to_string()))
            }
        }
    }

    /// Lets go the answers of all reads that are kept.
    fn settle(&mut self) {
        while let Some(Ok(_)) = self.tickets.front().and_then(Ticket::is_kept) {
            self.tickets.pop_front();
            self.desk.session.kept(&mut self.transport.out);
        }
    }

    /// Waits for what the client's reads wait for, as far as it is kept in time. After DISCONNECT no answer may follow
    /// (MQTT 5, section 3.14), so these come first.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN_WITHIN;
        while !self.tickets.is_empty() {
            match timeout_at(until.into(), front(&self.tickets)).await {
                Ok(Ok(_)) => self.settle(),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Writes messages and samples for the client, as far as its window and the buffer go.
    fn pump(&mut self) {
        let now = Instant::now();
        let counters = &self.port.hub.counters;
        let (session, out) = (&mut self.desk.session, &mut self.transport.out);
        while out.len() < HIGH_WATER && session.window_open() {
            let Some(delivery) = self.desk.mailbox.take() else { break };
            let sent = session.send(delivery, now, out);
            if sent { counters.sent.add(1) } else { counters.dropped.add(1) }
        }
        let Some(samples) = &mut self.desk.samples else { return };
        while out.len() < HIGH_WATER {
            match samples.peek(counters) {
                Some(qos) if qos == QoS::AtMostOnce || session.window_open() => {}
                Some(_) => break,
                None => {
                    samples.rest();
                    break;
                }
            }
            let Some(sample) = samples.next() else { break };
            let sent = session.send_sample(&sample, now, out);
            if sent { counters.sent.add(1) } else { counters.dropped.add(1) }
        }
    }

    fn next_check(&self) -> Instant {
        let soon = Instant::now() + self.port.settings.patience;
        match self.keep_alive {
            Some(keep_alive) => soon.min(self.transport.heard + keep_alive),
            None => soon,
        }
    }

    /// Whether the client has been silent, or deaf, for too long.
    fn check(&self) -> Option<End> {
        let now = Instant::now();
        let silent = now.saturating_duration_since(self.transport.heard);
        // A client that is not being read may well have spoken.
        let reading = self.tickets.is_empty() && self.transport.out.is_empty() && self.desk.crowded.is_none();
        let too_long = |limit: Duration| reading && silent >= limit;
        if self.keep_alive.is_some_and(too_long) {
            let what = format!("silent for {:.1} s, 1.5 times its keep-alive", silent.as_secs_f64());
            return Some(End::Told(DisconnectReasonCode::KeepAliveTimeout, what));
        }
        if self.transport.is_partial() && too_long(self.port.settings.patience) {
            let what = format!("silent for {:.1} s in the middle of a packet", silent.as_secs_f64());
            return Some(End::Told(DisconnectReasonCode::KeepAliveTimeout, what));
        }
        if !self.transport.out.is_empty() && now.saturating_duration_since(self.transport.drained) >= STALL {
            return Some(End::Told(
                DisconnectReasonCode::KeepAliveTimeout,
                "takes nothing of what is sent".into(),
            ));
        }
        None
    }

    async fn end(mut self: Box<Self>, end: End) {
        let writer = self.desk.session.writer();
        // Answers whose samples are kept by now may still go; the others never will, and the client sends again.
        self.settle();
        let (mut takeover, mut elsewhere) = (None, None);
        let (mut with_will, mut keep) = (true, self.expiry);
        let out = &mut self.transport.out;
        match end {
            End::Left(leaving) => {
                with_will = leaving.with_will;
                if let Some(expiry) = leaving.session_expiry {
                    keep = expiry;
                }
            }
            End::Closed => {}
            End::Violation(violation) => {
                self.port.hub.counters.violations.add(1);
                tracing::info!(client = %self.desk.client, reason = ?violation.reason, what = %violation, "MQTT client disconnected");
                writer.disconnect(violation.reason, &violation.what, out);
            }
            End::Told(reason, what) => {
                tracing::debug!(client = %self.desk.client, ?reason, what, "MQTT client disconnected");
                writer.disconnect(reason, &what, out);
            }
            End::Away => writer.away(nodes::server_reference(&self.port.settings.nodes), out),
            End::TakenOver(by) => {
                match by {
                    Takeover::Here(answer) => takeover = Some(answer),
                    Takeover::Elsewhere(at) => elsewhere = Some(at),
                }
                writer.disconnect(
                    DisconnectReasonCode::SessionTakenOver,
                    "another connection has this client id",
                    out,
                );
            }
            End::Lost(what) => {
                keep = Duration::ZERO;
                tracing::warn!(client = %self.desk.client, what, "MQTT session ended");
                writer.disconnect(DisconnectReasonCode::QuotaExceeded, &what, out);
            }
        }
        let Desk { client, session, mailbox, samples, will, .. } = self.desk;
        let kept = Kept { memory: session.into_memory(), mailbox, samples };
        let hub = &self.port.hub;
        let left_over = match takeover {
            Some(answer) => Some((kept, Some(answer))),
            None => {
                let answer = |asked| match asked {
                    Ok(Takeover::Here(answer)) => Some(answer),
                    Ok(Takeover::Elsewhere(_)) | Err(_) => None,
                };
                hub.release(&client, self.token, kept, keep)
                    .map(|kept| (kept, answer(self.takeover.try_recv())))
            }
        };
        if let Some((kept, answer)) = left_over {
            // A session that ends with its connection is not handed on (MQTT 3.1.1 section 3.1.2.4). When the newcomer
            // is gone too, the session has no holder and ends.
            let (unclaimed, _dropped_last) = match answer {
                Some(answer) if !keep.is_zero() => (answer.send(kept).err(), None),
                answer => (Some(kept), answer),
            };
            if let Some(kept) = unclaimed {
                hub.forget(&client, &kept);
            }
        }
        match will.filter(|_| with_will) {
            Some(will) => {
                let (token, heard) = (self.token, self.transport.heard);
                let ending = Ending { token, session_ends: keep.is_zero(), elsewhere, heard };
                hub.leave_will(&client, *will, ending).await;
            }
            None => hub.drop_will(&client, self.token),
        }
        self.transport.close().await;
    }
}

impl From<ReadError<Stop>> for End {
    fn from(error: ReadError<Stop>) -> Self {
        match error {
            ReadError::Io => Self::Closed,
            ReadError::Violation(violation) | ReadError::Taker(Stop::Violation(violation)) => {
                Self::Violation(violation)
            }
            ReadError::Taker(Stop::Left(leaving)) => Self::Left(leaving),
        }
    }
}

/// Waits until there is a sample for the client.
async fn samples_ready(samples: &mut Option<Box<Samples>>, counters: &Counters) {
    match samples {
        Some(samples) => samples.ready(counters).await,
        None => std::future::pending().await,
    }
}

/// Waits until crowded subscribers have room again, or for as long as is fair.
async fn crowd_gone(crowded: Option<&(Arc<Mailbox>, Instant)>) {
    match crowded {
        // When it is over without them having room, the next message may break their mailboxes.
        Some((mailbox, until)) => drop(timeout_at((*until).into(), mailbox.drained()).await),
        None => std::future::pending().await,
    }
}

/// The fate of the oldest read that waits; never, when none does.
async fn front(tickets: &VecDeque<Ticket>) -> Result<store::Copies, store::Failed> {
    match tickets.front() {
        Some(ticket) => ticket.kept().await,
        None => std::future::pending().await,
    }
}
