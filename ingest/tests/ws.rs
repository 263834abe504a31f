//! Devices over WebSocket against a real store: what is acknowledged is kept, and bad input costs its sender alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use ingest::advisor::Advisor;
use ingest::ws::{Settings, WebSockets};
use serde_json::{Value, json};
use store::cluster::view::{NodeState, NodeView, Nodes};
use store::{Config, Level, NodeId, NodeName, Query, SampleTime, SensorId, Store, Values};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take.
const GUARD: Duration = Duration::from_secs(20);

struct Node {
    address: SocketAddr,
    store: Store,
    sockets: WebSockets,
    nodes: Nodes,
    stop: CancellationToken,
    _dir: TempDir,
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("an id")
}

impl Node {
    async fn start() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::slow_with(Duration::ZERO, change).await
    }

    /// A node whose commits wait for so long.
    async fn slow_with(commit_window: Duration, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = Config { commit_window, ..Config::new(dir.path(), name("a")) };
        let store = Store::open(config).expect("it opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let nodes = Nodes::new(name("a"), NodeId(1), format!("http://{address}"), None);
        let mut settings = Settings::new(nodes.clone());
        change(&mut settings);
        let hub = ingest::mqtt::Hub::start(store.clone(), stop.clone());
        let advisor = Advisor::start(store.clone(), hub, stop.clone());
        let sockets = WebSockets::new(store.clone(), settings, advisor, stop.clone());
        let router = sockets.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, store, sockets, nodes, stop, _dir: dir }
    }

    async fn device(&self, sensor: &str) -> Device {
        let mut device = Device::connect(self.address, false).await;
        device.say(json!({"type": "hello", "sensor": sensor})).await;
        assert_eq!(device.hear().await["type"], "welcome");
        device
    }

    /// Another node of its cluster, as the one of that name is now.
    fn put(&self, of: &str, state: NodeState) {
        let own = self.nodes.get(&name("a")).expect("itself");
        let http = format!("https://{of}.example");
        self.nodes.put(NodeView { name: name(of), id: NodeId(2), state, http, me: false, ..own });
    }

    fn held(&self, sensor: &str, attribute: &str) -> Vec<(f64, f64)> {
        let Some(series) = self.store.find(sensor, attribute) else { return Vec::new() };
        let samples = series.read(&Query::newest(usize::MAX));
        let Values::Numbers { channels: 1, flat } = samples.values else { panic!("one channel") };
        samples.times.iter().map(|time| time.millis()).zip(flat).collect()
    }

    /// Awaits that all connections but `count` have ended.
    async fn has_connections(&self, count: usize) {
        let fewer = async {
            while self.sockets.connections() != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(GUARD, fewer).await.expect("connections end");
    }
}

struct Device {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    cbor: bool,
}

impl Device {
    async fn connect(address: SocketAddr, cbor: bool) -> Self {
        let mut request =
            format!("ws://{address}/api/v1/ingest/ws").into_client_request().expect("a request");
        if cbor {
            let protocol = "sensorium.cbor".parse().expect("a header");
            request.headers_mut().insert("sec-websocket-protocol", protocol);
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("it connects");
        Self { socket, cbor }
    }

    async fn say(&mut self, message: Value) {
        let message = if self.cbor {
            Message::binary(ingest::wire::message::to_cbor(&message))
        } else {
            Message::text(message.to_string())
        };
        self.send(message).await;
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("it is sent");
    }

    /// The next message that is no advice.
    async fn hear(&mut self) -> Value {
        loop {
            let said = self.hear_any().await;
            if said["type"] != "advice" {
                return said;
            }
        }
    }

    /// The level of the next advice; acknowledgements and the like are passed over.
    async fn hear_advice(&mut self) -> String {
        loop {
            let said = self.hear_any().await;
            if said["type"] == "advice" {
                assert!(said["window_ms"].is_u64() && said["max_samples"].is_u64(), "{said}");
                assert_eq!(said["paused"], false, "{said}");
                return said["attention"].as_str().expect("a level").to_owned();
            }
        }
    }

    /// The next attention that it did not know is this one. It is told the same again when the node's load is another.
    async fn is_advised(&mut self, knew: &str, level: &str) {
        let mut told = self.hear_advice().await;
        while told == knew {
            told = self.hear_advice().await;
        }
        assert_eq!(told, level);
    }

    async fn hear_any(&mut self) -> Value {
        match timeout(GUARD, self.socket.next())
            .await
            .expect("in time")
            .expect("not closed")
            .expect("no error")
        {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            Message::Binary(bytes) => ingest::wire::message::from_cbor(&bytes).expect("CBOR"),
            other => panic!("{other:?} instead of a message"),
        }
    }

    async fn hear_close(&mut self) -> u16 {
        loop {
            match timeout(GUARD, self.socket.next()).await.expect("in time") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?} instead of a close"),
            }
        }
    }
}

fn one(seq: u64, ts: f64, value: impl Into<Value>) -> Value {
    json!({"type": "samples", "seq": seq, "samples": [{"attribute": "a", "ts": ts, "value": value.into()}]})
}

#[tokio::test]
async fn both_formats_store_both_forms_and_acknowledge_what_is_kept() {
    let node = Node::start().await;
    for (sensor, cbor) in [("json", false), ("cbor", true)] {
        let mut device = Device::connect(node.address, cbor).await;
        let attributes = json!({"ecg": {"kind": "ecg", "rate_hz": 250, "keep": 5000}});
        device
            .say(json!({"type": "hello", "sensor": sensor, "name": "Chest strap", "attributes": attributes}))
            .await;
        let welcome = device.hear().await;
        assert_eq!((welcome["type"].as_str(), welcome["node"].as_str()), (Some("welcome"), Some("a")));
        let limits = json!({"max_frame_bytes": 1_048_576, "max_samples_per_frame": 10_000});
        assert_eq!(welcome["limits"], limits);
        device
            .say(json!({"type": "samples", "seq": 1, "attribute": "ecg", "ts": 1_763_661_600_000.5,
                "interval_ms": 2.778, "values": [0.11, 0.12, -0.145]}))
            .await;
        assert_eq!(device.hear().await, json!({"type": "ack", "seq": 1, "copies": 1}));
        let expected =
            [(1_763_661_600_000.5, 0.11), (1_763_661_600_003.278, 0.12), (1_763_661_600_006.056, -0.145)];
        assert_eq!(node.held(sensor, "ecg"), expected);
        let other = format!("{sensor}-other");
        device
            .say(json!({"type": "samples", "seq": 2, "sensor": other, "samples": [
                {"attribute": "t", "ts": 5, "value": 21.5}, {"attribute": "t", "ts": 4, "value": 21},
                {"attribute": "u", "value": 1}, {"sensor": sensor, "attribute": "t", "ts": 9, "value": 3}]}))
            .await;
        assert_eq!(device.hear().await["seq"], 2);
        assert_eq!(node.held(&other, "t"), [(4.0, 21.0), (5.0, 21.5)]);
        assert_eq!(node.held(sensor, "t"), [(9.0, 3.0)]);
        assert_eq!(node.held(&other, "u").len(), 1);
        let view = node.store.sensor(sensor).expect("it is known");
        assert!(view.online && view.name.as_deref() == Some("Chest strap"));
    }
}

#[tokio::test]
async fn every_bad_frame_gets_its_code_and_the_neighbour_does_not_notice() {
    let node = Node::start().await;
    let mut neighbour = node.device("neighbour").await;
    let mut device = node.device("bad").await;
    device.say(one(1, 1.0, 1.0)).await;
    assert_eq!(device.hear().await["type"], "ack");
    let ahead = SampleTime::now().millis() + 3_600_000.0;
    let many: Vec<Value> = (0..10_001).map(|i| json!({"attribute": "a", "ts": i, "value": 0})).collect();
    let long = "x".repeat(129);
    let bad = [
        (one(0, 2.0, "hot"), "value_not_a_number"),
        (one(0, 2.0, json!([1, "x"])), "value_not_a_number"),
        (one(0, 2.0, true), "value_not_a_number"),
        (one(0, 2.0, json!([null, null])), "value_not_a_number"),
        (one(0, 2.0, json!(vec![0; 17])), "too_many_channels"),
        (one(0, ahead, 1.0), "time_in_future"),
        (one(0, 1e300, 1.0), "bad_time"),
        (json!({"samples": [{"attribute": "a", "ts": "noon", "value": 1}]}), "bad_time"),
        (json!({"samples": [{"attribute": "", "value": 1}]}), "bad_id"),
        (json!({"samples": [{"attribute": long, "value": 1}]}), "bad_id"),
        (json!({"samples": [{"attribute": "a/b", "value": 1}]}), "bad_id"),
        (json!({"sensor": "ä", "samples": [{"attribute": "a", "value": 1}]}), "bad_id"),
        (json!({"samples": many}), "too_many_samples"),
        (json!({"samples": []}), "no_samples"),
        (json!({"samples": 5}), "bad_json"),
        (json!({"samples": [{"attribute": "t", "value": "x".repeat(4097)}]}), "text_too_long"),
        // A good sample before a bad one is not taken either.
        (
            json!({"samples": [{"attribute": "a", "ts": 77, "value": 1}, {"attribute": "a", "ts": 78, "value": "x"}]}),
            "value_not_a_number",
        ),
    ];
    let mut seq = 1;
    for (round, (mut frame, code)) in bad.into_iter().enumerate() {
        seq += 1;
        frame["type"] = "samples".into();
        frame["seq"] = seq.into();
        device.say(frame).await;
        let error = device.hear().await;
        let told = (error["type"].as_str(), error["seq"].as_u64(), error["code"].as_str());
        assert_eq!(told, (Some("error"), Some(seq), Some(code)), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
        neighbour.say(one(round as u64 + 1, round as f64, 2.5)).await;
        assert_eq!(neighbour.hear().await, json!({"type": "ack", "seq": round + 1, "copies": 1}));
    }
    // What is no frame of samples uses no number.
    for (text, code) in [
        ("not json", "bad_json"),
        (r#"{"type":"samples","samples":[]}"#, "malformed"),
        (r#"{"type":"dance"}"#, "malformed"),
        (r#"{"type":"hello","sensor":"a/b"}"#, "bad_id"),
        (r#"{"type":"hello","sensor":"s","attributes":{"a":{"kind":"warp"}}}"#, "unknown_kind"),
        (r#"{"type":"hello","sensor":"bad","attributes":{"a":{"kind":"imu"}}}"#, "kind_conflict"),
        (r#"{"type":"hello","sensor":"s","attributes":{"a":{"keep":0}}}"#, "bad_keep"),
    ] {
        device.send(Message::text(text)).await;
        let error = device.hear().await;
        assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some("error"), Some(code)), "{error}");
        assert_eq!(error.get("seq"), None);
    }
    let huge = r#"{"type":"samples","seq":19,"samples":[{"attribute":"a","value":1e999}]}"#;
    device.send(Message::text(huge)).await;
    assert_eq!(device.hear().await["seq"], 19);
    device.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(device.hear().await["code"], "bad_frame");
    device.say(one(21, 3.0, 1.0)).await;
    let gap = device.hear().await;
    assert_eq!((gap["seq"].as_u64(), gap["code"].as_str()), (Some(21), Some("seq_gap")));
    // And the connection goes on.
    device.say(one(20, 4.0, 4.0)).await;
    assert_eq!(device.hear().await, json!({"type": "ack", "seq": 20, "copies": 1}));
    assert_eq!(node.held("bad", "a"), [(1.0, 1.0), (4.0, 4.0)]);
    assert_eq!(node.held("neighbour", "a").len(), 17);
    let ledger = node.store.ledger("bad").expect("it is known");
    assert_eq!(ledger.stored, 2);
    assert_eq!(ledger.refused["too_many_samples"], 10_001);
    assert_eq!(ledger.received, ledger.stored + ledger.refused.values().sum::<u64>());
    drop((device, neighbour));
    node.has_connections(0).await;
    assert!(!node.store.sensor("bad").expect("it is known").online);
}

#[tokio::test]
async fn cbor_that_is_none_or_not_finite_is_refused() {
    let node = Node::start().await;
    let mut device = Device::connect(node.address, true).await;
    device.say(json!({"type": "hello", "sensor": "s"})).await;
    assert_eq!(device.hear().await["type"], "welcome");
    device.send(Message::binary(vec![0xff, 0x00])).await;
    assert_eq!(device.hear().await["code"], "bad_cbor");
    for (seq, number) in [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY)] {
        let mut bytes = ingest::wire::message::to_cbor(&one(seq, 1.0, 0.1));
        let at = bytes.windows(8).position(|bytes| bytes == 0.1f64.to_be_bytes()).expect("the value");
        bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        device.send(Message::binary(bytes)).await;
        let error = device.hear().await;
        assert_eq!((error["seq"].as_u64(), error["code"].as_str()), (Some(seq), Some("value_not_a_number")));
    }
    device.say(one(4, 1.0, 0.5)).await;
    assert_eq!(device.hear().await["type"], "ack");
}

#[tokio::test]
async fn samples_come_after_hello() {
    let node = Node::start().await;
    let mut device = Device::connect(node.address, false).await;
    device.say(one(1, 1.0, 1.0)).await;
    let error = device.hear().await;
    assert_eq!((error["seq"].as_u64(), error["code"].as_str()), (Some(1), Some("hello_expected")));
    device.say(json!({"type": "hello", "sensor": "s"})).await;
    assert_eq!(device.hear().await["type"], "welcome");
    device.say(one(2, 1.0, 1.0)).await;
    assert_eq!(device.hear().await, json!({"type": "ack", "seq": 2, "copies": 1}));
}

#[tokio::test]
async fn a_frame_that_is_too_large_closes_the_connection() {
    let node = Node::start().await;
    let mut neighbour = node.device("neighbour").await;
    for bytes in [(1 << 20) + 1, 2 << 20] {
        let mut device = node.device("large").await;
        device.send(Message::text("x".repeat(bytes))).await;
        assert_eq!(device.hear_close().await, 1009);
    }
    neighbour.say(one(1, 1.0, 1.0)).await;
    assert_eq!(neighbour.hear().await["type"], "ack");
    drop(neighbour);
    node.has_connections(0).await;
}

#[tokio::test]
async fn silence_ends_a_connection_before_hello_after_it_and_within_a_frame() {
    let node = Node::with(|settings| settings.hello_within = Duration::from_millis(200)).await;
    let mut mute = Device::connect(node.address, false).await;
    assert_eq!(mute.hear_close().await, 1000);
    drop(mute);
    node.has_connections(0).await;
    let node = Node::with(|settings| settings.silence = Duration::from_millis(400)).await;
    let mut silent = node.device("s").await;
    assert_eq!(silent.hear_close().await, 1000);
    // Half a frame: its header promises 100 bytes, 10 come.
    let mut half = node.device("half").await;
    let MaybeTlsStream::Plain(stream) = half.socket.get_mut() else { panic!("plain TCP") };
    stream.write_all(&[0x81, 0xe4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await.expect("it is sent");
    assert_eq!(half.hear_close().await, 1000);
    drop((silent, half));
    node.has_connections(0).await;
}

#[tokio::test]
async fn a_clock_that_stepped_back_is_told() {
    let node = Node::start().await;
    let mut device = node.device("s").await;
    let spaced = |seq: u64, ts: u64, count: usize| json!({"type": "samples", "seq": seq, "attribute": "a", "ts": ts, "interval_ms": 1, "values": vec![1; count]});
    device.say(spaced(1, 1_000_000, 1000)).await;
    assert_eq!(device.hear().await["type"], "ack");
    device.say(spaced(2, 10, 100)).await;
    let (mut notice, mut ack) = (false, false);
    for _ in 0..2 {
        let message = device.hear().await;
        notice |= message["code"] == "clock_stepped";
        ack |= message["seq"] == 2;
    }
    assert!(notice && ack);
}

#[tokio::test]
async fn a_device_knows_at_any_time_where_else_it_may_go() {
    let node = Node::start().await;
    let own = format!("ws://{}/api/v1/ingest/ws", node.address);
    let mut device = Device::connect(node.address, false).await;
    device.say(json!({"type": "hello", "sensor": "s"})).await;
    assert_eq!(device.hear().await["nodes"], json!([own]));
    node.put("b", NodeState::Alive);
    let told = json!({"type": "nodes", "nodes": [own, "wss://b.example/api/v1/ingest/ws"]});
    assert_eq!(device.hear().await, told);
    // Figures are no news; a node that is silent is no place to go.
    node.nodes.event("b", store::cluster::view::Happening::Suspected);
    node.put("b", NodeState::Suspect);
    assert_eq!(device.hear().await["nodes"], json!([own]));
    node.put("b", NodeState::Alive);
    assert_eq!(device.hear().await, told);
    let mut late = Device::connect(node.address, true).await;
    late.say(json!({"type": "hello", "sensor": "t"})).await;
    assert_eq!(late.hear().await["nodes"], told["nodes"]);
    node.stop.cancel();
    for device in [&mut device, &mut late] {
        let last = device.hear().await;
        assert_eq!((&last["type"], &last["nodes"]), (&json!("reconnect"), &json!([told["nodes"][1]])));
        assert!(last["delay_ms"].as_u64().expect("a delay") <= 200, "{last}");
        assert_eq!(device.hear_close().await, 1001);
    }
}

#[tokio::test]
async fn a_device_is_advised_by_the_closest_watched_of_its_sensors() {
    let node = Node::start().await;
    let sensor = |name: &str| vec![SensorId::new(name).expect("an id")];
    let mut device = node.device("gateway").await;
    // It is told from the start.
    device.is_advised("", "none").await;
    let low = node.store.attend(sensor("gateway"), Level::Low);
    device.is_advised("none", "low").await;
    // A gateway speaks for others too, from when it does.
    let medium = node.store.attend(sensor("strap-7"), Level::Medium);
    device
        .say(json!({"type": "samples", "seq": 1, "sensor": "strap-7", "attribute": "a", "ts": 1, "values": [1]}))
        .await;
    device.is_advised("low", "medium").await;
    let high = node.store.attend(sensor("strap-7"), Level::High);
    device.is_advised("medium", "high").await;
    // Another device is told of its own sensors alone; the one that comes back is told anew.
    let mut other = node.device("other").await;
    assert_eq!(other.hear_advice().await, "none");
    drop((low, medium, high));
    let mut again = node.device("strap-7").await;
    assert_eq!(again.hear_advice().await, "high", "who looked away may look back");
}

/// On this one thread the node runs too: as long as it is busy here, the node is late for all that it has to do.
#[tokio::test]
async fn a_node_under_load_asks_its_devices_for_larger_batches() {
    let node = Node::start().await;
    let mut device = node.device("s").await;
    device.is_advised("", "none").await;
    let _gaze = node.store.attend(vec![SensorId::new("s").expect("an id")], Level::Medium);
    device.is_advised("none", "medium").await;
    let loaded = async {
        loop {
            let busy = Instant::now();
            while busy.elapsed() < Duration::from_millis(700) {
                std::hint::spin_loop();
            }
            // Cancel-safe: it waits for a message.
            let Ok(said) = timeout(Duration::from_millis(20), device.hear_any()).await else { continue };
            if said["type"] == "advice" && said["window_ms"] != 500 {
                break said;
            }
        }
    };
    let advice = timeout(GUARD, loaded).await.expect("it notices that it is late");
    let told = (advice["window_ms"].as_u64(), advice["max_samples"].as_u64());
    let (window, samples) = (told.0.expect("a time"), told.1.expect("a number"));
    assert!([(750, 8), (1500, 15), (2500, 25)].contains(&(window, samples)), "{advice}");
    assert_eq!((&advice["attention"], &advice["paused"]), (&json!("medium"), &json!(false)));
}

/// A device is told at once that the node goes, and gets the acknowledgement of what it sent before, though its commit
/// takes long; what it sends later it sends again elsewhere.
#[tokio::test]
async fn a_node_that_stops_acknowledges_what_it_took() {
    let node = Node::slow_with(Duration::from_millis(300), |_| ()).await;
    let mut device = node.device("s").await;
    device.say(one(1, 1.0, 1.0)).await;
    let taken = async {
        while node.held("s", "a").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(GUARD, taken).await.expect("it is taken");
    node.stop.cancel();
    let last = device.hear().await;
    assert_eq!((&last["type"], &last["nodes"]), (&json!("reconnect"), &json!([])));
    device.say(one(2, 2.0, 2.0)).await;
    assert_eq!(device.hear().await, json!({"type": "ack", "seq": 1, "copies": 1}));
    assert_eq!(device.hear_close().await, 1001);
    assert_eq!(node.held("s", "a"), [(1.0, 1.0)]);
}

#[tokio::test]
async fn one_connection_too_many_is_answered_503() {
    let node = Node::with(|settings| settings.max_connections = 1).await;
    let _device = node.device("s").await;
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/api/v1/ingest/ws", node.address)).await;
    assert!(refused.expect_err("it is full").to_string().contains("503"));
}
