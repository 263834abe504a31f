//! Advice changes how devices batch, and nothing else: of a sensor that nobody watches, or that somebody begins to watch, every
//! sample is in its ring on every node.

use std::net::SocketAddr;

use firmware_sim::client::Transport;
use firmware_sim::demo::check::MAX_SAMPLES;
use firmware_sim::demo::cluster::Cluster;
use firmware_sim::demo::{http, judge, load};
use firmware_sim::fleet::{self, Fleet};
use serde_json::json;
use tokio::time::timeout;

use crate::common::{GUARD, alone, plan, seed};
use crate::people::{open, say};

/// Devices, over WebSocket and MQTT in turns.
const DEVICES: usize = 4;
/// Samples a second of each.
const RATE: u32 = 100;
/// Samples of each while nobody watches, and as many while somebody does.
const SAMPLES: u64 = 300;
/// What is advised while nobody watches: so many samples at a time.
const UNWATCHED: f64 = 20.0;

/// PUBLISH packets that came to the nodes.
async fn packets(nodes: &[SocketAddr]) -> f64 {
    let mut packets = 0.0;
    for node in nodes {
        let (_, metrics) = http::get(*node, "/metrics").await.unwrap();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("sensorium_mqtt_received_total ")).unwrap();
        packets += line.split(' ').nth(1).unwrap().parse::<f64>().unwrap();
    }
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_nobody_watches_has_every_sample_in_its_ring() {
    let _machine = alone().await;
    let cluster = Cluster::start(&plan(2, &[])).await.unwrap();
    let nodes: Vec<SocketAddr> = cluster.running().map(|node| node.http).collect();
    let members = load::counting(DEVICES, 1, RATE, MAX_SAMPLES as u64);
    let series: Vec<String> =
        load::series(&members).iter().map(|(sensor, attribute)| format!("{sensor}/{attribute}")).collect();
    let acks = cluster.directory().join("acks");
    let transports = vec![
        Transport::WebSocket { urls: cluster.urls(), cbor: false },
        Transport::Mqtt { addresses: cluster.brokers() },
    ];
    // Without a time of their own between frames they heed advice.
    let options = fleet::Options {
        acks: Some(acks.clone()),
        patience: GUARD,
        ..fleet::Options::new(transports, seed())
    };
    let mut fleet = Fleet::start(members, &options).unwrap();
    let reached = async |count: u64| {
        let each = cluster.eventually("samples are acknowledged", GUARD, async || {
            let least = fleet.tallies().iter().map(|(_, tally)| tally.summary().acked).min().unwrap_or(0);
            if least >= count { Ok(()) } else { Err(format!("{least} of {count}")) }
        });
        each.await.unwrap();
        (packets(&nodes).await, fleet.total().acked as f64 / 2.0)
    };
    // From when the advice has come.
    let begun = reached(SAMPLES / 3).await;
    let unwatched = reached(SAMPLES / 3 + SAMPLES).await;
    let mut viewer = open(nodes[1], "live").await;
    say(&mut viewer, json!({"type": "watch", "id": 1, "series": series, "attention": "high"})).await;
    let looked = reached(SAMPLES / 3 + SAMPLES + 20).await;
    let watched = reached(SAMPLES / 3 + 2 * SAMPLES).await;
    // Half of the devices are over MQTT, and a packet holds what was measured since the last.
    let a_packet = |from: (f64, f64), to: (f64, f64)| (to.1 - from.1) / (to.0 - from.0);
    let (alone, seen) = (a_packet(begun, unwatched), a_packet(looked, watched));
    eprintln!("samples a packet: {alone:.1} unwatched, {seen:.1} watched");
    assert!(alone > UNWATCHED / 2.0, "batched as advised: {alone}");
    assert!(seen < alone / 2.0, "and less when somebody looks: {seen}");
    fleet.stop();
    timeout(GUARD, fleet.ended()).await.expect("everything is acknowledged in time");
    let total = fleet.total();
    assert!(total.complete() && total.gaps == 0, "{total}: {:?}", total.complaints);
    let verdict =
        judge(&cluster, Vec::new(), &acks, MAX_SAMPLES as u64, |line| eprintln!("{line}")).await.unwrap();
    assert!(
        verdict.is_clean() && verdict.samples == total.made && verdict.unasked == 0,
        "{total} {verdict:?}"
    );
}
