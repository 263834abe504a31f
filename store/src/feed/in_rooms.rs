//! Series that are followed because of the rooms that their sensors are in.
//!
//! A series has such a follower from when its sensor comes into a room that is asked for until it leaves the last one:
//! whoever changes a room sees to that (`Memory::moved`), so a sample of a sensor in no room costs nothing more, and who is
//! away misses no sensor that came meanwhile. Invariant: what is settled last has seen the last change, since rooms are read
//! under the lock of the wishes.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Feed, Subscription, Wishes, follow_filter, leave};
use crate::model::ids::{Attribute, RoomId, SensorId};
use crate::registry::rooms::Rooms;
use crate::series::Series;

/// Which series of which rooms a filter names.
pub type RoomFilter = Arc<dyn Fn(&RoomId, &SensorId, &Attribute) -> bool + Send + Sync>;

impl Wishes {
    /// Gives a series the followers that ask for it in the rooms of its sensor, and no others of that kind.
    pub(super) fn settle(&self, series: &Series, rooms: &RwLock<Rooms>) {
        if self.in_rooms.is_empty() {
            return;
        }
        for (queue, id, filter) in &self.in_rooms {
            // Rooms are not held while the series is.
            let wanted = named(filter, series, rooms);
            let mut state = series.lock();
            if wanted {
                follow_filter(&mut state, queue, *id);
            } else {
                leave(&mut state, queue, |follower| follower.filters.retain(|held| held != id));
            }
        }
    }
}

/// Whether a filter names a series in one of the rooms of its sensor.
fn named(filter: &RoomFilter, series: &Series, rooms: &RwLock<Rooms>) -> bool {
    let rooms = rooms.read();
    rooms.of(series.sensor()).iter().any(|room| filter(room, series.sensor(), series.attribute()))
}

impl Feed {
    /// Whether anybody follows series because of rooms.
    pub(crate) fn follows_rooms(&self) -> bool {
        !self.wishes.lock().in_rooms.is_empty()
    }

    /// The sensor of this series is in other rooms than before. The catalogue's lock is held.
    pub(crate) fn moved(&self, series: &Series, rooms: &RwLock<Rooms>) {
        self.wishes.lock().settle(series, rooms);
    }
}

impl Subscription {
    /// Follows every series, present and future, that `filter` names in a room that its sensor is in, as long as it is;
    /// `id` is the caller's, and of no other filter. `unfollow_matching` ends it.
    pub fn follow_in_rooms(&mut self, id: u64, filter: &RoomFilter) {
        self.unfollow_matching(id);
        self.filters.push(id);
        let memory = &self.memory;
        memory.each_series(
            || {
                let mut wishes = memory.feed.wishes.lock();
                wishes.in_rooms.push((self.queue.clone(), id, filter.clone()));
            },
            |series| {
                // Held, so that whoever moves the sensor meanwhile settles it behind this.
                let _wishes = memory.feed.wishes.lock();
                if named(filter, series, &memory.rooms) {
                    follow_filter(&mut series.lock(), &self.queue, id);
                }
            },
        );
    }

    /// The rooms that a sensor is in now, by id.
    pub fn rooms_of(&self, sensor: &SensorId) -> Vec<RoomId> {
        self.memory.rooms.read().of(sensor).to_vec()
    }
}
