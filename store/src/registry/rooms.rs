//! All rooms, by id and by the code that opens them.
//!
//! A room that was deleted stays deleted, whatever comes late from those who had not heard of it: its id and the stamp
//! are remembered. Of two rooms that ask for one code it opens that which drew it first; the other has none until
//! it draws another. Both follow from what is held alone, not from the order in which it came.
//!
//! Bounds: [`MAX_DELETED`] deleted rooms are remembered, those deleted last. Of what is asked for: see `request`.

use std::collections::{BTreeMap, BTreeSet};

use super::Operation;
use super::room::{Change, Room, RoomOperation};
use crate::clock::Stamp;
use crate::codec::seal;
use crate::model::ids::{PersonId, RoomId, SensorId};
use crate::model::room::{JoinCode, Role};

/// Deleted rooms that are remembered. One that was deleted before so many others could come back, with a node that has
/// been away all the while.
pub const MAX_DELETED: usize = 100_000;

/// Somebody in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub member: PersonId,
    /// For people.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// What there is to say of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// Its id.
    pub room: RoomId,
    /// For people.
    pub name: String,
    /// What opens it; `None` when another room drew the same code first, until it is renewed.
    pub join_code: Option<JoinCode>,
    /// It goes when it is empty.
    pub temporary: bool,
    /// What is measured in it, by id.
    pub sensors: Vec<SensorId>,
    /// Who belongs to it, by id.
    pub members: Vec<MemberView>,
}

/// Every room.
#[derive(Debug, Clone, Default)]
pub struct Rooms {
    held: BTreeMap<RoomId, Box<Room>>,
    deleted: BTreeMap<RoomId, Stamp>,
    by_deletion: BTreeSet<(Stamp, RoomId)>,
    /// The rooms that ask for a code, since when; the first has it.
    codes: BTreeMap<JoinCode, Vec<(Stamp, RoomId)>>,
    /// The rooms that a sensor is in, by id. It follows from `held`.
    by_sensor: BTreeMap<SensorId, Vec<RoomId>>,
    /// Those of which the disk lacks something.
    unsaved: BTreeSet<RoomId>,
    /// Forgets at once what was deleted: a rule that the simulation breaks on purpose.
    #[cfg(feature = "sim")]
    pub forgetful: bool,
}

impl Rooms {
    /// How many there are.
    pub fn count(&self) -> usize {
        // Each that is there asks for one code.
        self.codes.values().map(Vec::len).sum()
    }

    /// Whether nothing was ever said of any room.
    pub fn is_untouched(&self) -> bool {
        self.held.is_empty() && self.deleted.is_empty()
    }

    /// A room that is there.
    pub fn get(&self, room: &str) -> Option<&Room> {
        self.held.get(room).map(|held| &**held).filter(|room| room.is_there())
    }

    /// The room that a code opens.
    pub fn by_code(&self, code: JoinCode) -> Option<&RoomId> {
        self.codes.get(&code)?.first().map(|first| &first.1)
    }

    /// The rooms that are there.
    pub fn ids(&self) -> impl Iterator<Item = &RoomId> {
        self.held.iter().filter(|(_, room)| room.is_there()).map(|(id, _)| id)
    }

    /// The rooms that a sensor is in, by id.
    pub fn of(&self, sensor: &SensorId) -> &[RoomId] {
        self.by_sensor.get(sensor).map_or(&[], Vec::as_slice)
    }

    /// What there is to say of a room.
    pub fn view(&self, room: &str) -> Option<RoomView> {
        let (id, room) = self.held.get_key_value(room).filter(|(_, room)| room.is_there())?;
        let mut sensors: Vec<_> = room.sensors.read().val.into_iter().collect();
        sensors.sort_unstable();
        let member = |member: PersonId| {
            let said = room.people.get(&member);
            let name = said.and_then(|said| said.name.val.clone()).filter(|name| !name.is_empty());
            MemberView {
                name: name.unwrap_or_else(|| member.as_str().to_owned()),
                role: said.and_then(|said| said.role.val).unwrap_or_default(),
                member,
            }
        };
        let mut members: Vec<_> = room.members.read().val.into_iter().map(member).collect();
        members.sort_unstable_by(|a, b| a.member.cmp(&b.member));
        let holds = |code: &JoinCode| self.by_code(*code) == Some(id);
        Some(RoomView {
            room: id.clone(),
            name: room.name.val.clone().unwrap_or_default(),
            join_code: room.code.val.filter(holds),
            temporary: room.temporary.val.unwrap_or(false),
            sensors,
            members,
        })
    }

    /// Applies an operation, of this node or of another. False when it is of a room that is gone.
    #[cfg(any(test, feature = "sim"))]
    pub fn apply(&mut self, operation: RoomOperation) -> bool {
        self.apply_noting(operation, &mut Vec::new())
    }

    /// Applies an operation, of this node or of another, and notes the sensors that are in other rooms than before. False
    /// when it is of a room that is gone.
    pub fn apply_noting(&mut self, operation: RoomOperation, moved: &mut Vec<SensorId>) -> bool {
        let RoomOperation { room: id, stamp, change } = operation;
        if change == Change::Delete {
            return self.delete(&id, stamp, moved);
        }
        if self.deleted.contains_key(&id) {
            return false;
        }
        let room = self.held.entry(id.clone()).or_default();
        let before = room.asks();
        let mut touched = room.touches(&change);
        let was_there = room.is_there();
        room.apply(change, stamp);
        let after = room.asks();
        if room.is_there() && !was_there {
            // What others said of it before it was made counts from here on.
            touched = room.sensors.read().val.into_iter().collect();
        }
        for sensor in touched {
            let is_in = room.is_there() && room.sensors.contains(&sensor).val;
            file(&mut self.by_sensor, sensor, &id, is_in, moved);
        }
        if before != after {
            self.reindex(&id, before, after);
        }
        self.unsaved.insert(id);
        true
    }

    fn reindex(&mut self, id: &RoomId, before: Option<(JoinCode, Stamp)>, after: Option<(JoinCode, Stamp)>) {
        if let Some((code, stamp)) = before
            && let Some(asking) = self.codes.get_mut(&code)
        {
            asking.retain(|(since, room)| (*since, room) != (stamp, id));
            if asking.is_empty() {
                self.codes.remove(&code);
            }
        }
        if let Some((code, stamp)) = after {
            let asking = self.codes.entry(code).or_default();
            let at = asking.partition_point(|(since, room)| (*since, room) < (stamp, id));
            asking.insert(at, (stamp, id.clone()));
        }
    }

    /// Deleted on both sides, it was deleted at the later stamp.
    fn delete(&mut self, id: &RoomId, stamp: Stamp, moved: &mut Vec<SensorId>) -> bool {
        let held = self.held.remove(id);
        for sensor in held.iter().flat_map(|room| room.sensors.read().val) {
            file(&mut self.by_sensor, sensor, id, false, moved);
        }
        let was_there = held.as_ref().is_some_and(|room| room.is_there());
        self.reindex(id, held.and_then(|room| room.asks()), None);
        if self.forgets() {
            return was_there;
        }
        let before = self.deleted.get(id).copied();
        if before < Some(stamp) {
            before.map(|before| self.by_deletion.remove(&(before, id.clone())));
            self.deleted.insert(id.clone(), stamp);
            self.by_deletion.insert((stamp, id.clone()));
            self.unsaved.insert(id.clone());
        }
        while self.deleted.len() > MAX_DELETED
            && let Some((_, oldest)) = self.by_deletion.pop_first()
        {
            self.deleted.remove(&oldest);
            self.unsaved.insert(oldest);
        }
        was_there
    }

    #[cfg(feature = "sim")]
    fn forgets(&self) -> bool {
        self.forgetful
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "with the feature `sim` it looks")]
    fn forgets(&self) -> bool {
        false
    }

    /// All that is held of a room, or that it is deleted, as a record of the disk; `None` when nothing is known of it.
    pub fn record(&self, room: &RoomId) -> Option<Vec<u8>> {
        let (stamp, change) = match (self.deleted.get(room), self.held.get(room)) {
            (Some(stamp), _) => (*stamp, Change::Delete),
            (None, Some(held)) => (held.newest(), Change::Whole(held.clone())),
            (None, None) => return None,
        };
        let mut record = Vec::new();
        Operation::Room(RoomOperation { room: room.clone(), stamp, change }).encode(&mut record);
        seal(&mut record);
        Some(record)
    }

    /// A room of which the disk lacks something, and its record. It counts as saved.
    pub fn next_unsaved(&mut self) -> Option<(RoomId, Option<Vec<u8>>)> {
        let room = self.unsaved.pop_first()?;
        let record = self.record(&room);
        Some((room, record))
    }

    /// What is held comes from the disk.
    pub fn set_saved(&mut self) {
        self.unsaved.clear();
    }

    /// What is held of rooms behind `after`, as hashes: equal where two nodes hold the same.
    pub fn hashes(&self, after: Option<&RoomId>, limit: usize) -> Vec<(RoomId, u64)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let held = self.held.range::<RoomId, _>(behind).map(|(id, _)| id).take(limit);
        let deleted = self.deleted.range::<RoomId, _>(behind).map(|(id, _)| id).take(limit);
        let mut ids: Vec<_> = held.chain(deleted).collect();
        ids.sort_unstable();
        ids.into_iter().take(limit).filter_map(|id| Some((id.clone(), self.hash(id)?))).collect()
    }

    /// A hash of what is held of a room; `None` when nothing is.
    pub fn hash(&self, room: &RoomId) -> Option<u64> {
        if let Some(stamp) = self.deleted.get(room) {
            return Some(!stamp.time ^ u64::from(stamp.author));
        }
        self.held.get(room).map(|held| held.hash())
    }

    /// Every room of which something is known.
    #[cfg(any(test, feature = "sim"))]
    pub fn known(&self) -> impl Iterator<Item = &RoomId> {
        self.held.keys().chain(self.deleted.keys())
    }

    /// Whether a room is known to be deleted.
    #[cfg(any(test, feature = "sim"))]
    pub fn is_deleted(&self, room: &RoomId) -> bool {
        self.deleted.contains_key(room)
    }
}

/// Files a room under a sensor, or takes it out; notes the sensor when that is new.
fn file(
    by_sensor: &mut BTreeMap<SensorId, Vec<RoomId>>,
    sensor: SensorId,
    room: &RoomId,
    is_in: bool,
    moved: &mut Vec<SensorId>,
) {
    let rooms = by_sensor.entry(sensor.clone()).or_default();
    let changed = match (rooms.binary_search(room), is_in) {
        (Ok(at), false) => {
            rooms.remove(at);
            true
        }
        (Err(at), true) => {
            rooms.insert(at, room.clone());
            true
        }
        _ => false,
    };
    if rooms.is_empty() {
        by_sensor.remove(&sensor);
    }
    if changed {
        moved.push(sensor);
    }
}

/// Two that hold the same answer alike; what the disk lacks is not of them.
impl PartialEq for Rooms {
    fn eq(&self, other: &Self) -> bool {
        (&self.held, &self.deleted, &self.codes) == (&other.held, &other.deleted, &other.codes)
    }
}
