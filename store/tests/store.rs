//! The store as its callers see it: what is acknowledged survives, what is followed arrives once, bounds hold.

use std::time::Duration;

use store::{
    Attribute, AttributeDescription, Backfill, Batch, Config, Copies, Description, Event, Kind, NodeName,
    Page, Query, Refusal, SampleTime, SensorId, Shape, Store, Times, Values,
};
use tempfile::TempDir;

fn config(dir: &TempDir) -> Config {
    Config::new(dir.path(), NodeName::new("a").expect("a name"))
}

fn open(dir: &TempDir) -> Store {
    Store::open(config(dir)).expect("the store opens")
}

fn ids(sensor: &str, attribute: &str) -> (SensorId, Attribute) {
    (SensorId::new(sensor).expect("an id"), Attribute::new(attribute).expect("an id"))
}

fn numbers(store: &Store, sensor: &str, attribute: &str, rows: &[(i64, f64)]) -> Batch {
    let (sensor, attribute) = ids(sensor, attribute);
    Batch {
        series: store.series(&sensor, &attribute, Shape::Numbers(1)).expect("a series"),
        times: Times::At(rows.iter().map(|row| SampleTime(row.0)).collect()),
        values: Values::Numbers { channels: 1, flat: rows.iter().map(|row| row.1).collect() },
    }
}

fn held(store: &Store, sensor: &str, attribute: &str) -> Vec<(i64, f64)> {
    let Some(series) = store.find(sensor, attribute) else { return Vec::new() };
    let samples = series.read(&Query::newest(usize::MAX));
    let Values::Numbers { channels: 1, flat } = samples.values else { panic!("one channel") };
    samples.times.iter().map(|time| time.0).zip(flat).collect()
}

async fn keep(store: &Store, batches: Vec<Batch>) {
    let appended = store.append(batches).await.expect("it is taken");
    assert_eq!(appended.ticket.kept().await.expect("it is kept"), Copies(1));
}

fn ramp(from: i64, count: i64) -> Vec<(i64, f64)> {
    (from..from + count).map(|i| (i * 1000, i as f64 / 8.0)).collect()
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    keep(&store, vec![numbers(&store, "s", "a", &ramp(0, 1500)), numbers(&store, "t", "b", &ramp(5, 10))])
        .await;
    let (sensor, button) = ids("s", "button");
    let series = store.series(&sensor, &button, Shape::Text).unwrap();
    let values = Values::Texts(vec!["pressed".into(), "released".into()]);
    keep(
        &store,
        vec![Batch { series, times: Times::At(vec![SampleTime(1), SampleTime(2)]), values: values.clone() }],
    )
    .await;
    let imu = store.series(&sensor, &ids("s", "imu").1, Shape::Numbers(6)).unwrap();
    let six = Values::Numbers { channels: 6, flat: vec![1.0, 2.0, 3.0, 4.0, f64::NAN, 6.0] };
    keep(&store, vec![Batch { series: imu, times: Times::At(vec![SampleTime(7)]), values: six }]).await;
    store.close().await;
    drop(store);

    let store = open(&dir);
    assert_eq!(held(&store, "s", "a"), ramp(500, 1000));
    assert_eq!(held(&store, "t", "b"), ramp(5, 10));
    assert_eq!(store.find("s", "button").unwrap().read(&Query::newest(9)).values, values);
    let imu = store.find("s", "imu").unwrap();
    assert_eq!(imu.view().kind, Kind::Imu);
    assert_eq!(imu.view().channels, ["ax", "ay", "az", "gx", "gy", "gz"]);
    let Values::Numbers { channels: 6, flat } = imu.read(&Query::newest(1)).values else { panic!("six") };
    assert!(flat[4].is_nan() && flat[5] == 6.0);
    // Sent again after the restart, it is the same sample.
    let again = store.append(vec![numbers(&store, "t", "b", &ramp(5, 10))]).await.unwrap();
    assert_eq!((again.outcome.duplicate, again.outcome.stored), (10, 0));
}

#[tokio::test]
async fn descriptions_set_what_is_unset_and_survive_checkpoints() {
    let dir = TempDir::new().unwrap();
    let mut small = config(&dir);
    small.log_budget = 10_000;
    let store = Store::open(small.clone()).unwrap();
    let (sensor, ecg) = ids("strap", "ecg");
    let described = |kind, keep, unit: &str| Description {
        name: Some("Chest strap".into()),
        attributes: vec![(
            ecg.clone(),
            AttributeDescription {
                kind,
                keep,
                unit: Some(unit.into()),
                rate_hz: Some(250.0),
                channels: None,
            },
        )],
    };
    store.describe(&sensor, &described(Some(Kind::Ecg), None, "mV")).unwrap();
    let view = |store: &Store| store.sensor("strap").unwrap().attributes[&ecg].clone();
    assert_eq!(view(&store).keep, 15_000, "a minute at 250 Hz");
    let conflict = store.describe(&sensor, &described(Some(Kind::Imu), None, "mV")).unwrap_err();
    assert_eq!(conflict.code(), "kind_conflict");
    store.describe(&sensor, &described(None, Some(20_000), "V")).unwrap();
    store.describe(&sensor, &described(None, Some(50), "V")).unwrap();
    assert_eq!((view(&store).keep, view(&store).unit.as_str()), (20_000, "mV"));
    assert!(matches!(
        store.describe(&sensor, &described(None, Some(100_001), "V")),
        Err(Refusal::BadKeep { .. })
    ));
    // Enough to be checkpointed, so that the descriptor's operations leave the log.
    for round in 0..20 {
        keep(&store, vec![numbers(&store, "strap", "ecg", &ramp(round * 1000, 1000))]).await;
    }
    store.close().await;
    let store = Store::open(small).unwrap();
    assert_eq!(store.sensor("strap").unwrap().name.as_deref(), Some("Chest strap"));
    assert_eq!(
        (view(&store).keep, view(&store).unit.as_str(), view(&store).rate_hz),
        (20_000, "mV", Some(250.0))
    );
    assert_eq!(held(&store, "strap", "ecg"), ramp(0, 20_000));
}

#[tokio::test]
async fn checkpoints_bound_the_file_and_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let mut small = config(&dir);
    small.log_budget = 1 << 20;
    let series: Vec<String> = (0..200).map(|i| format!("s{i}")).collect();
    let mut sizes = Vec::new();
    for turnover in 0..20i64 {
        let store = Store::open(small.clone()).unwrap();
        for part in 0..10 {
            let batches =
                series.iter().map(|s| numbers(&store, s, "a", &ramp(turnover * 1000 + part * 100, 100)));
            keep(&store, batches.collect()).await;
        }
        store.close().await;
        sizes.push(store.stats().disk_bytes);
        drop(store);
        let store = Store::open(small.clone()).unwrap();
        for s in &series {
            assert_eq!(held(&store, s, "a"), ramp(turnover * 1000, 1000), "{s} after turnover {turnover}");
        }
    }
    assert!(sizes[19] <= sizes[4] + small.log_budget, "file sizes: {sizes:?}");
}

#[tokio::test]
async fn out_of_order_samples_survive_checkpoints() {
    let dir = TempDir::new().unwrap();
    let mut small = config(&dir);
    (small.log_budget, small.keep) = (3_000, 2000);
    let mut expected = Vec::new();
    // Every third sample first, then the next third, … in batches that interleave with what chunks hold already.
    for third in [0, 2, 1] {
        let store = Store::open(small.clone()).unwrap();
        for part in 0..6 {
            let rows: Vec<_> = ramp(0, 1800).into_iter().skip(part * 300).take(300).collect();
            let rows: Vec<_> = rows.into_iter().filter(|row| row.0 / 1000 % 3 == third).collect();
            keep(&store, vec![numbers(&store, "s", "a", &rows)]).await;
            expected.extend(rows);
        }
        expected.sort_by_key(|row| row.0);
        assert_eq!(held(&store, "s", "a"), expected);
        store.close().await;
        drop(store);
        let store = Store::open(small.clone()).unwrap();
        assert_eq!(held(&store, "s", "a"), expected, "after third {third}");
    }
}

#[tokio::test]
async fn samples_without_a_time_get_strictly_increasing_ones() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let (sensor, attribute) = ids("s", "a");
    let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
    let before = SampleTime::now();
    for _ in 0..100 {
        let values = Values::Numbers { channels: 1, flat: vec![1.0, 2.0, 3.0] };
        keep(&store, vec![Batch { series: series.clone(), times: Times::Assigned, values }]).await;
    }
    let times = series.read(&Query::newest(1000)).times;
    assert_eq!(times.len(), 300);
    assert!(times.is_sorted_by(|a, b| a < b) && times[0] >= before);
}

#[tokio::test]
async fn what_does_not_belong_is_refused_whole() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let good = numbers(&store, "s", "temperature", &[(1, 20.0)]);
    let (sensor, attribute) = ids("s", "temperature");
    keep(&store, vec![good.clone()]).await;
    let text = store.series(&sensor, &attribute, Shape::Text).unwrap_err();
    assert_eq!(text.code(), "value_not_a_number");
    let wide = store.series(&sensor, &attribute, Shape::Numbers(2)).unwrap_err();
    assert_eq!(wide.code(), "too_many_channels");
    let mut bad = good.clone();
    bad.values = Values::Texts(vec!["warm".into()]);
    let fresh = numbers(&store, "s", "other", &[(5, 1.0)]);
    assert!(store.append(vec![fresh, bad]).await.is_err());
    assert!(held(&store, "s", "other").is_empty(), "nothing of a refused append is kept");
}

#[tokio::test]
async fn the_memory_limit_refuses_new_series_only() {
    let dir = TempDir::new().unwrap();
    let mut tiny = config(&dir);
    tiny.memory_limit = 100_000;
    let store = Store::open(tiny).unwrap();
    let mut made = 0;
    let refusal = loop {
        let (sensor, attribute) = ids(&format!("s{made}"), "a");
        match store.series(&sensor, &attribute, Shape::Numbers(1)) {
            Ok(_) => made += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((made, refusal.code()), (3, "too_many_series"), "{refusal}");
    keep(&store, vec![numbers(&store, "s0", "a", &ramp(0, 5000))]).await;
    assert!(store.stats().memory_bytes <= 100_000);
    assert!(store.sensor("s3").is_none());
}

#[tokio::test]
async fn a_follower_gets_backfill_then_every_change_once() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    keep(&store, vec![numbers(&store, "s", "a", &ramp(0, 10))]).await;
    let mut feed = store.subscribe(1000);
    let (sensor, attribute) = ids("s", "a");
    let first = feed.follow(&sensor, &attribute, Backfill::Newest(3));
    assert_eq!(first.times, [7000, 8000, 9000].map(SampleTime));
    // One duplicate, one new, one replaced.
    keep(&store, vec![numbers(&store, "s", "a", &[(9000, 9.0 / 8.0), (10_000, 5.0), (3000, -1.0)])]).await;
    let Event::Samples(change) = feed.next().await else { panic!("samples") };
    assert_eq!(change.times, [10_000, 3000].map(SampleTime));
    // A series that is not there yet, by name and by filter: delivered once all the same.
    let (unborn, b) = ids("unborn", "b");
    feed.follow(&unborn, &b, Backfill::None);
    let unborn_only: store::Filter =
        std::sync::Arc::new(|sensor: &SensorId, _: &Attribute| sensor.as_str() == "unborn");
    feed.follow_matching(1, &unborn_only);
    keep(
        &store,
        vec![numbers(&store, "unborn", "b", &[(1, 1.0)]), numbers(&store, "else", "b", &[(1, 1.0)])],
    )
    .await;
    let Event::Samples(change) = feed.next().await else { panic!("samples") };
    assert_eq!(change.series.sensor(), &unborn);
    assert!(feed.try_next().is_none());
    feed.unfollow(&unborn, &b);
    keep(&store, vec![numbers(&store, "unborn", "b", &[(2, 1.0)])]).await;
    assert!(matches!(feed.try_next(), Some(Event::Samples(_))), "the filter still follows");
    feed.unfollow_matching(1);
    keep(&store, vec![numbers(&store, "unborn", "b", &[(3, 1.0)])]).await;
    assert!(feed.try_next().is_none());
    // Since: what is newer, and what arrived just now though it is older.
    let back = feed.follow(&sensor, &attribute, Backfill::Since(SampleTime(9000)));
    assert!(back.times.contains(&SampleTime(10_000)) && back.times.contains(&SampleTime(3000)));
}

#[tokio::test]
async fn a_slow_follower_is_told_and_gets_the_rest_from_the_ring() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let mut feed = store.subscribe(100);
    let (sensor, attribute) = ids("s", "a");
    feed.follow(&sensor, &attribute, Backfill::None);
    for part in 0..20 {
        keep(&store, vec![numbers(&store, "s", "a", &ramp(part * 30, 30))]).await;
    }
    keep(&store, vec![numbers(&store, "s", "a", &[(-5000, 1.0)])]).await;
    let (mut seen, mut skipped) = (Vec::new(), 0);
    while let Some(event) = feed.try_next() {
        match event {
            Event::Samples(change) => seen.extend(change.times.iter().map(|time| time.0)),
            Event::Lagged { skipped: count } => skipped += count,
            Event::Sensor(_)
            | Event::Room(_)
            | Event::Presence(_)
            | Event::Attention(_)
            | Event::Signal(_) => {}
        }
    }
    assert_eq!(skipped, 20 * 30 - 90 + 1);
    let mut expected: Vec<_> = ramp(0, 600).iter().map(|row| row.0).chain([-5000]).collect();
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected, "all of them, each once");
    // And it is live again.
    keep(&store, vec![numbers(&store, "s", "a", &[(1_000_000, 1.0)])]).await;
    assert!(
        matches!(feed.try_next(), Some(Event::Samples(change)) if change.times == [SampleTime(1_000_000)])
    );
}

#[tokio::test]
async fn a_dropped_subscription_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let mut feed = store.subscribe(10);
    let (sensor, attribute) = ids("s", "a");
    feed.follow(&sensor, &attribute, Backfill::None);
    let all: store::Filter = std::sync::Arc::new(|_: &SensorId, _: &Attribute| true);
    feed.follow_matching(3, &all);
    feed.follow_catalog(true);
    keep(&store, vec![numbers(&store, "s", "a", &ramp(0, 10))]).await;
    assert!(matches!(feed.next().await, Event::Sensor(_) | Event::Samples(_)));
    drop(feed);
    assert_eq!(store.find("s", "a").unwrap().followers(), 0);
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = open(&dir);
    let error = Store::open(config(&dir)).err().expect("it is in use").to_string();
    assert!(error.contains("in use by another process") && error.contains("sensorium.redb"), "{error}");
    first.close().await;
    drop(first);
    open(&dir);
}

#[tokio::test]
async fn a_damaged_file_is_named_and_not_used() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("sensorium.redb"), b"this is not a database, whatever its name says")
        .unwrap();
    let error = Store::open(config(&dir)).err().expect("it is damaged").to_string();
    assert!(error.contains("sensorium.redb is damaged") && error.contains("move the file aside"), "{error}");
}

#[tokio::test]
async fn listing_pages_and_searches() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    for i in 0..25 {
        numbers(&store, &format!("Sensor-{i:02}"), "a", &[]);
    }
    let page = |q: Option<&str>, after: Option<String>, limit| {
        store.sensors(&Page { q: q.map(str::to_owned), after, limit })
    };
    let (first, next) = page(None, None, 10);
    assert_eq!((first.len(), next.as_deref()), (10, Some("Sensor-09")));
    let (last, none) = page(None, Some("Sensor-19".into()), 10);
    assert_eq!((last.len(), none), (5, None));
    assert_eq!(page(Some("sensor-1"), None, 100).0.len(), 10);
    let guard = store.device(&ids("Sensor-03", "a").0);
    assert!(store.sensor("Sensor-03").unwrap().online);
    drop(guard);
    assert!(!store.sensor("Sensor-03").unwrap().online);
}

#[tokio::test]
async fn a_closed_store_fails_appends_and_says_so() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let batch = numbers(&store, "s", "a", &[(1, 1.0)]);
    store.close().await;
    let outcome =
        tokio::time::timeout(Duration::from_secs(5), store.append(vec![batch])).await.expect("at once");
    assert!(outcome.unwrap_err().to_string().contains("closed"));
}
