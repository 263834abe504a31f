//! Retained messages on one store: kept over restarts, from the log and from a checkpoint, and forgotten in time.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use store::{
    Attribute, Batch, Config, Kept, MAX_RETAINED, NodeName, RetainError, SampleTime, SensorId, Shape, Store,
    Times, Values,
};

/// A guard, not an expectation.
const WITHIN: Duration = Duration::from_secs(20);
/// So small that a few hundred samples fill it.
const LOG: u64 = 16 << 10;

fn open(data: &Path) -> Store {
    let mut config = Config::new(data, NodeName::new("a").unwrap());
    config.log_budget = LOG;
    Store::open(config).unwrap()
}

fn kept(text: &str) -> Kept {
    Kept { message: text.as_bytes().to_vec().into(), expires: None }
}

fn all(store: &Store) -> Vec<(String, Kept)> {
    let mut all = Vec::new();
    store.each_retained(|_| true, |topic, kept| all.push((topic.to_owned(), kept)));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Fills the log until nothing of what is retained is in it.
async fn checkpoint(store: &Store) {
    let (sensor, attribute) = (SensorId::new("s").unwrap(), Attribute::new("value").unwrap());
    let series = store.series(&sensor, &attribute, Shape::Numbers(1)).unwrap();
    for first in (0..10_000).step_by(250) {
        let times = (first..first + 250).map(SampleTime).collect();
        let values = Values::Numbers { channels: 1, flat: vec![1.0; 250] };
        let batch = Batch { series: series.clone(), times: Times::At(times), values };
        store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
    }
    let began = Instant::now();
    while store.stats().log_bytes > 3 * LOG {
        assert!(began.elapsed() < WITHIN, "the log was not trimmed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_back_from_the_log_and_from_a_checkpoint_and_what_was_removed_does_not() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path());
    for (topic, text) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")] {
        store.retain(topic, Some(kept(text))).unwrap();
    }
    store.retain("b", None).unwrap().unwrap().kept().await.unwrap();
    assert!(store.retain("never", None).unwrap().is_none(), "there is nothing to wait for");
    let held = vec![("a".to_owned(), kept("4")), ("c".to_owned(), kept("3"))];
    assert_eq!(all(&store), held);
    store.close().await;
    let store = open(data.path());
    assert_eq!((all(&store), store.retained("b")), (held.clone(), None));
    checkpoint(&store).await;
    store.close().await;
    let store = open(data.path());
    assert_eq!(all(&store), held);
    // What changes now is on top of what the checkpoint has.
    store.retain("c", None).unwrap();
    store.retain("b", Some(kept("5"))).unwrap().unwrap().kept().await.unwrap();
    checkpoint(&store).await;
    store.close().await;
    let store = open(data.path());
    assert_eq!(all(&store), [("a".to_owned(), kept("4")), ("b".to_owned(), kept("5"))]);
    store.close().await;
    assert!(store.retain("d", Some(kept("6"))).unwrap().unwrap().kept().await.is_err(), "it is closed");
}

/// Prints what `ARCHITECTURE.md` says of them.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_are_held_and_one_more_is_refused_until_one_is_to_be_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path());
    let soon = SampleTime(SampleTime::now().0 + 300_000);
    store.retain("soon", Some(Kept { expires: Some(soon), ..kept("x") })).unwrap();
    let began = Instant::now();
    for number in 1..MAX_RETAINED {
        store.retain(&format!("topic/{number}"), Some(kept(&"x".repeat(100)))).unwrap();
    }
    let took = began.elapsed() / MAX_RETAINED as u32;
    assert_eq!(store.retained_count(), MAX_RETAINED);
    if SampleTime::now() < soon {
        assert_eq!(store.retain("one/more", Some(kept("x"))).unwrap_err(), RetainError::TooMany);
    }
    while SampleTime::now() < soon {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.retained("soon"), None, "its time is over");
    store.retain("one/more", Some(kept("x"))).unwrap().unwrap().kept().await.unwrap();
    assert_eq!(store.retain("two/more", Some(kept("x"))).unwrap_err(), RetainError::TooMany);
    let began = Instant::now();
    let found = all(&store).len();
    println!("{found} retained: {took:?} to set one, {:?} to read all", began.elapsed());
    store.close().await;
    let began = Instant::now();
    let store = open(data.path());
    assert_eq!(store.retained_count(), MAX_RETAINED);
    println!("started in {:?}", began.elapsed());
    store.close().await;
}
