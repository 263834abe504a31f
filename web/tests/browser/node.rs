//! A real node for a test: the program itself, on free ports and a data directory of its own; and a device that
//! streams to it over WebSocket.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longest wait for the node to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running node; killed (SIGKILL) when dropped.
pub struct Node {
    /// `127.0.0.1:PORT`.
    pub http: String,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// Starts a node on `data` and any free HTTP port.
    pub async fn start(data: &Path) -> Self {
        Self::start_at(data, "127.0.0.1:0").await
    }

    /// Starts a node at this HTTP address.
    pub async fn start_at(data: &Path, http: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sensorium"))
            .args([
                "serve",
                "--name",
                "test-node",
                "--http",
                http,
                "--mqtt",
                "127.0.0.1:0",
                "--peer",
                "127.0.0.1:0",
            ])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let ready = tokio::task::spawn_blocking(move || {
            let mut lines = output.lines();
            let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("ready "));
            std::thread::spawn(move || lines.for_each(drop));
            ready
        });
        let ready = tokio::time::timeout(PATIENCE, ready).await.expect("the node is ready in time").unwrap();
        let ready = ready.expect("the node says that it is ready");
        let http = ready.split(' ').find_map(|part| part.strip_prefix("http=")).expect("it says its address");
        Self { http: http.to_owned(), child }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The address of a page.
    pub fn page(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

/// A device that streams over WebSocket, a frame at a time.
pub struct Device {
    socket: WebSocketStream<TcpStream>,
    seq: u64,
}

impl Device {
    /// Connects and says hello.
    pub async fn connect(node: &Node, hello: Value) -> Self {
        let stream = TcpStream::connect(&node.http).await.unwrap();
        let (socket, _) = client_async(format!("ws://{}/api/v1/ingest/ws", node.http), stream).await.unwrap();
        let mut device = Self { socket, seq: 0 };
        device.say(&hello).await;
        device.wait_for("welcome").await;
        device
    }

    /// Sends one frame (`type` and `seq` are added) and waits until it is kept.
    pub async fn send(&mut self, mut frame: Value) {
        self.seq += 1;
        frame["type"] = json!("samples");
        frame["seq"] = json!(self.seq);
        self.say(&frame).await;
        while self.wait_for("ack").await["seq"].as_u64() < Some(self.seq) {}
    }

    /// Sends one value measured now.
    pub async fn measure(&mut self, attribute: &str, value: Value) {
        self.send(json!({ "samples": [{ "attribute": attribute, "ts": now_ms(), "value": value }] })).await;
    }

    async fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message of this type; an error from the node fails the test.
    async fn wait_for(&mut self, kind: &str) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the node answers");
            let message = message.expect("the node keeps the connection").unwrap();
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            assert_ne!(message["type"], "error", "{message}");
            if message["type"] == kind {
                return message;
            }
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}
