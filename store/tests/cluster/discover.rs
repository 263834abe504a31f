//! Discovery against a small DNS server, in a network namespace of the test's own, and over multicast on this machine.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use store::cluster::discover::{ASK_EVERY, Announced, Discover, Discovery, browse};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const GUARD: Duration = Duration::from_secs(20);
/// Set inside of the namespace.
const INSIDE: &str = "SENSORIUM_TEST_NAMESPACE";

/// Says that a test did not run; where everything is required, that is a failure (unless `NO_NAMESPACES=1` says that the
/// machine itself does not allow network namespaces).
fn skip(why: &str) {
    let says = |name| std::env::var(name).is_ok_and(|value| value == "1");
    assert!(!says("REQUIRE_ALL") || says("NO_NAMESPACES"), "not skipped: REQUIRE_ALL is set: {why}");
    eprintln!("SKIPPED: {why}");
}

fn anybody() -> Announced {
    Announced { instance: "unused".into(), address: "127.0.0.1:4400".parse().unwrap() }
}

fn discovery(seeds: &[&str], discover: Discover) -> (Discovery, UnboundedReceiver<SocketAddr>) {
    let (found, addresses) = unbounded_channel();
    let seeds = seeds.iter().map(|seed| (*seed).to_owned());
    let discovery = Discovery::start(seeds, discover, anybody(), move |address| {
        // The last ones may come when nobody waits any more.
        found.send(address).ok();
    });
    (discovery, addresses)
}

async fn wait_for(addresses: &mut UnboundedReceiver<SocketAddr>, wanted: &str) {
    let wanted: SocketAddr = wanted.parse().unwrap();
    let found = timeout(GUARD, async { while addresses.recv().await.unwrap() != wanted {} });
    found.await.unwrap_or_else(|_| panic!("{wanted} is not found"));
}

#[tokio::test]
async fn seeds_are_yielded_again_and_again_until_it_is_dropped() {
    let (discovery, mut addresses) = discovery(&["127.0.0.1:1", "[::1]:2", "not a place"], Discover::None);
    for _ in 0..3 {
        let first = timeout(GUARD, addresses.recv()).await.unwrap().unwrap();
        let second = timeout(GUARD, addresses.recv()).await.unwrap().unwrap();
        let mut both = [first, second];
        both.sort_unstable();
        assert_eq!(both, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    }
    drop(discovery);
    while timeout(GUARD, addresses.recv()).await.unwrap().is_some() {}
}

/// A namespace with a resolver of its own: `ip netns exec` puts `/etc/netns/NAME/resolv.conf` in place of ours.
struct Namespace(String);

impl Namespace {
    fn new() -> Result<Self, String> {
        let namespace = Self(format!("sensorium-dns-{}", std::process::id()));
        namespace.ip(&["netns", "add", &namespace.0])?;
        let files = format!("/etc/netns/{}", namespace.0);
        std::fs::create_dir_all(&files).map_err(|e| format!("{files}: {e}"))?;
        let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        std::fs::write(format!("{files}/resolv.conf"), resolver).map_err(|e| format!("{files}: {e}"))?;
        namespace.ip(&["netns", "exec", &namespace.0, "ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    fn ip(&self, words: &[&str]) -> Result<(), String> {
        let Self(name) = self;
        let ran = Command::new("ip").args(words).output().map_err(|e| format!("ip: {e}"))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ran.status.success().then_some(()).ok_or_else(|| format!("{name}: ip {words:?}: {said}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is not there needs no removing.
        self.ip(&["netns", "del", &self.0]).ok();
        std::fs::remove_dir_all(format!("/etc/netns/{}", self.0)).ok();
    }
}

#[test]
fn names_are_followed_as_their_addresses_change() {
    const NAME: &str = "discover::names_are_followed_as_their_addresses_change";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(follow_names());
    }
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return skip(&format!("no network namespace can be made here: {why}")),
    };
    let me = std::env::current_exe().unwrap();
    let inside = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(me)
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    assert!(inside.status.success() && said.contains("1 passed"), "{said}\n{errors}");
}

async fn follow_names() {
    let server = Server::start().await;
    let nodes = Discover::Dns { name: "nodes.internal".into(), port: 4400 };
    let (_discovery, mut addresses) = discovery(&["seed.internal:4401"], nodes);
    // At first there is no such name: nothing is found, and it is asked for again.
    server.asked("nodes.internal", 3).await;
    server.asked("seed.internal", 3).await;
    assert!(addresses.try_recv().is_err());

    server.answer("nodes.internal", &["10.0.0.1", "fdaa::1"]);
    wait_for(&mut addresses, "10.0.0.1:4400").await;
    wait_for(&mut addresses, "[fdaa::1]:4400").await;
    server.answer("seed.internal", &["fdaa::9"]);
    wait_for(&mut addresses, "[fdaa::9]:4401").await;

    // Machines come and go.
    server.answer("nodes.internal", &["10.0.0.2"]);
    wait_for(&mut addresses, "10.0.0.2:4400").await;
    while addresses.try_recv().is_ok() {}
    wait_for(&mut addresses, "10.0.0.2:4400").await;
    server.answer("seed.internal", &[]);
    server.answer("nodes.internal", &[]);
    server.asked("nodes.internal", 2).await;
    while addresses.try_recv().is_ok() {}

    // A name that fails for a while is no reason to stop.
    server.asked("nodes.internal", 1).await;
    assert!(addresses.try_recv().is_err());
    server.answer("nodes.internal", &["10.0.0.3"]);
    let found = timeout(GUARD, addresses.recv()).await.unwrap();
    assert_eq!(found, Some("10.0.0.3:4400".parse().unwrap()), "the addresses of before are forgotten");
}

/// A DNS server (RFC 1035) that knows A and AAAA records of a few names.
#[derive(Clone, Default)]
struct Server {
    zone: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    news: Arc<tokio::sync::Notify>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Server {
    async fn start() -> Self {
        let server = Self::default();
        let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
        let at_work = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                if let Some(answer) = at_work.answer_to(&buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        server
    }

    /// From now on `name` has these addresses; none at all means that there is no such name.
    fn answer(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.zone.lock().unwrap().insert(name.into(), addresses);
    }

    /// Waits until `name` was asked for so many times more (for A and AAAA once each time).
    async fn asked(&self, name: &str, times: usize) {
        let count = || self.asked.lock().unwrap().get(name).copied().unwrap_or(0);
        let enough = count() + times;
        let asked = timeout(GUARD, async {
            while count() < enough {
                self.news.notified().await;
            }
        });
        asked.await.unwrap_or_else(|_| panic!("{name} is not asked for"));
    }

    fn answer_to(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut at = 12;
        while *query.get(at)? > 0 {
            let label = query.get(at + 1..at + 1 + usize::from(query[at]))?;
            name.push(String::from_utf8(label.to_vec()).ok()?);
            at += 1 + label.len();
        }
        let question = query.get(12..at + 5)?;
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let name = name.join(".");
        let addresses = self.zone.lock().unwrap().get(&name).cloned().unwrap_or_default();
        if kind == A {
            *self.asked.lock().unwrap().entry(name).or_default() += 1;
            self.news.notify_one();
        }
        let records: Vec<IpAddr> =
            addresses.iter().copied().filter(|ip| kind == if ip.is_ipv4() { A } else { AAAA }).collect();
        // A response, authoritative, recursion desired and available; NXDOMAIN where there is no such name.
        let code = if addresses.is_empty() { 3 } else { 0 };
        let mut answer = query[..2].to_vec();
        answer.extend([0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        answer.extend(question);
        for record in records {
            // A pointer to the name in the question, the kind, class IN, no time to live.
            answer.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 0, 0]);
            match record {
                IpAddr::V4(ip) => answer.extend([&[4][..], &ip.octets()].concat()),
                IpAddr::V6(ip) => answer.extend([&[16][..], &ip.octets()].concat()),
            }
        }
        Some(answer)
    }
}

/// Whether what is multicast on loopback comes back.
async fn multicast_works() -> Result<(), String> {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let tried = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.join_multicast_v4(group, Ipv4Addr::LOCALHOST)?;
        let port = socket.local_addr()?.port();
        let sender = UdpSocket::bind("127.0.0.1:0").await?;
        sender.send_to(b"anybody?", (group, port)).await?;
        timeout(Duration::from_secs(2), socket.recv_from(&mut [0; 16])).await??;
        std::io::Result::Ok(())
    };
    tried.await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn two_nodes_of_one_machine_find_each_other_by_multicast() {
    if let Err(why) = multicast_works().await {
        return skip(&format!("multicast does not work on loopback: {why}"));
    }
    let began = Instant::now();
    let node = |name: &str, port: u16| {
        let (found, addresses) = unbounded_channel();
        let me = Announced {
            instance: format!("{name}-{}", std::process::id()),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        let discovery = Discovery::start([], Discover::Mdns, me, move |address| {
            // The last ones may come when nobody waits any more.
            found.send(address).ok();
        });
        (discovery, addresses)
    };
    // Nobody listens there: discovery only tells.
    let (_a, mut at_a) = node("a", 44001);
    let (b, mut at_b) = node("b", 44002);
    wait_for(&mut at_a, "127.0.0.1:44002").await;
    wait_for(&mut at_b, "127.0.0.1:44001").await;
    println!("found each other by multicast after {:?}", began.elapsed());
    wait_for(&mut at_a, "127.0.0.1:44002").await;
    // Who only looks finds both, however late their machine answers.
    let expected = [44001, 44002].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let looks = async {
        loop {
            let found =
                tokio::task::spawn_blocking(|| browse(Duration::from_secs(1)).unwrap()).await.unwrap();
            if expected.iter().all(|address| found.contains(address)) {
                return;
            }
        }
    };
    timeout(GUARD, looks).await.unwrap();
    // A node that goes takes its announcement back.
    drop(b);
    let gone: SocketAddr = "127.0.0.1:44002".parse().unwrap();
    let quiet = timeout(GUARD, async {
        let mut last = Instant::now();
        while let Some(left) = ASK_EVERY.mul_f64(1.5).checked_sub(last.elapsed()) {
            if timeout(left, at_a.recv()).await.is_ok_and(|address| address == Some(gone)) {
                last = Instant::now();
            }
        }
    });
    quiet.await.unwrap();
}
