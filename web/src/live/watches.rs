//! What one viewer watches, and what it has been sent.
//!
//! Several watches may name the same series, each with a backfill of its own. The store follows a series once; a later
//! watch is given only what is older than everything sent before. A watch of rooms follows every series of their
//! sensors: of those that are added to a room while it is watched too, and no longer of those that are removed.
//!
//! Invariant: as long as a series is watched without a break, each of its samples is handed out once, unless its value
//! changed. (After `unwatch`, or when its sensor leaves the room, the viewer has let go of it, and a new watch begins anew.)

use std::collections::{BTreeSet, HashMap, HashSet};

use store::{
    Backfill, Change, Event, MAX_KEEP, Query, RoomId, SampleTime, Samples, SensorId, Series, SeriesId, Store,
    Subscription, Values,
};

use super::message::{Refused, Watch, Wish};

/// Samples that may wait for a viewer. Beyond, it is told that it lags, and gets the rest from the rings.
pub(super) const QUEUE_SAMPLES: usize = 32_768;
/// Most watches of a connection. Beyond: `error` `too_many_watches`.
pub(super) const MAX_WATCHES: usize = 1000;
/// Most series that a connection follows. Beyond: `error` `too_many_series`, and those that come with a room later are
/// not followed.
pub(super) const MAX_SERIES: usize = 20_000;
/// Out-of-order samples of a series that are remembered as sent. Beyond, later watches of it get no older samples.
const MAX_BELOW: usize = 4096;

/// What one viewer watches.
pub(super) struct Watches {
    store: Store,
    subscription: Subscription,
    open: HashMap<u64, Open>,
    followed: HashMap<SeriesId, Followed>,
    next_reference: u32,
}

/// One watch.
struct Open {
    /// Series that it names: those that are followed already; there is room for the others.
    named: Vec<SeriesId>,
    rooms: Vec<RoomId>,
    /// The rooms' sensors, with their series and whether these are followed yet.
    sensors: HashMap<SensorId, HashMap<SeriesId, bool>>,
    /// Newest samples that a series begins with.
    backfill: usize,
    /// The newest time that the viewer holds of series that come with the rooms; each is asked for once.
    since: HashMap<String, SampleTime>,
}

/// A series that is still to be followed.
#[derive(Debug)]
pub(super) struct Opening {
    watch: u64,
    wish: Wish,
    backfill: usize,
    /// Whether it comes with a room, rather than by its name.
    through_room: bool,
}

impl Opening {
    /// The watch that it is for.
    pub(super) fn watch(&self) -> u64 {
        self.watch
    }
}

/// One series that is followed.
pub(super) struct Followed {
    wish: Wish,
    /// `sensor/attribute`.
    pub(super) name: String,
    /// Its number in binary frames.
    pub(super) reference: u32,
    /// Channels that the viewer was told of; `None` before the first frame.
    pub(super) announced: Option<usize>,
    /// How many watches name it, and how many have it with a room.
    count: usize,
    /// Everything in the ring from this time on was handed out, or is in the queue.
    floor: SampleTime,
    /// Times below the floor that came live.
    below: BTreeSet<SampleTime>,
}

/// What a watch of a series begins with.
pub(super) struct Opened {
    pub(super) id: SeriesId,
    pub(super) series: Option<Series>,
    pub(super) samples: Samples,
    /// Events that were read on the way; they come next.
    pub(super) then: Vec<Event>,
}

/// What a change of a room or a sensor does to the watches.
#[derive(Debug, Default)]
pub(super) struct Turned {
    /// Series to be followed next.
    pub(super) openings: Vec<Opening>,
    /// Watches that have other sensors than before.
    pub(super) watches: Vec<u64>,
    /// Why some series are not followed.
    pub(super) refused: Option<Refused>,
}

const NEVER: SampleTime = SampleTime(i64::MIN);

impl Watches {
    /// No watches yet; the catalogue is followed.
    pub(super) fn new(store: Store) -> Self {
        let mut subscription = store.subscribe(QUEUE_SAMPLES);
        subscription.follow_catalog(true);
        Self { store, subscription, open: HashMap::new(), followed: HashMap::new(), next_reference: 1 }
    }

    /// Where the events come from.
    pub(super) fn subscription(&mut self) -> &mut Subscription {
        &mut self.subscription
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        self.subscription.next().await
    }

    /// The next event, if there is one.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.subscription.try_next()
    }

    /// Series that were promised a place.
    fn promised(&self) -> usize {
        let of = |open: &Open| open.named.capacity() + open.sensors.values().map(HashMap::len).sum::<usize>();
        self.open.values().map(of).sum()
    }

    /// Makes room for a watch; one of the same number ends. The answer is to be opened next.
    pub(super) fn begin(&mut self, watch: Watch) -> Result<Vec<Opening>, Refused> {
        let Watch { id, series, rooms, since, backfill, .. } = watch;
        self.end(id);
        let refused = |code, message| Err(Refused { code, message, id: Some(id) });
        if self.open.len() >= MAX_WATCHES {
            return refused("too_many_watches", format!("{MAX_WATCHES} watches are open; end one first"));
        }
        if let Some(room) = rooms.iter().find(|room| !self.store.has_room(room)) {
            return refused("unknown_room", format!("there is no room {:?}", room.as_str()));
        }
        let promised = self.promised();
        if promised + series.len() > MAX_SERIES {
            return Err(too_many(id, series.len(), promised));
        }
        let named = Vec::with_capacity(series.len());
        self.open.insert(id, Open { named, rooms, sensors: HashMap::new(), backfill, since });
        let mut turned = Turned::default();
        self.turn(id, &mut turned);
        if let Some(refused) = turned.refused {
            self.end(id);
            return Err(refused);
        }
        let by_name =
            series.into_iter().map(|wish| Opening { watch: id, wish, backfill, through_room: false });
        Ok(by_name.chain(turned.openings).collect())
    }

    /// Ends a watch; series that no other names are followed no longer.
    pub(super) fn end(&mut self, id: u64) {
        let Some(open) = self.open.remove(&id) else { return };
        let of_rooms = open.sensors.into_values().flatten().filter(|(_, followed)| *followed);
        for series in open.named.into_iter().chain(of_rooms.map(|(series, _)| series)) {
            self.release(series);
        }
    }

    /// One reason less to follow a series.
    fn release(&mut self, series: SeriesId) {
        let Some(followed) = self.followed.get_mut(&series) else { return };
        followed.count -= 1;
        if followed.count == 0 {
            let (sensor, attribute) = &followed.wish.key;
            self.subscription.unfollow(sensor, attribute);
            self.followed.remove(&series);
        }
    }

    /// The sensors of a watch's rooms.
    pub(super) fn sensors(&self, id: u64) -> impl Iterator<Item = &SensorId> {
        self.open.get(&id).into_iter().flat_map(|open| open.sensors.keys())
    }

    /// Whether some watch has this room.
    pub(super) fn has_room(&self, room: &RoomId) -> bool {
        self.open.values().any(|open| open.rooms.contains(room))
    }

    /// A room has changed: its watches turn to the sensors that it has now. A room that is gone has none.
    pub(super) fn room_changed(&mut self, room: &RoomId) -> Turned {
        let mut turned = Turned::default();
        let watches = self.open.iter().filter(|(_, open)| open.rooms.contains(room));
        for id in watches.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.turn(id, &mut turned);
        }
        turned
    }

    /// Holds the sensors of a watch against those that its rooms have.
    fn turn(&mut self, id: u64, turned: &mut Turned) {
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.rooms.is_empty()) else { return };
        let store = &self.store;
        let views = open.rooms.iter().filter_map(|room| store.room(room.as_str()));
        let wanted: HashSet<SensorId> = views.flat_map(|view| view.sensors).collect();
        let gone: Vec<_> = open.sensors.keys().filter(|sensor| !wanted.contains(*sensor)).cloned().collect();
        let released: Vec<_> = gone.iter().filter_map(|sensor| open.sensors.remove(sensor)).collect();
        let new: Vec<_> = wanted.into_iter().filter(|sensor| !open.sensors.contains_key(sensor)).collect();
        open.sensors.extend(new.iter().map(|sensor| (sensor.clone(), HashMap::new())));
        let backfill = open.backfill;
        if !(gone.is_empty() && new.is_empty()) {
            turned.watches.push(id);
        }
        for (series, followed) in released.into_iter().flatten() {
            if followed {
                self.release(series);
            }
        }
        let mut promised = self.promised();
        for sensor in new {
            self.take_up(id, &sensor, backfill, &mut promised, turned);
        }
    }

    /// A sensor is new or has changed: its series that were not there before are followed from their first sample on.
    pub(super) fn sensor_changed(&mut self, sensor: &SensorId) -> Turned {
        let mut turned = Turned::default();
        let watches = self.open.iter().filter(|(_, open)| open.sensors.contains_key(sensor));
        let watches: Vec<_> = watches.map(|(id, _)| *id).collect();
        if !watches.is_empty() {
            let mut promised = self.promised();
            for id in watches {
                self.take_up(id, sensor, MAX_KEEP, &mut promised, &mut turned);
            }
        }
        turned
    }

    /// Promises a place to each series of a room's sensor that has none in this watch.
    fn take_up(
        &mut self,
        id: u64,
        sensor: &SensorId,
        backfill: usize,
        promised: &mut usize,
        turned: &mut Turned,
    ) {
        let Some(view) = self.store.sensor(sensor.as_str()) else { return };
        let Some(open) = self.open.get_mut(&id) else { return };
        let Some(held) = open.sensors.get_mut(sensor) else { return };
        let new = view.attributes.into_keys().filter_map(|attribute| {
            let series = SeriesId::of(sensor, &attribute);
            (!held.contains_key(&series)).then_some((series, attribute))
        });
        let new: Vec<_> = new.collect();
        if *promised + new.len() > MAX_SERIES {
            turned.refused = Some(too_many(id, new.len(), *promised));
            return;
        }
        *promised += new.len();
        for (series, attribute) in new {
            held.insert(series, false);
            let since = open.since.remove(&format!("{sensor}/{attribute}"));
            let wish = Wish { key: (sensor.clone(), attribute), since };
            turned.openings.push(Opening { watch: id, wish, backfill, through_room: true });
        }
    }

    /// Follows a series. `None` when its watch has ended, or its sensor has left the room.
    pub(super) fn open(&mut self, opening: &Opening) -> Option<Opened> {
        let Opening { watch, wish, backfill, through_room } = opening;
        let series_id = SeriesId::of(&wish.key.0, &wish.key.1);
        let open = self.open.get_mut(watch)?;
        if *through_room {
            let followed = open.sensors.get_mut(&wish.key.0)?.get_mut(&series_id)?;
            if std::mem::replace(followed, true) {
                return None;
            }
        } else {
            open.named.push(series_id);
        }
        Some(match self.followed.get_mut(&series_id) {
            Some(followed) => {
                followed.count += 1;
                self.extend(series_id, wish, *backfill)
            }
            None => self.follow(series_id, wish, *backfill),
        })
    }

    fn follow(&mut self, id: SeriesId, wish: &Wish, backfill: usize) -> Opened {
        let (sensor, attribute) = &wish.key;
        let first = match wish.since {
            Some(since) => Backfill::Since(since),
            None if backfill == 0 => Backfill::None,
            None => Backfill::Newest(backfill),
        };
        let samples = self.subscription.follow(sensor, attribute, first);
        let series = self.store.find(sensor.as_str(), attribute.as_str());
        let all = matches!(first, Backfill::Newest(count) if samples.times.len() < count);
        let floor = match samples.times.first() {
            _ if all => NEVER,
            Some(time) => *time,
            None => series.as_ref().map_or(NEVER, end_of),
        };
        let followed = Followed {
            wish: wish.clone(),
            name: format!("{sensor}/{attribute}"),
            reference: self.next_reference,
            announced: None,
            count: 1,
            floor,
            below: BTreeSet::new(),
        };
        self.next_reference = self.next_reference.wrapping_add(1);
        self.followed.insert(id, followed);
        Opened { id, series, samples, then: Vec::new() }
    }

    /// Reads what a further watch asks for and no earlier one was sent.
    fn extend(&mut self, id: SeriesId, wish: &Wish, backfill: usize) -> Opened {
        let (sensor, attribute) = &wish.key;
        let series = self.store.find(sensor.as_str(), attribute.as_str());
        let mut opened = Opened { id, series, samples: nothing(), then: Vec::new() };
        let (Some(series), Some(followed)) = (&opened.series, self.followed.get_mut(&id)) else {
            return opened;
        };
        if followed.floor == NEVER || (backfill == 0 && wish.since.is_none()) {
            return opened;
        }
        let query = match wish.since {
            Some(since) => Query {
                from: Some(SampleTime(since.0.saturating_add(1))),
                to: Some(followed.floor),
                limit: MAX_KEEP,
                points: None,
            },
            None => Query::newest(backfill),
        };
        let read = series.read(&query);
        // Whatever the ring held at that moment and was not handed out is in the queue by now.
        let mut queued = BTreeSet::new();
        while opened.then.len() <= QUEUE_SAMPLES
            && let Some(event) = self.subscription.try_next()
        {
            if let Event::Samples(change) = &event
                && change.series.id() == id
            {
                queued.extend(change.times.iter().copied());
            }
            opened.then.push(event);
        }
        let wanted: Vec<usize> = (0..read.times.len())
            .filter(|index| {
                let time = &read.times[*index];
                *time < followed.floor && !followed.below.contains(time) && !queued.contains(time)
            })
            .collect();
        if wish.since.is_none() && read.times.len() < backfill {
            followed.floor = NEVER;
        } else if let Some(first) = read.times.first() {
            followed.floor = followed.floor.min(*first);
        }
        let floor = followed.floor;
        followed.below.retain(|time| *time < floor);
        opened.samples = pick(&read, &wanted);
        opened
    }

    /// Notes that live samples are being handed out, and says to which series they belong; `None` when it is no
    /// longer watched.
    pub(super) fn live(&mut self, change: &Change) -> Option<&mut Followed> {
        let followed = self.followed.get_mut(&change.series.id())?;
        if followed.floor != NEVER {
            let floor = followed.floor;
            followed.below.extend(change.times.iter().filter(|time| **time < floor));
            if followed.below.len() > MAX_BELOW {
                (followed.floor, followed.below) = (NEVER, BTreeSet::new());
            }
        }
        Some(followed)
    }

    /// The series that was just opened.
    pub(super) fn followed(&mut self, id: SeriesId) -> Option<&mut Followed> {
        self.followed.get_mut(&id)
    }
}

/// Behind the newest sample of a series.
fn end_of(series: &Series) -> SampleTime {
    series.view().last.map_or(NEVER, |(time, _)| SampleTime(time.0.saturating_add(1)))
}

fn too_many(id: u64, more: usize, promised: usize) -> Refused {
    let message =
        format!("{more} series more than the {promised} watched already; expected at most {MAX_SERIES}");
    Refused { code: "too_many_series", message, id: Some(id) }
}

fn nothing() -> Samples {
    Samples { times: Vec::new(), values: Values::Numbers { channels: 1, flat: Vec::new() } }
}

fn pick(samples: &Samples, wanted: &[usize]) -> Samples {
    let values = match &samples.values {
        Values::Numbers { channels, flat } => {
            let row = |index: &usize| flat[index * channels..(index + 1) * channels].iter().copied();
            Values::Numbers { channels: *channels, flat: wanted.iter().flat_map(row).collect() }
        }
        Values::Texts(texts) => Values::Texts(wanted.iter().map(|index| texts[*index].clone()).collect()),
    };
    Samples { times: wanted.iter().map(|index| samples.times[*index]).collect(), values }
}
