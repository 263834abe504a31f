//! MQTT over real nodes, with mosquitto's clients: what was retained, who subscribed and what clients left outlive the node
//! that they were at. Without these clients the tests say so and, when `REQUIRE_ALL=1`, fail.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firmware_sim::demo::cluster::Cluster;
use parking_lot::Mutex;
use serde_json::Value;

use crate::common::{GUARD, alone, call, often, plan, room, slow};

/// From a kill to a will at the subscribers, on a machine of its own. Membership needs a refused connection for it.
const WILL_WITHIN: Duration = Duration::from_secs(3);

/// Whether mosquitto's clients are there.
fn mosquitto() -> bool {
    let found = Command::new("mosquitto_pub").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        let required = std::env::var("REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "mosquitto_pub is not installed (mosquitto-clients), and REQUIRE_ALL=1");
        eprintln!("SKIPPED: mosquitto_pub is not installed (mosquitto-clients)");
    }
    found
}

fn command(program: &str, node: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &node.port().to_string()]);
    command
}

/// mosquitto_sub, and what it has got: `topic payload`, a line each.
struct Subscriber {
    child: Child,
    got: Arc<Mutex<Vec<String>>>,
}

impl Subscriber {
    fn start(node: SocketAddr, arguments: &[&str]) -> Self {
        let mut child = command("mosquitto_sub", node)
            .args(["-v", "-q", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let got = Arc::<Mutex<Vec<String>>>::default();
        let into = got.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| into.lock().push(line)));
        Self { child, got }
    }

    fn count(&self, line: &str) -> usize {
        self.got.lock().iter().filter(|got| *got == line).count()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes one message with QoS 1, and waits for its acknowledgement.
fn publish(node: SocketAddr, topic: &str, payload: &str, more: &[&str]) {
    let sent = command("mosquitto_pub", node)
        .args(["-q", "1", "-t", topic, "-m", payload])
        .args(more)
        .status()
        .unwrap();
    assert!(sent.success(), "{topic}");
}

fn brokers(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.running().map(|node| node.mqtt.unwrap()).collect()
}

/// Publishes on `from` until every subscriber gets what is published there: they are known.
async fn reached(cluster: &Cluster, from: SocketAddr, topic: &str, subscribers: &[&Subscriber]) {
    for attempt in 0.. {
        let probe = format!("probe-{}-{attempt}", from.port());
        publish(from, topic, &probe, &[]);
        let line = format!("{topic} {probe}");
        let reached =
            cluster.eventually("the subscribers are reached", Duration::from_millis(500), async || {
                let all = subscribers.iter().all(|subscriber| subscriber.count(&line) == 1);
                if all { Ok(()) } else { Err("not yet".to_owned()) }
            });
        if reached.await.is_ok() {
            return;
        }
        assert!(attempt < 40, "subscribers are not reached\n{}", cluster.logs());
    }
}

/// Subscribes again and again until a node gives this message as the one that is retained on its topic.
async fn has_retained(cluster: &Cluster, node: SocketAddr, line: &str) {
    let topic = line.split(' ').next().unwrap();
    let began = Instant::now();
    loop {
        let subscriber = Subscriber::start(node, &["-t", topic]);
        let comes = cluster.eventually("what is retained", Duration::from_millis(500), async || {
            if subscriber.got.lock().is_empty() { Err("nothing yet".to_owned()) } else { Ok(()) }
        });
        let came = comes.await.is_ok();
        let got = subscriber.got.lock().clone();
        if came && got == [line] {
            return;
        }
        let late = began.elapsed() > GUARD;
        assert!(!late, "{node} has retained {got:?}, not {line}\n{}", cluster.logs());
    }
}

async fn eventually(cluster: &Cluster, what: &str, holds: impl Fn() -> bool) {
    let waited =
        cluster.eventually(what, GUARD, async || if holds() { Ok(()) } else { Err("not yet".to_owned()) });
    waited.await.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_nodes_once_and_retained_ones_outlive_theirs() {
    if !mosquitto() {
        return;
    }
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let nodes = brokers(&cluster);
    let subscribers = [1, 2].map(|at: usize| Subscriber::start(nodes[at], &["-t", "news/#"]));
    reached(&cluster, nodes[0], "news/x", &[&subscribers[0], &subscribers[1]]).await;
    for round in 0..20 {
        publish(nodes[0], "news/x", &format!("message-{round}"), &[]);
    }
    let all =
        |subscriber: &Subscriber| (0..20).all(|n| subscriber.count(&format!("news/x message-{n}")) == 1);
    eventually(&cluster, "each message once", || subscribers.iter().all(all)).await;
    // Retained on the node that dies, the last one right before.
    let topics = often(100, 1000);
    for topic in 0..topics {
        publish(nodes[0], &format!("kept/{topic}"), &format!("value-{topic}"), &["-r"]);
    }
    publish(nodes[0], "kept/0", "", &["-r"]);
    cluster.node_mut(0).kill().await.unwrap();
    for node in &nodes[1..] {
        let late = Subscriber::start(*node, &["-t", "kept/#"]);
        eventually(&cluster, "all that was retained", || late.got.lock().len() >= topics - 1).await;
        let mut got = late.got.lock().clone();
        got.sort();
        let mut expected: Vec<_> = (1..topics).map(|topic| format!("kept/{topic} value-{topic}")).collect();
        expected.sort();
        assert_eq!(got, expected, "each once, and not what was removed");
    }
    // Messages go on between those that are left.
    reached(&cluster, nodes[1], "news/x", &[&subscribers[1]]).await;
    // And it comes back with all of it, and is told what was removed meanwhile.
    publish(nodes[2], "kept/1", "", &["-r"]);
    cluster.node_mut(0).start().await.unwrap();
    cluster.ready(0).await.unwrap();
    let back = brokers(&cluster)[0];
    let late = Subscriber::start(back, &["-t", "kept/#"]);
    eventually(&cluster, "it has them", || late.got.lock().len() >= topics - 2).await;
    let got = late.got.lock().clone();
    assert!(got.len() == topics - 2 && !got.contains(&"kept/1 value-1".to_owned()), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_of_a_client_of_a_killed_node_is_published_once() {
    if !mosquitto() {
        return;
    }
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let nodes = brokers(&cluster);
    let heirs = [1, 2].map(|at: usize| Subscriber::start(nodes[at], &["-t", "will/#"]));
    reached(&cluster, nodes[0], "will/probe", &[&heirs[0], &heirs[1]]).await;
    let will = |id: &str, more: &[&str]| {
        let topic = format!("will/{id}");
        let mut arguments = vec!["-i", id, "-t", "in", "--will-topic", &topic, "--will-payload", "gone"];
        arguments.extend(["--will-qos", "1", "--will-retain"]);
        arguments.extend(more);
        Subscriber::start(nodes[0], &arguments)
    };
    let clients = often(8, 40);
    let ids: Vec<_> = (0..clients).map(|client| format!("client-{client}")).collect();
    let mut dying: Vec<_> = ids.iter().map(|id| will(id, &[])).collect();
    // These wait; one of them comes back in time.
    let delayed = |seconds: &'static str| ["-c", "-x", "60", "-D", "WILL", "will-delay-interval", seconds];
    dying.push(will("comes-back", &delayed("2")));
    dying.push(will("stays-away", &delayed("2")));
    dying.push(will("stays-longer", &delayed("4")));
    reached(&cluster, nodes[1], "in", &dying.iter().collect::<Vec<_>>()).await;
    // What a node said before its last filter, the others have heard when they know that.
    let last = Subscriber::start(nodes[0], &["-t", "last"]);
    for node in &nodes[1..] {
        reached(&cluster, *node, "last", &[&last]).await;
    }
    let killed = Instant::now();
    cluster.node_mut(0).kill().await.unwrap();
    // Mosquitto's clients try the dead node again; this one moves.
    let moved = Subscriber::start(nodes[2], &["-i", "comes-back", "-t", "nothing", "-c", "-x", "60"]);
    let has = |heir: &Subscriber, id: &str| heir.count(&format!("will/{id} gone"));
    eventually(&cluster, "the wills", || heirs.iter().all(|heir| ids.iter().all(|id| has(heir, id) > 0)))
        .await;
    let took = killed.elapsed();
    eventually(&cluster, "the delayed will", || heirs.iter().all(|heir| has(heir, "stays-away") > 0)).await;
    let delayed = killed.elapsed();
    eprintln!("{clients} wills after {took:?}, one of 2 s after {delayed:?}");
    assert!(!slow() || took <= WILL_WITHIN, "{took:?}");
    assert!(delayed >= Duration::from_secs(2), "{delayed:?}");
    // When this one comes, a second one of any other would have come.
    eventually(&cluster, "the last will", || heirs.iter().all(|heir| has(heir, "stays-longer") > 0)).await;
    for heir in &heirs {
        for id in ids.iter().map(String::as_str).chain(["stays-away"]) {
            assert_eq!(has(heir, id), 1, "{id}\n{}", cluster.logs());
        }
        assert_eq!(has(heir, "comes-back"), 0, "it is on another node");
    }
    // They are retained, on both.
    for node in &nodes[1..] {
        let late = Subscriber::start(*node, &["-t", "will/#"]);
        eventually(&cluster, "retained wills", || ids.iter().all(|id| has(&late, id) == 1)).await;
    }
    drop((moved, dying, last));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_of_a_client_of_a_hung_node_comes_once_and_undoes_nothing() {
    if !mosquitto() {
        return;
    }
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let nodes = brokers(&cluster);
    let heirs = [1, 2].map(|at: usize| Subscriber::start(nodes[at], &["-t", "will/#"]));
    reached(&cluster, nodes[0], "will/probe", &[&heirs[0], &heirs[1]]).await;
    let client = |id: &str| {
        let topic = format!("will/{id}");
        let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
        Subscriber::start(nodes[0], &[&["-i", id, "-t", id][..], &will].concat())
    };
    let moves = client("moves");
    for node in &nodes[1..] {
        reached(&cluster, *node, "moves", &[&moves]).await;
    }
    cluster.node_mut(0).hang().unwrap();
    let has = |heir: &Subscriber, line: &str| heir.count(line);
    eventually(&cluster, "the will", || heirs.iter().all(|heir| has(heir, "will/moves gone") > 0)).await;
    drop(moves);
    publish(nodes[2], "will/moves", "back", &["-r", "-i", "moves"]);
    cluster.node_mut(0).go_on().unwrap();
    cluster.all_alive().await.unwrap();
    // This one goes later than the other did for the node, and its will waits as long: a second one would have come.
    let goes = client("goes");
    reached(&cluster, nodes[1], "goes", &[&goes]).await;
    drop(goes);
    for node in &nodes[..] {
        has_retained(&cluster, *node, "will/moves back").await;
        let late = Subscriber::start(*node, &["-t", "will/#"]);
        let both = || has(&late, "will/goes gone") == 1 && has(&late, "will/moves back") > 0;
        eventually(&cluster, "its will, and what the other said last", both).await;
        let got = late.got.lock().clone();
        let counts = (has(&late, "will/moves gone"), has(&late, "will/moves back"));
        assert_eq!(counts, (0, 1), "{node} gave {got:?}\n{}", cluster.logs());
    }
    for (heir, node) in heirs.iter().zip(&nodes[1..]) {
        eventually(&cluster, "the will of the other", || has(heir, "will/goes gone") == 1).await;
        let counts = (has(heir, "will/moves gone"), has(heir, "will/moves back"));
        let got = heir.got.lock().clone();
        assert_eq!(counts, (1, 1), "{node} gave {got:?}\n{}", cluster.logs());
    }
}

/// Sends samples of a sensor until the subscriber gets one of them by its room; the time of the last.
async fn flows(
    cluster: &Cluster,
    from: SocketAddr,
    to: &Subscriber,
    room: &str,
    sensor: &str,
    after: u32,
) -> u32 {
    for ts in after + 1.. {
        publish(from, &format!("sensors/{sensor}/t"), &format!(r#"{{"ts":{ts},"value":{ts}}}"#), &[]);
        let line = format!(r#"rooms/{room}/{sensor}/t {{"ts":{ts},"value":{ts}}}"#);
        let comes = cluster.eventually("the sample", Duration::from_millis(500), async || {
            if to.count(&line) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
        });
        if comes.await.is_ok() {
            return ts;
        }
        assert!(ts < after + 40, "samples of {sensor} do not come\n{}", cluster.logs());
    }
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_followed_at_the_next_node_when_one_is_killed() {
    if !mosquitto() {
        return;
    }
    let _machine = alone().await;
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let http: Vec<SocketAddr> = cluster.running().map(|node| node.http).collect();
    let nodes = brokers(&cluster);
    let room = room(&http, &["strap"]).await;
    let filter = format!("rooms/{room}/#");
    let first = Subscriber::start(nodes[0], &["-t", &filter]);
    let ts = flows(&cluster, nodes[1], &first, &room, "strap", 0).await;
    cluster.node_mut(0).kill().await.unwrap();
    let second = Subscriber::start(nodes[2], &["-t", &filter]);
    let ts = flows(&cluster, nodes[1], &second, &room, "strap", ts).await;
    for ts in ts + 1..ts + 21 {
        publish(nodes[1], "sensors/strap/t", &format!(r#"{{"ts":{ts},"value":{ts}}}"#), &[]);
    }
    let line = |ts: u32| format!(r#"rooms/{room}/strap/t {{"ts":{ts},"value":{ts}}}"#);
    eventually(&cluster, "every sample once", || (ts + 1..ts + 21).all(|ts| second.count(&line(ts)) == 1))
        .await;
    // What comes into the room on one node comes to the subscriber on the other.
    let path = format!("/api/v1/rooms/{room}/sensors/late");
    assert_eq!(call(http[1], "PUT", &path, Value::Null).await.0, 204);
    flows(&cluster, nodes[1], &second, &room, "late", 0).await;
}
