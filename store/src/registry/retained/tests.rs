//! Registers of topics: bounds, order, and their form on disks and links.

use proptest::prelude::*;

use super::*;
use crate::codec::unseal;
use crate::model::ids::NodeId;

fn asked(time: u64, author: u32) -> Asked {
    let origin = Origin { node: NodeId(u64::from(author)), start: u64::from(author) };
    Asked { origin, stamp: Stamp { time, author } }
}

fn kept(text: &str) -> Kept {
    Kept { message: Bytes::copy_from_slice(text.as_bytes()), expires: None }
}

fn set(retained: &mut Retained, topic: &str, text: Option<&str>, time: u64) -> Vec<TopicOperation> {
    let operations = retained.set(topic, text.map(kept), asked(time, 1), SampleTime(0)).unwrap();
    operations.iter().for_each(|operation| assert!(retained.apply(operation.clone())));
    operations
}

#[test]
fn the_last_message_is_held_until_it_is_removed_and_a_slow_clock_changes_what_it_sees() {
    let mut retained = Retained::default();
    set(&mut retained, "a/b", Some("1"), 100);
    set(&mut retained, "a/b", Some("2"), 50);
    set(&mut retained, "a/c", Some("3"), 60);
    assert_eq!(retained.get("a/b"), Some(&kept("2")));
    assert_eq!((retained.count(), retained.iter().count()), (2, 2));
    set(&mut retained, "a/b", None, 51);
    assert_eq!((retained.get("a/b"), retained.count()), (None, 1));
    assert!(set(&mut retained, "nobody/knows", None, 200).is_empty());
    set(&mut retained, "a/b", Some("4"), 52);
    assert_eq!((retained.get("a/b"), retained.count()), (Some(&kept("4")), 2));
}

#[test]
fn each_bound_holds_exactly_and_what_is_to_be_forgotten_makes_room() {
    let mut retained = Retained::default();
    let long = |length: usize| Some(Kept { message: vec![0; length].into(), expires: None });
    let ask = |retained: &Retained, topic: &str, kept, now| {
        retained.set(topic, kept, asked(1, 1), SampleTime(now)).map(|operations| operations.len())
    };
    assert_eq!(ask(&retained, "t", long(MAX_MESSAGE_BYTES), 0), Ok(1));
    let error = RetainError::TooLong(MAX_MESSAGE_BYTES + 1);
    assert_eq!(ask(&retained, "t", long(MAX_MESSAGE_BYTES + 1), 0), Err(error));
    let topic = "t".repeat(MAX_TOPIC_BYTES + 1);
    assert_eq!(ask(&retained, &topic, long(1), 0), Err(RetainError::LongTopic(topic.len())));
    for index in 0..MAX_RETAINED {
        let expires = (index == 7).then_some(SampleTime(10));
        let operation = TopicOperation {
            topic: format!("t/{index}").into(),
            stamp: Stamp { time: 5, author: 1 },
            kept: Some(Kept { expires, ..kept("x") }),
        };
        assert!(retained.apply(operation));
    }
    assert_eq!(ask(&retained, "one/more", long(1), 9), Err(RetainError::TooMany));
    assert_eq!(ask(&retained, "t/1", long(1), 9), Ok(1), "in the place of another");
    assert_eq!(ask(&retained, "one/more", long(1), 10), Ok(2), "and it takes the place of what is over");
    let operations = retained.set("one/more", long(1), asked(9, 1), SampleTime(10)).unwrap();
    operations.into_iter().for_each(|operation| assert!(retained.apply(operation)));
    assert_eq!((retained.count(), retained.get("t/7")), (MAX_RETAINED, None));
}

#[test]
fn the_removals_that_are_remembered_are_the_newest() {
    let mut retained = Retained::default();
    for index in 0..=MAX_REMOVED as u64 {
        let topic: Box<str> = format!("t/{index}").into();
        let stamp = Stamp { time: index + 1, author: 1 };
        assert!(retained.apply(TopicOperation { topic, stamp, kept: None }));
    }
    assert_eq!((retained.held.len(), retained.count()), (MAX_REMOVED, 0));
    assert_eq!(retained.marker("t/0"), None);
    assert_eq!(retained.next_unsaved().map(|(_, record)| record.is_some()), Some(true));
}

#[test]
fn what_was_left_by_who_died_does_not_replace_what_came_later() {
    let mut retained = Retained::default();
    set(&mut retained, "state", Some("online"), 100);
    let left = |retained: &Retained, time| {
        let stamp = Stamp { time, author: 9 };
        retained.set_as_of("state", Some(kept("offline")), stamp, asked(200, 1), SampleTime(0)).unwrap()
    };
    assert_eq!(left(&retained, 99), []);
    let operations = left(&retained, 101);
    assert_eq!(operations[0].stamp, Stamp { time: 101, author: 1 });
    operations.into_iter().for_each(|operation| assert!(retained.apply(operation)));
    assert_eq!(retained.get("state"), Some(&kept("offline")));
}

/// What stands on disks and links: a release that changes it has to read this all the same.
#[test]
fn the_form_of_operations_is_pinned() {
    let operation = TopicOperation {
        topic: "a/b".into(),
        stamp: Stamp { time: 300, author: 2 },
        kept: Some(Kept { message: Bytes::from_static(b"hi"), expires: Some(SampleTime(1)) }),
    };
    let mut out = Vec::new();
    Operation::Topic(operation.clone()).encode(&mut out);
    assert_eq!(out, [0, 0, 3, b'a', b'/', b'b', 0xac, 2, 2, 1, 2, b'h', b'i', 1, 2]);
    let mut reader = Reader(&out);
    assert_eq!(Operation::decode(&mut reader), Ok(Operation::Topic(operation)));
    assert!(reader.is_empty());
    let mut retained = Retained::default();
    set(&mut retained, "a/b", Some("x"), 1);
    let (number, record) = retained.next_unsaved().unwrap();
    assert!(is_number(number) && retained.next_unsaved().is_none());
    assert_eq!(unseal(&record.unwrap()).unwrap()[..5], [0, 0, 3, b'a', b'/']);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Nodes that hear the same operations in any order, and twice, hold the same.
    #[test]
    fn the_order_does_not_matter(
        asks in prop::collection::vec((0..3u8, 1..20u64, 0..3u32, any::<bool>()), 0..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let operations: Vec<_> = asks.into_iter().map(|(topic, time, author, gone)| TopicOperation {
            topic: format!("t/{topic}").into(),
            stamp: Stamp { time, author },
            kept: (!gone).then(|| kept(&format!("{topic} {time} {author}"))),
        }).collect();
        // A stamp is of one operation.
        let mut seen = BTreeSet::new();
        let operations: Vec<_> =
            operations.into_iter().filter(|one| seen.insert((one.topic.clone(), one.stamp))).collect();
        let mut one = Retained::default();
        let mut other = Retained::default();
        operations.iter().for_each(|operation| { one.apply(operation.clone()); });
        if !operations.is_empty() {
            order.iter().for_each(|index| { other.apply(index.get(&operations).clone()); });
        }
        operations.iter().rev().for_each(|operation| { other.apply(operation.clone()); });
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.hashes(None, 99), other.hashes(None, 99));
        prop_assert_eq!((one.count(), one.removed.len()), (other.count(), other.removed.len()));
    }
}
