//! Devices, viewers and the API of one running node together; what was acknowledged survives its death.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::common::{GUARD, Heard, Socket, connect, hear, say};
use crate::process::Running;

/// 2025-11-21T10:00:00Z in milliseconds.
const START: i64 = 1_763_719_200_000;

/// A device that has said hello.
async fn device(http: SocketAddr, sensor: &str) -> Socket {
    let mut socket = connect(&format!("ws://{http}/api/v1/ingest/ws")).await;
    say(
        &mut socket,
        json!({"type": "hello", "sensor": sensor, "attributes": {"ecg": {"kind": "ecg", "keep": 50_000}}}),
    )
    .await;
    let welcome = next(&mut socket, "welcome").await;
    assert!(welcome["limits"]["max_frame_bytes"].is_number(), "{welcome}");
    socket
}

/// The next message of a type, whatever else is said before.
async fn next(socket: &mut Socket, wanted: &str) -> Value {
    loop {
        let message = hear(socket).await.json();
        if message["type"] == wanted {
            return message;
        }
    }
}

/// The frame with number `seq`: ten samples, each the millisecond it was taken in.
fn frame(seq: i64) -> Value {
    let values: Vec<f64> = (0..10).map(|index| value(seq * 10 + index)).collect();
    json!({"type": "samples", "seq": seq, "attribute": "ecg", "ts": START + seq * 10, "interval_ms": 1, "values": values})
}

/// A value with all its digits.
fn value(millis: i64) -> f64 {
    (millis as f64 * 0.1).sin()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The samples of `strap-7/ecg` as the API has them, by millisecond.
async fn read(node: Running) -> (Running, BTreeMap<i64, f64>) {
    let url = format!("http://{}/api/v1/sensors/strap-7/ecg/samples?limit=100000", node.http());
    let body = fetch(&url).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let mut samples = BTreeMap::new();
    for sample in answer["samples"].as_array().unwrap() {
        let at = sample["ts"].as_f64().unwrap() as i64 - START;
        assert_eq!(samples.insert(at, sample["value"].as_f64().unwrap()), None, "{at} is there twice");
    }
    (node, samples)
}

/// `GET` of a body of any length.
async fn fetch(url: &str) -> String {
    use http_body_util::BodyExt;
    let authority = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(&authority).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        axum::http::Request::get(url).header("host", authority).body(axum::body::Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_and_nothing_is_twice() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    let mut acknowledged = 0;
    let mut sent = 0;
    for round in 0..3 {
        let start = path.clone();
        let node = blocking(move || Running::start(&start)).await;
        let mut socket = device(node.http(), "strap-7").await;
        // Frames of this connection, numbered from 1; what was not acknowledged before is sent again.
        let first = acknowledged + 1;
        let mut last = acknowledged;
        let target = first + 200;
        for frame_number in first..target + 100 {
            let mut message = frame(frame_number);
            message["seq"] = (frame_number - first + 1).into();
            say(&mut socket, message).await;
            last = frame_number;
            if frame_number == target {
                // Some frames more are under way when the node dies.
                while acknowledged < first + 100 {
                    let ack = next(&mut socket, "ack").await;
                    assert_eq!(ack["copies"], 1, "{ack}");
                    acknowledged = first - 1 + ack["seq"].as_i64().unwrap();
                }
            }
        }
        blocking(move || node.kill()).await;
        // What was acknowledged before it died may still be in the socket.
        while let Ok(Some(Ok(Message::Text(text)))) = tokio::time::timeout(GUARD, socket.next()).await {
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == "ack" {
                acknowledged = acknowledged.max(first - 1 + message["seq"].as_i64().unwrap());
            }
        }
        sent = sent.max(last);
        assert!(acknowledged >= first + 100, "round {round}");

        let start = path.clone();
        let (node, samples) = read(blocking(move || Running::start(&start)).await).await;
        for at in 10..(acknowledged + 1) * 10 {
            assert_eq!(
                samples.get(&at).map(|value| value.to_bits()),
                Some(value(at).to_bits()),
                "round {round}: {at}"
            );
        }
        assert!(samples.keys().all(|at| (10..(sent + 1) * 10).contains(at)), "round {round}");
        blocking(move || node.kill()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_everybody_to_move_and_keeps_what_was_taken() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    let start = path.clone();
    let node = blocking(move || Running::start(&start)).await;
    let http = node.http();
    let mut strap = device(http, "strap-7").await;
    let mut viewer = connect(&format!("ws://{http}/api/v1/live")).await;
    say(&mut viewer, json!({"type": "watch", "id": 1, "series": ["strap-7/ecg"]})).await;
    for seq in 1..=50 {
        say(&mut strap, frame(seq)).await;
    }
    while next(&mut strap, "ack").await["seq"] != 50 {}
    node.signal(Signal::TERM);
    for (who, socket) in [("device", &mut strap), ("viewer", &mut viewer)] {
        let reconnect = next(socket, "reconnect").await;
        assert!(reconnect["delay_ms"].is_number(), "{who}: {reconnect}");
        assert_eq!(reconnect["nodes"], json!([]), "{who}: there is no other node to go to");
        assert!(matches!(hear(socket).await, Heard::Closed(_)), "{who}");
    }
    let (status, _, log) = blocking(move || node.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    let (_node, samples) = read(blocking(move || Running::start(&path)).await).await;
    assert!(samples.keys().copied().eq(10..510), "{} samples", samples.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sees_each_sample_of_a_device_once_with_backfill_and_since() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    let node = blocking(move || Running::start(&path)).await;
    let http = node.http();
    let mut strap = device(http, "strap-7").await;
    for seq in 1..=20 {
        say(&mut strap, frame(seq)).await;
    }
    while next(&mut strap, "ack").await["seq"] != 20 {}

    let mut seen: BTreeMap<i64, f64> = BTreeMap::new();
    let mut since = None;
    // Twice: a first visit with backfill, a second one from where the first ended.
    for (visit, until) in [(1, 40), (2, 60)] {
        let mut viewer = connect(&format!("ws://{http}/api/v1/live")).await;
        let mut watch = json!({"type": "watch", "id": 1, "series": ["strap-7/ecg"], "backfill": 150, "attention": "high"});
        if let Some(since) = since {
            watch["since"] = json!({"strap-7/ecg": since});
        }
        say(&mut viewer, watch).await;
        let first = if visit == 1 { 21 } else { 41 };
        for seq in first..=until {
            say(&mut strap, frame(seq)).await;
        }
        let mut visited: BTreeMap<i64, f64> = BTreeMap::new();
        while visited.last_key_value().is_none_or(|(at, _)| *at < until * 10 + 9) {
            let message = next(&mut viewer, "samples").await;
            for sample in message["samples"].as_array().unwrap() {
                let at = sample[0].as_f64().unwrap() as i64 - START;
                assert_eq!(
                    visited.insert(at, sample[1].as_f64().unwrap()),
                    None,
                    "visit {visit}: {at} came twice"
                );
            }
        }
        since = visited.last_key_value().map(|(at, _)| START + at);
        seen.extend(visited);
    }
    // From the oldest of the first backfill on nothing is missing, and every digit is right.
    let oldest = *seen.first_key_value().unwrap().0;
    assert!(oldest <= 60, "{oldest}");
    assert!(seen.keys().copied().eq(oldest..610));
    assert!(seen.iter().all(|(at, seen)| seen.to_bits() == value(*at).to_bits()));
    let sensor = fetch(&format!("http://{http}/api/v1/sensors/strap-7")).await;
    assert_eq!(serde_json::from_str::<Value>(&sensor).unwrap()["online"], true);
    let cluster: Value =
        serde_json::from_str(&fetch(&format!("http://{http}/api/v1/cluster")).await).unwrap();
    assert_eq!(cluster["nodes"][0]["devices"], 1, "{cluster}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_foreign_origin_cannot_pose_as_a_device() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    let node = blocking(move || Running::start(&path)).await;
    let mut request = format!("ws://{}/api/v1/ingest/ws", node.http()).into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let Err(Error::Http(refused)) = tokio_tungstenite::connect_async(request).await else {
        panic!("it was let in")
    };
    assert_eq!(refused.status(), 403);
    let body: Value = serde_json::from_slice(refused.body().as_ref().unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "foreign_origin");
    let health = fetch(&format!("http://{}/metrics", node.http())).await;
    assert!(health.contains("\nsensorium_devices 0\n"), "{health}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_mqtt_is_seen_over_http_and_live() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    let node = blocking(move || Running::start(&path)).await;
    let http = node.http();
    let mut viewer = connect(&format!("ws://{http}/api/v1/live")).await;
    say(&mut viewer, json!({"type": "watch", "id": 1, "series": ["room-1/temperature"], "backfill": 10}))
        .await;

    let mqtt: SocketAddr = node.told("mqtt").parse().unwrap();
    let (client, mut events) =
        AsyncClient::new(MqttOptions::new("room", mqtt.ip().to_string(), mqtt.port()), 10);
    let payload = format!(r#"{{"ts":{START}.25,"value":21.3}}"#);
    client.publish("sensors/room-1/temperature", QoS::AtLeastOnce, false, payload).await.unwrap();
    let acknowledged =
        async { while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))) {} };
    tokio::time::timeout(GUARD, acknowledged).await.unwrap();

    let samples = next(&mut viewer, "samples").await;
    assert_eq!(samples["samples"], json!([[START as f64 + 0.25, 21.3]]));
    let body = fetch(&format!("http://{http}/api/v1/sensors/room-1/temperature/samples")).await;
    assert!(body.contains(&format!(r#"{{"ts":{START}.25,"value":21.3}}"#)), "{body}");
    let metrics = fetch(&format!("http://{http}/metrics")).await;
    assert!(metrics.contains("\nsensorium_mqtt_received_total 1\n"), "{metrics}");
}
