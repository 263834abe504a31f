//! One MQTT 5 connection with QoS 1. Its session is clean: nothing is sent again but by our window.
//!
//! The device also listens for what a node tells it: advice on `advice/{sensor}`, commands on `commands/{sensor}`, and
//! other nodes in the server reference of a DISCONNECT or of a refused connection.

mod packet;

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::packet::{FromNode, ToNode, Told};
use super::window::Number;
use super::{ACK_WITHIN, Advice, CONNECT_WITHIN, End, GOODBYE, Heard, Shared, WINDOW, until};

/// Largest packet in either direction, if the node says nothing else.
const MAX_PACKET: usize = 4 * 1024 * 1024;
/// After so long without a word a node closes the connection; ours are never silent for long.
const KEEP_ALIVE_S: u16 = 15;
/// First size of the buffer for what a node says.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes of a publish besides topic and payload, generously.
const PUBLISH_HEAD: usize = 16;
/// The packet id of the only subscription, which no publish uses.
const SUBSCRIPTION: u16 = u16::MAX;
/// From here on a reason code is a refusal (MQTT 5, section 2.4).
const REFUSALS: u8 = 0x80;
/// Refusals that say nothing of the payload, but that this node cannot keep data now: implementation specific, busy.
const CANNOT_KEEP: [u8; 2] = [0x83, 0x89];
/// How long to wait before turning to the node of a server reference.
const MOVE_AFTER: Duration = Duration::from_millis(50);

struct Connection {
    stream: TcpStream,
    /// Bytes read and not yet understood.
    read: Vec<u8>,
    /// Batches handed over; they are numbered in the window from 1.
    count: Number,
    /// By packet id, the number in the window.
    on_wire: HashMap<u16, Number>,
    /// Publishes that the node takes before it has acknowledged one.
    at_once: usize,
    largest: usize,
}

/// As it comes on `commands/{sensor}`.
#[derive(Deserialize)]
struct Command {
    id: String,
    name: String,
    #[serde(default)]
    params: serde_json::Value,
}

/// Connects to `address` (`host:port`), and stays until the end.
pub async fn connect(address: &str, shared: &mut Shared, nonce: u32) -> End {
    let opened = timeout(CONNECT_WITHIN, async {
        let stream =
            TcpStream::connect(address).await.map_err(|error| again(format!("cannot connect: {error}")))?;
        // Without it small packets wait for the acknowledgement of earlier ones.
        stream.set_nodelay(true).map_err(|error| again(format!("cannot connect: {error}")))?;
        let mut connection = Connection {
            stream,
            read: Vec::with_capacity(READ_BUFFER),
            count: 0,
            on_wire: HashMap::with_capacity(WINDOW),
            at_once: WINDOW,
            largest: MAX_PACKET,
        };
        connection.greet(shared, nonce).await?;
        Ok(connection)
    });
    let mut connection = match opened.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(end)) => return end,
        Err(_) => return again("cannot connect: no answer".to_owned()),
    };
    shared.connected(address);
    let end = connection.work(shared).await;
    if end.is_orderly() {
        // The other side may be gone: what cannot be said in time is left unsaid.
        let _ = timeout(GOODBYE, connection.say(&[ToNode::Disconnect])).await;
    }
    end
}

fn again(why: String) -> End {
    End::Again { why, delay: None }
}

fn described(code: u8, told: &Told) -> String {
    format!("{code:#04x} {}", told.reason.as_deref().unwrap_or("without a reason"))
}

/// Turns to another node: one of the reference, if there is one (section 4.11 leaves its form open: addresses between
/// spaces or commas).
fn moved(shared: &mut Shared, what: &str, code: u8, told: &Told) -> End {
    let why = format!("{what}: {}", described(code, told));
    let nodes: Vec<String> = told
        .reference
        .iter()
        .flat_map(|reference| reference.split([' ', ',']))
        .filter(|node| !node.is_empty())
        .map(str::to_owned)
        .collect();
    if nodes.is_empty() {
        return again(why);
    }
    shared.addresses.move_to(&nodes);
    End::Again { why, delay: Some(MOVE_AFTER) }
}

impl Connection {
    /// Says who we are, and listens for advice and commands once the node has answered.
    async fn greet(&mut self, shared: &mut Shared, nonce: u32) -> Result<(), End> {
        let sensor = &shared.device.sensor;
        let client = format!("{sensor}-{nonce:08x}");
        let credentials = shared.token.as_deref().map(|token| (sensor.as_str(), token));
        self.say(&[ToNode::Connect { client: &client, keep_alive_s: KEEP_ALIVE_S, credentials }]).await?;
        match self.hear().await? {
            FromNode::Connected { code: 0, told } => {
                self.at_once = told.receive_maximum.map_or(WINDOW, usize::from).min(WINDOW);
                self.largest = told.largest_packet.map_or(MAX_PACKET, |most| most as usize).min(MAX_PACKET);
            }
            FromNode::Connected { code, told } => return Err(moved(shared, "cannot connect", code, &told)),
            _ => return Err(again("cannot connect: no CONNACK".to_owned())),
        }
        let filters = [format!("advice/{sensor}"), format!("commands/{sensor}")];
        self.say(&[ToNode::Subscribe { id: SUBSCRIPTION, filters: &filters }]).await
    }

    async fn work(&mut self, shared: &mut Shared) -> End {
        let mut heard = Heard::now();
        loop {
            while shared.window.outstanding() < self.at_once
                && let Some(batch) = shared.to_send()
            {
                let topic = format!("sensors/{}/{}", shared.device.sensor, batch.attribute);
                let payload = batch.to_payload();
                if payload.len() + topic.len() + PUBLISH_HEAD > self.largest {
                    shared.window.unfit("packet_too_large");
                    continue;
                }
                let number = self.count + 1;
                let id = (self.count % Number::from(SUBSCRIPTION - 1)) as u16 + 1;
                if self.on_wire.contains_key(&id) {
                    return again("no acknowledgement while all packet ids went round".to_owned());
                }
                if let Err(end) =
                    self.say(&[ToNode::Publish { topic: &topic, id: Some(id), payload: &payload }]).await
                {
                    return end;
                }
                self.count = number;
                self.on_wire.insert(id, number);
                shared.window.sent(number);
            }
            if shared.closed && shared.window.is_empty() {
                return End::Done;
            }
            let room = shared.window.has_room() && !shared.closed;
            let stalled = shared.window.owed_since().map(|since| since + ACK_WITHIN);
            // All branches are cancel safe: reading keeps what it has read, channels and timers take nothing.
            tokio::select! {
                packet = self.hear() => {
                    heard = Heard::now();
                    match packet {
                        Ok(packet) => if let Some(end) = self.obey(packet, shared).await { return end },
                        Err(end) => return end,
                    }
                }
                batch = shared.batches.recv(), if room => match batch {
                    Some(batch) => shared.window.take(batch),
                    None => shared.closed = true,
                },
                () = tokio::time::sleep_until(heard.patience()) => {
                    if std::mem::replace(&mut heard.asked, true) {
                        return again("the node is silent".to_owned());
                    }
                    if let Err(end) = self.say(&[ToNode::Ping]).await {
                        return end;
                    }
                }
                () = until(shared.window.deadline()) => return End::GaveUp,
                () = until(stalled) => return again("no acknowledgement".to_owned()),
            }
        }
    }

    async fn obey(&mut self, packet: FromNode, shared: &mut Shared) -> Option<End> {
        match packet {
            FromNode::Acknowledged { id, code, told } => {
                let number = self.on_wire.remove(&id)?;
                if code < REFUSALS {
                    shared.window.acked_one(number);
                } else if CANNOT_KEEP.contains(&code) {
                    return Some(again(format!("cannot keep: {}", described(code, &told))));
                } else {
                    shared.window.refused(number, &described(code, &told));
                }
            }
            FromNode::Disconnected { code, told } => return Some(moved(shared, "sent away", code, &told)),
            FromNode::Published { topic, payload } if topic.starts_with("advice/") => {
                if let Some(advice) = Advice::read(&payload) {
                    shared.advised(advice);
                }
            }
            FromNode::Published { topic, payload } if topic.starts_with("commands/") => {
                // What is no command is not for us.
                let Command { id, name, params } = serde_json::from_slice(&payload).ok()?;
                let reply = serde_json::json!({ "id": id, "result": { "name": name, "params": params } });
                let topic = format!("replies/{}", shared.device.sensor);
                let payload = reply.to_string();
                let reply = ToNode::Publish { topic: &topic, id: None, payload: payload.as_bytes() };
                return self.say(&[reply]).await.err();
            }
            FromNode::Published { .. } | FromNode::Connected { .. } | FromNode::Other => {}
        }
        None
    }

    async fn say(&mut self, packets: &[ToNode<'_>]) -> Result<(), End> {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| packet.write(&mut bytes));
        match timeout(ACK_WITHIN, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(again(format!("connection lost: {error}"))),
            Err(_) => Err(again("the node reads nothing".to_owned())),
        }
    }

    /// The next packet. Cancel safe.
    async fn hear(&mut self) -> Result<FromNode, End> {
        loop {
            match packet::read(&self.read, MAX_PACKET) {
                Ok(Some((packet, length))) => {
                    self.read.drain(..length);
                    return Ok(packet);
                }
                Ok(None) => {}
                Err(error) => return Err(again(format!("connection lost: {error}"))),
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return Err(again("connection closed".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(again(format!("connection lost: {error}"))),
            }
        }
    }
}
