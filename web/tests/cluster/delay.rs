//! Nodes far apart: 200 ms each way between any two of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use firmware_sim::demo::cluster::{Cluster, name};
use firmware_sim::demo::ports;
use firmware_sim::demo::process::{Node, Spec};
use firmware_sim::demo::report::shown;
use firmware_sim::demo::round::{Failure, fail};

use crate::common::{Load, Size, alone, keep_on, now_ms, plan, seed};
use crate::relay::Relay;

const DELAY: Duration = Duration::from_millis(200);
/// Ports of a node: HTTP, MQTT, peers, and where peers are told to find it.
const PORTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_far_apart_lose_and_double_nothing() {
    let _machine = alone().await;
    let seed = seed();
    let ports = ports::free([127, 0, 0, 1].into(), 3 * PORTS).unwrap();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let own: Vec<&[u16]> = ports.chunks_exact(PORTS).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut relays = Vec::new();
    let mut nodes = Vec::new();
    for (index, ports) in own.iter().enumerate() {
        relays.push(Relay::start(at(ports[3]), at(ports[2]), DELAY).await);
        let others = own.iter().enumerate().filter(|(other, _)| *other != index);
        let plan = plan(3, &["--public-peer", &at(ports[3]).to_string()]);
        nodes.push(Node::new(Spec {
            program: plan.program,
            name: name(index),
            directory: directory.path().to_owned(),
            http: at(ports[0]).to_string(),
            mqtt: at(ports[1]).to_string(),
            peer: at(ports[2]).to_string(),
            join: others.map(|(_, ports)| at(ports[3]).to_string()).collect(),
            options: plan.options,
            within: Vec::new(),
        }));
    }
    let mut cluster = Cluster::of(nodes, directory).await.unwrap();
    let load = Load::start(&cluster, Size::light(), seed).await;
    let round = fail(&mut cluster, 1, Failure::Kill, Duration::ZERO, load.audience()).await.unwrap();
    eprintln!(
        "200 ms apart: its devices {}, others {}; ready after {}",
        shown(round.its_devices),
        shown(round.other_devices),
        shown(round.ready_after)
    );
    let (http, asked) = (cluster.nodes()[0].ready().unwrap().http, Instant::now());
    keep_on(http, "by-hand", now_ms(), 1.0).await;
    assert!(asked.elapsed() >= 2 * DELAY, "there and back: {:?}", asked.elapsed());
    load.settle(&cluster).await;
}
