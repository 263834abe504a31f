//! A viewer among others: the rooms that it has entered, whom it was told of in them, and signals between them.
//!
//! The store says that somebody came or went; what a viewer is told is the difference to what it was told last, so it
//! loses nothing however late it reads.
//!
//! Bounds: [`MAX_ROOMS`] rooms of a connection; for one more it is told `too_many_rooms`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use store::{NotSent, PersonId, Present, RoomId, Signal, Stay, Store, Subscription};

use super::message::{Enter, Refused};
use crate::rooms;

/// Rooms that a connection may be in.
const MAX_ROOMS: usize = 16;

/// The rooms that a viewer is in.
#[derive(Debug, Default)]
pub(super) struct Company(HashMap<RoomId, Visit>);

#[derive(Debug)]
struct Visit {
    stay: Stay,
    /// By id.
    told: Arc<[Present]>,
}

fn refused(code: &'static str, message: String) -> Refused {
    Refused { code, message, id: None }
}

impl Company {
    /// Enters a room, or says something else of oneself in one that one is in.
    pub(super) fn enter(
        &mut self,
        store: &Store,
        subscription: &mut Subscription,
        enter: &Enter,
    ) -> Result<(), Refused> {
        let Enter { room, id, name, call } = enter;
        if !store.has_room(room) {
            return Err(refused("unknown_room", format!("there is no room {:?}", room.as_str())));
        }
        if !self.0.contains_key(room) && self.0.len() >= MAX_ROOMS {
            let message = format!("{MAX_ROOMS} rooms are entered already; leave one first");
            return Err(refused("too_many_rooms", message));
        }
        // First, so that it is told of itself.
        subscription.follow_room(room, true);
        match (store.enter(subscription, room, id, name, *call), self.0.get_mut(room)) {
            (Ok(stay), Some(visit)) => visit.stay = stay,
            (Ok(stay), None) => {
                self.0.insert(room.clone(), Visit { stay, told: Arc::default() });
            }
            (Err(crowded), visit) => {
                subscription.follow_room(room, visit.is_some());
                return Err(refused("too_many_people", crowded.to_string()));
            }
        }
        Ok(())
    }

    /// Leaves a room.
    pub(super) fn leave(&mut self, subscription: &mut Subscription, room: &RoomId) -> Result<(), Refused> {
        subscription.follow_room(room, false);
        self.0.remove(room).map(drop).ok_or_else(|| not_in(room))
    }

    /// Whether the viewer is in a room.
    pub(super) fn is_in(&self, room: &RoomId) -> bool {
        self.0.contains_key(room)
    }

    /// A room is gone: everybody has left it. Gives the message that says so, when the viewer was in it.
    pub(super) fn gone(&mut self, subscription: &mut Subscription, room: &RoomId) -> Option<String> {
        let Visit { stay, told } = self.0.remove(room)?;
        subscription.follow_room(room, false);
        drop(stay);
        let left: Vec<_> = told.iter().map(rooms::person).collect();
        Some(presence(room, &[], &left))
    }

    /// Sends something to somebody in a room that both are in.
    pub(super) fn signal(
        &self,
        store: &Store,
        room: &RoomId,
        to: &PersonId,
        data: &Value,
    ) -> Result<(), Refused> {
        let visit = self.0.get(room).ok_or_else(|| not_in(room))?;
        store.signal(&visit.stay, to, data.to_string()).map_err(|error| {
            let code = match error {
                NotSent::NotPresent => "not_present",
                NotSent::Busy => "busy",
                NotSent::TooLong(_) => "signal_too_large",
            };
            refused(code, format!("signal to {:?} in room {:?}: {error}", to.as_str(), room.as_str()))
        })
    }

    /// Who came to a room and who left since the viewer was told last, as a message; `None` when nobody did.
    pub(super) fn news(&mut self, store: &Store, room: &RoomId) -> Option<String> {
        let told = &mut self.0.get_mut(room)?.told;
        let now = store.people(room);
        let was = std::mem::replace(told, now.clone());
        if Arc::ptr_eq(&was, &now) {
            return None;
        }
        let joined = now.iter().filter(|person| find(&was, &person.id) != Some(person));
        let left = was.iter().filter(|person| find(&now, &person.id).is_none());
        let (joined, left): (Vec<_>, Vec<_>) =
            (joined.map(rooms::person).collect(), left.map(rooms::person).collect());
        if joined.is_empty() && left.is_empty() {
            return None;
        }
        Some(presence(room, &joined, &left))
    }
}

fn find<'a>(people: &'a [Present], id: &PersonId) -> Option<&'a Present> {
    people.binary_search_by(|person| person.id.cmp(id)).ok().map(|at| &people[at])
}

fn presence(room: &RoomId, joined: &[Value], left: &[Value]) -> String {
    json!({ "type": "presence", "room": room.as_str(), "joined": joined, "left": left }).to_string()
}

/// A signal as the one whom it is for gets it.
pub(super) fn signal(signal: &Signal) -> String {
    // It was JSON when it was taken.
    let data: Value = serde_json::from_str(&signal.data).unwrap_or_default();
    let (room, from) = (signal.room.as_str(), signal.from.as_str());
    json!({ "type": "signal", "room": room, "from": from, "data": data }).to_string()
}

fn not_in(room: &RoomId) -> Refused {
    refused("not_present", format!("you have not entered room {:?}", room.as_str()))
}
