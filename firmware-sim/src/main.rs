//! `firmware-sim`: devices that are not there.
//!
//! Exit codes: 0 everything was acknowledged; 1 something was not, or it could not start (the reason is on standard error);
//! 2 wrong usage.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use firmware_sim::client::Transport;
use firmware_sim::demo::{self, cluster::MAX_NODES};
use firmware_sim::fleet::{self, MAX_SENSORS, Scenario};
use firmware_sim::replay::{self, Speed};
use firmware_sim::{duration, is_id, tally::Summary};
use tokio::signal::unix::{SignalKind, signal};

/// Where a node listens that was started without options.
const DEFAULT_URL: &str = "ws://127.0.0.1:4000";

const TIMES: &str = "\
Times, which the file counts in milliseconds from wherever it likes:
  --speed 1                  the first row is now, and the others keep their distance from it
  --speed max --from-now     the last row is now
  --speed max                the file's own times, taken as milliseconds since 1970

Without --attribute each column is an attribute of kind number, named like the column, with the part after the last `_`
as its unit: `ecg_mlii_mV` is in mV. Over MQTT rows go as arrays of {\"ts\",\"value\"} to sensors/SENSOR/ATTRIBUTE.

The summary is on standard output; gaps are samples that no node has acknowledged.";

const SHOWN: &str = "\
Starts nodes as processes on free ports, streams to all of them over WebSocket and MQTT with QoS 1, watches as a viewer on
each, and ends nodes in turn with SIGKILL; each is started again, and the next one dies when it is ready. Then every sample
that was acknowledged is looked for on every node over HTTP, and in what every viewer saw. Progress goes to standard error,
the table and the verdict to standard output.

Exit codes: 0 nothing was lost, nothing doubled, and all nodes answer alike; 1 otherwise.";

/// Simulated devices: they keep what is not acknowledged, and move to another node by themselves.
#[derive(Debug, Parser)]
#[command(name = "firmware-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A fleet of devices with plausible signals, in real time.
    Run(RunArgs),
    /// A recording, sent as if it were measured.
    #[command(after_help = TIMES)]
    Replay(ReplayArgs),
    /// Real nodes that are killed before your eyes, and a count of what was lost.
    #[command(after_help = SHOWN)]
    Demo(DemoArgs),
}

/// What both commands need to reach a node.
#[derive(Debug, Args)]
struct NodeArgs {
    /// A node, over WebSocket; may be repeated [default: ws://127.0.0.1:4000].
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// A node, over MQTT with QoS 1; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: Vec<String>,
    /// CBOR instead of JSON over WebSocket.
    #[arg(long)]
    cbor: bool,
    /// Device token, for nodes with authentication.
    #[arg(long, env = "SENSORIUM_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Give up when nothing was acknowledged for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    patience: Duration,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// How many devices.
    #[arg(long, default_value_t = 10, value_parser = sensors)]
    sensors: usize,
    /// Which devices: wearables, building, machines or mixed.
    #[arg(long, default_value = "mixed")]
    scenario: Scenario,
    /// Same seed, same measurements.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long they measure.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    duration: Duration,
    /// Write the counts of every device to a file.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SpeedArg {
    #[value(name = "1")]
    Real,
    #[value(name = "max")]
    Max,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The recording: `ts_ms`, then a column per channel.
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    /// As which sensor.
    #[arg(long, value_name = "ID", value_parser = id)]
    sensor: String,
    /// All columns are channels of this attribute.
    #[arg(long, value_name = "NAME", value_parser = id)]
    attribute: Option<String>,
    /// Of this kind, such as ecg or imu [default: number].
    #[arg(long, value_name = "KIND", requires = "attribute")]
    kind: Option<String>,
    /// With the file's spacing, or as fast as the node acknowledges.
    #[arg(long, default_value = "1")]
    speed: SpeedArg,
    /// The last row is now (see below).
    #[arg(long)]
    from_now: bool,
    /// Only so much of the recording, from its start.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Append a line `attribute ts_first ts_last count` for every acknowledged frame.
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// The program [default: beside this one, else target/release/sensorium].
    #[arg(long, value_name = "PATH")]
    sensorium: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    nodes: usize,
    /// How many sensors.
    #[arg(long, default_value_t = 30, value_parser = sensors)]
    sensors: usize,
    /// How many kills.
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Same seed, same measurements and same order of kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not open a browser on the dashboard.
    #[arg(long)]
    no_browser: bool,
    /// Write what was seen to a file.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

fn id(text: &str) -> Result<String, String> {
    let wrong = "an id starts with a letter or digit, of which with _ . : - it has at most 128";
    if is_id(text) { Ok(text.to_owned()) } else { Err(wrong.to_owned()) }
}

fn sensors(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=MAX_SENSORS) => Ok(count),
        _ => Err(format!("not a number from 1 to {MAX_SENSORS}")),
    }
}

/// With one node a kill would leave nobody to turn to.
fn nodes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 2..=MAX_NODES) => Ok(count),
        _ => Err(format!("not a number from 2 to {MAX_NODES}")),
    }
}

impl NodeArgs {
    fn transports(&self) -> Vec<Transport> {
        let websocket = |urls: Vec<String>| Transport::WebSocket { urls, cbor: self.cbor };
        let mut all = Vec::new();
        if !self.url.is_empty() {
            all.push(websocket(self.url.clone()));
        }
        if !self.mqtt.is_empty() {
            all.push(Transport::Mqtt { addresses: self.mqtt.clone() });
        }
        if all.is_empty() {
            all.push(websocket(vec![DEFAULT_URL.to_owned()]));
        }
        all
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args).await.and_then(|summary| finish(&summary)),
        Command::Replay(args) => replay(args).await.and_then(|summary| finish(&summary)),
        Command::Demo(args) => demo(args).await,
    };
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("firmware-sim: {reason}");
            ExitCode::from(1)
        }
    }
}

fn finish(summary: &Summary) -> Result<ExitCode, String> {
    for (complaint, count) in &summary.complaints {
        eprintln!("{count} x {complaint}");
    }
    writeln!(io::stdout(), "{summary}").map_err(|error| format!("cannot write the summary: {error}"))?;
    Ok(ExitCode::from(u8::from(!summary.complete())))
}

/// Resolves with the next Ctrl-C or `SIGTERM`.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        // Without signals a process ends as it does without us.
        return std::future::pending().await;
    };
    // Both are cancel safe.
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn run(args: RunArgs) -> Result<Summary, String> {
    let options = fleet::Options {
        duration: Some(args.duration),
        patience: args.node.patience,
        token: args.node.token.clone(),
        ..fleet::Options::new(args.node.transports(), args.seed)
    };
    let members = (0..args.sensors).map(|index| fleet::member(args.scenario, args.seed, index)).collect();
    let report = fleet::run(members, &options, true, interrupted).await.map_err(|error| error.to_string())?;
    if let Some(path) = args.report {
        write_json(&path, &report)?;
    }
    Ok(report.total)
}

async fn demo(args: DemoArgs) -> Result<ExitCode, String> {
    let options = demo::Options {
        program: demo::program::find(args.sensorium).map_err(|error| error.to_string())?,
        nodes: args.nodes,
        sensors: args.sensors,
        kills: args.kills,
        seed: args.seed,
        browser: !args.no_browser,
    };
    // Dropping the demo ends its nodes.
    let report = tokio::select! {
        report = demo::run(&options, |line| eprintln!("{line}")) => report.map_err(|error| error.to_string())?,
        () = interrupted() => return Err("interrupted; the nodes are stopped".to_owned()),
    };
    if let Some(path) = args.report {
        write_json(&path, &report)?;
    }
    let devices = &report.devices;
    for (complaint, count) in &devices.complaints {
        eprintln!("{count} x {complaint}");
    }
    if !devices.complete() {
        eprintln!("{} samples were never acknowledged", devices.gaps);
    }
    if report.verdict.different > 0 {
        eprintln!("nodes differ in {} samples", report.verdict.different);
    }
    writeln!(io::stdout(), "{report}").map_err(|error| format!("cannot write the report: {error}"))?;
    Ok(ExitCode::from(u8::from(!report.is_clean())))
}

fn write_json(path: &Path, report: &impl serde::Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    std::fs::write(path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))
}

async fn replay(args: ReplayArgs) -> Result<Summary, String> {
    let mut transports = args.node.transports();
    if transports.len() > 1 {
        return Err("a replay is one device: give --url or --mqtt, not both".to_owned());
    }
    let options = replay::Options {
        attribute: args.attribute,
        kind: args.kind,
        speed: match args.speed {
            SpeedArg::Real => Speed::Real,
            SpeedArg::Max => Speed::Max,
        },
        from_now: args.from_now,
        duration: args.duration,
        acks: args.acks,
        patience: args.node.patience,
        token: args.node.token,
        progress: true,
        ..replay::Options::new(args.file, args.sensor, transports.remove(0))
    };
    replay::replay(options).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together_and_says_what_now_is() {
        Cli::command().debug_assert();
        let help = Cli::command().find_subcommand_mut("replay").unwrap().render_long_help().to_string();
        assert!(help.contains("--speed max --from-now     the last row is now"));
    }

    #[test]
    fn without_an_address_it_is_the_node_next_door() {
        let cli = Cli::try_parse_from(["firmware-sim", "run"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert!(
            matches!(&args.node.transports()[..], [Transport::WebSocket { urls, .. }] if urls == &[DEFAULT_URL])
        );
    }
}
