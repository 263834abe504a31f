//! One room: its name and code, its sensors, its people. A lattice of `crdts` types; operations come in the order of
//! their origin, whole rooms at any time.
//!
//! | at once on two sides | afterwards |
//! |---|---|
//! | a sensor added, and removed | it is in: an addition that the removal has not seen stays (`Orswot`) |
//! | two names | the later one (`LWWReg`, marked with the stamp) |
//! | two new codes | the later one; that before both, and the earlier, are void |
//! | somebody's name or role changed, and they removed | they are out: only who was out is put in by an addition |
//! | somebody put in, and removed | they are in |
//! | somebody's name, and their role | both |
//! | anything, and the room deleted | it is deleted (`rooms`) |
//!
//! Additions are numbered by origin and room. One that leaves a number out is not applied (`validate_op`): it would hide
//! those before it for ever. It comes again behind them, since blocks that are not counted as held are sent again.
//! What was applied before changes nothing. So nothing that is skipped or repeated does harm.

use std::collections::BTreeMap;

use crdts::{CmRDT, CvRDT, Orswot, orswot};
use serde::{Deserialize, Serialize};

use super::{Register, join, unset, write};
use crate::clock::Stamp;
use crate::codec::{Malformed, Reader};
use crate::model::ids::{PersonId, RoomId, SensorId};
use crate::model::room::{JoinCode, Role};

/// Who adds to a set: an origin, by the 64 bits that it drew at its start. Who never adds is in no set.
pub type Actor = u64;
/// A set that is changed on several nodes: what is added while it is removed elsewhere stays.
pub type Set<T> = Orswot<T, Actor>;

/// A change of one room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomOperation {
    /// Which.
    pub room: RoomId,
    /// When it was written.
    pub stamp: Stamp,
    /// What is changed.
    pub change: Change,
}

/// What can be changed of a room. On the wire and on disk, where `postcard` numbers the kinds by their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// What is said of it is joined: all that is held, in records of the disk, or what made it, before a change of another
    /// origin.
    Whole(Box<Room>),
    /// It is made. Anything else may come before, from another origin.
    Create {
        /// For people.
        name: String,
        /// What opens it.
        code: JoinCode,
        /// It goes when it is empty.
        temporary: bool,
    },
    /// It has another name.
    Rename(String),
    /// Another code opens it.
    Renew(JoinCode),
    /// It is gone for good.
    Delete,
    /// Sensors are added or removed.
    Sensors(orswot::Op<SensorId, Actor>),
    /// People are added or removed.
    Members(orswot::Op<PersonId, Actor>),
    /// Somebody has this name.
    MemberName(PersonId, String),
    /// Somebody has this role.
    MemberRole(PersonId, Role),
}

impl RoomOperation {
    /// Appends the operation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bytes = postcard::to_stdvec(self);
        out.extend(bytes.expect("a vector grows, and every length is known before its content"));
    }

    /// Reads an operation back.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let decoded = postcard::take_from_bytes(reader.0);
        let (operation, rest) = decoded.map_err(|_| reader.malformed("an operation on a room"))?;
        reader.0 = rest;
        Ok(operation)
    }
}

/// What is said of somebody. It stays when they are removed, without the name: who is put in again says it anew, and
/// nothing that comes late from before may count then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Empty once they were removed.
    pub name: Register<String>,
    /// What they are in the room.
    pub role: Register<Role>,
}

impl Default for Person {
    fn default() -> Self {
        Self { name: unset(), role: unset() }
    }
}

/// All that is held of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Room {
    /// For people.
    pub name: Register<String>,
    /// What opens it.
    pub code: Register<JoinCode>,
    /// It goes when it is empty.
    pub temporary: Register<bool>,
    /// What is measured in it.
    pub sensors: Set<SensorId>,
    /// Who belongs to it.
    pub members: Set<PersonId>,
    /// What is said of people, of those who are members and of those who were.
    pub people: BTreeMap<PersonId, Person>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            name: unset(),
            code: unset(),
            temporary: unset(),
            sensors: Set::new(),
            members: Set::new(),
            people: BTreeMap::new(),
        }
    }
}

impl Room {
    /// Whether it was made: what others said of it may have come earlier.
    pub fn is_there(&self) -> bool {
        // Nothing else sets this.
        self.temporary.val.is_some()
    }

    /// What makes it, without its sensors and members.
    pub fn made(&self) -> Self {
        let (name, code, temporary) = (self.name.clone(), self.code.clone(), self.temporary.clone());
        Self { name, code, temporary, ..Self::default() }
    }

    /// The code that it asks for, and since when.
    pub fn asks(&self) -> Option<(JoinCode, Stamp)> {
        self.code.val.filter(|_| self.is_there()).map(|code| (code, self.code.marker))
    }

    /// The sensors that a change may bring in or take out.
    pub fn touches(&self, change: &Change) -> Vec<SensorId> {
        match change {
            Change::Sensors(orswot::Op::Add { members, .. } | orswot::Op::Rm { members, .. }) => {
                members.clone()
            }
            Change::Whole(other) => {
                self.sensors.read().val.union(&other.sensors.read().val).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Applies a change; [`Change::Delete`] is not the room's own.
    pub fn apply(&mut self, change: Change, stamp: Stamp) {
        match change {
            Change::Whole(other) => self.merge(*other),
            Change::Create { name, code, temporary } => {
                write(&mut self.name, name, stamp);
                write(&mut self.code, code, stamp);
                write(&mut self.temporary, temporary, stamp);
            }
            Change::Rename(name) => write(&mut self.name, name, stamp),
            Change::Renew(code) => write(&mut self.code, code, stamp),
            Change::Delete => {}
            Change::Sensors(operation) => follow(&mut self.sensors, operation),
            Change::Members(operation) => follow(&mut self.members, operation),
            Change::MemberName(member, name) => {
                write(&mut self.people.entry(member).or_default().name, name, stamp);
            }
            Change::MemberRole(member, role) => {
                write(&mut self.people.entry(member).or_default().role, role, stamp);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        join(&mut self.name, other.name);
        join(&mut self.code, other.code);
        join(&mut self.temporary, other.temporary);
        // `validate_merge` takes several members that were added at once for a defect, and the square of their number.
        self.sensors.merge(other.sensors);
        self.members.merge(other.members);
        for (member, said) in other.people {
            let held = self.people.entry(member).or_default();
            join(&mut held.name, said.name);
            join(&mut held.role, said.role);
        }
    }

    /// The newest stamp in it.
    pub fn newest(&self) -> Stamp {
        let people = self.people.values().flat_map(|said| [said.name.marker, said.role.marker]);
        let own = [self.name.marker, self.code.marker, self.temporary.marker];
        own.into_iter().chain(people).max().unwrap_or(self.name.marker)
    }

    /// A hash of what readers get of it, and of what decides about it.
    pub fn hash(&self) -> u64 {
        // Who was added by whom decides about what is removed later.
        let mut sensors: Vec<_> = self.sensors.iter().map(|one| (one.val, one.rm_clock)).collect();
        let mut members: Vec<_> = self.members.iter().map(|one| (one.val, one.rm_clock)).collect();
        sensors.sort_unstable_by_key(|one| one.0);
        members.sort_unstable_by_key(|one| one.0);
        let sets = (sensors, self.sensors.clock(), members, self.members.clock());
        let seen = (&self.name, &self.code, &self.temporary, sets, &self.people);
        let bytes = postcard::to_stdvec(&seen);
        let sum = crate::codec::checksum(&bytes.expect("a vector grows, and every length is known before"));
        u64::from_le_bytes(sum)
    }
}

/// Applies what follows on what was applied before. What does not comes again, behind what is missing.
fn follow<T>(set: &mut Set<T>, operation: orswot::Op<T, Actor>)
where
    T: Clone + Eq + std::hash::Hash + std::fmt::Debug,
{
    if set.validate_op(&operation).is_ok() {
        set.apply(operation);
    }
}
