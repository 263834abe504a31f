//! What one viewer watches, and what it has been sent.
//!
//! Several watches may name the same series, each with a backfill of its own. The store follows a series once; a later
//! watch is given only what is older than everything sent before.
//!
//! Invariant: as long as a series is watched without a break, each of its samples is handed out once, unless its value
//! changed. (After `unwatch` the viewer has let go of it, and a new watch begins anew.)

use std::collections::{BTreeSet, HashMap};

use store::{
    Backfill, Change, Event, MAX_KEEP, Query, SampleTime, Samples, Series, SeriesId, Store, Subscription,
    Values,
};

use super::message::{Refused, Watch, Wish};

/// Samples that may wait for a viewer. Beyond, it is told that it lags, and gets the rest from the rings.
pub(super) const QUEUE_SAMPLES: usize = 32_768;
/// Most watches of a connection. Beyond: `error` `too_many_watches`.
pub(super) const MAX_WATCHES: usize = 1000;
/// Most series that a connection follows. Beyond: `error` `too_many_series`.
pub(super) const MAX_SERIES: usize = 20_000;
/// Out-of-order samples of a series that are remembered as sent. Beyond, later watches of it get no older samples.
const MAX_BELOW: usize = 4096;

/// What one viewer watches.
pub(super) struct Watches {
    store: Store,
    subscription: Subscription,
    open: HashMap<u64, Vec<SeriesId>>,
    followed: HashMap<SeriesId, Followed>,
    next_reference: u32,
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
    /// How many watches name it.
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

    /// Makes room for a watch; one of the same number ends. Its series are to be opened next.
    pub(super) fn begin(&mut self, watch: &Watch) -> Result<(), Refused> {
        self.end(watch.id);
        let refused = |code, message| Err(Refused { code, message, id: Some(watch.id) });
        if self.open.len() >= MAX_WATCHES {
            return refused("too_many_watches", format!("{MAX_WATCHES} watches are open; end one first"));
        }
        let promised: usize = self.open.values().map(Vec::capacity).sum();
        if promised + watch.series.len() > MAX_SERIES {
            let message = format!(
                "{} series more than the {promised} watched already; expected at most {MAX_SERIES}",
                watch.series.len()
            );
            return refused("too_many_series", message);
        }
        self.open.insert(watch.id, Vec::with_capacity(watch.series.len()));
        Ok(())
    }

    /// Ends a watch; series that no other names are followed no longer.
    pub(super) fn end(&mut self, id: u64) {
        for series in self.open.remove(&id).unwrap_or_default() {
            let Some(followed) = self.followed.get_mut(&series) else { continue };
            followed.count -= 1;
            if followed.count == 0 {
                let (sensor, attribute) = &followed.wish.key;
                self.subscription.unfollow(sensor, attribute);
                self.followed.remove(&series);
            }
        }
    }

    /// Follows a series for watch `id`. `None` when that watch has ended.
    pub(super) fn open(&mut self, id: u64, wish: &Wish, backfill: usize) -> Option<Opened> {
        let series_id = SeriesId::of(&wish.key.0, &wish.key.1);
        self.open.get_mut(&id)?.push(series_id);
        Some(match self.followed.get_mut(&series_id) {
            Some(followed) => {
                followed.count += 1;
                self.extend(series_id, wish, backfill)
            }
            None => self.follow(series_id, wish, backfill),
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
