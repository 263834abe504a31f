//! Rooms, as the other crates ask for them. Any node makes and changes any room; what was asked is kept when its
//! ticket says so, like a sample.
//!
//! A temporary room is one by its flag alone here. Who is in it is for presence to know, which lasts no longer than
//! its nodes do; `cluster::expiry` calls [`Store::delete_room`] when it has been empty for long.

use crate::feed::Event;
use crate::group::Ticket;
use crate::handle::{Page, SensorView, Store};
use crate::model::ids::{NodeName, PersonId, RoomId, SensorId};
use crate::model::room::{JoinCode, drawn};
use crate::registry::Operation;
use crate::registry::request::{Asked, MemberWish, NewRoom, RoomError};
use crate::registry::room::RoomOperation;
use crate::registry::rooms::{RoomView, Rooms};

/// Codes that are drawn for one room at most: of 2^40, and at most one in fifty million is taken.
const DRAWS: usize = 16;

/// While it lives, its node is linked and does not know rooms: none is made or changed.
pub(crate) struct OlderNode {
    store: Store,
    name: NodeName,
}

impl Drop for OlderNode {
    fn drop(&mut self) {
        let mut older = self.store.older().lock();
        if let Some(at) = older.iter().position(|name| *name == self.name) {
            older.swap_remove(at);
        }
    }
}

/// A code that opens no room yet.
fn draw(rooms: &Rooms) -> JoinCode {
    let codes = std::iter::repeat_with(|| JoinCode::of(rand::random()));
    let mut free = codes.take(DRAWS).filter(|code| rooms.by_code(*code).is_none());
    // Were all of them taken, the room would have no code until it is renewed.
    free.next().unwrap_or_else(|| JoinCode::of(rand::random()))
}

impl Store {
    /// Makes a room, under an id and a join code of its own.
    pub fn create_room(&self, wish: NewRoom) -> Result<(RoomView, Ticket), RoomError> {
        let room = drawn(rand::random());
        let ticket =
            self.change_rooms(&room, |rooms, asked| rooms.create(&room, draw(rooms), wish, asked))?;
        let view = self.room(room.as_str()).ok_or_else(|| RoomError::Unknown(room.to_string()))?;
        Ok((view, ticket))
    }

    /// Gives a room another name.
    pub fn rename_room(&self, room: &RoomId, name: String) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.rename(room, name, asked))
    }

    /// Gives a room another join code; the one before opens nothing any more.
    pub fn renew_join_code(&self, room: &RoomId) -> Result<(JoinCode, Ticket), RoomError> {
        let mut code = None;
        let ticket =
            self.change_rooms(room, |rooms, asked| rooms.renew(room, *code.insert(draw(rooms)), asked))?;
        let code = code.ok_or_else(|| RoomError::Unknown(room.to_string()))?;
        Ok((code, ticket))
    }

    /// Deletes a room, for good.
    pub fn delete_room(&self, room: &RoomId) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.remove(room, asked))
    }

    /// Adds a sensor to a room, which need not exist yet.
    pub fn add_sensor(&self, room: &RoomId, sensor: &SensorId) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.add_sensor(room, sensor.clone(), asked))
    }

    /// Removes a sensor from a room, if it is in it.
    pub fn remove_sensor(&self, room: &RoomId, sensor: &SensorId) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.remove_sensor(room, sensor.clone(), asked))
    }

    /// Makes somebody a member of a room, or changes what is said of them.
    pub fn put_member(&self, room: &RoomId, who: &PersonId, wish: MemberWish) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.put_member(room, who.clone(), wish, asked))
    }

    /// Somebody is no member of a room any more, if they were.
    pub fn remove_member(&self, room: &RoomId, who: &PersonId) -> Result<Ticket, RoomError> {
        self.change_rooms(room, |rooms, asked| rooms.remove_member(room, who.clone(), asked))
    }

    /// One room.
    pub fn room(&self, room: &str) -> Option<RoomView> {
        self.memory().rooms.read().view(room)
    }

    /// All rooms, by id.
    pub fn rooms(&self) -> Vec<RoomView> {
        let rooms = self.memory().rooms.read();
        rooms.ids().filter_map(|room| rooms.view(room.as_str())).collect()
    }

    /// How many rooms there are.
    pub fn count_rooms(&self) -> usize {
        self.memory().rooms.read().count()
    }

    /// Whether there is such a room.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.memory().rooms.read().get(room.as_str()).is_some()
    }

    /// Whether there is such a room, and it goes when it is empty.
    pub(crate) fn is_temporary(&self, room: &RoomId) -> bool {
        let rooms = self.memory().rooms.read();
        rooms.get(room.as_str()).is_some_and(|room| room.temporary.val == Some(true))
    }

    /// The rooms that go when they are empty.
    pub(crate) fn temporary_rooms(&self) -> Vec<RoomId> {
        let rooms = self.memory().rooms.read();
        let temporary =
            |id: &&RoomId| rooms.get(id.as_str()).is_some_and(|room| room.temporary.val == Some(true));
        rooms.ids().filter(temporary).cloned().collect()
    }

    /// The sensors of a room that are known, by id, and the cursor of the page behind them; `None` when there is no
    /// such room.
    pub fn sensors_of(&self, room: &str, page: &Page) -> Option<(Vec<SensorView>, Option<String>)> {
        let sensors = self.room(room)?.sensors;
        let behind = sensors.iter().map(SensorId::as_str).filter(|id| page.after.as_deref() < Some(*id));
        let mut found: Vec<_> = behind
            .filter_map(|id| self.sensor(id))
            .filter(|view| page.wants(view.sensor.as_str(), view.name.as_deref()))
            .take(page.limit.saturating_add(1))
            .collect();
        let more = found.len() > page.limit;
        found.truncate(page.limit);
        let next = found.last().filter(|_| more).map(|view| view.sensor.as_str().to_owned());
        Some((found, next))
    }

    /// The room that a join code opens.
    pub fn room_by_code(&self, code: JoinCode) -> Option<RoomId> {
        self.memory().rooms.read().by_code(code).cloned()
    }

    /// The rooms that a sensor is in, by id.
    pub fn rooms_of(&self, sensor: &SensorId) -> Vec<RoomId> {
        self.memory().rooms.read().of(sensor).to_vec()
    }

    /// Whether a sensor is in a room.
    pub fn is_in_room(&self, room: &str, sensor: &SensorId) -> bool {
        let rooms = self.memory().rooms.read();
        rooms.get(room).is_some_and(|room| room.sensors.contains(sensor).val)
    }

    /// Judges what is asked and carries it out, under one lock: the operations of an origin go into memory and into
    /// the log in the order in which they were made.
    fn change_rooms(
        &self,
        room: &RoomId,
        judge: impl FnOnce(&Rooms, Asked) -> Result<Vec<RoomOperation>, RoomError>,
    ) -> Result<Ticket, RoomError> {
        if let Some(older) = self.older().lock().first() {
            return Err(RoomError::OlderNode(older.to_string()));
        }
        let mut rooms = self.memory().rooms.write();
        let asked = Asked { origin: self.node().origin, stamp: self.stamp() };
        let operations = judge(&rooms, asked)?;
        let mut moved = Vec::new();
        operations.iter().cloned().for_each(|operation| {
            rooms.apply_noting(operation, &mut moved);
        });
        let ticket = self.shared().group.operate(operations.into_iter().map(Operation::Room));
        drop(rooms);
        self.memory().moved(&moved);
        self.memory().feed.tell(&Event::Room(room.clone()));
        Ok(ticket)
    }

    /// Whether a node that knows neither rooms nor retained messages would meet some.
    pub(crate) fn has_rooms(&self) -> bool {
        !self.memory().rooms.read().is_untouched() || !self.memory().retained.read().is_untouched()
    }

    /// A node that does not know rooms is linked, as long as this lives.
    pub(crate) fn meet_older(&self, name: &NodeName) -> OlderNode {
        self.older().lock().push(name.clone());
        OlderNode { store: self.clone(), name: name.clone() }
    }
}
