//! A damaged file: whatever bytes are wrong, the store says so, or holds nothing that was never written. It does not
//! panic. `SENSORIUM_SEED` repeats a run, `SENSORIUM_SLOW=1` runs many.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::{
    Attribute, Batch, Config, NodeName, OpenError, Query, SampleTime, SensorId, Shape, Store, Times, Values,
};
use tempfile::TempDir;

fn config(dir: &TempDir) -> Config {
    let mut config = Config::new(dir.path(), NodeName::new("a").expect("an id"));
    config.log_budget = 100_000;
    config
}

fn value(sensor: usize, time: i64) -> f64 {
    sensor as f64 * 1e6 + time as f64 / 8.0
}

/// A file with names, chunks and log.
async fn file() -> Vec<u8> {
    let dir = TempDir::new().expect("a directory");
    let store = Store::open(config(&dir)).expect("it opens");
    for round in 0..30i64 {
        for sensor in 0..10 {
            let (id, attribute) = (SensorId::new(&format!("s{sensor}")), Attribute::new("a"));
            let (id, attribute) = (id.expect("an id"), attribute.expect("an id"));
            let series = store.series(&id, &attribute, Shape::Numbers(1)).expect("a series");
            let times: Vec<_> = (round * 50..round * 50 + 50).collect();
            let flat = times.iter().map(|time| value(sensor, *time)).collect();
            let times = Times::At(times.into_iter().map(SampleTime).collect());
            let batch = Batch { series, times, values: Values::Numbers { channels: 1, flat } };
            store.append(vec![batch]).await.expect("it is taken").ticket.kept().await.expect("it is kept");
        }
    }
    store.close().await;
    drop(store);
    std::fs::read(dir.path().join("sensorium.redb")).expect("the file")
}

/// Damages a copy of the file and opens it; true when that was noticed.
fn damage(file: &[u8], seed: u64) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = file.to_vec();
    match random.random_range(0..4) {
        0 => bytes.truncate(random.random_range(1..bytes.len())),
        1 => {
            let from = random.random_range(0..bytes.len());
            let to = (from + random.random_range(1..8192)).min(bytes.len());
            bytes[from..to].fill(0);
        }
        _ => (0..random.random_range(1..40)).for_each(|_| {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }),
    }
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("sensorium.redb"), &bytes).expect("it is written");
    match Store::open(config(&dir)) {
        Err(OpenError::Corrupt { .. } | OpenError::Format { .. }) => true,
        Err(other) => panic!("seed {seed}: {other}"),
        Ok(store) => {
            for sensor in 0..10 {
                let Some(series) = store.find(&format!("s{sensor}"), "a") else { continue };
                let samples = series.read(&Query::newest(usize::MAX));
                let Values::Numbers { flat, .. } = samples.values else { panic!("seed {seed}: numbers") };
                for (time, held) in samples.times.iter().zip(flat) {
                    assert_eq!(held, value(sensor, time.0), "seed {seed}: s{sensor} at {time}");
                }
            }
            false
        }
    }
}

#[tokio::test]
async fn damage_is_named_or_harmless() {
    let file = file().await;
    if let Ok(seed) = std::env::var("SENSORIUM_SEED") {
        damage(&file, seed.parse().expect("SENSORIUM_SEED is a number"));
        return;
    }
    let (first, runs) =
        (rand::random::<u32>(), if std::env::var("SENSORIUM_SLOW").is_ok() { 20_000 } else { 300 });
    let noticed = (u64::from(first)..).take(runs).filter(|seed| damage(&file, *seed)).count();
    println!("{runs} runs from seed {first}: {noticed} noticed");
    assert!(noticed > runs / 10, "only {noticed} of {runs} were noticed");
}
