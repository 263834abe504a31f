//! One failure of one node, and what devices and viewers noticed of it.

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};
use tokio::time::sleep_until;

use super::cluster::{Cluster, ClusterError};
use super::viewer::Viewer;
use crate::fleet::Fleet;
use crate::pulse::Pulse;

/// How long devices and viewers may take to find another node.
const MOVED_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop when it is asked to.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How a node fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `SIGKILL`; started again.
    Kill,
    /// `SIGKILL`; started again without its data.
    Wipe,
    /// `SIGSTOP`, later `SIGCONT`.
    Hang,
    /// `SIGTERM`; started again.
    Stop,
}

impl Failure {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Wipe => "SIGKILL and its disk wiped",
            Self::Hang => "SIGSTOP",
            Self::Stop => "SIGTERM",
        }
    }
}

/// What was seen of a failure, from shortly before it until the node was ready again.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Which node.
    pub node: String,
    /// How it failed.
    pub failure: &'static str,
    /// Devices that were on it.
    pub devices: usize,
    /// Viewers that were on it.
    pub viewers: usize,
    /// Longest gap between acknowledgements for its devices.
    #[serde(serialize_with = "milliseconds")]
    pub its_devices: Option<Duration>,
    /// The same for the other devices.
    #[serde(serialize_with = "milliseconds")]
    pub other_devices: Option<Duration>,
    /// For viewers on other nodes: longest silence of a sensor that was on it.
    #[serde(serialize_with = "milliseconds")]
    pub its_sensors: Option<Duration>,
    /// The same for other sensors.
    #[serde(serialize_with = "milliseconds")]
    pub other_sensors: Option<Duration>,
    /// For viewers on it: longest silence of any sensor.
    #[serde(serialize_with = "milliseconds")]
    pub its_viewers: Option<Duration>,
    /// Samples acknowledged meanwhile.
    pub acked: u64,
    /// From its start, or `SIGCONT`, until it was ready and all nodes saw it alive.
    #[serde(serialize_with = "milliseconds")]
    pub ready_after: Option<Duration>,
    /// Exit code, where it was asked to stop; `None` otherwise.
    pub exit: Option<i32>,
}

/// Those on whom failures are tried.
#[derive(Clone, Copy)]
pub struct Audience<'a> {
    /// The devices.
    pub fleet: &'a Fleet,
    /// The viewers.
    pub viewers: &'a [Viewer],
}

impl Audience<'_> {
    /// From now on silences are counted anew.
    pub fn watch(self) {
        self.fleet.tallies().iter().for_each(|(_, tally)| tally.pulse().watch());
        self.viewers.iter().flat_map(Viewer::sensors).for_each(|(_, pulse)| pulse.watch());
    }

    /// Longest gap between acknowledgements of any device.
    pub fn longest_gap(self) -> Duration {
        longest(self.fleet.tallies().iter().map(|(_, tally)| tally.pulse())).unwrap_or_default()
    }

    /// Longest silence of any sensor for any viewer.
    pub fn longest_silence(self) -> Duration {
        longest(self.viewers.iter().flat_map(Viewer::sensors).map(|(_, pulse)| pulse)).unwrap_or_default()
    }
}

/// Who was on a node when it failed.
struct Placed {
    /// By device.
    devices: Vec<bool>,
    /// By viewer.
    viewers: Vec<bool>,
}

impl Placed {
    fn on(cluster: &Cluster, at: usize, audience: Audience<'_>) -> Self {
        let is_there =
            |address: Option<String>| address.is_some_and(|address| cluster.node_at(&address) == Some(at));
        Self {
            devices: audience.fleet.tallies().iter().map(|(_, tally)| is_there(tally.address())).collect(),
            viewers: audience.viewers.iter().map(|viewer| is_there(viewer.address())).collect(),
        }
    }
}

/// Lets node `at` fail for `down`, at least until all that were on it work elsewhere, then brings it back.
pub async fn fail(
    cluster: &mut Cluster,
    at: usize,
    failure: Failure,
    down: Duration,
    audience: Audience<'_>,
) -> Result<Round, ClusterError> {
    audience.watch();
    let placed = Placed::on(cluster, at, audience);
    let acked = audience.fleet.total().acked;
    let since = Instant::now();
    let mut exit = None;
    match failure {
        Failure::Kill | Failure::Wipe => cluster.node_mut(at).kill().await?,
        Failure::Hang => cluster.nodes()[at].hang()?,
        Failure::Stop => exit = Some(cluster.node_mut(at).terminate(STOP_WITHIN).await?),
    }
    work_elsewhere(cluster, at, since, &placed, audience).await?;
    sleep_until((since + down).into()).await;
    let back = Instant::now();
    match failure {
        Failure::Hang => cluster.nodes()[at].go_on()?,
        Failure::Kill | Failure::Stop => drop(cluster.node_mut(at).start().await?),
        Failure::Wipe => {
            cluster.nodes()[at].wipe()?;
            cluster.node_mut(at).start().await?;
        }
    }
    cluster.ready(at).await?;
    cluster.all_alive().await?;
    let ready_after = Some(back.elapsed());

    let tallies = || audience.fleet.tallies().iter().zip(&placed.devices);
    let gap =
        |on: bool| longest(tallies().filter(|(_, its)| **its == on).map(|((_, tally), _)| tally.pulse()));
    // A sensor is one of the node's if its device was on it.
    let its_own = |sensor: &str| tallies().any(|((device, _), its)| *its && device == sensor);
    let silence = |viewers_on: bool, sensors: &dyn Fn(&str) -> bool| {
        let viewers = audience.viewers.iter().zip(&placed.viewers).filter(|(_, on)| **on == viewers_on);
        let sensors = viewers.flat_map(|(viewer, _)| viewer.sensors()).filter(|(sensor, _)| sensors(sensor));
        longest(sensors.map(|(_, pulse)| pulse))
    };
    let count = |placed: &[bool]| placed.iter().filter(|on| **on).count();
    Ok(Round {
        node: cluster.nodes()[at].name().to_owned(),
        failure: failure.name(),
        devices: count(&placed.devices),
        viewers: count(&placed.viewers),
        its_devices: gap(true),
        other_devices: gap(false),
        its_sensors: silence(false, &its_own),
        other_sensors: silence(false, &|sensor| !its_own(sensor)),
        its_viewers: silence(true, &|_| true),
        acked: audience.fleet.total().acked - acked,
        ready_after,
        exit,
    })
}

/// Waits until every device and viewer that was on node `at` has got something from another one.
async fn work_elsewhere(
    cluster: &Cluster,
    at: usize,
    since: Instant,
    placed: &Placed,
    audience: Audience<'_>,
) -> Result<(), ClusterError> {
    let elsewhere =
        |address: Option<String>| address.is_some_and(|address| cluster.node_at(&address) != Some(at));
    let later = |pulse: &Pulse| pulse.last().is_some_and(|last| last > since);
    let what = format!("all devices and viewers of node {} work elsewhere", cluster.nodes()[at].name());
    cluster
        .eventually(&what, MOVED_WITHIN, async || {
            let devices = audience.fleet.tallies().iter().zip(&placed.devices).filter(|(_, on)| **on);
            for ((sensor, tally), _) in devices {
                if !(elsewhere(tally.address()) && later(tally.pulse())) {
                    return Err(format!("{sensor} is on {:?}: {:?}", tally.address(), tally.summary()));
                }
            }
            let viewers = audience.viewers.iter().zip(&placed.viewers).filter(|(_, on)| **on);
            for (viewer, _) in viewers {
                let hears = viewer.sensors().iter().any(|(_, pulse)| later(pulse));
                if !(elsewhere(viewer.address()) && hears) {
                    return Err(format!("a viewer is on {:?}", viewer.address()));
                }
            }
            Ok(())
        })
        .await?;
    Ok(())
}

fn longest<'a>(pulses: impl Iterator<Item = &'a Pulse>) -> Option<Duration> {
    pulses.map(Pulse::longest).max()
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64() * 1000.0).serialize(serializer)
}
