//! Watching a room: the series of its sensors, whichever these come to be, each sample once.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::{Level, RoomId};

use crate::common::{Node, Socket, attribute, connect, hear, numbers, say, sensor};

/// 2025-11-21T10:00:00Z in microseconds.
const START: i64 = 1_763_719_200_000_000;

/// Values by series, in the order in which they came.
#[derive(Default)]
struct Seen(BTreeMap<String, Vec<f64>>);

impl Seen {
    fn take(&mut self, message: &Value) {
        let series = self.0.entry(message["series"].as_str().unwrap().to_owned()).or_default();
        series
            .extend(message["samples"].as_array().unwrap().iter().map(|sample| sample[1].as_f64().unwrap()));
    }

    /// Reads until a series has come so far; nothing else may come of others than is said at the end.
    async fn until(&mut self, socket: &mut Socket, series: &str, values: &[f64]) {
        while self.0.get(series).is_none_or(|held| held.len() < values.len()) {
            let message = hear(socket).await.json();
            match message["type"].as_str().unwrap() {
                "samples" => self.take(&message),
                "sensor" | "room" => {}
                _ => panic!("{message}"),
            }
        }
        assert_eq!(self.0[series], values, "{series}");
    }
}

async fn send(node: &Node, of: &str, at: i64) {
    node.append(of, [START + at * 1000], numbers(1, vec![at as f64])).await;
}

#[tokio::test]
async fn a_watched_room_is_what_its_sensors_measure_whichever_these_come_to_be() {
    let node = Node::open();
    for at in 0..5 {
        send(&node, "s1/a", at).await;
        send(&node, "s2/a", at).await;
    }
    let id = node.room("Lab", &["s1", "later"]).await;
    let room = RoomId::new(&id).unwrap();
    let mut socket = connect(&format!("ws://{}/api/v1/live", node.serve().await)).await;
    let mut seen = Seen::default();
    say(&mut socket, json!({"type": "watch", "id": 1, "rooms": [id], "backfill": 2, "attention": "high"}))
        .await;
    seen.until(&mut socket, "s1/a", &[3.0, 4.0]).await;
    send(&node, "s1/a", 5).await;
    seen.until(&mut socket, "s1/a", &[3.0, 4.0, 5.0]).await;
    assert_eq!(node.store().attention(&sensor("s1")), Level::High);
    assert_eq!(node.store().attention(&sensor("s2")), Level::None);

    // A sensor that had sent nothing yet, and an attribute that is new: from their first sample on.
    for at in 0..4 {
        send(&node, "later/a", at).await;
        send(&node, "s1/b", at).await;
    }
    seen.until(&mut socket, "later/a", &[0.0, 1.0, 2.0, 3.0]).await;
    seen.until(&mut socket, "s1/b", &[0.0, 1.0, 2.0, 3.0]).await;
    assert_eq!(node.store().attention(&sensor("later")), Level::High);

    // Added while it is watched: as at the beginning of a watch.
    node.store().add_sensor(&room, &sensor("s2")).unwrap();
    seen.until(&mut socket, "s2/a", &[3.0, 4.0]).await;
    assert_eq!(node.store().attention(&sensor("s2")), Level::High);
    send(&node, "s2/a", 5).await;
    seen.until(&mut socket, "s2/a", &[3.0, 4.0, 5.0]).await;

    // Watched by name as well, and in a second watch of the room: it still comes once.
    say(
        &mut socket,
        json!({"type": "watch", "id": 2, "rooms": [id], "series": ["s1/a"], "attention": "low"}),
    )
    .await;
    send(&node, "s1/a", 6).await;
    seen.until(&mut socket, "s1/a", &[3.0, 4.0, 5.0, 6.0]).await;

    // Removed: nothing of it comes any more, but of what is named.
    node.store().remove_sensor(&room, &sensor("s1")).unwrap();
    node.store().remove_sensor(&room, &sensor("s2")).unwrap();
    let there = |message: &Value| message["type"] == "room" && message["sensors"] == json!(["later"]);
    while !there(&hear(&mut socket).await.json()) {}
    assert_eq!(
        ["s1", "s2", "later"].map(|id| node.store().attention(&sensor(id))),
        [Level::Low, Level::None, Level::High]
    );
    for (of, at) in [("s2/a", 9), ("s1/b", 9), ("s1/a", 7), ("later/a", 4)] {
        send(&node, of, at).await;
    }
    seen.until(&mut socket, "later/a", &[0.0, 1.0, 2.0, 3.0, 4.0]).await;
    assert_eq!(seen.0["s1/a"], [3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!((seen.0["s2/a"].len(), seen.0["s1/b"].len()), (3, 4));

    // The room goes, and with it what was watched through it.
    node.store().delete_room(&room).unwrap();
    while hear(&mut socket).await.json()["gone"] != true {}
    assert_eq!(node.store().attention(&sensor("later")), Level::None);
    send(&node, "later/a", 5).await;
    send(&node, "s1/a", 8).await;
    seen.until(&mut socket, "s1/a", &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).await;
    assert_eq!(seen.0["later/a"].len(), 5);
    say(&mut socket, json!({"type": "unwatch", "id": 2})).await;
    say(&mut socket, json!({"type": "watch", "id": 3, "rooms": [id]})).await;
    let error = hear(&mut socket).await.json();
    assert_eq!((&error["code"], &error["id"]), (&json!("unknown_room"), &json!(3)));
    assert_eq!(node.store().attention(&sensor("s1")), Level::None);
}

#[tokio::test]
async fn a_viewer_of_a_room_that_comes_back_gets_what_it_missed() {
    let node = Node::open();
    // Long ago by its arrival too: `since` alone decides.
    for at in 0..100 {
        send(&node, "s1/a", at).await;
    }
    send(&node, "s2/a", 0).await;
    let id = node.room("Lab", &["s1", "s2"]).await;
    let address = node.serve().await;
    let mut socket = connect(&format!("ws://{address}/api/v1/live")).await;
    let newest = START / 1000 + 97;
    let mut seen = Seen::default();
    say(&mut socket, json!({"type": "watch", "id": 1, "rooms": [id], "since": {"s1/a": newest}})).await;
    while seen.0.get("s1/a").and_then(|held| held.last()) != Some(&99.0) {
        let message = hear(&mut socket).await.json();
        if message["type"] == "samples" {
            seen.take(&message);
        }
    }
    // What arrived in the last 30 s comes too, which is all of it here.
    assert_eq!(seen.0["s1/a"].len(), 100);
    assert_eq!(seen.0.get("s2/a"), None, "no backfill was asked for");
}

#[tokio::test]
async fn a_room_with_more_series_than_a_viewer_may_watch_is_refused_whole() {
    let node = Node::open();
    let (rooms, per_room, each) = (3, 1000, 7);
    let mut ids = Vec::new();
    for room in 0..rooms {
        let sensors: Vec<_> = (0..per_room).map(|number| format!("s{room}-{number}")).collect();
        for id in &sensors {
            for number in 0..each {
                let of = attribute(&format!("a{number}"));
                node.store().series(&sensor(id), &of, store::Shape::Numbers(1)).unwrap();
            }
        }
        ids.push(node.room("Hall", &sensors.iter().map(String::as_str).collect::<Vec<_>>()).await);
    }
    let mut socket = connect(&format!("ws://{}/api/v1/live", node.serve().await)).await;
    say(&mut socket, json!({"type": "watch", "id": 1, "rooms": ids, "attention": "high"})).await;
    let error = hear(&mut socket).await.json();
    assert_eq!((&error["code"], &error["id"]), (&json!("too_many_series"), &json!(1)));
    assert_eq!(node.store().attention(&sensor("s0-0")), Level::None);
    say(&mut socket, json!({"type": "watch", "id": 1, "rooms": ids[..2], "attention": "low"})).await;
    say(&mut socket, json!({"type": "watch", "id": 2, "series": ["s2-0/a0"], "backfill": 1})).await;
    send(&node, "s2-0/a0", 1).await;
    Seen::default().until(&mut socket, "s2-0/a0", &[1.0]).await;
    assert_eq!(node.store().attention(&sensor("s0-0")), Level::Low);
}
