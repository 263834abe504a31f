//! What outlives a connection, and how connections end when the node stops.

use std::time::Duration;

use ingest::mqtt::Settings;
use store::cluster::view::{NodeState, NodeView};
use store::{NodeId, NodeName};

use crate::node::{NEVER, Node, node, settings, slow_node_with};
use crate::raw::{Raw, connect, packet, puback, publish, text};

/// Connects version 3.1.1 with a lasting session; whether there was one.
async fn lasting(node: &Node, id: &str) -> (Raw, bool) {
    let mut raw = Raw::open(node, false).await;
    raw.send(&connect(false, id, 0, 0)).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[1]), (0x20, 0));
    (raw, body[0] == 1)
}

async fn subscribe(raw: &mut Raw, filter: &str, qos: u8) {
    raw.send(&packet(0x82, &[&[0, 9], &text(filter.as_bytes())[..], &[qos]].concat())).await;
    assert_eq!(raw.packet().await.unwrap(), (0x90, vec![0, 9, qos]));
}

/// First byte, packet id and payload of a version 3.1.1 PUBLISH of QoS 1 or 2.
async fn message(raw: &mut Raw) -> (u8, u16, String) {
    let (first, body) = raw.packet().await.expect("a message");
    let rest = &body[2 + usize::from(u16::from_be_bytes([body[0], body[1]]))..];
    (first, u16::from_be_bytes([rest[0], rest[1]]), String::from_utf8(rest[2..].to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_session_gets_what_it_missed_and_what_it_did_not_answer() {
    let node = node().await;
    let (mut subscriber, present) = lasting(&node, "away").await;
    assert!(!present);
    subscribe(&mut subscriber, "m", 1).await;
    subscribe(&mut subscriber, "m2", 2).await;
    subscribe(&mut subscriber, "sensors/s/a", 1).await;
    let mut publisher = Raw::connect(&node, false, "publisher").await;
    let mut pkid = 0;
    let mut send = async |topic: &str, payload: &str| {
        pkid += 1;
        publisher.publish(topic, pkid, payload).await;
        assert_eq!(puback(&publisher.packet().await.unwrap()), (pkid, 0));
    };
    send("m", "unanswered").await;
    let (first, unanswered, payload) = message(&mut subscriber).await;
    assert_eq!((first, payload.as_str()), (0x32, "unanswered"));
    drop(subscriber);
    while node.hub.counters.connections.get() > 1 {
        tokio::task::yield_now().await;
    }
    send("m", "missed").await;
    send("sensors/s/a", r#"{"ts":5,"value":0.1}"#).await;
    let (mut subscriber, present) = lasting(&node, "away").await;
    assert!(present);
    assert_eq!(message(&mut subscriber).await, (0x3a, unanswered, "unanswered".to_owned()));
    let (first, second, payload) = message(&mut subscriber).await;
    assert_eq!((first, payload.as_str()), (0x32, "missed"));
    let (first, third, payload) = message(&mut subscriber).await;
    assert_eq!((first, payload.as_str()), (0x32, r#"{"ts":5,"value":0.1}"#));
    for pkid in [unanswered, second, third] {
        subscriber.send(&packet(0x40, &pkid.to_be_bytes())).await;
    }
    // A clean session forgets.
    drop(subscriber);
    let clean = Raw::connect(&node, false, "away").await;
    drop(clean);
    let (subscriber, present) = lasting(&node, "away").await;
    assert!(!present);
    drop((subscriber, publisher));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_delivered_once_across_a_reconnect() {
    let node = node().await;
    let (mut publisher, _) = lasting(&node, "publisher").await;
    let (mut subscriber, _) = lasting(&node, "subscriber").await;
    subscribe(&mut subscriber, "t", 2).await;
    let qos_2 = |first: u8, pkid: u16| {
        let mut bytes = publish(false, b"t", pkid, b"once");
        bytes[0] = first;
        bytes
    };
    publisher.send(&qos_2(0x34, 7)).await;
    assert_eq!(publisher.packet().await.unwrap(), (0x50, vec![0, 7]));
    // The PUBREC was lost on the way, as far as the publisher knows.
    drop(publisher);
    let (mut publisher, present) = lasting(&node, "publisher").await;
    assert!(present);
    publisher.send(&qos_2(0x3c, 7)).await;
    assert_eq!(publisher.packet().await.unwrap(), (0x50, vec![0, 7]));
    publisher.send(&packet(0x62, &[0, 7])).await;
    assert_eq!(publisher.packet().await.unwrap(), (0x70, vec![0, 7]));
    let (first, pkid, payload) = message(&mut subscriber).await;
    assert_eq!((first, payload.as_str()), (0x34, "once"));
    let id = pkid.to_be_bytes();
    subscriber.send(&packet(0x50, &id)).await;
    assert_eq!(subscriber.packet().await.unwrap(), (0x62, id.to_vec()));
    // And the PUBREL here.
    drop(subscriber);
    let (mut subscriber, _) = lasting(&node, "subscriber").await;
    assert_eq!(subscriber.packet().await.unwrap(), (0x62, id.to_vec()));
    subscriber.send(&packet(0x70, &id)).await;
    subscriber.send(&[0xc0, 0]).await;
    assert_eq!(subscriber.packet().await.unwrap(), (0xd0, vec![]));
    drop((publisher, subscriber));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_to_the_newcomer_with_what_waits_in_it() {
    let node = node().await;
    let (mut first, _) = lasting(&node, "same").await;
    subscribe(&mut first, "t", 1).await;
    let mut publisher = Raw::connect(&node, false, "publisher").await;
    publisher.publish("t", 1, "x").await;
    assert_eq!(message(&mut first).await.2, "x");
    let (mut second, present) = lasting(&node, "same").await;
    assert!(present);
    assert!(first.packet().await.is_none());
    let (again, _, payload) = message(&mut second).await;
    assert_eq!((again, payload.as_str()), (0x3a, "x"));
    drop((first, second, publisher));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_reads_nothing_is_ended_and_told_and_costs_the_others_nothing() {
    let node = node().await;
    let (mut deaf, _) = lasting(&node, "deaf").await;
    subscribe(&mut deaf, "t", 1).await;
    let mut publisher = Raw::connect(&node, false, "publisher").await;
    // It answers nothing: 128 are in flight, and no more than 16 384 wait.
    let mut bytes = Vec::new();
    for pkid in 1..=20_000_u16 {
        bytes.extend(publish(false, b"t", pkid, b"x"));
    }
    publisher.send(&bytes).await;
    for pkid in 1..=20_000_u16 {
        assert_eq!(puback(&publisher.packet().await.unwrap()), (pkid, 0));
    }
    let closed = async { while deaf.packet().await.is_some() {} };
    tokio::time::timeout(NEVER, closed).await.unwrap();
    // The loss is told by the session that is not there any more.
    let (deaf, present) = lasting(&node, "deaf").await;
    assert!(!present);
    drop((deaf, publisher));
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_node_stops_clients_are_told_and_the_port_is_closed() {
    let mut node = node().await;
    let mut new = Raw::connect(&node, true, "new").await;
    let mut old = Raw::connect(&node, false, "old").await;
    let silent = Raw::open(&node, true).await;
    node.stop.cancel();
    new.closed_for(0x8b, "shutdown").await;
    old.closed_for(0, "shutdown").await;
    drop(silent);
    tokio::time::timeout(NEVER, &mut node.served).await.unwrap().unwrap();
    assert_eq!(node.hub.counters.connections.get(), 0);
    assert!(tokio::net::TcpStream::connect(node.address).await.is_err());
}

/// What was published before the node stopped is acknowledged before the client is sent on, though its commit takes long.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_what_it_is_owed_and_is_sent_to_another_node() {
    let settings: Settings = settings();
    for (of, state, mqtt) in [
        ("b", NodeState::Alive, "mqtt://10.0.0.2:1883"),
        ("c", NodeState::Down, "mqtt://10.0.0.3:1883"),
        ("d", NodeState::Alive, "mqtt://[::1]:1884"),
    ] {
        let view = settings.nodes.all().into_iter().find(|node| node.me).unwrap();
        let (name, mqtt) = (NodeName::new(of).unwrap(), Some(mqtt.into()));
        settings.nodes.put(NodeView { name, id: NodeId(2), state, mqtt, me: false, ..view });
    }
    let node = slow_node_with(settings, Duration::from_millis(300)).await;
    let mut new = Raw::connect(&node, true, "new").await;
    let mut old = Raw::connect(&node, false, "old").await;
    new.publish("sensors/s/new", 7, "1.5").await;
    old.publish("sensors/s/old", 8, "2.5").await;
    while node.count("s", "new") + node.count("s", "old") < 2 {
        tokio::task::yield_now().await;
    }
    node.stop.cancel();
    assert_eq!(puback(&new.packet().await.unwrap()), (7, 0));
    let (first, body) = new.packet().await.expect("a DISCONNECT");
    assert_eq!((first, body[0]), (0xe0, 0x9c), "use another server");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("10.0.0.2:1883") && text.contains("[::1]:1884"), "{text}");
    assert!(!text.contains("10.0.0.3"), "who is down is no place to go: {text}");
    assert!(new.packet().await.is_none());
    assert_eq!(puback(&old.packet().await.unwrap()), (8, 0));
    assert!(old.packet().await.is_none(), "3.1.1 only closes");
}
