//! Connections that fail midway, of both kinds.

use std::sync::Arc;
use std::time::Duration;

use firmware_sim::batch::Batch;
use firmware_sim::client::{Client, ClientOptions, Device, GaveUp, Transport};
use firmware_sim::fleet::{self, Scenario};
use firmware_sim::tally::{Summary, Tally};
use ingest::wire::message::Value;
use tokio::time::{Instant, timeout};

use super::broker::Broker;
use super::node::{Node, Script};

/// A guard against hanging; nothing waits for it to pass.
const GUARD: Duration = Duration::from_secs(30);

fn options(transport: Transport) -> ClientOptions {
    ClientOptions { transport, first: 0, patience: GUARD, acks: None, seed: 1, token: None }
}

fn websocket(urls: &[&str], cbor: bool) -> ClientOptions {
    options(Transport::WebSocket { urls: urls.iter().map(ToString::to_string).collect(), cbor })
}

/// Looks again and again, each time that something else has run.
async fn eventually(mut look: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        while !look() {
            looks.tick().await;
        }
    };
    timeout(GUARD, looking).await.expect("it comes about");
}

/// Sends `frames` frames of three samples each.
async fn send(frames: i64, options: ClientOptions) -> (Summary, Result<(), GaveUp>) {
    let tally = Arc::new(Tally::default());
    let device = Device { sensor: "s".into(), ..Device::default() };
    let client = Client::start(device, options, Arc::clone(&tally)).unwrap();
    let sending = async {
        for frame in 0..frames {
            let time = |at| 1_763_661_600_000_000 + frame * 10_000 + at * 3_333;
            let value = |at| Value::Number((frame * 3 + at) as f64 / 7.0);
            let samples = (0..3).map(|at| (time(at), value(at))).collect();
            client.send(Batch { attribute: "a".into(), samples }).await?;
        }
        client.finish().await
    };
    let outcome = timeout(GUARD, sending).await.expect("it ends");
    (tally.summary(), outcome)
}

#[tokio::test]
async fn everything_is_acknowledged_after_drops_and_resent_as_it_was() {
    for cbor in [false, true] {
        let scripts = [Script::DropAfter(7), Script::NoWelcome, Script::DropAfter(20), Script::MoveAfter(5)];
        let node = Node::start(&scripts).await;
        let (summary, outcome) = send(300, websocket(&[&node.url], cbor)).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!((summary.made, summary.sent, summary.acked), (900, 900, 900));
        assert_eq!((summary.gaps, summary.refused, summary.connections), (0, 0, 4), "{summary:?}");
        assert!(summary.resent > 0);
        assert_eq!(node.samples().len(), 900);
        let seen = node.seen.lock().unwrap();
        assert_eq!(seen.hellos.len(), 5);
        assert!(seen.frames.iter().any(|frame| frame.connection == 4));
        let first = seen.frames.iter().find(|frame| frame.connection == 2).unwrap();
        let lost = seen.frames.iter().find(|frame| (frame.connection, frame.seq) == (0, 6)).unwrap();
        assert_eq!(first.samples, lost.samples, "the oldest that was not acknowledged comes first");
        let came: usize = seen.frames.iter().map(|frame| frame.samples.len()).sum();
        assert!(came as u64 <= summary.sent + summary.resent);
    }
}

#[tokio::test]
async fn a_dead_node_is_left_for_another() {
    let gone = Node::start(&[]).await.url.clone();
    let (alive, mute) = (Node::start(&[]).await, Node::start(&[Script::NoWelcome; 50]).await);
    let (summary, outcome) = send(10, websocket(&[&gone, &mute.url, &alive.url], false)).await;
    assert_eq!((outcome, summary.acked, summary.resent), (Ok(()), 30, 0));
    assert_eq!(alive.samples().len(), 30);
}

#[tokio::test]
async fn a_refused_frame_is_counted_and_not_sent_again() {
    let node = Node::start(&[Script::Refuse(3)]).await;
    let (summary, outcome) = send(10, websocket(&[&node.url], false)).await;
    assert_eq!((outcome, summary.acked, summary.refused, summary.gaps), (Ok(()), 27, 3, 3));
    assert!(!summary.complete());
    assert_eq!(summary.complaints.get("refused: value_not_a_number: m"), Some(&1), "{summary:?}");
    assert_eq!(node.seen.lock().unwrap().frames.len(), 10);
}

#[tokio::test]
async fn what_a_node_cannot_keep_now_goes_to_another() {
    let (full, other) = (Node::start(&[Script::CannotKeep(3)]).await, Node::start(&[]).await);
    let (summary, outcome) = send(10, websocket(&[&full.url, &other.url], false)).await;
    assert_eq!((outcome, summary.acked, summary.refused), (Ok(()), 30, 0), "{summary:?}");
    assert_eq!(other.samples().len(), 24);
}

#[tokio::test]
async fn a_refused_hello_ends_it_at_once() {
    let node = Node::start(&[Script::RefuseHello]).await;
    let (summary, outcome) = send(1, websocket(&[&node.url], false)).await;
    assert_eq!((outcome, summary.acked, summary.gaps), (Err(GaveUp), 0, 3));
    assert_eq!(summary.complaints.get("hello: kind_conflict: m"), Some(&1));
    assert_eq!(node.seen.lock().unwrap().hellos.len(), 1);
}

#[tokio::test]
async fn a_silent_node_slows_the_producer_until_it_gives_up() {
    let node = Node::start(&[Script::Mute]).await;
    let patient = ClientOptions { patience: Duration::from_millis(300), ..websocket(&[&node.url], false) };
    let (summary, outcome) = send(10_000, patient).await;
    assert_eq!((outcome, summary.acked, summary.complete()), (Err(GaveUp), 0, false));
    // The window, the queue before it, and the one that was on its way.
    assert!(summary.made <= 3 * (64 + 4 + 1), "{summary:?}");
    assert_eq!(summary.gaps, summary.made);
}

#[tokio::test]
async fn over_mqtt_each_acknowledgement_is_for_its_own_payload() {
    let broker = Broker::start(41).await;
    let (summary, outcome) =
        send(300, options(Transport::Mqtt { addresses: vec![broker.address.clone()] })).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!((summary.made, summary.sent, summary.acked, summary.gaps), (900, 900, 900, 0), "{summary:?}");
    assert_eq!(summary.connections, 2);
    let seen = broker.seen.lock().unwrap();
    let on = |connection| seen.iter().filter(move |published| published.0 == connection);
    assert!(on(0).all(|published| published.1 == "sensors/s/a"));
    // The even ones of the first connection were acknowledged if the answer got through; the odd ones never were.
    for (at, published) in on(0).enumerate().filter(|(at, _)| at % 2 == 0) {
        assert!(
            on(1).any(|again| again.2 == published.2),
            "publish {at} was never acknowledged nor sent again"
        );
    }
    let mut payloads: Vec<_> = seen.iter().map(|published| &published.2).collect();
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), 300, "sent again as it was, and nothing left out");
}

#[tokio::test]
async fn over_mqtt_a_node_may_send_its_devices_to_another() {
    let (leaving, other) = (Broker::start(1000).await, Broker::start(1000).await);
    // DISCONNECT, use another server, with a server reference.
    let reference = format!("mqtt://{}", other.address);
    let length = reference.len() as u8;
    let mut packet = vec![0xe0, length + 5, 0x9c, length + 3, 0x1c, 0, length];
    packet.extend(reference.as_bytes());
    *leaving.says.lock().unwrap() = packet;
    let (summary, outcome) =
        send(100, options(Transport::Mqtt { addresses: vec![leaving.address.clone()] })).await;
    assert_eq!((outcome, summary.acked, summary.gaps), (Ok(()), 300, 0), "{summary:?}");
    assert!(!other.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn advice_and_commands_are_heeded_over_mqtt() {
    let broker = Broker::start(1000).await;
    let published = |topic: &str, payload: &str| {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        body.push(0);
        body.extend(payload.as_bytes());
        [vec![0x30, body.len() as u8], body].concat()
    };
    *broker.says.lock().unwrap() = [
        published("advice/s", r#"{"attention":"low","window_ms":2000,"max_samples":10,"paused":false}"#),
        published("commands/s", r#"{"id":"1","name":"blink"}"#),
    ]
    .concat();
    let device = Device { sensor: "s".into(), ..Device::default() };
    let transport = Transport::Mqtt { addresses: vec![broker.address.clone()] };
    let client = Client::start(device, options(transport), Arc::new(Tally::default())).unwrap();
    let mut advice = client.advice();
    client.send(Batch { attribute: "a".into(), samples: vec![(1, Value::Number(1.0))] }).await.unwrap();
    let advised = timeout(GUARD, advice.wait_for(Option::is_some)).await.expect("advice").unwrap().unwrap();
    assert_eq!((advised.window, advised.samples, advised.paused), (Duration::from_secs(2), 10, false));
    let reply = || broker.seen.lock().unwrap().iter().find(|(_, topic, _)| topic == "replies/s").cloned();
    eventually(|| reply().is_some()).await;
    assert_eq!(reply().unwrap().2, br#"{"id":"1","result":{"name":"blink","params":null}}"#);
}

#[tokio::test]
async fn a_hung_node_is_left_within_three_seconds() {
    for busy in [true, false] {
        // It acknowledges the first frame and says nothing more: not to frames, and not to pings.
        let (hung, alive) = (Node::start(&[Script::HangAfter(1)]).await, Node::start(&[]).await);
        let tally = Arc::new(Tally::default());
        let device = Device { sensor: "s".into(), ..Device::default() };
        let urls = websocket(&[&hung.url, &alive.url], false);
        let client = Client::start(device, urls, Arc::clone(&tally)).unwrap();
        let batch = |time| Batch { attribute: "a".into(), samples: vec![(time, Value::Number(1.0))] };
        client.send(batch(1)).await.unwrap();
        eventually(|| tally.summary().acked == 1).await;
        let began = Instant::now();
        if busy {
            client.send(batch(2)).await.unwrap();
            eventually(|| tally.summary().acked == 2).await;
        } else {
            eventually(|| tally.summary().complaints.contains_key("the node is silent")).await;
        }
        let slow = std::env::var("SENSORIUM_SLOW").is_ok_and(|value| value == "1");
        // Beside other work how long it took says nothing.
        assert!(!slow || began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        client.send(batch(3)).await.unwrap();
        timeout(GUARD, client.finish()).await.expect("it ends").unwrap();
        assert_eq!(alive.samples().len(), if busy { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_device_learns_where_to_go_from_the_welcome() {
    let other = Node::start(&[]).await;
    let dying = Node::telling(&[Script::DropAfter(3)], &[&other.url]).await;
    let (summary, outcome) = send(10, websocket(&[&dying.url], false)).await;
    assert_eq!((outcome, summary.acked), (Ok(()), 30), "{summary:?}");
    assert!(!other.samples().is_empty());
}

#[tokio::test]
async fn a_fleet_introduces_every_device_and_is_acknowledged() {
    let nodes = [Node::start(&[]).await, Node::start(&[]).await];
    // Each of these nodes serves one connection at a time, so there are as many devices as nodes.
    let urls = nodes.iter().map(|node| node.url.clone()).collect();
    let options = fleet::Options {
        duration: Some(Duration::from_millis(600)),
        ..fleet::Options::new(vec![Transport::WebSocket { urls, cbor: false }], 1)
    };
    let members = (0..2).map(|index| fleet::member(Scenario::Wearables, 1, index)).collect();
    let running = fleet::run(members, &options, false, std::future::pending);
    let report = timeout(GUARD, running).await.expect("it ends").unwrap();
    assert!(report.total.complete() && report.total.acked > 150, "{report:?}");
    assert_eq!(report.sensors.len(), 2);
    for (node, sensor) in nodes.iter().zip(["strap-1", "watch-1"]) {
        let hello = node.seen.lock().unwrap().hellos[0].clone();
        assert_eq!(hello["sensor"], sensor);
        assert_eq!(hello["attributes"]["imu"]["kind"], "imu");
        assert_eq!(hello["attributes"]["imu"]["rate_hz"], 50.0);
    }
    assert_eq!(nodes[0].samples().len() + nodes[1].samples().len(), report.total.acked as usize);
}
