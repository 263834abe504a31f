//! Who is in which room. People enter on the node that they are connected to; every node answers for all of them.
//!
//! Invariant: a person is in a room once, through however many connections and nodes. Whichever entered last says what
//! they are called and gets what is sent to them; when it goes, the one before it does again. So a page that was moved
//! to another node is there at once, while its old connection may still be counted at a node that hangs.
//!
//! Bounds: [`passing::PEOPLE`](crate::passing::PEOPLE) of each node; one more is refused. [`SIGNAL_BYTES`] of a
//! signal, and [`SIGNALS`](crate::feed::SIGNALS) that wait for one connection; one more is refused.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::feed::{Queue, Subscription};
use crate::handle::Store;
use crate::model::ids::{NodeId, NodeName, PersonId, RoomId};
use crate::model::time::SampleTime;
use crate::passing::{PEOPLE, Place};
use crate::replica::message::Message;

/// Longest signal, in bytes.
pub const SIGNAL_BYTES: usize = 32 << 10;

/// What a node says of somebody who is in a room there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// For people.
    pub name: String,
    /// Since when they are in the room.
    pub since: SampleTime,
    /// Whether they take part in its call.
    pub call: bool,
    /// When they entered through that node: the last says what holds.
    pub entered: Stamp,
}

/// Somebody who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub id: PersonId,
    /// For people.
    pub name: String,
    /// The node that they are connected to.
    pub node: NodeName,
    /// Since when.
    pub since: SampleTime,
    /// Whether they take part in the room's call.
    pub call: bool,
}

/// What somebody in a room sends to somebody else there, to set up a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Where both are.
    pub room: RoomId,
    /// Who sends it.
    pub from: PersonId,
    /// Whom it is for.
    pub to: PersonId,
    /// What it says: JSON.
    pub data: String,
}

/// Who is in which room, as it was worked out last: everybody in a room asks whenever somebody comes or goes.
#[derive(Debug, Default)]
pub(crate) struct Rosters(HashMap<RoomId, Arc<[Present]>>);

impl Rosters {
    /// Somebody came to these places, or went.
    pub(crate) fn changed<'a>(&mut self, places: impl IntoIterator<Item = &'a Place>) {
        places.into_iter().for_each(|(room, _)| drop(self.0.remove(room)));
    }
}

/// No one more can be in rooms through this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{PEOPLE} people are in rooms through this node already")]
pub struct Crowded;

/// Why a signal is not on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Nobody of that name is in the room.
    #[error("they are not in the room")]
    NotPresent,
    /// So many wait for them that one more finds no room.
    #[error("too many signals wait for them")]
    Busy,
    /// It is longer than a signal may be.
    #[error("a signal of {0} bytes; expected at most {SIGNAL_BYTES}")]
    TooLong(usize),
}

/// Somebody's connections here that are in one room, the last to enter last.
#[derive(Debug, Default)]
pub(crate) struct Sessions(HashMap<Place, Vec<Session>>);

#[derive(Debug)]
struct Session {
    person: Person,
    queue: Arc<Queue>,
}

impl Sessions {
    /// The connection that signals go to.
    fn owner(&self, place: &Place) -> Option<&Arc<Queue>> {
        self.0.get(place).and_then(|sessions| sessions.last()).map(|session| &session.queue)
    }
}

/// While it lives, somebody is in a room through this node.
#[must_use = "dropping it leaves the room"]
pub struct Stay {
    store: Store,
    place: Place,
    entered: Stamp,
}

impl Stay {
    /// Who.
    pub fn id(&self) -> &PersonId {
        &self.place.1
    }
}

impl std::fmt::Debug for Stay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stay({} in {})", self.place.1, self.place.0)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut here = self.store.here();
        let Some(sessions) = here.sessions.0.get_mut(&self.place) else { return };
        sessions.retain(|session| session.person.entered != self.entered);
        let person = sessions.last().map(|session| session.person.clone());
        if person.is_none() {
            here.sessions.0.remove(&self.place);
        }
        // There is room: at most it is removed.
        here.passing.people.say(&self.place, person);
        here.rosters.changed([&self.place]);
        drop(here);
        self.store.tell_people([&self.place]);
    }
}

impl Store {
    /// Lets somebody into a room, as long as the answer lives. Signals for them go to `subscription`, whose other
    /// followed rooms and series have nothing to do with it. To enter again, or elsewhere, is to be there once.
    pub fn enter(
        &self,
        subscription: &Subscription,
        room: &RoomId,
        id: &PersonId,
        name: &str,
        call: bool,
    ) -> Result<Stay, Crowded> {
        let place = (room.clone(), id.clone());
        let mut here = self.here();
        let entered = self.stamp();
        // Somebody who moves here has been there all the while.
        let before = here.passing.people.of(&place).iter().map(|(_, person)| person.since).min();
        let since = before.unwrap_or_else(SampleTime::now);
        let person = Person { name: name.to_owned(), since, call, entered };
        if !here.passing.people.say(&place, Some(person.clone())) {
            return Err(Crowded);
        }
        here.rosters.changed([&place]);
        let session = Session { person, queue: subscription.queue().clone() };
        here.sessions.0.entry(place.clone()).or_default().push(session);
        drop(here);
        self.tell_people([&place]);
        Ok(Stay { store: self.clone(), place, entered })
    }

    /// Who is in a room, by id. As long as nobody comes or goes, everyone gets the same list.
    pub fn people(&self, room: &RoomId) -> Arc<[Present]> {
        let mut here = self.here();
        if let Some(roster) = here.rosters.0.get(room) {
            return roster.clone();
        }
        // No id comes before the shortest that there may be.
        let Ok(first) = PersonId::new("0") else { return Arc::default() };
        let all = here.passing.people.range((room.clone(), first)..);
        let of_room = all.take_while(|((of, _), _)| of == room);
        let present = of_room.filter_map(|((_, id), said)| {
            let (node, person) = owner(said)?;
            Some(Present {
                id: id.clone(),
                name: person.name.clone(),
                node: self.called(*node),
                since: person.since,
                call: person.call,
            })
        });
        let roster: Arc<[Present]> = present.collect();
        if !roster.is_empty() {
            here.rosters.0.insert(room.clone(), roster.clone());
        }
        roster
    }

    /// Sends something from somebody who is in a room to somebody else there, on whichever node they are. It is on its
    /// way then; should their node die, it is lost.
    pub fn signal(&self, from: &Stay, to: &PersonId, data: String) -> Result<(), NotSent> {
        if data.len() > SIGNAL_BYTES {
            return Err(NotSent::TooLong(data.len()));
        }
        let (room, from) = from.place.clone();
        let signal = Signal { room, from, to: to.clone(), data };
        let place = (signal.room.clone(), signal.to.clone());
        let here = self.here();
        let (node, _) = owner(here.passing.people.of(&place)).ok_or(NotSent::NotPresent)?;
        if *node == self.node().id {
            let queue = here.sessions.owner(&place).ok_or(NotSent::NotPresent)?;
            return if queue.signal(&Arc::new(signal)) { Ok(()) } else { Err(NotSent::Busy) };
        }
        let outbox = self.shared().post.outbox(*node).ok_or(NotSent::NotPresent)?;
        drop(here);
        if outbox.offer(Message::Signal(signal)) { Ok(()) } else { Err(NotSent::Busy) }
    }

    /// Hands over a signal that came from another node. Who has left since does not get it.
    pub(crate) fn hear_signal(&self, signal: Signal) {
        let here = self.here();
        let queue = here.sessions.owner(&(signal.room.clone(), signal.to.clone()));
        if !queue.is_some_and(|queue| queue.signal(&Arc::new(signal))) {
            tracing::debug!("a signal came for somebody who left or does not read");
        }
    }
}

/// Through which node somebody is there, of all that say so: where they entered last.
fn owner(said: &[(NodeId, Person)]) -> Option<&(NodeId, Person)> {
    said.iter().max_by_key(|(node, person)| (person.entered, *node))
}
