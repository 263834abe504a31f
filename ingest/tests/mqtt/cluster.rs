//! Three nodes in one process, linked over loopback, with real clients: messages, retained messages, samples of rooms and
//! wills go wherever their subscribers are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use store::cluster::mesh::{Cluster, PROTOCOL, Setup};
use store::cluster::view::{NodeState, Nodes};
use store::{Config, NewRoom, NodeName, SensorId, Store};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::node::{NEVER, Node, serve, settings};
use crate::ordinary::{next, nothing, publish, subscribe, told};
use crate::raw::{Raw, packet, puback, text};

/// Longest that a message to another node may take here: unoptimised, and on busy cores.
const AT_ONCE: Duration = Duration::from_secs(5);

struct Linked {
    node: Node,
    cluster: Cluster,
    nodes: Nodes,
    peer: SocketAddr,
    _found: mpsc::Sender<SocketAddr>,
}

impl Deref for Linked {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

async fn start(name: &str, seed: Option<SocketAddr>) -> Linked {
    let directory = tempfile::tempdir().unwrap();
    let name = NodeName::new(name).unwrap();
    let mut config = Config::new(directory.path(), name.clone());
    config.expects_peers = seed.is_some();
    let store = Store::open(config).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(peer).await.unwrap();
    let nodes = Nodes::new(name.clone(), store.node().id, format!("http://{name}"), None);
    let setup = Setup {
        peer: peer.to_string(),
        versions: PROTOCOL,
        secret: None,
        replicas: 3,
        zone: None,
        expects_peers: seed.is_some(),
    };
    let (found_in, found) = mpsc::channel(4);
    if let Some(seed) = seed {
        found_in.send(seed).await.unwrap();
    }
    let cluster = Cluster::start(store.clone(), nodes.clone(), setup, tcp, udp, found).await.unwrap();
    let node = serve(store, directory, settings()).await;
    Linked { node, cluster, nodes, peer, _found: found_in }
}

async fn three() -> [Linked; 3] {
    let a = start("a", None).await;
    let (b, c) = (start("b", Some(a.peer)).await, start("c", Some(a.peer)).await);
    let all = [a, b, c];
    for node in &all {
        let linked = || {
            let views = node.nodes.all();
            views.len() == 3 && views.iter().all(|view| view.state == NodeState::Alive)
        };
        until("all are there", linked).await;
    }
    all
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < NEVER, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until these nodes know that others ask for `filter`: so many of them.
async fn asked(nodes: &[&Linked], filter: &str, count: usize) {
    for node in nodes {
        until(filter, || node.store.nodes_for(filter).len() == count).await;
    }
}

/// The payloads of the next messages.
async fn payloads(raw: &mut Raw, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..count {
        got.push(next(raw).await.2);
    }
    got
}

async fn stop(nodes: [Linked; 3]) {
    for node in &nodes {
        node.node.empty().await;
        node.stop.cancel();
    }
    for node in &nodes {
        node.cluster.leave().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_the_subscribers_of_every_node_once() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let mut publisher = Raw::connect(a, true, "publisher").await;
    let mut subscribers = Vec::new();
    for (node, filters) in [(a, ["m/#", "m/x"]), (b, ["m/#", "m/x"]), (b, ["+/x", "#"]), (c, ["m/+", "n"])] {
        let mut raw = Raw::connect(node, true, &format!("s{}", subscribers.len())).await;
        for filter in filters {
            subscribe(&mut raw, true, filter, 0).await;
        }
        subscribers.push(raw);
    }
    asked(&[a, b], "m/+", 1).await;
    asked(&[c], "m/#", 2).await;
    asked(&[a, c], "#", 1).await;
    for index in 0..200 {
        publish(&mut publisher, "m/x", &index.to_string()).await;
    }
    let expected: Vec<_> = (0..200).map(|index| index.to_string()).collect();
    for raw in &mut subscribers {
        assert_eq!(timeout(NEVER, payloads(raw, 200)).await.unwrap(), expected);
        nothing(raw).await;
    }
    let mut took = Vec::new();
    for index in 0..200 {
        let began = Instant::now();
        publisher.publish("m/x", 0, &index.to_string()).await;
        assert_eq!(next(&mut subscribers[3]).await.2, index.to_string());
        took.push(began.elapsed());
        for subscriber in &mut subscribers[..3] {
            next(subscriber).await;
        }
    }
    took.sort();
    println!("a message to a client of another node: median {:?}, 99 % {:?}", took[100], took[198]);
    // Nobody elsewhere asked for this, and nothing goes in circles.
    publish(&mut publisher, "elsewhere", "1").await;
    assert_eq!(next(&mut subscribers[2]).await.2, "1");
    for raw in [0, 1, 3] {
        nothing(&mut subscribers[raw]).await;
    }
    let sent = |node: &Linked| node.store.exchange_figures().sent;
    assert_eq!((sent(a), sent(b), sent(c)), (2 * 400 + 1, 0, 0));
    // QoS 2 here is QoS 1 there; with properties, and what there is of its time.
    subscribe(&mut subscribers[3], true, "n", 2).await;
    let properties = [&[2][..], &60_u32.to_be_bytes(), &[0x26], &text(b"k"), &text(b"v")].concat();
    let body = [&text(b"n")[..], &[0, 7, properties.len() as u8], &properties, b"two"].concat();
    publisher.send(&packet(0x34, &body)).await;
    assert_eq!(publisher.packet().await.unwrap().0, 0x50);
    publisher.send(&packet(0x62, &[0, 7])).await;
    assert_eq!(publisher.packet().await.unwrap().0, 0x70);
    let (first, body) = subscribers[3].packet().await.unwrap();
    assert_eq!(first, 0x32);
    let rest = &body[2 + 1 + 2..];
    let seconds = u32::from_be_bytes(rest[2..6].try_into().unwrap());
    assert!(rest[1] == 2 && (58..=60).contains(&seconds), "{rest:?}");
    assert_eq!(&rest[6..], &[&[0x26][..], &text(b"k"), &text(b"v"), b"two"].concat());
    // A subscription that ended is asked for no more.
    drop(subscribers.remove(3));
    asked(&[a], "m/+", 0).await;
    drop((publisher, subscribers));
    asked(&[c], "m/#", 0).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_a_group_gets_it_whichever_node_it_is_on() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let mut publisher = Raw::connect(a, true, "publisher").await;
    let mut members = [Raw::connect(b, true, "one").await, Raw::connect(c, true, "two").await];
    for raw in &mut members {
        subscribe(raw, true, "$share/g/t/#", 0).await;
    }
    let mut plain = Raw::connect(b, true, "plain").await;
    subscribe(&mut plain, true, "t/#", 0).await;
    asked(&[a], "$share/g/t/#", 2).await;
    asked(&[a], "t/#", 1).await;
    for index in 0..10 {
        publish(&mut publisher, "t/x", &index.to_string()).await;
    }
    let mut got = BTreeSet::new();
    for raw in &mut members {
        got.extend(timeout(AT_ONCE, payloads(raw, 5)).await.unwrap());
        nothing(raw).await;
    }
    assert_eq!(got.len(), 10);
    assert_eq!(payloads(&mut plain, 10).await.len(), 10);
    // A member on the publisher's node comes first.
    let mut near = Raw::connect(a, true, "near").await;
    subscribe(&mut near, true, "$share/g/t/#", 0).await;
    for index in 0..10 {
        publish(&mut publisher, "t/x", &index.to_string()).await;
    }
    assert_eq!(payloads(&mut near, 10).await.len(), 10);
    assert_eq!(payloads(&mut plain, 10).await.len(), 10);
    for raw in &mut members {
        nothing(raw).await;
    }
    drop((publisher, members, plain, near));
    stop(nodes).await;
}

fn retain(topic: &str, payload: &str) -> Vec<u8> {
    packet(0x33, &[&text(topic.as_bytes())[..], &[0, 5, 0], payload.as_bytes()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_retained_on_one_node_comes_to_who_subscribes_on_another() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let mut raw = Raw::connect(a, true, "publisher").await;
    for (topic, payload) in [("r/1", "one"), ("r/2", "two"), ("r/1", "newer")] {
        raw.send(&retain(topic, payload)).await;
        assert_eq!(puback(&raw.packet().await.unwrap()), (5, 0));
    }
    for node in [b, c] {
        let newest = || node.store.retained("r/1").is_some_and(|kept| kept.message.ends_with(b"newer"));
        until("retained everywhere", newest).await;
        let mut late = Raw::connect(node, true, "late").await;
        subscribe(&mut late, true, "r/#", 0).await;
        let mut got = [next(&mut late).await, next(&mut late).await];
        got.sort();
        assert_eq!(got, [told(0x31, "r/1", "newer"), told(0x31, "r/2", "two")]);
        nothing(&mut late).await;
    }
    // Removed on another node than it was set on.
    let mut other = Raw::connect(c, true, "other").await;
    other.send(&retain("r/1", "")).await;
    assert_eq!(puback(&other.packet().await.unwrap()), (5, 0));
    for node in [a, b, c] {
        until("removed everywhere", || node.store.retained_count() == 1).await;
    }
    drop((raw, other));
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_followed_on_any_node_wherever_it_changes_and_its_devices_are() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let sensor = SensorId::new("s").unwrap();
    let wish = NewRoom { name: "Lab".into(), ..NewRoom::default() };
    let room = a.store.create_room(wish).unwrap().0.room;
    let mut subscriber = Raw::connect(b, true, "subscriber").await;
    subscribe(&mut subscriber, true, &format!("rooms/{room}/#"), 0).await;
    let mut device = Raw::connect(c, true, "device").await;
    publish(&mut device, "sensors/s/t", r#"{"ts":1,"value":1}"#).await;
    a.store.add_sensor(&room, &sensor).unwrap();
    until("b knows", || b.store.is_in_room(room.as_str(), &sensor)).await;
    until("b has the first", || b.count("s", "t") == 1).await;
    publish(&mut device, "sensors/s/t", r#"{"ts":2,"value":2}"#).await;
    let topic = format!("rooms/{room}/s/t");
    assert_eq!(next(&mut subscriber).await, told(0x30, &topic, r#"{"ts":2,"value":2}"#));
    // Its node goes away; on the next one it goes on.
    b.stop.cancel();
    subscriber.closed_for(0x8b, "a node that stops").await;
    let mut subscriber = Raw::connect(c, true, "subscriber").await;
    subscribe(&mut subscriber, true, &format!("rooms/{room}/#"), 0).await;
    publish(&mut device, "sensors/s/t", r#"{"ts":3,"value":3}"#).await;
    assert_eq!(next(&mut subscriber).await, told(0x30, &topic, r#"{"ts":3,"value":3}"#));
    a.store.delete_room(&room).unwrap();
    until("c knows", || c.store.room(room.as_str()).is_none()).await;
    publish(&mut device, "sensors/s/t", r#"{"ts":4,"value":4}"#).await;
    nothing(&mut subscriber).await;
    drop((subscriber, device));
    stop(nodes).await;
}

/// CONNECT of version 5 with a will on `will/{id}` after `delay_s`, and a session that lasts 100 s.
async fn with_will(node: &Node, id: &str, delay_s: u32) -> Raw {
    let mut body = text(b"MQTT");
    body.extend([5, 0x06, 0, 0, 5, 0x11, 0, 0, 0, 100]);
    body.extend(text(id.as_bytes()));
    body.extend([&[5, 0x18][..], &delay_s.to_be_bytes()].concat());
    body.extend(text(format!("will/{id}").as_bytes()));
    body.extend(text(b"gone"));
    let mut raw = Raw::open(node, true).await;
    raw.send(&packet(0x10, &body)).await;
    assert_eq!(raw.packet().await.unwrap().0, 0x20);
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_another_node_has_left_the_one_before() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let mut heir = Raw::connect(c, true, "heir").await;
    subscribe(&mut heir, true, "will/#", 0).await;
    asked(&[a, b], "will/#", 1).await;
    let (mut now, mut later) = (with_will(a, "now", 0).await, with_will(a, "later", 1).await);
    until("b knows of both", || ["now", "later"].iter().all(|id| b.store.nodes_with_will(id) == 1)).await;
    let (again, again_later) = (with_will(b, "now", 0).await, with_will(b, "later", 1).await);
    for raw in [&mut now, &mut later] {
        let (first, body) = timeout(AT_ONCE, raw.packet()).await.unwrap().unwrap();
        assert_eq!((first, body[0]), (0xe0, 0x8e), "session taken over");
    }
    // What was to wait does not come, since the client is back; the other came at once, and once.
    assert_eq!(next(&mut heir).await, told(0x30, "will/now", "gone"));
    until("a says so", || ["now", "later"].iter().all(|id| c.store.nodes_with_will(id) == 1)).await;
    // A client that breaks off after that leaves the will that it has now.
    drop(again_later);
    assert_eq!(next(&mut heir).await, told(0x30, "will/later", "gone"));
    nothing(&mut heir).await;
    drop((now, later, again));
    assert_eq!(next(&mut heir).await, told(0x30, "will/now", "gone"));
    drop(heir);
    stop(nodes).await;
}

/// A subscriber that does not read loses what does not fit, and neither its session nor anybody else's messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_another_node_is_dropped_and_counted_and_ends_nobody() {
    let nodes = three().await;
    let [a, b, _] = &nodes;
    let mut deaf = Raw::connect(b, true, "deaf").await;
    subscribe(&mut deaf, true, "f/#", 1).await;
    let mut other = Raw::connect(b, true, "other").await;
    subscribe(&mut other, true, "o", 0).await;
    asked(&[a], "f/#", 1).await;
    asked(&[a], "o", 1).await;
    let mut publisher = Raw::connect(a, true, "publisher").await;
    let payload = vec![b'x'; 100_000];
    let flood = packet(0x30, &[&text(b"f/x")[..], &[0], &payload].concat());
    for _ in 0..300 {
        publisher.send(&flood).await;
    }
    publish(&mut publisher, "f/end", "end").await;
    let dropped = || {
        let (of_a, of_b) = (a.store.exchange_figures(), b.store.exchange_figures());
        of_a.link_full + of_b.broker_full + b.hub.counters.dropped.get()
    };
    until("some are dropped", || dropped() > 0).await;
    // Whatever waits, the way is free again in the end.
    let arrives = async {
        loop {
            publish(&mut publisher, "o", "still there").await;
            if timeout(Duration::from_millis(100), other.packet()).await.is_ok() {
                return;
            }
        }
    };
    timeout(NEVER, arrives).await.expect("the other client's messages");
    assert!(deaf.packet().await.is_some_and(|(first, _)| first == 0x30), "its session goes on");
    drop((deaf, other, publisher));
    stop(nodes).await;
}
