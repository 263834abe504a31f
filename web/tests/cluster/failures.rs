//! Nodes that fail under load of 20 000 samples a second over WebSocket and MQTT: nothing acknowledged is lost, nothing is
//! doubled, and devices and viewers carry on elsewhere.

use std::time::Duration;

use firmware_sim::demo::cluster::Cluster;
use firmware_sim::demo::report::shown;
use firmware_sim::demo::round::{Failure, Round, fail};

use crate::common::{Load, Size, alone, draw, often, plan, seed};

/// How long a node hangs.
const HANG: Duration = Duration::from_secs(10);

/// Failures of one cluster before all is checked and the next one begins: rings must hold what comes meanwhile.
const AT_A_TIME: usize = 20;

/// Lets nodes drawn by chance fail one after the other, each when the one before is ready again: by turns any node, and
/// the node of any device, so that there are devices on half of them at least.
async fn fails_under_load(failure: Failure, rounds: usize, down: Duration) {
    let _machine = alone().await;
    let seed = seed();
    let mut noticed = Vec::with_capacity(rounds);
    while noticed.len() < rounds {
        let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
        let load = Load::start(&cluster, Size::full(), seed).await;
        for _ in 0..AT_A_TIME.min(rounds - noticed.len()) {
            let step = noticed.len();
            let devices = load.audience().fleet.tallies();
            let (_, any) = &devices[draw(seed, step, devices.len())];
            let its_node = any.address().and_then(|address| cluster.node_at(&address));
            let at = if step.is_multiple_of(2) { its_node.unwrap() } else { draw(seed, step, 3) };
            let round = fail(&mut cluster, at, failure, down, load.audience()).await.unwrap();
            print(&round);
            noticed.push(round);
        }
        load.settle(&cluster).await;
    }
    summarise(&noticed);
}

fn print(round: &Round) {
    eprintln!(
        "{} of {}: its {} devices {}, others {}; viewers elsewhere: its sensors {}, others {}; its {} viewers {}; {} acked; \
         ready after {}",
        round.failure,
        round.node,
        round.devices,
        shown(round.its_devices),
        shown(round.other_devices),
        shown(round.its_sensors),
        shown(round.other_sensors),
        round.viewers,
        shown(round.its_viewers),
        round.acked,
        shown(round.ready_after),
    );
}

/// Median and 99th percentile of what was noticed.
fn summarise(rounds: &[Round]) {
    let percentiles = |what: &str, of: &dyn Fn(&Round) -> Option<Duration>| {
        let mut all: Vec<_> = rounds.iter().filter_map(of).collect();
        all.sort();
        let Some(last) = all.len().checked_sub(1) else { return };
        let p99 = all[(all.len() * 99).div_ceil(100) - 1];
        eprintln!("{what}: p50 {}, p99 {} of {}", shown(Some(all[last / 2])), shown(Some(p99)), all.len());
    };
    percentiles("gap for devices of the node", &|round| round.its_devices);
    percentiles("gap for other devices", &|round| round.other_devices);
    percentiles("silence of its sensors for viewers elsewhere", &|round| round.its_sensors);
    percentiles("silence of other sensors for viewers elsewhere", &|round| round.other_sensors);
    percentiles("silence for viewers on it", &|round| round.its_viewers);
    percentiles("until ready again", &|round| round.ready_after);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_nodes_lose_and_double_nothing() {
    fails_under_load(Failure::Kill, often(5, 100), Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wiped_nodes_lose_and_double_nothing() {
    fails_under_load(Failure::Wipe, often(2, 20), Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_nodes_lose_and_double_nothing() {
    fails_under_load(Failure::Hang, often(1, 10), HANG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_not_seen() {
    let _machine = alone().await;
    let seed = seed();
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let load = Load::start(&cluster, Size::full(), seed).await;
    for at in 0..3 {
        let round = fail(&mut cluster, at, Failure::Stop, Duration::ZERO, load.audience()).await.unwrap();
        print(&round);
        assert_eq!(round.exit, Some(0), "node {} was asked to stop\n{}", round.node, cluster.logs());
    }
    load.settle(&cluster).await;
}
