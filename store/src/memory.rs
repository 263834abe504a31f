//! The memory tier: every series by its names, and the budget that they share; every room.
//!
//! Invariant: the bytes promised to rings never exceed the limit; a series that would exceed it is refused. A series
//! that was cleared keeps its place and its names, gives back what was promised to its ring, and is not shown.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::Config;
use crate::error::Refusal;
use crate::feed::Feed;
use crate::model::ids::{Attribute, SensorId, SeriesId};
use crate::model::kind::Kind;
use crate::model::value::Shape;
use crate::registry::AttributeDescription;
use crate::registry::retained::Retained;
use crate::registry::rooms::Rooms;
use crate::ring::Ring;
use crate::series::{Sensor, Series, keep_of, shape_of};

/// Bytes that a series takes beside its ring: names, descriptor, locks, index.
const SERIES_BYTES: u64 = 1024;

#[derive(Debug)]
pub(crate) struct Held {
    pub entry: Arc<Sensor>,
    pub attributes: BTreeMap<Attribute, Series>,
}

impl Held {
    /// Whether there is anything of it since it was cleared.
    fn is_there(&self) -> bool {
        self.entry.cleared.lock().is_none()
            || self.entry.name.lock().val.is_some()
            || self.attributes.values().any(|series| !series.is_gone())
    }

    fn shown(&self) -> (Arc<Sensor>, Vec<Series>) {
        let there = self.attributes.values().filter(|series| !series.is_gone());
        (self.entry.clone(), there.cloned().collect())
    }
}

/// All series.
pub(crate) struct Memory {
    config: Config,
    sensors: RwLock<Catalog>,
    reserved: AtomicU64,
    /// Held while what is promised to a series changes.
    promising: Mutex<()>,
    /// Lock order: after replication and the feed's wishes, before the group; not held while a series' lock is taken.
    pub rooms: RwLock<Rooms>,
    /// Lock order: as with rooms.
    pub retained: RwLock<Retained>,
    pub feed: Feed,
}

#[derive(Default)]
struct Catalog {
    by_name: BTreeMap<SensorId, Held>,
    by_id: HashMap<SeriesId, Series>,
}

/// What was found or made.
pub(crate) struct Found {
    pub series: Series,
    pub new: bool,
}

impl Memory {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            sensors: RwLock::default(),
            reserved: AtomicU64::new(0),
            promising: Mutex::new(()),
            rooms: RwLock::default(),
            retained: RwLock::default(),
            feed: Feed::default(),
        }
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// How many sensors and series there are to be seen.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let catalog = self.sensors.read();
        let sensors = catalog.by_name.values().filter(|held| held.is_there()).count();
        (sensors, catalog.by_id.values().filter(|series| !series.is_gone()).count())
    }

    /// Every series of a sensor, gone or not.
    pub(crate) fn of(&self, sensor: &SensorId) -> Vec<Series> {
        let catalog = self.sensors.read();
        catalog.by_name.get(sensor).map_or(Vec::new(), |held| held.attributes.values().cloned().collect())
    }

    /// Every sensor and its series, gone or not.
    pub(crate) fn everything(&self) -> Vec<(Arc<Sensor>, Vec<Series>)> {
        let catalog = self.sensors.read();
        let series = |held: &Held| held.attributes.values().cloned().collect();
        catalog.by_name.values().map(|held| (held.entry.clone(), series(held))).collect()
    }

    pub(crate) fn find(&self, sensor: &str, attribute: &str) -> Option<Series> {
        self.sensors.read().by_name.get(sensor)?.attributes.get(attribute).cloned()
    }

    /// Finds the series, or calls `absent` before one can be made.
    pub(crate) fn find_or(&self, sensor: &str, attribute: &str, absent: impl FnOnce()) -> Option<Series> {
        let catalog = self.sensors.read();
        let found = catalog.by_name.get(sensor).and_then(|held| held.attributes.get(attribute)).cloned();
        if found.is_none() {
            absent();
        }
        found
    }

    pub(crate) fn by_id(&self, id: SeriesId) -> Option<Series> {
        self.sensors.read().by_id.get(&id).cloned()
    }

    /// Calls `first`, then `each` with every series, with none made in between.
    pub(crate) fn each_series(&self, first: impl FnOnce(), each: impl FnMut(&Series)) {
        let catalog = self.sensors.read();
        first();
        catalog.by_id.values().for_each(each);
    }

    /// These sensors are in other rooms than before: their series get the followers that ask for them there.
    pub(crate) fn moved(&self, sensors: &[SensorId]) {
        if sensors.is_empty() || !self.feed.follows_rooms() {
            return;
        }
        let catalog = self.sensors.read();
        for held in sensors.iter().filter_map(|sensor| catalog.by_name.get(sensor)) {
            held.attributes.values().for_each(|series| self.feed.moved(series, &self.rooms));
        }
    }

    /// Every series.
    pub(crate) fn all(&self) -> Vec<Series> {
        self.sensors.read().by_id.values().cloned().collect()
    }

    pub(crate) fn sensor(&self, sensor: &SensorId) -> Arc<Sensor> {
        if let Some(held) = self.sensors.read().by_name.get(sensor) {
            return held.entry.clone();
        }
        let mut catalog = self.sensors.write();
        catalog.hold(sensor).entry.clone()
    }

    /// The sensor and its series, when it is known and not gone.
    pub(crate) fn known(&self, sensor: &str) -> Option<(Arc<Sensor>, Vec<Series>)> {
        let catalog = self.sensors.read();
        catalog.by_name.get(sensor).filter(|held| held.is_there()).map(Held::shown)
    }

    /// Up to `limit` sensors behind `after` for which `wanted` holds, by name.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Sensor) -> bool,
    ) -> Vec<(Arc<Sensor>, Vec<Series>)> {
        let catalog = self.sensors.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = catalog.by_name.range::<str, _>((from, Bound::Unbounded));
        let wanted = behind.filter(|(_, held)| wanted(&held.entry) && held.is_there());
        wanted.take(limit).map(|(_, held)| held.shown()).collect()
    }

    /// The series, made with the described kind, or the one that its name and first value imply.
    pub(crate) fn find_or_make(
        &self,
        sensor: &SensorId,
        attribute: &Attribute,
        shape: Option<Shape>,
        description: &AttributeDescription,
    ) -> Result<Found, Refusal> {
        let found = self.find(sensor.as_str(), attribute.as_str());
        if let Some(series) = found.as_ref().filter(|series| !series.is_gone()) {
            return Ok(Found { series: series.clone(), new: false });
        }
        let kind = description.kind.unwrap_or_else(|| match shape {
            Some(shape) => Kind::infer(attribute.as_str(), shape),
            None => Kind::parse(attribute.as_str()).unwrap_or(Kind::Number),
        });
        let shape = match shape {
            Some(shape) => shape,
            None => shape_of(kind, description),
        };
        let keep = keep_of(&self.config, kind, description.keep.unwrap_or(0), description.rate_hz);
        if let Some(series) = found {
            return self.bring_back(series, kind, keep, shape);
        }
        let mut catalog = self.sensors.write();
        if let Some(series) = catalog.by_name.get(sensor).and_then(|held| held.attributes.get(attribute)) {
            return Ok(Found { series: series.clone(), new: false });
        }
        let known = catalog.by_name.get(sensor).map(|held| held.entry.clone());
        let series =
            Series::new(known.unwrap_or_else(|| Arc::new(Sensor::new(sensor))), attribute, kind, keep, shape);
        series.check(kind, shape)?;
        self.reserve(&series, keep, shape)?;
        let held = catalog
            .by_name
            .entry(sensor.clone())
            .or_insert_with(|| Held { entry: series.sensor_entry().clone(), attributes: BTreeMap::new() });
        held.attributes.insert(attribute.clone(), series.clone());
        catalog.by_id.insert(series.id(), series.clone());
        self.feed.born(&series, &self.rooms);
        drop(catalog);
        Ok(Found { series, new: true })
    }

    /// Readies a series that is gone for what comes next; whoever sees it come is told then.
    fn bring_back(&self, series: Series, kind: Kind, keep: usize, shape: Shape) -> Result<Found, Refusal> {
        series.check(kind, shape)?;
        self.reserve(&series, keep, shape)?;
        let mut state = series.lock();
        if state.is_gone() {
            state.restart(&self.config, kind, shape);
        }
        drop(state);
        Ok(Found { series, new: false })
    }

    /// The series that an operation describes, made without asking for memory: that was asked where the operation was.
    pub(crate) fn describe_series(
        &self,
        sensor: &SensorId,
        attribute: &Attribute,
        description: &AttributeDescription,
    ) -> Series {
        let kind = description.kind.or(Kind::parse(attribute.as_str())).unwrap_or(Kind::Number);
        self.restore(sensor, attribute, kind, shape_of(kind, description))
    }

    /// Promises the series the memory of a full ring; refused when the limit would be exceeded.
    pub(crate) fn reserve(&self, series: &Series, keep: usize, shape: Shape) -> Result<(), Refusal> {
        let needed = Ring::bytes_when_full(keep, shape) + SERIES_BYTES;
        let _promising = self.promising.lock();
        let more = needed.saturating_sub(series.reserved() as u64);
        let limit = self.config.memory_limit;
        let step = |held: u64| held.checked_add(more).filter(|sum| *sum <= limit);
        match self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(_) => {
                series.set_reserved(series.reserved() + more as usize);
                Ok(())
            }
            Err(held) => Err(Refusal::TooManySeries {
                sensor: series.sensor().clone(),
                attribute: series.attribute().clone(),
                needed: more,
                held,
                limit,
            }),
        }
    }

    /// Promises memory beyond the limit too: what the disk held at start, and what a peer took, is kept.
    pub(crate) fn hold(&self, series: &Series) {
        let state = series.lock();
        let ring = Ring::bytes_when_full(state.ring.keep(), state.ring.shape());
        let needed = SERIES_BYTES + if state.is_gone() { 0 } else { ring };
        drop(state);
        if needed <= series.reserved() as u64 {
            return;
        }
        let _promising = self.promising.lock();
        let more = needed.saturating_sub(series.reserved() as u64);
        self.reserved.fetch_add(more, Ordering::Relaxed);
        series.set_reserved(series.reserved() + more as usize);
    }

    /// Gives back what was promised to the ring of a series that is gone.
    pub(crate) fn release(&self, series: &Series) {
        let _promising = self.promising.lock();
        let less = (series.reserved() as u64).saturating_sub(SERIES_BYTES);
        self.reserved.fetch_sub(less, Ordering::Relaxed);
        series.set_reserved(series.reserved() - less as usize);
    }

    /// Puts a series that the disk or another node has in its place, without asking for memory.
    pub(crate) fn restore(
        &self,
        sensor: &SensorId,
        attribute: &Attribute,
        kind: Kind,
        shape: Shape,
    ) -> Series {
        if let Some(series) = self.find(sensor.as_str(), attribute.as_str()) {
            return series;
        }
        let keep = keep_of(&self.config, kind, 0, None);
        let mut catalog = self.sensors.write();
        let held = catalog.hold(sensor);
        if let Some(series) = held.attributes.get(attribute) {
            return series.clone();
        }
        let series = Series::new(held.entry.clone(), attribute, kind, keep, shape);
        held.attributes.insert(attribute.clone(), series.clone());
        catalog.by_id.insert(series.id(), series.clone());
        self.feed.born(&series, &self.rooms);
        series
    }
}

impl Catalog {
    fn hold(&mut self, sensor: &SensorId) -> &mut Held {
        self.by_name
            .entry(sensor.clone())
            .or_insert_with(|| Held { entry: Arc::new(Sensor::new(sensor)), attributes: BTreeMap::new() })
    }
}
