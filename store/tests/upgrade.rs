//! A data directory of a previous format opens, holds what it held, and can be gone on with.
//!
//! `data/format-1.redb` was written by version 0.1.0 with 16 KiB of log: two runs, each of 3000 samples of `ecg` at
//! 250 Hz (5000 kept, chunks and log) and one press of a button. `data/format-2.redb` is that file, opened by the last
//! program of format 2, with one more sensor in the log that was cleared and came back.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;

use store::{
    Config, NewRoom, NodeName, OwnedValue, Query, SampleTime, SensorId, Shape, Store, Times, Values,
};

fn config(data: &Path) -> Config {
    Config::new(data, NodeName::new("new").unwrap())
}

#[tokio::test]
async fn a_file_of_format_1_opens_and_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.redb");
    std::fs::copy(kept, data.path().join("sensorium.redb")).unwrap();
    let mut node = None;
    // Twice: the second start reads what the first has rewritten.
    for round in 0..2 {
        let store = Store::open(config(data.path())).unwrap();
        assert_eq!(*node.get_or_insert(store.node().id), store.node().id, "it is the same node");
        let view = store.sensor("strap-7").unwrap();
        assert_eq!(view.name.as_deref(), Some("Chest strap"));
        let ecg = store.find("strap-7", "ecg").unwrap();
        let held = ecg.read(&Query::newest(100_000));
        assert_eq!(held.times.len(), 5000);
        let expected = (1000..6000).map(|index| f64::from(index) / 8.0).collect();
        assert_eq!(held.values, Values::Numbers { channels: 1, flat: expected });
        let at = |index: i64| SampleTime(1_763_661_600_000_000 + index * 4000);
        assert_eq!((held.times[0], held.times[4999]), (at(1000), at(5999)));
        let button = store.find("strap-7", "button").unwrap();
        assert_eq!(button.view().held, 2 + round);
        assert_eq!(button.view().last.unwrap().1, OwnedValue::Text("pressed".into()));
        let series =
            store.series(&SensorId::new("strap-7").unwrap(), button.attribute(), Shape::Text).unwrap();
        let values = Values::Texts(vec!["pressed".into()]);
        let batch =
            store::Batch { series, times: Times::At(vec![SampleTime(1_763_661_600_001_000)]), values };
        store.append(vec![batch]).await.unwrap().ticket.kept().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_of_format_2_opens_and_takes_rooms() {
    let data = tempfile::tempdir().unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-2.redb");
    std::fs::copy(kept, data.path().join("sensorium.redb")).unwrap();
    let mut room = None;
    for _ in 0..2 {
        let store = Store::open(config(data.path())).unwrap();
        assert_eq!(store.sensor("strap-7").unwrap().name.as_deref(), Some("Chest strap"));
        assert_eq!(store.find("strap-7", "ecg").unwrap().read(&Query::newest(100_000)).times.len(), 5000);
        assert_eq!(store.sensor("oven").unwrap().name.as_deref(), Some("Oven again"));
        let oven = store.find("oven", "temperature").unwrap().read(&Query::newest(100));
        assert_eq!(oven.times, [SampleTime(7)], "what was cleared is not back");
        match &room {
            None => {
                assert_eq!(store.rooms(), []);
                let wish = NewRoom { name: "Kitchen".into(), ..NewRoom::default() };
                let (made, ticket) = store.create_room(wish).unwrap();
                ticket.kept().await.unwrap();
                room = Some(made);
            }
            Some(room) => assert_eq!(store.rooms(), std::slice::from_ref(room)),
        }
        store.close().await;
    }
}
