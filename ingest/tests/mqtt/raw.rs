//! A client that sends any bytes, and reads packets as they come.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::{NEVER, Node};

pub struct Raw {
    stream: TcpStream,
    v5: bool,
}

/// A packet: first byte, and what follows the remaining length.
pub type Packet = (u8, Vec<u8>);

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

pub fn connect(v5: bool, id: &str, flags: u8, keep_alive: u16) -> Vec<u8> {
    let mut body = text(b"MQTT");
    body.extend([if v5 { 5 } else { 4 }, flags]);
    body.extend(keep_alive.to_be_bytes());
    if v5 {
        body.push(0);
    }
    body.extend(text(id.as_bytes()));
    packet(0x10, &body)
}

/// PUBLISH of QoS 1, or of QoS 0 with packet id 0.
pub fn publish(v5: bool, topic: &[u8], pkid: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if pkid != 0 {
        body.extend(pkid.to_be_bytes());
    }
    if v5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(if pkid == 0 { 0x30 } else { 0x32 }, &body)
}

impl Raw {
    pub async fn open(node: &Node, v5: bool) -> Self {
        Self { stream: TcpStream::connect(node.address).await.unwrap(), v5 }
    }

    /// Connected, with a clean session.
    pub async fn connect(node: &Node, v5: bool, id: &str) -> Self {
        let mut raw = Self::open(node, v5).await;
        raw.send(&connect(v5, id, 2, 0)).await;
        let (first, body) = raw.packet().await.expect("a CONNACK");
        assert_eq!((first, body[1]), (0x20, 0));
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends what the server may not want to hear to its end.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn publish(&mut self, topic: &str, pkid: u16, payload: &str) {
        self.send(&publish(self.v5, topic.as_bytes(), pkid, payload.as_bytes())).await;
    }

    /// The next packet; `None` when the connection is closed.
    pub async fn packet(&mut self) -> Option<Packet> {
        timeout(NEVER, self.read()).await.expect("the server says nothing")
    }

    async fn read(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    /// What the server says before it closes; version 5 must give `reason`, 3.1.1 closes only.
    pub async fn closed_for(&mut self, reason: u8, what: &str) {
        let said = self.packet().await;
        if self.v5 {
            let (first, body) = said.unwrap_or_else(|| panic!("{what}: closed without DISCONNECT"));
            assert_eq!((first, body[0]), (0xe0, reason), "{what}: {body:?}");
            assert!(self.packet().await.is_none(), "{what}: more after DISCONNECT");
        } else {
            assert!(said.is_none(), "{what}: {said:?}");
        }
    }
}

/// A PUBACK's packet id and reason code.
pub fn puback((first, body): &Packet) -> (u16, u8) {
    assert_eq!(*first, 0x40, "{body:?}");
    (u16::from_be_bytes([body[0], body[1]]), body.get(2).copied().unwrap_or_default())
}

/// The reason string of a version 5 acknowledgement or DISCONNECT.
pub fn reason_string(body: &[u8]) -> String {
    let at = body.iter().position(|&byte| byte == 0x1f).expect("a reason string");
    let length = usize::from(u16::from_be_bytes([body[at + 1], body[at + 2]]));
    String::from_utf8(body[at + 3..at + 3 + length].to_vec()).unwrap()
}
