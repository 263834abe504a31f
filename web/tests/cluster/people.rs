//! People and their attention over real nodes: what is looked at on one reaches a device on another, and nobody is seen
//! who is gone with a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use firmware_sim::demo::cluster::Cluster;
use firmware_sim::demo::http;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::common::{GUARD, alone, plan, room, slow};

/// From a viewer's look to the advice at a device of another node, on a machine of their own.
const ADVISED_WITHIN: Duration = Duration::from_millis(300);
/// How long attention lasts when its viewer has gone: at least, and on a machine of its own at most.
const EASES: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(15));
/// After a node was killed, on a machine of its own.
const PRESENT_WITHIN: Duration = Duration::from_secs(3);

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn open(node: SocketAddr, path: &str) -> Socket {
    let url = format!("ws://{node}/api/v1/{path}");
    timeout(GUARD, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap().0
}

pub(crate) async fn say(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next message of this type.
pub(crate) async fn hear(socket: &mut Socket, of: &str) -> Value {
    let heard = async {
        loop {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
            let said: Value = serde_json::from_str(&text).unwrap();
            if said["type"] == of {
                return said;
            }
        }
    };
    timeout(GUARD, heard).await.unwrap_or_else(|_| panic!("no {of}"))
}

/// Waits for this attention at a device; what it is told before, besides what it knew.
async fn advised(device: &mut Socket, knew: &str, level: &str) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let advice = hear(device, "advice").await;
        match advice["attention"].as_str().unwrap() {
            // It is told the same again when the load of its node is another one.
            same if same == knew => {}
            new if new == level => return told,
            other => told.push(other.to_owned()),
        }
    }
}

pub(crate) async fn people(node: SocketAddr, room: &str) -> Vec<(String, String)> {
    let presence: Value = http::json(node, &format!("/api/v1/rooms/{room}/presence")).await.unwrap();
    let text = |person: &Value, key: &str| person[key].as_str().unwrap().to_owned();
    let people = presence["people"].as_array().unwrap();
    people.iter().map(|person| (text(person, "id"), text(person, "node"))).collect()
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.running().map(|node| node.http).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_on_one_node_is_felt_by_the_device_on_another_and_for_a_while_afterwards() {
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(2, &[])).await.unwrap();
    let nodes = addresses(&cluster);
    let mut device = open(nodes[0], "ingest/ws").await;
    say(&mut device, json!({"type": "hello", "sensor": "strap-7"})).await;
    assert_eq!(advised(&mut device, "", "none").await, [""; 0]);
    let room = room(&nodes, &["strap-7"]).await;
    let mut took = Vec::new();
    let (series, through_room) = (json!({"series": ["strap-7/ecg"]}), json!({"rooms": [room]}));
    let mut knew = "none";
    for (level, mut watch) in [("low", series.clone()), ("medium", through_room), ("high", series)] {
        let mut viewer = open(nodes[1], "live").await;
        let began = Instant::now();
        (watch["type"], watch["id"], watch["attention"]) = (json!("watch"), json!(1), json!(level));
        say(&mut viewer, watch).await;
        assert_eq!(advised(&mut device, knew, level).await, [""; 0]);
        took.push(began.elapsed());
        knew = level;
        drop(viewer);
    }
    // The last viewer is gone, as if it were killed: its socket is closed without a word.
    let left = Instant::now();
    let through = advised(&mut device, "high", "none").await;
    let eased = left.elapsed();
    // A node that looks late may leave out a step.
    assert!(through.is_sorted_by(|a, b| (a.as_str(), b.as_str()) != ("low", "medium")), "{through:?}");
    eprintln!("advised after {took:?}; none {eased:?} after the viewer had gone");
    assert!(eased >= EASES.0, "{eased:?}");
    // Somebody looks again, and is gone with their node.
    let mut viewer = open(nodes[1], "live").await;
    say(&mut viewer, json!({"type": "watch", "id": 1, "series": ["strap-7/ecg"], "attention": "high"})).await;
    assert_eq!(advised(&mut device, "none", "high").await, [""; 0]);
    cluster.node_mut(1).kill().await.unwrap();
    let killed = Instant::now();
    advised(&mut device, "high", "none").await;
    let after_kill = killed.elapsed();
    eprintln!("none {after_kill:?} after the viewer's node was killed");
    assert!(after_kill >= EASES.0, "{after_kill:?}");
    if slow() {
        assert!(after_kill <= EASES.1 + PRESENT_WITHIN, "{after_kill:?}");
        assert!(took.iter().all(|took| *took <= ADVISED_WITHIN), "{took:?}");
        assert!(eased <= EASES.1 + ADVISED_WITHIN, "{eased:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_right_after_a_node_was_killed_and_who_moved_is_there_once() {
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let nodes = addresses(&cluster);
    let room = room(&nodes, &[]).await;
    let mut sockets = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        for person in 0..5 {
            let mut socket = open(*node, "live").await;
            let id = format!("p{at}-{person}");
            say(&mut socket, json!({"type": "enter", "room": room, "id": id, "call": true})).await;
            sockets.push(socket);
        }
    }
    for node in &nodes {
        let all = cluster.eventually("all are seen", GUARD, async || {
            let people = people(*node, &room).await;
            if people.len() == 15 { Ok(()) } else { Err(format!("{people:?}")) }
        });
        all.await.unwrap();
    }
    cluster.node_mut(0).kill().await.unwrap();
    let began = Instant::now();
    // Two of its people come back, one to each of the others.
    for (at, node) in nodes[1..].iter().enumerate() {
        let mut socket = open(*node, "live").await;
        say(&mut socket, json!({"type": "enter", "room": room, "id": format!("p0-{at}"), "call": true}))
            .await;
        sockets.push(socket);
    }
    for node in &nodes[1..] {
        let right = cluster.eventually("presence is right", GUARD, async || {
            let people = people(*node, &room).await;
            let of = |name: &str| people.iter().filter(|(_, node)| node == name).count();
            if (people.len(), of("b"), of("c")) == (12, 6, 6) { Ok(()) } else { Err(format!("{people:?}")) }
        });
        right.await.unwrap();
    }
    let took = began.elapsed();
    eprintln!("presence was right {took:?} after the kill");
    assert!(!slow() || took <= PRESENT_WITHIN, "{took:?}");
    // A signal finds whoever moved.
    let at = sockets.len() - 2;
    say(&mut sockets[at], json!({"type": "signal", "room": room, "to": "p0-1", "data": 7})).await;
    let signal = hear(&mut sockets[at + 1], "signal").await;
    assert_eq!((&signal["from"], &signal["data"]), (&json!("p0-0"), &json!(7)));
}
