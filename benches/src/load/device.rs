//! A device over WebSocket that pipelines: up to a window of frames is on its way, and each is timed until the node has
//! acknowledged it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ingest::wire::message::{Attribute, CBOR, FromNode, Hello, PATH, ToNode, from_cbor, to_cbor};
use store::SampleTime;
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Error;
use super::frames::{Encoding, Frames};

/// How long the node may be silent while something is owed.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Buffer of a connection that sends; one that does not gets by with less.
const READ_BUFFER: usize = 4 * 1024;

/// How a device sends.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Most frames that are not acknowledged.
    pub window: usize,
    /// Time from a frame to the next; zero: as fast as the window lets it.
    pub every: Duration,
    /// For how long.
    pub lasting: Duration,
    /// At most so many frames.
    pub frames: u64,
}

/// What a device has done.
#[derive(Debug, Default)]
pub struct Sent {
    /// When each frame was handed to the socket, by `seq` from 1.
    pub at: Vec<Instant>,
    /// Microseconds from there to its acknowledgement.
    pub acknowledged: Vec<u64>,
    /// The fewest copies that an acknowledgement spoke of.
    pub fewest_copies: Option<u8>,
}

/// A device that has been welcomed.
pub struct Device {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
    seq: u64,
}

impl Device {
    /// Connects, and says hello as `sensor`, describing `attribute` where there is one.
    pub async fn connect(
        node: SocketAddr,
        encoding: Encoding,
        sensor: &str,
        attribute: Option<(&str, Attribute)>,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{node}{PATH}").into_client_request()?;
        if encoding == Encoding::Cbor {
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(CBOR));
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let mut device = Self { socket, encoding, seq: 0 };
        let attributes =
            attribute.map(|(name, attribute)| (name.to_owned(), attribute)).into_iter().collect();
        let hello = ToNode::Hello(Hello { sensor: sensor.to_owned(), attributes, ..Hello::default() });
        let hello = match encoding {
            Encoding::Json => Message::text(serde_json::to_string(&hello)?),
            Encoding::Cbor => Message::binary(to_cbor(&hello)),
        };
        device.socket.send(hello).await?;
        match device.answer().await? {
            FromNode::Welcome { .. } => Ok(device),
            other => Err(format!("instead of a welcome came {other:?}").into()),
        }
    }

    /// Sends frames, the first sample at `start`, until the time is over and all of them are acknowledged.
    pub async fn send(&mut self, frames: &Frames, start: SampleTime, pace: Pace) -> Result<Sent, Error> {
        let began = Instant::now();
        let (first, mut sent, mut waiting) = (self.seq, Sent::default(), VecDeque::<(u64, Instant)>::new());
        loop {
            let now = began.elapsed();
            let over = now >= pace.lasting || self.seq - first >= pace.frames;
            let due = if pace.every.is_zero() {
                u64::MAX
            } else {
                (now.as_secs_f64() / pace.every.as_secs_f64()) as u64 + 1
            };
            while !over && waiting.len() < pace.window && self.seq - first < due.min(pace.frames) {
                self.seq += 1;
                let frame = frames.frame(self.seq, start);
                let at = Instant::now();
                sent.at.push(at);
                waiting.push_back((self.seq, at));
                self.socket.feed(frame).await?;
            }
            self.socket.flush().await?;
            if over && waiting.is_empty() {
                return Ok(sent);
            }
            let paced = !over && waiting.len() < pace.window;
            let next_due = began + pace.every.mul_f64((self.seq - first) as f64).min(pace.lasting);
            let answer = tokio::select! {
                answer = self.answer() => Some(answer?),
                () = sleep_until(next_due.into()), if paced => None,
            };
            match answer {
                Some(FromNode::Ack { seq, copies }) => {
                    sent.fewest_copies = Some(sent.fewest_copies.map_or(copies, |fewest| fewest.min(copies)));
                    let covered = waiting.partition_point(|(held, _)| *held <= seq);
                    let latency = |(_, at): (u64, Instant)| at.elapsed().as_micros() as u64;
                    sent.acknowledged.extend(waiting.drain(..covered).map(latency));
                }
                Some(error @ (FromNode::Error { .. } | FromNode::Reconnect { .. })) => {
                    return Err(format!("the node said {error:?}").into());
                }
                Some(_) | None => {}
            }
        }
    }

    /// Writes a frame into the buffer.
    pub async fn feed(&mut self, frame: Message) -> Result<(), Error> {
        Ok(self.socket.feed(frame).await?)
    }

    /// Sends the buffer.
    pub async fn flush(&mut self) -> Result<(), Error> {
        Ok(self.socket.flush().await?)
    }

    /// The next message of the node. Cancel-safe: one that is not whole yet stays in the socket's buffer.
    pub async fn answer(&mut self) -> Result<FromNode, Error> {
        loop {
            let silent = |_| "the node was silent while it owed an answer";
            let message = timeout(ANSWER_WITHIN, self.socket.next()).await.map_err(silent)?;
            match message.ok_or("the node closed the connection")?? {
                Message::Text(text) if self.encoding == Encoding::Json => {
                    return Ok(serde_json::from_str(&text)?);
                }
                Message::Binary(bytes) if self.encoding == Encoding::Cbor => return Ok(from_cbor(&bytes)?),
                Message::Ping(_) | Message::Pong(_) => {}
                other => return Err(format!("an unexpected frame: {other}").into()),
            }
        }
    }
}
