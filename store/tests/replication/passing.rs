//! What passes, over real links: people, attention and devices on every node, and nothing of a node that is gone.

use store::{Event, Level, NotSent, PersonId, Present, RoomId, Subscription};

use super::*;

fn room() -> RoomId {
    RoomId::new("r1").unwrap()
}

fn id(name: &str) -> PersonId {
    PersonId::new(name).unwrap()
}

/// A connection of a viewer.
fn viewer(node: &Node) -> Subscription {
    node.store.subscribe(16)
}

fn people(node: &Node) -> Vec<(String, String, bool)> {
    let view = |person: &Present| (person.name.clone(), person.node.as_str().to_owned(), person.call);
    node.store.people(&room()).iter().map(view).collect()
}

fn person(name: &str, node: &str, call: bool) -> (String, String, bool) {
    (name.to_owned(), node.to_owned(), call)
}

async fn three() -> [Node; 3] {
    let a = start("a", None).await;
    let (b, c) = (start("b", Some(a.address)).await, start("c", Some(a.address)).await);
    for node in [&a, &b, &c] {
        node.ready().await;
    }
    [a, b, c]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_in_a_room_once_wherever_they_entered_and_gone_with_their_node() {
    let [a, b, c] = three().await;
    let (on_a, on_b, mut on_c) = (viewer(&a), viewer(&b), viewer(&c));
    on_c.follow_room(&room(), true);
    let first = a.store.enter(&on_a, &room(), &id("ana"), "Ana", true).unwrap();
    for node in [&a, &b, &c] {
        until("she is there", || people(node) == [person("Ana", "a", true)]).await;
    }
    let event = timeout(WITHIN, on_c.next()).await.unwrap();
    assert!(matches!(event, Event::Presence(of) if of == room()));
    let since = c.store.people(&room())[0].since;
    // Her page moves to b, before a has noticed that it is gone.
    let second = b.store.enter(&on_b, &room(), &id("ana"), "Ana B.", false).unwrap();
    for node in [&a, &b, &c] {
        until("she has moved", || people(node) == [person("Ana B.", "b", false)]).await;
        assert_eq!(node.store.people(&room())[0].since, since, "she has been there all the while");
    }
    drop(first);
    until("a tells", || c.store.people(&room()).len() == 1).await;
    // A second page of hers on b, which closes: the first still stands for her.
    let third = b.store.enter(&on_b, &room(), &id("ana"), "Ana", true).unwrap();
    until("the newest says what holds", || people(&c) == [person("Ana", "b", true)]).await;
    drop(third);
    until("the one before", || people(&c) == [person("Ana B.", "b", false)]).await;
    // Rooms beside this one have people of their own.
    let elsewhere = RoomId::new("r1.x").unwrap();
    let _beside = c.store.enter(&on_c, &elsewhere, &id("ana"), "Ana", false).unwrap();
    assert_eq!((c.store.people(&room()).len(), c.store.people(&elsewhere).len()), (1, 1));
    b.stop().await;
    for node in [&a, &c] {
        until("gone with her node", || people(node).is_empty()).await;
    }
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_whoever_entered_last_on_whichever_node_and_nobody_absent() {
    let [a, b, c] = three().await;
    let (mut on_a, mut on_b, mut on_c) = (viewer(&a), viewer(&b), viewer(&c));
    let ana = a.store.enter(&on_a, &room(), &id("ana"), "Ana", true).unwrap();
    let ben = b.store.enter(&on_b, &room(), &id("ben"), "Ben", true).unwrap();
    until("both know both", || [&a, &b].iter().all(|node| people(node).len() == 2)).await;
    a.store.signal(&ana, &id("ben"), r#"{"offer":1}"#.to_owned()).unwrap();
    let Event::Signal(signal) = timeout(WITHIN, on_b.next()).await.unwrap() else { panic!("a signal") };
    assert_eq!((signal.from.as_str(), signal.data.as_str()), ("ana", r#"{"offer":1}"#));
    // Ben moves to c: what is sent now goes there.
    let moved = c.store.enter(&on_c, &room(), &id("ben"), "Ben", true).unwrap();
    until("a knows", || people(&a) == [person("Ana", "a", true), person("Ben", "c", true)]).await;
    a.store.signal(&ana, &id("ben"), "2".to_owned()).unwrap();
    let Event::Signal(signal) = timeout(WITHIN, on_c.next()).await.unwrap() else { panic!("a signal") };
    assert_eq!(signal.data, "2");
    until("c knows her", || people(&c).len() == 2).await;
    c.store.signal(&moved, &id("ana"), "3".to_owned()).unwrap();
    let Event::Signal(signal) = timeout(WITHIN, on_a.next()).await.unwrap() else { panic!("a signal") };
    assert_eq!((signal.from.as_str(), signal.data.as_str()), ("ben", "3"));
    assert_eq!(a.store.signal(&ana, &id("eve"), "4".into()), Err(NotSent::NotPresent));
    let long = "5".repeat(store::SIGNAL_BYTES + 1);
    assert_eq!(a.store.signal(&ana, &id("ben"), long.clone()), Err(NotSent::TooLong(long.len())));
    // Who does not read is not a place to keep things.
    let to_herself = || a.store.signal(&ana, &id("ana"), "6".into());
    let sent = (0..1000).take_while(|_| to_herself().is_ok()).count();
    assert_eq!((sent, to_herself()), (256, Err(NotSent::Busy)));
    drop((ben, moved));
    until("he left", || people(&a).len() == 1).await;
    assert_eq!(a.store.signal(&ana, &id("ben"), "7".into()), Err(NotSent::NotPresent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attention_is_the_highest_of_all_nodes() {
    let [a, b, c] = three().await;
    let sensor = SensorId::new("strap-7").unwrap();
    let mut advisor = viewer(&c);
    advisor.follow_attention(true);
    let level = || c.store.attention(&sensor);
    assert_eq!(level(), Level::None);
    let low = a.store.attend(vec![sensor.clone()], Level::Low);
    let event = timeout(WITHIN, advisor.next()).await.unwrap();
    assert!(matches!(event, Event::Attention(of) if of == sensor));
    assert_eq!(level(), Level::Low);
    let (high, medium) = (
        b.store.attend(vec![sensor.clone()], Level::High),
        a.store.attend(vec![sensor.clone()], Level::Medium),
    );
    until("the highest", || level() == Level::High).await;
    drop(high);
    until("the next", || level() == Level::Medium).await;
    drop(medium);
    until("the last", || level() == Level::Low).await;
    let _nothing = b.store.attend(vec![sensor.clone()], Level::None);
    a.stop().await;
    until("gone with its node", || level() == Level::None).await;
    drop(low);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_the_version_before_knows_of_devices_alone() {
    let old = (1, 1);
    let a = start("a", None).await;
    let b = start_with("b", Options { seed: Some(a.address), versions: old, ..Options::default() }).await;
    b.ready().await;
    let (here, there) = (SensorId::new("here").unwrap(), SensorId::new("there").unwrap());
    let (on_a, on_b) = (a.store.device(&here), b.store.device(&there));
    let online = |node: &Node, sensor: &SensorId| {
        node.store.device_nodes(sensor).iter().map(|node| node.as_str().to_owned()).collect::<Vec<_>>()
    };
    until("b knows of a's", || online(&b, &here) == ["a"]).await;
    until("a knows of b's", || online(&a, &there) == ["b"]).await;
    let from = viewer(&a);
    let ana = a.store.enter(&from, &room(), &id("ana"), "Ana", false).unwrap();
    let _gaze = a.store.attend(vec![here.clone()], Level::High);
    drop((on_a, on_b));
    until("b knows that it is gone", || online(&b, &here).is_empty()).await;
    until("a knows that it is gone", || online(&a, &there).is_empty()).await;
    assert_eq!((people(&b), b.store.attention(&here)), (Vec::new(), Level::None));
    assert_eq!(a.store.signal(&ana, &id("ben"), "1".into()), Err(NotSent::NotPresent));
    a.counts().await;
    assert_eq!(a.append("s", 0..3).await, Copies(2), "and the link goes on");
}
