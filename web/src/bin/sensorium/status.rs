//! `sensorium status`: the cluster as a table, and what happened last, as the node that is asked sees it.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::client;

/// Events shown below the table.
const EVENTS: usize = 5;

#[derive(Deserialize)]
struct Cluster {
    partitions: u32,
    replicas: u32,
    nodes: Vec<Member>,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Member {
    node: String,
    state: String,
    #[serde(default)]
    me: bool,
    #[serde(default)]
    since_ts: f64,
    http: String,
    mqtt: Option<String>,
    sensors: u64,
    devices: u64,
    viewers: u64,
    samples_per_second: f64,
    memory_bytes: u64,
    disk_bytes: u64,
    /// None for a node without a link to the one that is asked.
    lag_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Event {
    ts: f64,
    node: String,
    text: String,
}

const HEAD: [&str; 12] = [
    "NODE",
    "STATE",
    "FOR",
    "LAG",
    "SAMPLES/S",
    "SENSORS",
    "DEVICES",
    "VIEWERS",
    "MEMORY",
    "DISK",
    "HTTP",
    "MQTT",
];

/// Asks the node at `http` and prints its answer.
pub(crate) fn run(http: &str, json: bool) -> Result<(), Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| vec![format!("cannot start: {error}")])?;
    let body = runtime.block_on(client::get(http, "/api/v1/cluster")).map_err(|reason| vec![reason])?;
    let text = if json {
        String::from_utf8_lossy(&body).into_owned() + "\n"
    } else {
        let cluster: Cluster = serde_json::from_slice(&body)
            .map_err(|error| vec![format!("{http} did not answer as a node does: {error}")])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64);
        table(&cluster, now)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| vec![format!("standard output: {error}")])
}

/// The table as of `now`, in milliseconds since 1970.
fn table(cluster: &Cluster, now: f64) -> String {
    let rows: Vec<Vec<String>> = cluster.nodes.iter().map(|member| row(member, now)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(HEAD.to_vec());
    for row in &rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text += &summary(cluster);
    let latest: Vec<String> =
        cluster.events.iter().rev().take(EVENTS).map(|event| told(event, now)).collect();
    if !latest.is_empty() {
        text += "\nLast:\n";
        text += &latest.concat();
    }
    text
}

fn told(event: &Event, now: f64) -> String {
    format!("{:>8} ago  {} {}\n", span(now - event.ts), event.node, event.text)
}

/// `3 nodes: 2 alive, 1 down; 1024 partitions, up to 3 copies; * is the node that answered`
fn summary(cluster: &Cluster) -> String {
    let count = cluster.nodes.len();
    let states: Vec<String> = ["alive", "suspect", "down", "left"]
        .into_iter()
        .map(|state| (cluster.nodes.iter().filter(|member| member.state == state).count(), state))
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    format!(
        "{count} node{}: {}; {} partitions, up to {} copies; * is the node that answered\n",
        if count == 1 { "" } else { "s" },
        states.join(", "),
        cluster.partitions,
        cluster.replicas
    )
}

fn row(member: &Member, now: f64) -> Vec<String> {
    let gone = matches!(member.state.as_str(), "down" | "left");
    // What a node that is gone last said of itself is no longer so.
    let figure = |text: String| if gone { "-".to_owned() } else { text };
    let lag = member.lag_ms.filter(|_| !member.me);
    vec![
        format!("{}{}", member.node, if member.me { " *" } else { "" }),
        member.state.clone(),
        span(now - member.since_ts),
        lag.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} ms")),
        figure(format!("{:.0}", member.samples_per_second)),
        figure(member.sensors.to_string()),
        figure(member.devices.to_string()),
        figure(member.viewers.to_string()),
        figure(size(member.memory_bytes)),
        figure(size(member.disk_bytes)),
        member.http.clone(),
        member.mqtt.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// A span of milliseconds in its largest unit; clocks that differ make none of it negative.
fn span(millis: f64) -> String {
    let seconds = (millis.max(0.0) / 1000.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, state: &str, lag_ms: Option<f64>) -> Member {
        Member {
            node: node.into(),
            state: state.into(),
            me: node == "a",
            since_ts: 1_000_000.0,
            http: "http://127.0.0.1:4000".into(),
            mqtt: None,
            sensors: 3,
            devices: 2,
            viewers: 1,
            samples_per_second: 1234.4,
            memory_bytes: 3 << 30,
            disk_bytes: 500,
            lag_ms,
        }
    }

    #[test]
    fn columns_line_up_and_what_is_gone_has_no_figures() {
        let cluster = Cluster {
            partitions: 1024,
            replicas: 3,
            nodes: vec![
                member("a", "alive", Some(0.0)),
                member("a-long-name", "alive", Some(1.52)),
                member("c", "down", None),
            ],
            events: (0..9)
                .map(|index| Event {
                    ts: 1_000_000.0 + f64::from(index),
                    node: "c".into(),
                    text: format!("died {index}"),
                })
                .collect(),
        };
        let text = table(&cluster, 1_000_000.0 + 180_000.0);
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("STATE").unwrap();
        for (line, begins, state) in
            [(lines[1], "a *", "alive"), (lines[2], "a-long-name", "alive"), (lines[3], "c ", "down")]
        {
            assert!(line.starts_with(begins) && line[column..].starts_with(state), "{text}");
        }
        let cells = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(lines[1])[2..6], ["3 min", "-", "1234", "3"], "one's own lag says nothing");
        assert_eq!(cells(lines[2])[2..4], ["3 min", "1.5 ms"]);
        assert_eq!(cells(lines[3])[2..10], ["3 min", "-", "-", "-", "-", "-", "-", "-"]);
        assert!(lines[2].contains("3.0 GiB"), "{text}");
        assert!(lines[4].starts_with("3 nodes: 2 alive, 1 down; 1024 partitions"), "{text}");
        assert_eq!((lines[6], lines.len()), ("Last:", 7 + EVENTS));
        assert!(lines[7].ends_with("2 min ago  c died 8"), "the newest first: {text}");
    }
}
