//! The ring: the newest `keep` samples of one series by sample time. It is a lattice.
//!
//! Join is union by time; at equal time the higher stamp wins, then the greater value; then the newest `keep` stay.
//! Since `top(top(A) ∪ B) = top(A ∪ B)`, join is associative, commutative and idempotent, whatever order samples come
//! in. There are no tombstones: what was evicted cannot come back, being older than `keep` others.
//!
//! A clear is a stamp, joined by max: samples that are not newer are let go of, and ignored when they come again. It is
//! the one thing here that depends on order, where samples were evicted before it came: see [`Ring::clear`].
//!
//! Samples lie in columns, 28 bytes each for one channel. Columns grow by an eighth, and never past `keep`.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crdts::{CmRDT, CvRDT};

use crate::clock::Stamp;
use crate::model::time::SampleTime;
use crate::model::value::{Shape, ValueRef, Values};

/// Out-of-order batches up to this size are inserted one by one; larger ones are merged in one pass.
const INSERT_AT_MOST: usize = 16;

/// What became of joined samples: each is counted once, by its own fate; `evicted` counts those pushed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Joined {
    /// New times.
    pub stored: usize,
    /// Same time and value as one held.
    pub duplicate: usize,
    /// Same time, another value, and newer: it took the place of the one held.
    pub replaced: usize,
    /// Same time, another value, and older than the one held: dropped.
    pub outdated: usize,
    /// Older than the whole full ring: dropped.
    pub late: usize,
    /// Not newer than the clear of their ring: dropped.
    pub cleared: usize,
    /// Samples that newer ones pushed out.
    pub evicted: usize,
}

impl Joined {
    /// Adds `other` up.
    pub fn add(&mut self, other: Joined) {
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        self.replaced += other.replaced;
        self.outdated += other.outdated;
        self.late += other.late;
        self.cleared += other.cleared;
        self.evicted += other.evicted;
    }
}

/// A batch of samples of one series: what is joined, sent and written. Sample `i` has the stamp `stamps.at(i)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Times, in any order.
    pub times: Vec<SampleTime>,
    /// As many values.
    pub values: Values,
}

impl Samples {
    /// Samples `range`, copied.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let values = match &self.values {
            Values::Numbers { channels, flat } => Values::Numbers {
                channels: *channels,
                flat: flat[range.start * channels..range.end * channels].to_vec(),
            },
            Values::Texts(texts) => Values::Texts(texts[range.clone()].to_vec()),
        };
        Self { times: self.times[range].to_vec(), values }
    }

    /// The samples at `indices`, copied.
    pub fn pick(&self, indices: &[usize]) -> Self {
        let times = indices.iter().map(|index| self.times[*index]).collect();
        let values = match &self.values {
            Values::Numbers { channels, flat } => {
                let row = |index: &usize| flat[index * channels..(index + 1) * channels].iter().copied();
                Values::Numbers { channels: *channels, flat: indices.iter().flat_map(row).collect() }
            }
            Values::Texts(texts) => {
                Values::Texts(indices.iter().map(|index| texts[*index].clone()).collect())
            }
        };
        Self { times, values }
    }
}

/// The stamps of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Stamps {
    /// Sample `i` has this plus `i`.
    From(Stamp),
    /// One each.
    Each(Vec<Stamp>),
}

impl Stamps {
    fn at(&self, index: usize) -> Stamp {
        match self {
            Self::From(first) => first.plus(index),
            Self::Each(stamps) => stamps[index],
        }
    }

    /// Which of `count` samples are newer than `cleared`; `None` when all are.
    fn newer(&self, count: usize, cleared: Stamp) -> Option<Vec<usize>> {
        let all = match self {
            Self::From(first) => *first > cleared,
            Self::Each(stamps) => stamps.iter().all(|stamp| *stamp > cleared),
        };
        (!all).then(|| (0..count).filter(|index| self.at(*index) > cleared).collect())
    }
}

/// A ring's operation: join these samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// What.
    pub samples: Samples,
    /// When written.
    pub stamps: Stamps,
}

/// Why two rings, or a ring and an operation, do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Unequal bounds do not merge: both must first take the larger.
    #[error("rings of keep {0} and {1} do not merge; raise both to the larger first")]
    Keep(usize, usize),
    /// Numbers and texts.
    #[error("a ring of numbers and one of texts do not merge")]
    Shape,
}

#[derive(Debug, Clone)]
enum Columns {
    Numbers { channels: usize, flat: VecDeque<f64> },
    Texts(VecDeque<Box<str>>),
}

/// The newest `keep` samples of a series.
#[derive(Debug, Clone)]
pub struct Ring {
    keep: usize,
    /// Samples that are not newer are not taken.
    cleared: Option<Stamp>,
    times: VecDeque<i64>,
    stamps: VecDeque<u64>,
    authors: VecDeque<u32>,
    values: Columns,
}

impl Ring {
    /// An empty ring for values of `shape`.
    pub fn new(keep: usize, shape: Shape) -> Self {
        let values = match shape {
            Shape::Numbers(channels) => Columns::Numbers { channels, flat: VecDeque::new() },
            Shape::Text => Columns::Texts(VecDeque::new()),
        };
        Self {
            keep: keep.max(1),
            cleared: None,
            times: VecDeque::new(),
            stamps: VecDeque::new(),
            authors: VecDeque::new(),
            values,
        }
    }

    /// Bytes that a full ring of this shape takes; texts are taken to be 1 KiB.
    pub fn bytes_when_full(keep: usize, shape: Shape) -> u64 {
        let value = match shape {
            Shape::Numbers(channels) => 8 * channels,
            Shape::Text => 16 + 1024,
        };
        (keep * (20 + value)) as u64
    }

    /// Bytes that the columns take now.
    pub fn bytes(&self) -> usize {
        let values = match &self.values {
            Columns::Numbers { flat, .. } => flat.capacity() * 8,
            Columns::Texts(texts) => {
                texts.capacity() * 16 + texts.iter().map(|text| text.len()).sum::<usize>()
            }
        };
        self.times.capacity() * 8 + self.stamps.capacity() * 8 + self.authors.capacity() * 4 + values
    }

    /// How many samples are held.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Most samples held.
    pub fn keep(&self) -> usize {
        self.keep
    }

    /// The shape of its values.
    pub fn shape(&self) -> Shape {
        match &self.values {
            Columns::Numbers { channels, .. } => Shape::Numbers(*channels),
            Columns::Texts(_) => Shape::Text,
        }
    }

    /// Time of the oldest sample.
    pub fn first(&self) -> Option<SampleTime> {
        self.times.front().copied().map(SampleTime)
    }

    /// Time of the newest sample.
    pub fn last(&self) -> Option<SampleTime> {
        self.times.back().copied().map(SampleTime)
    }

    /// Highest stamp time held, 0 when empty.
    pub fn highest_stamp(&self) -> u64 {
        self.stamps.iter().copied().max().unwrap_or(0)
    }

    /// The newest clear that came.
    pub fn cleared(&self) -> Option<Stamp> {
        self.cleared
    }

    /// Lets go of all samples that are not newer than `stamp`, and takes none of them from here on. Returns the time of
    /// the oldest that went.
    ///
    /// Clears and samples may come in any order as long as none was evicted in between. A full ring that is cleared may
    /// have evicted, before, an older sample with a newer stamp, which it would hold had the clear come first. It takes
    /// it back when it is joined with a ring that still has it; once all rings have the clear, they are a lattice again.
    pub fn clear(&mut self, stamp: Stamp) -> Option<SampleTime> {
        if self.cleared.is_some_and(|cleared| cleared >= stamp) {
            return None;
        }
        self.cleared = Some(stamp);
        let stamps = self.copy_stamps(0..self.len());
        let first = stamps.iter().position(|held| *held <= stamp)?;
        let oldest = self.time(first);
        let kept: Vec<_> = (0..stamps.len()).filter(|index| stamps[*index] > stamp).collect();
        let samples = self.copy(0..self.len()).pick(&kept);
        let stamps = Stamps::Each(kept.into_iter().map(|index| stamps[index]).collect());
        let empty = Self { cleared: self.cleared, ..Self::new(self.keep, self.shape()) };
        *self = empty;
        self.join(&samples, &stamps, &mut Vec::new());
        Some(oldest)
    }

    /// Changes the bound. A smaller one evicts at once.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep.max(1);
        while self.len() > self.keep {
            self.evict();
        }
    }

    /// Gives every sample at least `channels` channels; those that a sample did not have are missing (NaN).
    pub fn widen(&mut self, channels: usize) {
        if let Columns::Numbers { channels: held, flat } = &mut self.values
            && *held < channels
        {
            let mut wide = VecDeque::with_capacity(flat.len() / *held * channels);
            for sample in flat.make_contiguous().chunks(*held) {
                wide.extend(sample);
                wide.extend(std::iter::repeat_n(f64::NAN, channels - sample.len()));
            }
            (*held, *flat) = (channels, wide);
        }
    }

    /// Index of the first sample not before `time`.
    pub fn position(&self, time: SampleTime) -> usize {
        self.times.partition_point(|held| *held < time.0)
    }

    /// Time of sample `index`.
    pub fn time(&self, index: usize) -> SampleTime {
        SampleTime(self.times[index])
    }

    /// Copies samples `range` out.
    pub fn copy(&self, range: std::ops::Range<usize>) -> Samples {
        let times = self.times.range(range.clone()).map(|time| SampleTime(*time)).collect();
        let values = match &self.values {
            Columns::Numbers { channels, flat } => Values::Numbers {
                channels: *channels,
                flat: flat.range(range.start * channels..range.end * channels).copied().collect(),
            },
            Columns::Texts(texts) => Values::Texts(texts.range(range).cloned().collect()),
        };
        Samples { times, values }
    }

    /// The stamps of samples `range`.
    pub fn copy_stamps(&self, range: std::ops::Range<usize>) -> Vec<Stamp> {
        let authors = self.authors.range(range.clone());
        self.stamps
            .range(range)
            .zip(authors)
            .map(|(time, author)| Stamp { time: *time, author: *author })
            .collect()
    }

    /// Joins samples; `changed` receives the indices of those that are new or took another's place, ascending.
    /// A ring of fewer channels widens; a value of fewer channels is filled up with missing ones.
    pub fn join(&mut self, samples: &Samples, stamps: &Stamps, changed: &mut Vec<usize>) -> Joined {
        let count = samples.times.len();
        let Some(newer) = self.cleared.and_then(|cleared| stamps.newer(count, cleared)) else {
            return self.join_newer(samples, stamps, changed);
        };
        let each = Stamps::Each(newer.iter().map(|index| stamps.at(*index)).collect());
        let mut places = Vec::new();
        let joined = self.join_newer(&samples.pick(&newer), &each, &mut places);
        changed.extend(places.into_iter().map(|place| newer[place]));
        Joined { cleared: count - newer.len(), ..joined }
    }

    fn join_newer(&mut self, samples: &Samples, stamps: &Stamps, changed: &mut Vec<usize>) -> Joined {
        if samples.times.is_empty() {
            return Joined::default();
        }
        if let Shape::Numbers(channels) = samples.values.shape() {
            self.widen(channels);
        }
        let mut joined = Joined::default();
        let behind = match self.last() {
            Some(last) => samples.times.iter().filter(|time| **time <= last).count(),
            None => 0,
        };
        let ascending = samples.times.is_sorted();
        if (behind > INSERT_AT_MOST && behind * 64 > self.len())
            || (!ascending && samples.times.len() > INSERT_AT_MOST)
        {
            self.merge_batch(samples, stamps, changed, &mut joined);
        } else {
            for (index, time) in samples.times.iter().enumerate() {
                if self.join_one(time.0, stamps.at(index), samples.values.get(index), &mut joined) {
                    changed.push(index);
                }
            }
        }
        joined
    }

    fn join_one(&mut self, time: i64, stamp: Stamp, value: ValueRef<'_>, joined: &mut Joined) -> bool {
        if self.times.back().is_none_or(|last| *last < time) {
            if self.len() == self.keep {
                self.evict();
                joined.evicted += 1;
            }
            self.push(time, stamp, value);
            joined.stored += 1;
            return true;
        }
        let at = self.position(SampleTime(time));
        if self.times[at] == time {
            return self.join_equal(at, stamp, value, joined);
        }
        let mut at = at;
        if self.len() == self.keep {
            if at == 0 {
                joined.late += 1;
                return false;
            }
            self.evict();
            joined.evicted += 1;
            at -= 1;
        }
        self.reserve();
        self.times.insert(at, time);
        self.stamps.insert(at, stamp.time);
        self.authors.insert(at, stamp.author);
        match (&mut self.values, value) {
            (Columns::Numbers { channels, flat }, ValueRef::Numbers(numbers)) => {
                for channel in 0..*channels {
                    flat.insert(at * *channels + channel, numbers.get(channel).copied().unwrap_or(f64::NAN));
                }
            }
            (Columns::Texts(texts), ValueRef::Text(text)) => texts.insert(at, text.into()),
            _ => unreachable!("the shape was checked when the batch was taken"),
        }
        joined.stored += 1;
        true
    }

    fn join_equal(&mut self, at: usize, stamp: Stamp, value: ValueRef<'_>, joined: &mut Joined) -> bool {
        let held = Stamp { time: self.stamps[at], author: self.authors[at] };
        let same = self.compare(at, value);
        let newer = stamp.cmp(&held).then(same.reverse()) == Ordering::Greater;
        if newer {
            self.stamps[at] = stamp.time;
            self.authors[at] = stamp.author;
        }
        match (same, newer) {
            (Ordering::Equal, _) => joined.duplicate += 1,
            (_, false) => joined.outdated += 1,
            (_, true) => {
                joined.replaced += 1;
                match (&mut self.values, value) {
                    (Columns::Numbers { channels, flat }, ValueRef::Numbers(numbers)) => {
                        for channel in 0..*channels {
                            flat[at * *channels + channel] =
                                numbers.get(channel).copied().unwrap_or(f64::NAN);
                        }
                    }
                    (Columns::Texts(texts), ValueRef::Text(text)) => texts[at] = text.into(),
                    _ => unreachable!("the shape was checked when the batch was taken"),
                }
                return true;
            }
        }
        false
    }

    /// How the value held at `at` compares with `value`: by bits, channel by channel, a missing one as NaN.
    fn compare(&self, at: usize, value: ValueRef<'_>) -> Ordering {
        match (&self.values, value) {
            (Columns::Numbers { channels, flat }, ValueRef::Numbers(numbers)) => (0..*channels)
                .map(|channel| {
                    let other = numbers.get(channel).copied().unwrap_or(f64::NAN);
                    flat[at * channels + channel].to_bits().cmp(&other.to_bits())
                })
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal),
            (Columns::Texts(texts), ValueRef::Text(text)) => (*texts[at]).cmp(text),
            _ => unreachable!("the shape was checked when the batch was taken"),
        }
    }

    /// One pass over ring and batch, both by time: O(ring + batch) instead of an insertion each. Samples of the batch
    /// that end up older than the newest `keep` were late.
    fn merge_batch(
        &mut self,
        samples: &Samples,
        stamps: &Stamps,
        changed: &mut Vec<usize>,
        joined: &mut Joined,
    ) {
        let mut order: Vec<usize> = (0..samples.times.len()).collect();
        order.sort_by_key(|index| samples.times[*index]);
        let unbounded = Self::new(usize::MAX, self.shape());
        let mut old = std::mem::replace(self, unbounded);
        let (mut from, mut fresh, first) = (0, Vec::new(), changed.len());
        for index in order {
            let time = samples.times[index];
            let upto = old.times.partition_point(|held| *held <= time.0);
            self.take_over(&mut old, from..upto);
            from = upto;
            let stored = joined.stored;
            if self.join_one(time.0, stamps.at(index), samples.values.get(index), joined) {
                changed.push(index);
            }
            if joined.stored > stored {
                fresh.push(time);
            }
        }
        let rest = from..old.len();
        self.take_over(&mut old, rest);
        (self.keep, self.cleared) = (old.keep, old.cleared);
        let surplus = self.len().saturating_sub(self.keep);
        if surplus > 0 {
            let oldest = self.time(surplus);
            let late = fresh.iter().filter(|time| **time < oldest).count();
            joined.stored -= late;
            joined.late += late;
            joined.evicted += surplus - late;
            changed.retain(|index| samples.times[*index] >= oldest);
            (0..surplus).for_each(|_| self.evict());
        }
        changed[first..].sort_unstable();
    }

    fn take_over(&mut self, old: &mut Self, range: std::ops::Range<usize>) {
        self.times.extend(old.times.range(range.clone()));
        self.stamps.extend(old.stamps.range(range.clone()));
        self.authors.extend(old.authors.range(range.clone()));
        match (&mut self.values, &mut old.values) {
            (Columns::Numbers { channels, flat }, Columns::Numbers { flat: held, .. }) => {
                flat.extend(held.range(range.start * *channels..range.end * *channels));
            }
            (Columns::Texts(texts), Columns::Texts(held)) => {
                texts.extend(held.range_mut(range).map(std::mem::take));
            }
            _ => unreachable!("both have the shape of one ring"),
        }
    }

    fn push(&mut self, time: i64, stamp: Stamp, value: ValueRef<'_>) {
        self.reserve();
        self.times.push_back(time);
        self.stamps.push_back(stamp.time);
        self.authors.push_back(stamp.author);
        match (&mut self.values, value) {
            (Columns::Numbers { channels, flat }, ValueRef::Numbers(numbers)) => {
                flat.extend(numbers);
                flat.extend(std::iter::repeat_n(f64::NAN, *channels - numbers.len()));
            }
            (Columns::Texts(texts), ValueRef::Text(text)) => texts.push_back(text.into()),
            _ => unreachable!("the shape was checked when the batch was taken"),
        }
    }

    /// Room for one more sample: an eighth more than there is, never more than `keep`.
    fn reserve(&mut self) {
        let (held, capacity) = (self.times.len(), self.times.capacity());
        if held < capacity {
            return;
        }
        let more = (held / 8 + 8).min(self.keep.saturating_sub(held)).max(1);
        self.times.reserve_exact(more);
        self.stamps.reserve_exact(more);
        self.authors.reserve_exact(more);
        match &mut self.values {
            Columns::Numbers { channels, flat } => flat.reserve_exact(more * *channels),
            Columns::Texts(texts) => texts.reserve_exact(more),
        }
    }

    fn evict(&mut self) {
        self.times.pop_front();
        self.stamps.pop_front();
        self.authors.pop_front();
        match &mut self.values {
            Columns::Numbers { channels, flat } => drop(flat.drain(..*channels)),
            Columns::Texts(texts) => drop(texts.pop_front()),
        }
    }
}

impl CvRDT for Ring {
    type Validation = RingError;

    fn validate_merge(&self, other: &Self) -> Result<(), RingError> {
        if self.keep != other.keep {
            return Err(RingError::Keep(self.keep, other.keep));
        }
        same_kind(self.shape(), other.shape())
    }

    fn merge(&mut self, other: Self) {
        if let Some(cleared) = other.cleared {
            self.clear(cleared);
        }
        let all = 0..other.len();
        let stamps = Stamps::Each(other.copy_stamps(all.clone()));
        self.join(&other.copy(all), &stamps, &mut Vec::new());
    }
}

impl CmRDT for Ring {
    type Op = Join;
    type Validation = RingError;

    fn validate_op(&self, op: &Join) -> Result<(), RingError> {
        same_kind(self.shape(), op.samples.values.shape())
    }

    fn apply(&mut self, op: Join) {
        self.join(&op.samples, &op.stamps, &mut Vec::new());
    }
}

fn same_kind(a: Shape, b: Shape) -> Result<(), RingError> {
    if (a == Shape::Text) == (b == Shape::Text) { Ok(()) } else { Err(RingError::Shape) }
}

/// Two rings are equal when they answer alike.
impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        let all = 0..self.len();
        self.keep == other.keep
            && self.cleared == other.cleared
            && self.times == other.times
            && self.stamps == other.stamps
            && self.authors == other.authors
            && match (&self.values, &other.values) {
                (
                    Columns::Numbers { channels, flat },
                    Columns::Numbers { channels: wide, flat: other_flat },
                ) => {
                    let number = |flat: &VecDeque<f64>, channels: usize, at: usize, channel: usize| {
                        if channel < channels {
                            flat[at * channels + channel].to_bits()
                        } else {
                            f64::NAN.to_bits()
                        }
                    };
                    all.clone().all(|at| {
                        (0..*channels.max(wide)).all(|channel| {
                            number(flat, *channels, at, channel) == number(other_flat, *wide, at, channel)
                        })
                    })
                }
                (Columns::Texts(texts), Columns::Texts(others)) => texts == others,
                _ => false,
            }
    }
}
