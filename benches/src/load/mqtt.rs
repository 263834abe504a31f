//! A publisher that speaks as much MQTT 3.1.1 as it takes to publish: CONNECT, PUBLISH, PINGREQ and what answers them
//! (OASIS MQTT 3.1.1, chapter 3). Packets are written into one buffer, so that a window of them costs one write.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use store::SampleTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;
use crate::samples;

/// How long the node may be silent while something is owed.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const SILENT: &str = "the node was silent while it owed an answer, or did not read";
/// Bytes of a payload; it is filled up with spaces, which JSON allows.
pub const PAYLOAD_BYTES: usize = 100;
/// Seconds without a packet after which the node may give up the connection: longer than a run.
const KEEP_ALIVE: u16 = 600;
/// Messages between two looks at the clock, with QoS 0.
const BURST: usize = 100;

const CONNACK: u8 = 2;
const PUBACK: u8 = 4;
const PINGRESP: u8 = 13;

/// A client with an accepted connection.
pub struct Publisher {
    stream: TcpStream,
    topic: String,
    out: Vec<u8>,
    input: Vec<u8>,
    published: u64,
}

impl Publisher {
    /// Connects as `sensor`, with a clean session.
    pub async fn connect(node: SocketAddr, sensor: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        let topic = format!("sensors/{sensor}/value");
        let mut client = Self { stream, topic, out: Vec::new(), input: Vec::new(), published: 0 };
        let mut body = Vec::new();
        push_text(&mut body, "MQTT");
        body.extend([4, 0b10]);
        body.extend(KEEP_ALIVE.to_be_bytes());
        push_text(&mut body, sensor);
        push_packet(&mut client.out, 0x10, &[&body]);
        client.flush().await?;
        let mut code = None;
        while code.is_none() {
            client
                .receive(|kind, body| {
                    if kind == CONNACK {
                        code = Some(body.get(1).copied());
                    }
                })
                .await?;
        }
        match code {
            Some(Some(0)) => Ok(client),
            other => Err(format!("the node refused the connection: {other:?}").into()),
        }
    }

    /// Publishes with QoS 1 for a while, up to `window` messages on their way, until all are acknowledged. Returns how
    /// many.
    pub async fn at_least_once(&mut self, window: usize, lasting: Duration) -> Result<u64, Error> {
        let began = Instant::now();
        let (first, mut in_flight) = (self.published, 0);
        loop {
            if began.elapsed() < lasting {
                for _ in in_flight..window {
                    self.publish(true);
                }
                in_flight = window;
                self.flush().await?;
            } else if in_flight == 0 {
                return Ok(self.published - first);
            }
            let mut acknowledged = 0;
            self.receive(|kind, _| acknowledged += usize::from(kind == PUBACK)).await?;
            in_flight = in_flight.checked_sub(acknowledged).ok_or("more PUBACKs than messages")?;
        }
    }

    /// Publishes with QoS 0 for a while, until the node has read all. Returns how many.
    pub async fn at_most_once(&mut self, lasting: Duration) -> Result<u64, Error> {
        let began = Instant::now();
        let first = self.published;
        while began.elapsed() < lasting {
            for _ in 0..BURST {
                self.publish(false);
            }
            self.flush().await?;
        }
        push_packet(&mut self.out, 0xC0, &[]);
        self.flush().await?;
        let mut read = false;
        while !read {
            self.receive(|kind, _| read |= kind == PINGRESP).await?;
        }
        Ok(self.published - first)
    }

    /// Puts the next message into the buffer.
    fn publish(&mut self, acknowledged: bool) {
        let index = self.published as i64;
        self.published += 1;
        let ts = SampleTime(samples::START + index * 1000);
        let payload = format!(r#"{{"ts":{ts},"value":{}"#, samples::value(index));
        let payload = format!("{payload:width$}}}", width = PAYLOAD_BYTES - 1);
        let length = (self.topic.len() as u16).to_be_bytes();
        // Packet ids go round from 1 to 65535; no window is as large.
        let id = ((index % 65_535) as u16 + 1).to_be_bytes();
        let (head, id): (u8, &[u8]) = if acknowledged { (0x32, &id) } else { (0x30, &[]) };
        push_packet(&mut self.out, head, &[&length, self.topic.as_bytes(), id, payload.as_bytes()]);
    }

    async fn flush(&mut self) -> Result<(), Error> {
        timeout(ANSWER_WITHIN, self.stream.write_all(&self.out)).await.map_err(|_| SILENT)??;
        self.out.clear();
        Ok(())
    }

    /// Waits for bytes, and hands out the type and body of each packet that is whole.
    async fn receive(&mut self, mut each: impl FnMut(u8, &[u8])) -> Result<(), Error> {
        let read = timeout(ANSWER_WITHIN, self.stream.read_buf(&mut self.input)).await;
        if read.map_err(|_| SILENT)?? == 0 {
            return Err("the node closed the connection".into());
        }
        let mut at = 0;
        while let Some((kind, body, end)) = packet(&self.input[at..]) {
            each(kind, body);
            at += end;
        }
        self.input.drain(..at);
        Ok(())
    }
}

/// A text with its length in front (section 1.5.3).
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// A packet: first byte, remaining length (section 2.2.3), body in pieces.
fn push_packet(out: &mut Vec<u8>, head: u8, body: &[&[u8]]) {
    out.push(head);
    let mut length: usize = body.iter().map(|piece| piece.len()).sum();
    loop {
        let (low, rest) = ((length % 128) as u8, length / 128);
        out.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
        length = rest;
    }
    body.iter().for_each(|piece| out.extend(*piece));
}

/// Type, body and end of the first packet in `bytes`, when it is whole.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut start) = (0usize, 1);
    loop {
        let byte = *bytes.get(start)?;
        length |= usize::from(byte & 0x7F) << (7 * (start - 1));
        start += 1;
        if byte & 0x80 == 0 || start == 5 {
            break;
        }
    }
    Some((bytes[0] >> 4, bytes.get(start..start + length)?, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_read_back_and_wait_until_they_are_whole() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let body = vec![7; size];
            let mut bytes = Vec::new();
            push_packet(&mut bytes, 0x32, &[&body[..size / 2], &body[size / 2..]]);
            assert_eq!(packet(&bytes), Some((3, &body[..], bytes.len())));
            assert_eq!(packet(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(packet(&[]), None);
    }
}
