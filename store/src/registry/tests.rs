//! Nodes that change rooms, hear of each other's changes in any order and grouping, start anew, and join what others
//! hold, hold the same in the end; and what is done at once follows the table in `room`.

use proptest::prelude::*;

use super::request::{
    Asked, MAX_NAME_CHARS, MAX_ROOM_MEMBERS, MAX_ROOM_SENSORS, MAX_ROOMS, MemberWish, NewRoom, RoomError,
};
use super::room::{Change, RoomOperation};
use super::rooms::{MAX_DELETED, RoomView, Rooms};
use super::{Operation, unset, write};
use crate::clock::Stamp;
use crate::codec::{Reader, unseal};
use crate::model::ids::{NodeId, Origin, PersonId, RoomId, SensorId};
use crate::model::room::{JoinCode, Role, drawn};

/// A node: what it holds, what it has made in this run and before, and how much of each origin it has heard.
#[derive(Debug, Clone)]
struct Node {
    rooms: Rooms,
    origin: Origin,
    clock: u64,
    heard: Vec<usize>,
}

/// All nodes, and what each origin made, in order.
#[derive(Debug)]
struct Nodes {
    nodes: Vec<Node>,
    logs: Vec<(Origin, Vec<RoomOperation>)>,
}

fn origin(node: usize, start: u64) -> Origin {
    Origin { node: NodeId(node as u64), start: start << 8 | node as u64 }
}

fn room(number: u8) -> RoomId {
    drawn([0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

fn sensor(number: u8) -> SensorId {
    SensorId::new(&format!("s{number}")).unwrap()
}

fn person(number: u8) -> PersonId {
    PersonId::new(&format!("p{number}")).unwrap()
}

fn code(number: u8) -> JoinCode {
    JoinCode::of([0, 0, 0, 0, number])
}

fn named(name: &str) -> MemberWish {
    MemberWish { name: Some(name.into()), role: None }
}

fn ranked(role: Role) -> MemberWish {
    MemberWish { name: None, role: Some(role) }
}

impl Nodes {
    fn new(count: usize) -> Self {
        let logs: Vec<_> = (0..count).map(|node| (origin(node, 1), Vec::new())).collect();
        let node = |node| Node {
            rooms: Rooms::default(),
            origin: origin(node, 1),
            // Clocks differ, by more than a run takes.
            clock: 1000 + 1000 * (node as u64 % 3),
            heard: vec![0; count],
        };
        Self { nodes: (0..count).map(node).collect(), logs }
    }

    fn log(&self, origin: Origin) -> usize {
        self.logs.iter().position(|log| log.0 == origin).unwrap()
    }

    /// A node is asked for something; what it refuses is nothing.
    fn ask(
        &mut self,
        at: usize,
        judge: impl FnOnce(&Rooms, Asked) -> Result<Vec<RoomOperation>, RoomError>,
    ) -> bool {
        let log = self.log(self.nodes[at].origin);
        let node = &mut self.nodes[at];
        node.clock += 1;
        let stamp = Stamp { time: node.clock, author: at as u32 + 10 * (node.origin.start >> 8) as u32 };
        let Ok(operations) = judge(&node.rooms, Asked { origin: node.origin, stamp }) else { return false };
        for operation in &operations {
            node.rooms.apply(operation.clone());
        }
        self.logs[log].1.extend(operations);
        node.heard.resize(self.logs.len(), 0);
        node.heard[log] = self.logs[log].1.len();
        true
    }

    /// A node hears the next few operations of an origin, through bytes.
    fn hear(&mut self, at: usize, log: usize, count: usize) {
        let node = &mut self.nodes[at];
        node.heard.resize(self.logs.len(), 0);
        let (_, operations) = &self.logs[log];
        let from = node.heard[log];
        let upto = from.saturating_add(count).min(operations.len());
        let mut bytes = Vec::new();
        for operation in &operations[from..upto] {
            Operation::Room(operation.clone()).encode(&mut bytes);
        }
        let mut reader = Reader(&bytes);
        while !reader.is_empty() {
            let Operation::Room(operation) = Operation::decode(&mut reader).unwrap() else { panic!() };
            node.clock = node.clock.max(operation.stamp.time);
            node.rooms.apply(operation);
        }
        node.heard[log] = upto;
    }

    /// A node hears operations that do not follow on what it heard, or that it heard before: of a snapshot that broke
    /// off. They do not count as heard.
    fn overhear(&mut self, at: usize, log: usize, from: usize, count: usize) {
        let operations = &self.logs[log].1;
        let from = from.min(operations.len());
        for operation in operations.iter().skip(from).take(count) {
            self.nodes[at].rooms.apply(operation.clone());
        }
    }

    /// A node joins the records of another one, or some of them; all of them count as what that one has heard.
    fn join(&mut self, at: usize, from: usize, all: bool) {
        let sender = self.nodes[from].clone();
        for (index, room) in sender.rooms.known().enumerate() {
            if all || index % 2 == 0 {
                let record = sender.rooms.record(room).unwrap();
                let mut reader = Reader(unseal(&record).unwrap());
                let Operation::Room(operation) = Operation::decode(&mut reader).unwrap() else { panic!() };
                assert!(reader.is_empty());
                self.nodes[at].rooms.apply(operation);
            }
        }
        let node = &mut self.nodes[at];
        node.clock = node.clock.max(sender.clock);
        if all {
            node.heard.resize(sender.heard.len().max(node.heard.len()), 0);
            node.heard.iter_mut().zip(sender.heard).for_each(|(held, heard)| *held = heard.max(*held));
        }
    }

    /// A node starts anew, with what its disk has: an author of its own.
    fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let mut found = Rooms::default();
        for room in node.rooms.known() {
            let record = node.rooms.record(room).unwrap();
            let Operation::Room(operation) =
                Operation::decode(&mut Reader(unseal(&record).unwrap())).unwrap()
            else {
                panic!()
            };
            found.apply(operation);
        }
        assert_eq!(found, node.rooms, "a disk says what memory held");
        node.rooms = found;
        node.origin = origin(at, (node.origin.start >> 8) + 1);
        let origin = node.origin;
        self.logs.push((origin, Vec::new()));
    }

    /// All hear all; afterwards they hold the same, which is returned.
    fn settle(&mut self) -> Rooms {
        for at in 0..self.nodes.len() {
            // Every node in another order.
            for step in 0..self.logs.len() {
                let log = if at % 2 == 0 { step } else { self.logs.len() - 1 - step };
                self.hear(at, log, usize::MAX);
            }
        }
        for node in &self.nodes {
            assert_eq!(node.rooms, self.nodes[0].rooms);
            for id in node.rooms.known() {
                assert_eq!(node.rooms.hash(id), self.nodes[0].rooms.hash(id));
                assert_eq!(node.rooms.view(id.as_str()), self.nodes[0].rooms.view(id.as_str()));
            }
        }
        self.nodes[0].rooms.clone()
    }

    fn only(&mut self) -> Option<RoomView> {
        self.settle().view(room(1).as_str())
    }
}

/// Two nodes that hold a room with one sensor and one member.
fn pair() -> Nodes {
    let mut nodes = Nodes::new(2);
    let wish = NewRoom { name: "Lab".into(), temporary: false, sensors: vec![sensor(1)] };
    assert!(nodes.ask(0, |rooms, asked| rooms.create(&room(1), code(1), wish, asked)));
    assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), person(1), named("Ana"), asked)));
    nodes.settle();
    nodes
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create(u8, u8, bool),
    Rename(u8, u8),
    Renew(u8, u8),
    Delete(u8),
    AddSensor(u8, u8),
    RemoveSensor(u8, u8),
    Name(u8, u8, u8),
    Rank(u8, u8, u8),
    RemoveMember(u8, u8),
    Hear(usize, usize),
    Overhear(usize, usize, usize),
    Join(usize, bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let small = || 0..3u8;
    prop_oneof![
        3 => (small(), small(), any::<bool>()).prop_map(|(r, c, t)| Step::Create(r, c, t)),
        2 => (small(), small()).prop_map(|(r, n)| Step::Rename(r, n)),
        2 => (small(), small()).prop_map(|(r, c)| Step::Renew(r, c)),
        1 => small().prop_map(Step::Delete),
        4 => (small(), small()).prop_map(|(r, s)| Step::AddSensor(r, s)),
        3 => (small(), small()).prop_map(|(r, s)| Step::RemoveSensor(r, s)),
        2 => (small(), small(), small()).prop_map(|(r, p, n)| Step::Name(r, p, n)),
        2 => (small(), small(), small()).prop_map(|(r, p, n)| Step::Rank(r, p, n)),
        2 => (small(), small()).prop_map(|(r, p)| Step::RemoveMember(r, p)),
        9 => (0..12usize, 1..4usize).prop_map(|(log, count)| Step::Hear(log, count)),
        2 => (0..12usize, 0..9usize, 1..4usize).prop_map(|(log, from, n)| Step::Overhear(log, from, n)),
        2 => (0..4usize, any::<bool>()).prop_map(|(from, all)| Step::Join(from, all)),
        1 => Just(Step::Restart),
    ]
}

impl Nodes {
    fn take(&mut self, at: usize, step: Step) {
        let at = at % self.nodes.len();
        match step {
            // A room has one maker, under an id of its own.
            Step::Create(r, c, temporary) => {
                let id = drawn([0, 0, 0, 0, 0, 0, 0, 0, at as u8, r]);
                let wish = NewRoom { name: "Lab".into(), temporary, sensors: vec![sensor(0), sensor(1)] };
                let made = self.logs.iter().any(|log| log.1.iter().any(|operation| operation.room == id));
                let _ = !made && self.ask(at, |rooms, asked| rooms.create(&id, code(c), wish, asked));
            }
            Step::Rename(r, n) => {
                self.on(at, r, |rooms, id, asked| rooms.rename(id, format!("Name {n}"), asked));
            }
            Step::Renew(r, c) => self.on(at, r, |rooms, id, asked| rooms.renew(id, code(c), asked)),
            Step::Delete(r) => self.on(at, r, Rooms::remove),
            Step::AddSensor(r, s) => {
                self.on(at, r, |rooms, id, asked| rooms.add_sensor(id, sensor(s), asked));
            }
            Step::RemoveSensor(r, s) => {
                self.on(at, r, |rooms, id, asked| rooms.remove_sensor(id, sensor(s), asked));
            }
            Step::Name(r, p, n) => self.on(at, r, |rooms, id, asked| {
                rooms.put_member(id, person(p), named(&format!("Name {n}")), asked)
            }),
            Step::Rank(r, p, n) => self.on(at, r, |rooms, id, asked| {
                rooms.put_member(id, person(p), ranked(Role::ALL[usize::from(n)]), asked)
            }),
            Step::RemoveMember(r, p) => {
                self.on(at, r, |rooms, id, asked| rooms.remove_member(id, person(p), asked));
            }
            Step::Hear(log, count) => self.hear(at, log % self.logs.len(), count),
            Step::Overhear(log, from, count) => self.overhear(at, log % self.logs.len(), from, count),
            Step::Join(from, all) => self.join(at, from % self.nodes.len(), all),
            Step::Restart => self.restart(at),
        }
    }

    /// Asks for something of one of the rooms that a node knows.
    fn on(
        &mut self,
        at: usize,
        which: u8,
        judge: impl FnOnce(&Rooms, &RoomId, Asked) -> Result<Vec<RoomOperation>, RoomError>,
    ) {
        let ids: Vec<_> = self.nodes[at].rooms.ids().cloned().collect();
        if let Some(id) = ids.get(usize::from(which) % ids.len().max(1)) {
            assert!(self.ask(at, |rooms, asked| judge(rooms, id, asked)), "of a room that is there");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_order_and_grouping_all_hold_the_same(
        count in 2..5usize,
        steps in prop::collection::vec((0..4usize, step()), 0..120),
    ) {
        let mut nodes = Nodes::new(count);
        for (at, step) in steps {
            nodes.take(at, step);
        }
        let rooms = nodes.settle();
        // The index says what a search would.
        for number in 0..3 {
            let asking = rooms.ids().filter_map(|id| {
                let asked = rooms.get(id.as_str()).unwrap().asks().unwrap();
                (asked.0 == code(number)).then_some((asked.1, id))
            });
            prop_assert_eq!(rooms.by_code(code(number)), asking.min().map(|first| first.1));
        }
        prop_assert_eq!(rooms.count(), rooms.ids().count());
        for number in 0..8 {
            let of = rooms.ids().filter(|id| rooms.get(id.as_str()).unwrap().sensors.contains(&sensor(number)).val);
            prop_assert_eq!(rooms.of(&sensor(number)), of.cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn noise_is_no_operation_and_no_panic(bytes: Vec<u8>) {
        let _ = RoomOperation::decode(&mut Reader(&bytes));
        let mut of_room = bytes;
        of_room.insert(0, 0);
        let _ = Operation::decode(&mut Reader(&of_room));
    }
}

#[test]
fn a_sensor_added_and_removed_at_once_is_in() {
    let mut nodes = pair();
    assert!(nodes.ask(0, |rooms, asked| rooms.add_sensor(&room(1), sensor(1), asked)));
    assert!(nodes.ask(1, |rooms, asked| rooms.remove_sensor(&room(1), sensor(1), asked)));
    assert_eq!(nodes.nodes[1].rooms.view(room(1).as_str()).unwrap().sensors, []);
    assert_eq!(nodes.only().unwrap().sensors, [sensor(1)]);
    // Who has seen the addition removes it.
    assert!(nodes.ask(1, |rooms, asked| rooms.remove_sensor(&room(1), sensor(1), asked)));
    assert_eq!(nodes.only().unwrap().sensors, []);
}

#[test]
fn of_two_names_the_later_stays_and_whoever_sees_one_may_replace_it() {
    let mut nodes = pair();
    // The clock of the other node is far ahead.
    assert!(nodes.ask(1, |rooms, asked| rooms.rename(&room(1), "Ahead".into(), asked)));
    assert!(nodes.ask(0, |rooms, asked| rooms.rename(&room(1), "Behind".into(), asked)));
    assert_eq!(nodes.only().unwrap().name, "Ahead");
    nodes.nodes[0].clock = 0;
    assert!(nodes.ask(0, |rooms, asked| rooms.rename(&room(1), "Afterwards".into(), asked)));
    assert_eq!(nodes.only().unwrap().name, "Afterwards");
}

#[test]
fn a_room_renamed_here_and_deleted_there_is_deleted() {
    for deletes in [0, 1] {
        let mut nodes = pair();
        assert!(nodes.ask(deletes, |rooms, asked| rooms.remove(&room(1), asked)));
        assert!(nodes.ask(1 - deletes, |rooms, asked| rooms.rename(&room(1), "Late".into(), asked)));
        assert!(nodes.ask(1 - deletes, |rooms, asked| rooms.add_sensor(&room(1), sensor(2), asked)));
        assert_eq!(nodes.only(), None);
        let rooms = nodes.settle();
        assert_eq!((rooms.by_code(code(1)), rooms.count()), (None, 0));
        let late = nodes.ask(1, |rooms, asked| rooms.rename(&room(1), "Later".into(), asked));
        assert!(!late, "there is nothing to rename");
    }
}

#[test]
fn a_change_brings_the_room_along_that_another_node_made() {
    let mut nodes = Nodes::new(3);
    let log = nodes.log(nodes.nodes[0].origin);
    let wish = NewRoom { name: "Lab".into(), temporary: false, sensors: Vec::new() };
    assert!(nodes.ask(0, |rooms, asked| rooms.create(&room(1), code(1), wish, asked)));
    nodes.hear(1, log, 9);
    assert!(nodes.ask(1, |rooms, asked| rooms.add_sensor(&room(1), sensor(7), asked)));
    // The one that made it is gone for ever; the third heard the second alone.
    let second = nodes.log(nodes.nodes[1].origin);
    nodes.hear(2, second, 9);
    let view = nodes.nodes[2].rooms.view(room(1).as_str()).unwrap();
    assert_eq!((view.name.as_str(), view.join_code, view.sensors), ("Lab", Some(code(1)), vec![sensor(7)]));
}

#[test]
fn of_a_code_renewed_on_both_sides_one_wins_and_the_others_are_void() {
    let mut nodes = pair();
    assert!(nodes.ask(0, |rooms, asked| rooms.renew(&room(1), code(2), asked)));
    assert!(nodes.ask(1, |rooms, asked| rooms.renew(&room(1), code(3), asked)));
    assert_eq!(nodes.nodes[0].rooms.by_code(code(1)), None, "void at once");
    assert_eq!(nodes.only().unwrap().join_code, Some(code(3)), "the later stamp");
    let rooms = nodes.settle();
    assert_eq!([1, 2, 3].map(|number| rooms.by_code(code(number)).is_some()), [false, false, true]);
}

#[test]
fn somebody_promoted_here_and_removed_there_is_out_and_comes_back_as_they_are_put_in() {
    let mut nodes = pair();
    assert!(nodes.ask(1, |rooms, asked| rooms.put_member(&room(1), person(1), ranked(Role::Admin), asked)));
    assert!(nodes.ask(0, |rooms, asked| rooms.remove_member(&room(1), person(1), asked)));
    // Put in again before the promotion comes, whose stamp is far ahead.
    assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), person(2), named("Ben"), asked)));
    let view = nodes.only().unwrap();
    assert_eq!(view.members.iter().map(|member| member.member.clone()).collect::<Vec<_>>(), [person(2)]);
    let record = nodes.settle().record(&room(1)).unwrap();
    assert!(!record.windows(3).any(|part| part == b"Ana"), "who was removed left no name");
    assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), person(1), MemberWish::default(), asked)));
    let members = nodes.only().unwrap().members;
    assert_eq!((members[0].name.as_str(), members[0].role), ("p1", Role::Member));
}

#[test]
fn somebody_put_in_here_and_removed_there_is_in_and_two_wishes_are_both_met() {
    let mut nodes = pair();
    assert!(nodes.ask(0, |rooms, asked| rooms.remove_member(&room(1), person(1), asked)));
    assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), person(1), ranked(Role::Owner), asked)));
    assert!(nodes.ask(1, |rooms, asked| rooms.remove_member(&room(1), person(1), asked)));
    assert_eq!(nodes.only().unwrap().members[0].role, Role::Owner);
    assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), person(1), named("Anna"), asked)));
    assert!(nodes.ask(1, |rooms, asked| rooms.put_member(&room(1), person(1), ranked(Role::Admin), asked)));
    let members = nodes.only().unwrap().members;
    assert_eq!((members[0].name.as_str(), members[0].role), ("Anna", Role::Admin));
}

#[test]
fn of_two_rooms_with_one_code_it_opens_the_first_until_that_lets_go() {
    let mut nodes = pair();
    let second = NewRoom { name: "Second".into(), ..NewRoom::default() };
    assert!(nodes.ask(1, |rooms, asked| rooms.create(&room(2), code(7), second, asked)));
    let third = NewRoom { name: "First".into(), ..NewRoom::default() };
    assert!(nodes.ask(0, |rooms, asked| rooms.create(&room(3), code(7), third, asked)));
    let codes = |nodes: &mut Nodes| {
        let rooms = nodes.settle();
        [2, 3].map(|number| rooms.view(room(number).as_str()).and_then(|view| view.join_code))
    };
    assert_eq!(codes(&mut nodes), [None, Some(code(7))]);
    assert_eq!(nodes.settle().by_code(code(7)), Some(&room(3)));
    assert!(nodes.ask(1, |rooms, asked| rooms.renew(&room(2), code(8), asked)));
    assert_eq!(codes(&mut nodes), [Some(code(8)), Some(code(7))]);
    assert!(nodes.ask(0, |rooms, asked| rooms.renew(&room(2), code(7), asked)));
    assert!(nodes.ask(1, |rooms, asked| rooms.remove(&room(3), asked)));
    assert_eq!(codes(&mut nodes), [Some(code(7)), None]);
}

#[test]
fn an_addition_over_a_gap_hides_nothing() {
    let mut nodes = pair();
    for number in 2..5 {
        assert!(nodes.ask(0, |rooms, asked| rooms.add_sensor(&room(1), sensor(number), asked)));
    }
    let last = nodes.logs[0].1.len() - 1;
    nodes.overhear(1, 0, last, 1);
    assert_eq!(nodes.nodes[1].rooms.view(room(1).as_str()).unwrap().sensors, [sensor(1)]);
    assert_eq!(nodes.only().unwrap().sensors, [1, 2, 3, 4].map(sensor));
}

#[test]
fn at_each_bound_there_is_a_refusal_that_says_so() {
    let mut nodes = Nodes::new(1);
    let asked = Asked { origin: origin(0, 1), stamp: Stamp { time: 1, author: 1 } };
    let make = |rooms: &Rooms, wish| rooms.create(&room(1), code(1), wish, asked).map(|_| ()).unwrap_err();
    let long = NewRoom { name: "ä".repeat(MAX_NAME_CHARS + 1), ..NewRoom::default() };
    let rooms = &nodes.nodes[0].rooms;
    let error = make(rooms, long);
    assert_eq!((error.code(), error.to_string().contains("101 characters")), ("bad_name", true), "{error}");
    for name in ["", " \u{a0}", "two\nlines"] {
        let error = make(rooms, NewRoom { name: name.into(), ..NewRoom::default() });
        assert_eq!(error.code(), "bad_name", "{error}");
    }
    let longest = NewRoom { name: "ä".repeat(MAX_NAME_CHARS), ..NewRoom::default() };
    assert!(nodes.ask(0, |rooms, asked| rooms.create(&room(1), code(1), longest, asked)));
    let many =
        |count: usize| (0..count).map(|n| SensorId::new(&format!("s{n}")).unwrap()).collect::<Vec<_>>();
    let wish = NewRoom { name: "Full".into(), temporary: false, sensors: many(MAX_ROOM_SENSORS + 1) };
    assert_eq!(make(&nodes.nodes[0].rooms, wish).code(), "too_many_sensors");
    let wish = NewRoom { name: "Full".into(), temporary: false, sensors: many(MAX_ROOM_SENSORS) };
    assert!(nodes.ask(0, |rooms, asked| rooms.create(&room(2), code(2), wish, asked)));
    let rooms = &nodes.nodes[0].rooms;
    let error = rooms.add_sensor(&room(2), SensorId::new("more").unwrap(), asked).unwrap_err();
    assert_eq!(error, RoomError::TooManySensors { room: room(2), count: MAX_ROOM_SENSORS + 1 });
    assert!(rooms.add_sensor(&room(2), sensor(3), asked).is_ok(), "that one is in");
    for number in 0..MAX_ROOM_MEMBERS {
        let who = PersonId::new(&format!("p{number}")).unwrap();
        assert!(nodes.ask(0, |rooms, asked| rooms.put_member(&room(1), who, MemberWish::default(), asked)));
    }
    let rooms = &nodes.nodes[0].rooms;
    let put = |who: &str| rooms.put_member(&room(1), PersonId::new(who).unwrap(), named("Eva"), asked);
    assert_eq!(put("more").unwrap_err(), RoomError::TooManyMembers { room: room(1) });
    assert!(put("p7").is_ok(), "they are in");
    assert_eq!(rooms.rename(&room(9), "Nowhere".into(), asked).unwrap_err().code(), "unknown_room");
    let mut full = Rooms::default();
    for number in 0..MAX_ROOMS as u64 {
        let mut random = [1; 10];
        random[..8].copy_from_slice(&number.to_le_bytes());
        let code = JoinCode::of([1, random[0], random[1], 0, 0]);
        let change = Change::Create { name: "Room".into(), code, temporary: true };
        full.apply(RoomOperation { room: drawn(random), stamp: asked.stamp, change });
    }
    let error = make(&full, NewRoom { name: "More".into(), ..NewRoom::default() });
    assert_eq!(error, RoomError::TooManyRooms(MAX_ROOMS));
}

#[test]
fn the_deletions_that_are_remembered_are_the_newest() {
    let mut rooms = Rooms::default();
    let deleted = |number: usize| {
        let mut random = [1; 10];
        random[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let stamp = Stamp { time: number as u64 + 1, author: 1 };
        RoomOperation { room: drawn(random), stamp, change: Change::Delete }
    };
    // In another order than they were made in.
    for number in (0..MAX_DELETED + 3).rev() {
        rooms.apply(deleted(number));
    }
    rooms.set_saved();
    rooms.apply(deleted(MAX_DELETED + 3));
    assert!((0..4).all(|number| !rooms.is_deleted(&deleted(number).room)));
    assert!(rooms.is_deleted(&deleted(4).room));
    let unsaved: Vec<_> = std::iter::from_fn(|| rooms.next_unsaved()).collect();
    let gone = unsaved.iter().filter(|(_, record)| record.is_none()).count();
    assert_eq!((unsaved.len(), gone), (2, 1), "one comes to the disk, one goes from it");
}

/// What stands on disks and links: a release that changes it has to read this all the same.
#[test]
fn the_form_of_operations_is_pinned() {
    let mut nodes = pair();
    assert!(nodes.ask(0, |rooms, asked| rooms.remove_sensor(&room(1), sensor(1), asked)));
    let hex = |bytes: &[u8]| {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect::<String>()
    };
    let encoded = |operation: &RoomOperation| {
        let mut out = Vec::new();
        Operation::Room(operation.clone()).encode(&mut out);
        hex(&out)
    };
    let mut forms: Vec<_> = nodes.logs[0].1.iter().map(encoded).collect();
    // All of the room, as the disk has it.
    forms.push(hex(unseal(&nodes.settle().record(&room(1)).unwrap()).unwrap()));
    assert_eq!(forms, PINNED);
}

const PINNED: [&str; 7] = [
    "001030303030303030303030303030303031e9070a01034c6162000000000100",
    "001030303030303030303030303030303031e9070a050080020101027331",
    "001030303030303030303030303030303031eb070a060080020101027031",
    "001030303030303030303030303030303031ea070a0702703103416e61",
    "001030303030303030303030303030303031ea070a0802703100",
    "001030303030303030303030303030303031ec070a05010180020101027331",
    "001030303030303030303030303030303031ea070a0001034c6162e9070a010000000001e9070a0100e9070a0180020100\
     0001800201010270310180020100010270310103416e61ea070a0100ea070a",
];

#[test]
fn the_later_write_stays() {
    let mut register = unset();
    let at = |time| Stamp { time, author: 1 };
    write(&mut register, "b", at(2));
    write(&mut register, "a", at(1));
    assert_eq!(register.val, Some("b"));
    write(&mut register, "other", at(2));
    assert_eq!(register.val, Some("b"), "an equal stamp changes nothing");
}
