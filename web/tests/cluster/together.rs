//! Three nodes are one.

use firmware_sim::demo::check::held;
use firmware_sim::demo::cluster::{Cluster, members};
use firmware_sim::demo::http;
use serde_json::Value;

use crate::common::{GUARD, Load, Size, alone, now_ms, plan, seed, send_to};

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
        assert_eq!(send_to(node.http, &sensor, ts, 20.5).await, Ok(2), "durable on two of three");
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
