//! What is asked of rooms on this node, judged, and turned into operations.
//!
//! Each operation is stamped above what it is to replace: a node whose clock is behind changes what it sees all the
//! same. What is asked for again is said again: that it is held here does not mean that it is durable anywhere.
//!
//! Bounds: those below, each with its refusal. Two sides of a partition may pass them together; what was taken there is
//! kept.

use crdts::{CmRDT, orswot};

use super::room::{Actor, Change, Room, RoomOperation, Set};
use super::rooms::Rooms;
use crate::clock::Stamp;
use crate::model::ids::{Origin, PersonId, RoomId, SensorId};
use crate::model::room::{JoinCode, Role};

/// Rooms of a cluster.
pub const MAX_ROOMS: usize = 20_000;
/// Sensors of a room.
pub const MAX_ROOM_SENSORS: usize = 1000;
/// Members of a room.
pub const MAX_ROOM_MEMBERS: usize = 1000;
/// People of a room, those who are no longer members too: of these it is remembered that they were.
pub const MAX_ROOM_PEOPLE: usize = 10_000;
/// Characters of a name, of a room or of a member.
pub const MAX_NAME_CHARS: usize = 100;

/// Why a room is not made or changed. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There is none of this id.
    #[error("there is no room {0}")]
    Unknown(String),
    /// It is empty, or all blank.
    #[error("the name of a {0} is blank; expected 1 to {MAX_NAME_CHARS} characters")]
    NameBlank(&'static str),
    /// It is too long.
    #[error("the name of a {what} has {chars} characters; expected at most {MAX_NAME_CHARS}")]
    NameTooLong {
        /// Whose: of a room, or of a member.
        what: &'static str,
        /// How many it has.
        chars: usize,
    },
    /// It has a character that cannot be shown.
    #[error("the name {name:?} of a {what} has a control character")]
    NameControl {
        /// Whose: of a room, or of a member.
        what: &'static str,
        /// As it came.
        name: String,
    },
    /// The cluster is full.
    #[error("there are {0} rooms already, and at most {MAX_ROOMS}; delete one")]
    TooManyRooms(usize),
    /// The room is full.
    #[error("room {room} would have {count} sensors; at most {MAX_ROOM_SENSORS} are possible")]
    TooManySensors {
        /// Which.
        room: RoomId,
        /// With those that were to be added.
        count: usize,
    },
    /// The room is full.
    #[error("room {room} has {MAX_ROOM_MEMBERS} members already; remove one")]
    TooManyMembers {
        /// Which.
        room: RoomId,
    },
    /// The room has known too many.
    #[error("room {room} has had {MAX_ROOM_PEOPLE} different members; make a new one")]
    TooManyPeople {
        /// Which.
        room: RoomId,
    },
    /// There are nodes that would not understand it.
    #[error("node {0} does not know rooms yet: upgrade it first")]
    OlderNode(String),
}

impl RoomError {
    /// The code in error bodies.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_room",
            Self::NameBlank(_) | Self::NameTooLong { .. } | Self::NameControl { .. } => "bad_name",
            Self::TooManyRooms(_) => "too_many_rooms",
            Self::TooManySensors { .. } => "too_many_sensors",
            Self::TooManyMembers { .. } | Self::TooManyPeople { .. } => "too_many_members",
            Self::OlderNode(_) => "older_node",
        }
    }
}

/// A room that is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRoom {
    /// For people.
    pub name: String,
    /// It goes when it is empty.
    pub temporary: bool,
    /// What is measured in it.
    pub sensors: Vec<SensorId>,
}

/// What is said of a member. What is missing stays as it is, or is the id, and [`Role::Member`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberWish {
    /// For people.
    pub name: Option<String>,
    /// What they may do.
    pub role: Option<Role>,
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The author of what follows.
    pub origin: Origin,
    /// A stamp of its clock.
    pub stamp: Stamp,
}

impl Asked {
    fn actor(self) -> Actor {
        self.origin.start
    }

    /// The operation, stamped above `held`.
    fn above(self, held: Stamp, room: &RoomId, change: Change) -> RoomOperation {
        let time = self.stamp.time.max(held.time.saturating_add(1));
        RoomOperation { room: room.clone(), stamp: Stamp { time, ..self.stamp }, change }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), RoomError> {
    let chars = name.chars().count();
    if chars > MAX_NAME_CHARS {
        return Err(RoomError::NameTooLong { what, chars });
    }
    if name.chars().any(char::is_control) {
        return Err(RoomError::NameControl { what, name: name.to_owned() });
    }
    if name.trim().is_empty() { Err(RoomError::NameBlank(what)) } else { Ok(()) }
}

/// The operation that adds these, whoever else removes them at once.
fn add<T>(set: &Set<T>, members: Vec<T>, actor: Actor) -> orswot::Op<T, Actor>
where
    T: Clone + Eq + std::hash::Hash + std::fmt::Debug,
{
    let operation = set.add_all(members, set.read_ctx().derive_add_ctx(actor));
    debug_assert!(set.validate_op(&operation).is_ok());
    operation
}

/// The operation that removes what is held of this one; when nothing is, whatever may have been.
fn remove<T>(set: &Set<T>, member: T) -> orswot::Op<T, Actor>
where
    T: Clone + Eq + std::hash::Hash + std::fmt::Debug,
{
    let held = set.contains(&member);
    let context = if held.val { held.derive_rm_ctx() } else { set.read_ctx().derive_rm_ctx() };
    set.rm(member, context)
}

impl Rooms {
    fn there(&self, room: &RoomId) -> Result<&Room, RoomError> {
        self.get(room.as_str()).ok_or_else(|| RoomError::Unknown(room.to_string()))
    }

    /// Makes a room.
    pub fn create(
        &self,
        room: &RoomId,
        code: JoinCode,
        wish: NewRoom,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let NewRoom { name, temporary, sensors } = wish;
        check_name("room", &name)?;
        if self.count() >= MAX_ROOMS {
            return Err(RoomError::TooManyRooms(self.count()));
        }
        if sensors.len() > MAX_ROOM_SENSORS {
            return Err(RoomError::TooManySensors { room: room.clone(), count: sensors.len() });
        }
        let none = Room::default();
        let mut operations = vec![asked.above(none.newest(), room, Change::Create { name, code, temporary })];
        if !sensors.is_empty() {
            let added = Change::Sensors(add(&none.sensors, sensors, asked.actor()));
            operations.push(asked.above(none.newest(), room, added));
        }
        Ok(operations)
    }

    /// What is done to a room that another origin made, behind what made it: a change that is on two nodes is then not
    /// lost with the one node that has the room.
    fn with_room(
        room: &RoomId,
        held: &Room,
        asked: Asked,
        mut changes: Vec<RoomOperation>,
    ) -> Vec<RoomOperation> {
        if held.temporary.marker.author != asked.stamp.author {
            let made = held.made();
            let (stamp, change) = (made.newest(), Change::Whole(Box::new(made)));
            changes.insert(0, RoomOperation { room: room.clone(), stamp, change });
        }
        changes
    }

    /// Gives a room another name.
    pub fn rename(&self, room: &RoomId, name: String, asked: Asked) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        check_name("room", &name)?;
        Ok(Self::with_room(
            room,
            held,
            asked,
            vec![asked.above(held.name.marker, room, Change::Rename(name))],
        ))
    }

    /// Gives a room another code.
    pub fn renew(
        &self,
        room: &RoomId,
        code: JoinCode,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        Ok(Self::with_room(room, held, asked, vec![asked.above(held.code.marker, room, Change::Renew(code))]))
    }

    /// Deletes a room.
    pub fn remove(&self, room: &RoomId, asked: Asked) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        Ok(vec![asked.above(held.newest(), room, Change::Delete)])
    }

    /// Adds a sensor, which need not exist.
    pub fn add_sensor(
        &self,
        room: &RoomId,
        sensor: SensorId,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        let count = held.sensors.read().val.len() + 1;
        if count > MAX_ROOM_SENSORS && !held.sensors.contains(&sensor).val {
            return Err(RoomError::TooManySensors { room: room.clone(), count });
        }
        let added = Change::Sensors(add(&held.sensors, vec![sensor], asked.actor()));
        Ok(Self::with_room(room, held, asked, vec![asked.above(asked.stamp, room, added)]))
    }

    /// Removes a sensor.
    pub fn remove_sensor(
        &self,
        room: &RoomId,
        sensor: SensorId,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        let removed = Change::Sensors(remove(&held.sensors, sensor));
        Ok(Self::with_room(room, held, asked, vec![asked.above(asked.stamp, room, removed)]))
    }

    /// Puts somebody in, or changes what is said of them: only what differs, or all when nothing does.
    pub fn put_member(
        &self,
        room: &RoomId,
        member: PersonId,
        wish: MemberWish,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        if let Some(name) = &wish.name {
            check_name("member", name)?;
        }
        let is_in = held.members.contains(&member).val;
        if !is_in && held.members.read().val.len() >= MAX_ROOM_MEMBERS {
            return Err(RoomError::TooManyMembers { room: room.clone() });
        }
        let said = held.people.get(&member).cloned();
        if said.is_none() && held.people.len() >= MAX_ROOM_PEOPLE {
            return Err(RoomError::TooManyPeople { room: room.clone() });
        }
        let said = said.unwrap_or_default();
        let (mut name, mut role) = (wish.name, wish.role);
        let mut operations = Vec::new();
        if is_in {
            let same = |name: &Option<String>, role: Option<Role>| {
                (name.is_none() || *name == said.name.val, role.is_none() || role == said.role.val)
            };
            let (same_name, same_role) = same(&name, role);
            if !(same_name && same_role) {
                name = name.filter(|_| !same_name);
                role = role.filter(|_| !same_role);
            }
        } else {
            let added = Change::Members(add(&held.members, vec![member.clone()], asked.actor()));
            operations.push(asked.above(asked.stamp, room, added));
            name.get_or_insert_with(|| member.as_str().to_owned());
            role.get_or_insert_default();
        }
        if name.is_none() && role.is_none() {
            // Nothing was asked for but that they are in.
            role = Some(said.role.val.unwrap_or_default());
        }
        if let Some(name) = name {
            let change = Change::MemberName(member.clone(), name);
            operations.push(asked.above(said.name.marker, room, change));
        }
        if let Some(role) = role {
            operations.push(asked.above(said.role.marker, room, Change::MemberRole(member, role)));
        }
        Ok(Self::with_room(room, held, asked, operations))
    }

    /// Removes somebody, and their name.
    pub fn remove_member(
        &self,
        room: &RoomId,
        member: PersonId,
        asked: Asked,
    ) -> Result<Vec<RoomOperation>, RoomError> {
        let held = self.there(room)?;
        let removed = Change::Members(remove(&held.members, member.clone()));
        let mut operations = vec![asked.above(asked.stamp, room, removed)];
        if let Some(said) = held.people.get(&member) {
            operations.push(asked.above(said.name.marker, room, Change::MemberName(member, String::new())));
        }
        Ok(Self::with_room(room, held, asked, operations))
    }
}
