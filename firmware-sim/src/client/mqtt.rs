//! One MQTT 3.1.1 connection with QoS 1. Each has a client of its own, so that nothing is sent again but by our window.
//!
//! MQTT 3.1.1 has no way to refuse a payload: what a node refuses it acknowledges, and counts in the sensor's ledger.
//!
//! Which payload a PUBACK is for: the event loop takes requests in order and says `Outgoing::Publish(packet id)` for each,
//! so the n-th of those is the n-th batch handed to it.

use std::time::Duration;

use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::window::Number;
use super::{End, GOODBYE, STALL, Shared, WINDOW, until};

/// Packet ids in use at most: twice the window, so that one slow acknowledgement does not collide at once.
const PACKET_IDS: u16 = 2 * WINDOW as u16;
/// Largest packet in either direction.
const MAX_PACKET: usize = 4 * 1024 * 1024;
/// A quiet device pings so often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events waiting for us; at this the event loop waits.
const EVENTS: usize = 16;

type Events = mpsc::Receiver<Result<Event, ConnectionError>>;

/// The task in which the event loop runs; it ends with the connection. Polling it inside a `select!` would lose
/// packets, since it is not cancel safe.
struct Loop(JoinHandle<()>);

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was handed to the event loop, in its order.
#[derive(Default)]
struct Handed {
    /// Batches handed over; they are numbered in the window from 1.
    count: Number,
    /// Of those, how many have a packet id.
    on_wire: Number,
    /// By packet id, the number in the window; 0 for none.
    by_packet: Vec<Number>,
}

impl Handed {
    fn published(&mut self, packet: u16) {
        let at = usize::from(packet);
        if self.by_packet.len() <= at {
            self.by_packet.resize(at + 1, 0);
        }
        self.on_wire += 1;
        self.by_packet[at] = self.on_wire;
    }

    fn acknowledged(&mut self, packet: u16) -> Option<Number> {
        self.by_packet.get_mut(usize::from(packet)).map(std::mem::take).filter(|number| *number != 0)
    }
}

/// Connects to `address` (`host:port`), and stays until the end.
pub async fn connect(address: &str, shared: &mut Shared, nonce: u32) -> End {
    let Some((host, port)) =
        address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)))
    else {
        return again(format!("`{address}` is not host:port"));
    };
    let id = format!("{}-{nonce:08x}", shared.device.sensor);
    let mut options = MqttOptions::new(id, host, port);
    options
        .set_clean_session(true)
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET)
        .set_keep_alive(KEEP_ALIVE);
    if let Some(token) = &shared.token {
        options.set_credentials(&shared.device.sensor, token);
    }
    let (client, mut event_loop) = AsyncClient::new(options, WINDOW);
    event_loop.network_options.set_connection_timeout(STALL.as_secs()).set_tcp_nodelay(true);
    let (sender, mut events) = mpsc::channel(EVENTS);
    let _running = Loop(tokio::spawn(run(event_loop, sender)));

    match events.recv().await {
        Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {}
        Some(Err(error)) => return again(format!("cannot connect: {error}")),
        _ => return again("cannot connect: no CONNACK".to_owned()),
    }
    shared.window.connected();
    let end = work(&client, &mut events, shared).await;
    if matches!(end, End::Done) && client.try_disconnect().is_ok() {
        // Until the DISCONNECT is written; everything is acknowledged already, so its loss would cost nothing.
        let _ = timeout(GOODBYE, async {
            while !matches!(
                events.recv().await,
                None | Some(Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)))
            ) {}
        })
        .await;
    }
    end
}

async fn run(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        // Polling on after an error would connect again, and that is not this connection's to decide.
        let last = event.is_err();
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

fn again(why: String) -> End {
    End::Again { why, delay: None }
}

async fn work(client: &AsyncClient, events: &mut Events, shared: &mut Shared) -> End {
    let mut handed = Handed::default();
    let connected = Instant::now();
    loop {
        while let Some(batch) = shared.window.unsent() {
            let topic = format!("sensors/{}/{}", shared.device.sensor, batch.attribute);
            let payload = batch.to_payload();
            if payload.len() + topic.len() + 16 > MAX_PACKET {
                shared.window.unfit("packet_too_large");
                continue;
            }
            // The window is no larger than the event loop's queue, so there is room.
            if let Err(error) = client.try_publish(topic, QoS::AtLeastOnce, false, payload) {
                return again(format!("cannot publish: {error}"));
            }
            handed.count += 1;
            shared.window.sent(handed.count);
        }
        if shared.closed && shared.window.is_empty() {
            return End::Done;
        }
        let room = shared.window.has_room() && !shared.closed;
        let stalled = shared.window.quiet_since().map(|since| since.max(connected) + STALL);
        // All branches are cancel safe: channels and timers take nothing when they are dropped.
        tokio::select! {
            event = events.recv() => match event {
                Some(Ok(Event::Outgoing(Outgoing::Publish(packet)))) => handed.published(packet),
                Some(Ok(Event::Incoming(Packet::PubAck(ack)))) => {
                    if let Some(number) = handed.acknowledged(ack.pkid) {
                        shared.window.acked_one(number);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return again(format!("connection lost: {error}")),
                None => return again("connection lost".to_owned()),
            },
            batch = shared.batches.recv(), if room => match batch {
                Some(batch) => shared.window.take(batch),
                None => shared.closed = true,
            },
            () = until(shared.window.deadline()) => return End::GaveUp,
            () = until(stalled) => return again("no acknowledgement".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_lead_to_batches_also_when_they_come_again() {
        let mut handed = Handed::default();
        handed.published(1);
        handed.published(2);
        assert_eq!(handed.acknowledged(2), Some(2));
        assert_eq!(handed.acknowledged(2), None);
        handed.published(2);
        assert_eq!((handed.acknowledged(2), handed.acknowledged(1)), (Some(3), Some(1)));
        assert_eq!(handed.acknowledged(77), None);
    }
}
