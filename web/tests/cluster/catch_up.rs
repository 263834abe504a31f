//! A node with an empty disk joins nodes that hold much: it catches up by itself, and answers like the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use firmware_sim::acks::AckLog;
use firmware_sim::client::{Client, ClientOptions, Transport};
use firmware_sim::demo::SETTLED_WITHIN;
use firmware_sim::demo::check::{Acked, MAX_SAMPLES, check};
use firmware_sim::demo::cluster::Cluster;
use firmware_sim::demo::load::counting;
use firmware_sim::demo::ports;
use firmware_sim::demo::process::{Node, Spec};
use firmware_sim::tally::Tally;
use tokio::task::JoinSet;

use crate::common::{GUARD, alone, often, plan, slow};

/// Samples of each series.
const EACH: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_catches_up() {
    let _machine = alone().await;
    let series = often(10, 1000);
    let mut cluster = Cluster::start(&plan(2, &[])).await.unwrap();
    let acks = cluster.directory().join("acks");
    fill(&cluster, series, Arc::new(AckLog::with_samples(&acks).unwrap())).await;

    let ports = ports::free([127, 0, 0, 1].into(), 3).unwrap();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let resident = cluster.nodes()[0].spec().clone();
    let added = cluster.add(Node::new(Spec {
        name: "c".into(),
        http: at(ports[0]),
        mqtt: at(ports[1]),
        peer: at(ports[2]),
        join: cluster.nodes().iter().map(|node| node.spec().peer.clone()).collect(),
        ..resident
    }));
    let began = Instant::now();
    cluster.node_mut(added).start().await.unwrap();
    cluster.ready(added).await.unwrap();
    eprintln!("ready with {} samples after {:?}", series * EACH, began.elapsed());
    cluster.all_alive().await.unwrap();

    let acked = Acked::read(&acks).unwrap();
    assert_eq!(acked.samples(), (series * EACH) as u64);
    let nodes: Vec<_> = cluster.running().map(|ready| (ready.node.clone(), ready.http)).collect();
    assert_eq!(nodes.len(), 3);
    let verdict = check(&acked, &nodes, SETTLED_WITHIN).await.unwrap();
    eprintln!("{verdict:?}");
    assert!(verdict.is_clean() && verdict.unasked == 0, "{verdict:?}\n{}", cluster.logs());
    if !slow() {
        assert!(verdict.alike_after_ms < 3000, "ready means caught up: {verdict:?}");
    }
}

/// Sends as fast as nodes acknowledge.
async fn fill(cluster: &Cluster, series: usize, acks: Arc<AckLog>) {
    let mut sending = JoinSet::new();
    let end = firmware_sim::now_us() / 1000 * 1000;
    let mut tallies = Vec::new();
    for (at, mut member) in counting(series, 1, 1000, MAX_SAMPLES as u64).into_iter().enumerate() {
        let tally = Arc::new(Tally::default());
        tallies.push(Arc::clone(&tally));
        let options = ClientOptions {
            transport: Transport::WebSocket { urls: cluster.urls(), cbor: true },
            first: at,
            patience: GUARD,
            acks: Some(Arc::clone(&acks)),
            seed: at as u64,
            token: None,
        };
        let client = Client::start(member.device.clone(), options, tally).unwrap();
        let span = EACH as i64 * 1000;
        sending.spawn(async move {
            for batch in member.until(span, end - span) {
                client.send(batch).await?;
            }
            client.finish().await
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap().unwrap();
    }
    let acked: u64 = tallies.iter().map(|tally| tally.summary().acked).sum();
    assert_eq!(acked, (series * EACH) as u64);
}
