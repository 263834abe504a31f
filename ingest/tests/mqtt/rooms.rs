//! Samples by room: what is sent on `rooms/{room}/…`, and what is not.

use std::time::Instant;

use store::{Attribute, Batch, NewRoom, RoomId, SampleTime, SensorId, Shape, Times, Values};

use crate::node::{NEVER, Node, node};
use crate::raw::{Raw, packet, puback, text};

/// Samples of one measurement of what an append costs.
const MEASURED: i64 = 20_000;

fn sensor(id: &str) -> SensorId {
    SensorId::new(id).unwrap()
}

fn room(node: &Node, sensors: &[&str]) -> RoomId {
    let sensors = sensors.iter().map(|id| sensor(id)).collect();
    node.store.create_room(NewRoom { name: "Lab".into(), temporary: false, sensors }).unwrap().0.room
}

async fn subscribe(raw: &mut Raw, filter: &str) -> u8 {
    raw.send(&packet(0x82, &[&[0, 9, 0], &text(filter.as_bytes())[..], &[0]].concat())).await;
    raw.packet().await.expect("a SUBACK").1[3]
}

/// Topic and payload of the next message.
async fn next(raw: &mut Raw) -> (String, String) {
    let (first, body) = raw.packet().await.expect("a message");
    assert_eq!(first, 0x30, "{body:?}");
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&body[2..2 + length]), text(&body[3 + length..]))
}

async fn nothing(raw: &mut Raw) {
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap().0, 0xd0);
}

/// Sends a sample and waits until it is kept.
async fn measure(device: &mut Raw, sensor: &str, ts: u32) {
    device.publish(&format!("sensors/{sensor}/t"), 7, &format!(r#"{{"ts":{ts},"value":1}}"#)).await;
    assert_eq!(puback(&device.packet().await.unwrap()), (7, 0));
}

fn sample(topic: &str, ts: u32) -> (String, String) {
    (topic.to_owned(), format!(r#"{{"ts":{ts},"value":1}}"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_followed_through_all_that_happens_to_it() {
    let node = node().await;
    let lab = room(&node, &["in"]);
    let mut device = Raw::connect(&node, true, "device").await;
    let mut raw = Raw::connect(&node, true, "subscriber").await;
    assert_eq!(subscribe(&mut raw, &format!("rooms/{lab}/#")).await, 0);
    // A series that is new, and one of a sensor that is in no room.
    measure(&mut device, "out", 1).await;
    measure(&mut device, "in", 1).await;
    assert_eq!(next(&mut raw).await, sample(&format!("rooms/{lab}/in/t"), 1));
    nothing(&mut raw).await;
    // It comes into the room, and goes.
    node.store.add_sensor(&lab, &sensor("out")).unwrap();
    measure(&mut device, "out", 2).await;
    assert_eq!(next(&mut raw).await, sample(&format!("rooms/{lab}/out/t"), 2));
    node.store.remove_sensor(&lab, &sensor("out")).unwrap();
    measure(&mut device, "out", 3).await;
    nothing(&mut raw).await;
    // It was put in before it ever sent anything.
    node.store.add_sensor(&lab, &sensor("later")).unwrap();
    measure(&mut device, "later", 4).await;
    assert_eq!(next(&mut raw).await, sample(&format!("rooms/{lab}/later/t"), 4));
    node.store.delete_room(&lab).unwrap();
    measure(&mut device, "in", 5).await;
    nothing(&mut raw).await;
    drop((device, raw));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_that_reaches_a_room_gets_its_samples_once_for_each_topic() {
    let node = node().await;
    let rooms = [room(&node, &["s"]), room(&node, &["s", "other"])];
    let mut topics: Vec<String> = rooms.iter().map(|room| format!("rooms/{room}/s/t")).collect();
    topics.sort();
    let mut device = Raw::connect(&node, true, "device").await;
    let own = format!("rooms/{}/s/t", rooms[0]);
    let below = format!("rooms/{}/+/t", rooms[0]);
    let with_sensors = [vec!["sensors/s/t".to_owned()], topics.clone()].concat();
    let mut subscribers = Vec::new();
    for (filters, expected) in [
        (vec![own.as_str()], vec![own.clone()]),
        (vec![below.as_str(), own.as_str()], vec![own.clone()]),
        (vec!["rooms/#"], topics.clone()),
        (vec!["rooms/+/s/#", "+/+/+/t"], topics.clone()),
        (vec!["#"], with_sensors.clone()),
        (vec!["rooms/#", "sensors/+/t"], with_sensors),
        (vec!["rooms/nowhere/#", "rooms/+/other/#"], vec![]),
    ] {
        let mut raw = Raw::connect(&node, true, &filters.join(" ")).await;
        for filter in filters {
            assert_eq!(subscribe(&mut raw, filter).await, 0, "{filter}");
        }
        subscribers.push((raw, expected));
    }
    measure(&mut device, "s", 1).await;
    for (raw, expected) in &mut subscribers {
        let mut got = Vec::new();
        for _ in 0..expected.len() {
            got.push(next(raw).await);
        }
        got.sort();
        let mut expected: Vec<_> = expected.iter().map(|topic| sample(topic, 1)).collect();
        expected.sort();
        assert_eq!(got, expected);
        nothing(raw).await;
    }
    // A filter that ends leaves the others what is theirs.
    let (raw, _) = &mut subscribers[1];
    raw.send(&packet(0xa2, &[&[0, 8, 0], &text(below.as_bytes())[..]].concat())).await;
    assert_eq!(raw.packet().await.unwrap().0, 0xb0);
    measure(&mut device, "s", 2).await;
    assert_eq!(next(raw).await, sample(&own, 2));
    nothing(raw).await;
    drop((device, subscribers));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_publish_neither_samples_of_rooms_nor_advice() {
    let node = node().await;
    let mut raw = Raw::connect(&node, true, "x").await;
    assert_eq!(subscribe(&mut raw, "#").await, 0);
    for topic in ["rooms/r1/s/t", "rooms/", "advice/s"] {
        raw.publish(topic, 5, "1").await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (5, 0x90), "{topic}");
    }
    nothing(&mut raw).await;
    assert_eq!(subscribe(&mut raw, "$share/g/rooms/r1/#").await, 0x9e);
    drop(raw);
    node.empty().await;
}

/// Prints what a sample of a sensor in no room costs with and without subscribers to rooms.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_a_sensor_in_no_room_costs_nothing_more() {
    let node = node().await;
    room(&node, &["in"]);
    let mut from = 0;
    let mut append = async || {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let series =
                node.store.series(&sensor("out"), &Attribute::new("t").unwrap(), Shape::Numbers(1)).unwrap();
            let times = (from..from + MEASURED).map(SampleTime).collect();
            from += MEASURED;
            let values = Values::Numbers { channels: 1, flat: vec![1.0; MEASURED as usize] };
            let batch = Batch { series, times: Times::At(times), values };
            let began = Instant::now();
            node.store.append(vec![batch]).await.unwrap();
            best = f64::min(best, began.elapsed().as_nanos() as f64 / MEASURED as f64);
        }
        best
    };
    let without = append().await;
    let mut subscribers = Vec::new();
    for index in 0..100 {
        let mut raw = Raw::connect(&node, true, &format!("c{index}")).await;
        assert_eq!(subscribe(&mut raw, "rooms/#").await, 0);
        subscribers.push(raw);
    }
    let with = append().await;
    println!("a sample: {without:.0} ns without subscribers to rooms, {with:.0} ns with 100");
    // Unoptimised, and on busy cores: a look at each of the subscribers would take far longer.
    assert!(with < 3.0 * without + 100.0, "{without} ns became {with} ns");
    drop(subscribers);
    tokio::time::timeout(NEVER, node.empty()).await.unwrap();
}
