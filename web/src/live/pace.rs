//! How often a viewer is told of a room: at once when it was not told since the last beat, else with the next one. In a
//! full room everybody would else be told of each of two hundred people who come at once, one by one.
//!
//! Invariant: whatever is noted is told, within a beat, and at most twice in one.

use std::collections::BTreeSet;

use store::RoomId;

/// Rooms that a viewer is told of.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since the last beat.
    told: BTreeSet<RoomId>,
    /// With the next one.
    due: BTreeSet<RoomId>,
}

impl Pace {
    /// Whether to tell of a room now; if not, it is told with the next beat.
    pub(super) fn is_now(&mut self, room: &RoomId) -> bool {
        let now = self.told.insert(room.clone());
        if !now {
            self.due.insert(room.clone());
        }
        now
    }

    /// Tells of a room with the next beat.
    pub(super) fn later(&mut self, room: RoomId) {
        self.due.insert(room);
    }

    /// A beat: what is to be told with it.
    pub(super) fn beat(&mut self) -> Vec<RoomId> {
        self.told = std::mem::take(&mut self.due);
        self.told.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_with_the_beat() {
        let mut pace = Pace::default();
        let [a, b, c] = ["a", "b", "c"].map(|id| RoomId::new(id).unwrap());
        assert_eq!(
            [pace.is_now(&a), pace.is_now(&a), pace.is_now(&a), pace.is_now(&b)],
            [true, false, false, true]
        );
        pace.later(c.clone());
        assert_eq!(pace.beat(), [a.clone(), c]);
        assert_eq!([pace.is_now(&a), pace.is_now(&b)], [false, true], "it was told with the beat");
        assert_eq!((pace.beat(), pace.beat()), (vec![a.clone()], vec![]));
        assert!(pace.is_now(&a));
    }
}
