//! Samples for a subscriber: the store's feed, addressed to the client's filters and written as JSON.
//!
//! Every sample taken by any node comes through here once, as `{"ts":…,"value":…}` on
//! `sensors/{sensor}/{attribute}`, whatever way it was taken, and on `rooms/{room}/{sensor}/{attribute}` for each room that
//! its sensor is in when it is sent. The queue is the feed's own: bounded, and when its
//! client is too slow the feed counts what was skipped and goes on with what the rings still hold. Ingest never waits.

use std::fmt::Write as _;
use std::sync::Arc;

use rumqttd::protocol::QoS;
use store::{
    Attribute, Change, Event, RoomFilter, RoomId, SampleTime, SensorId, Store, Subscription, ValueRef,
};

use super::counters::Counters;
use super::filter;
use super::hub::Options;

/// Samples that may wait for one subscriber before it lags.
pub const MAX_WAITING: usize = 65_536;

/// A sample as it is sent.
#[derive(Debug)]
pub struct Sample<'a> {
    /// `sensors/{sensor}/{attribute}`, or `rooms/{room}/{sensor}/{attribute}`.
    pub topic: &'a str,
    /// `{"ts":…,"value":…}`.
    pub payload: &'a [u8],
    /// Highest QoS of the subscriptions that it is for.
    pub qos: QoS,
    /// Their identifiers.
    pub ids: &'a [usize],
}

/// A subscriber's place in the feed.
pub struct Samples {
    feed: Subscription,
    followed: Vec<Followed>,
    last_id: u64,
    current: Option<Current>,
    text: String,
}

struct Followed {
    /// Where it follows in the feed, by sensor and by room: as far as the filter reaches.
    by_sensor: Option<u64>,
    by_room: Option<u64>,
    filter: Box<str>,
    options: Options,
}

/// A change that is being sent.
struct Current {
    change: Arc<Change>,
    /// One at least.
    addresses: Vec<Address>,
    /// Indices by ascending time, where the change is not so already.
    order: Option<Vec<usize>>,
    /// Of the samples, each to all addresses.
    next: usize,
}

/// Where a sample goes.
struct Address {
    topic: String,
    qos: QoS,
    ids: Vec<usize>,
}

impl Current {
    fn is_spent(&self) -> bool {
        self.next >= self.change.times.len() * self.addresses.len()
    }

    /// Whom the next one is for.
    fn address(&self) -> &Address {
        &self.addresses[self.next % self.addresses.len()]
    }
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Samples({} filters)", self.followed.len())
    }
}

impl Samples {
    /// Follows nothing yet.
    pub fn new(store: &Store) -> Self {
        Self {
            feed: store.subscribe(MAX_WAITING),
            followed: Vec::new(),
            last_id: 0,
            current: None,
            text: String::new(),
        }
    }

    /// Follows what `filter` matches; subscribing again only changes the options.
    pub fn subscribe(&mut self, filter: &str, options: Options) {
        if let Some(followed) = self.followed.iter_mut().find(|followed| *followed.filter == *filter) {
            followed.options = options;
            return;
        }
        let text: Arc<str> = filter.into();
        let by_sensor = filter::reaches_sensors(filter).then(|| {
            let wanted = text.clone();
            let matching: store::Filter = Arc::new(move |sensor: &SensorId, attribute: &Attribute| {
                filter::matches_levels(&wanted, ["sensors", sensor.as_str(), attribute.as_str()])
            });
            self.last_id += 1;
            self.feed.follow_matching(self.last_id, &matching);
            self.last_id
        });
        let by_room = filter::reaches_rooms(filter).then(|| {
            let matching: RoomFilter =
                Arc::new(move |room: &RoomId, sensor: &SensorId, attribute: &Attribute| {
                    let levels = ["rooms", room.as_str(), sensor.as_str(), attribute.as_str()];
                    filter::matches_levels(&text, levels)
                });
            self.last_id += 1;
            self.feed.follow_in_rooms(self.last_id, &matching);
            self.last_id
        });
        self.followed.push(Followed { by_sensor, by_room, filter: filter.into(), options });
    }

    /// Ends a subscription. True when no other is left.
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        if let Some(index) = self.followed.iter().position(|followed| *followed.filter == *filter) {
            let followed = self.followed.swap_remove(index);
            let ids = followed.by_sensor.into_iter().chain(followed.by_room);
            ids.for_each(|id| self.feed.unfollow_matching(id));
        }
        self.followed.is_empty()
    }

    /// Waits until there is a sample to send. Cancel-safe.
    pub async fn ready(&mut self, counters: &Counters) {
        self.drop_spent();
        while self.current.is_none() {
            let event = self.feed.next().await;
            self.take(event, counters);
        }
    }

    /// The QoS of the next sample, if there is one.
    pub fn peek(&mut self, counters: &Counters) -> Option<QoS> {
        self.drop_spent();
        while self.current.is_none() {
            let event = self.feed.try_next()?;
            self.take(event, counters);
        }
        self.current.as_ref().map(|current| current.address().qos)
    }

    /// The sample that [`Self::peek`] or [`Self::ready`] spoke of.
    pub fn next(&mut self) -> Option<Sample<'_>> {
        self.drop_spent();
        let current = self.current.as_mut()?;
        let at = current.next;
        current.next += 1;
        let count = current.addresses.len();
        if at.is_multiple_of(count) || self.text.is_empty() {
            let index = current.order.as_ref().map_or(at / count, |order| order[at / count]);
            write_sample(current.change.times[index], current.change.values.get(index), &mut self.text);
        }
        let Address { topic, qos, ids } = &current.addresses[at % count];
        Some(Sample { topic, payload: self.text.as_bytes(), qos: *qos, ids })
    }

    /// Gives back what sending needed, once there is nothing to send.
    pub fn rest(&mut self) {
        self.drop_spent();
        if self.current.is_none() {
            self.text = String::new();
        }
    }

    fn drop_spent(&mut self) {
        if self.current.as_ref().is_some_and(Current::is_spent) {
            self.current = None;
        }
    }

    fn take(&mut self, event: Event, counters: &Counters) {
        match event {
            Event::Samples(change) => self.current = self.address(change),
            Event::Lagged { skipped } => counters.lagged.add(skipped),
            Event::Sensor(_)
            | Event::Room(_)
            | Event::Presence(_)
            | Event::Attention(_)
            | Event::Signal(_) => {}
        }
    }

    /// Whom a change is for; nobody, when the subscription has ended meanwhile, or the sensor has left the room.
    fn address(&self, change: Arc<Change>) -> Option<Current> {
        let (sensor, attribute) = (change.series.sensor(), change.series.attribute());
        let mut addresses = Vec::new();
        if self.followed.iter().any(|followed| followed.by_sensor.is_some()) {
            addresses.extend(self.to(&["sensors", sensor.as_str(), attribute.as_str()]));
        }
        if self.followed.iter().any(|followed| followed.by_room.is_some()) {
            for room in self.feed.rooms_of(sensor) {
                addresses.extend(self.to(&["rooms", room.as_str(), sensor.as_str(), attribute.as_str()]));
            }
        }
        if addresses.is_empty() {
            return None;
        }
        let order = (!change.times.is_sorted()).then(|| {
            let mut order: Vec<usize> = (0..change.times.len()).collect();
            order.sort_by_key(|&index| change.times[index]);
            order
        });
        Some(Current { addresses, order, next: 0, change })
    }

    /// The topic of these levels, if a filter matches it.
    fn to(&self, levels: &[&str]) -> Option<Address> {
        let (mut qos, mut ids) = (None, Vec::new());
        let matches = |followed: &&Followed| filter::matches_levels(&followed.filter, levels.iter().copied());
        for followed in self.followed.iter().filter(matches) {
            ids.extend(followed.options.id);
            qos = qos.max(Some(followed.options.qos as u8));
        }
        let qos = rumqttd::protocol::qos(qos?)?;
        Some(Address { topic: levels.join("/"), qos, ids })
    }
}

/// Writes `{"ts":…,"value":…}` over `text`. Numbers are the shortest that read back as the same; a missing channel is
/// `null`.
pub fn write_sample(time: SampleTime, value: ValueRef<'_>, text: &mut String) {
    text.clear();
    // Writing to a String does not fail.
    let _ = write!(text, "{{\"ts\":{time},\"value\":");
    match value {
        ValueRef::Numbers([number]) => write_number(*number, text),
        ValueRef::Numbers(numbers) => {
            for (index, number) in numbers.iter().enumerate() {
                text.push(if index == 0 { '[' } else { ',' });
                write_number(*number, text);
            }
            text.push(']');
        }
        ValueRef::Text(value) => {
            let quoted = serde_json::Value::from(value);
            let _ = write!(text, "{quoted}");
        }
    }
    text.push('}');
}

fn write_number(number: f64, text: &mut String) {
    let size = number.abs();
    let _ = if number.is_nan() {
        text.write_str("null")
    } else if size != 0.0 && !(1e-5..1e17).contains(&size) {
        write!(text, "{number:e}")
    } else {
        write!(text, "{number}")
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: ValueRef<'_>) -> String {
        let mut text = "before".to_owned();
        write_sample(SampleTime(1_763_661_600_000_500), value, &mut text);
        text
    }

    #[test]
    fn samples_are_written_as_the_contract_says() {
        for (value, expected) in [
            (ValueRef::Numbers(&[36.6]), r#"{"ts":1763661600000.5,"value":36.6}"#),
            (ValueRef::Numbers(&[72.0]), r#"{"ts":1763661600000.5,"value":72}"#),
            (ValueRef::Numbers(&[0.1, f64::NAN, -0.0]), r#"{"ts":1763661600000.5,"value":[0.1,null,-0]}"#),
            (ValueRef::Numbers(&[1e300, 5e-324]), r#"{"ts":1763661600000.5,"value":[1e300,5e-324]}"#),
            (ValueRef::Text("a\"\n"), r#"{"ts":1763661600000.5,"value":"a\"\n"}"#),
        ] {
            assert_eq!(written(value), expected);
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back_to_the_last_bit(number in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            let text = written(ValueRef::Numbers(&[number]));
            let read: f64 = text[text.find("value").unwrap() + 7..text.len() - 1].parse().unwrap();
            prop_assert_eq!(read.to_bits(), number.to_bits(), "{}", text);
        }
    }
}
