//! A store in a temporary directory, a router called without a socket, a served node, and WebSocket clients.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::{SinkExt, StreamExt};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use store::cluster::view::{Load, NodeState, NodeView};
use store::{Attribute, Batch, NodeId, NodeName, SampleTime, SensorId, Store, Times, Values};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use web::server::{Limits, Server};
use web::{Addresses, Setup, State};

/// Longer than anything here should take: a guard against waiting forever.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A store, its state, and the directory that goes away with it.
pub(crate) struct Node {
    pub(crate) state: State,
    pub(crate) router: Router,
    _data: tempfile::TempDir,
}

pub(crate) fn sensor(id: &str) -> SensorId {
    SensorId::new(id).unwrap()
}

pub(crate) fn attribute(id: &str) -> Attribute {
    Attribute::new(id).unwrap()
}

pub(crate) fn numbers(channels: usize, flat: Vec<f64>) -> Values {
    Values::Numbers { channels, flat }
}

impl Node {
    pub(crate) fn open() -> Self {
        Self::open_as(|_| {})
    }

    pub(crate) fn open_as(change: impl FnOnce(&mut Setup)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = store::Config::new(data.path(), NodeName::new("a").unwrap());
        let addresses = Addresses {
            http: "http://127.0.0.1:4000".into(),
            mqtt: Some("mqtt://127.0.0.1:1883".into()),
            peer: "127.0.0.1:4400".into(),
        };
        let mut setup = Setup::alone(Store::open(config).unwrap(), addresses);
        change(&mut setup);
        let state = State::new(setup);
        let router = web::router(state.clone());
        Self { state, router, _data: data }
    }

    pub(crate) fn store(&self) -> &Store {
        self.state.store()
    }

    /// Appends samples at these microseconds.
    pub(crate) async fn append(&self, of: &str, micros: impl IntoIterator<Item = i64>, values: Values) {
        let (sensor_id, attribute_id) = of.split_once('/').unwrap();
        let series =
            self.store().series(&sensor(sensor_id), &attribute(attribute_id), values.shape()).unwrap();
        let times = Times::At(micros.into_iter().map(SampleTime).collect());
        self.store().append(vec![Batch { series, times, values }]).await.unwrap();
    }

    /// Another node of its cluster, as the one of that name is now.
    pub(crate) fn put(&self, of: &str, port: u16, state: NodeState) {
        let own = self.state.nodes().all().into_iter().find(|node| node.me).unwrap();
        self.state.nodes().put(NodeView {
            name: NodeName::new(of).unwrap(),
            id: NodeId(u64::from(port)),
            state,
            me: false,
            http: format!("http://127.0.0.1:{port}"),
            mqtt: None,
            load: Load { sensors: 7, devices: 2, samples_per_second: 12.5, ..Load::default() },
            lag: (state == NodeState::Alive).then_some(Duration::from_micros(1500)),
            ..own
        });
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.call(Request::get(path).header("accept", accept).body(Body::empty()).unwrap()).await
    }

    /// Calls with a JSON body, or with none for null.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.call(request.header("content-type", "application/json").body(body).unwrap()).await
    }

    /// Makes a room of this name and these sensors: its id.
    pub(crate) async fn room(&self, name: &str, sensors: &[&str]) -> String {
        let made = self.send("POST", "/api/v1/rooms", json!({"name": name, "sensors": sensors})).await;
        made.json()["room"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let answer = TowerToHyperService::new(self.router.clone()).call(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Serves the node on a port of its own.
    pub(crate) async fn serve(&self) -> SocketAddr {
        self.serve_within(Limits::default()).await
    }

    /// The same, within other limits.
    pub(crate) async fn serve_within(&self, limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(listener, limits);
        tokio::spawn(server.run(self.router.clone(), self.state.stop().clone()));
        address
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Status and code, once the body is exactly what the contract says of errors.
    pub(crate) fn error(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/json", "{}", self.text);
        let body = self.json();
        let error = body["error"].as_object().unwrap();
        assert_eq!((body.as_object().unwrap().len(), error.len()), (1, 2), "{body}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        (self.status.as_u16(), error["code"].as_str().unwrap().to_owned())
    }
}

/// Opens a WebSocket.
pub(crate) async fn connect(url: &str) -> Socket {
    tokio::time::timeout(GUARD, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap().0
}

pub(crate) async fn say(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next message that is neither a beat nor a ping, nor about the cluster: JSON, or the bytes of a binary frame.
pub(crate) async fn hear(socket: &mut Socket) -> Heard {
    loop {
        match hear_any(socket).await {
            Heard::Json(value) if value["type"] == "cluster" => {}
            heard => return heard,
        }
    }
}

/// The next message that is neither a beat nor a ping.
pub(crate) async fn hear_any(socket: &mut Socket) -> Heard {
    loop {
        let message = tokio::time::timeout(GUARD, socket.next()).await.expect("a message in time");
        match message.expect("an open socket").expect("a readable message") {
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] != "beat" {
                    return Heard::Json(value);
                }
            }
            Message::Binary(bytes) => return Heard::Binary(bytes.to_vec()),
            Message::Close(frame) => return Heard::Closed(frame.map_or(1005, |frame| frame.code.into())),
            _ => {}
        }
    }
}

#[derive(Debug)]
pub(crate) enum Heard {
    Json(Value),
    Binary(Vec<u8>),
    Closed(u16),
}

impl Heard {
    pub(crate) fn json(self) -> Value {
        match self {
            Self::Json(value) => value,
            other => panic!("expected JSON, heard {other:?}"),
        }
    }
}
