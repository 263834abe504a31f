//! The feed: everything that changes in the rings, to whoever follows. It serves local and replicated samples alike.
//!
//! A subscription has a bounded queue. A series whose change does not fit falls *behind*: from then on its changes
//! are only noted as spans of time ([`Missed`]), and when the queue has been read the subscriber is told how many samples it
//! missed live and gets what the ring still holds of them. Ingest never waits for a subscriber.
//!
//! Of sensors, rooms and people a subscriber is told to look again, not what changed: each stands once among its events,
//! however often it changes, so what waits is bounded by what there is, and no last state is missed.
//!
//! Invariant: between [`Subscription::follow`] and `unfollow` each change is delivered once, or counted as skipped.
//! Lock order: catalogue, then series, then queue.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::in_rooms::RoomFilter;
use self::missed::Missed;
use crate::memory::Memory;
use crate::model::ids::{Attribute, RoomId, SensorId, SeriesId};
use crate::model::time::SampleTime;
use crate::model::value::Values;
use crate::presence::Signal;
use crate::registry::rooms::Rooms;
use crate::ring::{Ring, Samples};
use crate::series::{Series, State};

pub mod in_rooms;
mod missed;

/// Signals that may wait; a further one is refused.
pub(crate) const SIGNALS: usize = 256;

/// Samples that are new in a ring, or took another's place. Ascending as they came.
#[derive(Debug)]
pub struct Change {
    /// Whose.
    pub series: Series,
    /// When measured.
    pub times: Vec<SampleTime>,
    /// As many values.
    pub values: Values,
}

/// What a subscription yields.
#[derive(Debug, Clone)]
pub enum Event {
    /// New samples of a followed series.
    Samples(Arc<Change>),
    /// So many samples were not sent live; what the rings still hold of them comes next.
    Lagged {
        /// How many.
        skipped: u64,
    },
    /// A sensor is new, gone, or what is said of it changed: look again.
    Sensor(SensorId),
    /// A room is new, changed, or gone: look again.
    Room(RoomId),
    /// Who is in a followed room changed, perhaps more than once: look again.
    Presence(RoomId),
    /// How closely a sensor is watched changed: look again.
    Attention(SensorId),
    /// Somebody in a room sent something to the one who entered it with this subscription.
    Signal(Arc<Signal>),
}

/// What a subscriber is told to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Look {
    Sensor(SensorId),
    Room(RoomId),
    Presence(RoomId),
    Attention(SensorId),
}

impl Event {
    fn look(&self) -> Option<Look> {
        Some(match self {
            Self::Sensor(sensor) => Look::Sensor(sensor.clone()),
            Self::Room(room) => Look::Room(room.clone()),
            Self::Presence(room) => Look::Presence(room.clone()),
            Self::Attention(sensor) => Look::Attention(sensor.clone()),
            Self::Samples(_) | Self::Lagged { .. } | Self::Signal(_) => return None,
        })
    }
}

/// What to send of a series before it is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// Nothing.
    None,
    /// The newest so many.
    Newest(usize),
    /// All that is newer than this, and everything that arrived in the last 30 s.
    Since(SampleTime),
}

/// Which series a filter names.
pub type Filter = Arc<dyn Fn(&SensorId, &Attribute) -> bool + Send + Sync>;

/// A subscription's place in a series. One per subscription, however many reasons it has to follow.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    queue: Arc<Queue>,
    exact: bool,
    filters: Vec<u64>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    samples: usize,
    /// What it is going to be told to look at anyway.
    looks: HashSet<Look>,
    signals: usize,
    behind: HashMap<SeriesId, Behind>,
    /// Resynchronised samples, delivered before anything else.
    again: VecDeque<Event>,
}

struct Behind {
    series: Series,
    missed: Missed,
}

pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    capacity: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({})", self.capacity)
    }
}

impl Queue {
    fn publish(&self, change: &Arc<Change>, ring: &Ring) {
        let mut waiting = self.waiting.lock();
        let (id, count) = (change.series.id(), change.times.len());
        if !waiting.behind.contains_key(&id) {
            if waiting.samples + count <= self.capacity {
                waiting.samples += count;
                waiting.events.push_back(Event::Samples(change.clone()));
                drop(waiting);
                self.ready.notify_one();
                return;
            }
            let behind = Behind { series: change.series.clone(), missed: Missed::default() };
            waiting.behind.insert(id, behind);
        }
        if let Some(behind) = waiting.behind.get_mut(&id) {
            behind.missed.note(ring, &change.times);
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Tells its reader to look again at what `news` names.
    fn tell(&self, news: &Event) {
        let Some(look) = news.look() else { return };
        let mut waiting = self.waiting.lock();
        if waiting.looks.insert(look) {
            waiting.events.push_back(news.clone());
            drop(waiting);
            self.ready.notify_one();
        }
    }

    /// Hands over a signal; false when there is no room for it.
    pub(crate) fn signal(&self, signal: &Arc<Signal>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.signals >= SIGNALS {
            return false;
        }
        waiting.signals += 1;
        waiting.events.push_back(Event::Signal(signal.clone()));
        drop(waiting);
        self.ready.notify_one();
        true
    }
}

/// What the store's subscribers share: filters that new series are held against, and who wants the catalogue.
#[derive(Default)]
pub(crate) struct Feed {
    wishes: Mutex<Wishes>,
}

#[derive(Default)]
struct Wishes {
    /// Series that do not exist yet.
    exact: HashMap<(SensorId, Attribute), Vec<Arc<Queue>>>,
    filters: Vec<(Arc<Queue>, u64, Filter)>,
    in_rooms: Vec<(Arc<Queue>, u64, RoomFilter)>,
    catalog: Vec<Arc<Queue>>,
    rooms: HashMap<RoomId, Vec<Arc<Queue>>>,
    attention: Vec<Arc<Queue>>,
}

impl Feed {
    /// Gives a new series its followers. The catalogue's lock is held, so no wish can slip by.
    pub(crate) fn born(&self, series: &Series, rooms: &RwLock<Rooms>) {
        let mut wishes = self.wishes.lock();
        wishes.settle(series, rooms);
        let mut state = series.lock();
        if let Some(queues) = wishes.exact.remove(&(series.sensor().clone(), series.attribute().clone())) {
            queues.into_iter().for_each(|queue| follow_exactly(&mut state, queue));
        }
        for (queue, id, filter) in &wishes.filters {
            if filter(series.sensor(), series.attribute()) {
                follow_filter(&mut state, queue, *id);
            }
        }
    }

    /// Tells those who watch the catalogue that `sensor` is new or changed.
    pub(crate) fn described(&self, sensor: &SensorId) {
        self.tell(&Event::Sensor(sensor.clone()));
    }

    /// Tells those who watch the catalogue.
    pub(crate) fn tell(&self, news: &Event) {
        self.wishes.lock().catalog.iter().for_each(|queue| queue.tell(news));
    }

    /// Tells those who follow `room` that somebody came or went.
    pub(crate) fn presence(&self, room: &RoomId) {
        if let Some(followers) = self.wishes.lock().rooms.get(room) {
            let news = Event::Presence(room.clone());
            followers.iter().for_each(|queue| queue.tell(&news));
        }
    }

    /// Tells those who follow attention that `sensor` is watched otherwise than before.
    pub(crate) fn attention(&self, sensor: &SensorId) {
        let news = Event::Attention(sensor.clone());
        self.wishes.lock().attention.iter().for_each(|queue| queue.tell(&news));
    }
}

fn follow_exactly(state: &mut State, queue: Arc<Queue>) {
    match state.followers.iter_mut().find(|follower| Arc::ptr_eq(&follower.queue, &queue)) {
        Some(follower) => follower.exact = true,
        None => state.followers.push(Follower { queue, exact: true, filters: Vec::new() }),
    }
}

fn follow_filter(state: &mut State, queue: &Arc<Queue>, id: u64) {
    match state.followers.iter_mut().find(|follower| Arc::ptr_eq(&follower.queue, queue)) {
        Some(follower) if follower.filters.contains(&id) => {}
        Some(follower) => follower.filters.push(id),
        None => state.followers.push(Follower { queue: queue.clone(), exact: false, filters: vec![id] }),
    }
}

/// Takes reasons to follow from a queue; it follows no more once it has none.
fn leave(state: &mut State, queue: &Arc<Queue>, mut change: impl FnMut(&mut Follower)) {
    state.followers.retain_mut(|follower| {
        if Arc::ptr_eq(&follower.queue, queue) {
            change(follower);
        }
        follower.exact || !follower.filters.is_empty()
    });
}

/// Tells the followers of a series, whose lock is held, what changed.
pub(crate) fn publish(state: &State, series: &Series, samples: &Samples, changed: &[usize]) {
    if state.followers.is_empty() || changed.is_empty() {
        return;
    }
    let whole = changed.len() == samples.times.len();
    let Samples { times, values } = if whole { samples.clone() } else { samples.pick(changed) };
    let change = Arc::new(Change { series: series.clone(), times, values });
    state.followers.iter().for_each(|follower| follower.queue.publish(&change, &state.ring));
}

/// A reader of the feed. Dropping it ends it.
pub struct Subscription {
    queue: Arc<Queue>,
    memory: Arc<Memory>,
    followed: HashMap<(SensorId, Attribute), Option<Series>>,
    filters: Vec<u64>,
    rooms: HashSet<RoomId>,
}

impl Subscription {
    pub(crate) fn new(memory: Arc<Memory>, capacity: usize) -> Self {
        let queue = Queue { waiting: Mutex::default(), ready: Notify::new(), capacity: capacity.max(1) };
        Self {
            queue: Arc::new(queue),
            memory,
            followed: HashMap::new(),
            filters: Vec::new(),
            rooms: HashSet::new(),
        }
    }

    /// Where its events wait.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whether to be told when somebody comes to a room, or goes.
    pub fn follow_room(&mut self, room: &RoomId, wanted: bool) {
        let mut wishes = self.memory.feed.wishes.lock();
        if wanted && self.rooms.insert(room.clone()) {
            wishes.rooms.entry(room.clone()).or_default().push(self.queue.clone());
        } else if !wanted
            && self.rooms.remove(room)
            && let Some(followers) = wishes.rooms.get_mut(room)
        {
            followers.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if followers.is_empty() {
                wishes.rooms.remove(room);
            }
        }
    }

    /// Whether to be told when a sensor is watched otherwise than before, by anybody on any node.
    pub fn follow_attention(&mut self, wanted: bool) {
        let mut wishes = self.memory.feed.wishes.lock();
        wishes.attention.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        if wanted {
            wishes.attention.push(self.queue.clone());
        }
    }

    /// Follows a series, which need not exist yet. The samples returned are to be sent first; from there on every
    /// change comes once. Following again is allowed and only gives the backfill.
    pub fn follow(&mut self, sensor: &SensorId, attribute: &Attribute, backfill: Backfill) -> Samples {
        let key = (sensor.clone(), attribute.clone());
        let found = self.memory.find_or(sensor.as_str(), attribute.as_str(), || {
            let mut wishes = self.memory.feed.wishes.lock();
            let waiting = wishes.exact.entry(key.clone()).or_default();
            if !waiting.iter().any(|queue| Arc::ptr_eq(queue, &self.queue)) {
                waiting.push(self.queue.clone());
            }
        });
        self.followed.insert(key, found.clone());
        let Some(series) = found else {
            return Samples { times: Vec::new(), values: Values::Numbers { channels: 1, flat: Vec::new() } };
        };
        let mut state = series.lock();
        follow_exactly(&mut state, self.queue.clone());
        // What waits in the queue for this series is in the ring, and so in the backfill, already.
        if backfill != Backfill::None {
            self.forget(series.id());
        }
        backfill_of(&state, backfill)
    }

    fn forget(&self, id: SeriesId) {
        let mut waiting = self.queue.waiting.lock();
        waiting.behind.remove(&id);
        let of_others = |event: &Event| !matches!(event, Event::Samples(change) if change.series.id() == id);
        waiting.again.retain(of_others);
        waiting.events.retain(of_others);
        let held = |event: &Event| if let Event::Samples(change) = event { change.times.len() } else { 0 };
        waiting.samples = waiting.events.iter().map(held).sum();
    }

    /// Ends what [`Self::follow`] began.
    pub fn unfollow(&mut self, sensor: &SensorId, attribute: &Attribute) {
        let key = (sensor.clone(), attribute.clone());
        if self.followed.remove(&key).is_none() {
            return;
        }
        // The series may have come into being since.
        let found = self.memory.find_or(sensor.as_str(), attribute.as_str(), || {
            let mut wishes = self.memory.feed.wishes.lock();
            if let Some(waiting) = wishes.exact.get_mut(&key) {
                waiting.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
                if waiting.is_empty() {
                    wishes.exact.remove(&key);
                }
            }
        });
        if let Some(series) = found {
            self.leave(&series, |follower| follower.exact = false);
        }
    }

    fn leave(&self, series: &Series, change: impl FnMut(&mut Follower)) {
        leave(&mut series.lock(), &self.queue, change);
    }

    /// Follows every series, present and future, that `filter` names; `id` is the caller's.
    pub fn follow_matching(&mut self, id: u64, filter: &Filter) {
        self.unfollow_matching(id);
        self.filters.push(id);
        self.memory.each_series(
            || {
                let mut wishes = self.memory.feed.wishes.lock();
                wishes.filters.push((self.queue.clone(), id, filter.clone()));
            },
            |series| {
                if filter(series.sensor(), series.attribute()) {
                    follow_filter(&mut series.lock(), &self.queue, id);
                }
            },
        );
    }

    /// Ends what [`Self::follow_matching`] or [`Self::follow_in_rooms`] began.
    pub fn unfollow_matching(&mut self, id: u64) {
        if !self.filters.contains(&id) {
            return;
        }
        self.filters.retain(|held| *held != id);
        self.memory.each_series(
            || {
                let mut wishes = self.memory.feed.wishes.lock();
                wishes.filters.retain(|(queue, held, _)| *held != id || !Arc::ptr_eq(queue, &self.queue));
                wishes.in_rooms.retain(|(queue, held, _)| *held != id || !Arc::ptr_eq(queue, &self.queue));
            },
            |series| {
                self.leave(series, |follower| follower.filters.retain(|held| *held != id));
            },
        );
    }

    /// Whether to be told of what is new and what changed of sensors and rooms.
    pub fn follow_catalog(&mut self, wanted: bool) {
        let mut wishes = self.memory.feed.wishes.lock();
        wishes.catalog.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        if wanted {
            wishes.catalog.push(self.queue.clone());
        }
    }

    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.queue.ready.notified().await;
        }
    }

    /// The next event, if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        let behind = {
            let mut waiting = self.queue.waiting.lock();
            if let Some(event) = waiting.again.pop_front() {
                return Some(event);
            }
            if let Some(event) = waiting.events.pop_front() {
                match &event {
                    Event::Samples(change) => waiting.samples -= change.times.len(),
                    Event::Signal(_) => waiting.signals -= 1,
                    told => drop(told.look().map(|look| waiting.looks.remove(&look))),
                }
                return Some(event);
            }
            waiting.behind.values().map(|behind| behind.series.clone()).collect::<Vec<_>>()
        };
        if behind.is_empty() {
            return None;
        }
        behind.iter().for_each(|series| self.catch_up(series));
        self.try_next()
    }

    /// Brings a series that fell behind back to live: under its lock, so that nothing is left out or sent twice.
    fn catch_up(&self, series: &Series) {
        let state = series.lock();
        let mut waiting = self.queue.waiting.lock();
        let Some(behind) = waiting.behind.remove(&series.id()) else { return };
        waiting.again.push_back(Event::Lagged { skipped: behind.missed.count() });
        for place in behind.missed.places(&state.ring) {
            let Samples { times, values } = state.ring.copy(place);
            let change = Change { series: series.clone(), times, values };
            waiting.again.push_back(Event::Samples(Arc::new(change)));
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.follow_catalog(false);
        self.follow_attention(false);
        for room in self.rooms.clone() {
            self.follow_room(&room, false);
        }
        for id in std::mem::take(&mut self.filters) {
            self.filters.push(id);
            self.unfollow_matching(id);
        }
        for (sensor, attribute) in self.followed.keys().cloned().collect::<Vec<_>>() {
            self.unfollow(&sensor, &attribute);
        }
    }
}

fn backfill_of(state: &State, backfill: Backfill) -> Samples {
    let ring: &Ring = &state.ring;
    let start = match backfill {
        Backfill::None => ring.len(),
        Backfill::Newest(count) => ring.len().saturating_sub(count),
        Backfill::Since(time) => {
            let newer = time.0.saturating_add(1);
            let arrived = state.arrivals.oldest(SampleTime::now()).unwrap_or(newer);
            ring.position(SampleTime(newer.min(arrived)))
        }
    };
    ring.copy(start..ring.len())
}
