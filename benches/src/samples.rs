//! Stores and samples to feed them with: regular times, and values as sensors give them, a noisy sine with three
//! decimals.

use std::path::Path;

use store::{Attribute, Batch, Config, NodeName, SampleTime, SensorId, Series, Shape, Store, Times, Values};

/// Time of the first sample, in microseconds since 1970.
pub const START: i64 = 1_763_661_600_000_000;
/// Microseconds from a sample to the next: 250 a second.
pub const INTERVAL: i64 = 4000;

/// Time of sample `index`.
pub fn time(index: i64) -> SampleTime {
    SampleTime(START + index * INTERVAL)
}

/// Value of sample `index`.
pub fn value(index: i64) -> f64 {
    let noise = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    ((index as f64 / 40.0).sin() * 1000.0 + noise as f64).round() / 1000.0
}

/// The `count` samples from `first` on, of one channel.
pub fn run(first: i64, count: usize) -> (Vec<SampleTime>, Values) {
    let indices = || first..first + count as i64;
    (indices().map(time).collect(), Values::Numbers { channels: 1, flat: indices().map(value).collect() })
}

/// Opens a store in `dir` that keeps `keep` samples a series.
pub fn store(dir: &Path, keep: usize) -> Store {
    let mut config = Config::new(dir, NodeName::new("bench").expect("it is an id"));
    config.keep = keep;
    Store::open(config).expect("a store opens in a directory of its own")
}

/// `count` series of one channel.
pub fn series(store: &Store, count: usize) -> Vec<Series> {
    let attribute = Attribute::new("value").expect("it is an id");
    let named = |index| SensorId::new(&format!("sensor-{index}")).expect("it is an id");
    let series = |index| store.series(&named(index), &attribute, Shape::Numbers(1));
    (0..count).map(|index| series(index).expect("there is memory for it")).collect()
}

/// Batch `round` of a series: the `size` samples after those of the rounds before.
pub fn batch(series: &Series, round: usize, size: usize) -> Batch {
    let (times, values) = run((round * size) as i64, size);
    Batch { series: series.clone(), times: Times::At(times), values }
}
