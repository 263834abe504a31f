//! Recordings replayed to the real program: what was acknowledged is there, to the last digit, once, also when the
//! process was killed in the middle.
//!
//! `SENSORIUM_SLOW=1` replays for a minute and kills 50 times; `SENSORIUM_SEED` repeats a run.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firmware_sim::client::Transport;
use firmware_sim::replay::{Options, Speed, replay};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

/// Longer than anything here may take.
const GUARD: Duration = Duration::from_secs(120);
/// How often the log of acknowledgements is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The program, killed when dropped.
struct Node {
    child: Child,
    http: String,
    mqtt: String,
}

impl Node {
    fn start(data: &Path, http: &str, mqtt: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sensorium"))
            .args([
                "--name",
                "a",
                "--keep",
                "100000",
                "--peer",
                "127.0.0.1:0",
                "--http",
                http,
                "--mqtt",
                mqtt,
            ])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says when it is ready");
        let field = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
        };
        Self { http: field("http"), mqtt: field("mqtt"), child }
    }

    /// Ends it as a power cut ends a process: `SIGKILL`.
    fn kill(mut self) -> (String, String) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it is killed");
        (self.http.clone(), self.mqtt.clone())
    }

    fn websocket(&self) -> Transport {
        Transport::WebSocket { urls: vec![format!("ws://{}", self.http)], cbor: false }
    }

    fn mqtt(&self) -> Transport {
        Transport::Mqtt { addresses: vec![self.mqtt.clone()] }
    }

    /// Everything held of a series: microseconds, and a value for each channel.
    async fn held(&self, sensor: &str, attribute: &str) -> Vec<(i64, Vec<f64>)> {
        let path = format!("/api/v1/sensors/{sensor}/{attribute}/samples?limit=100000");
        let mut socket = TcpStream::connect(&self.http).await.expect("it answers");
        let request = format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.http);
        socket.write_all(request.as_bytes()).await.expect("it is asked");
        let mut answer = String::new();
        timeout(GUARD, socket.read_to_string(&mut answer)).await.expect("in time").expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains("200 OK"), "{head}\n{body}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let samples = body["samples"].as_array().expect("samples").iter();
        let numbers = |value: &serde_json::Value| match value {
            serde_json::Value::Array(channels) => {
                channels.iter().filter_map(serde_json::Value::as_f64).collect()
            }
            single => single.as_f64().into_iter().collect(),
        };
        samples
            .map(|sample| {
                ((sample["ts"].as_f64().expect("ts") * 1000.0).round() as i64, numbers(&sample["value"]))
            })
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A recording: names of the columns, and rows of microseconds and values.
struct Recording {
    columns: Vec<String>,
    rows: Vec<(i64, Vec<f64>)>,
}

impl Recording {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("the recording");
        let mut lines = text.lines();
        let columns = lines.next().expect("a header").split(',').skip(1).map(str::to_owned).collect();
        let row = |line: &str| {
            let mut fields = line.split(',').map(|field| field.parse::<f64>().expect("a number"));
            let ts = fields.next().expect("ts_ms");
            ((ts * 1000.0).round() as i64, fields.collect())
        };
        Self { columns, rows: lines.map(row).collect() }
    }

    /// Holds what a node has of some columns against the rows up to `upto`: the last rows, in the file's spacing, equal to
    /// the last digit, each once.
    fn check(&self, held: &[(i64, Vec<f64>)], columns: std::ops::Range<usize>, upto: usize, what: &str) {
        assert!(!held.is_empty() && held.len() <= upto, "{what}: {} held of {upto}", held.len());
        let rows = &self.rows[upto - held.len()..upto];
        let base = held[0].0 - rows[0].0;
        for ((time, values), (offset, numbers)) in held.iter().zip(rows) {
            assert_eq!(*time, base + offset, "{what}");
            assert_eq!(values, &numbers[columns.clone()], "{what} at {time}");
        }
    }
}

/// The recordings; `None`, said loudly, where they are not there.
fn recordings() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("SENSORIUM_DATA").map_or(beside, PathBuf::from);
    if data.join("ecg_mitbih_100.csv").exists() {
        return Some(data);
    }
    assert!(std::env::var_os("REQUIRE_ALL").is_none(), "no recordings at {}", data.display());
    eprintln!("SKIPPED: no recordings at {}; set SENSORIUM_DATA", data.display());
    None
}

fn slow() -> bool {
    std::env::var_os("SENSORIUM_SLOW").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_recordings_at_once_are_read_back_to_the_last_digit() {
    let Some(data) = recordings() else { return };
    let dir = TempDir::new().expect("a directory");
    let node = Node::start(dir.path(), "127.0.0.1:0", "127.0.0.1:0");
    let seconds = if slow() { 60 } else { 5 };
    let live = |file: &str, sensor: &str, transport, attribute: &str| {
        let mut options = Options::new(data.join(file), sensor, transport);
        options.attribute = Some(attribute.to_owned());
        options.kind = Some(attribute.to_owned());
        options.speed = Speed::Real;
        options.duration = Some(Duration::from_secs(seconds));
        replay(options)
    };
    let fast = |file: &str, sensor: &str| replay(Options::new(data.join(file), sensor, node.mqtt()));
    let replays = async {
        tokio::join!(
            live("ecg_mitbih_100.csv", "patient", node.websocket(), "ecg"),
            live("imu_watch.csv", "watch", node.mqtt(), "imu"),
            fast("heartrate_mitbih_100.csv", "heart"),
            fast("gps_track.csv", "hiker"),
            fast("machine_temperature.csv", "machine"),
        )
    };
    let (ecg, imu, heart, gps, machine) = timeout(GUARD, replays).await.expect("in time");
    for (name, summary) in [("ecg", ecg), ("imu", imu), ("heart", heart), ("gps", gps), ("machine", machine)]
    {
        let summary = summary.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(summary.complete() && summary.refused == 0, "{name}: {summary:?}");
    }
    for (file, sensor, attribute) in
        [("ecg_mitbih_100.csv", "patient", "ecg"), ("imu_watch.csv", "watch", "imu")]
    {
        let recording = Recording::read(&data.join(file));
        let held = node.held(sensor, attribute).await;
        let expected = recording.rows.iter().filter(|row| row.0 < seconds as i64 * 1_000_000).count();
        assert!(held.len().abs_diff(expected) <= 1, "{file}: {} held, {expected} replayed", held.len());
        recording.check(&held, 0..recording.columns.len(), held.len(), file);
    }
    for (file, sensor) in [
        ("heartrate_mitbih_100.csv", "heart"),
        ("gps_track.csv", "hiker"),
        ("machine_temperature.csv", "machine"),
    ] {
        let recording = Recording::read(&data.join(file));
        for (index, column) in recording.columns.iter().enumerate() {
            let held = node.held(sensor, column).await;
            assert_eq!(held.len(), recording.rows.len(), "{file} {column}");
            recording.check(&held, index..index + 1, held.len(), column);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_nine_in_the_middle_of_a_replay_loses_and_doubles_nothing() {
    let Some(data) = recordings() else { return };
    let file = data.join("ecg_mitbih_100.csv");
    let recording = Recording::read(&file);
    let rounds = if slow() { 50 } else { 3 };
    let (first, rounds) = match std::env::var("SENSORIUM_SEED") {
        Ok(seed) => (seed.parse().expect("SENSORIUM_SEED is a number"), 1),
        Err(_) => (u64::from(std::process::id()), rounds),
    };
    for seed in (first..).take(rounds) {
        eprintln!("kill -9: seed {seed}");
        kill_and_go_on(&file, &recording, seed).await;
    }
}

async fn kill_and_go_on(file: &Path, recording: &Recording, seed: u64) {
    let dir = TempDir::new().expect("a directory");
    let acks = dir.path().join("acks");
    let node = Node::start(dir.path(), "127.0.0.1:0", "127.0.0.1:0");
    let mut options =
        Options::new(file, "patient", if seed.is_multiple_of(2) { node.websocket() } else { node.mqtt() });
    options.acks = Some(acks.clone());
    let going = tokio::spawn(replay(options));
    // Somewhere in the replay: after so many acknowledged samples.
    let total = recording.rows.len() * recording.columns.len();
    let kill_at = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (total as u64 * 9 / 10) + 1;
    let mut look = interval(LOOK_EVERY);
    let reached = async {
        while acknowledged(&acks) < kill_at {
            look.tick().await;
        }
    };
    timeout(GUARD, reached).await.unwrap_or_else(|_| panic!("seed {seed}: {kill_at} are never acknowledged"));
    let (http, mqtt) = node.kill();
    let promised = acknowledged(&acks);
    let node = Node::start(dir.path(), &http, &mqtt);
    let summary = timeout(GUARD, going).await.expect("it goes on").expect("no panic").expect("no failure");
    assert!(summary.complete(), "seed {seed}: {summary:?}");
    assert!(promised >= kill_at && acknowledged(&acks) >= total as u64, "seed {seed}");
    for (index, column) in recording.columns.iter().enumerate() {
        let held = node.held("patient", column).await;
        assert_eq!(held.len(), 100_000.min(recording.rows.len()), "seed {seed}: {column}");
        recording.check(&held, index..index + 1, recording.rows.len(), &format!("seed {seed}: {column}"));
    }
}

/// Samples that the log of acknowledgements counts.
fn acknowledged(acks: &Path) -> u64 {
    let text = std::fs::read_to_string(acks).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
