//! `sensorium status`: the cluster as a table.

use std::io::Write as _;

use serde::Deserialize;

use crate::client;

#[derive(Deserialize)]
struct Cluster {
    partitions: u32,
    replicas: u32,
    nodes: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    node: String,
    state: String,
    http: String,
    mqtt: Option<String>,
    sensors: u64,
    devices: u64,
    viewers: u64,
    samples_per_second: f64,
    memory_bytes: u64,
    disk_bytes: u64,
    lag_ms: f64,
}

const HEAD: [&str; 11] =
    ["NODE", "STATE", "SENSORS", "DEVICES", "VIEWERS", "SAMPLES/S", "MEMORY", "DISK", "LAG", "HTTP", "MQTT"];

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
        table(&cluster)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| vec![format!("standard output: {error}")])
}

fn table(cluster: &Cluster) -> String {
    let rows: Vec<Vec<String>> = cluster.nodes.iter().map(row).collect();
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
    text + &format!(
        "{} node{}, {} partitions, up to {} copies\n",
        rows.len(),
        if rows.len() == 1 { "" } else { "s" },
        cluster.partitions,
        cluster.replicas
    )
}

fn row(member: &Member) -> Vec<String> {
    vec![
        member.node.clone(),
        member.state.clone(),
        member.sensors.to_string(),
        member.devices.to_string(),
        member.viewers.to_string(),
        format!("{:.0}", member.samples_per_second),
        size(member.memory_bytes),
        size(member.disk_bytes),
        format!("{:.0} ms", member.lag_ms),
        member.http.clone(),
        member.mqtt.clone().unwrap_or_else(|| "-".to_owned()),
    ]
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

    #[test]
    fn columns_line_up() {
        let member = |node: &str, bytes| Member {
            node: node.into(),
            state: "alive".into(),
            http: "http://127.0.0.1:4000".into(),
            mqtt: None,
            sensors: 3,
            devices: 2,
            viewers: 1,
            samples_per_second: 1234.4,
            memory_bytes: bytes,
            disk_bytes: 500,
            lag_ms: 0.0,
        };
        let cluster = Cluster {
            partitions: 1024,
            replicas: 3,
            nodes: vec![member("a", 2048), member("a-long-name", 3 << 30)],
        };
        let text = table(&cluster);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let column = lines[0].find("STATE").unwrap();
        assert!(lines[1..3].iter().all(|line| line[column..].starts_with("alive")), "{text}");
        assert!(lines[2].contains("3.0 GiB") && lines[3].starts_with("2 nodes, 1024 partitions"), "{text}");
    }
}
