//! Recordings arrive as they are in the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use firmware_sim::client::Transport;
use firmware_sim::replay::{Options, Speed, replay};
use tokio::time::{Instant, timeout};

use super::broker::Broker;
use super::node::{Node, Script};

/// A guard against hanging; nothing waits for it to pass.
const GUARD: Duration = Duration::from_secs(30);

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn to(node: &Node) -> Transport {
    Transport::WebSocket { urls: vec![node.url.clone()], cbor: false }
}

/// (time in microseconds, fields) of every row, read in another way than the program does.
fn rows(name: &str) -> Vec<(i64, Vec<String>)> {
    let text = std::fs::read_to_string(data(name)).unwrap();
    let row = |line: &str| {
        let mut fields = line.split(',').map(str::to_owned);
        let us = (fields.next().unwrap().parse::<f64>().unwrap() * 1000.0).round() as i64;
        (us, fields.collect())
    };
    text.lines().skip(1).map(row).collect()
}

#[tokio::test]
async fn each_column_arrives_exactly_over_a_failing_connection_and_the_log_of_acks_covers_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&[Script::DropAfter(2)]).await;
    let options = Options {
        from_now: false,
        acks: Some(directory.path().join("acks")),
        ..Options::new(data("ecg_mitbih_100.csv"), "s", to(&node))
    };
    let summary = timeout(GUARD, replay(options)).await.expect("it ends").unwrap();
    assert_eq!((summary.acked, summary.complete()), (1200, true), "{summary:?}");
    let mut expected: Vec<_> = rows("ecg_mitbih_100.csv")
        .into_iter()
        .flat_map(|(us, fields)| {
            let value = |at: usize| fields[at].parse::<f64>().unwrap();
            [("ecg_mlii_mV".to_owned(), us, value(0)), ("ecg_v5_mV".to_owned(), us, value(1))]
        })
        .collect();
    expected.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let came: Vec<_> = node
        .samples()
        .into_iter()
        .map(|(attribute, us, value)| (attribute, us, value.parse::<f64>().unwrap()))
        .collect();
    assert_eq!(came, expected);
    assert_eq!(node.seen.lock().unwrap().hellos[0]["attributes"]["ecg_v5_mV"]["unit"], "mV");

    let acks = std::fs::read_to_string(directory.path().join("acks")).unwrap();
    let counted: u64 =
        acks.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 1200);
    assert!(acks.lines().any(|line| line == "ecg_mlii_mV 0.000 1386.111 500"), "{acks}");
}

#[tokio::test]
async fn over_mqtt_rows_are_channels_and_the_last_is_now() {
    let broker = Broker::start(1).await;
    let before = firmware_sim::now_us();
    let options = Options {
        attribute: Some("imu".into()),
        kind: Some("imu".into()),
        ..Options::new(
            data("imu_watch.csv"),
            "s",
            Transport::Mqtt { addresses: vec![broker.address.clone()] },
        )
    };
    let summary = timeout(GUARD, replay(options)).await.expect("it ends").unwrap();
    assert_eq!((summary.acked, summary.complete()), (600, true), "{summary:?}");
    let seen = broker.seen.lock().unwrap();
    let mut samples: Vec<(i64, Vec<f64>)> = seen
        .iter()
        .flat_map(|(_, topic, payload)| {
            assert_eq!(topic, "sensors/s/imu");
            serde_json::from_slice::<Vec<serde_json::Value>>(payload).unwrap()
        })
        .map(|sample| {
            let us = (sample["ts"].as_f64().unwrap() * 1000.0).round() as i64;
            (us, serde_json::from_value(sample["value"].clone()).unwrap())
        })
        .collect();
    samples.sort_by_key(|sample| sample.0);
    samples.dedup();
    let last = samples[599].0;
    assert!((before..=firmware_sim::now_us()).contains(&last), "the last row is now");
    let expected = rows("imu_watch.csv").into_iter().map(|(us, fields)| {
        (us - 11_980_000 + last, fields.iter().map(|field| field.parse().unwrap()).collect::<Vec<f64>>())
    });
    assert!(samples.into_iter().eq(expected));
}

#[tokio::test]
async fn at_its_own_speed_it_takes_its_own_time_from_now() {
    let node = Node::start(&[]).await;
    let (before, began) = (firmware_sim::now_us(), Instant::now());
    let options = Options {
        speed: Speed::Real,
        duration: Some(Duration::from_millis(500)),
        ..Options::new(data("imu_watch.csv"), "s", to(&node))
    };
    let summary = timeout(GUARD, replay(options)).await.expect("it ends").unwrap();
    assert_eq!((summary.acked, summary.complete()), (25 * 6, true));
    assert!(began.elapsed() >= Duration::from_millis(480), "{:?}", began.elapsed());
    let first = node.samples().iter().map(|sample| sample.1).min().unwrap();
    assert!((before..before + 5_000_000).contains(&first), "the first row is now");
}
