//! Three nodes whose links break with what is on its way, and who start anew: whatever was lost, after the links are
//! back all say the same, and at any time nobody counts what a node said that is not linked.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::table::{PART, REMOVED, Table};
use super::*;
use crate::clock::Stamp;
use crate::model::time::SampleTime;

const NODES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Enter {
        node: usize,
        person: usize,
        stamp: u64,
    },
    Leave {
        node: usize,
        person: usize,
    },
    Watch {
        node: usize,
        sensor: usize,
        level: Level,
    },
    Device {
        node: usize,
        sensor: usize,
        there: bool,
    },
    /// Both ends see the link.
    Link {
        one: usize,
        other: usize,
    },
    Break {
        one: usize,
        other: usize,
    },
    /// What is next on the way from one to the other comes there.
    Deliver {
        from: usize,
        to: usize,
    },
    Restart {
        node: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, few) = (0..NODES, 0..4usize);
    let levels = prop::sample::select(vec![Level::None, Level::Low, Level::High]);
    let step = prop_oneof![
        4 => (node.clone(), few.clone(), 0..9u64).prop_map(|(node, person, stamp)| Step::Enter { node, person, stamp }),
        2 => (node.clone(), few.clone()).prop_map(|(node, person)| Step::Leave { node, person }),
        3 => (node.clone(), few.clone(), levels).prop_map(|(node, sensor, level)| Step::Watch { node, sensor, level }),
        3 => (node.clone(), few, any::<bool>()).prop_map(|(node, sensor, there)| Step::Device { node, sensor, there }),
        3 => (node.clone(), node.clone()).prop_map(|(one, other)| Step::Link { one, other }),
        1 => (node.clone(), node.clone()).prop_map(|(one, other)| Step::Break { one, other }),
        12 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Deliver { from, to }),
        1 => node.prop_map(|node| Step::Restart { node }),
    ];
    prop::collection::vec(step, 1..120)
}

/// One direction of a link.
#[derive(Default)]
struct Way {
    cursor: Cursor,
    sent: VecDeque<News>,
}

struct World {
    nodes: Vec<Passing>,
    ways: BTreeMap<(usize, usize), Way>,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn place(person: usize) -> Place {
    (RoomId::new("r").unwrap(), PersonId::new(&format!("p{person}")).unwrap())
}

fn sensor(sensor: usize) -> SensorId {
    SensorId::new(&format!("s{sensor}")).unwrap()
}

fn person(stamp: u64) -> Person {
    let entered = Stamp { time: stamp, author: 0 };
    Person { name: format!("at {stamp}"), since: SampleTime(0), call: stamp.is_multiple_of(2), entered }
}

impl World {
    fn new() -> Self {
        Self { nodes: (0..NODES).map(|node| Passing::new(id(node))).collect(), ways: BTreeMap::new() }
    }

    fn cut(&mut self, one: usize, other: usize) {
        for (at, of) in [(one, other), (other, one)] {
            if self.ways.remove(&(at, of)).is_some() {
                self.nodes[at].unlinked(id(of));
            }
        }
    }

    fn link(&mut self, one: usize, other: usize) {
        for (at, of) in [(one, other), (other, one)] {
            // A newer link may take the place of one that stands.
            self.ways.insert((at, of), Way::default());
            self.nodes[at].linked(id(of));
        }
    }

    /// All that is new goes onto the ways, in parts.
    fn send(&mut self) {
        for ((from, _), way) in &mut self.ways {
            while let Some(news) = self.nodes[*from].news(&mut way.cursor) {
                way.sent.push_back(news);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(news) = self.ways.get_mut(&(from, to)).and_then(|way| way.sent.pop_front()) else {
            return false;
        };
        self.nodes[to].hear(id(from), news).expect("in order, so no gap");
        true
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Enter { node, person: who, stamp } => {
                assert!(self.nodes[node].people.say(&place(who), Some(person(stamp))));
            }
            Step::Leave { node, person } => assert!(self.nodes[node].people.say(&place(person), None)),
            Step::Watch { node, sensor: of, level } => {
                let value = (level > Level::None).then_some(level);
                assert!(self.nodes[node].attention.say(&sensor(of), value));
            }
            Step::Device { node, sensor: of, there } => {
                assert!(self.nodes[node].devices.say(&sensor(of), there.then_some(())));
            }
            Step::Link { one, other } if one != other => self.link(one, other),
            Step::Break { one, other } => self.cut(one, other),
            Step::Deliver { from, to } => {
                self.deliver(from, to);
            }
            Step::Restart { node } => {
                (0..NODES).for_each(|other| self.cut(node, other));
                self.nodes[node] = Passing::new(id(node));
            }
            Step::Link { .. } => {}
        }
        self.send();
    }
}

/// What is said at a node, by whom, in an order of its own.
fn said<K: Ord + Clone, V: PartialEq + Clone>(facts: &Facts<K, V>) -> Vec<(K, u64, V)> {
    let mut said: Vec<_> = facts
        .range(..)
        .flat_map(|(key, said)| said.iter().map(|(node, value)| (key.clone(), node.0, value.clone())))
        .collect();
    said.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    said
}

/// What all nodes own, by whom.
fn owned<K: Ord + Clone, V: PartialEq + Clone>(
    nodes: &[Passing],
    facts: impl Fn(&Passing) -> &Facts<K, V>,
) -> Vec<(K, u64, V)> {
    let each = nodes.iter().enumerate().flat_map(|(at, node)| {
        let own: Vec<_> =
            facts(node).own().iter().map(|(key, value)| (key.clone(), id(at).0, value.clone())).collect();
        own
    });
    let mut owned: Vec<_> = each.collect();
    owned.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    owned
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn after_the_links_are_back_all_nodes_say_the_same(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(&step);
            // Nobody counts what a node said that is not linked, nor anything that it never said.
            for (at, node) in world.nodes.iter().enumerate() {
                for (_, by, _) in said(&node.people) {
                    let of = by as usize - 1;
                    prop_assert!(of == at || world.ways.contains_key(&(at, of)));
                }
            }
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            if !world.ways.contains_key(&(one, other)) {
                world.link(one, other);
            }
        }
        world.send();
        for from in 0..NODES {
            for to in 0..NODES {
                while world.deliver(from, to) {}
            }
        }
        for node in &world.nodes {
            prop_assert_eq!(said(&node.people), owned(&world.nodes, |node| &node.people));
            prop_assert_eq!(said(&node.attention), owned(&world.nodes, |node| &node.attention));
            prop_assert_eq!(said(&node.devices), owned(&world.nodes, |node| &node.devices));
        }
    }
}

#[test]
fn full_means_exactly_the_stated_count() {
    let mut facts: Facts<u32, u32> = Facts::new(id(0), 2);
    assert!(facts.say(&1, Some(1)) && facts.say(&2, Some(2)) && !facts.say(&3, Some(3)));
    assert!(facts.say(&2, Some(9)), "one that is there may change");
    assert!(facts.say(&1, None) && facts.say(&3, Some(3)));
    facts.linked(id(1));
    let news = Difference { after: 0, upto: 3, changes: vec![(7, Some(1)), (8, Some(1)), (9, Some(1))] };
    assert_eq!(facts.hear(id(1), news), Ok(vec![7, 8]), "what is beyond is not shown");
    assert_eq!(facts.of(&9), []);
    let gap = Difference { after: 5, upto: 6, changes: vec![] };
    assert!(facts.hear(id(1), gap).is_err());
    assert_eq!(facts.unlinked(id(1)), [7, 8]);
    assert_eq!(facts.range(..).count(), 2);
}

#[test]
fn a_peer_that_counts_no_versions_is_followed_too() {
    let mut facts: Facts<u32, ()> = Facts::new(id(0), 9);
    facts.linked(id(1));
    assert_eq!(facts.hear_uncounted(id(1), vec![(1, Some(())), (2, Some(()))]), [1, 2]);
    assert_eq!(facts.hear_uncounted(id(1), vec![(3, Some(())), (1, None)]), [3, 1]);
    assert_eq!(facts.range(..).map(|(key, _)| *key).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_large_table_is_told_whole_while_it_goes_on_changing() {
    let mut table = Table::default();
    let count = 3 * PART as u32;
    (0..count).for_each(|key| assert!(table.put(&key, Some(0))));
    // More removals than are remembered, before there is a copy.
    for key in count..count + REMOVED as u32 + 9 {
        table.put(&key, Some(1));
        table.put(&key, None);
    }
    let mut facts: Facts<u32, u32> = Facts::new(id(0), usize::MAX);
    facts.linked(id(1));
    let mut copy = None;
    let mut parts = 0;
    while let Some(news) = table.news(&mut copy) {
        facts.hear(id(1), news).unwrap();
        parts += 1;
        if parts == 2 {
            // Of what was told already, of what was not, and something new.
            for (key, value) in [(0, None), (count - 1, None), (1, Some(7)), (count + 1, Some(8))] {
                assert!(table.put(&key, value));
            }
        }
    }
    assert!(parts <= 5, "{parts}");
    let heard: Vec<_> = facts.range(..).map(|(key, said)| (*key, said[0].1)).collect();
    assert_eq!(heard, table.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
}
