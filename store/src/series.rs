//! One series in memory: its ring, its descriptor, the run that the next frame takes, and who follows it.
//!
//! Invariant: joining the ring, encoding into the open run and telling the followers happen in one critical section,
//! so whatever a frame holds was in memory before the frame was sealed, and followers see changes in one order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Stamp;
use crate::config::{Config, MAX_KEEP, MAX_KEEP_TEXTS};
use crate::disk::chunks::Span;
use crate::error::Refusal;
use crate::feed::Follower;
use crate::ledger::Counters;
use crate::model::ids::{Attribute, Partition, SensorId, SeriesId};
use crate::model::kind::Kind;
use crate::model::time::SampleTime;
use crate::model::value::{Shape, Values};
use crate::registry::{AttributeDescription, Keeps, Register, unset};
use crate::replica::frame::RunWriter;
use crate::ring::{Ring, Samples};

/// A device may come back to a viewer who asks for everything that arrived in the last 30 s: arrivals are noted in
/// this many slots of [`ARRIVAL_SLOT_US`].
const ARRIVAL_SLOTS: usize = 4;
/// Width of an arrival slot.
const ARRIVAL_SLOT_US: i64 = 10_000_000;

/// What the series of one sensor share.
#[derive(Debug)]
pub(crate) struct Sensor {
    pub id: SensorId,
    pub partition: Partition,
    pub name: Mutex<Register<String>>,
    /// The newest clear: what is not newer, said or measured, is void. Lock order: before the series.
    pub cleared: Mutex<Option<Stamp>>,
    pub counters: Counters,
    /// The node that took its samples last; 0 for this one.
    pub taker: AtomicU64,
    /// What is said of it is not in the `descriptors` table yet.
    pub unsaved: AtomicBool,
}

impl Sensor {
    pub(crate) fn new(id: &SensorId) -> Self {
        Self {
            id: id.clone(),
            partition: Partition::of(id),
            name: Mutex::new(unset()),
            cleared: Mutex::new(None),
            counters: Counters::default(),
            taker: AtomicU64::new(0),
            unsaved: AtomicBool::new(false),
        }
    }
}

/// A series: a cheap handle that stays valid for the life of the store.
#[derive(Clone)]
pub struct Series(Arc<Entry>);

struct Entry {
    id: SeriesId,
    attribute: Attribute,
    sensor: Arc<Sensor>,
    state: Mutex<State>,
    /// Bytes promised to its ring out of the memory limit.
    reserved: AtomicUsize,
}

/// What changes in a series.
#[derive(Debug)]
pub(crate) struct State {
    pub ring: Ring,
    pub kind: Kind,
    pub unit: Register<String>,
    pub rate_hz: Register<f64>,
    pub channels: Register<Vec<String>>,
    /// Declared by someone.
    pub keeps: Keeps,
    /// The newest description that named it.
    pub described: Option<Stamp>,
    /// Samples for the next frame.
    pub open: Option<OpenRun>,
    /// Stamps below this are taken.
    pub next_stamp: u64,
    /// Whether this origin has named the series in a block.
    pub named: bool,
    /// Whether the `series` table has it.
    pub recorded: bool,
    pub followers: Vec<Follower>,
    pub arrivals: Arrivals,
    /// Oldest time joined since the last checkpoint.
    pub dirty_from: Option<i64>,
    /// The chunks on disk, by time.
    pub chunks: Vec<Span>,
}

impl State {
    /// Whether it was cleared, and nothing came since: readers are told that there is no such series. It stays in its
    /// place, since handles of it are held, and since origins that named it do not name it again.
    pub(crate) fn is_gone(&self) -> bool {
        self.ring.is_empty() && self.ring.cleared().is_some_and(|cleared| self.described <= Some(cleared))
    }

    /// A series that is gone comes back as one of this kind and shape, with the `keep` of one of which nothing was said.
    pub(crate) fn restart(&mut self, config: &Config, kind: Kind, shape: Shape) {
        let keep = keep_of(config, kind, 0, None);
        if (self.ring.shape(), self.ring.keep()) != (shape, keep) {
            self.replace_ring(keep, shape);
        }
        self.recorded &= self.kind == kind;
        self.kind = kind;
    }

    /// An empty ring in the place of the one held.
    pub(crate) fn replace_ring(&mut self, keep: usize, shape: Shape) {
        let ring = Ring::new(keep, shape);
        if let Some(cleared) = std::mem::replace(&mut self.ring, ring).cleared() {
            self.ring.clear(cleared);
        }
    }

    /// The next sample gets a newer stamp than `stamp`, whatever clock that is of.
    pub(crate) fn stamp_behind(&mut self, stamp: Stamp, series: SeriesId) {
        self.next_stamp = self.next_stamp.max(stamp.time.saturating_add(1));
        if let Some(open) = &mut self.open {
            let next = self.next_stamp.max(open.writer.next_stamp());
            let writer = RunWriter::new(next, open.writer.channels());
            std::mem::replace(&mut open.writer, writer).finish(series, &mut open.finished);
        }
    }

    /// Notes what the next checkpoint has to write.
    pub(crate) fn soil(&mut self, samples: &Samples) {
        let oldest = samples.times.iter().map(|time| time.0).min();
        self.dirty_from = self.dirty_from.into_iter().chain(oldest).min();
    }
}

/// The run that the next frame takes, and the runs of other widths before it.
#[derive(Debug)]
pub(crate) struct OpenRun {
    pub ticket: crate::group::Ticket,
    pub finished: Vec<u8>,
    pub writer: RunWriter,
    pub bytes: usize,
}

/// The oldest sample time that arrived in each of the last slots.
#[derive(Debug, Default)]
pub(crate) struct Arrivals([(i64, i64); ARRIVAL_SLOTS]);

impl Arrivals {
    pub(crate) fn note(&mut self, now: SampleTime, oldest: i64) {
        let slot = now.0 / ARRIVAL_SLOT_US;
        let held = &mut self.0[slot.rem_euclid(ARRIVAL_SLOTS as i64) as usize];
        *held = if held.0 == slot { (slot, held.1.min(oldest)) } else { (slot, oldest) };
    }

    /// The oldest sample time that arrived in the last 30 s (and up to 10 s more).
    pub(crate) fn oldest(&self, now: SampleTime) -> Option<i64> {
        let slot = now.0 / ARRIVAL_SLOT_US;
        let recent = self.0.iter().filter(|held| held.0 > slot - ARRIVAL_SLOTS as i64 && held.0 != 0);
        recent.map(|held| held.1).min()
    }
}

/// A value that owns its numbers or text.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// A number per channel; NaN where missing.
    Numbers(Vec<f64>),
    /// A text.
    Text(Box<str>),
}

/// What there is to say of one attribute of a sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributeView {
    /// What it measures.
    pub kind: Kind,
    /// Unit of the (first) channel; empty where none is known.
    pub unit: String,
    /// Names of the channels; empty for texts.
    pub channels: Vec<String>,
    /// Units of the channels, as many.
    pub units: Vec<String>,
    /// Declared samples a second.
    pub rate_hz: Option<f64>,
    /// Samples kept.
    pub keep: usize,
    /// Samples held.
    pub held: usize,
    /// The newest.
    pub last: Option<(SampleTime, OwnedValue)>,
}

impl Series {
    pub(crate) fn new(
        sensor: Arc<Sensor>,
        attribute: &Attribute,
        kind: Kind,
        keep: usize,
        shape: Shape,
    ) -> Self {
        let id = SeriesId::of(&sensor.id, attribute);
        let cleared = *sensor.cleared.lock();
        let mut state = State {
            ring: Ring::new(keep, shape),
            kind,
            unit: unset(),
            rate_hz: unset(),
            channels: unset(),
            keeps: Keeps::default(),
            described: None,
            open: None,
            next_stamp: 0,
            named: false,
            recorded: false,
            followers: Vec::new(),
            arrivals: Arrivals::default(),
            dirty_from: None,
            chunks: Vec::new(),
        };
        if let Some(cleared) = cleared {
            state.ring.clear(cleared);
            state.stamp_behind(cleared, id);
        }
        Self(Arc::new(Entry {
            id,
            attribute: attribute.clone(),
            sensor,
            state: Mutex::new(state),
            reserved: AtomicUsize::new(0),
        }))
    }

    /// Its id.
    pub fn id(&self) -> SeriesId {
        self.0.id
    }

    /// Whose it is.
    pub fn sensor(&self) -> &SensorId {
        &self.0.sensor.id
    }

    /// What it measures.
    pub fn attribute(&self) -> &Attribute {
        &self.0.attribute
    }

    /// Where it is kept.
    pub fn partition(&self) -> Partition {
        self.0.sensor.partition
    }

    /// How many subscriptions follow it.
    pub fn followers(&self) -> usize {
        self.lock().followers.len()
    }

    pub(crate) fn sensor_entry(&self) -> &Arc<Sensor> {
        &self.0.sensor
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    pub(crate) fn reserved(&self) -> usize {
        self.0.reserved.load(Ordering::Relaxed)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.lock().is_gone()
    }

    pub(crate) fn set_reserved(&self, bytes: usize) {
        self.0.reserved.store(bytes, Ordering::Relaxed);
    }

    /// What there is to say of it.
    pub fn view(&self) -> AttributeView {
        let state = self.lock();
        let ring = &state.ring;
        let width = match ring.shape() {
            Shape::Numbers(channels) => channels,
            Shape::Text => 0,
        };
        let mut channels = state.kind.channel_names(width);
        if let Some(declared) = &state.channels.val {
            channels.iter_mut().zip(declared).for_each(|(name, declared)| name.clone_from(declared));
        }
        let named = state.kind.named_channels();
        let unit = match &state.unit.val {
            Some(unit) => unit.clone(),
            None => state.kind.unit().to_owned(),
        };
        let unit_of = |channel: usize| match named.get(channel) {
            Some(named) if channel > 0 => named.unit.to_owned(),
            _ => unit.clone(),
        };
        let last = ring.len().checked_sub(1).map(|index| {
            let sample = ring.copy(index..index + 1);
            let value = match sample.values {
                Values::Numbers { flat, .. } => OwnedValue::Numbers(flat),
                Values::Texts(mut texts) => OwnedValue::Text(texts.pop().unwrap_or_default()),
            };
            (sample.times[0], value)
        });
        AttributeView {
            kind: state.kind,
            units: (0..width).map(unit_of).collect(),
            unit,
            channels,
            rate_hz: state.rate_hz.val,
            keep: ring.keep(),
            held: ring.len(),
            last,
        }
    }

    /// Whether values of `shape` may be appended.
    pub(crate) fn check(&self, kind: Kind, shape: Shape) -> Result<(), Refusal> {
        if kind.takes(shape) {
            return Ok(());
        }
        let (sensor, attribute) = (self.sensor().clone(), self.attribute().clone());
        Err(match shape {
            Shape::Text => Refusal::NotNumber { sensor, attribute, kind },
            Shape::Numbers(_) if kind.is_text() => Refusal::NotText { sensor, attribute, kind },
            Shape::Numbers(channels) => Refusal::TooManyChannels { sensor, attribute, kind, channels },
        })
    }
}

/// The bound of a ring: what was declared, else the default or one minute at the declared rate, whichever is more.
pub(crate) fn keep_of(config: &Config, kind: Kind, declared: usize, rate_hz: Option<f64>) -> usize {
    let most = if kind.is_text() { MAX_KEEP_TEXTS } else { MAX_KEEP };
    let keep = if declared > 0 {
        declared
    } else {
        let minute = rate_hz.filter(|rate| rate.is_finite()).map_or(0, |rate| (rate * 60.0).ceil() as usize);
        config.keep.max(minute)
    };
    keep.clamp(1, most)
}

/// The shape of the ring of a described, still empty series.
pub(crate) fn shape_of(kind: Kind, description: &AttributeDescription) -> Shape {
    if kind.is_text() {
        return Shape::Text;
    }
    let declared = description.channels.as_ref().map_or(0, Vec::len);
    Shape::Numbers(declared.clamp(kind.named_channels().len(), kind.max_channels()))
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Series {}

impl std::hash::Hash for Series {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.sensor(), self.attribute())
    }
}
