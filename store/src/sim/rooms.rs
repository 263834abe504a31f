//! Rooms in the simulation: operators make and change them on whichever node there is. What they were told is kept must
//! hold on every node at the end, unless something that was done elsewhere takes precedence by the table in
//! `registry::room`; and nothing is there that nobody asked for.
//!
//! It looks at what was asked and at what is there in the end, not at the clocks of the sets.

use crdts::orswot;

use super::Counts;
use super::node::Promise;
use super::plan::MS;
use super::world::{Event, World};
use crate::model::ids::{PersonId, RoomId};
use crate::model::room::{JoinCode, Role, drawn};
use crate::registry::request::{MemberWish, NewRoom, RoomError};
use crate::registry::room::{Actor, Change, Room, RoomOperation, Set};
use crate::registry::rooms::Rooms;

/// Rooms that a run makes at most.
const ROOMS: usize = 6;
/// People in all rooms.
const PEOPLE: [&str; 3] = ["ana", "ben", "eva"];

/// Something that was asked, and is one operation.
#[derive(Debug)]
struct Asking {
    operation: RoomOperation,
    /// When its node did it, and on how many disks it was when that was told.
    acked: Option<(u64, u8)>,
    /// The one disk that had it was lost.
    excused: bool,
}

/// All that was asked of rooms.
#[derive(Debug, Default)]
pub(super) struct Askings(Vec<Asking>);

impl Askings {
    /// A node does something; returns the number of it.
    pub(super) fn ask(&mut self, operation: RoomOperation) -> usize {
        self.0.push(Asking { operation, acked: None, excused: false });
        self.0.len() - 1
    }

    /// It was told that it is kept.
    pub(super) fn acknowledged(&mut self, number: usize, made: u64, copies: u8) {
        self.0[number].acked = Some((made, copies));
    }

    /// Whether all that was told before `at` is on two of these disks.
    pub(super) fn are_twice(&self, at: u64, disks: &[&Rooms]) -> bool {
        self.0.iter().all(|asking| {
            let due = !asking.excused && asking.acked.is_some_and(|(made, _)| made <= at);
            !due || disks.iter().filter(|rooms| self.is_on(&asking.operation, rooms)).count() >= 2
        })
    }

    /// A disk was lost: what was on that one alone is excused.
    pub(super) fn lost(&mut self, disks: &[&Rooms]) {
        for number in 0..self.0.len() {
            let asking = &self.0[number];
            let weak = asking.acked.is_some_and(|(_, copies)| copies < 2);
            let excused = weak && !disks.iter().any(|rooms| self.is_on(&asking.operation, rooms));
            self.0[number].excused |= excused;
        }
    }

    /// Adds what was acknowledged.
    pub(super) fn figures(&self, counts: &mut Counts) {
        let count =
            |wanted: fn(&Asking) -> bool| self.0.iter().filter(|asking| wanted(asking)).count() as u64;
        counts.add("room changes", self.0.len() as u64);
        counts.add("room changes acknowledged", count(|asking| asking.acked.is_some()));
        counts.add("rooms deleted", count(|asking| asking.operation.change == Change::Delete));
        counts.add("excused room changes", count(|asking| asking.excused));
    }

    /// What is missing, or is there and should not be.
    pub(super) fn judge(&self, rooms: &Rooms) -> Result<(), String> {
        for asking in self.0.iter().filter(|asking| asking.acked.is_some() && !asking.excused) {
            if !self.lasts(&asking.operation, rooms) {
                return Err(format!("{asking:?} was acknowledged and is gone"));
            }
        }
        for id in rooms.ids() {
            let room = rooms.get(id.as_str()).ok_or("a room that is listed and not there")?;
            self.was_asked(id, room)
                .map_err(|what| format!("room {id} has {what}, which nobody asked for"))?;
        }
        Ok(())
    }

    /// What was done to a room.
    fn of<'a>(&'a self, room: &'a RoomId) -> impl Iterator<Item = &'a RoomOperation> {
        self.0.iter().map(|asking| &asking.operation).filter(move |operation| operation.room == *room)
    }

    /// Whether a disk has what was done: not only the same from another time, or nothing because it never heard of it.
    fn is_on(&self, operation: &RoomOperation, rooms: &Rooms) -> bool {
        let room = rooms.get(operation.room.as_str());
        let heard = room.is_none_or(|room| match &operation.change {
            Change::Sensors(done) => has_heard(&room.sensors, done),
            Change::Members(done) => has_heard(&room.members, done),
            _ => true,
        });
        heard && self.lasts(operation, rooms)
    }

    /// Whether what was done still holds, or something takes precedence.
    fn lasts(&self, operation: &RoomOperation, rooms: &Rooms) -> bool {
        let RoomOperation { room: id, stamp, change } = operation;
        let Some(room) = rooms.get(id.as_str()) else {
            return rooms.is_deleted(id) && self.of(id).any(|other| other.change == Change::Delete);
        };
        match change {
            Change::Whole(_) | Change::Delete => false,
            Change::Create { temporary, .. } => room.temporary.val == Some(*temporary),
            Change::Rename(name) => {
                room.name.marker > *stamp
                    || (room.name.marker == *stamp && room.name.val.as_ref() == Some(name))
            }
            Change::Renew(code) => {
                room.code.marker > *stamp || (room.code.marker == *stamp && room.code.val == Some(*code))
            }
            Change::Sensors(done) => self.holds(id, &room.sensors, done, |change| match change {
                Change::Sensors(other) => Some(other),
                _ => None,
            }),
            Change::Members(done) => self.holds(id, &room.members, done, |change| match change {
                Change::Members(other) => Some(other),
                _ => None,
            }),
            Change::MemberName(who, _) => room.people.get(who).is_some_and(|said| said.name.marker >= *stamp),
            Change::MemberRole(who, _) => room.people.get(who).is_some_and(|said| said.role.marker >= *stamp),
        }
    }

    /// What was added is there, or somebody who saw the addition removed it; of what was removed nothing is there that
    /// was seen then.
    fn holds<T>(
        &self,
        room: &RoomId,
        set: &Set<T>,
        done: &orswot::Op<T, Actor>,
        of_this_set: impl Fn(&Change) -> Option<&orswot::Op<T, Actor>>,
    ) -> bool
    where
        T: Clone + Eq + std::hash::Hash + std::fmt::Debug,
    {
        match done {
            orswot::Op::Add { dot, members } => members.iter().all(|member| {
                let sees = |other: &orswot::Op<T, Actor>| match other {
                    orswot::Op::Rm { clock, members } => {
                        clock.get(&dot.actor) >= dot.counter && members.contains(member)
                    }
                    orswot::Op::Add { .. } => false,
                };
                let removed = || self.of(room).filter_map(|other| of_this_set(&other.change)).any(sees);
                set.contains(member).val || removed()
            }),
            orswot::Op::Rm { clock, members } => members.iter().all(|member| {
                let held = set.contains(member).rm_clock;
                held.iter().all(|dot| dot.counter > clock.get(dot.actor))
            }),
        }
    }

    /// Whether somebody asked for what is there.
    fn was_asked(&self, id: &RoomId, room: &Room) -> Result<(), String> {
        let named = |name: &String, other: &Change| match other {
            Change::Create { name: other, .. } | Change::Rename(other) => other == name,
            _ => false,
        };
        let said = |fits: &dyn Fn(&Change) -> bool, stamp| {
            self.of(id).any(|other| other.stamp == stamp && fits(&other.change))
        };
        let name = room.name.val.clone().unwrap_or_default();
        if !said(&|other| named(&name, other), room.name.marker) {
            return Err(format!("the name {name:?}"));
        }
        let opens = |other: &Change| match other {
            Change::Create { code, .. } | Change::Renew(code) => Some(*code) == room.code.val,
            _ => false,
        };
        if !said(&opens, room.code.marker) {
            return Err(format!("the code {:?}", room.code.val));
        }
        for sensor in room.sensors.read().val {
            let added = |other: &RoomOperation| match &other.change {
                Change::Sensors(orswot::Op::Add { members, .. }) => members.contains(&sensor),
                _ => false,
            };
            if !self.of(id).any(added) {
                return Err(format!("sensor {sensor}"));
            }
        }
        for member in room.members.read().val {
            let added = |other: &RoomOperation| match &other.change {
                Change::Members(orswot::Op::Add { members, .. }) => members.contains(&member),
                _ => false,
            };
            if !self.of(id).any(added) {
                return Err(format!("member {member}"));
            }
        }
        if self.of(id).any(|other| other.change == Change::Delete && self.is_owed(other)) {
            return Err("been deleted, and lives on".into());
        }
        Ok(())
    }

    fn is_owed(&self, operation: &RoomOperation) -> bool {
        let owed = |asking: &&Asking| asking.acked.is_some() && !asking.excused;
        self.0.iter().filter(owed).any(|asking| asking.operation == *operation)
    }

    fn rooms(&self) -> Vec<RoomId> {
        let made = |asking: &Asking| match asking.operation.change {
            Change::Create { .. } => Some(asking.operation.room.clone()),
            _ => None,
        };
        self.0.iter().filter_map(made).collect()
    }
}

fn has_heard<T>(set: &Set<T>, done: &orswot::Op<T, Actor>) -> bool
where
    T: Clone + Eq + std::hash::Hash + std::fmt::Debug,
{
    match done {
        orswot::Op::Add { dot, .. } => set.clock().get(&dot.actor) >= dot.counter,
        orswot::Op::Rm { clock, .. } => set.clock() >= *clock,
    }
}

impl World {
    /// An operator does something to a room, on some node.
    pub(super) fn change_room(&mut self) {
        if self.healing {
            return;
        }
        let next = self.room_dice.between(20 * MS, 700 * MS);
        self.after(next, Event::Rooms);
        let at = self.room_dice.index(self.nodes.len());
        if self.nodes[at].hangs_until > self.now {
            return;
        }
        let clock = self.clock(at);
        let made = self.witness.rooms.rooms();
        let kind = if made.is_empty() { 0 } else { self.room_dice.index(100) };
        let room = (!made.is_empty()).then(|| made[self.room_dice.index(made.len())].clone());
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.room_dice.word().to_le_bytes());
        // So few that two rooms draw the same.
        let code = JoinCode::of([0, 0, 0, 0, self.room_dice.index(8) as u8]);
        let sensor = self.plan.topics[self.room_dice.index(self.plan.topics.len())].name.sensor.clone();
        let person = PEOPLE[self.room_dice.index(PEOPLE.len())];
        let role = Role::ALL[self.room_dice.index(Role::ALL.len())];
        let text = format!("name {}", self.room_dice.index(1000));
        let Some(run) = &mut self.nodes[at].run else { return };
        let judged = run.change_rooms(clock, |rooms, asked| {
            let who = PersonId::new(person).expect("three letters");
            let wish = |name: bool| MemberWish {
                name: name.then(|| text.clone()),
                role: Some(role).filter(|_| !name),
            };
            match (kind, &room) {
                (0..15, _) if made.len() < ROOMS => {
                    let sensors = vec![sensor];
                    rooms.create(
                        &drawn(random),
                        code,
                        NewRoom { name: text, temporary: false, sensors },
                        asked,
                    )
                }
                (_, None) => Ok(Vec::new()),
                (0..25, Some(room)) => rooms.rename(room, text, asked),
                (25..35, Some(room)) => rooms.renew(room, code, asked),
                (35..39, Some(room)) => rooms.remove(room, asked),
                (39..58, Some(room)) => rooms.add_sensor(room, sensor, asked),
                (58..70, Some(room)) => rooms.remove_sensor(room, sensor, asked),
                (70..90, Some(room)) => rooms.put_member(room, who, wish(kind % 2 == 0), asked),
                (_, Some(room)) => rooms.remove_member(room, who, asked),
            }
        });
        self.asked(at, judged);
    }

    fn asked(&mut self, at: usize, judged: Result<Vec<RoomOperation>, RoomError>) {
        match judged {
            Ok(operations) => {
                for operation in operations {
                    self.tell(|| format!("node {at}: {operation:?}"));
                    if matches!(operation.change, Change::Whole(_)) {
                        // It says again what was asked for before.
                        continue;
                    }
                    let number = self.witness.rooms.ask(operation);
                    if let Some(run) = &mut self.nodes[at].run {
                        run.waiting_open.push(Promise::Room(number, self.now));
                    }
                }
                self.nudge(at);
            }
            Err(RoomError::Unknown(_)) => self.counts.add("rooms not known yet, or gone", 1),
            Err(error) => self.fail(format!("node {at} refuses: {error}")),
        }
    }

    /// Whether all nodes hold the same rooms.
    pub(super) fn compare_rooms(&self) -> Result<(), String> {
        let runs: Vec<_> = self.nodes.iter().filter_map(|node| node.run.as_ref()).collect();
        for (at, run) in runs.iter().enumerate() {
            if run.rooms != runs[0].rooms {
                return Err(format!(
                    "rooms differ after a scrub: node {at} has {:?}, node 0 {:?}",
                    run.rooms, runs[0].rooms
                ));
            }
        }
        Ok(())
    }
}
