//! The intake: samples as stated, judged whole, find their series and are gathered into batches for one append.
//!
//! Invariant: a frame or payload is in the batches completely or not at all.

use std::collections::HashMap;

use store::{Attribute, Batch, DeviceGuard, SampleTime, SensorId, Series, Shape, Store, Times, Values};

use crate::advisor::Ear;
use crate::error::Refused;
use crate::limits::MAX_PLACES;
use crate::validate;
use crate::wire::rows::{Rows, Stated, StatedValue};

/// One connection's way into the store.
pub struct Intake {
    store: Store,
    places: HashMap<Box<str>, Place>,
    devices: HashMap<SensorId, DeviceGuard>,
    ear: Option<Ear>,
    batches: Vec<Batch>,
    /// Counts the appends, so that a place knows whether its batch is still open.
    round: u64,
}

/// A series that the connection writes to.
struct Place {
    shape: Shape,
    series: Series,
    /// Round and index of the batch that its samples went into last.
    open: (u64, usize),
}

/// Neighbouring rows of one series.
struct Stretch {
    key: Box<str>,
    series: Series,
    rows: usize,
}

impl Intake {
    /// An intake that has nothing at hand yet.
    pub fn new(store: Store) -> Self {
        let (places, devices) = (HashMap::new(), HashMap::new());
        Self { store, places, devices, ear: None, batches: Vec::new(), round: 1 }
    }

    /// One whose connection is advised through `ear` on the sensors that it speaks for.
    pub fn advised(store: Store, ear: Ear) -> Self {
        Self { ear: Some(ear), ..Self::new(store) }
    }

    /// Through which the connection is advised.
    pub fn ear(&self) -> Option<&Ear> {
        self.ear.as_ref()
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Notes that the connection speaks for `sensor`: while it lives, the sensor is online.
    pub fn speaks_for(&mut self, sensor: &SensorId) {
        if self.devices.len() < MAX_PLACES && !self.devices.contains_key(sensor) {
            self.devices.insert(sensor.clone(), self.store.device(sensor));
            if let Some(ear) = &mut self.ear {
                ear.listen(sensor);
            }
        }
    }

    /// Takes rows into the batches, or refuses them; refused ones are counted by cause. `sensor` and `attribute` are
    /// those of rows that name none.
    pub fn take(&mut self, rows: &Rows, sensor: &str, attribute: Option<&str>) -> Result<(), Refused> {
        let taken = self.find(rows, sensor, attribute);
        match taken {
            Ok(stretches) => {
                let mut stated = rows.iter();
                for Stretch { key, series, rows } in stretches {
                    for sample in stated.by_ref().take(rows) {
                        self.push(&key, &series, &sample);
                    }
                }
                Ok(())
            }
            Err(refused) => {
                self.refused(sensor, &refused, rows.len());
                Err(refused)
            }
        }
    }

    /// Counts samples that were refused.
    pub fn refused(&self, sensor: &str, refused: &Refused, samples: usize) {
        let sensor = SensorId::new(sensor).ok();
        self.store.refused(sensor.as_ref(), refused.code, samples.max(1) as u64);
        tracing::debug!(?sensor, code = refused.code, refused.message, "samples were refused");
    }

    /// What is to be appended; the next batches are new ones.
    pub fn batches(&mut self) -> Vec<Batch> {
        self.round += 1;
        std::mem::take(&mut self.batches)
    }

    /// Judges the rows and finds the series of all of them, before any is taken.
    fn find(&mut self, rows: &Rows, sensor: &str, attribute: Option<&str>) -> Result<Vec<Stretch>, Refused> {
        validate::samples(rows, SampleTime::now())?;
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut last: Option<(&str, &str, Shape)> = None;
        for stated in rows.iter() {
            let sensor = stated.sensor.unwrap_or(sensor);
            let Some(attribute) = stated.attribute.or(attribute) else {
                return Err(Refused::new("malformed", "a sample without attribute"));
            };
            let names = (sensor, attribute, shape(stated.value));
            match stretches.last_mut() {
                Some(stretch) if last == Some(names) => stretch.rows += 1,
                _ => {
                    let key: Box<str> = [sensor, "/", attribute].concat().into();
                    let series = self.series(&key, sensor, attribute, names.2)?;
                    stretches.push(Stretch { key, series, rows: 1 });
                    last = Some(names);
                }
            }
        }
        Ok(stretches)
    }

    fn series(&mut self, key: &str, sensor: &str, attribute: &str, shape: Shape) -> Result<Series, Refused> {
        if let Some(place) = self.places.get(key).filter(|place| place.shape == shape) {
            return Ok(place.series.clone());
        }
        let (sensor, attribute) = (SensorId::new(sensor)?, Attribute::new(attribute)?);
        let series = self.store.series(&sensor, &attribute, shape)?;
        self.speaks_for(&sensor);
        if self.places.len() >= MAX_PLACES {
            // Whoever speaks for so many looks them up more often; nothing is lost.
            self.places.clear();
        }
        self.places.insert(key.into(), Place { shape, series: series.clone(), open: (0, 0) });
        Ok(series)
    }

    /// Adds a judged sample to the series' open batch, or begins another.
    fn push(&mut self, key: &str, series: &Series, stated: &Stated<'_>) {
        let time = stated.ts.and_then(SampleTime::from_millis);
        let place = self.places.get_mut(key);
        let open = place.as_ref().filter(|place| place.open.0 == self.round).map(|place| place.open.1);
        if let Some(batch) = open.and_then(|open| self.batches.get_mut(open))
            && batch.values.shape() == shape(stated.value)
            && matches!(batch.times, Times::At(_)) == time.is_some()
        {
            if let (Times::At(times), Some(time)) = (&mut batch.times, time) {
                times.push(time);
            }
            match (&mut batch.values, stated.value) {
                (Values::Numbers { flat, .. }, StatedValue::Numbers(numbers)) => flat.extend(numbers),
                (Values::Texts(texts), StatedValue::Text(text)) => texts.push(text.into()),
                // The shapes are equal.
                _ => {}
            }
            return;
        }
        if let Some(place) = place {
            place.open = (self.round, self.batches.len());
        }
        let values = match stated.value {
            StatedValue::Numbers(numbers) => {
                Values::Numbers { channels: numbers.len(), flat: numbers.to_vec() }
            }
            StatedValue::Text(text) => Values::Texts(vec![text.into()]),
        };
        let times = time.map_or(Times::Assigned, |time| Times::At(vec![time]));
        self.batches.push(Batch { series: series.clone(), times, values });
    }
}

fn shape(value: StatedValue<'_>) -> Shape {
    match value {
        StatedValue::Numbers(numbers) => Shape::Numbers(numbers.len()),
        StatedValue::Text(_) => Shape::Text,
    }
}
