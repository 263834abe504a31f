//! A node that comes late, with an empty disk or with what it held when it went: it catches up by itself, and answers like
//! the others.

use std::net::SocketAddr;
use std::path::PathBuf;
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

use crate::common::{GUARD, alone, often, plan};

/// Samples of each series.
const EACH: usize = 10_000;
/// Devices that send at once: all at full speed together would owe more than nodes acknowledge before devices give up.
const AT_ONCE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_catches_up() {
    let _machine = alone().await;
    let series = often(10, 1000);
    let mut cluster = Cluster::start(&plan(2, &[])).await.unwrap();
    let log = fill(&cluster, "acks", 0, series).await;

    let ports = ports::free([127, 0, 0, 1].into(), 3).unwrap();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let resident = cluster.nodes()[0].spec().clone();
    let late = cluster.add(Node::new(Spec {
        name: "c".into(),
        http: at(ports[0]),
        mqtt: at(ports[1]),
        peer: at(ports[2]),
        join: cluster.nodes().iter().map(|node| node.spec().peer.clone()).collect(),
        ..resident
    }));
    catches_up(&mut cluster, late, &[log]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_catches_up() {
    let _machine = alone().await;
    // In the long version as much as 2000 samples/s in an hour.
    let series = often(10, 720);
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let before = fill(&cluster, "before", 0, 10).await;
    cluster.node_mut(2).kill().await.unwrap();
    let meanwhile = fill(&cluster, "meanwhile", 10, series).await;
    catches_up(&mut cluster, 2, &[before, meanwhile]).await;
}

/// Starts the node, which does not run, and waits until it is ready: by then it answers like the others.
async fn catches_up(cluster: &mut Cluster, late: usize, logs: &[PathBuf]) {
    let began = Instant::now();
    cluster.node_mut(late).start().await.unwrap();
    cluster.ready(late).await.unwrap();
    eprintln!("ready after {:?}", began.elapsed());
    cluster.all_alive().await.unwrap();
    let nodes: Vec<_> = cluster.running().map(|ready| (ready.node.clone(), ready.http)).collect();
    assert_eq!(nodes.len(), 3);
    for log in logs {
        let verdict = check(&Acked::read(log).unwrap(), &nodes, SETTLED_WITHIN).await.unwrap();
        eprintln!("{verdict:?}");
        assert!(verdict.is_clean() && verdict.unasked == 0, "{verdict:?}\n{}", cluster.logs());
        assert_eq!(verdict.alike_after_ms, 0, "ready means caught up: {verdict:?}\n{}", cluster.logs());
    }
}

/// Sends [`EACH`] samples of each of `count` devices, from number `first` on, as fast as nodes acknowledge; gives the log.
async fn fill(cluster: &Cluster, name: &str, first: usize, count: usize) -> PathBuf {
    let path = cluster.directory().join(name);
    let acks = Arc::new(AckLog::with_samples(&path).unwrap());
    let mut sending = JoinSet::new();
    let end = firmware_sim::now_us() / 1000 * 1000;
    let members = counting(first + count, 1, 1000, MAX_SAMPLES as u64).into_iter().skip(first);
    let mut acked = 0;
    for (at, mut member) in members.enumerate() {
        if sending.len() == AT_ONCE {
            acked += sending.join_next().await.map_or(0, Result::unwrap);
        }
        let tally = Arc::new(Tally::default());
        let options = ClientOptions {
            transport: Transport::WebSocket { urls: cluster.urls(), cbor: true },
            first: at,
            patience: GUARD,
            acks: Some(Arc::clone(&acks)),
            seed: at as u64,
            token: None,
        };
        let client = Client::start(member.device.clone(), options, Arc::clone(&tally)).unwrap();
        let span = EACH as i64 * 1000;
        sending.spawn(async move {
            for batch in member.until(span, end - span) {
                // Why it gave up is told when it is asked to finish.
                if client.send(batch).await.is_err() {
                    break;
                }
            }
            let finished = client.finish().await;
            assert!(finished.is_ok(), "{:?}", tally.summary());
            tally.summary().acked
        });
    }
    while let Some(sent) = sending.join_next().await {
        acked += sent.unwrap();
    }
    assert_eq!(acked, (count * EACH) as u64);
    path
}
