//! A real node for a test: the program itself, on free ports and a data directory of its own; and a device that
//! streams to it over WebSocket.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use firmware_sim::demo::ports;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longest wait for the node to say something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Free addresses. While a node is dead none of its ports is drawn for somebody's connection, so that it can come back.
pub fn addresses<const COUNT: usize>() -> [String; COUNT] {
    let ports = ports::free([127, 0, 0, 1].into(), COUNT).expect("there are free ports");
    std::array::from_fn(|at| format!("127.0.0.1:{}", ports[at]))
}

/// A running node; killed (SIGKILL) when dropped.
pub struct Node {
    /// `127.0.0.1:PORT`.
    pub http: String,
    /// `127.0.0.1:PORT`.
    pub peer: String,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// Starts a node on `data` and any free HTTP port that it can have again.
    pub async fn start(data: &Path) -> Self {
        let [http] = addresses();
        Self::start_at(data, &http).await
    }

    /// Starts a node at this HTTP address.
    pub async fn start_at(data: &Path, http: &str) -> Self {
        Self::start_as("test-node", data, http, "127.0.0.1:0", &[]).await
    }

    /// Starts a node of this name at these addresses, that is to join others.
    pub async fn start_as(name: &str, data: &Path, http: &str, peer: &str, join: &[String]) -> Self {
        let data = data.to_str().expect("a plain path");
        let mut arguments =
            vec!["--name", name, "--data", data, "--http", http, "--mqtt", "127.0.0.1:0", "--peer", peer];
        arguments.extend(join.iter().flat_map(|seed| ["--join", seed]));
        Self::start_with(&arguments, Path::new(".")).await
    }

    /// Starts a node with these arguments in this directory.
    pub async fn start_with(arguments: &[impl AsRef<OsStr>], directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sensorium"))
            .args(arguments)
            .current_dir(directory)
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
        let told = |key: &str| {
            let value = ready.split(' ').find_map(|part| part.trim().strip_prefix(key));
            value.expect("it says its addresses").to_owned()
        };
        Self { http: told("http="), peer: told("peer="), child }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end after `SIGTERM`, and fails when that was not in order.
    pub async fn ended(mut self) {
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time").unwrap();
        assert!(ended.success(), "{ended}");
    }

    /// Waits until it has joined and caught up.
    pub async fn until_ready(&self) {
        let url: hyper::Uri = self.page("/health/ready").parse().unwrap();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build_http::<http_body_util::Empty<bytes::Bytes>>();
        let ready = async {
            while client.get(url.clone()).await.is_ok_and(|answer| !answer.status().is_success()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the node is ready in time");
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
