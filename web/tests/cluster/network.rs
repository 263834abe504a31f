//! Networks that fail under load: partitions, loss in one direction and in both. All sides keep taking samples, and within
//! seconds of healing all nodes answer alike, with nothing lost.

use std::time::{Duration, Instant};

use firmware_sim::demo::check::{Acked, check};
use firmware_sim::demo::cluster::{Cluster, name};
use firmware_sim::demo::process::{Node, Spec};

use crate::common::{GUARD, Load, Size, alone, now_ms, plan, seed, send_to, slow};
use crate::space::{HTTP, MQTT, PEER, Space};

/// How long all nodes may take to answer alike after healing, on a machine of their own.
const ALIKE_WITHIN: Duration = Duration::from_secs(3);
const NODES: usize = 3;

/// How long a network stays broken.
fn broken_for() -> Duration {
    Duration::from_secs(if slow() { 30 } else { 8 })
}

pub(crate) async fn cluster_in(space: &Space) -> Cluster {
    let directory = tempfile::tempdir().unwrap();
    let at = |node: usize, port: u16| format!("{}:{port}", space.address(node));
    let plan = plan(NODES, &["--cluster-secret", "of the namespaces", "--insecure-open"]);
    let spec = |node: usize| Spec {
        program: plan.program.clone(),
        name: name(node),
        directory: directory.path().to_owned(),
        http: at(node, HTTP),
        mqtt: at(node, MQTT),
        peer: at(node, PEER),
        join: (0..NODES).filter(|other| *other != node).map(|other| at(other, PEER)).collect(),
        options: plan.options.clone(),
        within: space.within(node),
    };
    let nodes = (0..NODES).map(|node| Node::new(spec(node))).collect();
    Cluster::of(nodes, directory).await.unwrap()
}

/// Breaks the network as `verdict` says while devices stream to all nodes, then heals it.
async fn broken_network(verdict: impl Fn(usize, usize) -> Option<&'static str>) {
    let _machine = alone().await;
    let Some(space) = Space::make(NODES) else { return };
    let seed = seed();
    let cluster = cluster_in(&space).await;
    let mut load = Load::start(&cluster, Size::light(), seed).await;
    let acked = load.audience().fleet.total().acked;

    space.rule(verdict);
    let broken = Instant::now();
    // Each node by itself takes samples, whomever it can reach.
    let mut sent = Vec::new();
    while broken.elapsed() < broken_for() {
        for (node, ready) in cluster.running().enumerate() {
            let (sensor, ts) = (format!("by-hand-{node}"), now_ms());
            let copies = send_to(ready.http, &sensor, ts, broken.elapsed().as_secs_f64()).await;
            let copies =
                copies.unwrap_or_else(|why| panic!("node {}: {why}\n{}", ready.node, cluster.logs()));
            sent.push((sensor, ts, copies));
        }
    }
    load.stop().await;
    let taken = load.audience().fleet.total().acked - acked;
    let fewest = sent.iter().map(|(_, _, copies)| copies).min();
    eprintln!(
        "{taken} samples acknowledged while broken, {} by hand, the fewest copies {fewest:?}",
        sent.len()
    );

    space.heal();
    let healed = Instant::now();
    let log = Acked::read(load.acks()).unwrap();
    let nodes: Vec<_> = cluster.running().map(|ready| (ready.node.clone(), ready.http)).collect();
    let verdict = check(&log, &nodes, GUARD).await.unwrap();
    eprintln!("alike {} ms after healing ({:?} with asking)", verdict.alike_after_ms, healed.elapsed());
    assert!(verdict.is_clean(), "{verdict:?}\n{}", cluster.logs());
    for (sensor, ts, _) in &sent {
        for (node, http) in &nodes {
            let held = firmware_sim::demo::check::held(*http, sensor, "x").await.unwrap();
            let times = held.iter().filter(|(time, _)| *time == (ts * 1000.0) as i64).count();
            assert_eq!(times, 1, "{sensor} at {ts} on node {node}");
        }
    }
    let alike_after = Duration::from_millis(verdict.alike_after_ms);
    assert!(!slow() || alike_after <= ALIKE_WITHIN, "{verdict:?}\n{}", cluster.logs());
    cluster.all_alive().await.unwrap();
    load.settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_cut_off_from_two() {
    broken_network(|from, to| ((from == 0) != (to == 0)).then_some("drop")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_cut_off_from_every_other() {
    broken_network(|_, _| Some("drop")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_heard_by_nobody_though_it_hears() {
    broken_network(|from, _| (from == 0).then_some("drop")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_packets_of_ten_lost_between_all() {
    broken_network(|_, _| Some("numgen random mod 10 < 3 drop")).await;
}
