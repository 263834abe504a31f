//! The passing registry at work: what this node's connections have to say goes into its tables and on to the peers,
//! and what the peers say goes to whoever follows it here.
//!
//! Lock order: behind replication's, before the feed's. What changed is told after the lock is free: who is told looks
//! again, and then finds at least that change.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use parking_lot::MutexGuard;

use crate::attention::Gazes;
use crate::handle::Store;
use crate::model::ids::{NodeId, RoomId, SensorId};
use crate::passing::facts::Gap;
use crate::passing::{Changed, Cursor, News, Passing, Place};
use crate::presence::{Rosters, Sessions};
use crate::wills::Estates;

/// What passes, and this node's share in it.
#[derive(Debug)]
pub(crate) struct Here {
    pub passing: Passing,
    pub sessions: Sessions,
    pub rosters: Rosters,
    pub gazes: Gazes,
    /// Connections here that speak for a sensor.
    pub devices: HashMap<SensorId, usize>,
    /// What clients of nodes that are gone have left.
    pub estates: Estates,
}

impl Here {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            passing: Passing::new(me),
            sessions: Sessions::default(),
            rosters: Rosters::default(),
            gazes: Gazes::default(),
            devices: HashMap::new(),
            estates: Estates::default(),
        }
    }
}

impl Store {
    /// A link with this run of a peer has opened.
    pub(crate) fn passing_linked(&self, node: NodeId, start: u64) {
        let lost = self.stamp();
        let mut here = self.here();
        let settled = here.wills_linked(node, start, lost, Instant::now());
        let changed = here.passing.linked(node);
        here.rosters.changed(&changed.people);
        drop(here);
        self.tell_settled(node, start, settled);
        self.tell(&changed);
        self.exchange().wills();
    }

    /// The link with a peer is over.
    pub(crate) fn passing_unlinked(&self, node: NodeId) {
        let lost = self.stamp();
        let mut here = self.here();
        here.wills_unlinked(node, lost, Instant::now());
        let changed = here.passing.unlinked(node);
        here.rosters.changed(&changed.people);
        drop(here);
        self.tell(&changed);
    }

    /// What a peer is still to be told.
    pub(crate) fn passing_news(&self, cursor: &mut Cursor) -> Option<News> {
        self.here().passing.news(cursor)
    }

    /// Takes what a peer says.
    pub(crate) fn hear_news(&self, node: NodeId, news: News) -> Result<(), Gap> {
        let mut here = self.here();
        let changed = here.passing.hear(node, news)?;
        here.rosters.changed(&changed.people);
        let Here { passing, estates, .. } = &mut *here;
        for client in &changed.wills {
            let any = passing.wills.of(client).iter().any(|(of, _)| *of == node);
            estates.said(node, client, any);
        }
        drop(here);
        self.tell(&changed);
        Ok(())
    }

    /// Takes what a peer of the first version of the protocol says of its devices.
    pub(crate) fn hear_devices(&self, node: NodeId, came: &[String], gone: &[String]) {
        let ids = |names: &[String]| -> Vec<SensorId> {
            names.iter().filter_map(|name| SensorId::new(name).ok()).collect()
        };
        let came = ids(came).into_iter().map(|sensor| (sensor, Some(())));
        let changes = came.chain(ids(gone).into_iter().map(|sensor| (sensor, None))).collect();
        let devices = self.here().passing.devices.hear_uncounted(node, changes);
        self.tell(&Changed { devices, ..Changed::default() });
    }

    fn tell(&self, changed: &Changed) {
        self.tell_followers(&changed.people, &changed.attention, &changed.devices);
        self.exchange().filters(&changed.filters);
    }

    /// Tells links and followers that people came to their rooms, or went.
    pub(crate) fn tell_people<'a>(&self, people: impl IntoIterator<Item = &'a Place>) {
        self.shared().post.wake();
        self.tell_followers(people, [], []);
    }

    /// The same of sensors that are watched otherwise than before.
    pub(crate) fn tell_attention<'a>(&self, sensors: impl IntoIterator<Item = &'a SensorId>) {
        self.shared().post.wake();
        self.tell_followers([], sensors, []);
    }

    /// The same of sensors whose devices came or went.
    pub(crate) fn tell_devices<'a>(&self, sensors: impl IntoIterator<Item = &'a SensorId>) {
        self.shared().post.wake();
        self.tell_followers([], [], sensors);
    }

    fn tell_followers<'a>(
        &self,
        people: impl IntoIterator<Item = &'a Place>,
        attention: impl IntoIterator<Item = &'a SensorId>,
        devices: impl IntoIterator<Item = &'a SensorId>,
    ) {
        let memory = self.memory();
        let rooms: BTreeSet<&RoomId> = people.into_iter().map(|(room, _)| room).collect();
        rooms.into_iter().for_each(|room| memory.feed.presence(room));
        attention.into_iter().for_each(|sensor| memory.feed.attention(sensor));
        for sensor in devices {
            // A sensor is known from when a device speaks for it.
            memory.sensor(sensor);
            memory.feed.described(sensor);
        }
    }

    /// What passes, locked.
    pub(crate) fn here(&self) -> MutexGuard<'_, Here> {
        self.passing().lock()
    }
}
