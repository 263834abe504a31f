//! rumqttc, in both versions, as publisher and subscriber.

use std::collections::HashSet;
use std::time::Duration;

use rumqttc::v5;
use tokio::time::timeout;

use crate::node::{NEVER, Node, node};
use crate::raw::{Raw, puback};

const MESSAGES: usize = 500;

fn v4_client(node: &Node, id: &str) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
    let mut options = rumqttc::MqttOptions::new(id, "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(64);
    rumqttc::AsyncClient::new(options, 1000)
}

fn v5_client(node: &Node, id: &str) -> (v5::AsyncClient, v5::EventLoop) {
    let mut options = v5::MqttOptions::new(id, "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(30));
    v5::AsyncClient::new(options, 1000)
}

fn payload(index: usize) -> String {
    format!(r#"{{"ts":{},"value":[{},null,"{}"]}}"#, 1000 + index, index as f64 / 7.0, "x")
        .replace(",\"x\"", "")
}

fn expected(index: usize) -> (i64, f64) {
    ((1000 + index as i64) * 1000, index as f64 / 7.0)
}

fn check(node: &Node, sensor: &str) {
    let held = node.numbers(sensor, "a");
    assert_eq!(held.len(), MESSAGES, "{sensor}");
    for (index, (time, value)) in held.iter().enumerate() {
        assert_eq!((*time, value[0]), expected(index), "{sensor}");
        assert!(value[1].is_nan());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_publishes_with_every_qos_and_the_samples_are_kept() {
    use rumqttc::{Event, Packet, QoS};
    let node = node().await;
    for (qos, sensor) in [(QoS::AtMostOnce, "q0"), (QoS::AtLeastOnce, "q1"), (QoS::ExactlyOnce, "q2")] {
        let (client, mut events) = v4_client(&node, sensor);
        let publisher = tokio::spawn(async move {
            for index in 0..MESSAGES {
                client.publish(format!("sensors/{sensor}/a"), qos, false, payload(index)).await.unwrap();
            }
            client
        });
        let mut done = 0;
        let all = async {
            while done < MESSAGES {
                match (events.poll().await.unwrap(), qos) {
                    (Event::Incoming(Packet::PubAck(_)), QoS::AtLeastOnce)
                    | (Event::Incoming(Packet::PubComp(_)), QoS::ExactlyOnce)
                    | (Event::Outgoing(rumqttc::Outgoing::Publish(_)), QoS::AtMostOnce) => done += 1,
                    _ => {}
                }
            }
        };
        timeout(NEVER, all).await.expect("not all acknowledged");
        publisher.await.unwrap().disconnect().await.unwrap();
        while events.poll().await.is_ok() {}
        // After the end of a connection everything that came on it has been seen to, QoS 0 too.
        node.empty().await;
        check(&node, sensor);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_publishes_with_every_qos_and_the_samples_are_kept() {
    use v5::mqttbytes::QoS;
    use v5::{Event, Incoming};
    let node = node().await;
    for (qos, sensor) in [(QoS::AtMostOnce, "q0"), (QoS::AtLeastOnce, "q1"), (QoS::ExactlyOnce, "q2")] {
        let (client, mut events) = v5_client(&node, sensor);
        let publisher = tokio::spawn(async move {
            for index in 0..MESSAGES {
                client.publish(format!("sensors/{sensor}/a"), qos, false, payload(index)).await.unwrap();
            }
            client
        });
        let mut done = 0;
        let all = async {
            while done < MESSAGES {
                match (events.poll().await.unwrap(), qos) {
                    (Event::Incoming(Incoming::PubAck(_)), QoS::AtLeastOnce)
                    | (Event::Incoming(Incoming::PubComp(_)), QoS::ExactlyOnce)
                    | (Event::Outgoing(rumqttc::Outgoing::Publish(_)), QoS::AtMostOnce) => done += 1,
                    _ => {}
                }
            }
        };
        timeout(NEVER, all).await.expect("not all acknowledged");
        publisher.await.unwrap().disconnect().await.unwrap();
        while events.poll().await.is_ok() {}
        node.empty().await;
        check(&node, sensor);
    }
}

/// Every sample comes once, on its topic, to the last digit, to subscribers of every QoS and version, whoever sent it.
#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_every_sample_once() {
    use rumqttc::{Event, Packet, QoS};
    let node = node().await;
    let mut subscribers = Vec::new();
    for (index, filter) in
        ["sensors/#", "sensors/s/a", "sensors/+/a", "+/s/+", "#", "sensors/s/#"].into_iter().enumerate()
    {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][index % 3];
        let (client, mut events) = v4_client(&node, filter);
        client.subscribe(filter, qos).await.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        subscribers.push(tokio::spawn(async move {
            let mut got = Vec::new();
            while got.len() < MESSAGES {
                if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                    assert_eq!(publish.qos, qos);
                    assert_eq!(publish.topic, "sensors/s/a");
                    assert!(!publish.retain);
                    got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                }
            }
            drop(client);
            got
        }));
    }
    let mut raw = Raw::connect(&node, true, "device").await;
    for index in 0..MESSAGES {
        raw.publish("sensors/s/a", index as u16 + 1, &payload(index)).await;
    }
    for index in 0..MESSAGES {
        assert_eq!(puback(&raw.packet().await.unwrap()), (index as u16 + 1, 0));
    }
    let wanted: Vec<String> = (0..MESSAGES).map(payload).collect();
    for subscriber in subscribers {
        let got = timeout(NEVER, subscriber).await.expect("a subscriber waits in vain").unwrap();
        assert_eq!(got, wanted);
    }
    drop(raw);
    node.empty().await;
}

/// A PUBACK comes when the ticket of its samples says that they are durable, not before.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_samples_are_on_the_disk() {
    let node = node().await;
    let mut raw = Raw::connect(&node, true, "device").await;
    for round in 1..=50_u16 {
        raw.publish("sensors/d/a", round, &format!(r#"{{"ts":{round},"value":1}}"#)).await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (round, 0));
        // Nothing else is sent meanwhile: whatever frame there is holds this sample.
        let stats = node.store.stats();
        assert_eq!(stats.pending_bytes, 0, "acknowledged with {} bytes not durable", stats.pending_bytes);
    }
    drop(raw);
    node.empty().await;
}

/// A store that stopped acknowledges nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_is_not_acknowledged() {
    let node = node().await;
    let mut raw = Raw::connect(&node, true, "device").await;
    raw.publish("sensors/d/a", 1, "1").await;
    assert_eq!(puback(&raw.packet().await.unwrap()), (1, 0));
    node.store.close().await;
    raw.publish("sensors/d/a", 2, "2").await;
    raw.closed_for(0x83, "a closed store").await;
    node.empty().await;
}

/// A hundred clients and one node: nothing is lost or doubled among them.
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once() {
    let node = node().await;
    let mut tasks = HashSet::new();
    let mut raws = Vec::new();
    for client in 0..100 {
        raws.push(Raw::connect(&node, client % 2 == 0, &format!("c{client}")).await);
        tasks.insert(client);
    }
    for pkid in 1..=20_u16 {
        for (client, raw) in raws.iter_mut().enumerate() {
            raw.publish(&format!("sensors/c{client}/a"), pkid, &format!(r#"{{"ts":{pkid},"value":1}}"#))
                .await;
        }
    }
    for raw in &mut raws {
        for pkid in 1..=20_u16 {
            assert_eq!(puback(&raw.packet().await.unwrap()), (pkid, 0));
        }
    }
    for client in 0..100 {
        assert_eq!(node.count(&format!("c{client}"), "a"), 20);
    }
    drop(raws);
    node.empty().await;
}
