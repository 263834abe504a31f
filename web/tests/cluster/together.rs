//! Three nodes are one.

use std::net::SocketAddr;

use firmware_sim::demo::check::held;
use firmware_sim::demo::cluster::{Cluster, members};
use firmware_sim::demo::http;
use serde_json::Value;

use crate::common::{GUARD, Load, Size, alone, delete, keep_on, now_ms, plan, seed};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_find_each_other_and_any_answers_for_all() {
    let _machine = alone().await;
    let cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let nodes: Vec<_> = cluster.running().cloned().collect();
    for node in &nodes {
        let mut seen = members(node.http).await.unwrap();
        seen.sort_by(|a, b| a.node.cmp(&b.node));
        let seen: Vec<_> = seen.iter().map(|member| (member.node.as_str(), member.state.as_str())).collect();
        assert_eq!(seen, [("a", "alive"), ("b", "alive"), ("c", "alive")], "as {} sees it", node.node);
        let ready: Value = http::json(node.http, "/health/ready").await.unwrap();
        assert_ne!(ready["alone"], true, "{ready}");
    }
    // Sent to each, read from all.
    let began = now_ms();
    for (at, node) in nodes.iter().enumerate() {
        let sensor = format!("s-{}", node.node);
        let ts = began + at as f64;
        keep_on(node.http, &sensor, ts, 20.5).await;
        for other in &nodes {
            let what = format!("{} answers for {}", other.node, node.node);
            let answers = cluster.eventually(&what, GUARD, async || {
                let held = held(other.http, &sensor, "x").await.map_err(|error| error.to_string())?;
                let times: Vec<_> = held.iter().map(|(time, _)| *time).collect();
                if times == [(ts * 1000.0) as i64] { Ok(()) } else { Err(format!("{held:?}")) }
            });
            answers.await.unwrap();
            let described: Value =
                http::json(other.http, &format!("/api/v1/sensors/{sensor}")).await.unwrap();
            assert_eq!(described["sensor"], sensor, "{described}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_cleared_on_one_node_is_gone_on_all_and_one_that_was_away_does_not_bring_it_back() {
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let (a, b, c) = {
        let mut nodes = cluster.running().map(|node| node.http);
        (nodes.next().unwrap(), nodes.next().unwrap(), nodes.next().unwrap())
    };
    let holds = async |cluster: &Cluster, node: SocketAddr, expected: &[f64]| {
        let expected: Vec<_> = expected.iter().map(|ts| (ts * 1000.0) as i64).collect();
        let answers = cluster.eventually("all answer alike", GUARD, async || {
            let (status, body) =
                http::get(node, "/api/v1/sensors/s").await.map_err(|error| error.to_string())?;
            if expected.is_empty() {
                let said = String::from_utf8_lossy(&body);
                let gone = status == 404 && said.contains("unknown_sensor");
                return if gone { Ok(()) } else { Err(format!("{node}: {status}: {said}")) };
            }
            let held = held(node, "s", "x").await.map_err(|error| error.to_string())?;
            let times: Vec<_> = held.iter().map(|(time, _)| *time).collect();
            if times == expected { Ok(()) } else { Err(format!("{node}: {held:?}")) }
        });
        answers.await.unwrap();
    };
    let began = now_ms();
    for (ts, node) in [(began, a), (began + 1.0, b), (began + 2.0, c)] {
        keep_on(node, "s", ts, 20.5).await;
    }
    for node in [a, b, c] {
        holds(&cluster, node, &[began, began + 1.0, began + 2.0]).await;
    }
    // The last one is away when it is cleared, and has it all on its disk.
    cluster.node_mut(2).kill().await.unwrap();
    assert_eq!(delete(a, "/api/v1/sensors/s").await, 204);
    assert_eq!(delete(a, "/api/v1/sensors/s").await, 404);
    holds(&cluster, b, &[]).await;
    cluster.node_mut(2).start().await.unwrap();
    let c = cluster.running().last().unwrap().http;
    for node in [c, a, b] {
        holds(&cluster, node, &[]).await;
    }
    // It sends again, older samples too.
    keep_on(b, "s", began - 5.0, 21.0).await;
    keep_on(c, "s", began + 1.0, 22.0).await;
    for node in [a, b, c] {
        holds(&cluster, node, &[began - 5.0, began + 1.0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_loses_nothing_when_it_is_killed() {
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(1, &[])).await.unwrap();
    let size = Size::light();
    let load = Load::start(&cluster, size, seed()).await;
    cluster.node_mut(0).kill().await.unwrap();
    cluster.node_mut(0).start().await.unwrap();
    let back = cluster.eventually("all devices are back", GUARD, async || {
        let total = load.audience().fleet.total();
        if total.connections >= 2 * size.devices as u64 { Ok(()) } else { Err(format!("{total}")) }
    });
    back.await.unwrap();
    load.settle(&cluster).await;
}
