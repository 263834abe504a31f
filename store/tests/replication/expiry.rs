//! Temporary rooms go when nobody has been in them for long: by one node, and by the next when that one is dead.

use std::collections::BTreeMap;

use store::RoomId;
use store::cluster::expiry::expire;
use store::cluster::placement;
use store::cluster::view::Nodes;
use tokio::task::JoinHandle;

use super::*;

/// How long a room is empty here before it goes.
const EMPTY_FOR: Duration = Duration::from_millis(400);
/// Rooms of a test.
const ROOMS: usize = 24;

fn watch(node: &Node) -> JoinHandle<()> {
    tokio::spawn(expire(node.store.clone(), node.nodes.clone(), EMPTY_FOR))
}

fn temporary(node: &Node) -> RoomId {
    let wish = NewRoom { name: "For now".into(), temporary: true, sensors: Vec::new() };
    node.store.create_room(wish).unwrap().0.room
}

/// How many of these rooms are each node's to delete, of those that are alive.
fn firsts(rooms: &[RoomId], alive: &[&str]) -> BTreeMap<String, u64> {
    let alive: Vec<_> = alive.iter().map(|name| NodeName::new(name).unwrap()).collect();
    let mut of: BTreeMap<_, _> = alive.iter().map(|name| (name.as_str().to_owned(), 0)).collect();
    for room in rooms {
        *of.get_mut(placement::first(&alive, room).unwrap().as_str()).unwrap() += 1;
    }
    of
}

fn expired(nodes: &Nodes) -> u64 {
    nodes.figures().rooms_expired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_room_goes_once_when_it_was_empty_for_long_and_no_other_does() {
    let a = start("a", None).await;
    let (b, c) = (start("b", Some(a.address)).await, start("c", Some(a.address)).await);
    let nodes = [&a, &b, &c];
    for node in nodes {
        node.ready().await;
        until("all know all", || node.nodes.all().len() == 3).await;
    }
    let watching = nodes.map(watch);
    let lasting = a.store.create_room(lab()).unwrap().0.room;
    let occupied = temporary(&b);
    until("c knows it", || c.store.has_room(&occupied)).await;
    let viewer = c.store.subscribe(16);
    let ana = PersonId::new("ana").unwrap();
    let stay = c.store.enter(&viewer, &occupied, &ana, "Ana", false).unwrap();
    let began = Instant::now();
    let rooms: Vec<_> = (0..ROOMS).map(|n| temporary(nodes[n % 3])).collect();
    until("they are gone on all nodes", || {
        nodes.iter().all(|node| rooms.iter().all(|room| !node.store.has_room(room)))
    })
    .await;
    assert!(began.elapsed() >= EMPTY_FOR, "{:?}", began.elapsed());
    let of = firsts(&rooms, &["a", "b", "c"]);
    for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
        assert_eq!(expired(&node.nodes), of[name], "each by its first node, once: {of:?}");
        assert!(node.store.has_room(&lasting) && node.store.has_room(&occupied));
    }
    // Then she leaves.
    let left = Instant::now();
    drop(stay);
    until("gone", || nodes.iter().all(|node| !node.store.has_room(&occupied))).await;
    println!("gone {:?} after the last one left, {EMPTY_FOR:?} were asked for", left.elapsed());
    assert!(left.elapsed() >= EMPTY_FOR);
    assert_eq!(nodes.map(|node| expired(&node.nodes)).iter().sum::<u64>(), ROOMS as u64 + 1);
    assert!(nodes.iter().all(|node| node.store.has_room(&lasting)));
    watching.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rooms_of_a_dead_node_go_by_the_next_one_once() {
    let a = start("a", None).await;
    let b = start("b", Some(a.address)).await;
    // It dies with its runtime: sockets close without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let seed = Some(a.address);
    let c = runtime.spawn(async move { start("c", seed).await }).await.unwrap();
    for node in [&a, &b, &c] {
        node.ready().await;
        until("all know all", || node.nodes.all().len() == 3).await;
    }
    let rooms: Vec<_> = (0..ROOMS).map(|_| temporary(&a)).collect();
    let of_c = firsts(&rooms, &["a", "b", "c"])["c"];
    assert!(of_c > 0, "one in 24 at least is hers");
    until("all know them", || [&b, &c].iter().all(|node| node.store.rooms().len() == ROOMS)).await;
    let watching = [&a, &b].map(watch);
    runtime.spawn(expire(c.store.clone(), c.nodes.clone(), EMPTY_FOR));
    runtime.shutdown_background();
    until("she is dead", || [&a, &b].iter().all(|node| node.knows("c", NodeState::Down))).await;
    until("they are gone", || [&a, &b].iter().all(|node| node.store.rooms().is_empty())).await;
    assert_eq!(expired(&c.nodes), 0, "she was dead before any was due");
    let of = firsts(&rooms, &["a", "b"]);
    assert_eq!(
        (expired(&a.nodes), expired(&b.nodes)),
        (of["a"], of["b"]),
        "{of:?}, {of_c} of them were hers"
    );
    watching.iter().for_each(JoinHandle::abort);
}
