//! Membership: several members in one process, over loopback, with datagrams that can be cut off.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::{Duration, Instant};

use store::cluster::datagram::{MAX_DATAGRAM_BYTES, SEAL_BYTES};
use store::cluster::member::{Member, MemberEvent, Membership};
use store::cluster::secret::Keys;
use store::cluster::view::NodeState;
use store::{NodeId, NodeName};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const GUARD: Duration = Duration::from_secs(60);
/// Within this a silent member must be known to be down.
const NOTICED: Duration = Duration::from_secs(4);

/// Whether the long versions are wanted, on a machine of their own.
fn slow() -> bool {
    std::env::var("SENSORIUM_SLOW").is_ok_and(|value| value == "1")
}

/// Beside other work how long something took says nothing: it is for the long versions.
#[track_caller]
fn in_time(took: Duration, within: Duration) {
    assert!(!slow() || took < within, "{took:?}, not within {within:?}");
}

/// Datagrams between members pass through here, so that they can be cut off.
#[derive(Clone, Default)]
struct Net {
    /// Pairs (from, to) of real sockets between which nothing passes.
    cut: Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>,
    /// Of a hundred datagrams so many are lost.
    lost: Arc<AtomicU32>,
}

impl Net {
    /// An address that leads to `real`.
    async fn address_of(&self, real: SocketAddr) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, net) = (socket.local_addr().unwrap(), self.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let lost = rand::random_range(0..100) < net.lost.load(Relaxed);
                if !lost && !net.cut.lock().unwrap().contains(&(from, real)) {
                    // As good as the network: what does not go is lost.
                    socket.send_to(&buffer[..length], real).await.ok();
                }
            }
        });
        address
    }

    /// Cuts each group off from all others; nothing is cut between those of one group.
    fn part(&self, groups: &[&[&Peer]]) {
        let mut cut = self.cut.lock().unwrap();
        cut.clear();
        for (i, ours) in groups.iter().enumerate() {
            for theirs in groups.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, group)| *group) {
                cut.extend(ours.iter().map(|our| (our.real, theirs.real)));
            }
        }
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

struct Peer {
    member: Member,
    real: SocketAddr,
    membership: Membership,
    events: Receiver<MemberEvent>,
}

impl Peer {
    async fn start(net: &Net, name: &str, start: u64) -> Self {
        Self::start_with(net, name, start, Some("s")).await
    }

    async fn start_with(net: &Net, name: &str, start: u64, secret: Option<&str>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let real = socket.local_addr().unwrap();
        let member = Member {
            name: NodeName::new(name).unwrap(),
            node: NodeId(name.len() as u64 + start),
            start,
            address: net.address_of(real).await,
        };
        let (membership, events) = Membership::start(socket, member.clone(), &Keys::new(secret));
        Self { member, real, membership, events }
    }

    /// Waits until all `events` came, in any order. That somebody is suspected or recovers may come between; anything
    /// else is wrong.
    async fn expect(&mut self, events: &[MemberEvent]) {
        let mut due = events.to_vec();
        let waiting = async {
            while !due.is_empty() {
                let came = self.events.recv().await.expect("membership goes on");
                let passing = matches!(came, MemberEvent::Suspect(_) | MemberEvent::Recovered(_));
                match due.iter().position(|event| *event == came) {
                    Some(index) => drop(due.remove(index)),
                    None => assert!(passing, "{} expects {due:?}: {came:?}", self.member.name),
                }
            }
        };
        let name = &self.member.name;
        timeout(GUARD, waiting)
            .await
            .unwrap_or_else(|_| panic!("{name} waits in vain for all of {events:?}"));
    }

    async fn sees(&mut self, event: fn(Member) -> MemberEvent, whom: &Peer) {
        self.expect(&[event(whom.member.clone())]).await;
    }

    fn alive(&self) -> Vec<&'static str> {
        let members = self.membership.members().into_iter();
        let alive = members.filter(|(_, state)| *state == NodeState::Alive).map(|(member, _)| member.name);
        let mut names: Vec<_> = alive.map(|name| &*name.as_str().to_owned().leak()).collect();
        names.sort_unstable();
        names
    }
}

/// Both are told that the other one is there.
async fn find_each_other(a: &mut Peer, b: &mut Peer) {
    a.sees(MemberEvent::Up, b).await;
    b.sees(MemberEvent::Up, a).await;
}

/// a, b and c, each known to each.
async fn three(net: &Net) -> (Peer, Peer, Peer) {
    let (mut a, mut b, mut c) =
        (Peer::start(net, "a", 1).await, Peer::start(net, "b", 2).await, Peer::start(net, "c", 3).await);
    b.membership.announce(a.member.address);
    find_each_other(&mut a, &mut b).await;
    c.membership.announce(a.member.address);
    a.sees(MemberEvent::Up, &c).await;
    b.sees(MemberEvent::Up, &c).await;
    c.expect(&[up(&a), up(&b)]).await;
    (a, b, c)
}

fn up(peer: &Peer) -> MemberEvent {
    MemberEvent::Up(peer.member.clone())
}

fn down(peer: &Peer) -> MemberEvent {
    MemberEvent::Down(peer.member.clone())
}

#[tokio::test]
async fn three_find_each_other_through_one_seed() {
    let (a, b, c) = three(&Net::default()).await;
    assert_eq!(a.alive(), ["b", "c"]);
    assert_eq!(b.alive(), ["a", "c"]);
    assert_eq!(c.alive(), ["a", "b"]);
}

/// How long it takes both others to notice that one has fallen silent.
async fn notice_silence() -> Duration {
    let net = Net::default();
    let (mut a, mut b, c) = three(&net).await;
    net.part(&[&[&a, &b], &[&c]]);
    let began = Instant::now();
    a.sees(MemberEvent::Down, &c).await;
    b.sees(MemberEvent::Down, &c).await;
    let took = began.elapsed();
    assert_eq!((a.alive(), b.alive()), (vec!["b"], vec!["a"]));
    took
}

/// In the long version many times, for figures.
#[tokio::test]
async fn a_silent_member_is_down_in_time() {
    let tries = if slow() { 20 } else { 1 };
    let mut took = Vec::new();
    for _ in 0..tries {
        took.push(notice_silence().await);
    }
    took.sort_unstable();
    println!("a silent member is known to be down after {:?} (median), {took:?}", took[took.len() / 2]);
    in_time(took[took.len() - 1], NOTICED);
}

#[tokio::test]
async fn a_member_that_is_gone_is_down_in_time() {
    let (mut a, mut b, c) = three(&Net::default()).await;
    let began = Instant::now();
    let of_c = down(&c);
    drop(c);
    a.expect(std::slice::from_ref(&of_c)).await;
    b.expect(std::slice::from_ref(&of_c)).await;
    in_time(began.elapsed(), NOTICED);
}

#[tokio::test]
async fn who_says_goodbye_has_left_at_once() {
    let (mut a, mut b, c) = three(&Net::default()).await;
    let began = Instant::now();
    c.membership.leave().await;
    let left = MemberEvent::Left(c.member.clone());
    assert_eq!(timeout(GUARD, a.events.recv()).await.unwrap(), Some(left.clone()));
    assert_eq!(timeout(GUARD, b.events.recv()).await.unwrap(), Some(left));
    in_time(began.elapsed(), Duration::from_millis(500));
    assert!(a.membership.members().contains(&(c.member.clone(), NodeState::Left)));
    c.membership.leave().await;
    a.membership.leave().await;
    b.sees(MemberEvent::Left, &a).await;
    b.membership.leave().await;
}

#[tokio::test]
async fn a_goodbye_that_one_did_not_hear_reaches_it_through_the_others() {
    let net = Net::default();
    let (mut a, mut b, c) = three(&net).await;
    net.cut.lock().unwrap().insert((c.real, b.real));
    c.membership.leave().await;
    a.sees(MemberEvent::Left, &c).await;
    b.sees(MemberEvent::Left, &c).await;
}

#[tokio::test]
async fn a_restart_takes_the_place_of_the_run_before_at_once() {
    let net = Net::default();
    let (mut a, mut b, c) = three(&net).await;
    let (gone, began) = (down(&c), Instant::now());
    drop(c);
    let c = Peer::start(&net, "c", 30).await;
    c.membership.announce(b.member.address);
    for other in [&mut a, &mut b] {
        other.expect(&[gone.clone(), up(&c)]).await;
    }
    in_time(began.elapsed(), Duration::from_secs(1));
    assert_eq!(a.membership.members().len(), 2, "one entry for one name");
}

#[tokio::test]
async fn who_nobody_listens_for_is_down_at_once_everywhere() {
    let (mut a, mut b, c) = three(&Net::default()).await;
    let (of_c, member, began) = (down(&c), c.member.clone(), Instant::now());
    drop(c);
    a.membership.is_down(&Member { start: 99, ..member.clone() });
    a.membership.is_down(&member);
    a.expect(std::slice::from_ref(&of_c)).await;
    b.expect(std::slice::from_ref(&of_c)).await;
    in_time(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn who_was_taken_for_dead_wrongly_comes_back_by_itself() {
    let (mut a, mut b, c) = three(&Net::default()).await;
    a.membership.is_down(&c.member);
    a.expect(&[down(&c), up(&c)]).await;
    // The news may overtake each other on the way to b, who then never saw it go.
    if timeout(Duration::from_secs(2), b.events.recv()).await == Ok(Some(down(&c))) {
        b.sees(MemberEvent::Up, &c).await;
    }
    assert_eq!(b.alive(), ["a", "c"]);
}

#[tokio::test]
async fn a_partition_heals_by_itself() {
    let net = Net::default();
    let (mut a, mut b, mut c) = three(&net).await;
    net.part(&[&[&a], &[&b, &c]]);
    a.expect(&[down(&b), down(&c)]).await;
    b.sees(MemberEvent::Down, &a).await;
    c.sees(MemberEvent::Down, &a).await;
    net.heal();
    let began = Instant::now();
    b.sees(MemberEvent::Up, &a).await;
    c.sees(MemberEvent::Up, &a).await;
    a.expect(&[up(&b), up(&c)]).await;
    println!("a partition 1|2 healed after {:?}", began.elapsed());
    in_time(began.elapsed(), NOTICED);
}

#[tokio::test]
async fn a_network_that_loses_much_kills_nobody() {
    let net = Net::default();
    let (mut a, mut b, mut c) = three(&net).await;
    net.lost.store(30, Relaxed);
    let mut suspected = 0;
    let watched = async {
        loop {
            let event = tokio::select! {
                event = a.events.recv() => event,
                event = b.events.recv() => event,
                event = c.events.recv() => event,
            };
            match event.unwrap() {
                MemberEvent::Suspect(_) => suspected += 1,
                MemberEvent::Recovered(_) => {}
                wrong => panic!("{wrong:?}"),
            }
        }
    };
    // For ever, if it were up to them.
    assert!(timeout(Duration::from_secs(15), watched).await.is_err());
    assert!(suspected > 0, "nothing was lost that mattered");
    // Silence is still told from loss.
    net.part(&[&[&a, &b], &[&c]]);
    let began = Instant::now();
    a.sees(MemberEvent::Down, &c).await;
    in_time(began.elapsed(), NOTICED);
}

#[tokio::test]
async fn who_is_heard_on_a_link_lives() {
    let net = Net::default();
    let (mut a, mut b) = (Peer::start(&net, "a", 1).await, Peer::start(&net, "b", 2).await);
    b.membership.announce(a.member.address);
    find_each_other(&mut a, &mut b).await;
    // All datagrams are lost, but a link between them goes on.
    net.part(&[&[&a], &[&b]]);
    let mut beats = tokio::time::interval(Duration::from_millis(100));
    let until = Instant::now() + NOTICED;
    while Instant::now() < until {
        tokio::select! {
            _ = beats.tick() => a.membership.heard(&b.member),
            event = a.events.recv() => assert_eq!(event, Some(MemberEvent::Suspect(b.member.clone()))),
        }
    }
    b.sees(MemberEvent::Down, &a).await;
    a.sees(MemberEvent::Down, &b).await;
}

#[tokio::test]
async fn who_left_in_another_way_has_left_everywhere() {
    let (mut a, mut b, c) = three(&Net::default()).await;
    let member = c.member.clone();
    drop(c);
    a.membership.has_left(&member);
    a.expect(&[MemberEvent::Left(member.clone())]).await;
    b.expect(&[MemberEvent::Left(member)]).await;
}

#[tokio::test]
async fn three_who_all_lost_each_other_find_each_other_again() {
    let net = Net::default();
    let (mut a, mut b, mut c) = three(&net).await;
    net.part(&[&[&a], &[&b], &[&c]]);
    let downs = [down(&a), down(&b), down(&c)];
    for peer in [&mut a, &mut b, &mut c] {
        while !peer.alive().is_empty() {
            let came = timeout(GUARD, peer.events.recv()).await.unwrap().unwrap();
            assert!(downs.contains(&came) || matches!(came, MemberEvent::Suspect(_)), "{came:?}");
        }
    }
    net.heal();
    let began = Instant::now();
    for peer in [&mut a, &mut b, &mut c] {
        while peer.alive().len() < 2 {
            timeout(GUARD, peer.events.recv()).await.unwrap().unwrap();
        }
    }
    println!("a partition 1|1|1 healed after {:?}", began.elapsed());
    in_time(began.elapsed(), NOTICED * 2);
}

#[tokio::test]
async fn a_member_that_hung_comes_back_when_it_goes_on() {
    let net = Net::default();
    let (mut a, mut b) = (Peer::start(&net, "a", 1).await, Peer::start(&net, "b", 2).await);
    b.membership.announce(a.member.address);
    find_each_other(&mut a, &mut b).await;
    // A thread of its own stands for a process: it can be stopped whole, its socket stays open.
    let (stop, stopped) = blocking::channel::<blocking::Receiver<()>>();
    let (started, mut hung) = tokio::sync::mpsc::channel(1);
    let (seed, relays) = (a.member.address, net.clone());
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        own.block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let real = socket.local_addr().unwrap();
            // The relay is the network, and does not stop.
            let address = runtime.spawn(async move { relays.address_of(real).await }).await.unwrap();
            let member = Member { name: NodeName::new("c").unwrap(), node: NodeId(3), start: 3, address };
            let (membership, mut events) = Membership::start(socket, member.clone(), &Keys::new(Some("s")));
            membership.announce(seed);
            started.send(member).await.unwrap();
            let (hang, mut hang_now) = tokio::sync::mpsc::channel(1);
            std::thread::spawn(move || {
                while let Ok(go_on) = stopped.recv() {
                    hang.blocking_send(go_on).ok();
                }
            });
            loop {
                tokio::select! {
                    go_on = hang_now.recv() => match go_on {
                        // Blocks the only thread: this is the hang.
                        Some(go_on) => go_on.recv().unwrap(),
                        None => return,
                    },
                    event = events.recv() => assert!(event.is_some()),
                }
            }
        });
    });
    let c = hung.recv().await.unwrap();
    for other in [&mut a, &mut b] {
        other.expect(&[MemberEvent::Up(c.clone())]).await;
    }
    let (go_on, until) = blocking::channel();
    stop.send(until).unwrap();
    let began = Instant::now();
    for other in [&mut a, &mut b] {
        other.expect(&[MemberEvent::Down(c.clone())]).await;
    }
    in_time(began.elapsed(), NOTICED);
    // Down for a while: it is called several times while it hangs.
    assert!(timeout(Duration::from_secs(5), a.events.recv()).await.is_err(), "it is still down");
    go_on.send(()).unwrap();
    let began = Instant::now();
    for other in [&mut a, &mut b] {
        other.expect(&[MemberEvent::Up(c.clone())]).await;
    }
    println!("a hung member that goes on is back after {:?}", began.elapsed());
    in_time(began.elapsed(), Duration::from_secs(1));
    assert!(timeout(Duration::from_secs(2), a.events.recv()).await.is_err(), "and nobody suspects anybody");
    drop(stop);
    thread.join().unwrap();
}

#[tokio::test]
async fn another_secret_never_joins_and_is_counted() {
    let net = Net::default();
    let mut a = Peer::start(&net, "a", 1).await;
    let mut strangers = Vec::new();
    for (name, secret) in [("x", Some("t")), ("y", None)] {
        let x = Peer::start_with(&net, name, 9, secret).await;
        x.membership.announce(a.member.address);
        a.membership.announce(x.member.address);
        strangers.push(x);
    }
    // Who has the secret joins meanwhile, so the others had their chance.
    let mut b = Peer::start(&net, "b", 2).await;
    b.membership.announce(a.member.address);
    find_each_other(&mut a, &mut b).await;
    a.membership.leave().await;
    let figures = a.membership.figures();
    assert_eq!((figures.taken.seal, figures.malformed), (2, 0));
    for x in &mut strangers {
        assert!(x.membership.members().is_empty() && x.events.try_recv().is_err());
    }
    assert_eq!(a.membership.members().len(), 1);
}

#[tokio::test]
async fn garbage_is_counted_and_costs_nobody_anything() {
    let net = Net::default();
    let (mut a, mut b) = (Peer::start(&net, "a", 1).await, Peer::start(&net, "b", 2).await);
    b.membership.announce(a.member.address);
    find_each_other(&mut a, &mut b).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, SEAL_BYTES - 1, SEAL_BYTES, 100, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES + 1, 9000] {
        stranger.send_to(&vec![7; length], a.real).await.unwrap();
    }
    // Genuine seals around nonsense: a bug of another node, or of a later version.
    let mut sealer = store::cluster::datagram::Sealer::new(&Keys::new(Some("s")));
    for payload in [&[][..], &[0], &[0; 40], &[0xff; 400], &[1, 1, b'/'], &[2], &[3, 9], &[4], &[77, 1]] {
        let datagram = sealer.seal(payload).unwrap();
        stranger.send_to(&datagram, a.real).await.unwrap();
        stranger.send_to(&datagram, a.real).await.unwrap();
    }
    assert!(timeout(Duration::from_secs(2), a.events.recv()).await.is_err(), "nobody is suspected");
    let taken = a.membership.figures().taken;
    assert_eq!((taken.short, taken.long, taken.seal, taken.repeated), (3, 2, 3, 9));
    assert_eq!(a.membership.figures().malformed, 8, "a lone farewell is only late");
    assert_eq!(a.alive(), ["b"]);
}

#[tokio::test]
async fn two_live_nodes_of_one_name_are_told_of_each_other() {
    let net = Net::default();
    let (mut a, first) = (Peer::start(&net, "a", 1).await, Peer::start(&net, "x", 10).await);
    let mut second = Peer::start(&net, "x", 20).await;
    for x in [&first, &second] {
        x.membership.announce(a.member.address);
    }
    second.membership.announce(first.member.address);
    let mut discovery = tokio::time::interval(Duration::from_millis(100));
    let contested = timeout(GUARD, async {
        loop {
            // As discovery does: it calls the addresses that it knows again and again.
            second.membership.announce(first.member.address);
            first.membership.announce(second.member.address);
            tokio::select! {
                event = second.events.recv() => if let MemberEvent::Contested(by) = event.unwrap() { return by },
                _ = a.events.recv() => {}
                _ = discovery.tick() => {}
            }
        }
    });
    assert_eq!(contested.await.unwrap(), first.member);
    println!("a fight over a name: {:?}", a.membership.figures());
    // Their fight is bounded: a renewal costs each of them a few datagrams, and there are only so many in a row.
    assert!(a.membership.figures().sent < 2000, "{:?}", a.membership.figures());
}

#[tokio::test]
async fn an_idle_cluster_of_three_is_quiet() {
    let (mut a, b, c) = three(&Net::default()).await;
    let window = Duration::from_secs(6);
    // Let the news of the joins die down.
    assert!(timeout(window, a.events.recv()).await.is_err());
    let before = [&a, &b, &c].map(|peer| peer.membership.figures().bytes_sent);
    assert!(timeout(window, a.events.recv()).await.is_err(), "nothing happens");
    for (peer, before) in [&a, &b, &c].into_iter().zip(before) {
        let rate = (peer.membership.figures().bytes_sent - before) as f64 / window.as_secs_f64();
        println!("{} sends {rate:.0} bytes/s", peer.member.name);
        assert!(rate <= 500.0, "{rate}");
    }
}
