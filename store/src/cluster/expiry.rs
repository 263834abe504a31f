//! Temporary rooms go when nobody has been in them for long ([`EMPTY_FOR`]). Every node keeps an eye on all of them, so that
//! whoever has to act knows already since when; the room's first node by rendezvous hash, of those that live, deletes it.
//! Should two nodes see this differently for a moment, both delete it, which is to delete it once.
//!
//! What is deleted never comes back, and a node that is dead cannot be told from one that is cut off with the people of a
//! room. So a room waits with those who were in it through a node that was lost, until that node is back, has said
//! goodbye, or is listed no longer (24 h). And a node that sees fewer than half of the nodes alive deletes none.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::placement;
use super::view::{NodeState, NodeView, Nodes};
use crate::feed::Event;
use crate::handle::Store;
use crate::model::ids::{NodeName, RoomId};
use crate::registry::request::RoomError;

/// How long nobody is in a temporary room before it goes.
pub const EMPTY_FOR: Duration = Duration::from_secs(600);
/// Looks at what is due, in that time; a room goes later than it might by one of these parts at most.
const LOOKS: u32 = 40;
/// Those who vanish from a room are lost, if their node turns out to be so within this part of that time: a link that is
/// gone is noticed before its node is held for dead.
const SETTLED_IN: u32 = 10;

/// Deletes temporary rooms of which this node is the first, for as long as it is polled. Dropped anywhere, it has done
/// nothing by halves.
pub async fn expire(store: Store, nodes: Nodes, empty_for: Duration) {
    let mut vigil = Vigil { empty_for, rooms: HashMap::new() };
    let mut feed = store.subscribe(1);
    feed.follow_catalog(true);
    // Told of all that change from now on: those that are there already are looked at first.
    let mut told = store.temporary_rooms();
    let mut looks = interval((empty_for / LOOKS).max(Duration::from_millis(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        for room in told.drain(..) {
            let temporary = store.is_temporary(&room);
            feed.follow_room(&room, temporary);
            if temporary {
                vigil.begin(&room, &on(&store, &room), Instant::now());
            } else {
                vigil.rooms.remove(&room);
            }
        }
        // Both branches are cancel-safe.
        tokio::select! {
            event = feed.next() => match event {
                Event::Room(room) => told.push(room),
                Event::Presence(room) => vigil.see(&room, &on(&store, &room), Instant::now()),
                _ => {}
            },
            _ = looks.tick() => {
                for room in vigil.due(&nodes.all(), Instant::now()) {
                    delete(&store, &nodes, &room);
                }
            }
        }
    }
}

fn delete(store: &Store, nodes: &Nodes, room: &RoomId) {
    match store.delete_room(room) {
        // It is kept like everything else that was asked of rooms; nobody waits for it.
        Ok(_) => {
            nodes.count(|figures| figures.rooms_expired += 1);
            tracing::info!(%room, "a temporary room was empty for long and is deleted");
        }
        Err(RoomError::Unknown(_)) => {}
        Err(error) => tracing::debug!(%room, %error, "a temporary room stays for now"),
    }
}

/// The nodes that people are in a room through.
fn on(store: &Store, room: &RoomId) -> BTreeSet<NodeName> {
    store.people(room).iter().map(|person| person.node.clone()).collect()
}

/// Since when which rooms are empty. A value: what is seen goes in, with the time; what is due comes out.
struct Vigil {
    empty_for: Duration,
    rooms: HashMap<RoomId, Seen>,
}

/// What was seen of one room.
struct Seen {
    /// `None` while somebody is in it.
    empty_since: Option<Instant>,
    /// The nodes through which its people are there, or were at last.
    on: BTreeSet<NodeName>,
    /// Those of them that were lost with their people.
    lost: BTreeSet<NodeName>,
}

impl Vigil {
    /// A temporary room is there; it may be known already.
    fn begin(&mut self, room: &RoomId, on: &BTreeSet<NodeName>, now: Instant) {
        if !self.rooms.contains_key(room) {
            let seen = Seen { empty_since: Some(now), on: BTreeSet::new(), lost: BTreeSet::new() };
            self.rooms.insert(room.clone(), seen);
            self.see(room, on, now);
        }
    }

    /// Somebody came or went; who is there now is so through these nodes. Nobody: even then somebody was.
    fn see(&mut self, room: &RoomId, on: &BTreeSet<NodeName>, now: Instant) {
        let Some(seen) = self.rooms.get_mut(room) else { return };
        seen.empty_since = on.is_empty().then_some(now);
        if !on.is_empty() {
            seen.on.clone_from(on);
            seen.lost.clear();
        }
    }

    /// The rooms that this node is to delete.
    fn due(&mut self, nodes: &[NodeView], now: Instant) -> Vec<RoomId> {
        let gone = |state| matches!(state, NodeState::Suspect | NodeState::Down);
        let is = |name: &NodeName| nodes.iter().find(|node| node.name == *name).map(|node| node.state);
        let members = nodes.iter().filter(|node| node.state != NodeState::Left);
        let living = members.clone().filter(|node| node.state != NodeState::Down);
        let living: Vec<_> = living.map(|node| &node.name).collect();
        let most = 2 * living.len() >= members.count();
        let Some(me) = nodes.iter().find(|node| node.me) else { return Vec::new() };
        let mut due = Vec::new();
        for (room, seen) in &mut self.rooms {
            let Some(since) = seen.empty_since else { continue };
            if now.duration_since(since) <= self.empty_for / SETTLED_IN {
                seen.lost.extend(seen.on.iter().filter(|node| is(node).is_some_and(gone)).cloned());
                continue;
            }
            let lost = seen.lost.len();
            seen.lost.retain(|node| is(node).is_some_and(gone));
            if seen.lost.len() < lost {
                // A node is back, and tells in a moment who is there through it.
                seen.empty_since = Some(now);
            } else if lost == 0 && most && now.duration_since(since) >= self.empty_for {
                let first = placement::first(living.iter().copied(), room);
                due.extend((first == Some(&me.name)).then(|| room.clone()));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;

    const LONG: Duration = Duration::from_secs(600);

    fn name(of: &str) -> NodeName {
        NodeName::new(of).unwrap()
    }

    fn room() -> RoomId {
        RoomId::new("r1").unwrap()
    }

    /// Nodes as the first of them sees them.
    fn seen(states: &[(&str, NodeState)]) -> Vec<NodeView> {
        let own = Nodes::new(name(states[0].0), NodeId(1), String::new(), None).all().remove(0);
        let view = |(of, state): &(&str, NodeState)| NodeView {
            name: name(of),
            state: *state,
            me: *of == states[0].0,
            ..own.clone()
        };
        states.iter().map(view).collect()
    }

    fn on(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|of| name(of)).collect()
    }

    /// A vigil over one room, with these people.
    fn vigil(on: &BTreeSet<NodeName>, now: Instant) -> Vigil {
        let mut vigil = Vigil { empty_for: LONG, rooms: HashMap::new() };
        vigil.begin(&room(), on, now);
        vigil
    }

    use NodeState::{Alive, Down, Left, Suspect};

    #[test]
    fn one_node_alone_deletes_what_was_empty_for_long_and_not_before() {
        let (began, alone) = (Instant::now(), seen(&[("a", Alive)]));
        let mut empty = vigil(&on(&[]), began);
        assert_eq!(empty.due(&alone, began + LONG * 99 / 100), []);
        assert_eq!(empty.due(&alone, began + LONG), [room()]);
        let mut used = vigil(&on(&["a"]), began);
        assert_eq!(used.due(&alone, began + 10 * LONG), []);
        used.see(&room(), &on(&[]), began + 10 * LONG);
        // It is told of again, for another name of it say: that is no visit.
        used.begin(&room(), &on(&[]), began + 10 * LONG + LONG / 2);
        assert_eq!(used.due(&alone, began + 11 * LONG), [room()]);
        // Somebody came and went before anybody looked.
        used.see(&room(), &on(&[]), began + 11 * LONG);
        assert_eq!(used.due(&alone, began + 11 * LONG + LONG / 2), []);
        assert_eq!(used.due(&alone, began + 12 * LONG), [room()]);
    }

    #[test]
    fn of_those_that_live_one_deletes_and_the_next_when_that_one_is_dead() {
        let began = Instant::now();
        let names = ["a", "b", "c"];
        let first = placement::first(&names.map(name), &room()).unwrap().as_str().to_owned();
        let next = names.map(name).into_iter().filter(|name| name.as_str() != first).collect::<Vec<_>>();
        let next = placement::first(&next, &room()).unwrap().as_str().to_owned();
        for me in names {
            let states = |dead: NodeState| {
                let others = names.into_iter().filter(|name| *name != me);
                let state = |name: &str| if name == first { dead } else { Alive };
                std::iter::once(me).chain(others).map(|name| (name, state(name))).collect::<Vec<_>>()
            };
            let due = |dead| vigil(&on(&[]), began).due(&seen(&states(dead)), began + LONG).len();
            assert_eq!(
                (due(Alive), due(Suspect)),
                (usize::from(me == first), usize::from(me == first)),
                "{me}"
            );
            if me != first {
                assert_eq!(
                    (due(Down), due(Left)),
                    (usize::from(me == next), usize::from(me == next)),
                    "{me}"
                );
            }
        }
    }

    #[test]
    fn who_was_lost_with_a_node_is_waited_for() {
        let began = Instant::now();
        let nodes = |state| seen(&[("a", Alive), ("b", state)]);
        let a_is_first = |vigil: &mut Vigil, state, at| vigil.due(&nodes(state), at);
        for back in [Alive, Left] {
            let mut vigil = vigil(&on(&["b"]), began);
            vigil.see(&room(), &on(&[]), began);
            // The link is gone a moment before its node is held for dead.
            assert_eq!(a_is_first(&mut vigil, Alive, began), []);
            assert_eq!(a_is_first(&mut vigil, Suspect, began + Duration::from_secs(1)), []);
            assert_eq!(a_is_first(&mut vigil, Down, began + 100 * LONG), []);
            // From then on it has to be empty for as long again.
            assert_eq!(a_is_first(&mut vigil, back, began + 100 * LONG), []);
            assert_eq!(a_is_first(&mut vigil, back, began + 101 * LONG).len(), usize::from(is_first(back)));
        }
        // Who left, and whose node died later, is not.
        let mut vigil = vigil(&on(&["b"]), began);
        vigil.see(&room(), &on(&[]), began);
        assert_eq!(a_is_first(&mut vigil, Alive, began + Duration::from_secs(1)), []);
        assert_eq!(a_is_first(&mut vigil, Down, began + LONG), [room()]);
        // Nor who is here again.
        vigil.see(&room(), &on(&["b"]), began + LONG);
        vigil.see(&room(), &on(&[]), began + LONG);
        assert_eq!(a_is_first(&mut vigil, Down, began + LONG), []);
        vigil.see(&room(), &on(&["a"]), began + 2 * LONG);
        vigil.see(&room(), &on(&[]), began + 2 * LONG);
        assert_eq!(a_is_first(&mut vigil, Down, began + 3 * LONG), [room()]);
    }

    /// Whether `a` is first while `b` is in this state.
    fn is_first(b: NodeState) -> bool {
        b != Alive || placement::first(&[name("a"), name("b")], &room()) == Some(&name("a"))
    }

    #[test]
    fn who_sees_few_of_the_nodes_deletes_nothing() {
        let (began, mut vigil) = (Instant::now(), vigil(&on(&[]), Instant::now()));
        let cut_off = seen(&[("a", Alive), ("b", Down), ("c", Down)]);
        assert_eq!(vigil.due(&cut_off, began + 2 * LONG), []);
        let alone = seen(&[("a", Alive), ("b", Left), ("c", Left)]);
        assert_eq!(vigil.due(&alone, began + 2 * LONG), [room()]);
    }
}
