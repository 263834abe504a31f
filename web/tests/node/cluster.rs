//! What is told of the cluster: by `GET cluster`, to viewers, to whoever supervises the node, and to browsers about each
//! other's pages. The test puts the other nodes where replication would.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use store::cluster::view::{Happening, NodeState, Readiness};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::common::{Node, Socket, connect, hear_any, numbers, say};

/// Nodes `b`, alive, and `c`, down, beside `a`.
fn three() -> Node {
    let node = Node::open();
    node.put("b", 4001, NodeState::Alive);
    node.put("c", 4002, NodeState::Down);
    node
}

/// The next `cluster` message.
async fn told(socket: &mut Socket) -> Value {
    loop {
        let message = hear_any(socket).await.json();
        if message["type"] == "cluster" {
            return message;
        }
    }
}

fn states(cluster: &Value) -> Vec<(&str, &str)> {
    let nodes = cluster["nodes"].as_array().unwrap().iter();
    nodes.map(|node| (node["node"].as_str().unwrap(), node["state"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn get_cluster_lists_every_node_with_its_figures_and_what_happened() {
    let node = three();
    node.append("s/a", [1], numbers(1, vec![1.0])).await;
    node.state.nodes().event("c", Happening::Joined);
    node.state.nodes().event("c", Happening::Died);
    node.state.nodes().event("10.0.0.9:4400", Happening::Refused("it has another secret".into()));
    node.state.nodes().event("b", Happening::CaughtUp(Duration::from_millis(1240)));
    let cluster = node.get("/api/v1/cluster").await.json();
    assert_eq!((&cluster["me"], &cluster["replicas"]), (&json!("a"), &json!(3)));
    assert_eq!(states(&cluster), [("a", "alive"), ("b", "alive"), ("c", "down")]);
    let nodes = cluster["nodes"].as_array().unwrap();
    let own = node.get("/api/v1/node").await.json();
    assert_eq!((&nodes[0]["id"], &nodes[0]["http"]), (&own["id"], &own["http"]));
    assert_eq!((&nodes[0]["me"], &nodes[1]["me"]), (&json!(true), &json!(false)));
    assert_eq!((&nodes[0]["sensors"], &nodes[0]["lag_ms"]), (&json!(1), &json!(0.0)));
    assert_eq!((&nodes[1]["lag_ms"], &nodes[2]["lag_ms"]), (&json!(1.5), &Value::Null));
    assert_eq!((&nodes[1]["devices"], &nodes[1]["samples_per_second"]), (&json!(2), &json!(12.5)));
    assert!(nodes[2]["since_ts"].as_f64().unwrap() > 1.7e12);
    let events: Vec<_> = cluster["events"].as_array().unwrap().iter().collect();
    let said: Vec<_> = events.iter().map(|event| (&event["node"], &event["event"], &event["text"])).collect();
    assert_eq!(
        said,
        [
            (&json!("c"), &json!("joined"), &json!("joined")),
            (&json!("c"), &json!("died"), &json!("died")),
            (&json!("10.0.0.9:4400"), &json!("refused"), &json!("was refused: it has another secret")),
            (&json!("b"), &json!("caught_up"), &json!("caught up after 1.2 s")),
        ]
    );
    assert!(events[0]["ts"].as_f64() <= events[3]["ts"].as_f64() && events[0]["ts"].is_number());
}

#[tokio::test]
async fn viewers_hear_of_nodes_and_who_watches_the_cluster_of_figures_and_events() {
    let node = three();
    let address = node.serve().await;
    let mut page = connect(&format!("ws://{address}/api/v1/live")).await;
    let first = told(&mut page).await;
    assert_eq!(states(&first), [("a", "alive"), ("b", "alive"), ("c", "down")]);
    assert_eq!((&first["me"], first.get("events")), (&json!("a"), None));

    let mut watcher = connect(&format!("ws://{address}/api/v1/live?format=binary")).await;
    told(&mut watcher).await;
    node.state.nodes().event("c", Happening::Died);
    say(&mut watcher, json!({"type": "watch", "id": 1, "cluster": true})).await;
    let with_events = loop {
        let message = told(&mut watcher).await;
        if message.get("events").is_some() {
            break message;
        }
    };
    assert_eq!(with_events["events"][0]["event"], "died");
    // A change of state reaches both; the figures alone reach who watches.
    node.put("b", 4001, NodeState::Suspect);
    for socket in [&mut page, &mut watcher] {
        while states(&told(socket).await)[1] != ("b", "suspect") {}
    }
    node.append("s/a", [1], numbers(1, vec![1.0])).await;
    node.state.nodes().set_load(store::cluster::view::Load { sensors: 41, ..Default::default() });
    while told(&mut watcher).await["nodes"][0]["sensors"] != 41 {}
    say(&mut watcher, json!({"type": "unwatch", "id": 1})).await;
    say(&mut watcher, json!({"type": "ask"})).await;
    while hear_any(&mut watcher).await.json()["type"] != "error" {}
    // From here on it hears of changes alone: the next message is about this one.
    node.put("b", 4001, NodeState::Alive);
    let next = told(&mut watcher).await;
    assert_eq!((states(&next)[1], next.get("events")), (("b", "alive"), None));
}

#[tokio::test]
async fn a_node_is_ready_when_it_has_joined_and_caught_up() {
    let node = three();
    let nodes = node.state.nodes();
    let reasons = vec!["catching up with b".to_owned(), "joining".to_owned()];
    nodes.set_readiness(Readiness { reasons, alone: false });
    let answer = node.get("/health/ready").await;
    assert_eq!(answer.error(), (503, "not_ready".into()));
    assert_eq!(answer.json()["error"]["message"], "catching up with b; joining");
    assert!(node.get("/metrics").await.text.contains("\nsensorium_ready 0\n"));
    nodes.set_readiness(Readiness { reasons: Vec::new(), alone: true });
    assert_eq!(node.get("/health/ready").await.json(), json!({"ready": true, "alone": true}));
    nodes.set_readiness(Readiness::default());
    assert_eq!(node.get("/health/ready").await.json(), json!({"ready": true}));
}

#[tokio::test]
async fn metrics_tell_how_replication_goes() {
    let node = three();
    node.state.nodes().count(|figures| {
        (figures.frames_full, figures.frames_fewer, figures.wants, figures.relayed) = (11, 2, 3, 4);
        (figures.snapshots_served, figures.snapshots_taken, figures.scrubbed) = (5, 6, 7);
        (figures.diverged, figures.malformed) = (8, 9);
        (figures.bytes_sent, figures.bytes_received) = (1000, 2000);
    });
    let text = node.get("/metrics").await.text;
    for line in [
        "nodes{state=\"alive\"} 2",
        "nodes{state=\"suspect\"} 0",
        "nodes{state=\"down\"} 1",
        "nodes{state=\"left\"} 0",
        "ready 1",
        "peer_lag_seconds{peer=\"b\"} 0.0015",
        "frames_acknowledged_total{copies=\"all\"} 11",
        "frames_acknowledged_total{copies=\"fewer\"} 2",
        "wants_total 3",
        "relayed_frames_total 4",
        "snapshots_served_total 5",
        "snapshots_taken_total 6",
        "scrubbed_series_total 7",
        "diverged_series_total 8",
        "peer_malformed_total 9",
        "link_sent_bytes_total 1000",
        "link_received_bytes_total 2000",
    ] {
        assert!(text.contains(&format!("\nsensorium_{line}\n")), "{line} is not in\n{text}");
    }
    assert!(!text.contains("peer=\"c\""), "a node without a link has no lag");
}

/// A page of a node that died goes on with another one: it may open sockets there, read what it is answered, and change
/// state. No other page may.
#[tokio::test]
async fn the_nodes_trust_each_others_pages_and_no_others() {
    let node = three();
    let address = node.serve().await;
    let call = async |method: Method, origin: &str| {
        let request = Request::builder().method(method).uri("/api/v1/node").header("host", "127.0.0.1:4000");
        node.call(request.header("origin", origin).body(Body::empty()).unwrap()).await
    };
    let ask = async |origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/api/v1/rooms");
        let request = request.header("access-control-request-method", "PATCH").header("origin", origin);
        node.call(request.body(Body::empty()).unwrap()).await
    };
    for ours in [
        "http://127.0.0.1:4000",
        "http://127.0.0.1:4001",
        // Down: its pages are the ones that move.
        "http://127.0.0.1:4002",
        "http://localhost:4002",
    ] {
        let read = call(Method::GET, ours).await;
        assert_eq!(read.status, 200);
        assert_eq!(read.headers["access-control-allow-origin"], ours);
        assert_eq!(read.headers["vary"], "origin");
        assert_eq!(call(Method::POST, ours).await.error().1, "method_not_allowed", "{ours} is let through");
        let may = ask(ours).await;
        assert_eq!(may.status, 204);
        assert!(may.headers["access-control-allow-methods"].to_str().unwrap().contains("PATCH"));
        let mut request = format!("ws://{address}/api/v1/live").into_client_request().unwrap();
        request.headers_mut().insert("origin", ours.parse().unwrap());
        assert!(tokio_tungstenite::connect_async(request).await.is_ok(), "{ours}");
    }
    for foreign in
        ["http://127.0.0.1:4003", "https://evil.example", "null", "http://127.0.0.1.evil.example:4001"]
    {
        let read = call(Method::GET, foreign).await;
        assert!(read.status == 200 && !read.headers.contains_key("access-control-allow-origin"), "{foreign}");
        assert_eq!(call(Method::POST, foreign).await.error(), (403, "foreign_origin".into()));
        assert!(!ask(foreign).await.headers.contains_key("access-control-allow-methods"), "{foreign}");
    }
    // Programs have no origin, and are told nothing of this.
    assert!(!node.get("/api/v1/node").await.headers.contains_key("access-control-allow-origin"));
    // Pages, too, are read by the page that moved.
    let request = Request::get("/").header("origin", "http://127.0.0.1:4002").body(Body::empty()).unwrap();
    assert_eq!(node.call(request).await.headers["access-control-allow-origin"], "http://127.0.0.1:4002");
}

#[tokio::test]
async fn a_page_comes_with_the_nodes_that_it_may_turn_to() {
    let node = three();
    let page = node.get("/nowhere").await.text;
    let attribute = page.split("data-nodes=\"").nth(1).unwrap().split('"').next().unwrap();
    let told: Value = serde_json::from_str(&attribute.replace("&quot;", "\"")).unwrap();
    assert_eq!(
        told,
        json!([{"node": "a", "http": "http://127.0.0.1:4000"}, {"node": "b", "http": "http://127.0.0.1:4001"}])
    );
}
