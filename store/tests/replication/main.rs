//! Three stores in one process, linked over loopback: what one takes, all have.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use store::cluster::mesh::{Cluster, PROTOCOL, Setup};
use store::cluster::view::{NodeState, Nodes};
use store::{
    Attribute, AttributeDescription, Batch, Config, Copies, Description, Event, Kept, MemberWish, NewRoom,
    NodeName, PersonId, Policy, Query, RetainError, Role, RoomError, SampleTime, SensorId, Series, Shape,
    Store, Ticket, Times, Values,
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

mod disk;
mod expiry;
mod passing;

/// A guard, not an expectation.
const WITHIN: Duration = Duration::from_secs(60);

struct Node {
    store: Store,
    nodes: Nodes,
    cluster: Cluster,
    address: SocketAddr,
    data: tempfile::TempDir,
    /// Discovery goes on as long as the node.
    _found: mpsc::Sender<SocketAddr>,
}

fn logs() {
    let _ = tracing_subscriber::fmt().with_env_filter("store=debug").with_test_writer().try_init();
}

/// How a node is started, where it matters.
#[derive(Clone)]
struct Options {
    seed: Option<SocketAddr>,
    log_budget: u64,
    copies: Policy,
    versions: (u16, u16),
    /// Instead of a file.
    disk: Option<disk::Disk>,
}

impl Default for Options {
    fn default() -> Self {
        let copies = Policy { ack_copies: 2, min_copies: 1 };
        Self { seed: None, log_budget: 64 << 20, copies, versions: PROTOCOL, disk: None }
    }
}

async fn start_on(name: &str, options: Options, data: tempfile::TempDir) -> Node {
    logs();
    let Options { seed, log_budget, copies, versions, disk } = options;
    let mut config = Config::new(data.path(), NodeName::new(name).unwrap());
    config.expects_peers = seed.is_some();
    (config.log_budget, config.copies) = (log_budget, copies);
    let store = match disk {
        Some(disk) => Store::open_on(config, disk.another(), disk),
        None => Store::open(config),
    };
    let store = store.unwrap();
    let (tcp, udp) = sockets().await;
    let address = tcp.local_addr().unwrap();
    let id = store.node().id;
    let nodes = Nodes::new(NodeName::new(name).unwrap(), id, format!("http://{name}"), None);
    let setup = Setup {
        peer: address.to_string(),
        versions,
        secret: Some("secret".into()),
        replicas: 3,
        zone: None,
        expects_peers: seed.is_some(),
    };
    let (found_in, found) = mpsc::channel(4);
    if let Some(seed) = seed {
        found_in.send(seed).await.unwrap();
    }
    let cluster = Cluster::start(store.clone(), nodes.clone(), setup, tcp, udp, found).await.unwrap();
    Node { store, nodes, cluster, address, data, _found: found_in }
}

/// Two of one port. What is free for one may be taken for the other.
async fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
}

async fn start_with(name: &str, options: Options) -> Node {
    start_on(name, options, tempfile::tempdir().unwrap()).await
}

async fn start_in(name: &str, seed: Option<SocketAddr>, data: tempfile::TempDir, log_budget: u64) -> Node {
    start_on(name, Options { seed, log_budget, ..Options::default() }, data).await
}

async fn start(name: &str, seed: Option<SocketAddr>) -> Node {
    start_with(name, Options { seed, ..Options::default() }).await
}

/// Waits for what no event tells.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WITHIN, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

impl Node {
    async fn ready(&self) {
        until("ready", || self.nodes.readiness().reasons.is_empty()).await;
    }

    /// Another node is alive, and every one that is counts for acknowledgements here.
    async fn counts(&self) {
        let counts = || {
            let nodes = self.nodes.all();
            let mut alive = nodes.iter().filter(|view| !view.me && view.state == NodeState::Alive).peekable();
            alive.peek().is_some() && alive.all(|view| view.lag.is_some())
        };
        until("others count", counts).await;
    }

    fn series(&self, sensor: &str) -> Series {
        let (sensor, attribute) = (SensorId::new(sensor).unwrap(), Attribute::new("value").unwrap());
        self.store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap()
    }

    async fn append(&self, sensor: &str, times: std::ops::Range<i64>) -> Copies {
        let flat = times.clone().map(|time| time as f64).collect();
        let batch = Batch {
            series: self.series(sensor),
            times: Times::At(times.map(SampleTime).collect()),
            values: Values::Numbers { channels: 1, flat },
        };
        let appended = self.store.append(vec![batch]).await.unwrap();
        timeout(WITHIN, appended.ticket.kept()).await.expect("acknowledged").unwrap()
    }

    fn times(&self, sensor: &str) -> Vec<i64> {
        let found = self.store.find(sensor, "value");
        found.map_or(Vec::new(), |series| {
            series.read(&Query::newest(100_000)).times.iter().map(|time| time.0).collect()
        })
    }

    fn knows(&self, name: &str, state: NodeState) -> bool {
        self.nodes.get(&NodeName::new(name).unwrap()).is_some_and(|view| view.state == state)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.cluster.leave().await.unwrap();
        self.store.close().await;
        self.data
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_hold_what_one_takes_and_an_empty_one_catches_up() {
    let a = start("a", None).await;
    let (b, c) = (start("b", Some(a.address)).await, start("c", Some(a.address)).await);
    for node in [&a, &b, &c] {
        node.ready().await;
    }
    until("all know all", || {
        [(&a, ["b", "c"]), (&b, ["a", "c"]), (&c, ["a", "b"])]
            .iter()
            .all(|(node, others)| others.iter().all(|other| node.knows(other, NodeState::Alive)))
    })
    .await;
    a.counts().await;
    let copies = a.append("s", 0..500).await;
    assert!(copies >= Copies(2), "{copies:?}");
    b.append("s", 500..900).await;
    c.append("t", 0..10).await;
    for node in [&a, &b, &c] {
        until("all answer alike", || node.times("s").len() == 900 && node.times("t").len() == 10).await;
    }
    // Descriptions travel the same way.
    let keep = AttributeDescription { keep: Some(5000), unit: Some("Cel".into()), ..Default::default() };
    let description =
        Description { name: Some("Oven".into()), attributes: vec![(Attribute::new("value").unwrap(), keep)] };
    a.store.describe(&SensorId::new("s").unwrap(), &description).unwrap();
    for node in [&b, &c] {
        until("described", || {
            node.store.sensor("s").is_some_and(|view| view.name.as_deref() == Some("Oven"))
        })
        .await;
        assert_eq!(node.series("s").view().keep, 5000);
    }
    // One leaves in order; the others go on at once, and it is told so.
    c.stop().await;
    until("c has left", || a.knows("c", NodeState::Left) && b.knows("c", NodeState::Left)).await;
    assert_eq!(a.append("s", 900..1000).await, Copies(2));
    // A new disk under the old name gets everything, that of the node that is gone too.
    let c = start("c", Some(b.address)).await;
    c.ready().await;
    until("c has it all", || c.times("s").len() == 1000 && c.times("t").len() == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_no_longer_has_comes_as_a_snapshot_and_survives_a_restart() {
    const LOG: u64 = 16 << 10;
    let a = start_in("a", None, tempfile::tempdir().unwrap(), LOG).await;
    a.ready().await;
    for batch in 0..40 {
        a.append(&format!("s{}", batch % 4), batch * 250..(batch + 1) * 250).await;
    }
    until("the log was trimmed", || a.store.stats().log_bytes < 3 * LOG).await;
    let held: Vec<_> = (0..4).map(|s| a.times(&format!("s{s}"))).collect();
    // In a new run none of it is in memory as frames.
    let a = start_in("a", None, a.stop().await, LOG).await;
    a.ready().await;
    let b = start_in("b", Some(a.address), tempfile::tempdir().unwrap(), LOG).await;
    b.ready().await;
    for (s, held) in held.iter().enumerate() {
        assert_eq!(b.times(&format!("s{s}")), *held);
    }
    assert!(a.nodes.figures().snapshots_served > 0, "{:?}", a.nodes.figures());
    a.counts().await;
    let copies = a.append("s0", 20_000..20_100).await;
    assert_eq!(copies, Copies(2));
    let after = a.times("s0");
    let data = b.stop().await;
    assert!(Path::new(data.path()).join("sensorium.redb").exists());
    let b = start_in("b", Some(a.address), data, LOG).await;
    assert_eq!(b.times("s0"), after, "it was durable before it was acknowledged");
    b.ready().await;
    b.counts().await;
    assert_eq!(b.append("s1", 30_000..30_001).await, Copies(2));
    until("a has it", || a.times("s1").last() == Some(&30_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_online_on_every_node_and_gone_with_its_node() {
    let a = start("a", None).await;
    let b = start("b", Some(a.address)).await;
    b.ready().await;
    let sensor = SensorId::new("strap-7").unwrap();
    let device = a.store.device(&sensor);
    let online = |node: &Node| node.store.sensor("strap-7").is_some_and(|view| view.online);
    assert!(online(&a));
    until("b knows", || online(&b)).await;
    drop(device);
    until("b knows that it is gone", || !online(&b)).await;
    let _again = a.store.device(&sensor);
    until("b knows again", || online(&b)).await;
    a.append("strap-7", 0..3).await;
    until("b names the node", || b.store.sensor("strap-7").is_some_and(|view| view.node.as_str() == "a"))
        .await;
    a.stop().await;
    until("gone with its node", || !online(&b)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_min_copies_nothing_is_acknowledged_and_versions_may_differ_by_one() {
    let mut options = Options { copies: Policy { ack_copies: 2, min_copies: 2 }, ..Options::default() };
    let a = start_with("a", options.clone()).await;
    let series = a.series("s");
    let values = Values::Numbers { channels: 1, flat: vec![1.0] };
    let batch = Batch { series, times: Times::At(vec![SampleTime(1)]), values };
    let ticket = a.store.append(vec![batch]).await.unwrap().ticket;
    until("durable here", || a.store.stats().durable_frame >= ticket.frame()).await;
    assert!(ticket.is_kept().is_none(), "one copy is not enough");
    // A node of the next version of the protocol joins: both speak the older one.
    options.versions = (PROTOCOL.0, PROTOCOL.1 + 1);
    options.seed = Some(a.address);
    let b = start_with("b", options).await;
    assert_eq!(timeout(WITHIN, ticket.kept()).await.unwrap().unwrap(), Copies(2));
    until("b has it", || b.times("s") == [1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cleared_on_one_node_is_gone_on_all_and_does_not_come_back_with_one_that_was_away() {
    const LOG: u64 = 16 << 10;
    let kept = |store: &Node| store.store.clear(&SensorId::new("s").unwrap()).expect("there is one");
    let a = start_in("a", None, tempfile::tempdir().unwrap(), LOG).await;
    a.ready().await;
    let b = start_in("b", Some(a.address), tempfile::tempdir().unwrap(), LOG).await;
    b.ready().await;
    a.counts().await;
    assert_eq!(a.append("s", 0..300).await, Copies(2));
    until("b has it", || b.times("s").len() == 300).await;
    // Alone, b takes what a has never seen.
    let a = a.stop().await;
    b.append("s", 300..600).await;
    let b = b.stop().await;
    let a = start_in("a", None, a, LOG).await;
    a.ready().await;
    assert_eq!(a.times("s").len(), 300);
    timeout(WITHIN, kept(&a).kept()).await.expect("durable").unwrap();
    assert!(a.store.sensor("s").is_none());
    a.append("s", 900..910).await;
    // It comes back with its old samples, and hands over those that it alone has.
    let b = start_in("b", Some(a.address), b, LOG).await;
    assert_eq!(b.times("s").len(), 600, "nobody has told it");
    b.ready().await;
    for node in [&a, &b] {
        until("only what was sent afterwards", || node.times("s") == (900..910).collect::<Vec<_>>()).await;
    }
    // Cleared where it was not taken; what is sent to either afterwards is kept on both.
    timeout(WITHIN, kept(&b).kept()).await.expect("durable").unwrap();
    until("gone on a too", || a.store.sensor("s").is_none() && a.times("s").is_empty()).await;
    a.counts().await;
    b.counts().await;
    assert_eq!(a.append("s", 100..103).await, Copies(2));
    assert_eq!(b.append("s", 103..105).await, Copies(2));
    for node in [&a, &b] {
        until("both have it", || node.times("s") == [100, 101, 102, 103, 104]).await;
    }
    // Nor does a node with an empty disk bring anything back, nor one that starts anew from its own.
    for batch in 0..40 {
        a.append("filler", batch * 250..(batch + 1) * 250).await;
    }
    until("the log was trimmed", || a.store.stats().log_bytes < 3 * LOG).await;
    let c = start_in("c", Some(a.address), tempfile::tempdir().unwrap(), LOG).await;
    c.ready().await;
    let b = start_in("b", Some(a.address), b.stop().await, LOG).await;
    b.ready().await;
    for node in [&a, &b, &c] {
        until("all answer alike", || node.times("s") == [100, 101, 102, 103, 104]).await;
    }
}

fn lab() -> NewRoom {
    NewRoom { name: "Lab".into(), temporary: false, sensors: vec![SensorId::new("s").unwrap()] }
}

fn ana(role: Role) -> (PersonId, MemberWish) {
    (PersonId::new("ana").unwrap(), MemberWish { name: None, role: Some(role) })
}

async fn kept(ticket: Ticket) -> Copies {
    timeout(WITHIN, ticket.kept()).await.expect("kept").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_made_on_one_node_is_joined_on_another_and_what_two_sides_do_merges() {
    let a = start("a", None).await;
    a.ready().await;
    let b = start("b", Some(a.address)).await;
    b.ready().await;
    let mut feed = b.store.subscribe(10);
    feed.follow_catalog(true);
    a.counts().await;
    b.counts().await;
    let (room, ticket) = a.store.create_room(lab()).unwrap();
    assert_eq!(kept(ticket).await, Copies(2));
    let code = room.join_code.unwrap();
    // It was told to be on two disks: so it is known there.
    assert_eq!(b.store.room_by_code(code).as_ref(), Some(&room.room));
    assert!(matches!(timeout(WITHIN, feed.next()).await.expect("told"), Event::Room(id) if id == room.room));
    let (who, member) = ana(Role::Member);
    assert_eq!(kept(b.store.put_member(&room.room, &who, member).unwrap()).await, Copies(2));
    let other = b.store.create_room(NewRoom { name: "Other".into(), ..lab() }).unwrap().0.room;
    until("a knows both", || a.store.rooms().len() == 2).await;
    // Each alone.
    let a = a.stop().await;
    let id = &room.room;
    b.store.rename_room(id, "Named by b".into()).unwrap();
    b.store.remove_sensor(id, &SensorId::new("s").unwrap()).unwrap();
    b.store.put_member(id, &who, ana(Role::Admin).1).unwrap();
    b.store.rename_room(&other, "In vain".into()).unwrap();
    kept(b.store.renew_join_code(id).unwrap().1).await;
    let b = b.stop().await;
    let a = start_in("a", None, a, 64 << 20).await;
    a.ready().await;
    a.store.rename_room(id, "Named by a".into()).unwrap();
    a.store.add_sensor(id, &SensorId::new("s").unwrap()).unwrap();
    a.store.remove_member(id, &who).unwrap();
    let (renewed, _) = a.store.renew_join_code(id).unwrap();
    kept(a.store.delete_room(&other).unwrap()).await;
    let b = start_in("b", Some(a.address), b, 64 << 20).await;
    b.ready().await;
    until("both hold the same", || a.store.rooms() == b.store.rooms()).await;
    let view = b.store.room(id.as_str()).unwrap();
    assert_eq!((view.name.as_str(), view.join_code), ("Named by a", Some(renewed)), "the later of two");
    assert_eq!(view.sensors.len(), 1, "what is added stays");
    assert_eq!(view.members, [], "who is removed is out, whatever they became");
    assert_eq!(b.store.room_by_code(code), None);
    assert_eq!(b.store.room(other.as_str()), None, "what is deleted stays deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_come_to_a_new_node_by_snapshot() {
    const LOG: u64 = 16 << 10;
    let a = start_in("a", None, tempfile::tempdir().unwrap(), LOG).await;
    a.ready().await;
    let (room, _) = a.store.create_room(lab()).unwrap();
    let (gone, _) = a.store.create_room(lab()).unwrap();
    kept(a.store.delete_room(&gone.room).unwrap()).await;
    for batch in 0..40 {
        a.append("filler", batch * 250..(batch + 1) * 250).await;
    }
    until("the log was trimmed", || a.store.stats().log_bytes < 3 * LOG).await;
    // In a new run none of it is in memory as frames.
    let a = start_in("a", None, a.stop().await, LOG).await;
    a.ready().await;
    let (later, _) = a.store.create_room(lab()).unwrap();
    let b = start_in("b", Some(a.address), tempfile::tempdir().unwrap(), LOG).await;
    b.ready().await;
    // A node that heard of nobody for long is ready by itself.
    until("b has all rooms", || a.store.rooms() == b.store.rooms()).await;
    assert!(a.nodes.figures().snapshots_served > 0, "{:?}", a.nodes.figures());
    assert_eq!(b.store.room_by_code(later.join_code.unwrap()), Some(later.room));
    // Additions go on where those of the snapshot end, on both.
    kept(b.store.add_sensor(&room.room, &SensorId::new("t").unwrap()).unwrap()).await;
    kept(a.store.add_sensor(&room.room, &SensorId::new("u").unwrap()).unwrap()).await;
    for node in [&a, &b] {
        let has_all = || node.store.room(room.room.as_str()).is_some_and(|view| view.sensors.len() == 3);
        until("both have all", has_all).await;
    }
    let held = b.store.rooms();
    assert_eq!(a.store.rooms(), held);
    let b = start_in("b", None, b.stop().await, LOG).await;
    assert_eq!(b.store.rooms(), held, "the snapshot is on its disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_node_never_meets_a_room() {
    let a = start("a", None).await;
    a.ready().await;
    // It speaks version 1 alone, as the release before.
    let older = Options { seed: Some(a.address), versions: (1, 1), ..Options::default() };
    let b = start_with("b", older.clone()).await;
    b.ready().await;
    a.counts().await;
    assert_eq!(a.append("s", 0..10).await, Copies(2), "samples are kept on both");
    let error = a.store.create_room(lab()).unwrap_err();
    assert_eq!(error, RoomError::OlderNode("b".into()));
    let message = || Some(Kept { message: b"1".to_vec().into(), expires: None });
    let error = a.store.retain("topic", message()).unwrap_err();
    assert_eq!(error, RetainError::OlderNode("b".into()));
    b.stop().await;
    until("b has left", || a.knows("b", NodeState::Left)).await;
    kept(a.store.retain("topic", message()).unwrap().unwrap()).await;
    kept(a.store.create_room(lab()).unwrap().1).await;
    let b = start_with("b", older).await;
    let reason = timeout(WITHIN, b.cluster.refused()).await.expect("it is told why");
    assert!(reason.contains("holds rooms") && reason.contains("upgrade node b"), "{reason}");
}
