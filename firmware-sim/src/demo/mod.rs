//! Failures before an audience: real node processes, devices that stream to them, viewers that watch, nodes that are killed
//! in turn, and at the end a checker that compares every acknowledged sample with what every node answers.
//!
//! | module | what lives there |
//! |---|---|
//! | [`program`], [`ports`], [`process`], [`cluster`] | nodes as processes: where the program is, their addresses, starting them, letting them fail |
//! | [`load`] | devices whose values are unique |
//! | [`viewer`] | a viewer that moves between nodes and notes what it sees |
//! | [`round`] | one failure, and what was noticed of it |
//! | [`check`], [`report`] | what is held against what was promised; the table and the verdict |
//! | [`http`] | `GET` |
//!
//! Tests and benches use the same parts. Nothing here knows how a node works: only its options, its ready line, HTTP,
//! WebSocket and MQTT.

pub mod check;
pub mod cluster;
pub mod http;
pub mod load;
pub mod ports;
pub mod process;
pub mod program;
pub mod report;
pub mod round;
pub mod viewer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::client::{BadAddress, Transport};
use crate::fleet::{self, Fleet, FleetError};
use crate::signals::noise::derive;
use check::{Acked, CheckError, MAX_SAMPLES, Verdict};
use cluster::{Cluster, ClusterError, Plan};
use report::{Report, shown, thousands};
use round::{Audience, Failure, Round};
use viewer::Viewer;

/// Between two frames of a device. Gaps are seen only as finely as this.
pub const FRAME: Duration = Duration::from_millis(25);
/// Before the first kill, between two, and after the last: time to look at the pages.
const CALM: Duration = Duration::from_secs(2);
/// How long a node stays dead at least.
const DOWN: Duration = Duration::from_secs(2);
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long devices may wait for an acknowledgement before the demo has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nodes may take to answer alike, and viewers to see everything, after the last acknowledgement.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// Seconds that a demo may take without a kill, and more for each, generously: rings must hold all of it.
const SECONDS: (u64, u64) = (60, 20);
/// Samples a second of the fastest signal.
const FASTEST_HZ: u64 = 250;

/// How large a demo.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `sensorium`.
    pub program: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How many sensors.
    pub sensors: usize,
    /// How many kills.
    pub kills: usize,
    /// Same seed, same measurements and same order of kills.
    pub seed: u64,
    /// Whether to open a browser.
    pub browser: bool,
}

/// The demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The nodes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The devices.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The viewers.
    #[error("viewer: address {0}")]
    Viewer(#[from] BadAddress),
    /// The checker.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Runs a demo. What happens is told to `say`, line by line. Dropped, it ends all its processes.
pub async fn run(options: &Options, say: impl Fn(&str)) -> Result<Report, DemoError> {
    let seconds = SECONDS.0 + SECONDS.1 * options.kills as u64;
    let keep = (FASTEST_HZ * seconds).min(MAX_SAMPLES as u64);
    say(&format!("starting {} nodes of {}", options.nodes, options.program.display()));
    let plan = Plan {
        program: options.program.clone(),
        nodes: options.nodes,
        options: vec!["--keep".into(), keep.to_string()],
    };
    let mut cluster = Cluster::start(&plan).await?;
    for node in cluster.nodes() {
        let http = node.ready().map_err(ClusterError::from)?.http;
        say(&format!("node {}: http://{http} (process {})", node.name(), node.pid().unwrap_or(0)));
    }
    if options.browser {
        open_browser(&cluster);
    }

    let members = load::plausible(options.sensors, options.seed, keep);
    let series = load::series(&members);
    let urls = cluster.urls();
    let viewers = (0..options.nodes)
        .map(|at| Viewer::start(&urls, at, series.clone(), derive(options.seed, "viewer", at as u64)))
        .collect::<Result<Vec<_>, _>>()?;
    let acks = cluster.directory().join("acks");
    let devices = fleet::Options {
        frame: Some(FRAME),
        acks: Some(acks.clone()),
        patience: PATIENCE,
        ..fleet::Options::new(
            vec![
                Transport::WebSocket { urls: urls.clone(), cbor: false },
                Transport::Mqtt { addresses: cluster.brokers() },
            ],
            options.seed,
        )
    };
    let mut fleet = Fleet::start(members, &devices)?;
    let audience = Audience { fleet: &fleet, viewers: &viewers };
    say(&format!(
        "{} sensors stream {} series over WebSocket and MQTT to all nodes; {} viewers watch",
        options.sensors,
        series.len(),
        viewers.len()
    ));
    // Both are cancel safe enough: when the rounds are over, nothing but a line is cut off.
    let kills = tokio::select! {
        kills = rounds(&mut cluster, options, audience, &say) => kills?,
        never = progress(audience, &say) => match never {},
    };

    say("the devices stop; what they have is still delivered");
    fleet.stop();
    fleet.ended().await;
    let verdict = judge(&cluster, viewers, &acks, keep, &say).await?;
    if !verdict.is_clean() {
        say(&cluster.logs());
    }
    Ok(Report {
        nodes: options.nodes,
        sensors: options.sensors,
        seed: options.seed,
        keep,
        kills,
        devices: fleet.total(),
        verdict,
    })
}

async fn rounds(
    cluster: &mut Cluster,
    options: &Options,
    audience: Audience<'_>,
    say: &impl Fn(&str),
) -> Result<Vec<Round>, ClusterError> {
    let mut rounds = Vec::with_capacity(options.kills);
    let first = derive(options.seed, "kill", 0) as usize;
    sleep(CALM).await;
    for kill in 0..options.kills {
        let at = first.wrapping_add(kill) % options.nodes;
        let node = &cluster.nodes()[at];
        say(&format!(
            "kill {}: SIGKILL to node {} (process {})",
            kill + 1,
            node.name(),
            node.pid().unwrap_or(0)
        ));
        let round = round::fail(cluster, at, Failure::Kill, DOWN, audience).await?;
        say(&format!(
            "node {} is back after {}; its {} devices went {} without an acknowledgement, the others {}",
            round.node,
            shown(round.ready_after),
            round.devices,
            shown(round.its_devices),
            shown(round.other_devices),
        ));
        rounds.push(round);
        // Viewers return, so that there is one on every node when the next one dies.
        for (viewer, node) in audience.viewers.iter().zip(cluster.nodes()) {
            let home = node.ready()?.http;
            if viewer.address().is_none_or(|address| !address.contains(&home.to_string())) {
                viewer.go_to(&format!("ws://{home}"));
            }
        }
        sleep(CALM).await;
    }
    Ok(rounds)
}

async fn progress(audience: Audience<'_>, say: &impl Fn(&str)) -> std::convert::Infallible {
    audience.watch();
    let began = Instant::now();
    let mut every = interval_at(began + PROGRESS_EVERY, PROGRESS_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        say(&format!(
            "{:4} s  {} samples acknowledged; longest gap {}, longest silence for a viewer {}",
            began.elapsed().as_secs(),
            thousands(audience.fleet.total().acked),
            shown(Some(audience.longest_gap())),
            shown(Some(audience.longest_silence())),
        ));
    }
}

/// Holds the log of acknowledgements against every running node and every viewer.
pub async fn judge(
    cluster: &Cluster,
    viewers: Vec<Viewer>,
    acks: &std::path::Path,
    keep: u64,
    say: impl Fn(&str),
) -> Result<Verdict, DemoError> {
    let acked = Acked::read(acks)?;
    acked.fits(keep as usize)?;
    let nodes: Vec<(String, SocketAddr)> =
        cluster.running().map(|ready| (format!("node {}", ready.node), ready.http)).collect();
    say(&format!(
        "checking {} acknowledged samples of {} series on {} nodes over HTTP, and what {} viewers saw; rings keep {keep}, the \
         fullest series has {}",
        thousands(acked.samples()),
        acked.series(),
        nodes.len(),
        viewers.len(),
        acked.fullest(),
    ));
    let mut verdict = check::check(&acked, &nodes, SETTLED_WITHIN).await?;
    let began = Instant::now();
    let all_seen = || viewers.iter().all(|viewer| acked.reached_by(viewer.newest()));
    // Each has until then; what is not seen is lost.
    while !all_seen() && began.elapsed() < SETTLED_WITHIN {
        sleep(FRAME).await;
    }
    for (at, viewer) in viewers.into_iter().enumerate() {
        let seen = viewer.finish().await;
        seen.errors.iter().for_each(|error| say(&format!("viewer {}: {error}", at + 1)));
        verdict.judge_viewer(&format!("viewer {}", at + 1), &acked, &seen);
    }
    verdict.examples.iter().for_each(|example| say(&format!("FAULT {example}")));
    Ok(verdict)
}

/// Shows the dashboard, where there is somebody to show it to.
fn open_browser(cluster: &Cluster) {
    let Some(ready) = cluster.running().next() else { return };
    let mut command = std::process::Command::new("xdg-open");
    command.arg(format!("http://{}", ready.http));
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    // Without a desktop there is nothing to open, and nothing is lost.
    if let Ok(mut child) = command.spawn() {
        std::thread::spawn(move || child.wait());
    }
}
