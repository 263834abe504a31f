//! Bad input of every sort: each gets its stated error, costs its sender alone, and leaks nothing.

use std::time::Duration;

use ingest::mqtt::Settings;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use store::SampleTime;

use crate::node::{NEVER, Node, node, node_with, settings};
use crate::raw::{Raw, connect, packet, puback, publish, reason_string, text};

/// A neighbour whose stream must not notice anything.
struct Neighbour {
    raw: Raw,
    sent: u16,
}

impl Neighbour {
    async fn of(node: &Node) -> Self {
        Self { raw: Raw::connect(node, true, "neighbour").await, sent: 0 }
    }

    async fn is_well(&mut self, node: &Node) {
        self.sent += 1;
        let payload = format!(r#"{{"ts":{},"value":{}}}"#, self.sent, self.sent);
        self.raw.publish("sensors/neighbour/x", self.sent, &payload).await;
        assert_eq!(puback(&self.raw.packet().await.unwrap()), (self.sent, 0));
        assert_eq!(node.count("neighbour", "x"), usize::from(self.sent));
    }

    async fn leaves(self, node: &Node) {
        drop(self.raw);
        node.empty().await;
    }
}

/// Payloads that are refused with a reason, the connection going on.
#[tokio::test(flavor = "multi_thread")]
async fn refused_payloads_are_answered_with_their_reason_and_the_stream_goes_on() {
    let node = node().await;
    let mut neighbour = Neighbour::of(&node).await;
    let ahead = SampleTime::now().millis() + 3_600_000.0;
    let channels = format!("[{}]", vec!["1"; 17].join(","));
    let samples = format!(
        "[{}]",
        (0..10_001).map(|ts| format!(r#"{{"ts":{ts},"value":1}}"#)).collect::<Vec<_>>().join(",")
    );
    let long_id = "x".repeat(129);
    let long_text = format!("\"{}\"", "x".repeat(4097));
    let future = format!(r#"{{"ts":{ahead},"value":1}}"#);
    let cases: &[(&str, &str, u8)] = &[
        ("sensors/s/a", "not json", 0x99),
        ("sensors/s/a", "NaN", 0x99),
        ("sensors/s/a", "Infinity", 0x99),
        ("sensors/s/a", "1e999", 0x99),
        ("sensors/s/a", "true", 0x99),
        ("sensors/s/a", "null", 0x99),
        ("sensors/s/a", "", 0x99),
        ("sensors/s/a", r#"{"ts":"x","value":1}"#, 0x99),
        ("sensors/s/a", &channels, 0x99),
        ("sensors/s/a", &samples, 0x99),
        ("sensors/s/a", &future, 0x99),
        ("sensors/s/a", &long_text, 0x99),
        ("sensors/s/a", "[null,null]", 0x99),
        ("sensors/s/a/b", "1", 0x90),
        ("sensors//a", "1", 0x90),
        ("sensors/s/", "1", 0x90),
        ("sensors/", r#"{"values":{"a":1}}"#, 0x90),
        ("sensors/s", r#"{"values":{"a/b":1}}"#, 0x90),
        ("sensors/s", r#"[{"bn":"s","n":"a","s":1}]"#, 0x99),
        ("sensors/ä/a", "1", 0x90),
        (&format!("sensors/{long_id}/a"), "1", 0x90),
        (&format!("sensors/s/{long_id}"), "1", 0x90),
    ];
    for v5 in [true, false] {
        let mut raw = Raw::connect(&node, v5, "hostile").await;
        for (index, (topic, payload, reason)) in cases.iter().enumerate() {
            let pkid = index as u16 + 1;
            raw.publish(topic, pkid, payload).await;
            let answer = raw.packet().await.unwrap_or_else(|| panic!("closed by {topic} {payload:.40}"));
            let expected = if v5 { *reason } else { 0 };
            assert_eq!(puback(&answer), (pkid, expected), "{topic} {payload:.40}");
            if v5 {
                assert!(reason_string(&answer.1).len() > 10, "{topic} {payload:.40}");
            }
        }
        assert_eq!(node.store.find("s", "a").map(|_| ()), None, "something of a refused payload was kept");
        raw.publish("sensors/s2/a", 1000, "5").await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (1000, 0));
        // A text to a series of numbers, and the other way round.
        raw.publish("sensors/s2/a", 1001, r#""text""#).await;
        assert_eq!(puback(&raw.packet().await.unwrap()).1, if v5 { 0x99 } else { 0 });
        raw.publish("sensors/s2/t", 1002, r#""text""#).await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (1002, 0));
        raw.publish("sensors/s2/t", 1003, "5").await;
        assert_eq!(puback(&raw.packet().await.unwrap()).1, if v5 { 0x99 } else { 0 });
        neighbour.is_well(&node).await;
    }
    assert_eq!(node.hub.counters.refused.get(), 2 * (cases.len() as u64 + 2));
    let refused = node.store.ledger("s2").unwrap().refused;
    assert_eq!(refused.values().sum::<u64>(), 4, "{refused:?}");
    neighbour.leaves(&node).await;
}

/// One bad part of a payload, and none of it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_taken_or_refused_whole() {
    let node = node().await;
    let mut raw = Raw::connect(&node, true, "c").await;
    for (pkid, topic, payload) in [
        (1, "sensors/w/a", r#"[{"ts":1,"value":1},{"ts":2,"value":"x"},{"ts":3,"value":true}]"#),
        (2, "sensors/w", r#"{"ts":1,"values":{"a":1,"b":[]}}"#),
        (3, "sensors/w", r#"[{"bn":"w/","n":"a","v":1},{"n":"b","v":1e999}]"#),
    ] {
        raw.publish(topic, pkid, payload).await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (pkid, 0x99));
    }
    assert_eq!((node.count("w", "a"), node.count("w", "b")), (0, 0));
    drop(raw);
    node.empty().await;
}

/// Packets for which the connection is closed, with the reason that version 5 gives.
#[tokio::test(flavor = "multi_thread")]
async fn violations_close_their_connection_alone() {
    let node = node().await;
    let mut neighbour = Neighbour::of(&node).await;
    for v5 in [true, false] {
        let end: &[u8] = if v5 { &[0] } else { &[] };
        let publish = |topic: &[u8]| publish(v5, topic, 1, b"1");
        let subscribe =
            |first: u8, pkid: u16, rest: &[u8]| packet(first, &[&pkid.to_be_bytes(), end, rest].concat());
        let cases: Vec<(&str, u8, Vec<u8>)> = vec![
            ("wildcard + in a publish", 0x90, publish(b"sensors/+/a")),
            ("wildcard # in a publish", 0x90, publish(b"sensors/#")),
            ("empty topic", 0x90, publish(b"")),
            ("server's topic", 0x90, publish(b"$SYS/x")),
            ("topic with U+0000", 0x90, publish(b"sensors/a\0/b")),
            ("topic not UTF-8", 0x81, publish(b"sensors/\xff/b")),
            ("topic of 2000 bytes", 0x90, publish(&[b'x'; 2000])),
            ("topic longer than the packet", 0x81, packet(0x32, &[0xff, 0xff, b'a'])),
            ("empty PUBLISH", 0x81, packet(0x32, &[])),
            ("QoS 3", 0x81, packet(0x36, &[0, 1, b'a', 0, 1, 0])),
            ("DUP with QoS 0", 0x81, packet(0x38, &[0, 1, b'a', 0])),
            ("packet id 0", 0x82, packet(0x32, &[0, 1, b'a', 0, 0, 0])),
            ("second CONNECT", 0x82, connect(v5, "again", 2, 0)),
            ("CONNACK", 0x82, packet(0x20, &[0, 0])),
            ("SUBACK", 0x82, packet(0x90, &[0, 1, 0, 0])),
            ("UNSUBACK", 0x82, packet(0xb0, &[0, 1, 0, 0])),
            ("PINGRESP", 0x82, packet(0xd0, &[])),
            ("AUTH", 0x82, packet(0xf0, &[])),
            ("type 0", 0x81, packet(0x00, &[])),
            ("SUBSCRIBE with wrong bits", 0x81, subscribe(0x80, 1, &[0, 1, b'a', 0])),
            ("SUBSCRIBE without filter", 0x82, subscribe(0x82, 1, &[])),
            ("SUBSCRIBE with packet id 0", 0x81, subscribe(0x82, 0, &[0, 1, b'a', 0])),
            ("SUBSCRIBE with QoS 3", 0x81, subscribe(0x82, 1, &[0, 1, b'a', 3])),
            ("UNSUBSCRIBE without filter", 0x82, subscribe(0xa2, 1, &[])),
            ("UNSUBSCRIBE cut short", 0x81, subscribe(0xa2, 1, &[0, 9, b'a'])),
            ("PUBREL with wrong bits", 0x81, packet(0x60, &[0, 1])),
            ("PUBACK cut short", 0x81, packet(0x40, &[1])),
            ("PINGREQ with a body", 0x81, packet(0xc0, &[1])),
            ("remaining length of five bytes", 0x81, vec![0x32, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            ("packet of 2 MiB", 0x95, publish_of(v5, 2 << 20)),
        ];
        for (what, reason, bytes) in &cases {
            let mut raw = Raw::connect(&node, v5, "hostile").await;
            raw.try_send(bytes).await;
            raw.closed_for(*reason, what).await;
            neighbour.is_well(&node).await;
        }
    }
    neighbour.leaves(&node).await;
}

fn publish_of(v5: bool, bytes: usize) -> Vec<u8> {
    publish(v5, b"sensors/big/a", 1, &vec![b'1'; bytes])
}

/// Only version 5 has these.
#[tokio::test(flavor = "multi_thread")]
async fn violations_of_version_5() {
    let node = node().await;
    let with = |topic: &[u8], properties: &[u8]| {
        packet(0x30, &[&text(topic)[..], &[properties.len() as u8], properties, b"1"].concat())
    };
    for (what, reason, bytes) in [
        ("topic alias 0", 0x94, with(b"a", &[0x23, 0, 0])),
        ("topic alias too high", 0x94, with(b"a", &[0x23, 0xff, 0xff])),
        ("topic alias never set", 0x82, with(b"", &[0x23, 0, 1])),
        ("subscription identifier of a client", 0x82, with(b"a", &[0x0b, 1])),
        ("properties cut short", 0x81, with(b"a", &[0x23, 0])),
        ("property of another packet", 0x81, with(b"a", &[0x11, 0, 0, 0, 1])),
        ("response topic with a wildcard", 0x82, with(b"a", &[0x08, 0, 1, b'#'])),
        ("subscription identifier 0", 0x82, packet(0x82, &[0, 1, 2, 0x0b, 0, 0, 1, b'a', 0])),
        ("no-local and shared", 0x82, packet(0x82, &[&[0, 1, 0][..], &text(b"$share/g/a"), &[4]].concat())),
    ] {
        let mut raw = Raw::connect(&node, true, "hostile").await;
        raw.send(&bytes).await;
        raw.closed_for(reason, what).await;
    }
    node.empty().await;
}

/// What may stand instead of a CONNECT.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_first_packet_is_turned_away() {
    let node = node().await;
    let mut neighbour = Neighbour::of(&node).await;
    let level =
        |name: &[u8], level: u8| packet(0x10, &[&text(name)[..], &[level, 2, 0, 0], &text(b"id")].concat());
    for (what, bytes, code) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), None),
        ("PUBLISH", publish(true, b"sensors/s/a", 0, b"1"), None),
        ("CONNACK", packet(0x20, &[0, 0]), None),
        ("another protocol", level(b"AMQP", 5), None),
        ("MQTT 3.1", level(b"MQIsdp", 3), Some(1)),
        ("level 6", level(b"MQTT", 6), Some(0x84)),
        ("a reserved flag, 3.1.1", connect(false, "id", 3, 0), None),
        ("a reserved flag, 5", connect(true, "id", 3, 0), Some(0x81)),
        ("a password without a user, 3.1.1", connect(false, "id", 0x42, 0), None),
        ("cut short, 5", packet(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0]), Some(0x81)),
        ("no client id and no clean session", connect(false, "", 0, 0), Some(2)),
        ("a client id of 2000 bytes", connect(true, &"x".repeat(2000), 2, 0), Some(0x85)),
        ("a huge CONNECT", packet(0x10, &vec![0; 300_000]), None),
    ] {
        let mut raw = Raw::open(&node, true).await;
        raw.try_send(&bytes).await;
        let said = raw.packet().await.map(|(first, body)| (first, body[1]));
        assert_eq!(said, code.map(|code| (0x20, code)), "{what}");
        assert!(raw.packet().await.is_none(), "{what}");
        neighbour.is_well(&node).await;
    }
    neighbour.leaves(&node).await;
}

/// Ids with the characters of filters, connecting twice: rumqttd's own listener was broken by them.
#[tokio::test(flavor = "multi_thread")]
async fn any_client_id_may_connect_twice() {
    let node = node().await;
    for id in ["a+b", "#", "$SYS", "a/b", "+/#/$", "ä", "sensors/+"] {
        for v5 in [true, false] {
            let mut first = Raw::connect(&node, v5, id).await;
            let mut second = Raw::connect(&node, v5, id).await;
            first.closed_for(0x8e, id).await;
            second.publish("sensors/ids/a", 1, "1").await;
            assert_eq!(puback(&second.packet().await.unwrap()), (1, 0));
        }
    }
    node.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection() {
    let settings =
        Settings { handshake: Duration::from_secs(2), patience: Duration::from_millis(200), ..settings() };
    let node = node_with(settings).await;
    let mut neighbour = Neighbour::of(&node).await;
    // Before CONNECT, with nothing and with half of one.
    for bytes in [&b""[..], &connect(true, "x", 2, 0)[..7]] {
        let mut raw = Raw::open(&node, true).await;
        raw.send(bytes).await;
        assert!(raw.packet().await.is_none());
    }
    // Half a packet, without a keep-alive and from a client whose id is free again then.
    for v5 in [true, false] {
        let mut raw = Raw::connect(&node, v5, "half").await;
        raw.send(&publish(v5, b"sensors/s/a", 1, b"12345")[..9]).await;
        raw.closed_for(0x8d, "half a packet").await;
        // Past its keep-alive.
        let mut raw = Raw::open(&node, v5).await;
        let sent = tokio::time::Instant::now();
        raw.send(&connect(v5, "quiet", 2, 1)).await;
        assert_eq!(raw.packet().await.unwrap().0, 0x20);
        raw.closed_for(0x8d, "keep-alive").await;
        let silent = sent.elapsed();
        assert!(silent > Duration::from_millis(1400), "{silent:?}");
        // Pings keep it.
        let mut raw = Raw::open(&node, v5).await;
        raw.send(&connect(v5, "pinging", 2, 2)).await;
        assert_eq!(raw.packet().await.unwrap().0, 0x20);
        let mut beat = tokio::time::interval(Duration::from_millis(500));
        for _ in 0..8 {
            beat.tick().await;
            raw.send(&[0xc0, 0]).await;
            assert_eq!(raw.packet().await.unwrap().0, 0xd0);
        }
    }
    // The neighbour has no keep-alive and said nothing all the while.
    neighbour.is_well(&node).await;
    neighbour.leaves(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_turned_away() {
    let node = node_with(Settings { max_connections: 2, ..settings() }).await;
    let first = Raw::connect(&node, true, "1").await;
    let second = Raw::connect(&node, false, "2").await;
    let mut third = Raw::open(&node, true).await;
    third.try_send(&connect(true, "3", 2, 0)).await;
    assert!(third.packet().await.is_none());
    assert_eq!(node.hub.counters.turned_away.get(), 1);
    drop(first);
    drop(second);
    node.empty().await;
    // Room again; the listener learns of the end a moment later than the counter.
    let again = async {
        loop {
            let mut raw = Raw::open(&node, true).await;
            raw.try_send(&connect(true, "3", 2, 0)).await;
            if raw.packet().await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(NEVER, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_more_than_it_may_is_told() {
    let node = node().await;
    let mut raw = Raw::connect(&node, true, "eager").await;
    // PUBRECs come, and no PUBREL ever: the 4097th is one too many.
    let mut bytes = Vec::new();
    for pkid in 1..=4097_u16 {
        let mut body = text(b"other");
        body.extend(pkid.to_be_bytes());
        body.extend([0, b'1']);
        bytes.extend(packet(0x34, &body));
    }
    raw.send(&bytes).await;
    let mut answers = 0;
    loop {
        let (first, body) = raw.packet().await.expect("a DISCONNECT");
        if first == 0xe0 {
            assert_eq!(body[0], 0x93);
            break;
        }
        assert_eq!(first, 0x50);
        answers += 1;
    }
    assert!(answers <= 4096, "{answers}");
    drop(raw);
    node.empty().await;
}

/// Good packets, changed at random: whatever comes, the node lives and its neighbour streams.
#[test]
fn random_bytes_and_mutated_packets_cost_their_sender_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(node_with(Settings {
        handshake: Duration::from_secs(5),
        patience: Duration::from_millis(300),
        ..settings()
    }));
    let neighbour = tokio::sync::Mutex::new(runtime.block_on(Neighbour::of(&node)));
    let mut runner = TestRunner::new(Config { cases: 96, ..Config::default() });
    let seeds = prop::sample::select(vec![
        publish(true, b"sensors/f/a", 1, br#"{"ts":1,"value":[1,2]}"#),
        publish(true, b"sensors/f", 2, br#"[{"bn":"f/","n":"a","v":1}]"#),
        packet(0x82, &[&[0, 1, 2, 0x0b, 9][..], &text(b"sensors/#"), &[2]].concat()),
        packet(0xa2, &[&[0, 1, 0][..], &text(b"sensors/#")].concat()),
        packet(0x34, &[&text(b"x")[..], &[0, 7, 5, 2, 0, 0, 0, 9, b'p']].concat()),
        packet(0x62, &[0, 7, 0, 0]),
        packet(0x50, &[0, 7, 0x10, 0]),
        packet(0xe0, &[4, 5, 0x11, 0, 0, 0, 9]),
        packet(0xc0, &[]),
        connect(true, "fuzz", 2, 0),
        connect(false, "fuzz", 0xc6, 0),
    ]);
    let strategy = (
        any::<bool>(),
        prop::collection::vec(seeds, 1..4),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        prop::collection::vec(any::<u8>(), 0..20),
        any::<bool>(),
    );
    runner
        .run(&strategy, |(v5, packets, changes, noise, greeted)| {
            let mut bytes = packets.concat();
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(noise);
            runtime.block_on(async {
                let mut raw = Raw::open(&node, v5).await;
                if greeted {
                    raw.send(&connect(v5, "fuzz", 2, 0)).await;
                }
                raw.try_send(&bytes).await;
                drop(raw);
                neighbour.lock().await.is_well(&node).await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(neighbour.into_inner().leaves(&node));
    assert!(!node.served.is_finished());
}

/// Whatever is retained, there are 10 000 at most; what does not fit is refused to its sender, whole, and counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_retained_is_refused_and_reaches_nobody() {
    const MOST: usize = store::MAX_RETAINED;
    let node = node().await;
    let retain = |topic: &str, pkid: u16, payload: &[u8]| {
        packet(0x33, &[&text(topic.as_bytes())[..], &pkid.to_be_bytes(), &[0], payload].concat())
    };
    let mut raw = Raw::connect(&node, true, "publisher").await;
    let mut watcher = Raw::connect(&node, true, "watcher").await;
    watcher.send(&packet(0x82, &[&[0, 9, 0], &text(b"over/#")[..], &[0]].concat())).await;
    assert_eq!(watcher.packet().await.unwrap().0, 0x90);
    for first in (0..MOST).step_by(1000) {
        for index in first..first + 1000 {
            raw.send(&retain(&format!("kept/{index}"), index as u16 + 1, b"x")).await;
        }
        for index in first..first + 1000 {
            assert_eq!(puback(&raw.packet().await.unwrap()), (index as u16 + 1, 0));
        }
    }
    let long = vec![b'x'; 4097];
    for (topic, payload) in [("over/10001", &b"x"[..]), ("over/long", &long), ("kept/1", &long)] {
        raw.send(&retain(topic, 7, payload)).await;
        let answer = raw.packet().await.unwrap();
        assert_eq!(puback(&answer), (7, 0x97), "{topic}");
        assert!(!reason_string(&answer.1).is_empty());
    }
    // Properties count too: they are kept with it.
    let user = [&[0x26][..], &text(b"k"), &text(&vec![b'v'; 12_300])].concat();
    let length = [(user.len() % 128) as u8 | 0x80, (user.len() / 128) as u8];
    let body = [&text(b"over/properties")[..], &[0, 7], &length, &user, b"x"].concat();
    raw.send(&packet(0x33, &body)).await;
    assert_eq!(puback(&raw.packet().await.unwrap()), (7, 0x97));
    let counters = &node.hub.counters;
    assert_eq!((counters.retained_full.get(), counters.retained_too_long.get()), (1, 3));
    assert_eq!((counters.refused.get(), node.hub.sizes().2), (4, MOST));
    // In the place of one that goes there is room again; version 3.1.1 is told nothing.
    raw.send(&retain("kept/0", 8, b"")).await;
    assert_eq!(puback(&raw.packet().await.unwrap()), (8, 0));
    let mut old = Raw::connect(&node, false, "old").await;
    for topic in ["over/room", "over/again"] {
        old.send(&packet(0x33, &[&text(topic.as_bytes())[..], &[0, 9], b"x"].concat())).await;
        assert_eq!(puback(&old.packet().await.unwrap()), (9, 0));
    }
    assert_eq!((counters.retained_full.get(), node.hub.sizes().2), (2, MOST));
    let (_, body) = watcher.packet().await.unwrap();
    assert_eq!(&body[2..11], b"over/room", "nobody gets what is refused");
    watcher.send(&[0xc0, 0]).await;
    assert_eq!(watcher.packet().await.unwrap().0, 0xd0);
    // A new subscriber gets as many as its mailbox takes, which is all.
    let mut late = Raw::connect(&node, true, "late").await;
    late.send(&packet(0x82, &[&[0, 9, 0], &text(b"#")[..], &[0]].concat())).await;
    assert_eq!(late.packet().await.unwrap().0, 0x90);
    for _ in 0..MOST {
        assert_eq!(late.packet().await.unwrap().0, 0x31);
    }
    drop((raw, watcher, old, late));
    node.empty().await;
}
