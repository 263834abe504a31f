//! The live socket, over a real connection.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::Values;
use store::cluster::view::NodeState;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use web::server::Limits;

use crate::common::{GUARD, Heard, Node, Socket, connect, hear, numbers, say};

/// 2025-11-21T10:00:00Z in microseconds.
const START: i64 = 1_763_719_200_000_000;

/// Samples as they came: (ts in ms, value) by series. Fails on one that came twice with the same value.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeMap<String, Value>>);

impl Seen {
    fn take(&mut self, message: &Value) {
        assert_eq!(message["type"], "samples", "{message}");
        let series = self.0.entry(message["series"].as_str().unwrap().to_owned()).or_default();
        for sample in message["samples"].as_array().unwrap() {
            let before = series.insert(sample[0].to_string(), sample[1].clone());
            assert_ne!(before.as_ref(), Some(&sample[1]), "{} came twice", sample[0]);
        }
    }

    fn count(&self, series: &str) -> usize {
        self.0.get(series).map_or(0, BTreeMap::len)
    }

    /// The values of `series`, ascending.
    fn values(&self, series: &str) -> Vec<f64> {
        let mut values: Vec<f64> = self.0[series].values().map(|value| value.as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Reads until `series` has `count` samples.
    async fn until(&mut self, socket: &mut Socket, series: &str, count: usize) {
        while self.count(series) < count {
            self.take(&hear(socket).await.json());
        }
    }
}

/// The next message that is not about the catalogue.
async fn hear_samples(socket: &mut Socket) -> Value {
    loop {
        let message = hear(socket).await.json();
        if message["type"] != "sensor" {
            return message;
        }
    }
}

async fn open(node: &Node) -> Socket {
    connect(&format!("ws://{}/api/v1/live", node.serve().await)).await
}

fn upto(count: i32) -> Vec<f64> {
    (0..count).map(f64::from).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backfill_then_live_each_sample_once_while_a_writer_writes() {
    let node = Node::open();
    node.append("s/a", (0..500).map(|i| START + i), numbers(1, upto(500))).await;
    let mut socket = open(&node).await;
    let writer = async {
        for index in 500..3000 {
            node.append("s/a", [START + i64::from(index)], numbers(1, vec![f64::from(index)])).await;
            tokio::task::yield_now().await;
        }
    };
    let reader = async {
        let mut seen = Seen::default();
        say(&mut socket, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 1000})).await;
        while seen.values_max("s/a") < 2999.0 {
            seen.take(&hear(&mut socket).await.json());
        }
        seen
    };
    let ((), seen) = tokio::join!(writer, reader);
    let values = seen.values("s/a");
    // Without a gap from the oldest that the backfill gave to the newest.
    let first = values[0] as i32;
    assert_eq!(values, (first..3000).map(f64::from).collect::<Vec<_>>());
}

impl Seen {
    fn values_max(&self, series: &str) -> f64 {
        let values = self.0.get(series).into_iter().flat_map(BTreeMap::values);
        values.filter_map(Value::as_f64).fold(f64::MIN, f64::max)
    }
}

#[tokio::test]
async fn a_viewer_that_comes_back_gets_what_it_missed() {
    let node = Node::open();
    // Long ago by the sample's time and by its arrival alike: `since` alone decides.
    node.append("s/a", (0..100).map(|i| START + i * 1000), numbers(1, upto(100))).await;
    let address = node.serve().await;
    let mut socket = connect(&format!("ws://{address}/api/v1/live")).await;
    let newest = (START + 90_000) / 1000;
    say(
        &mut socket,
        json!({"type": "watch", "id": 1, "series": ["s/a", "s/b"], "backfill": 5, "since": {"s/a": newest}}),
    )
    .await;
    let mut seen = Seen::default();
    seen.until(&mut socket, "s/a", 9).await;
    // Everything that arrived in the last 30 s comes as well, so at least what is newer.
    assert!(seen.values("s/a").ends_with(&[91.0, 92.0, 93.0, 94.0, 95.0, 96.0, 97.0, 98.0, 99.0]));
    node.append("s/b", [START], numbers(1, vec![7.5])).await;
    let sensor_or_samples = hear_samples(&mut socket).await;
    seen.take(&sensor_or_samples);
    assert_eq!(seen.values("s/b"), [7.5]);
}

#[tokio::test]
async fn a_series_may_be_watched_before_it_exists_and_new_sensors_are_announced() {
    let node = Node::open();
    let mut socket = open(&node).await;
    say(&mut socket, json!({"type": "watch", "id": 1, "series": ["new-1/temperature"]})).await;
    // A message that is answered: from here on the watch is known to be open.
    say(&mut socket, json!({"type": "ask"})).await;
    assert_eq!(hear(&mut socket).await.json()["code"], "unknown_type");
    node.append("new-1/temperature", [START + 250], numbers(1, vec![36.6])).await;
    let (mut samples, mut sensor) = (None, None);
    while samples.is_none() || sensor.is_none() {
        let message = hear(&mut socket).await.json();
        match message["type"].as_str() {
            Some("samples") => samples = Some(message),
            _ => sensor = Some(message),
        }
    }
    assert_eq!(
        samples.unwrap(),
        json!({"type": "samples", "series": "new-1/temperature", "samples": [[START as f64 / 1000.0 + 0.25, 36.6]]})
    );
    let sensor = sensor.unwrap();
    assert_eq!((&sensor["type"], &sensor["sensor"]), (&json!("sensor"), &json!("new-1")));
    assert!(sensor["attributes"]["temperature"]["kind"] == "temperature", "{sensor}");
}

#[tokio::test]
async fn viewers_hear_that_a_sensor_is_gone_and_that_it_is_back() {
    let node = Node::open();
    node.append("s/a", [START, START + 1000], numbers(1, vec![1.0, 2.0])).await;
    let mut socket = open(&node).await;
    say(&mut socket, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 1})).await;
    assert_eq!(hear(&mut socket).await.json()["samples"].as_array().unwrap().len(), 1);
    node.store().clear(&crate::common::sensor("s")).unwrap().kept().await.unwrap();
    assert_eq!(
        hear(&mut socket).await.json(),
        json!({"type": "sensor", "sensor": "s", "name": null, "online": false, "node": "", "last_ts": null,
               "attributes": {}, "gone": true})
    );
    // The watch goes on; a watch that is opened now finds nothing, and then the same.
    let mut late = open(&node).await;
    say(&mut late, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 100})).await;
    say(&mut late, json!({"type": "ask"})).await;
    assert_eq!(hear(&mut late).await.json()["code"], "unknown_type");
    node.append("s/a", [START + 1000], numbers(1, vec![2.0])).await;
    for socket in [&mut socket, &mut late] {
        let (mut samples, mut sensor) = (None, None);
        while samples.is_none() || sensor.is_none() {
            let message = hear(socket).await.json();
            match message["type"].as_str() {
                Some("samples") => samples = Some(message),
                _ => sensor = Some(message),
            }
        }
        assert_eq!(samples.unwrap()["samples"], json!([[START / 1000 + 1, 2]]));
        let sensor = sensor.unwrap();
        assert_eq!((&sensor["sensor"], sensor.get("gone")), (&json!("s"), None));
        assert_eq!(sensor["attributes"]["a"]["held"], 1);
    }
}

#[tokio::test]
async fn a_second_watch_of_a_series_gets_only_what_the_first_did_not() {
    let node = Node::open();
    node.append("s/a", (0..100).map(|i| START + i * 1000), numbers(1, upto(100))).await;
    let mut socket = open(&node).await;
    let mut seen = Seen::default();
    say(&mut socket, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 10})).await;
    seen.until(&mut socket, "s/a", 10).await;
    assert_eq!(seen.values("s/a")[0], 90.0);
    // Out of order, below what was sent: it comes live, and the second backfill leaves it out.
    node.append("s/a", [START + 50_500], numbers(1, vec![50.5])).await;
    seen.until(&mut socket, "s/a", 11).await;
    say(&mut socket, json!({"type": "watch", "id": 2, "series": ["s/a"], "backfill": 60})).await;
    seen.until(&mut socket, "s/a", 60).await;
    assert_eq!(seen.values("s/a")[0], 41.0);
    // With one watch gone the other goes on; with both gone nothing comes.
    say(&mut socket, json!({"type": "unwatch", "id": 1})).await;
    say(&mut socket, json!({"type": "ask"})).await;
    assert_eq!(hear(&mut socket).await.json()["code"], "unknown_type");
    node.append("s/a", [START + 200_000], numbers(1, vec![200.0])).await;
    seen.until(&mut socket, "s/a", 61).await;
    say(&mut socket, json!({"type": "unwatch", "id": 2})).await;
    say(&mut socket, json!({"type": "ask"})).await;
    assert_eq!(hear(&mut socket).await.json()["code"], "unknown_type");
    node.append("s/a", [START + 300_000], numbers(1, vec![300.0])).await;
    say(&mut socket, json!({"type": "ask"})).await;
    assert_eq!(hear(&mut socket).await.json()["code"], "unknown_type");
}

#[tokio::test]
async fn binary_frames_are_named_before_they_come_and_texts_stay_json() {
    let node = Node::open();
    node.append("imu-1/imu", [START, START + 20_000], numbers(3, vec![0.5, 1.5, f64::NAN, -1.0, 2.0, 9.75]))
        .await;
    node.append("door/button", [START], Values::Texts(vec!["open".into()])).await;
    let address = node.serve().await;
    let mut socket = connect(&format!("ws://{address}/api/v1/live?format=binary")).await;
    say(
        &mut socket,
        json!({"type": "watch", "id": 1, "series": ["imu-1/imu", "door/button"], "backfill": 10}),
    )
    .await;
    let named = hear(&mut socket).await.json();
    assert_eq!(
        named,
        json!({"type": "series", "ref": named["ref"], "series": "imu-1/imu", "kind": "imu", "unit": "m/s2",
               "channels": ["ax", "ay", "az"]})
    );
    let Heard::Binary(frame) = hear(&mut socket).await else { panic!("a binary frame") };
    let u32_at = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
    let f32_at = |at: usize| f32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
    assert_eq!((frame[0], frame[1]), (1, 3));
    assert_eq!((Some(u64::from(u32_at(4))), u32_at(16)), (named["ref"].as_u64(), 2));
    assert_eq!(f64::from_le_bytes(frame[8..16].try_into().unwrap()), START as f64);
    assert_eq!((u32_at(24), u32_at(28)), (0, 20_000));
    assert_eq!((f32_at(32), f32_at(36), f32_at(52)), (0.5, 1.5, 9.75));
    assert!(f32_at(40).is_nan());
    let text = hear(&mut socket).await.json();
    assert_eq!((&text["type"], &text["samples"][0][1]), (&json!("samples"), &json!("open")));
    // Named once; a wider sample is announced anew.
    node.append("imu-1/imu", [START + 40_000], numbers(3, vec![1.0; 3])).await;
    assert!(matches!(hear(&mut socket).await, Heard::Binary(frame) if frame[1] == 3));
    node.append("imu-1/imu", [START + 60_000], numbers(6, vec![1.0; 6])).await;
    let renamed = hear_samples(&mut socket).await;
    assert_eq!(
        (renamed["type"].as_str(), renamed["channels"].as_array().unwrap().len()),
        (Some("series"), 6)
    );
    assert!(matches!(hear(&mut socket).await, Heard::Binary(frame) if frame[1] == 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_does_not_keep_up_is_told_and_then_gets_what_the_ring_holds() {
    let node = Node::open();
    node.append("s/a", [START], numbers(1, vec![0.0])).await;
    // However long it takes until this one reads again, it is not given up.
    let patient = Limits { read_within: GUARD, ..Limits::default() };
    let mut socket = connect(&format!("ws://{}/api/v1/live", node.serve_within(patient).await)).await;
    let mut seen = Seen::default();
    say(&mut socket, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 1})).await;
    seen.until(&mut socket, "s/a", 1).await;
    // More than the socket's buffers and the queue hold, while nobody reads; appending is not held up by it.
    let total = 1_000_000;
    for chunk in 0..100 {
        let range = (chunk * 10_000 + 1)..=((chunk + 1) * 10_000);
        let values = range.clone().map(f64::from).collect();
        node.append("s/a", range.map(|index| START + i64::from(index)), numbers(1, values)).await;
    }
    let (mut skipped, mut lags) = (0, 0);
    while seen.values_max("s/a") < f64::from(total) {
        let message = hear(&mut socket).await.json();
        if message["type"] == "lag" {
            lags += 1;
            skipped += message["skipped"].as_u64().unwrap();
        } else {
            seen.take(&message);
        }
    }
    // What did not come live was skipped, and of that, what the ring held came after each `lag`.
    let (came, live) = (seen.count("s/a") as u64, total as u64 + 1 - skipped);
    assert!(lags > 0 && came > live && came <= live + 1000 * lags, "{came} came, {live} live, {lags} lags");
    let values = seen.values("s/a");
    assert_eq!(values[values.len() - 1000..], (total - 999..=total).map(f64::from).collect::<Vec<_>>());
    assert_eq!(node.state.hub().figures().skipped, skipped);
}

#[tokio::test]
async fn bad_messages_get_an_error_and_the_connection_goes_on() {
    let node = Node::open();
    node.append("s/a", [START], numbers(1, vec![1.0])).await;
    let mut socket = open(&node).await;
    for (message, code) in [
        (json!("text"), "bad_message"),
        (json!({"type": "dance"}), "unknown_type"),
        (json!({"type": "watch", "id": 1, "series": ["no slash"]}), "bad_series"),
        (json!({"type": "watch", "id": 1, "rooms": ["r1"]}), "unknown_room"),
        (json!({"type": "watch", "id": 1, "rooms": ["r 1"]}), "bad_room"),
        (json!({"type": "enter", "room": "r1", "id": "ana", "name": "Ana"}), "unknown_room"),
        (json!({"type": "enter", "room": "r 1", "id": "ana", "name": "Ana"}), "bad_room"),
        (json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 1_000_000}), "bad_backfill"),
    ] {
        say(&mut socket, message.clone()).await;
        let error = hear(&mut socket).await.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{message}: {error}");
        assert_eq!(error["id"].as_u64(), message["id"].as_u64(), "{error}");
    }
    say(&mut socket, json!({"type": "watch", "id": 1, "series": ["s/a"], "backfill": 1})).await;
    Seen::default().until(&mut socket, "s/a", 1).await;
    // Each new watch is one more until there are too many.
    for id in 2..=1000 {
        say(&mut socket, json!({"type": "watch", "id": id})).await;
    }
    say(&mut socket, json!({"type": "watch", "id": 1001})).await;
    assert_eq!(hear(&mut socket).await.json()["code"], "too_many_watches");
}

#[tokio::test]
async fn it_beats_and_says_where_to_go_when_the_node_stops() {
    use futures_util::StreamExt;
    let node = Node::open();
    for (of, port, state) in
        [("b", 4001, NodeState::Alive), ("c", 4002, NodeState::Suspect), ("d", 4003, NodeState::Alive)]
    {
        node.put(of, port, state);
    }
    let mut socket = open(&node).await;
    let mut beats = 0;
    while beats < 3 {
        let message = tokio::time::timeout(GUARD, socket.next()).await.unwrap().unwrap().unwrap();
        let beat: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if beat["type"] == "cluster" {
            continue;
        }
        assert!(beat["type"] == "beat" && beat["ts"].as_f64().unwrap() > 1.7e12, "{beat}");
        beats += 1;
    }
    assert_eq!(node.state.hub().figures().viewers, 1);
    node.state.stop().cancel();
    let mut reconnect = hear(&mut socket).await.json();
    assert!(reconnect["delay_ms"].take().as_u64().unwrap() <= 200);
    reconnect["nodes"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    let others = ["ws://127.0.0.1:4001/api/v1/live", "ws://127.0.0.1:4003/api/v1/live"];
    assert_eq!(reconnect, json!({"type": "reconnect", "delay_ms": null, "nodes": others}));
    assert!(matches!(hear(&mut socket).await, Heard::Closed(1001)));
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_gets_no_socket() {
    let node = Node::open();
    let address = node.serve().await;
    let open = async |origin: &str| {
        let mut request = format!("ws://{address}/api/v1/live").into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        tokio_tungstenite::connect_async(request).await
    };
    assert!(open(&format!("http://{address}")).await.is_ok());
    for foreign in ["https://evil.example", "http://127.0.0.1:1", "null"] {
        let Err(Error::Http(refused)) = open(foreign).await else { panic!("{foreign} was let in") };
        assert_eq!(refused.status(), 403);
        let body: Value = serde_json::from_slice(refused.body().as_ref().unwrap()).unwrap();
        assert_eq!(body["error"]["code"], "foreign_origin");
    }
    let bad = tokio_tungstenite::connect_async(format!("ws://{address}/api/v1/live?format=xml")).await;
    assert!(matches!(bad, Err(Error::Http(refused)) if refused.status() == 400));
}
