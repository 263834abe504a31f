//! Clearing a sensor: it is gone at once and stays gone, whatever is restarted or written out; it comes back empty.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use store::{
    Attribute, AttributeDescription, Batch, Config, Description, Event, Kind, NodeName, Page, Query,
    SampleTime, SensorId, Series, Shape, Store, Times, Values,
};
use tempfile::TempDir;

/// A log of this size is checkpointed often.
const SMALL_LOG: u64 = 4_000;
/// A guard, not an expectation.
const WITHIN: Duration = Duration::from_secs(20);

fn open(dir: &TempDir, log_budget: u64) -> Store {
    let mut config = Config::new(dir.path(), NodeName::new("a").expect("a name"));
    config.log_budget = log_budget;
    Store::open(config).expect("the store opens")
}

fn sensor(id: &str) -> SensorId {
    SensorId::new(id).expect("an id")
}

fn attribute(id: &str) -> Attribute {
    Attribute::new(id).expect("an id")
}

fn series(store: &Store, id: &str) -> Series {
    store.series(&sensor(id), &attribute("a"), Shape::Numbers(1)).expect("a series")
}

async fn append_to(store: &Store, series: Series, times: impl IntoIterator<Item = i64>) {
    let times: Vec<_> = times.into_iter().map(SampleTime).collect();
    let flat = times.iter().map(|time| time.0 as f64).collect();
    let batch = Batch { series, times: Times::At(times), values: Values::Numbers { channels: 1, flat } };
    store.append(vec![batch]).await.expect("taken").ticket.kept().await.expect("kept");
}

async fn append(store: &Store, id: &str, times: impl IntoIterator<Item = i64>) {
    append_to(store, series(store, id), times).await;
}

async fn clear(store: &Store, id: &str) {
    store.clear(&sensor(id)).expect("there is one").kept().await.expect("durable");
}

fn held(store: &Store, id: &str) -> Vec<i64> {
    let found = store.find(id, "a");
    found.map_or(Vec::new(), |series| {
        series.read(&Query::newest(usize::MAX)).times.iter().map(|time| time.0).collect()
    })
}

fn listed(store: &Store) -> Vec<String> {
    let page = store.sensors(&Page { limit: 100, ..Page::default() }).0;
    page.into_iter().map(|view| view.sensor.as_str().to_owned()).collect()
}

/// Lets frames come until the log was trimmed behind all that there is now.
async fn checkpoint(store: &Store) {
    let began = std::time::Instant::now();
    for _ in 0..2 {
        let (mut filled, before) = (0, store.stats().log_bytes);
        while store.stats().log_bytes >= before.max(SMALL_LOG) || filled < 2 * SMALL_LOG {
            append(store, "filler", 0..100).await;
            filled += 900;
            assert!(began.elapsed() < WITHIN, "no checkpoint came");
        }
    }
}

fn chunks_on_disk(dir: &TempDir) -> u64 {
    const CHUNKS: TableDefinition<'static, (u16, u128, i64), &[u8]> = TableDefinition::new("chunks");
    let database = Database::open(dir.path().join("sensorium.redb")).expect("the file opens");
    let reading = database.begin_read().expect("it can be read");
    reading.open_table(CHUNKS).map_or(0, |table| table.len().expect("a length"))
}

fn described(kind: Kind, keep: usize) -> Description {
    let asked = AttributeDescription {
        kind: Some(kind),
        keep: Some(keep),
        unit: Some("mV".into()),
        ..AttributeDescription::default()
    };
    Description { name: Some("Chest strap".into()), attributes: vec![(attribute("a"), asked)] }
}

#[tokio::test]
async fn a_cleared_sensor_is_gone_and_comes_back_empty() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, 64 << 20);
    assert!(store.clear(&sensor("s")).is_none(), "there is none");
    store.describe(&sensor("s"), &described(Kind::Number, 5000)).unwrap();
    let device = series(&store, "s");
    append_to(&store, device.clone(), 0..3000).await;
    append(&store, "t", 0..10).await;
    let promised = store.stats().reserved_bytes;
    let mut feed = store.subscribe(100);
    feed.follow_catalog(true);

    let ticket = store.clear(&sensor("s")).unwrap();
    assert_eq!((held(&store, "s"), listed(&store)), (Vec::new(), vec!["t".to_owned()]));
    assert!(store.sensor("s").is_none() && store.find("s", "a").is_none() && store.ledger("s").is_none());
    assert!(store.clear(&sensor("s")).is_none(), "it is gone already");
    assert!(promised - store.stats().reserved_bytes >= 5000 * 28, "the memory of its ring is given back");
    assert_eq!((store.stats().sensors, store.stats().series, store.stats().samples), (1, 1, 10));
    ticket.kept().await.unwrap();
    let told = tokio::time::timeout(WITHIN, feed.next()).await.unwrap();
    assert!(matches!(&told, Event::Sensor(id) if id.as_str() == "s"), "{told:?}");

    // A device that never noticed goes on with the handle that it has.
    append_to(&store, device, 2990..3010).await;
    assert_eq!(held(&store, "s"), (2990..3010).collect::<Vec<_>>());
    let view = store.sensor("s").unwrap();
    let attribute = &view.attributes[&attribute("a")];
    assert_eq!((view.name, attribute.keep, attribute.unit.as_str()), (None, 1000, ""));
    let ledger = store.ledger("s").unwrap();
    assert_eq!((ledger.received, ledger.stored, ledger.cleared), (3020, 20, 3000));
    let told = tokio::time::timeout(WITHIN, feed.next()).await.unwrap();
    assert!(matches!(&told, Event::Sensor(id) if id.as_str() == "s"), "{told:?}");
}

#[tokio::test]
async fn a_clear_survives_restarts_before_and_after_a_checkpoint() {
    for checkpointed in [false, true] {
        let dir = TempDir::new().unwrap();
        let store = open(&dir, SMALL_LOG);
        store.describe(&sensor("s"), &described(Kind::Number, 5000)).unwrap();
        append(&store, "s", 0..3000).await;
        append(&store, "filler", 0..1).await;
        checkpoint(&store).await;
        clear(&store, "s").await;
        if checkpointed {
            checkpoint(&store).await;
        }
        store.close().await;
        drop(store);
        if checkpointed {
            assert_eq!(chunks_on_disk(&dir), 1, "the chunks are gone too");
        }
        for round in 0..2 {
            let store = open(&dir, SMALL_LOG);
            assert_eq!((held(&store, "s"), listed(&store)), (Vec::new(), vec!["filler".to_owned()]));
            assert!(store.sensor("s").is_none(), "checkpointed: {checkpointed}, round {round}");
            checkpoint(&store).await;
            store.close().await;
        }
        let store = open(&dir, SMALL_LOG);
        append(&store, "s", 5..9).await;
        store.close().await;
        drop(store);
        let store = open(&dir, SMALL_LOG);
        assert_eq!(held(&store, "s"), [5, 6, 7, 8]);
        assert_eq!(store.sensor("s").unwrap().name, None);
    }
}

#[tokio::test]
async fn it_may_come_back_as_another_kind() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir, SMALL_LOG);
    let text = store.series(&sensor("s"), &attribute("a"), Shape::Text).unwrap();
    let values = Values::Texts(vec!["36.6".into()]);
    let batch = Batch { series: text, times: Times::At(vec![SampleTime(1)]), values };
    store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
    assert_eq!(store.describe(&sensor("s"), &described(Kind::Ecg, 10)).unwrap_err().code(), "kind_conflict");
    clear(&store, "s").await;
    store.describe(&sensor("s"), &described(Kind::Ecg, 10)).unwrap();
    append(&store, "s", 0..20).await;
    let check = |store: &Store| {
        let view = store.sensor("s").unwrap().attributes[&attribute("a")].clone();
        assert_eq!((view.kind, view.keep, view.held, view.unit.as_str()), (Kind::Ecg, 10, 10, "mV"));
        assert_eq!(held(store, "s"), (10..20).collect::<Vec<_>>());
    };
    check(&store);
    // The log still has what was said and sent before the clear; then a checkpoint has written what is now.
    for _ in 0..2 {
        store.close().await;
        let store = open(&dir, SMALL_LOG);
        check(&store);
        append(&store, "filler", 0..1).await;
        checkpoint(&store).await;
        store.close().await;
    }
    check(&open(&dir, SMALL_LOG));
    // A kind alone brings it back too, and is not forgotten.
    let store = open(&dir, SMALL_LOG);
    clear(&store, "s").await;
    let kind = AttributeDescription { kind: Some(Kind::Text), ..AttributeDescription::default() };
    let only = Description { name: None, attributes: vec![(attribute("a"), kind)] };
    store.describe(&sensor("s"), &only).unwrap();
    append(&store, "filler", 0..1).await;
    checkpoint(&store).await;
    store.close().await;
    drop(store);
    assert_eq!(open(&dir, SMALL_LOG).sensor("s").unwrap().attributes[&attribute("a")].kind, Kind::Text);
}

/// Appends, clears, descriptions, checkpoints and restarts in a random order, held against a plain model.
#[tokio::test]
async fn whatever_comes_between_a_clear_forgets_what_was_before_it_and_nothing_else() {
    const SENSORS: [&str; 3] = ["s", "t", "u"];
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = TempDir::new().unwrap();
        let mut store = open(&dir, SMALL_LOG);
        let mut model: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for step in 0..120 {
            let id = SENSORS[random.random_range(0..SENSORS.len())];
            match random.random_range(0..20) {
                0..12 => {
                    let from = random.random_range(0..900);
                    let to = from + random.random_range(1..60);
                    append(&store, id, from..to).await;
                    let held = model.entry(id).or_default();
                    held.extend(from..to);
                    held.sort_unstable();
                    held.dedup();
                }
                12..16 => {
                    let ticket = store.clear(&sensor(id));
                    assert_eq!(ticket.is_some(), model.remove(id).is_some(), "seed {seed}, step {step}");
                    if let Some(ticket) = ticket {
                        ticket.kept().await.unwrap();
                    }
                }
                16..18 => {
                    store.close().await;
                    drop(store);
                    store = open(&dir, SMALL_LOG);
                }
                _ => checkpoint(&store).await,
            }
            for id in SENSORS {
                let expected = model.get(id).cloned().unwrap_or_default();
                assert_eq!(held(&store, id), expected, "{id}: seed {seed}, step {step}");
                assert_eq!(
                    store.sensor(id).is_some(),
                    model.contains_key(id),
                    "{id}: seed {seed}, step {step}"
                );
            }
        }
    }
}
