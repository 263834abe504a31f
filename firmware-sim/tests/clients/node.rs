//! A node of a few lines: it says welcome, notes every frame, acknowledges, and fails as its script says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use ingest::wire::message::{CBOR, FromNode, Limits, from_cbor, to_cbor};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// How a connection goes; when there is no script left, everything is acknowledged at once.
#[derive(Debug, Clone, Copy)]
pub enum Script {
    /// Take so many frames, acknowledge all but the last two, and drop the connection.
    DropAfter(u64),
    /// After so many frames, tell the device to reconnect.
    MoveAfter(u64),
    /// Refuse the frame with this number.
    Refuse(u64),
    /// Refuse the frame with this number as one that cannot be kept now.
    CannotKeep(u64),
    /// Refuse the hello.
    RefuseHello,
    /// Close before the welcome.
    NoWelcome,
    /// Acknowledge nothing, ever.
    Mute,
    /// Acknowledge so many frames, then neither read nor say anything; the node serves nobody any more.
    HangAfter(u64),
}

/// One frame as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub connection: usize,
    pub seq: u64,
    /// (attribute, time in microseconds, value as JSON)
    pub samples: Vec<(String, i64, String)>,
}

#[derive(Debug, Default)]
pub struct Seen {
    pub hellos: Vec<Value>,
    pub frames: Vec<Frame>,
}

pub struct Node {
    pub url: String,
    pub seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Starts on a free port; connections follow the scripts in turn.
    pub async fn start(scripts: &[Script]) -> Self {
        Self::telling(scripts, &[]).await
    }

    /// Starts on a free port, and tells devices of these nodes.
    pub async fn telling(scripts: &[Script], nodes: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (own, mut scripts) = (Arc::clone(&seen), VecDeque::from(scripts.to_vec()));
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, connection, scripts.pop_front(), &nodes, &own).await;
            }
        });
        Self { url, seen, task }
    }

    /// Every sample that came, each once, in order of time; panics when one came twice with different values.
    pub fn samples(&self) -> Vec<(String, i64, String)> {
        let mut all: Vec<_> =
            self.seen.lock().unwrap().frames.iter().flat_map(|frame| frame.samples.clone()).collect();
        all.sort();
        all.dedup();
        let same = |a: &(String, i64, String), b: &(String, i64, String)| (&a.0, a.1) == (&b.0, b.1);
        assert!(all.windows(2).all(|pair| !same(&pair[0], &pair[1])), "a resent sample has another value");
        all
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn serve(
    stream: tokio::net::TcpStream,
    connection: usize,
    script: Option<Script>,
    nodes: &[String],
    seen: &Mutex<Seen>,
) {
    let mut cbor = false;
    let negotiate = |request: &Request, mut response: Response| {
        if let Some(asked) = request.headers().get("sec-websocket-protocol") {
            assert_eq!(asked, CBOR);
            cbor = true;
            response.headers_mut().insert("sec-websocket-protocol", asked.clone());
        }
        Ok(response)
    };
    // A client may give up while it connects.
    let Ok(mut socket) = accept_hdr_async(stream, negotiate).await else { return };
    let say = |message: FromNode| {
        if cbor {
            Message::binary(to_cbor(&message))
        } else {
            Message::text(serde_json::to_string(&message).unwrap())
        }
    };
    let mut count = 0;
    while let Some(Ok(message)) = socket.next().await {
        let message: Value = match &message {
            Message::Text(text) if !cbor => serde_json::from_str(text).unwrap(),
            Message::Binary(bytes) if cbor => from_cbor(bytes).unwrap(),
            Message::Ping(_) | Message::Pong(_) => continue,
            _ => return,
        };
        if message["type"] == "hello" {
            seen.lock().unwrap().hellos.push(message);
            if matches!(script, Some(Script::NoWelcome)) {
                return;
            }
            if matches!(script, Some(Script::RefuseHello)) {
                let (code, message) = ("kind_conflict".into(), "m".into());
                socket.send(say(FromNode::Error { seq: None, code, message })).await.unwrap();
                continue;
            }
            let limits = Limits { max_frame_bytes: 1 << 20, max_samples_per_frame: 10_000 };
            let welcome = FromNode::Welcome { node: "n".into(), nodes: nodes.to_vec(), limits };
            socket.send(say(welcome)).await.unwrap();
            continue;
        }
        count += 1;
        assert_eq!(message["seq"], count, "frames are counted up from 1 on each connection");
        seen.lock().unwrap().frames.push(Frame { connection, seq: count, samples: samples(&message) });
        let ack = |seq| say(FromNode::Ack { seq, copies: 2 });
        let sent = match script {
            Some(Script::Mute) => Ok(()),
            Some(Script::DropAfter(last)) if count == last => return,
            Some(Script::DropAfter(last)) if count + 1 == last => Ok(()),
            Some(Script::MoveAfter(last)) if count > last => Ok(()),
            Some(Script::MoveAfter(last)) if count == last => {
                socket.send(say(FromNode::Reconnect { delay_ms: 1, nodes: Vec::new() })).await
            }
            Some(Script::Refuse(refused)) if count == refused => {
                let (code, message) = ("value_not_a_number".into(), "m".into());
                socket.send(say(FromNode::Error { seq: Some(count), code, message })).await
            }
            Some(Script::CannotKeep(refused)) if count == refused => {
                let (code, message) = ("store_failed".into(), "m".into());
                socket.send(say(FromNode::Error { seq: Some(count), code, message })).await
            }
            _ => socket.send(ack(count)).await,
        };
        if sent.is_err() {
            return;
        }
        if matches!(script, Some(Script::HangAfter(last)) if count == last) {
            // Nothing is read, so not even the end of the connection is noticed.
            return std::future::pending().await;
        }
    }
}

fn samples(frame: &Value) -> Vec<(String, i64, String)> {
    let us = |ms: f64| (ms * 1000.0).round() as i64;
    let attribute = |of: &Value| of["attribute"].as_str().unwrap().to_owned();
    if let Some(samples) = frame["samples"].as_array() {
        return samples
            .iter()
            .map(|sample| {
                (attribute(sample), us(sample["ts"].as_f64().unwrap()), sample["value"].to_string())
            })
            .collect();
    }
    let (first, interval) = (frame["ts"].as_f64().unwrap(), frame["interval_ms"].as_f64().unwrap());
    let values = frame["values"].as_array().unwrap().iter().enumerate();
    values
        .map(|(at, value)| (attribute(frame), us(first + at as f64 * interval), value.to_string()))
        .collect()
}
