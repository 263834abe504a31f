//! A viewer of one series, on a thread of its own: it notes when each message came, and reads what stood in them only
//! when all is over, so that reading does not delay what comes next.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use store::SampleTime;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::Error;

/// How long the node may be silent: it sends a beat four times a second.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How long the first sample may take.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Bytes before the times of a binary frame; the layout is that of `web::live::frame`.
const BINARY_HEADER: usize = 24;

/// How samples come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text messages.
    Json,
    /// Frames for drawing.
    Binary,
}

/// A socket that watches a series.
pub struct Viewer {
    socket: WebSocket<TcpStream>,
    messages: Vec<(Instant, Message)>,
}

#[derive(Deserialize)]
struct Live {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    samples: Vec<(f64, serde_json::Value)>,
    #[serde(default)]
    message: String,
}

impl Viewer {
    /// Connects, and watches `series`, which has a sample already: when that has come, all that follow will.
    pub fn watch(node: SocketAddr, series: &str, format: Format) -> Result<Self, Error> {
        let stream = TcpStream::connect(node)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENT_FOR))?;
        let query = if format == Format::Binary { "?format=binary" } else { "" };
        let (socket, _) = client(format!("ws://{node}/api/v1/live{query}"), stream)
            .map_err(|error| format!("the live socket does not open: {error}"))?;
        let mut viewer = Self { socket, messages: Vec::new() };
        let watch = json!({"type": "watch", "id": 1, "series": [series], "attention": "high", "backfill": 1});
        viewer.socket.send(Message::text(watch.to_string()))?;
        let began = Instant::now();
        while began.elapsed() < FIRST_WITHIN {
            let message = viewer.socket.read()?;
            if !times(&message)?.is_empty() {
                return Ok(viewer);
            }
        }
        Err("the viewer got no sample".into())
    }

    /// Takes messages until `enough` says so, which is asked after each; the node's beats see to it that it is.
    pub fn follow(&mut self, enough: impl Fn() -> bool) -> Result<(), Error> {
        while !enough() {
            let message = self.socket.read()?;
            self.messages.push((Instant::now(), message));
        }
        Ok(())
    }

    /// Every sample that came, by its time, and when.
    pub fn received(&self) -> Result<Vec<(SampleTime, Instant)>, Error> {
        let mut received = Vec::new();
        for (at, message) in &self.messages {
            received.extend(times(message)?.into_iter().map(|time| (time, *at)));
        }
        Ok(received)
    }
}

/// Times of the samples in a message.
fn times(message: &Message) -> Result<Vec<SampleTime>, Error> {
    match message {
        Message::Text(text) => {
            let live: Live = serde_json::from_str(text)?;
            match live.kind.as_str() {
                "error" => Err(format!("the node said: {}", live.message).into()),
                "samples" => {
                    let time = |(ts, _): &(f64, _)| SampleTime::from_millis(*ts).ok_or("a time out of range");
                    Ok(live.samples.iter().map(time).collect::<Result<_, _>>()?)
                }
                _ => Ok(Vec::new()),
            }
        }
        Message::Binary(bytes) => binary_times(bytes).ok_or_else(|| "a binary frame is cut short".into()),
        Message::Close(_) => Err("the node closed the live socket".into()),
        _ => Ok(Vec::new()),
    }
}

fn binary_times(bytes: &[u8]) -> Option<Vec<SampleTime>> {
    let base = f64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?) as i64;
    let count = u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?) as usize;
    let offsets = bytes.get(BINARY_HEADER..BINARY_HEADER + 4 * count)?.chunks_exact(4);
    let time =
        |offset: &[u8]| Some(SampleTime(base + i64::from(u32::from_le_bytes(offset.try_into().ok()?))));
    offsets.map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_both_forms() {
        let text =
            r#"{"type":"samples","series":"a/b","samples":[[1763661600000.001,1],[1763661600004,[1,null]]]}"#;
        let expected = [SampleTime(1_763_661_600_000_001), SampleTime(1_763_661_600_004_000)];
        assert_eq!(times(&Message::text(text)).unwrap(), expected);
        assert_eq!(times(&Message::text(r#"{"type":"beat","ts":1}"#)).unwrap(), []);
        assert!(times(&Message::text(r#"{"type":"error","code":"c","message":"m"}"#)).is_err());

        let mut frame = vec![1, 1, 0, 0, 1, 0, 0, 0];
        frame.extend(1_763_661_600_000_001_f64.to_le_bytes());
        for word in [2_u32, 0, 0, 3_999] {
            frame.extend(word.to_le_bytes());
        }
        frame.extend([0; 8]);
        assert_eq!(times(&Message::binary(frame.clone())).unwrap(), expected);
        assert!(times(&Message::binary(frame[..30].to_vec())).is_err());
    }
}
