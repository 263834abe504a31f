//! Ordinary MQTT: messages between clients, on topics that are no sensor's.

use crate::node::{Node, node};
use crate::raw::{Packet, Raw, packet, puback, text};

/// SUBSCRIBE to `filter` with `options`, answered.
pub async fn subscribe(raw: &mut Raw, v5: bool, filter: &str, options: u8) -> u8 {
    let end: &[u8] = if v5 { &[0] } else { &[] };
    raw.send(&packet(0x82, &[&[0, 9], end, &text(filter.as_bytes())[..], &[options]].concat())).await;
    let (first, body) = raw.packet().await.expect("a SUBACK");
    assert_eq!((first, &body[..2]), (0x90, &[0, 9][..]));
    body[body.len() - 1]
}

async fn unsubscribe(raw: &mut Raw, filter: &str) -> u8 {
    raw.send(&packet(0xa2, &[&[0, 8, 0], &text(filter.as_bytes())[..]].concat())).await;
    let (first, body) = raw.packet().await.expect("an UNSUBACK");
    assert_eq!(first, 0xb0);
    body[body.len() - 1]
}

/// Topic and payload of a version 5 PUBLISH of QoS 0 without properties.
fn message((first, body): &Packet) -> (u8, String, String) {
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let rest = &body[2 + length..];
    let rest = if first & 0b110 == 0 { rest } else { &rest[2..] };
    let properties = usize::from(rest[0]);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (*first, text(&body[2..2 + length]), text(&rest[1 + properties..]))
}

pub async fn next(raw: &mut Raw) -> (u8, String, String) {
    message(&raw.packet().await.expect("a message"))
}

/// Nothing waits for `raw`: what is answered next is its ping.
pub async fn nothing(raw: &mut Raw) {
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap().0, 0xd0);
}

pub async fn publish(raw: &mut Raw, topic: &str, payload: &str) {
    raw.publish(topic, 77, payload).await;
    assert_eq!(puback(&raw.packet().await.unwrap()), (77, 0));
}

async fn pair(node: &Node) -> (Raw, Raw) {
    (Raw::connect(node, true, "publisher").await, Raw::connect(node, true, "subscriber").await)
}

/// The attention that the next advice for `strap-7` tells, and its first byte.
async fn advice(raw: &mut Raw) -> (u8, String) {
    let (first, topic, payload) = next(raw).await;
    assert_eq!(topic, "advice/strap-7");
    let advice: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert!(advice["window_ms"].is_u64() && advice["max_samples"].is_u64(), "{advice}");
    (first, advice["attention"].as_str().unwrap().to_owned())
}

pub fn told(first: u8, topic: &str, payload: &str) -> (u8, String, String) {
    (first, topic.to_owned(), payload.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_is_told_on_its_topic_at_once_and_whenever_it_changes() {
    let node = node().await;
    let (mut any, mut device) = pair(&node).await;
    assert_eq!(subscribe(&mut any, true, "advice/#", 0).await, 0);
    assert_eq!(subscribe(&mut device, true, "advice/strap-7", 0).await, 0);
    assert_eq!(advice(&mut device).await, (0x31, "none".to_owned()), "what holds comes as if retained");
    let sensor = store::SensorId::new("strap-7").unwrap();
    let gaze = node.store.attend(vec![sensor], store::Level::High);
    for raw in [&mut device, &mut any] {
        assert_eq!(advice(raw).await, (0x30, "high".to_owned()));
    }
    drop(gaze);
    let mut late = Raw::connect(&node, true, "late").await;
    assert_eq!(subscribe(&mut late, true, "advice/strap-7", 1).await, 1);
    assert_eq!(advice(&mut late).await, (0x31, "high".to_owned()));
    for raw in [&mut device, &mut any] {
        nothing(raw).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_to_who_subscribed_with_the_lower_qos() {
    let node = node().await;
    let (mut publisher, mut subscriber) = pair(&node).await;
    assert_eq!(subscribe(&mut subscriber, true, "a/+/c", 0).await, 0);
    publish(&mut publisher, "a/b/c", "1").await;
    assert_eq!(next(&mut subscriber).await, told(0x30, "a/b/c", "1"));
    assert_eq!(subscribe(&mut subscriber, true, "a/#", 2).await, 2);
    publish(&mut publisher, "a/b/c", "2").await;
    // Two subscriptions match; it comes once, with the higher QoS, which is the publisher's.
    assert_eq!(next(&mut subscriber).await, told(0x32, "a/b/c", "2"));
    subscriber.send(&packet(0x40, &[0, 1])).await;
    nothing(&mut subscriber).await;
    assert_eq!(unsubscribe(&mut subscriber, "a/#").await, 0);
    assert_eq!(unsubscribe(&mut subscriber, "a/#").await, 0x11);
    publish(&mut publisher, "a/x", "3").await;
    publish(&mut publisher, "a/Ü/c", "4").await;
    assert_eq!(next(&mut subscriber).await, told(0x30, "a/Ü/c", "4"));
    drop((publisher, subscriber));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_come_to_new_subscribers_as_these_ask() {
    let node = node().await;
    let (mut publisher, mut subscriber) = pair(&node).await;
    let retain = |topic: &str, payload: &str| {
        packet(0x31, &[&text(topic.as_bytes())[..], &[0], payload.as_bytes()].concat())
    };
    publisher.send(&retain("r/1", "kept")).await;
    nothing(&mut publisher).await;
    assert_eq!(subscribe(&mut subscriber, true, "r/#", 0).await, 0);
    assert_eq!(next(&mut subscriber).await, told(0x31, "r/1", "kept"));
    // Again: option 1 only for new subscriptions, option 2 never, option 0 always.
    for (options, comes) in [(0x10, false), (0x20, false), (0x00, true)] {
        subscribe(&mut subscriber, true, "r/#", options).await;
        if comes {
            assert_eq!(next(&mut subscriber).await, told(0x31, "r/1", "kept"));
        }
        nothing(&mut subscriber).await;
    }
    // Live, the flag is cleared unless it is to be kept as published.
    publisher.send(&retain("r/1", "new")).await;
    assert_eq!(next(&mut subscriber).await, told(0x30, "r/1", "new"));
    subscribe(&mut subscriber, true, "r/#", 0x28).await;
    publisher.send(&retain("r/1", "newer")).await;
    assert_eq!(next(&mut subscriber).await, told(0x31, "r/1", "newer"));
    // An empty one forgets.
    publisher.send(&retain("r/1", "")).await;
    assert_eq!(next(&mut subscriber).await, told(0x31, "r/1", ""));
    subscribe(&mut subscriber, true, "r/+", 0).await;
    nothing(&mut subscriber).await;
    // One that is too long is refused, and nobody gets it.
    let mut body = text(b"r/1");
    body.extend([0, 5, 0]);
    body.extend(vec![b'x'; 5000]);
    publisher.send(&packet(0x33, &body)).await;
    assert_eq!(puback(&publisher.packet().await.unwrap()), (5, 0x97));
    nothing(&mut subscriber).await;
    drop((publisher, subscriber));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_identifiers_of_version_5() {
    let node = node().await;
    let (mut publisher, mut subscriber) = pair(&node).await;
    // No local.
    subscribe(&mut publisher, true, "o/#", 4).await;
    publish(&mut publisher, "o/1", "own").await;
    nothing(&mut publisher).await;
    // A subscription identifier comes with the message.
    subscriber.send(&packet(0x82, &[&[0, 9, 2, 0x0b, 42], &text(b"o/#")[..], &[0]].concat())).await;
    assert_eq!(subscriber.packet().await.unwrap().0, 0x90);
    publish(&mut publisher, "o/2", "x").await;
    let (_, body) = subscriber.packet().await.unwrap();
    assert_eq!(&body[5..], &[2, 0x0b, 42, b'x'], "{body:?}");
    // Properties are passed on; a topic alias is not, and stands for its topic from then on.
    let properties = [&[0x23, 0, 3, 0x26][..], &text(b"k"), &text(b"v")].concat();
    let aliased = |topic: &[u8], properties: &[u8]| {
        packet(0x30, &[&text(topic)[..], &[properties.len() as u8], properties, b"y"].concat())
    };
    publisher.send(&aliased(b"o/3", &properties)).await;
    let (_, body) = subscriber.packet().await.unwrap();
    let expected = [&text(b"o/3")[..], &[9, 0x26], &text(b"k"), &text(b"v"), &[0x0b, 42], b"y"].concat();
    assert_eq!(body, expected);
    publisher.send(&aliased(b"", &[0x23, 0, 3])).await;
    assert_eq!(next(&mut subscriber).await, told(0x30, "o/3", "y"));
    // Bad filters are refused one by one.
    assert_eq!(subscribe(&mut subscriber, true, "a/#/b", 0).await, 0x8f);
    assert_eq!(subscribe(&mut subscriber, true, "$share/g/sensors/#", 0).await, 0x9e);
    // And those of one packet beyond the 128th.
    let filters: Vec<u8> =
        (0..130).flat_map(|index| [&text(format!("f/{index}").as_bytes())[..], &[0]].concat()).collect();
    subscriber.send(&packet(0x82, &[&[0, 9, 0], &filters[..]].concat())).await;
    let (_, codes) = subscriber.packet().await.unwrap();
    assert_eq!((&codes[3..131], &codes[131..]), (&[0; 128][..], &[0x97, 0x97][..]));
    drop((publisher, subscriber));
    let mut old = Raw::connect(&node, false, "old").await;
    assert_eq!(subscribe(&mut old, false, "a+", 0).await, 0x80);
    drop(old);
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_subscriptions_take_turns() {
    let node = node().await;
    let (mut publisher, mut one) = pair(&node).await;
    let mut two = Raw::connect(&node, true, "two").await;
    subscribe(&mut one, true, "$share/g/t", 0).await;
    subscribe(&mut two, true, "$share/g/t", 0).await;
    for index in 0..10 {
        publish(&mut publisher, "t", &index.to_string()).await;
    }
    let mut got = Vec::new();
    for raw in [&mut one, &mut two] {
        for _ in 0..5 {
            got.push(next(raw).await.2);
        }
        nothing(raw).await;
    }
    got.sort();
    assert_eq!(got, (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
    drop((publisher, one, two));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_left_by_who_vanishes_and_not_by_who_leaves() {
    let node = node().await;
    let mut subscriber = Raw::connect(&node, true, "subscriber").await;
    subscribe(&mut subscriber, true, "will/#", 0).await;
    let with_will = |id: &str, topic: &[u8]| {
        let mut body = text(b"MQTT");
        body.extend([4, 0x06, 0, 0]);
        body.extend(text(id.as_bytes()));
        body.extend(text(topic));
        body.extend(text(b"7"));
        packet(0x10, &body)
    };
    for (id, farewell) in [("vanishes", None), ("leaves", Some([0xe0, 0]))] {
        let mut dying = Raw::open(&node, false).await;
        dying.send(&with_will(id, format!("will/{id}").as_bytes())).await;
        assert_eq!(dying.packet().await.unwrap(), (0x20, vec![0, 0]));
        if let Some(farewell) = farewell {
            dying.send(&farewell).await;
            assert!(dying.packet().await.is_none());
        }
    }
    assert_eq!(next(&mut subscriber).await, told(0x30, "will/vanishes", "7"));
    // A violation is no farewell; and a will on a sensor's topic is a sample.
    let mut dying = Raw::open(&node, false).await;
    dying.send(&with_will("bad", b"sensors/will/state")).await;
    assert_eq!(dying.packet().await.unwrap().0, 0x20);
    dying.send(&[0x20, 2, 0, 0]).await;
    dying.closed_for(0, "CONNACK").await;
    nothing(&mut subscriber).await;
    drop((dying, subscriber));
    node.empty().await;
    assert_eq!(node.count("will", "state"), 1);
    // Where nobody may publish, nobody may leave a will.
    let mut refused = Raw::open(&node, false).await;
    refused.send(&with_will("x", b"$SYS/x")).await;
    assert_eq!(refused.packet().await.unwrap(), (0x20, vec![0, 3]));
}
